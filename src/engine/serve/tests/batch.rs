//! The batch dialect against the real server: what it makes of whatever a client sends.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::{Client, KEY, OK, Story};
use crate::delta::{blocks, following};
use crate::model::{FileKind, Timestamp};
use crate::wire::Attributes;
use crate::wire::batch::{Answer, Described, MAX_OPEN, Offer, Push};
use crate::wire::frame::{Frame, MAX_BODY};

const MTIME: Timestamp = Timestamp { seconds: 1_500_000_000, nanoseconds: 7 };

/// A session in which frames are spoken.
struct Frames {
    client: Client,
}

impl Frames {
    async fn begin(story: &Story) -> Self {
        let mut client = story.greet().await;
        client.ask("BATCH 1", "OK (batch 1).").await;
        let mut frames = Self { client };
        frames.send(&[Push::Key(KEY.to_owned())]).await;
        frames
    }

    async fn send(&mut self, messages: &[Push]) {
        let bytes: Vec<u8> = messages.iter().flat_map(Push::encode).collect();
        self.client.send(&bytes).await;
    }

    async fn hear(&mut self) -> Answer {
        let header = self.client.bytes(5).await;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let body = self.client.bytes(length).await;
        Answer::parse(Frame { kind: header[0], body: body.into() }).unwrap()
    }

    async fn expect(&mut self, answers: &[Answer]) {
        for answer in answers {
            assert_eq!(self.hear().await, *answer);
        }
    }

