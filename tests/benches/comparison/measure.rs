//! Runs programs and says what they took: wall-clock time, CPU time, peak memory, as the kernel counts them.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::link::Server;
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
    /// On the wire, in both directions, without headers.
    pub(super) bytes: u64,
}

/// What processes used, not counting the database server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system, with children.
    pub(super) cpu: Duration,
    /// The most memory of one process, in bytes.
    pub(super) memory: u64,
}

/// A program that runs by itself.
pub(super) struct Client {
    pub(super) command: Command,
    /// The exit code that it must have.
    pub(super) exit: i32,
}

impl From<Command> for Client {
    fn from(command: Command) -> Self {
        Client { command, exit: 0 }
    }
}

/// Starts all clients at once, a server for each connection to a listener, and waits for all of them.
pub(super) fn measure(clients: &[Client], servers: &[Server]) -> Measurement {
    let addresses = servers.iter().map(|server| server.listener.local_addr().expect("an address"));
    let addresses: Vec<_> = addresses.collect();
    let closed = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let servers: Vec<_> = servers.iter().map(|server| scope.spawn(|| server.serve(&closed))).collect();
        let stdio = || (Stdio::null(), Stdio::null());
        let clients =
            clients.iter().map(|client| scope.spawn(move || run(&client.command, client.exit, stdio(), || ())));
        let clients: Vec<_> = clients.collect::<Vec<_>>().into_iter().map(thread::ScopedJoinHandle::join).collect();
        closed.store(true, Ordering::SeqCst);
        addresses.into_iter().for_each(Server::close);
        let client = clients.into_iter().map(|end| end.expect("a client")).fold(Usage::default(), Usage::and);
        let ends = servers.into_iter().map(|thread| thread.join().expect("a server"));
        let (servers, bytes) =
            ends.fold((Usage::default(), 0), |(usage, bytes), end| (usage.and(end.0), bytes + end.1));
        Measurement { wall: start.elapsed(), client, servers, bytes }
    })
}

/// Runs to the end; `ended` is called as soon as that is reached. The process dies with the thread that runs it.
pub(super) fn run(command: &Command, exit: i32, (stdin, stdout): (Stdio, Stdio), ended: impl FnOnce()) -> Usage {
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
    ended();
    watch.thread().unpark();
    let usage = Usage { cpu: cpu_time(id), memory: watch.join().expect("a thread") };
    let status = child.wait().expect("wait for a process");
    assert_eq!(status.code(), Some(exit), "{command:?}: {status}");
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
        thread::park_timeout(INTERVAL);
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
    pub(super) fn and(self, other: Usage) -> Usage {
        Usage { cpu: self.cpu + other.cpu, memory: self.memory.max(other.memory) }
    }
}

impl Measurement {
    /// Of one run, on average over several; the memory of the largest.
    pub(super) fn mean(runs: impl Iterator<Item = Measurement>) -> Measurement {
        let runs: Vec<Measurement> = runs.collect();
        let count = u32::try_from(runs.len()).expect("some runs");
        let usage = |end: fn(&Measurement) -> Usage| {
            let sum = runs.iter().map(end).fold(Usage::default(), Usage::and);
            Usage { cpu: sum.cpu / count, ..sum }
        };
        Measurement {
            wall: runs.iter().map(|run| run.wall).sum::<Duration>() / count,
            client: usage(|run| run.client),
            servers: usage(|run| run.servers),
            bytes: runs.iter().map(|run| run.bytes).sum::<u64>() / u64::from(count),
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = (self.client.cpu + self.servers.cpu).as_secs_f64();
        write!(f, "{:.4} s, {cpu:.2} s of CPU time", self.wall.as_secs_f64())?;
        if self.bytes > 0 {
            write!(f, ", {} bytes on the wire", self.bytes)?;
        }
        Ok(())
    }
}
