//! The log: what `tracing` events become, and where they go.
//!
//! A message is printed as it stands, without level or target, since scripts read these lines. `warn!` is level 0
//! (always shown), `info!` is `-v`, `debug!` is `-vv`, `trace!` is `-vvv`; of an event only the message counts. Inside a
//! span with a field `session` lines begin with its value: `<id> `. The span's end is the session's end.

mod clock;
mod layer;
mod stderr;
mod syslog;

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use indicatif::MultiProgress;
use tracing_subscriber::layer::SubscriberExt;

use self::clock::{LocalTime, hours_minutes_seconds};
use self::layer::LogLayer;
use self::stderr::Stderr;
use self::syslog::{Syslog, severity};
use crate::model::errors::strerror;

/// Where the log goes and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// How often `-v` was given.
    pub verbosity: u8,
    /// `-l`: messages go to syslog, none to stderr.
    pub syslog: bool,
    pub process: ProcessKind,
    /// `-t`: the time before each line, and TIMESTAMP and TOTALTIME lines.
    pub timestamps: bool,
    /// `-s FILE`: TIMESTAMP and TOTALTIME lines go there (too).
    pub timestamp_file: Option<PathBuf>,
    /// `-O[FILE]`: everything, whatever the verbosity, goes there as well.
    pub debug_file: Option<DebugFile>,
    /// `$JOURNAL_STREAM`: which file is the journal, if stderr is that.
    pub journal_stream: Option<OsString>,
}

impl LogOptions {
    /// The same log, as far as no file of its own is needed: for saying that one cannot be opened.
    #[must_use]
    pub fn without_files(&self) -> Self {
        Self { timestamp_file: None, debug_file: None, ..self.clone() }
    }
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessKind {
    #[default]
    Run,
    /// `-i`: stderr may be the peer's socket.
    Inherited,
    /// `-ii`, `-iii`: it has no TIMESTAMP before it has something to say, and no end of its own.
    Daemon,
}

/// The file of the full debug log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DebugFile {
    /// A new one in /tmp.
    Default,
    At(PathBuf),
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    // The misspelling is the C program's: scripts may look for it.
    #[error("Can't open timestanp file `{}': {}", .path.display(), strerror(.source))]
    TimestampFile { path: PathBuf, source: io::Error },
    #[error("Can't open debug file `{}': {}", .path.display(), strerror(.source))]
    DebugFile { path: PathBuf, source: io::Error },
    #[error("Can't open syslog: {}", strerror(.0))]
    Syslog(#[source] io::Error),
    #[error("there is a log already")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Opens the log's files and makes the log the process's, for panics too. Prints the first TIMESTAMP, unless it is a
/// daemon's log. Lines for stderr make the bars on `screen` give way.
///
/// # Errors
/// A file cannot be opened, or the process has a log.
pub fn init(options: &LogOptions, screen: Option<&MultiProgress>) -> Result<Guard, LogError> {
    if options.process == ProcessKind::Inherited {
        stderr::keep_from_the_peer();
    }
    let log = Arc::new(Log::open(options, screen)?);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(LogLayer(log.clone())))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Guard::start(log))
}

/// A panic's usual place, stderr, may be the peer.
fn log_panic(panic: &PanicHookInfo<'_>) {
    tracing::error!("{panic}");
}

/// The run, as far as the log knows of it. Dropped without [`Guard::finish`] (a fatal end) it prints a TIMESTAMP only.
#[derive(Debug)]
pub struct Guard {
    log: Arc<Log>,
    finished: bool,
}

impl Guard {
    fn start(log: Arc<Log>) -> Self {
        if !log.is_daemon {
            log.stamp(&log.process);
        }
        if let Some(path) = &log.debug_path {
            log.message(1, &log.process, &format!("Full debug log: {}", path.display()));
        }
        Self { log, finished: false }
    }

    /// The orderly end of a run: TIMESTAMP and TOTALTIME.
    pub fn finish(mut self) {
        self.finished = true;
        if !self.log.is_daemon {
            self.log.end(&self.log.process);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.finished && !self.log.is_daemon {
            self.log.stamp(&self.log.process);
        }
    }
}

/// Who speaks: the process, or one of its sessions.
#[derive(Debug)]
struct Speaker {
    /// The session's number.
    session: Option<String>,
    started: SystemTime,
    last_stamp: Mutex<Option<SystemTime>>,
}

impl Speaker {
    fn new(session: Option<String>, started: SystemTime) -> Self {
        Self { session, started, last_stamp: Mutex::new(None) }
    }

    /// What its lines begin with.
    fn prefix(&self) -> String {
        self.session.as_ref().map(|id| format!("<{id}> ")).unwrap_or_default()
    }

