//! Peers that want more than they may, or that do not speak the protocol.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

use super::super::session;
use super::{Client, OK, Story, fill_in};
use crate::wire::{Connection, Identity, Timeouts};

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
    certificate(&story);
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

/// A file outside that has a name inside: `d/hard` and `out/file`, and what it looks like.
fn hard_link(story: &Story) -> impl Fn() -> (String, u32, i64) {
    let outside = story.path("out/file");
    fs::write(&outside, "outside").unwrap();
    fs::hard_link(&outside, story.path("d/hard")).unwrap();
    move || {
        let metadata = fs::metadata(&outside).unwrap();
        (fs::read_to_string(&outside).unwrap(), metadata.mode(), metadata.mtime())
    }
}

#[tokio::test]
async fn a_file_with_names_outside_is_never_changed_in_place() {
    let story = Story::begin();
    let outside = hard_link(&story);
    let before = outside();
    story.check(true).await;
    for command in ["SETMOD KEY @/hard 33279", "SETIME KEY @/hard 1400000000", "SETOWN KEY @/hard 12345 12345"] {
        story.play(&[(command, OK)]).await;
        assert_eq!(outside(), before, "{command}");
        assert_eq!(fs::metadata(story.path("out/file")).unwrap().uid(), rustix::process::getuid().as_raw());
    }
    fs::remove_file(story.path("d/hard")).unwrap();
    fs::hard_link(story.path("out/file"), story.path("d/hard")).unwrap();
    story.check(true).await;
    let mut client = story.greet().await;
    client.patch("hard", "inside").await;
    client.bye().await;
    assert_eq!((outside(), story.read("hard").as_str()), (before, "inside"));
}