    async fn refused(&mut self, id: u32) -> String {
        match self.hear().await {
            Answer::Refused { id: refused, text } if refused == id => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Back to lines, and BYE.
    async fn end(mut self) {
        self.send(&[Push::Leave]).await;
        self.expect(&[Answer::Left]).await;
        self.client.bye().await;
    }

    /// The server ends the session over what it was sent.
    async fn expect_the_end(self) {
        let rest = self.client.rest().await;
        assert!(!rest.contains("OK (cu_later)"), "{rest}");
    }
}

fn attributes(mode: u32) -> Attributes {
    Attributes { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw(), mode, mtime: MTIME }
}

fn offer(id: u32, name: &str, kind: FileKind) -> Offer {
    let mode = match kind {
        FileKind::Directory => 0o40_755,
        FileKind::Symlink { .. } => 0o120_777,
        _ => 0o100_644,
    };
    let state = Some(Described { kind, attributes: attributes(mode) });
    Offer { id, forced: false, differs: false, time_only: false, state, name: named(name) }
}

fn named(name: &str) -> Bytes {
    Bytes::from(format!("%d%/{name}").into_bytes())
}

fn file(id: u32, name: &str, content: &str) -> Push {
    Push::Offer(offer(id, name, FileKind::Regular { size: content.len() as u64 }))
}

fn removal(id: u32, name: &str) -> Push {
    Push::Offer(Offer { id, forced: false, differs: false, time_only: false, state: None, name: named(name) })
}

fn content(id: u32, content: &str) -> [Push; 2] {
    let bytes = Bytes::copy_from_slice(content.as_bytes());
    let digest = Sha256::digest(content).into();
    [Push::Data { id, bytes }, Push::End { id, attributes: attributes(0o100_640), digest }]
}

fn done(id: u32) -> Answer {
    Answer::Done { id, already: false }
}

fn already(id: u32) -> Answer {
    Answer::Done { id, already: true }
}

fn want(id: u32) -> Answer {
    Answer::Want { id, described: false }
}

#[tokio::test]
async fn a_tree_arrives_with_everything_that_belongs_to_it() {
    let story = Story::begin();
    let mut frames = Frames::begin(&story).await;
    frames
        .send(&[
            Push::Offer(offer(1, "a", FileKind::Directory)),
            Push::Offer(offer(2, "a/b", FileKind::Directory)),
            file(3, "a/b/f", "content"),
            Push::Offer(offer(4, "a/link", FileKind::Symlink { target: b"b/f".to_vec() })),
            Push::Offer(offer(5, "fifo", FileKind::Fifo)),
        ])
        .await;
    frames.expect(&[want(3)]).await;
    // What needs no content is done while the rest is awaited.
    for _ in 0..4 {
        assert!(matches!(frames.hear().await, Answer::Done { already: false, .. }));
    }
    frames.send(&content(3, "content")).await;
    frames.expect(&[done(3)]).await;
    let times = |id, name| Push::Offer(Offer { time_only: true, ..offer(id, name, FileKind::Directory) });
    frames.send(&[times(6, "a/b"), times(7, "a")]).await;
    frames.expect(&[already(6), already(7)]).await;
    frames.end().await;
    assert_eq!(story.read("a/b/f"), "content");
    assert_eq!(fs::read_link(story.path("d/a/link")).unwrap().to_str(), Some("b/f"));
    for (name, mode) in [("a", 0o755), ("a/b", 0o755), ("a/b/f", 0o640), ("fifo", 0o644)] {
        let metadata = fs::symlink_metadata(story.path("d").join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_500_000_000, 7), "{name}");
        assert!(story.row(name).await.is_some(), "{name}");
    }
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn what_is_equal_is_found_out_by_its_digest_and_only_its_time_is_set() {
    let story = Story::begin();
    story.put("same", "content");
    story.put("other", "CONTENT");
    for name in ["same", "other"] {
        fs::set_permissions(story.path("d").join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    story.check(true).await;
    let inode = |name| fs::metadata(story.path("d").join(name)).unwrap().ino();
    let before = inode("same");
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "same", "content"), file(2, "other", "content")]).await;
    let digest = |content: &str| Sha256::digest(content).into();
    frames
        .expect(&[
            Answer::Compare { id: 1, digest: digest("content") },
            Answer::Compare { id: 2, digest: digest("CONTENT") },
        ])
        .await;
    let Push::Offer(again) = file(2, "other", "content") else { panic!("an offer") };
    frames.send(&[Push::Same { id: 1 }, Push::Offer(Offer { differs: true, ..again })]).await;
    frames.expect(&[want(2), already(1)]).await;
    frames.send(&content(2, "content")).await;
    frames.expect(&[done(2)]).await;
    frames.end().await;
    assert_eq!((story.read("same"), story.read("other")), ("content".to_owned(), "content".to_owned()));
    assert_eq!((inode("same"), fs::metadata(story.path("d/same")).unwrap().mtime()), (before, 1_500_000_000));
}

#[tokio::test]
async fn what_was_changed_here_is_a_conflict_with_all_that_decides_it() {
    let story = Story::begin();
    story.put("f", "known");
    story.check(true).await;
    story.put("f", "changed here");
    let metadata = fs::metadata(story.path("d/f")).unwrap();
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "f", "theirs")]).await;
    let Answer::Conflict { id: 1, theirs: Some(theirs) } = frames.hear().await else { panic!("no conflict") };
    assert_eq!((theirs.mtime.seconds, theirs.size), (metadata.mtime(), 12));
    let Push::Offer(again) = file(1, "f", "theirs") else { panic!("an offer") };
    frames.send(&[Push::Offer(Offer { forced: true, ..again })]).await;
    frames.expect(&[want(1)]).await;
    frames.send(&content(1, "theirs")).await;
    frames.expect(&[done(1)]).await;
    frames.end().await;
    assert_eq!(story.read("f"), "theirs");
    assert_eq!(story.dirty("f").await, [""; 0]);
}

