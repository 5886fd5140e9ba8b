//! What is on disk and what is written down of it: the record of a file may come a moment after the answer, along with the
//! next intent, and nobody may notice.

use std::time::{Duration, Instant};

use super::{Client, OK, Story, literal};

const ACTION: &str = "action { exec \"echo ran >> DIR/out/log\"; }";

/// Sends a file whole, up to the answer to SETIME.
async fn send(client: &mut Client, name: &str, content: &str) {
    client.patch(name, content).await;
    client.ask(&format!("SETMOD KEY @/{name} 33216"), OK).await;
    client.ask(&format!("SETIME KEY @/{name} 1500000000"), OK).await;
}

/// Waits until nothing is being received.
async fn recorded(story: &Story) {
    let started = Instant::now();
    while story.intents().await > 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "it is never recorded");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn expect_received(story: &Story, name: &str, size: usize) {
    assert!(story.row(name).await.is_some_and(|row| row.ends_with(&format!(":size={size}"))), "{name}");
    assert!(story.dirty(name).await.is_empty(), "{name}");
}

#[tokio::test]
async fn each_file_is_recorded_as_the_next_begins() {
    let story = Story::begin();
    let mut client = story.greet().await;
    send(&mut client, "a", "1").await;
    send(&mut client, "b", "22").await;
    // The first is written by now, however short the pause was.
    expect_received(&story, "a", 1).await;
    client.ask("MKDIR KEY @/d", OK).await;
    expect_received(&story, "b", 2).await;
    client.bye().await;
    assert_eq!(story.intents().await, 0);
    assert!(story.row("d").await.is_some());
}

#[tokio::test]
async fn a_peer_that_pauses_leaves_nothing_unrecorded() {
    let story = Story::with(ACTION);
    let mut client = story.greet().await;
    send(&mut client, "f", "new").await;
    recorded(&story).await;
    expect_received(&story, "f", 3).await;
    assert_eq!(story.served().await.store.jobs().await.unwrap().len(), 1);
    // Within a command, too: the delta of the next file is on its way.
    send(&mut client, "g", "1").await;
    client.start_patch("PATCH KEY @/h").await;
    recorded(&story).await;
    expect_received(&story, "g", 1).await;
    client.ask("ERROR", "Input/output error").await;
    send(&mut client, "i", "22").await;
    client.start_patch("PATCH KEY @/h").await;
    client.send(b"octet-stream 100\nrs\x026").await;
    recorded(&story).await;
    expect_received(&story, "i", 2).await;
    client.vanish().await;
}

/// A check that comes in between finds a file that is not what its row says.
#[tokio::test]
async fn a_check_takes_no_received_file_for_a_change() {
    let story = Story::begin();
    story.put("f", "old content");
    story.check(true).await;
    let mut client = story.greet().await;
    for round in 1..20 {
        send(&mut client, "f", &"x".repeat(round)).await;
        story.check(false).await;
        expect_received(&story, "f", round).await;
    }
    client.vanish().await;
    story.check(false).await;
    expect_received(&story, "f", 19).await;
}

#[tokio::test]
async fn a_command_that_reads_the_tables_finds_the_file_there() {
    let story = Story::begin();
    let mut client = story.greet().await;
    send(&mut client, "f", "new").await;
    let listed = client.answer("LIST server - KEY").await;
    assert!(listed.contains("mtime=1500000000") && listed.ends_with("\t%25d%25/f"), "{listed}");
    client.expect(&[OK]).await;
    // One file twice in a row, and a single attribute of it.
    send(&mut client, "f", "newer").await;
    send(&mut client, "f", "newest").await;
    client.ask("SETMOD KEY @/f 33188", OK).await;
    client.ask("DEL KEY @/f", OK).await;
    send(&mut client, "f", "1").await;
    client.ask("FLUSH KEY @/f", OK).await;
    expect_received(&story, "f", 1).await;
    client.bye().await;
}

#[tokio::test]
async fn a_session_that_breaks_off_records_what_is_complete() {
    let story = Story::begin();
    let mut client = story.greet().await;
    send(&mut client, "f", "new").await;
    client.start_patch("PATCH KEY @/g").await;
    client.send_delta(&literal("never ended")).await;
    client.vanish().await;
    assert_eq!(story.intents().await, 0);
    expect_received(&story, "f", 3).await;
    assert_eq!(story.names(), ["f"]);
}
