//! Processes: one that runs to its end under a time limit, and one that serves until its value is dropped.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cast::Program;
use super::messages;

/// Far more than anything here takes: a process that needs longer hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// What a process printed and how it ended.
pub(crate) struct Output {
    command: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// None: ended by a signal.
    pub(crate) code: Option<i32>,
    /// It is our program's, and called without `-v`.
    is_level_0: bool,
}

impl Output {
    /// Exit code 0 or panic with everything the process printed.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self:?}");
        self
    }

    /// stdout is exactly this text.
    #[track_caller]
    pub(crate) fn prints(self, expected: &str) -> Self {
        assert_eq!(self.stdout_text(), expected, "stdout of {self:?}");
        self
    }

    /// Some line of stderr contains this text, and if it is a message of ours it is explained in docs/operations.md.
    #[track_caller]
    pub(crate) fn logs(self, expected: &str) -> Self {
        assert!(self.stderr_text().contains(expected), "`{expected}` is missing in stderr of {self:?}");
        for line in self.stderr_text().lines().filter(|line| self.is_level_0 && line.contains(expected)) {
            assert!(messages::is_explained(line), "docs/operations.md does not explain `{line}`");
        }
        self
    }

    /// No line of stderr contains this text.
    #[track_caller]
    pub(crate) fn logs_no(self, unexpected: &str) -> Self {
        assert!(!self.stderr_text().contains(unexpected), "`{unexpected}` stands in stderr of {self:?}");
        self
    }

    /// stderr is empty.
    #[track_caller]
    pub(crate) fn logs_nothing(self) -> Self {
        assert!(self.stderr.is_empty(), "stderr is not empty: {self:?}");
        self
    }

    /// stdout and stderr are empty.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        assert!(self.stdout.is_empty() && self.stderr.is_empty(), "not silent: {self:?}");
        self
    }

    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nexit code {:?}\n--- stdout\n{}--- stderr\n{}---",
            self.command,
            self.code,
            self.stdout_text(),
            self.stderr_text()
        )
    }
}

/// Runs to the end, with nothing on stdin.
pub(crate) fn run(command: Command) -> Output {
    run_with_input(command, b"")
}

/// Runs to the end with `input` on stdin (a pipe); kills and panics after [`LIMIT`].
pub(crate) fn run_with_input(mut command: Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    let is_ours = command.get_program() == Program::Ours.path();
    let is_verbose = |word: &OsStr| {
        let word = word.as_encoded_bytes();
        word.starts_with(b"-") && !word.starts_with(b"--") && word.contains(&b'v')
    };
    let is_level_0 = is_ours && !command.get_args().any(is_verbose);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {shown}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let input = input.to_vec();
    // A process that ends without reading breaks the pipe: that is its good right.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().expect("stdout is a pipe"));
    let stderr = collect(child.stderr.take().expect("stderr is a pipe"));
    let end = Instant::now() + LIMIT;
    let within =
        |receiver: &mpsc::Receiver<Vec<u8>>| receiver.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
    let (Some(stdout), Some(stderr)) = (within(&stdout), within(&stderr)) else {
        drop((child.kill(), child.wait()));
        panic!("{shown} did not end within {LIMIT:?}");
    };
    writer.join().expect("write to stdin");
    let status = child.wait().expect("wait for a child");
    assert_eq!(status.signal(), None, "{shown} was killed\n{}", String::from_utf8_lossy(&stderr));
    Output { command: shown, stdout, stderr, code: status.code(), is_level_0 }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    receiver
}

/// The same command, run by another one: `wrapper` gets the program and its arguments as last arguments.
pub(crate) fn wrap(wrapper: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(wrapper[0]);
    outer.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        outer.current_dir(directory);
    }
    outer
}

/// A serving process; killed when dropped, and by the kernel when the thread that started it is gone.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
}

/// Lines that a process has printed so far, both channels together.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, usize /* channels at their end */)>,
    grown: Condvar,
}

impl Daemon {
    /// Starts `command` and waits for a line with the text `ready`.
    ///
    /// `stdbuf` makes the C program write out each line of its stdout; `setpriv` ties its life to ours.
    pub(crate) fn start(command: &Command, ready: &str) -> Daemon {
        // Whoever runs the tests may ignore signals, as a shell has its background do; then so would the program.
        let around = ["env", "--default-signal", "setpriv", "--pdeathsig", "KILL", "stdbuf", "-oL"];
        let mut wrapped = wrap(&around, command);
        let mut child = wrapped
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let log = Arc::new(Log::default());
        follow(child.stdout.take().expect("stdout is a pipe"), &log);
        follow(child.stderr.take().expect("stderr is a pipe"), &log);
        let daemon = Daemon { child, log };
        daemon.wait_for(ready);
        daemon
    }

    /// Waits until some line contains `text`.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_for_all(text, 1);
    }

    /// Waits until `count` lines contain `text`; all lines so far.
    #[track_caller]
    pub(crate) fn wait_for_all(&self, text: &str, count: usize) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        let mut state = self.log.lines.lock().expect("log");
        while state.0.iter().filter(|line| line.contains(text)).count() < count {
            let left = end.saturating_duration_since(Instant::now());
            if state.1 == 2 || left.is_zero() {
                let printed = state.0.join("\n");
                drop(state);
                panic!("the daemon did not print `{text}` ({count} times), but\n{printed}");
            }
            state = self.log.grown.wait_timeout(state, left).expect("log").0;
        }
        state.0.clone()
    }

    /// What it has printed up to the line that contains `text` for the `times`th time.
    #[track_caller]
    pub(crate) fn printed_until(&self, text: &str, times: usize) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        let mut state = self.log.lines.lock().expect("log");
        loop {
            let mut found = state.0.iter().enumerate().filter(|(_, line)| line.contains(text));
            if let Some((at, _)) = found.nth(times - 1) {
                return state.0[..=at].to_vec();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(state.1 < 2 && !left.is_zero(), "the daemon did not print `{text}` {times} times");
            state = self.log.grown.wait_timeout(state, left).expect("log").0;
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        kill_process(process, signal).expect("send a signal");
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself; its exit code.
    pub(crate) fn wait(self) -> Option<i32> {
        self.wait_with_log().0
    }

    /// Waits until it ends by itself; its exit code, and all that it has printed.
    pub(crate) fn wait_with_log(mut self) -> (Option<i32>, Vec<String>) {
        let end = Instant::now() + LIMIT;
        let mut state = self.log.lines.lock().expect("log");
        while state.1 < 2 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let printed = state.0.join("\n");
                drop(state);
                panic!("the daemon did not end, but printed\n{printed}");
            }
            state = self.log.grown.wait_timeout(state, left).expect("log").0;
        }
        let lines = std::mem::take(&mut state.0);
        drop(state);
        (self.child.wait().expect("wait for a daemon").code(), lines)
    }
}

/// The most memory that a running process has had resident, in KiB.
pub(crate) fn peak_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

fn follow(pipe: impl Read + Send + 'static, log: &Arc<Log>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lines.lock().expect("log").0.push(text);
            log.grown.notify_all();
            line.clear();
        }
        log.lines.lock().expect("log").1 += 1;
        log.grown.notify_all();
    });
}
