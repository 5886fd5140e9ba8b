//! PATCH and what follows it, on all the ways on which it may be interrupted.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::{OK, Story, literal};

const DIRTY: &str = "File is also marked dirty here!";

#[tokio::test]
async fn a_file_appears_with_its_attributes_or_not_at_all() {
    let story = Story::begin();
    story.put("f", "old content");
    story.check(true).await;
    let mut client = story.greet().await;
    client.patch("f", "new").await;
    client.ask("SETMOD KEY @/f 33216", OK).await;
    assert_eq!((story.read("f").as_str(), story.names()), ("old content", vec!["f".to_owned()]));
    client.ask("SETIME KEY @/f 1500000000", OK).await;
    let found = fs::metadata(story.path("d/f")).unwrap();
    assert_eq!((story.read("f").as_str(), found.mode(), found.mtime()), ("new", 0o100_700, 1_500_000_000));
    client.bye().await;
    assert!(story.row("f").await.unwrap().starts_with("v1:mtime=1500000000:mode=33216:"));
    story.check(false).await;
    assert!(story.dirty("f").await.is_empty());
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn whatever_else_the_peer_asks_for_ends_the_sequence() {
    for request in [
        "GETSZ KEY @/f",
        "SIG KEY @/f",
        "MARK KEY @/f",
        "FLUSH KEY @/f",
        "SETMOD KEY @/other 33188",
        "LIST server - KEY",
        "SIG WRONG @",
        "GROUP g",
        "HELLO localhost",
        "HELLO host.invalid",
        "TYPE KEY @/f",
        "BYE",
    ] {
        let story = Story::begin();
        story.put("f", "old content");
        story.put("other", "o");
        story.check(true).await;
        let mut client = story.greet().await;
        client.patch("f", "new").await;
        client.answer(request).await;
        assert_eq!(story.read("f"), "new", "{request}");
        client.vanish().await;
        assert!(story.row("f").await.unwrap().ends_with("size=3"), "{request}");
    }
}

/// Two runs of a C program at once send a file twice. What the one session did is no change of ours to the other.
#[tokio::test]
async fn what_another_session_received_meanwhile_is_not_dirty() {
    let story = Story::begin();
    story.put("f", "old content");
    story.check(true).await;
    let (mut one, mut other) = (story.greet().await, story.greet().await);
    one.patch("f", "new").await;
    other.patch("f", "new").await;
    one.ask("SETIME KEY @/f 1500000000", OK).await;
    one.bye().await;
    other
        .ask("SETIME KEY @/f 1500000000", "Something else touched the file at the same time; it goes with the next run")
        .await;
    other.bye().await;
    story.check(false).await;
    assert!(story.dirty("f").await.is_empty());
    assert_eq!((story.read("f").as_str(), story.intents().await), ("new", 0));
}

#[tokio::test]
async fn a_session_that_breaks_off_leaves_the_old_file() {
    let story = Story::begin();
    story.put("f", "old content");
    story.check(true).await;
    for stage in 0..4 {
        let mut client = story.greet().await;
        client.start_patch("PATCH KEY @/f").await;
        match stage {
            0 => {}
            1 => client.send(b"octet-stream 100000\nrs\x026\x05hello").await,
            2 => assert_eq!(client.send_delta(&literal("new")).await, OK),
            _ => {
                assert_eq!(client.send_delta(&literal("new")).await, OK);
                client.ask("SETOWN KEY @/f 0 0", OK).await;
                client.send(b"SETIME half a li").await;
            }
        }
        client.vanish().await;
        assert_eq!((story.read("f").as_str(), story.names()), ("old content", vec!["f".to_owned()]), "stage {stage}");
    }
    story.check(false).await;
    assert!(story.dirty("f").await.is_empty());
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn what_was_made_is_recorded_even_if_the_session_breaks_off() {
    let story = Story::begin();
    let mut client = story.greet().await;
    client.ask("MKDIR KEY @/dir", OK).await;
    client.vanish().await;
    story.check(false).await;
    assert!(story.dirty("dir").await.is_empty());
    assert_eq!(story.intents().await, 0);
}

#[tokio::test]
async fn the_peer_may_give_up_or_send_nonsense() {
    let story = Story::begin();
    story.put("f", "old content");
    story.check(true).await;
    let mut client = story.greet().await;
    for request in ["PATCH KEY @/f", "PATCH KEY @/fresh"] {
        for answer in ["octet-stream -1", "octet-stream -77", "ERROR"] {
            client.start_patch(request).await;
            client.ask(answer, "Input/output error").await;
        }
        for delta in
            [&b"xyz"[..], b"", b"rs\x026", b"rs\x026\x40short", b"rs\x026\x45\0\0\0\0\xff\xff\0", b"rs\x01\x36\0"]
        {
            client.start_patch(request).await;
            let answer = client.send_delta(delta).await;
            assert!(!answer.starts_with("OK ("), "{delta:?}: {answer}");
        }
    }
    client.ask("SETMOD KEY @/fresh 33188", "No such file or directory").await;
    client.bye().await;
    assert_eq!((story.read("f").as_str(), story.names()), ("old content", vec!["f".to_owned()]));
}

#[tokio::test]
async fn a_local_change_meanwhile_wins_and_is_told() {
    for moment in ["before the delta", "before SETIME", "before the next file"] {
        let story = Story::begin();
        story.put("f", "old content");
        story.check(true).await;
        let mut client = story.greet().await;
        client.start_patch("PATCH KEY @/f").await;
        if moment == "before the delta" {
            story.put("f", "ours");
        }
        assert_eq!(client.send_delta(&literal("theirs, longer")).await, OK);
        story.put("f", "ours");
        if moment == "before the next file" {
            client.ask("MKDIR KEY @/x", OK).await;
        } else {
            client.ask("SETIME KEY @/f 1500000000", DIRTY).await;
        }
        assert_eq!(story.read("f"), "ours", "{moment}");
        assert_eq!(story.dirty("f").await, ["localhost", "third"], "{moment}");
        client.bye().await;
        assert_eq!(story.intents().await, 0);
    }
}

#[tokio::test]
async fn a_local_change_of_what_was_made_is_a_conflict() {
    let story = Story::begin();
    let mut client = story.greet().await;
    client.ask("MKFIFO KEY @/p", OK).await;
    fs::remove_file(story.path("d/p")).unwrap();
    story.put("p", "a file now");
    client.ask("SETMOD KEY @/p 4516", DIRTY).await;
    client.bye().await;
    assert_eq!(story.read("p"), "a file now");
    assert_eq!(story.dirty("p").await, ["localhost", "third"]);
    let mut client = story.greet().await;
    client.ask("MKDIR KEY @/dir", OK).await;
    story.put("dir/file", "put here meanwhile");
    client.ask("SETMOD KEY @/dir 16877", OK).await;
    client.bye().await;
    assert!(story.dirty("dir").await.is_empty(), "a file in it is no change of the directory");
}

#[tokio::test]
async fn a_file_takes_the_place_of_other_things() {
    let story = Story::begin();
    fs::write(story.path("out/file"), "outside").unwrap();
    symlink("../out/file", story.path("d/link")).unwrap();
    fs::create_dir(story.path("d/empty")).unwrap();
    story.put("linked", "shared content");
    fs::hard_link(story.path("d/linked"), story.path("out/linked")).unwrap();
    story.check(true).await;
    let mut client = story.greet().await;
    client.start_patch("PATCH KEY @/empty").await;
    client.ask("ERROR", "Input/output error").await;
    assert!(story.path("d/empty").is_dir(), "it goes when there is something to take its place");
    for name in ["link", "empty", "linked"] {
        client.patch(name, name).await;
        client.ask(&format!("SETIME KEY @/{name} 1500000000"), OK).await;
        assert!(fs::symlink_metadata(story.path("d").join(name)).unwrap().is_file());
        assert_eq!(story.read(name), name);
    }
    client.bye().await;
    assert_eq!(fs::read_to_string(story.path("out/file")).unwrap(), "outside");
    assert_eq!(fs::read_to_string(story.path("out/linked")).unwrap(), "shared content");
}

#[tokio::test]
async fn the_last_of_two_patches_counts() {
    let story = Story::begin();
    let mut client = story.greet().await;
    client.patch("f", "first").await;
    client.patch("f", "the second").await;
    client.ask("SETIME KEY @/f 1500000000", OK).await;
    client.patch("g", "removed at once").await;
    client.ask("DEL KEY @/g", OK).await;
    client.patch("h", "a directory in the end").await;
    client.ask("MKDIR KEY @/h", OK).await;
    client.bye().await;
    assert_eq!(story.read("f"), "the second");
    assert_eq!(story.names(), ["f", "h"]);
    assert!(story.path("d/h").is_dir());
}

#[tokio::test]
async fn what_is_ignored_stays() {
    let story = Story::begin();
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap();
    fs::write(story.path("csync2.cfg"), format!("ignore uid gid mod;\n{config}")).unwrap();
    story.put("f", "old content");
    story.check(true).await;
    let before = fs::metadata(story.path("d/f")).unwrap();
    let mut client = story.greet().await;
    client.patch("f", "new").await;
    for request in ["SETOWN KEY @/f 4711 4711", "SETMOD KEY @/f 33279", "SETIME KEY @/f 5"] {
        client.ask(request, OK).await;
    }
    client.bye().await;
    let now = fs::metadata(story.path("d/f")).unwrap();
    assert_eq!((now.uid(), now.gid(), now.mode(), now.mtime()), (before.uid(), before.gid(), before.mode(), 5));
    assert_eq!(story.row("f").await.unwrap(), "v1:mtime=5:type=reg:size=3");
}

#[tokio::test]
async fn backups_are_made_before_anything_is_lost() {
    let story = Story::with("backup-directory DIR/out/backup; backup-generations 3;");
    for name in ["patched", "removed", "made", "kept"] {
        story.put(name, name);
    }
    story.check(true).await;
    let mut client = story.greet().await;
    client.patch("patched", "new").await;
    client.ask("DEL KEY @/removed", OK).await;
    client.ask("MKDIR KEY @/made", OK).await;
    // What is not replaced after all is not backed up.
    client.start_patch("PATCH KEY @/kept").await;
    client.vanish().await;
    let copies = story.path("out/backup").join(story.path("d").strip_prefix("/").unwrap());
    for name in ["patched", "removed", "made"] {
        assert_eq!(fs::read_to_string(copies.join(name)).unwrap(), name);
    }
    assert!(!copies.join("kept").exists());
    fs::remove_dir_all(story.path("out/backup")).unwrap();
    fs::write(story.path("out/backup"), "no directory").unwrap();
    let mut client = story.greet().await;
    for request in ["PATCH KEY @/kept", "DEL KEY @/kept", "MKFIFO KEY @/kept"] {
        let answer = client.answer(request).await;
        assert!(answer.starts_with("Backup failed: "), "{request}: {answer}");
    }
    client.bye().await;
    assert_eq!(story.read("kept"), "kept");
    assert!(story.dirty("kept").await.is_empty());
}

#[tokio::test]
async fn a_missing_root_can_be_made_and_one_behind_a_link_is_used() {
    let story = Story::begin();
    fs::remove_dir(story.path("d")).unwrap();
    story
        .play(&[
            ("MKDIR KEY @/x", "No such file or directory"),
            ("PATCH KEY @/x", "No such file or directory"),
            ("MKDIR KEY @", OK),
            ("MKDIR KEY @/x", OK),
        ])
        .await;
    assert_eq!(story.names(), ["x"]);
    fs::rename(story.path("d"), story.path("out/real")).unwrap();
    symlink("out/real", story.path("d")).unwrap();
    story.play(&[("MKDIR KEY @/y", OK), ("SETMOD KEY @ 16832", OK)]).await;
    assert_eq!(story.names(), ["x", "y"]);
    assert!(story.path("out/real/y").is_dir());
}

#[tokio::test]
async fn large_deltas_wait_on_disk() {
    let story = Story::begin();
    let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    // One literal: command 0x43 has a length of four bytes.
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let delta = [&b"rs\x026\x43"[..], &length, &content, b"\0"].concat();
    let mut client = story.greet().await;
    client.start_patch("PATCH KEY @/large").await;
    assert_eq!(client.send_delta(&delta).await, OK);
    client.bye().await;
    assert!(fs::read(story.path("d/large")).unwrap() == content);
    assert_eq!(story.names(), ["large"]);
}
