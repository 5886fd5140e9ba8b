//! A crowd at the door: connections that say nothing, or what leads to nothing, beside peers that have something to do.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use csync2::model::{FileKind, Timestamp};
use csync2::wire::Attributes;
use csync2::wire::batch::{Described, Offer, Push};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, KEY, Node};
use crate::support::process::peak_memory;
use crate::support::session::Session;
use crate::support::tree::Tree;
use crate::support::{Cast, Program, tree};

/// Many connections that come again when they are closed.
struct Crowd {
    strangers: Vec<Arc<Stranger>>,
    threads: Vec<JoinHandle<()>>,
}

/// Between two attempts of a stranger, as of somebody who looks for a weak spot; a busy loop would measure itself.
const PAUSE: Duration = Duration::from_secs(1);

/// What a stranger does: nothing, half a line, the beginning of a session, another protocol, a handshake that never ends,
/// requests without a name, a name of somebody else.
const WORDS: [&[u8]; 7] = [
    b"",
    b"SS",
    b"CONFIG \n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSL\n\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"CONFIG \nSIG KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK %25d%25/f\n",
    b"CONFIG \nHELLO localhost\nHELLO localhost\n",
];

/// One of them.
#[derive(Default)]
struct Stranger {
    state: Mutex<Coming>,
    changed: Condvar,
}

#[derive(Default)]
struct Coming {
    times: usize,
    /// Where it waits for an end.
    stream: Option<Arc<TcpStream>>,
    goes_home: bool,
}

impl Crowd {
    /// `count` connections at the same time, from as many addresses as `from` says. All have come once.
    fn gather(node: &Node, count: usize, from: u8) -> Self {
        let server = SocketAddr::new(node.host.parse().expect("an address"), node.port);
        let strangers: Vec<_> = (0..count).map(|_| Arc::new(Stranger::default())).collect();
        let come = |(number, stranger): (usize, &Arc<Stranger>)| {
            let stranger = Arc::clone(stranger);
            let address = [127, 99, 0, u8::try_from(number % usize::from(from)).expect("few") + 1];
            let come_again = move || while stranger.comes(address.into(), server, WORDS[number % WORDS.len()]) {};
            thread::Builder::new().stack_size(128 << 10).spawn(come_again).expect("a thread")
        };
        let threads = strangers.iter().enumerate().map(come).collect();
        for stranger in &strangers {
            drop(stranger.changed.wait_while(stranger.state(), |state| state.times == 0).expect("a stranger"));
        }
        Self { strangers, threads }
    }

    /// How often somebody came.
    fn disperse(self) -> usize {
        let Self { strangers, threads } = self;
        for stranger in &strangers {
            stranger.go_home();
        }
        for thread in threads {
            thread.join().expect("a stranger");
        }
        strangers.iter().map(|stranger| stranger.state().times).sum()
    }
}

impl Stranger {
    fn state(&self) -> MutexGuard<'_, Coming> {
        self.state.lock().expect("a stranger")
    }

    /// Says its words, and reads nothing of sense until the server closes. Whether it will come again.
    fn comes(&self, from: IpAddr, server: SocketAddr, words: &[u8]) -> bool {
        if let Some(stream) = connected(from, server).map(Arc::new)
            && (&*stream).write_all(words).is_ok()
        {
            self.is_there(&stream);
            while (&*stream).read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
            self.state().stream = None;
        }
        let paused = self.changed.wait_timeout_while(self.state(), PAUSE, |state| !state.goes_home);
        !paused.expect("a stranger").0.goes_home
    }

    fn is_there(&self, stream: &Arc<TcpStream>) {
        let mut state = self.state();
        state.times += 1;
        state.stream = Some(Arc::clone(stream));
        if state.goes_home {
            state.close();
        }
        self.changed.notify_all();
    }

    fn go_home(&self) {
        let mut state = self.state();
        state.goes_home = true;
        state.close();
        self.changed.notify_all();
    }
}

