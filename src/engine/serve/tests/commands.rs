//! What each command answers, and what it leaves on disk and in the tables.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::{KEY, OK, Story, path};
use crate::store::DirtyFilter;

const FOLLOWS: &str = "OK (data_follows).";
const DIRTY: &str = "File is also marked dirty here!";
const DEAR: &str = "Dear 127.0.0.1, please identify first.";

#[tokio::test]
async fn the_first_lines_are_ssl_and_config() {
    let story = Story::begin();
    let first = "Expecting SSL (optional) and CONFIG as first commands.";
    let name = "Config names are limited to [a-z0-9]+.";
    for (line, answer) in [
        ("HELLO localhost", first),
        ("BYE", first),
        ("", first),
        ("CONFIG UPPER", name),
        ("CONFIG ../x", name),
        ("SSL", "SSL is not set up on this host."),
    ] {
        let mut client = story.connect();
        client.ask(line, answer).await;
        assert_eq!(client.rest().await, "", "{line} ends the session");
    }
    let mut client = story.connect();
    client.send(b"CONFIG missing\n").await;
    assert_eq!(client.rest().await, "");
    assert!(!story.path("db/server.db3").exists(), "nobody has identified himself yet");
}

#[tokio::test]
async fn a_name_is_believed_only_from_its_address() {
    let story = Story::begin();
    let mut client = story.connect();
    for (request, answer) in [
        ("CONFIG ", OK),
        ("SIG KEY @", DEAR),
        ("LIST server - KEY", DEAR),
        ("HELLO host.invalid", "Identification failed!"),
        ("NONSENSE", "Unknown command!"),
    ] {
        client.ask(request, answer).await;
    }
    assert!(!story.path("db/server.db3").exists());
    for (request, answer) in [
        ("HELLO LOCALHOST", OK),
        ("MKDIR KEY @/one", OK),
        ("HELLO host.invalid", "Identification failed!"),
        ("MKDIR KEY @/two", DEAR),
        ("hello localhost", OK),
        ("CONFIG ", "Unknown command!"),
        ("BYE whatever", "OK (cu_later)."),
    ] {
        client.ask(request, answer).await;
    }
    assert_eq!(story.names(), ["one"]);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn groups_narrow_a_session_at_once_and_only_once() {
    let story = Story::begin();
    let set = "Group list already set!";
    story.play(&[("GROUP g,other", OK), ("GROUP other", set), ("MKDIR KEY @/a", OK)]).await;
    story.play(&[("MKDIR KEY @/b", OK), ("GROUP other", OK), ("MKDIR KEY @/c", "Permission denied!")]).await;
    assert_eq!(story.names(), ["a", "b"]);
}

#[tokio::test]
async fn an_empty_line_gets_no_answer() {
    let story = Story::begin();
    let mut client = story.greet().await;
    client.send(b"\n  \n\t\n").await;
    client.bye().await;
}

/// A tree with one of each kind.
fn zoo() -> Story {
    let story = Story::begin();
    story.put("file", "hello\n");
    story.put("dir/file", "gg");
    story.put("no/file", "x");
    story.put("zero", "");
    fs::create_dir(story.path("d/empty")).unwrap();
    fs::write(story.path("out/file"), "outside").unwrap();
    for (target, name) in [("dir", "to dir"), ("file", "to file"), ("../out", "to out"), ("nowhere", "dangling")] {
        symlink(target, story.path("d").join(name)).unwrap();
    }
    story
}

#[tokio::test]
async fn a_signature_says_what_is_there() {
    let story = zoo();
    story.check(true).await;
    let mut client = story.greet().await;
    let missing = "OK (path_not_found).";
    for (name, answer) in [
        ("@/none", missing),
        ("@/none/x", "Parent dir missing."),
        ("@/dir/none/x", "Parent dir missing."),
        ("@/file/x", "Not a directory"),
        ("@/file/x/y", "Not a directory"),
        ("@/to%20dir/file", "OK (not_found)."),
        ("@/to%20out/file", "OK (not_found)."),
        ("@/no/file", "Permission denied!"),
        ("/etc/passwd", "Permission denied!"),
        ("%25x%25/file", "Permission denied!"),
    ] {
        client.ask(&format!("SIG KEY {name}"), answer).await;
        if answer.starts_with("OK (") {
            client.expect(&["---", "octet-stream 0", OK]).await;
        }
    }
    for (name, kind) in [
        ("@", "type=dir"),
        ("@/dir", "type=dir"),
        ("@/to%20dir", "type=lnk:target=dir"),
        ("@/dangling", "type=lnk:target=nowhere"),
    ] {
        client.ask(&format!("SIG KEY {name}"), FOLLOWS).await;
        let line = client.line().await;
        assert!(line.starts_with("v1:mode=") && line.ends_with(kind), "{line}");
        client.expect(&["octet-stream 0", OK]).await;
    }
    for (name, size, length) in [("file", 6, 32), ("zero", 0, 12)] {
        client.ask(&format!("SIG KEY @/{name}"), FOLLOWS).await;
        let line = client.line().await;
        assert!(line.starts_with("v1:mtime=0:mode=") && line.ends_with(&format!("type=reg:size={size}")), "{line}");
        client.expect(&[&format!("octet-stream {length}")]).await;
        assert_eq!(client.bytes(length).await[..12], *b"rs\x016\0\0\x08\0\0\0\0\x10");
        client.expect(&[OK]).await;
    }
    client.bye().await;
}

#[tokio::test]
async fn numbers_and_contents() {
    let story = zoo();
    let mut client = story.greet().await;
    let size = fs::symlink_metadata(story.path("d/dir")).unwrap().size().to_string();
    let mtime = fs::metadata(story.path("d/file")).unwrap().mtime().to_string();
    for (request, number) in [
        ("GETSZ KEY @/file", "6"),
        ("GETSZ KEY @/none", "-1"),
        ("GETSZ KEY @/none/x", "-1"),
        ("GETSZ KEY @/to%20dir", "3"),
        ("GETSZ KEY @/to%20dir/file", "-1"),
        ("GETSZ KEY @/dir", &size),
        ("GETTM KEY @/file", &mtime),
        ("GETTM KEY @/file/x", "-1"),
    ] {
        client.ask(request, FOLLOWS).await;
        client.expect(&[number]).await;
    }
    client.bye().await;
    for (name, content) in
        [("file", "hello\n"), ("none", ""), ("dir", ""), ("zero", ""), ("to%20file", ""), ("to%20out/file", "")]
    {
        let mut client = story.greet().await;
        client.ask(&format!("TYPE KEY @/{name}"), FOLLOWS).await;
        assert_eq!(client.rest().await, content, "{name}");
    }
    let unreadable = format!("TYPE KEY @/{}", "n".repeat(256));
    story
        .play(&[
            ("TYPE KEY @/file/x", "Not a directory"),
            (&unreadable, "File name too long"),
            ("TYPE WRONG @/file", "Permission denied!"),
        ])
        .await;
}

#[tokio::test]
async fn the_list_holds_what_the_pair_shares() {
    let story = Story::begin();
    story.put("a b", "x");
    story.put("c", "yy");
    story.check(true).await;
    let mut client = story.greet().await;
    for request in ["LIST server - WRONG", "LIST server", "LIST other - KEY", "LIST server @/none KEY"] {
        client.ask(request, OK).await;
    }
    let entry = |name: &str, line: &str| {
        let (checktxt, file) = line.split_once('\t').unwrap();
        assert!(checktxt.starts_with("v1%3Am") && !checktxt.contains(':'), "{line}");
        assert_eq!(file, super::fill_in(name));
    };
    for (request, names) in
        [("LIST server - WRONG KEY", vec!["@", "@/a%20b", "@/c"]), ("LIST server @/c KEY", vec!["@/c"])]
    {
        entry(names[0], &client.answer(request).await);
        for name in &names[1..] {
            entry(name, &client.line().await);
        }
        client.expect(&[OK]).await;
    }
    client.bye().await;
}

#[tokio::test]
async fn marks_and_flushes() {
    let story = Story::begin();
    story.put("f", "x");
    story.check(true).await;
    story.play(&[("MARK KEY @/f", OK), ("MARK KEY @/none", OK), ("MARK WRONG @/f", "Permission denied!")]).await;
    assert_eq!(story.dirty("f").await, ["localhost", "third"]);
    assert_eq!(story.dirty("none").await, ["localhost", "third"]);
    story.put("f", "changed");
    story.play(&[("FLUSH KEY @/f", OK), ("FLUSH KEY @/none", OK)]).await;
    assert!(story.dirty("f").await.is_empty());
    assert!(story.row("f").await.unwrap().ends_with("size=7"), "FLUSH looks first");
}

#[tokio::test]
async fn what_a_peer_lacks_is_marked_for_it_alone_and_pushed() {
    let story = Story::begin();
    story.put("f", "x");
    story.check(true).await;
    let denied = "Permission denied!";
    story
        .play(&[("FETCH KEY @/f", OK), ("FETCH KEY @/none", "OK (path_not_found)."), ("FETCH WRONG @/f", denied)])
        .await;
    assert!(story.dirty("f").await.is_empty(), "without PUSH it is a question");
    story.play(&[("PUSH", OK)]).await;
    // Nobody listens there.
    let failed = "The push ended with 1 errors, see the log of this host.";
    story.play(&[("FETCH KEY @/f", OK), ("FETCH KEY @/f", OK), ("PUSH", failed)]).await;
    assert_eq!(story.dirty("f").await, ["localhost"]);
    story.play(&[("FETCH KEY @/f", OK), ("HELLO localhost", OK), ("PUSH", failed)]).await;
    assert!(story.dirty("none").await.is_empty());
}

#[tokio::test]
async fn a_slave_may_ask_for_what_it_lacks() {
    let story = Story::begin();
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap().replace("host localhost", "host (localhost)");
    fs::write(story.path("csync2.cfg"), config).unwrap();
    story.put("f", "x");
    story.check(true).await;
    story.play(&[("FETCH KEY @/f", OK), ("DEL KEY @/f", "Permission denied for slave!")]).await;
}

#[tokio::test]
async fn a_mark_does_not_take_the_force_of_another() {
    let story = Story::begin();
    story.put("f", "x");
    story.check(false).await;
    let store = story.served().await.store.clone();
    let scopes = vec![crate::model::Scope::File(path("f"))];
    store.force(&scopes).await.unwrap();
    story.play(&[("MARK KEY @/f", OK), ("DEL KEY @/f", DIRTY)]).await;
    let entries = store.dirty(DirtyFilter { peer: None, scopes }).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.forced).collect::<Vec<_>>(), [true, true]);
}