#[tokio::test]
async fn what_is_changed_while_its_content_comes_is_a_conflict() {
    let story = Story::begin();
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "f", "theirs")]).await;
    frames.expect(&[want(1)]).await;
    story.put("f", "made here meanwhile");
    frames.send(&content(1, "theirs")).await;
    assert!(matches!(frames.hear().await, Answer::Conflict { id: 1, theirs: Some(_) }));
    frames.end().await;
    assert_eq!(story.read("f"), "made here meanwhile");
    assert_eq!(story.dirty("f").await, ["localhost", "third"]);
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn what_is_refused_costs_only_itself() {
    let story = Story::begin();
    symlink(story.path("out"), story.path("d/way-out")).unwrap();
    story.put("full/f", "here");
    story.put("stuffed/f", "here");
    story.check(true).await;
    let mut frames = Frames::begin(&story).await;
    frames
        .send(&[
            file(1, "no", "excluded"),
            file(2, "way-out/f", "outside"),
            file(3, "missing/f", "no parent"),
            file(4, "full", "a directory is in the way"),
            file(5, "good", "good"),
            file(6, "good", "the same once more"),
            removal(7, "stuffed"),
            removal(8, "nothing"),
            removal(9, "nowhere/f"),
        ])
        .await;
    assert_eq!(frames.refused(1).await, "Permission denied!");
    assert_eq!(frames.refused(6).await, "It is offered under another id as well");
    frames.expect(&[already(8), already(9)]).await;
    assert_eq!(frames.refused(7).await, "Directory not empty");
    assert_eq!(frames.refused(2).await, "Too many levels of symbolic links");
    assert_eq!(frames.refused(3).await, "Parent dir missing.");
    assert_eq!(frames.refused(4).await, "Directory not empty");
    frames.expect(&[want(5)]).await;
    frames.send(&content(5, "good")).await;
    frames.expect(&[done(5)]).await;
    frames.end().await;
    assert_eq!(story.read("good"), "good");
    assert_eq!(fs::read_dir(story.path("out")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_content_that_is_not_what_its_digest_says_changes_nothing() {
    let story = Story::begin();
    story.put("f", "old");
    story.check(true).await;
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "f", "newer")]).await;
    frames.expect(&[want(1)]).await;
    let [data, _] = content(1, "newer");
    let [_, end] = content(1, "other");
    frames.send(&[data, end]).await;
    assert_eq!(frames.refused(1).await, "The content did not arrive as it was sent");
    // One that is called off is no error.
    frames.send(&[file(2, "f", "newer")]).await;
    frames.expect(&[want(2)]).await;
    frames.send(&[content(2, "new")[0].clone(), Push::Cancel { id: 2 }]).await;
    frames.end().await;
    assert_eq!((story.read("f"), story.names()), ("old".to_owned(), vec!["f".to_owned()]));
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn pieces_of_the_old_content_are_copied() {
    let story = Story::begin();
    let old = (0..20_000).map(|number| number.to_string()).collect::<Vec<_>>().join(" line\n");
    story.put("f", &old);
    story.check(true).await;
    let new = format!("{}put in{}", &old[..100_000], &old[100_000..]);
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "f", &new)]).await;
    frames.expect(&[Answer::Want { id: 1, described: true }]).await;
    let Answer::Sums { id: 1, bytes } = frames.hear().await else { panic!("no sums") };
    frames.expect(&[Answer::Sums { id: 1, bytes: Bytes::new() }]).await;
    let block_length = u32::from_be_bytes(*bytes.first_chunk().unwrap());
    assert_eq!((bytes.len() - following::HEAD) / blocks::SUM, old.len().div_ceil(block_length as usize));
    let [_, end] = content(1, &new);
    let copy = |offset: u64, length: u64| Push::Copy { id: 1, offset, length };
    let between = Push::Data { id: 1, bytes: Bytes::from_static(b"put in") };
    frames.send(&[copy(0, 100_000), between, copy(100_000, old.len() as u64), end]).await;
    frames.expect(&[done(1)]).await;
    frames.end().await;
    assert!(story.read("f") == new);
}