impl Coming {
    /// Ends the wait for the server.
    fn close(&self) {
        if let Some(stream) = &self.stream {
            // The server may have been faster.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn connected(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(from, 0)).ok()?;
    connect(&socket, &to).ok()?;
    Some(socket.into())
}

fn cluster(tls: bool) -> Cluster {
    let cast = Cast { client: Program::Ours, server: Program::Ours, tls, backend: Backend::Sqlite };
    cast.cluster(["alpha", "beta"]).start()
}

/// Files that a push has not sent yet; how long it takes.
fn push(cluster: &Cluster, run: &str, files: usize) -> Duration {
    let tree = (0..files).fold(Tree::new(), |tree, number| {
        tree.with(format!("{run}/{}/{number}", number % 10), format!("{run} {number}\n").repeat(number % 40))
    });
    cluster["alpha"].put(&tree);
    cluster["alpha"].csync2(["-cr", "/"]).success().silent();
    let start = Instant::now();
    cluster["alpha"].csync2(["-u"]).success().silent();
    start.elapsed()
}

/// The most memory that the node's daemon has had resident, in MiB.
fn memory(node: &Node) -> u64 {
    peak_memory(node.daemon().id()) >> 10
}

#[test]
fn a_peer_is_served_beside_a_crowd() {
    let cluster = cluster(true);
    let crowd = Crowd::gather(&cluster["beta"], 120, 60);
    push(&cluster, "beside a crowd", 50);
    assert!(crowd.disperse() >= 120);
    cluster.expect_agreement();
    cluster["alpha"].expect_clean();
    assert!(memory(&cluster["beta"]) < 200);
}

/// What a member with the key may send to fill the memory: it goes to disk, is done piece by piece, or ends the session.
#[test]
fn a_session_costs_bounded_memory_whatever_it_sends() {
    const MUCH: usize = 96 << 20;
    const BOUND: u64 = 48;
    let cluster = cluster(false);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    Session::greeted(alpha, beta).ask("BYE", "OK (cu_later).");
    let before = memory(beta);
    let grown = || memory(beta) - before;

    let mut endless = Session::greeted(alpha, beta);
    endless.send_some(&vec![b'x'; MUCH]);
    assert!(!endless.rest().contains("OK ("));
    assert!(grown() < BOUND, "a line without an end: {} MiB", grown());

    let mut offers = Session::greeted(alpha, beta);
    offers.ask("BATCH 1", "OK (batch 1).");
    offers.send(&Push::Key(KEY.to_owned()).encode());
    let attributes = Attributes { uid: 0, gid: 0, mode: 0o100_644, mtime: Timestamp::default() };
    let offer = |id: u32| {
        let state = Some(Described { kind: FileKind::Regular { size: 1 }, attributes });
        let name = format!("%d%/{id}").into();
        Push::Offer(Offer { id, forced: false, differs: false, time_only: false, state, name }).encode()
    };
    offers.send_some(&(0..60_000).flat_map(offer).collect::<Vec<_>>());
    offers.rest();
    drop(offers);
    assert!(grown() < BOUND, "offers: {} MiB", grown());

    let mut content = Session::greeted(alpha, beta);
    content.ask("PATCH KEY %25d%25/large", "OK (send_data).");
    content.expect(&["octet-stream 12"]);
    content.bytes(12);
    // A literal whose length is in four bytes, the end, and more than that.
    content.send(format!("octet-stream {}\n", 4 + 5 + MUCH + 1).as_bytes());
    content.send(&[&b"rs\x026\x43"[..], &u32::try_from(MUCH).expect("it fits").to_be_bytes()].concat());
    content.send(&vec![b'x'; MUCH]);
    content.send(b"\0");
    content.expect(&["OK (cmd_finished)."]);
    content.ask("SETIME KEY %25d%25/large 1500000000", "OK (cmd_finished).");
    assert!(grown() < BOUND, "a long content: {} MiB", grown());
    beta.expect(tree! { "large" => "x".repeat(MUCH) });
}

/// The promise of docs/SECURITY.md, as it was measured: `cargo test --release --test it -- --ignored --nocapture a_thousand`.
#[test]
#[ignore = "a thousand connections for a minute: a command of its own"]
fn a_thousand_strangers_hold_up_nobody() {
    const RUNS: usize = 5;
    let cluster = cluster(true);
    push(&cluster, "before", 500);
    let median = |name: &str| {
        let mut times: Vec<_> = (0..RUNS).map(|run| push(&cluster, &format!("{name} {run}"), 2000)).collect();
        times.sort();
        times[RUNS / 2]
    };
    let alone = median("alone");
    let crowd = Crowd::gather(&cluster["beta"], 1000, 250);
    let beside = median("beside");
    let times = crowd.disperse();
    cluster.expect_agreement();
    let memory = memory(&cluster["beta"]);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!("alone {alone:?}, beside 1,000 strangers (who came {times} times) {beside:?}: {ratio:.2}; {memory} MiB");
    assert!(ratio < 2.0, "{ratio}");
    assert!(memory < 200, "{memory} MiB");
}
