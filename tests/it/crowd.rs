//! A crowd at the door: connections that say nothing, or what leads to nothing, beside peers that have something to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::tree::Tree;
use crate::support::{Cast, Program};

/// Many connections that come again when they are closed.
struct Crowd {
    go_on: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

/// Between two attempts of a stranger.
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

impl Crowd {
    /// `count` connections at the same time, from as many addresses as `from` says.
    fn gather(node: &Node, count: usize, from: u8) -> Self {
        let server = SocketAddr::new(node.host.parse().expect("an address"), node.port);
        let go_on = Arc::new(AtomicBool::new(true));
        let threads = (0..count)
            .map(|number| {
                let go_on = Arc::clone(&go_on);
                let address = [127, 99, 0, u8::try_from(number % usize::from(from)).expect("few") + 1];
                let words = WORDS[number % WORDS.len()];
                let come_again = move || {
                    let mut times = 0;
                    while go_on.load(Ordering::Relaxed) {
                        if let Some(mut stream) = connected(address.into(), server)
                            && stream.write_all(words).is_ok()
                        {
                            times += 1;
                            wait_for_the_end(&mut stream, &go_on);
                        }
                        // As somebody does who looks for a weak spot; a busy loop would measure itself.
                        thread::sleep(PAUSE);
                    }
                    times
                };
                thread::Builder::new().stack_size(128 << 10).spawn(come_again).expect("a thread")
            })
            .collect();
        Self { go_on, threads }
    }

    /// How often somebody came.
    fn disperse(self) -> usize {
        self.go_on.store(false, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("a stranger")).sum()
    }
}

fn connected(from: std::net::IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(from, 0)).ok()?;
    connect(&socket, &to).ok()?;
    Some(socket.into())
}

/// Reads nothing of sense until the server closes, or the crowd disperses.
fn wait_for_the_end(stream: &mut TcpStream, go_on: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    let mut buffer = [0; 512];
    while go_on.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn cluster() -> Cluster {
    let cast = Cast { client: Program::Ours, server: Program::Ours, tls: true, backend: Backend::Sqlite };
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

/// Resident memory of the node's daemon, in MiB.
fn memory(node: &Node) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon().id())).expect("read its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).expect("a number") >> 10
}

#[test]
fn a_peer_is_served_beside_a_crowd() {
    let cluster = cluster();
    let crowd = Crowd::gather(&cluster["beta"], 120, 60);
    push(&cluster, "beside a crowd", 50);
    assert!(crowd.disperse() >= 120);
    cluster.expect_agreement();
    cluster["alpha"].expect_clean();
    assert!(memory(&cluster["beta"]) < 200);
}

/// The promise of docs/SECURITY.md, as it was measured: `cargo test --release --test it -- --ignored --nocapture a_thousand`.
#[test]
#[ignore = "a thousand connections for a minute: a command of its own"]
fn a_thousand_strangers_hold_up_nobody() {
    const RUNS: usize = 5;
    let cluster = cluster();
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