    fn last_stamp(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.last_stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamp_is_due(&self, now: SystemTime) -> bool {
        let since = |last| now.duration_since(last).unwrap_or_default();
        self.last_stamp().is_none_or(|last| since(last) >= STAMP_EVERY)
    }
}

type Sink = Mutex<Box<dyn Write + Send>>;

/// The open log.
struct Log {
    process: Speaker,
    stderr: Stderr,
    /// Where messages go instead of stderr.
    syslog: Option<Syslog>,
    verbosity: u8,
    is_daemon: bool,
    timestamps: bool,
    timestamp_file: Option<Sink>,
    debug_file: Option<Sink>,
    /// Where the debug file is, when we chose its name.
    debug_path: Option<PathBuf>,
    clock: fn() -> SystemTime,
}

/// While there is something to say, a TIMESTAMP comes this often.
const STAMP_EVERY: Duration = Duration::from_secs(300);

impl Log {
    fn open(options: &LogOptions, screen: Option<&MultiProgress>) -> Result<Self, LogError> {
        let syslog = options.syslog.then(|| Syslog::at("/dev/log".into())).transpose().map_err(LogError::Syslog)?;
        let timestamp_file = options.timestamp_file.as_ref().map(|path| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map(sink).map_err(|source| LogError::TimestampFile { path: path.clone(), source })
        });
        let (debug_file, debug_path) = match options.debug_file.as_ref().map(DebugFile::open).transpose()? {
            Some((file, path)) => (Some(sink(file)), path),
            None => (None, None),
        };
        Ok(Self {
            process: Speaker::new(None, SystemTime::now()),
            stderr: Stderr::of_process(options.journal_stream.as_deref(), screen.cloned()),
            syslog,
            verbosity: options.verbosity,
            is_daemon: options.process == ProcessKind::Daemon,
            timestamps: options.timestamps,
            timestamp_file: timestamp_file.transpose()?,
            debug_file,
            debug_path,
            clock: SystemTime::now,
        })
    }

    /// The levels that anybody gets to see.
    fn is_wanted(&self, level: u8) -> bool {
        level <= self.verbosity || self.debug_file.is_some()
    }

    /// Prints a message, each of its lines with the prefixes.
    fn message(&self, level: u8, speaker: &Speaker, text: &str) {
        let now = (self.clock)();
        let (time, session) = (LocalTime::of(now), speaker.prefix());
        if level <= self.verbosity {
            match &self.syslog {
                None => {
                    if speaker.stamp_is_due(now) {
                        self.stamp(speaker);
                    }
                    let prefix = if self.timestamps { time.prefix() } else { String::new() };
                    self.stderr.write(severity(level), &(prefix + &session), text);
                }
                Some(syslog) => {
                    for line in text.lines() {
                        syslog.send(level, &time, &format!("{session}{line}"));
                    }
                }
            }
        }
        if let Some(file) = &self.debug_file {
            write_lines(file, &(time.prefix() + &session), text);
        }
    }

    /// A session begins: its first TIMESTAMP, unless its process has had one to which its lines belong.
    fn session(&self, id: String) -> Speaker {
        let speaker = Speaker::new(Some(id), (self.clock)());
        *speaker.last_stamp() = *self.process.last_stamp();
        if speaker.last_stamp().is_none() {
            self.stamp(&speaker);
        }
        speaker
    }

    /// Prints a TIMESTAMP.
    fn stamp(&self, speaker: &Speaker) {
        let now = (self.clock)();
        *speaker.last_stamp() = Some(now);
        self.timing(speaker, &format!("TIMESTAMP: {}", LocalTime::of(now)));
    }

    /// Prints when a run or session ended, and how long it took.
    fn end(&self, speaker: &Speaker) {
        self.stamp(speaker);
        let taken = (self.clock)().duration_since(speaker.started).unwrap_or_default();
        self.timing(speaker, &format!("TOTALTIME: {}", hours_minutes_seconds(taken)));
    }

    /// A line about the time: on stderr also when messages go to syslog. In the file each has the session's number, or
    /// the process's.
    fn timing(&self, speaker: &Speaker, line: &str) {
        if self.timestamps {
            self.stderr.write(severity(1), &speaker.prefix(), line);
        }
        if let Some(file) = &self.timestamp_file {
            let id = speaker.session.clone().unwrap_or_else(|| process::id().to_string());
            write_lines(file, &format!("<{id}> "), line);
        }
    }
}

fn sink(writer: impl Write + Send + 'static) -> Sink {
    Mutex::new(Box::new(writer))
}

/// One write for each call, so that lines of several processes do not mix. A log that cannot be written is no reason
/// to stop.
fn write_lines(sink: &Sink, prefix: &str, text: &str) {
    let mut lines = String::with_capacity(prefix.len() + text.len() + 1);
    for line in text.lines() {
        lines.extend([prefix, line, "\n"]);
    }
    let _ = sink.lock().unwrap_or_else(PoisonError::into_inner).write_all(lines.as_bytes());
}

impl DebugFile {
    /// The open file, and its path where that is new to the user.
    fn open(&self) -> Result<(File, Option<PathBuf>), LogError> {
        match self {
            Self::Default => {
                let directory = Path::new("/tmp");
                let prefix = format!("csync2-debug-{}-", process::id());
                tempfile::Builder::new()
                    .prefix(&prefix)
                    .suffix(".log")
                    .tempfile_in(directory)
                    .and_then(|file| Ok(file.keep()?))
                    .map(|(file, path)| (file, Some(path)))
                    .map_err(|source| LogError::DebugFile { path: directory.join(prefix), source })
            }
            Self::At(path) => open_debug_file(path)
                .map(|file| (file, None))
                .map_err(|source| LogError::DebugFile { path: path.clone(), source }),
        }
    }
}

/// Its name may be a well-known one in a directory that everybody writes to: no link is followed, nothing but a plain file
/// of our own is written to.
fn open_debug_file(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("not a plain file of this user"));
    }
    Ok(file)
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Log").field("verbosity", &self.verbosity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
