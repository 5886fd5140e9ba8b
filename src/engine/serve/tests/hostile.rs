//! Peers that want more than they may, or that do not speak the protocol.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::{OK, Story, fill_in};
use crate::wire::Timeouts;

const DENIED: &str = "Permission denied!";

#[tokio::test]
async fn no_spelling_leads_out_of_the_group() {
    let story = Story::begin();
    fs::write(story.path("out/file"), "untouched").unwrap();
    story.put("no/file", "excluded");
    story.put("dir/file", "x");
    story.check(true).await;
    let out = story.path("out/file").display().to_string();
    let mut client = story.greet().await;
    for name in [
        "@/../out/file",
        "@/dir/../../out/file",
        "@/dir/..",
        "@/..",
        "@/.",
        "@/./dir",
        "@//dir",
        "@/dir/",
        "@/",
        "@/%2e%2e/out/file",
        "@%2f..%2fout/file",
        "@/dir%00",
        "@/no/file",
        "@/dir/../no/file",
        "@x/file",
        "%25d/file",
        "%25o%25/file",
        "%25%25/file",
        "dir/file",
        &out,
        "/etc/passwd",
        "/",
    ] {
        for command in ["SIG", "TYPE", "GETSZ", "GETTM", "MARK", "FLUSH", "DEL", "PATCH", "MKDIR", "MKFIFO", "MKSOCK"] {
            client.ask(&format!("{command} KEY {name}"), DENIED).await;
        }
        client.ask(&format!("MKLINK KEY {name} target"), DENIED).await;
        client.ask(&format!("SETMOD KEY {name} 0"), DENIED).await;
        client.ask(&format!("MKDIR KEY {name} 0 0 0 0"), DENIED).await;
    }
    for key in ["WRONG", "", "KEYKEY", "key"] {
        client.ask(&format!("DEL {key} @/dir/file"), DENIED).await;
    }
    client.bye().await;
    assert_eq!(fs::read_to_string(story.path("out/file")).unwrap(), "untouched");
    assert_eq!((story.read("no/file").as_str(), story.read("dir/file").as_str()), ("excluded", "x"));
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_on_the_way_leads_nowhere() {
    let story = Story::begin();
    story.put("dir/file", "old content");
    fs::write(story.path("out/file"), "outside, longer").unwrap();
    story.check(true).await;
    let mut client = story.greet().await;
    client.patch("dir/file", "new").await;
    fs::rename(story.path("d/dir"), story.path("d/moved")).unwrap();
    symlink("../out", story.path("d/dir")).unwrap();
    client.answer("SETIME KEY @/dir/file 1500000000").await;
    client.ask("MKDIR KEY @/dir/made", "Too many levels of symbolic links").await;
    client.bye().await;
    assert_eq!(fs::read_to_string(story.path("out/file")).unwrap(), "outside, longer");
    assert_eq!(fs::read_dir(story.path("out")).unwrap().count(), 1);
}

#[tokio::test]
async fn impossible_lengths_and_lines_end_the_session() {
    let story = Story::begin();
    story.put("f", "stays");
    story.check(true).await;
    for header in ["octet-stream 99999999999999999999", "octet-stream x", "octet-stream", "SIG a b", ""] {
        let mut client = story.greet().await;
        client.start_patch("PATCH KEY @/f").await;
        client.send(format!("{header}\n").as_bytes()).await;
        assert!(!client.rest().await.contains("OK ("), "{header}");
    }
    let mut client = story.greet().await;
    client.send(fill_in("SIG KEY @/").as_bytes()).await;
    client.send(&vec![b'x'; 20_000]).await;
    assert!(!client.rest().await.contains("OK ("));
    assert_eq!((story.read("f").as_str(), story.names()), ("stays", vec!["f".to_owned()]));
}

#[tokio::test]
async fn plain_text_behind_ssl_is_not_taken_into_the_session() {
    let story = Story::begin();
    for (name, fixture) in [("csync2_ssl_cert.pem", "p256.crt"), ("csync2_ssl_key.pem", "p256.key")] {
        let fixture = format!("{}/tests/fixtures/tls/{fixture}", env!("CARGO_MANIFEST_DIR"));
        fs::copy(fixture, story.path(name)).unwrap();
    }
    let mut client = story.connect();
    client.send(fill_in("SSL\nCONFIG \nHELLO localhost\nMKDIR KEY @/x\n").as_bytes()).await;
    assert_eq!(client.rest().await, "OK (activating_ssl).\n");
    assert!(story.names().is_empty());
}

#[tokio::test]
async fn a_plain_session_needs_permission() {
    let story = Story::begin();
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap().replace("nossl * *;", "nossl * third;");
    fs::write(story.path("csync2.cfg"), config).unwrap();
    let mut client = story.connect();
    client.ask("CONFIG ", OK).await;
    client.ask("HELLO localhost", "SSL encrypted connection expected!").await;
    client.ask("MKDIR KEY @/x", "Dear 127.0.0.1, please identify first.").await;
    client.bye().await;
    assert!(story.names().is_empty());
}

#[tokio::test]
async fn a_silent_peer_is_left() {
    let story = Story::begin();
    let timeouts = Timeouts { idle: Duration::from_millis(20), ..Timeouts::default() };
    let mut client = story.connect_with(timeouts);
    client.send(b"CONFIG \nHELLO loc").await;
    assert_eq!(client.rest().await, format!("{OK}\n"));
}

#[tokio::test]
async fn a_changed_configuration_counts_for_the_next_session() {
    let story = Story::begin();
    story.play(&[("MKDIR KEY @/one", OK)]).await;
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap();
    fs::write(story.path("csync2.cfg"), config.replace("exclude %d%/no;", "exclude %d%/no %d%/two;")).unwrap();
    story.play(&[("MKDIR KEY @/two", DENIED)]).await;
    fs::write(story.path("key"), "another_key_which_is_long_enough_for_everybody").unwrap();
    story.play(&[("MKDIR KEY @/three", DENIED)]).await;
    fs::write(story.path("csync2.cfg"), "nonsense").unwrap();
    let mut client = story.connect();
    client.send(b"CONFIG \n").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(story.names(), ["one"]);
}

#[tokio::test]
async fn sessions_do_not_wait_for_each_other() {
    let story = Story::begin();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(story.greet().await);
    }
    for (number, client) in clients.iter_mut().enumerate().rev() {
        client.patch(&number.to_string(), "content").await;
    }
    for client in clients {
        client.bye().await;
    }
    assert_eq!(story.names().len(), 8);
}
