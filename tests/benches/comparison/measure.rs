//! Runs programs and says what they took: wall-clock time, CPU time, peak memory, as the kernel counts them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::support::process::wrap;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1200);

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// One run of a contender, both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurement {
    /// From the start until all processes had ended.
    pub(super) wall: Duration,
    pub(super) client: Usage,
    pub(super) servers: Usage,
}

/// What processes used, not counting the database server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system, with children.
    pub(super) cpu: Duration,
    /// The most memory of one process, in bytes.
    pub(super) memory: u64,
}

/// A program that serves one connection on stdin and stdout, as inetd starts it.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) command: Command,
}

/// Starts all clients at once, a server for the first connection to each listener, and waits for all of them.
pub(super) fn measure(clients: Vec<Command>, servers: Vec<Server>) -> Measurement {
    let start = Instant::now();
    let servers: Vec<_> = servers.into_iter().map(|server| thread::spawn(move || serve(&server))).collect();
    let clients: Vec<_> =
        clients.into_iter().map(|client| thread::spawn(move || run(&client, Stdio::null(), Stdio::null()))).collect();
    let usage = |threads: Vec<thread::JoinHandle<Usage>>| {
        threads.into_iter().map(|thread| thread.join().expect("a process")).fold(Usage::default(), Usage::and)
    };
    let (client, servers) = (usage(clients), usage(servers));
    Measurement { wall: start.elapsed(), client, servers }
}

fn serve(server: &Server) -> Usage {
    set_socket_timeout(&server.listener, Timeout::Recv, Some(LIMIT)).expect("set a timeout");
    let (connection, _) = server.listener.accept().expect("accept a connection");
    let connection = OwnedFd::from(connection);
    run(&server.command, connection.try_clone().expect("dup").into(), connection.into())
}

/// Runs to the end. The process dies with the thread that runs it.
fn run(command: &Command, stdin: Stdio, stdout: Stdio) -> Usage {
    let mut child = wrap(&["setpriv", "--pdeathsig", "KILL"], command)
        .stdin(stdin)
        .stdout(stdout)
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let id = child.id();
    let watch = thread::spawn(move || watch(id));
    // The process stays there as a zombie, with its figures, until it is waited for.
    let pid = Pid::from_child(&child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("wait for a process");
    let usage = Usage { cpu: cpu_time(id), memory: watch.join().expect("a thread") };
    let status = child.wait().expect("wait for a process");
    assert!(status.success(), "{command:?}: {status}");
    usage
}

/// Looks at a process until it ends, and ends it at the limit. Returns the most memory it had, in bytes.
fn watch(id: u32) -> u64 {
    let start = Instant::now();
    let mut memory = 0;
    // A zombie has no memory any more.
    while let Some(now) = peak_memory(id) {
        memory = now;
        if start.elapsed() > LIMIT {
            let pid = Pid::from_raw(id.cast_signed()).expect("a process id");
            kill_process(pid, Signal::KILL).expect("kill a process that hangs");
        }
        thread::sleep(INTERVAL);
    }
    memory
}

fn peak_memory(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// User and system time of a process and of the children that it has waited for.
fn cpu_time(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("read a process's figures");
    // The name, in parentheses, may hold anything.
    let fields = stat.rsplit(')').next().expect("fields behind the name");
    let ticks: u64 = fields.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

impl Usage {
    /// Of both: their time together, the memory of the larger one.
    fn and(self, other: Usage) -> Usage {
        Usage { cpu: self.cpu + other.cpu, memory: self.memory.max(other.memory) }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = (self.client.cpu + self.servers.cpu).as_secs_f64();
        write!(f, "{:.2} s, {cpu:.2} s of CPU time", self.wall.as_secs_f64())
    }
}