#[tokio::test]
async fn packed_content_is_unpacked_and_a_bomb_refused() {
    let story = Story::begin();
    let text = "a line of text\n".repeat(10_000);
    let packed = |id: u32, content: &[u8]| {
        let bytes = zstd::bulk::compress(content, 3).unwrap().into();
        Push::Packed { id, bytes }
    };
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "f", &text)]).await;
    frames.expect(&[want(1)]).await;
    frames.send(&[packed(1, text.as_bytes()), content(1, &text)[1].clone()]).await;
    frames.expect(&[done(1)]).await;
    for (id, bad) in [packed(2, &vec![0; MAX_BODY + 1]), Push::Packed { id: 3, bytes: Bytes::from_static(b"x") }]
        .into_iter()
        .enumerate()
    {
        let id = u32::try_from(id).unwrap() + 2;
        frames.send(&[file(id, "g", &text)]).await;
        frames.expect(&[want(id)]).await;
        frames.send(&[bad, content(id, &text)[1].clone()]).await;
        assert_eq!(frames.refused(id).await, "The content did not arrive as it was sent");
    }
    frames.end().await;
    assert!(story.read("f") == text);
    assert_eq!(story.names(), ["f"]);
}

#[tokio::test]
async fn a_client_that_has_lost_step_is_left() {
    let story = Story::begin();
    story.put("same", "content");
    story.check(true).await;
    let data = |id| content(id, "x")[0].clone();
    let cases: Vec<Vec<u8>> = vec![
        b"HELLO localhost\n".to_vec(),
        vec![0x7f, 0, 0, 0, 0],
        [&[0x03][..], &u32::try_from(MAX_BODY + 1).unwrap().to_be_bytes()].concat(),
        vec![0x02, 0, 0, 0, 2, 0, 0],
        data(1).encode(),
        Push::Same { id: 1 }.encode(),
        [file(1, "a", "x").encode(), file(1, "b", "x").encode()].concat(),
        [file(1, "a", "x").encode(), Push::Leave.encode()].concat(),
        [Push::Offer(offer(1, "link", FileKind::Symlink { target: b"x".to_vec() })).encode(), data(1).encode()]
            .concat(),
        Push::Offer(Offer { differs: true, ..offer(1, "a", FileKind::Fifo) }).encode(),
        (0..=u32::try_from(MAX_OPEN).unwrap()).flat_map(|id| file(id, &format!("f{id}"), "x").encode()).collect(),
    ];
    for (number, bytes) in cases.into_iter().enumerate() {
        let mut frames = Frames::begin(&story).await;
        // Much of it is never read when the session ends over the beginning.
        let sent = tokio::time::timeout(std::time::Duration::from_secs(20), frames.client.send_what_is_taken(&bytes));
        sent.await.unwrap_or_else(|_| panic!("case {number} hangs"));
        frames.expect_the_end().await;
    }
    assert_eq!(story.names(), ["link", "same"], "a link needs no content");
}

#[tokio::test]
async fn a_session_may_break_off_after_any_byte() {
    let whole: Vec<u8> = [
        Push::Key(KEY.to_owned()).encode(),
        Push::Offer(offer(1, "a", FileKind::Directory)).encode(),
        file(2, "a/f", "new content").encode(),
        removal(3, "gone").encode(),
        content(2, "new content").iter().flat_map(Push::encode).collect(),
    ]
    .concat();
    for cut in (0..whole.len()).step_by(7).chain([whole.len()]) {
        let story = Story::begin();
        story.put("a/f", "old");
        story.put("gone", "x");
        story.check(true).await;
        let mut client = story.greet().await;
        client.ask("BATCH 1", "OK (batch 1).").await;
        client.send(&whole[..cut]).await;
        client.vanish().await;
        let content = story.read("a/f");
        assert!(content == "old" || (content == "new content" && cut == whole.len()), "{cut}: {content}");
        assert_eq!(story.intents().await, 0, "{cut}");
        assert!(story.names().iter().all(|name| !name.starts_with('.')), "{cut}: {:?}", story.names());
        // Nothing that arrived counts as a change of ours.
        story.check(false).await;
        assert_eq!(story.dirty("a/f").await, [""; 0], "{cut}");
        assert_eq!(story.dirty("gone").await, [""; 0], "{cut}");
    }
}

