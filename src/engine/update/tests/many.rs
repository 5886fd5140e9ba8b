//! Many peers in one run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::net::TcpListener;

use super::super::{UpdateOptions, update};
use super::*;

const PEERS: usize = 100;
/// Every tenth is dead, and one is slow.
const DEAD: usize = 10;
const SLOW: usize = 55;

const FILES: [&str; 4] = ["a", "b", "c", "d/e"];

fn name(number: usize) -> String {
    format!("127.77.0.{}", number + 1)
}

/// Listeners on one port of every address but the dead ones.
async fn listeners() -> (u16, Vec<(usize, TcpListener)>) {
    'port: loop {
        let mut listeners: Vec<(usize, TcpListener)> = Vec::new();
        let mut port = 0;
        for number in (0..PEERS).filter(|number| number % DEAD != 0) {
            let Ok(listener) = TcpListener::bind((name(number), port)).await else { continue 'port };
            port = listener.local_addr().unwrap().port();
            listeners.push((number, listener));
        }
        return (port, listeners);
    }
}

#[derive(Default)]
struct Sessions {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_peers_the_dead_and_the_slow_cost_the_others_nothing() {
    let (port, listeners) = listeners().await;
    let hosts: Vec<String> = (0..PEERS).map(name).collect();
    let config = |tree: &str| {
        let hosts = hosts.join(" ");
        format!("nossl * *;\nprefix d {{ on *: {tree}; }}\ngroup g {{ host h {hosts}; key k; include %d%; }}\n")
    };
    let home = Home::configured(config, port).await;
    home.put(&["d/", "a", "b", "c", "d/e"]);
    let marks = hosts.iter().flat_map(|peer| {
        let mark = |file: &&str| Mark { path: sync(file), my_name: "h".into(), peer: peer.clone(), forced: false };
        FILES.iter().map(mark).collect::<Vec<_>>()
    });
    home.node.store.mark(marks.collect(), Vec::new()).await.unwrap();

    let sessions = Arc::new(Sessions::default());
    let (go_on, wait) = mpsc::channel::<()>();
    let mut wait = Some(wait);
    let mut peers = Vec::new();
    for (number, listener) in listeners {
        let wait = if number == SLOW { wait.take() } else { None };
        let peer = Peer::new(&["%d%", "%d%/d"]).scripted(move |command, name| {
            if command == "SIG" {
                // Until it may, or nobody will ever tell.
                if let Some(wait) = &wait {
                    _ = tokio::task::block_in_place(|| wait.recv());
                }
            }
            let is_question = command == "ATOMICPATCH" && name.is_empty();
            if is_question { Act::Say("Unknown command!\n".to_owned()) } else { Act::Normally }
        });
        let peer: Shared = Arc::new(std::sync::Mutex::new(peer));
        peers.push(Arc::clone(&peer));
        let sessions = Arc::clone(&sessions);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let now = sessions.now.fetch_add(1, Ordering::SeqCst) + 1;
            sessions.most.fetch_max(now, Ordering::SeqCst);
            let _ = peer::serve(peer, stream).await;
            sessions.now.fetch_sub(1, Ordering::SeqCst);
        });
    }

    let node = Arc::clone(&home.node);
    let updating = tokio::spawn(async move { update(&node, vec![Scope::All], &UpdateOptions::default()).await });
    let dead: BTreeSet<String> = (0..PEERS).filter(|number| number % DEAD == 0).map(name).collect();
    let with_the_slow: BTreeSet<String> = dead.iter().cloned().chain([name(SLOW)]).collect();
    let store = &home.node.store;
    let left =
        || async { store.dirty_peers().await.unwrap().into_iter().map(|(_, peer)| peer).collect::<BTreeSet<_>>() };
    while left().await != with_the_slow {
        assert!(!updating.is_finished(), "the others are served while the slow one takes its time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    go_on.send(()).unwrap();
    drop(go_on);
    let outcome = updating.await.unwrap().unwrap();
    assert_eq!(left().await, dead);
    assert_eq!(outcome.report.errors, dead.len());
    for peer in peers {
        let heard = locked(&peer).heard.iter().filter(|heard| heard.starts_with("DELTA")).count();
        assert_eq!(heard, FILES.len());
    }
    assert!(sessions.most.load(Ordering::SeqCst) <= home.node.config.max_parallel_peers);
}