#[tokio::test]
async fn a_slave_is_refused_and_what_it_wanted_is_dirty_for_it() {
    let story = Story::begin();
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap().replace("host localhost", "host (localhost)");
    fs::write(story.path("csync2.cfg"), config).unwrap();
    story.put("f", "x");
    story.check(true).await;
    let refused = "Permission denied for slave!";
    story.play(&[("SIG KEY @/f", refused), ("DEL KEY @/f", refused), ("GETSZ KEY @/f", refused)]).await;
    assert_eq!(story.dirty("f").await, ["localhost", "third"]);
    let mut client = story.greet().await;
    assert!(client.answer("LIST server @/f KEY").await.ends_with("/f"), "slaves may LIST");
    client.expect(&[OK]).await;
    client.bye().await;
}

#[tokio::test]
async fn everything_can_take_the_place_of_everything() {
    for old in ["none", "file", "link", "empty"] {
        for (request, kind) in
            [("MKDIR KEY @/x", 'd'), ("MKLINK KEY @/x a%20b", 'l'), ("MKFIFO KEY @/x", 'p'), ("MKSOCK KEY @/x", '-')]
        {
            let story = Story::begin();
            match old {
                "file" => story.put("x", "old"),
                "link" => symlink("elsewhere", story.path("d/x")).unwrap(),
                "empty" => fs::create_dir(story.path("d/x")).unwrap(),
                _ => {}
            }
            story.check(true).await;
            story.play(&[(request, OK)]).await;
            let found = fs::symlink_metadata(story.path("d/x"));
            let row = story.row("x").await;
            match kind {
                '-' => {
                    assert!(found.is_err() && row.is_none(), "{request} over {old}");
                }
                'l' => {
                    assert_eq!(fs::read_link(story.path("d/x")).unwrap(), Path::new("a b"));
                    assert!(row.unwrap().ends_with(":type=lnk:target=a%20b"));
                }
                _ => {
                    assert_eq!(found.unwrap().mode() & 0o7777, 0o700, "{request} over {old}");
                    assert!(row.unwrap().ends_with(if kind == 'd' { ":type=dir" } else { ":type=fifo" }));
                }
            }
            story.check(false).await;
            assert!(story.dirty("x").await.is_empty(), "{request} over {old}");
            assert_eq!(story.intents().await, 0);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_and_changes_nothing() {
    let story = zoo();
    story.check(true).await;
    let mut client = story.greet().await;
    for (request, answer) in [
        ("MKDIR KEY @/none/x", "No such file or directory"),
        ("MKLINK KEY @/none/x target", "No such file or directory"),
        ("MKFIFO KEY @/file/x", "Not a directory"),
        ("MKDIR KEY @/to%20out/x", "Too many levels of symbolic links"),
        ("MKLINK KEY @/dir target", "File exists"),
        ("MKLINK KEY @/fresh", "No such file or directory"),
        ("DEL KEY @/dir", "Directory not empty"),
        ("DEL KEY @/to%20out/file", "Too many levels of symbolic links"),
        ("PATCH KEY @/dir", "Directory not empty"),
        ("PATCH KEY @/none/x", "No such file or directory"),
        ("PATCH KEY @/file/x", "Not a directory"),
        ("PATCH KEY @/to%20out/file", "Too many levels of symbolic links"),
        ("SETOWN KEY @/none 0 0", "No such file or directory"),
        ("SETMOD KEY @/none/x 33188", "No such file or directory"),
        ("SETIME KEY @/to%20out/file 1", "Too many levels of symbolic links"),
        ("SETOWN KEY @/file a b", "Invalid argument"),
        ("SETMOD KEY @/file", "Invalid argument"),
    ] {
        client.ask(request, answer).await;
    }
    client.bye().await;
    story.check(false).await;
    for name in ["file", "dir", "dir/file", "to out", "none", "fresh"] {
        assert!(story.dirty(name).await.is_empty(), "{name}");
    }
    assert_eq!(fs::read_to_string(story.path("out/file")).unwrap(), "outside");
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn removals() {
    let story = zoo();
    story.check(true).await;
    let requests = ["@/none", "@/none/x", "@/file/x", "@/dir/file", "@/dir", "@/empty", "@/to%20out", "@/file"]
        .map(|name| format!("DEL KEY {name}"));
    let lines: Vec<_> = requests.iter().map(|request| (request.as_str(), OK)).collect();
    story.play(&lines).await;
    assert_eq!(story.names(), ["dangling", "no", "to dir", "to file", "zero"]);
    assert!(story.row("dir/file").await.is_none() && story.row("file").await.is_none());
    assert!(story.path("out/file").exists());
}

#[tokio::test]
async fn local_changes_are_conflicts() {
    let story = Story::begin();
    for name in ["changed", "gone", "same"] {
        story.put(name, "old");
    }
    story.check(true).await;
    story.put("changed", "not what it was");
    story.put("new", "never seen");
    fs::remove_file(story.path("d/gone")).unwrap();
    story
        .play(&[
            ("PATCH KEY @/changed", DIRTY),
            ("DEL KEY @/changed", DIRTY),
            ("MKDIR KEY @/changed", DIRTY),
            ("SETMOD KEY @/changed 33188", DIRTY),
            ("SETIME KEY @/changed 1400000000", DIRTY),
            ("MKSOCK KEY @/new", DIRTY),
            ("DEL KEY @/gone", DIRTY),
            ("SETMOD KEY @/same 33188", OK),
        ])
        .await;
    for name in ["changed", "new", "gone"] {
        assert_eq!(story.dirty(name).await, ["localhost", "third"], "{name}");
    }
    assert!(story.dirty("same").await.is_empty());
    assert_eq!(story.read("changed"), "not what it was");
}

#[tokio::test]
async fn attributes_alone() {
    let story = Story::begin();
    story.put("f", "x");
    fs::hard_link(story.path("d/f"), story.path("out/other name")).unwrap();
    story.check(true).await;
    let before = fs::metadata(story.path("d/f")).unwrap();
    let owner = format!("SETOWN KEY @/f {} {}", before.uid(), before.gid());
    let mode = format!("SETMOD KEY @/f {}", before.mode());
    story.play(&[(&owner, OK), (&mode, OK)]).await;
    assert_eq!(fs::metadata(story.path("d/f")).unwrap().ino(), before.ino(), "what is so already is left alone");
    story.play(&[("SETMOD KEY @/f 33216", OK), ("SETIME KEY @/f -5", OK)]).await;
    let now = fs::metadata(story.path("d/f")).unwrap();
    assert_eq!((now.permissions().mode(), now.mtime(), now.nlink()), (0o100_700, -5, 1));
    let other = fs::metadata(story.path("out/other name")).unwrap();
    assert_eq!((other.mode(), other.mtime()), (before.mode(), before.mtime()), "a name outside the group");
    story.check(false).await;
    assert!(story.dirty("f").await.is_empty());
}

#[tokio::test]
async fn times_say_nothing_about_a_file_that_was_refused() {
    let story = Story::begin();
    story.put("f", "x");
    story.check(true).await;
    story.play(&[("MARK KEY @/f", OK)]).await;
    let mut client = story.greet().await;
    client.ask("SIG KEY @/f", FOLLOWS).await;
    client.line().await;
    client.expect(&["octet-stream 32"]).await;
    client.bytes(32).await;
    client.expect(&[OK]).await;
    client.ask("PATCH KEY @/f", DIRTY).await;
    client.ask("SETIME KEY @/f 1", DIRTY).await;
    client.bye().await;
    assert_eq!(story.dirty("f").await, ["localhost", "third"]);
}

#[tokio::test]
async fn equal_contents_end_a_conflict() {
    let story = Story::begin();
    story.put("f", "x");
    story.check(false).await;
    let mut client = story.greet().await;
    client.ask("SIG KEY @/f", FOLLOWS).await;
    client.line().await;
    client.expect(&["octet-stream 32"]).await;
    client.bytes(32).await;
    client.expect(&[OK]).await;
    client.ask("SETIME KEY @/f 1500000000", OK).await;
    client.bye().await;
    assert_eq!(story.dirty("f").await, ["third"]);
    assert!(story.row("f").await.unwrap().starts_with("v1:mtime=1500000000:"));
}

#[tokio::test]
async fn actions_run_after_changes_only_and_before_the_connection_closes() {
    let story = Story::with("action { exec \"echo %% >> DIR/out/log\"; }");
    story.put("f", "x");
    story.put("g h", "x");
    story.check(true).await;
    let log = || fs::read_to_string(story.path("out/log")).unwrap_or_default();
    story.play(&[("DEL WRONG @/f", "Permission denied!"), ("DEL KEY @/none/../f", "Permission denied!")]).await;
    story.play(&[("GETSZ KEY @/f", FOLLOWS), ("", "1"), ("MARK KEY @/f", OK), ("DEL KEY @/f", DIRTY)]).await;
    assert_eq!(log(), "");
    story.play(&[("DEL KEY @/g%20h", OK)]).await;
    assert_eq!(log(), format!("{}\n", story.path("d/g h").display()));
    assert!(story.served().await.store.jobs().await.unwrap().is_empty());
    assert!(!log().contains(KEY));
}