#[tokio::test]
async fn frames_are_spoken_only_where_both_want_it() {
    let story = Story::with("} batches no; group other { host server; key DIR/key; ");
    let mut client = story.greet().await;
    client.ask("BATCH 1 1", "Unknown command!").await;
    client.ask("BATCH 1", "Unknown command!").await;
    client.bye().await;
    let story = Story::begin();
    let mut client = story.connect();
    client.ask("CONFIG ", OK).await;
    client.ask("BATCH 1 9", "OK (batch 1).").await;
    client.ask("BATCH 2 9", "Unknown command!").await;
    client.ask("BATCH 1", "Dear 127.0.0.1, please identify first.").await;
    client.ask("HELLO localhost", OK).await;
    client.ask("BATCH 2", "Unknown command!").await;
    // Another name may follow in the same session.
    for _ in 0..2 {
        client.ask("BATCH 1", "OK (batch 1).").await;
        client.send(&Push::Leave.encode()).await;
        assert_eq!(client.bytes(5).await, Answer::Left.encode());
        client.ask("HELLO localhost", OK).await;
    }
    client.bye().await;
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let story = Story::begin();
    let mut frames = Frames::begin(&story).await;
    let sent: Vec<u8> = [file(1, "f", "content"), Push::Offer(offer(2, "d", FileKind::Directory))]
        .iter()
        .flat_map(Push::encode)
        .collect();
    let mut buffer = BytesMut::from(&sent[..]);
    while !buffer.is_empty() {
        let piece = buffer.split_to(buffer.len().min(3));
        frames.client.send(&piece).await;
        tokio::task::yield_now().await;
    }
    let mut answers = [frames.hear().await, frames.hear().await];
    answers.sort_by_key(|answer| *answer != want(1));
    assert_eq!(answers, [want(1), done(2)]);
    frames.send(&content(1, "content")).await;
    frames.expect(&[done(1)]).await;
    frames.end().await;
}

#[tokio::test]
async fn no_name_in_a_frame_leads_out_of_the_group() {
    let story = Story::begin();
    fs::write(story.path("out/file"), "untouched").unwrap();
    symlink(story.path("out"), story.path("d/link")).unwrap();
    story.check(true).await;
    let names: Vec<Vec<u8>> = [
        "%d%/../out/file",
        "%d%/dir/../../out/file",
        "%d%/..",
        "%d%/.",
        "%d%//f",
        "%d%/f/",
        "%d%/no/f",
        "%dx%/f",
        "%o%/file",
        "%%/f",
        "d/f",
        "/etc/passwd",
        "/",
        "",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .chain([b"%d%/f\0g".to_vec(), story.path("out/file").into_os_string().into_encoded_bytes()])
    .collect();
    let mut frames = Frames::begin(&story).await;
    for (id, name) in (0..).zip(&names) {
        for state in [None, Some(FileKind::Directory), Some(FileKind::Regular { size: 0 }), Some(FileKind::Fifo)] {
            let state = state.map(|kind| Described { kind, attributes: attributes(0o100_644) });
            let name = Bytes::copy_from_slice(name);
            frames
                .send(&[Push::Offer(Offer { id, forced: true, differs: false, time_only: false, state, name })])
                .await;
            assert_eq!(frames.refused(id).await, "Permission denied!");
        }
    }
    frames.send(&[Push::Key("another_key_which_is_long_enough_for_everybody".to_owned()), file(99, "f", "x")]).await;
    assert_eq!(frames.refused(99).await, "Permission denied!");
    frames.end().await;
    assert_eq!(fs::read_to_string(story.path("out/file")).unwrap(), "untouched");
    assert_eq!(story.names(), ["link"]);
}

#[tokio::test]
async fn an_offer_opens_nothing_that_is_no_file() {
    let story = Story::begin();
    for name in ["fifo", "same"] {
        let path = story.path("d").join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    }
    symlink("/dev/zero", story.path("d/link")).unwrap();
    story.check(true).await;
    // An open FIFO would wait for a writer, /dev/zero would never end; as a basis the link has the length of a file.
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "fifo", "a file now"), file(2, "link", "/dev/zero")]).await;
    frames.expect(&[want(1), want(2)]).await;
    frames.send(&content(1, "a file now")).await;
    frames.send(&content(2, "/dev/zero")).await;
    let mut closed = [frames.hear().await, frames.hear().await];
    closed.sort_by_key(|answer| *answer != done(1));
    assert_eq!(closed, [done(1), done(2)]);
    frames.send(&[Push::Offer(offer(3, "same", FileKind::Fifo))]).await;
    assert!(matches!(frames.hear().await, Answer::Done { id: 3, .. }));
    frames.end().await;
    assert_eq!((story.read("fifo"), story.read("link")), ("a file now".to_owned(), "/dev/zero".to_owned()));
}

