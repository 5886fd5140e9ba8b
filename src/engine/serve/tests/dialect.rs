//! The second dialect: sessions recorded between hosts of the fork, and the unit of times.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Client, KEY, OK, Story};
use crate::model::Timestamp;

const FOLLOWS: &str = "OK (data_follows).";

/// One recorded line: who sent it, and its bytes.
type Line = (char, Vec<u8>);

fn recording(name: &str) -> Vec<Line> {
    let file = format!("{}/tests/fixtures/fork/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (side, bytes) = line.split_once(": ").unwrap();
            let bytes = unescape(bytes);
            // The key of the recordings is a dummy; the peer has another name here.
            let dummy = [b'K'; 64];
            let bytes = replace(&replace(&bytes, &dummy, KEY.as_bytes()), b"1.csync2.test", b"localhost");
            (side.chars().next().unwrap(), bytes)
        })
        .collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, used) = match (first, tail) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', high, low, ..]) => {
                (u8::from_str_radix(std::str::from_utf8(&[*high, *low]).unwrap(), 16).unwrap(), 4)
            }
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    bytes
}

fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    match bytes.windows(old.len()).position(|window| window == old) {
        Some(at) => [&bytes[..at], new, &bytes[at + old.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

async fn replay(story: &Story, name: &str) {
    let mut client: Client = story.connect();
    for (side, bytes) in recording(name) {
        if side == 'C' {
            client.send(&bytes).await;
            continue;
        }
        let answer = client.bytes(bytes.len()).await;
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(&bytes), "{name}");
    }
    assert_eq!(client.rest().await, "", "{name}");
}

fn mtime(story: &Story, name: &str) -> i64 {
    let found = fs::symlink_metadata(story.path("d").join(name)).unwrap();
    found.mtime() * 1_000_000_000 + found.mtime_nsec()
}

fn mode(story: &Story, name: &str) -> u32 {
    fs::symlink_metadata(story.path("d").join(name)).unwrap().mode() & 0o7777
}

fn set_mtime(story: &Story, name: &str, nanoseconds: i64) {
    let place = crate::fs::Root::open(&story.path("d")).unwrap().locate(name.as_bytes()).unwrap();
    place.set_times(Timestamp::from_nanoseconds(nanoseconds)).unwrap();
}

/// The recordings were made by root, and say so in every SIG.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn story() -> Story {
    use std::os::unix::fs::PermissionsExt;
    let story = Story::begin();
    fs::set_permissions(story.path("d"), fs::Permissions::from_mode(0o755)).unwrap();
    story
}

#[tokio::test]
async fn files_come_change_and_go() {
    if !is_root() {
        return;
    }
    let story = story();
    story.check(true).await;
    replay(&story, "fork-new-file").await;
    assert_eq!((story.read("new file").as_str(), mode(&story, "new file")), ("hello\n", 0o644));
    assert_eq!(mtime(&story, "new file"), 1_600_000_000_123_456_789);
    replay(&story, "fork-changed-file").await;
    assert_eq!(story.read("new file"), "hello world\n");
    assert_eq!(mtime(&story, "new file"), 1_600_000_100_000_000_001);
    assert!(story.row("new file").await.unwrap().starts_with("v1:mtime=1600000100:"), "our tables are in seconds");
    replay(&story, "fork-delete").await;
    assert!(story.names().is_empty());
    story.check(false).await;
    assert!(story.dirty("new file").await.is_empty());
}

#[tokio::test]
async fn directories_links_and_conflicts() {
    if !is_root() {
        return;
    }
    let story = story();
    story.check(true).await;
    replay(&story, "fork-directory").await;
    assert_eq!((mode(&story, "sub"), story.read("sub/a").as_str()), (0o750, "x"));
    assert_eq!(mtime(&story, "sub/a"), 1_600_000_000_123_456_789);
    assert_eq!(fs::read_link(story.path("d/sub/link")).unwrap().to_str(), Some("a"));
    story.check(false).await;
    for name in ["sub", "sub/a", "sub/fifo", "sub/link"] {
        assert!(story.dirty(name).await.is_empty(), "{name}");
    }
    story.put("sub/a", "theirs");
    set_mtime(&story, "sub/a", 1_600_000_400_000_000_000);
    replay(&story, "fork-conflict").await;
    replay(&story, "fork-conflict-younger").await;
    assert_eq!(story.read("sub/a"), "theirs");
    assert_eq!(story.dirty("sub/a").await, ["localhost", "third"]);
    replay(&story, "fork-forced").await;
    assert_eq!(story.read("sub/a"), "ours is longer");
    assert!(story.dirty("sub/a").await.is_empty());
}

#[tokio::test]
async fn times_of_equal_files_in_either_unit() {
    if !is_root() {
        return;
    }
    let story = story();
    story.put("same", "equal\n");
    set_mtime(&story, "same", 1_500_000_000_000_000_000);
    story.check(true).await;
    replay(&story, "fork-already-equal").await;
    assert_eq!(mtime(&story, "same"), 1_600_000_000_123_456_789);
    fs::remove_file(story.path("d/same")).unwrap();
    story.check(true).await;
    replay(&story, "upstream-to-fork").await;
    assert_eq!(mtime(&story, "f"), 1_600_000_000_000_000_000, "seconds, from a peer that speaks seconds");
}

#[tokio::test]
async fn the_unit_is_that_of_the_sessions_dialect() {
    let story = Story::begin();
    story.put("f", "x");
    set_mtime(&story, "f", 1_600_000_000_000_000_007);
    story.check(true).await;

    let mut client = story.connect();
    client.ask("CONFIG ", OK).await;
    client.ask("ATOMICPATCH", "Dear 127.0.0.1, please identify first.").await;
    client.ask("HELLO localhost", OK).await;
    client.ask("GETTM KEY @/f", FOLLOWS).await;
    client.expect(&["1600000000000000007"]).await;
    assert!(client.answer("LIST server @/f KEY").await.starts_with("v1%3Amtime=1600000000000000007%3A"));
    client.expect(&[OK]).await;
    for sent in [-1_000_000_001, -1, 0, 1, 1_000_000_000, 1_600_000_000_000_000_001] {
        client.ask(&format!("SETIME KEY @/f {sent}"), OK).await;
        assert_eq!(mtime(&story, "f"), sent);
    }
    client.bye().await;

    let mut client = story.greet().await;
    client.ask("GETTM KEY @/f", FOLLOWS).await;
    client.expect(&["1600000000"]).await;
    assert!(client.answer("LIST server @/f KEY").await.starts_with("v1%3Amtime=1600000000%3A"));
    client.expect(&[OK]).await;
    for seconds in [-1, 0, 1, 1_600_000_000] {
        client.ask(&format!("SETIME KEY @/f {seconds}"), OK).await;
        assert_eq!(mtime(&story, "f"), seconds * 1_000_000_000);
    }
    client.ask("SETIME KEY @/f 1600000000000000003", OK).await;
    assert_eq!(mtime(&story, "f"), 1_600_000_000_000_000_003, "no number of seconds");
    // The long MKDIR shows the dialect as well.
    client.ask("MKDIR KEY @/dir 0 0 16877 5", OK).await;
    assert_eq!((mtime(&story, "dir"), mode(&story, "dir")), (5, 0o755));
    client.ask("SETIME KEY @/dir 1", OK).await;
    assert_eq!(mtime(&story, "dir"), 1);
    client.bye().await;
}