#[tokio::test]
async fn what_is_no_file_is_never_opened() {
    let story = Story::begin();
    let fifo = |name: &str| {
        let path = story.path("d").join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    fifo("fifo");
    symlink("/dev/zero", story.path("d/link")).unwrap();
    story.check(true).await;
    // An open FIFO would wait for a writer, /dev/zero would never end.
    let mut client = story.greet().await;
    for (name, kind) in [("fifo", "type=fifo"), ("link", "type=lnk")] {
        client.ask(&format!("SIG KEY @/{name}"), "OK (data_follows).").await;
        assert!(client.line().await.contains(kind));
        client.expect(&["octet-stream 0", OK]).await;
        client.patch(name, "a file now").await;
    }
    client.bye().await;
    assert_eq!((story.read("fifo"), story.read("link")), ("a file now".to_owned(), "a file now".to_owned()));
    fs::remove_file(story.path("d/fifo")).unwrap();
    fifo("fifo");
    let mut client = story.greet().await;
    client.ask("TYPE KEY @/fifo", "OK (data_follows).").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn who_has_no_key_learns_nothing() {
    let story = Story::begin();
    story.put("dir/there", "content");
    symlink("../out", story.path("d/link")).unwrap();
    story.check(true).await;
    let mut answers = Vec::new();
    for name in ["dir/there", "dir/missing", "nowhere/at/all", "dir", "link/x", "no/file"] {
        let mut client = story.greet().await;
        for command in ["SIG", "TYPE", "GETTM", "GETSZ", "DEL", "PATCH", "MKDIR", "FLUSH", "MARK"] {
            let wrong = "0123456789abcdefghijklmnopqrstuvwxyzABCE";
            answers.push(client.answer(&format!("{command} {wrong} @/{name}")).await);
        }
        client.ask("LIST server - WRONGWRONGWRONGWRONGWRONGWRONGWRONG", OK).await;
        client.ask("LIST third - KEY", OK).await;
        client.ask("LIST server @/../out/file KEY", OK).await;
        client.bye().await;
    }
    assert!(answers.iter().all(|answer| answer == DENIED), "{answers:?}");
}

#[tokio::test]
async fn a_warning_in_place_of_a_handshake_is_no_session() {
    let story = Story::begin();
    certificate(&story);
    // What GnuTLS reports as a warning, and csync2 took for a handshake that was done (CVE-2019-15523).
    for description in [100, 90, 0] {
        let mut client = story.connect();
        client.ask("SSL", "OK (activating_ssl).").await;
        client.send_what_is_taken(&[0x15, 3, 3, 0, 2, 1, description]).await;
        client.send_what_is_taken(fill_in("CONFIG \nHELLO localhost\nMKDIR KEY @/x\n").as_bytes()).await;
        let rest = client.rest().await;
        assert!(!rest.contains("OK ("), "{rest}");
    }
    assert!(story.names().is_empty());
}

/// Our certificate, without which there is no TLS.
fn certificate(story: &Story) {
    for (name, fixture) in [("csync2_ssl_cert.pem", "p256.crt"), ("csync2_ssl_key.pem", "p256.key")] {
        let fixture = format!("{}/tests/fixtures/tls/{fixture}", env!("CARGO_MANIFEST_DIR"));
        fs::copy(fixture, story.path(name)).unwrap();
    }
}

#[tokio::test]
async fn a_second_name_needs_its_own_certificate() {
    let story = Story::begin();
    certificate(&story);
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap();
    let config = config.replace("nossl * *;", "").replace("host localhost", "host localhost 127.0.0.1");
    fs::write(story.path("csync2.cfg"), config).unwrap();
    story.served().await.store.pin("127.0.0.1", b"another certificate").await.unwrap();
    let (ours, theirs) = duplex(1 << 16);
    let from = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let server = tokio::spawn(session::run(
        Arc::clone(&story.registry),
        Connection::new(theirs, from, Timeouts::default()),
        None,
        CancellationToken::new(),
    ));
    let made = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name);
    let identity = Identity::load(&made("ed25519.crt"), &made("ed25519.key"), true).unwrap();
    let mut client = Connection::new(ours, None, Timeouts::default());
    client.write_line(b"SSL").await.unwrap();
    assert_eq!(client.read_line().await.unwrap().unwrap(), b"OK (activating_ssl).");
    let mut client = client.start_tls_client(&identity).await.unwrap();
    for (request, answer) in [
        ("CONFIG ", OK),
        ("HELLO localhost", OK),
        ("MKDIR KEY @/one", OK),
        ("HELLO 127.0.0.1", "Identification failed!"),
        ("MKDIR KEY @/two", "Dear 127.0.0.1, please identify first."),
        ("HELLO localhost", OK),
        ("MKDIR KEY @/three", OK),
    ] {
        client.write_line(fill_in(request).as_bytes()).await.unwrap();
        assert_eq!(client.read_line().await.unwrap().unwrap(), answer.as_bytes(), "{request}");
    }
    client.shutdown().await;
    server.await.unwrap();
    assert_eq!(story.names(), ["one", "three"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_only_talks_is_left() {
    let story = Story::begin();
    let mut client = story.connect();
    client.ask("CONFIG ", OK).await;
    // Each answer comes in time, and is no name.
    loop {
        client.send_what_is_taken(b"NOTHING\n").await;
        if client.line().await != "Unknown command!" {
            break;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_delta_cannot_fill_the_disk() {
    let story = Story::begin();
    let config = fs::read_to_string(story.path("csync2.cfg")).unwrap();
    fs::write(story.path("csync2.cfg"), format!("max-file-size 64K; {config}")).unwrap();
    story.put("f", &"x".repeat(2048));
    story.check(true).await;
    let mut client = story.greet().await;
    client.start_patch("PATCH KEY @/f").await;
    // Thirty-three times all that is there: twenty bytes would make terabytes in the same way.
    let copy = [0x46, 0, 0x08, 0x00];
    let delta = [&b"rs\x026"[..], &copy.repeat(33), b"\0"].concat();
    let answer = client.send_delta(&delta).await;
    assert_eq!(answer, "File too large: max-file-size allows 65536 bytes here");
    client.start_patch("PATCH KEY @/f").await;
    assert_eq!(client.send_delta(&[&b"rs\x026"[..], &copy.repeat(32), b"\0"].concat()).await, OK);
    client.bye().await;
    assert_eq!(story.read("f").len(), 65536);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_left() {
    const ASKED: usize = 5_000;
    let story = Story::begin();
    story.put("f", "content");
    story.check(true).await;
    let mut client = story.connect_with(Timeouts { idle: Duration::from_secs(1), ..Timeouts::default() });
    client.ask("CONFIG ", OK).await;
    client.ask("HELLO localhost", OK).await;
    // The answers do not fit into what lies between the two; neither do the questions.
    let Client { mut stream, server } = client;
    let questions = fill_in("GETSZ KEY @/f\n").repeat(ASKED);
    let (sent, ended) = tokio::join!(stream.write_all(questions.as_bytes()), server);
    assert!(sent.is_err());
    ended.unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.unwrap();
    assert!(String::from_utf8_lossy(&answers).matches("OK (data_follows).").count() < ASKED);
}