#[tokio::test]
async fn a_file_with_names_outside_is_not_changed_by_an_offer() {
    let story = Story::begin();
    let outside = story.path("out/file");
    fs::write(&outside, "outside").unwrap();
    fs::hard_link(&outside, story.path("d/hard")).unwrap();
    let look = || (fs::read_to_string(&outside).unwrap(), fs::metadata(&outside).unwrap().mtime());
    let before = look();
    story.check(true).await;
    let mode = fs::metadata(&outside).unwrap().mode();
    let mut frames = Frames::begin(&story).await;
    // Equal but for its time: no content is asked for.
    let mut equal = offer(1, "hard", FileKind::Regular { size: 7 });
    equal.state.as_mut().unwrap().attributes.mode = mode;
    frames.send(&[Push::Offer(equal)]).await;
    assert!(matches!(frames.hear().await, Answer::Compare { id: 1, .. }));
    frames.send(&[Push::Same { id: 1 }]).await;
    frames.expect(&[already(1)]).await;
    assert_eq!(look(), before);
    frames.send(&[file(2, "hard", "inside")]).await;
    frames.expect(&[want(2)]).await;
    frames.send(&content(2, "inside")).await;
    frames.expect(&[done(2)]).await;
    frames.end().await;
    assert_eq!((look(), story.read("hard").as_str()), (before, "inside"));
}

#[tokio::test]
async fn copies_cannot_fill_the_disk() {
    let story = Story::begin();
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap();
    fs::write(story.path("csync2.cfg"), format!("max-file-size 100K; {config}")).unwrap();
    let old = "0123456789abcdef".repeat(4096);
    story.put("f", &old);
    story.check(true).await;
    let mut frames = Frames::begin(&story).await;
    frames.send(&[file(1, "g", &"x".repeat(102_401)), file(2, "f", &"y".repeat(102_400))]).await;
    assert_eq!(frames.refused(1).await, "File too large: max-file-size allows 102400 bytes here");
    frames.expect(&[Answer::Want { id: 2, described: true }]).await;
    assert!(matches!(frames.hear().await, Answer::Sums { id: 2, .. }));
    frames.expect(&[Answer::Sums { id: 2, bytes: Bytes::new() }]).await;
    // Twenty bytes each: the old content again and again.
    let copy = Push::Copy { id: 2, offset: 0, length: old.len() as u64 };
    frames.send(&[copy.clone(), copy]).await;
    assert_eq!(frames.refused(2).await, "File too large: max-file-size allows 102400 bytes here");
    frames.send(&[Push::Cancel { id: 2 }]).await;
    frames.end().await;
    assert!(story.read("f") == old);
    assert_eq!(story.names(), ["f"]);
}
