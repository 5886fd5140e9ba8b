//! The log: what `tracing` events become, and where they go.
//!
//! A message is printed as it stands, without level or target, since scripts read these lines. `warn!` is level 0
//! (always shown), `info!` is `-v`, `debug!` is `-vv`, `trace!` is `-vvv`; of an event only the message counts. Inside a
//! span with a field `session` lines begin with its value: `<id> `. The span's end is the session's end.

mod clock;
mod syslog;

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use self::clock::{LocalTime, hours_minutes_seconds};
use self::syslog::Syslog;

/// Where the log goes and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// How often `-v` was given.
    pub verbosity: u8,
    /// `-l`: to syslog, and nothing to stderr.
    pub syslog: bool,
    /// `-t`: the time before each line, and TIMESTAMP and TOTALTIME lines.
    pub timestamps: bool,
    /// `-s FILE`: TIMESTAMP and TOTALTIME lines go there (too).
    pub timestamp_file: Option<PathBuf>,
    /// `-O[FILE]`: everything, whatever the verbosity, goes there as well.
    pub debug_file: Option<DebugFile>,
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
    #[error("Can't open timestanp file `{}': {}", .path.display(), reason(.source))]
    TimestampFile { path: PathBuf, source: io::Error },
    #[error("Can't open debug file `{}': {}", .path.display(), reason(.source))]
    DebugFile { path: PathBuf, source: io::Error },
    #[error("Can't open syslog: {}", reason(.0))]
    Syslog(#[source] io::Error),
    #[error("there is a log already")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// The system's words for an error, without the number that Rust adds: what strerror(3) says.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Opens the log's files and makes the log the process's, for panics too: on an inherited socket their usual place,
/// stderr, may be the peer. Prints the first TIMESTAMP.
///
/// # Errors
/// A file cannot be opened, or the process has a log.
pub fn init(options: &LogOptions) -> Result<Guard, LogError> {
    let log = Arc::new(Log::open(options)?);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(LogLayer(log.clone())))?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(Guard::start(log))
}

/// The run, as far as the log knows of it. Dropped without [`Guard::finish`] (a fatal end) it prints a TIMESTAMP only.
#[derive(Debug)]
pub struct Guard {
    log: Arc<Log>,
    started: SystemTime,
    finished: bool,
}

impl Guard {
    fn start(log: Arc<Log>) -> Self {
        let started = log.stamp(None);
        if let Some(path) = &log.debug_path {
            log.message(1, None, &format!("Full debug log: {}", path.display()));
        }
        Self { log, started, finished: false }
    }

    /// The orderly end of a run: TIMESTAMP and TOTALTIME.
    pub fn finish(mut self) {
        self.finished = true;
        self.log.stamp(None);
        self.log.total(None, self.started);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.finished {
            self.log.stamp(None);
        }
    }
}

type Sink = Mutex<Box<dyn Write + Send>>;

/// The open log.
struct Log {
    output: Output,
    verbosity: u8,
    timestamps: bool,
    timestamp_file: Option<Sink>,
    debug_file: Option<Sink>,
    /// Where the debug file is, when we chose its name.
    debug_path: Option<PathBuf>,
    last_stamp: Mutex<Option<SystemTime>>,
    clock: fn() -> SystemTime,
}

enum Output {
    Stderr(Sink),
    Syslog(Syslog),
}

/// While there is something to say, a TIMESTAMP comes this often.
const STAMP_EVERY: Duration = Duration::from_secs(300);

impl Log {
    fn open(options: &LogOptions) -> Result<Self, LogError> {
        let output = if options.syslog {
            Output::Syslog(Syslog::at("/dev/log".into()).map_err(LogError::Syslog)?)
        } else {
            Output::Stderr(sink(io::stderr()))
        };
        let timestamp_file = options.timestamp_file.as_ref().map(|path| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map(sink).map_err(|source| LogError::TimestampFile { path: path.clone(), source })
        });
        let (debug_file, debug_path) = match options.debug_file.as_ref().map(DebugFile::open).transpose()? {
            Some((file, path)) => (Some(sink(file)), path),
            None => (None, None),
        };
        Ok(Self {
            output,
            verbosity: options.verbosity,
            timestamps: options.timestamps,
            timestamp_file: timestamp_file.transpose()?,
            debug_file,
            debug_path,
            last_stamp: Mutex::new(None),
            clock: SystemTime::now,
        })
    }

    /// The levels that anybody gets to see.
    fn is_wanted(&self, level: u8) -> bool {
        level <= self.verbosity || self.debug_file.is_some()
    }

    /// Prints a message, each of its lines with the prefixes.
    fn message(&self, level: u8, session: Option<&str>, text: &str) {
        let now = (self.clock)();
        if self.stamp_is_due(now) {
            self.stamp(session);
        }
        let time = LocalTime::of(now);
        let session = session.map(|id| format!("<{id}> ")).unwrap_or_default();
        if level <= self.verbosity {
            match &self.output {
                Output::Stderr(stderr) => {
                    let prefix = if self.timestamps { time.prefix() } else { String::new() };
                    write_lines(stderr, &(prefix + &session), text);
                }
                Output::Syslog(syslog) => {
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

    fn stamp_is_due(&self, now: SystemTime) -> bool {
        let last = *self.last_stamp.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.duration_since(last).is_ok_and(|passed| passed >= STAMP_EVERY))
    }

    /// Prints a TIMESTAMP; returns its time.
    fn stamp(&self, session: Option<&str>) -> SystemTime {
        let now = (self.clock)();
        *self.last_stamp.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.timing(session, &format!("TIMESTAMP: {}", LocalTime::of(now)));
        now
    }

    /// Prints how long a run or session took.
    fn total(&self, session: Option<&str>, started: SystemTime) {
        let taken = (self.clock)().duration_since(started).unwrap_or_default();
        self.timing(session, &format!("TOTALTIME: {}", hours_minutes_seconds(taken)));
    }

    /// A line about the time. In the file each has the session's number, or the process's.
    fn timing(&self, session: Option<&str>, line: &str) {
        if let (true, Output::Stderr(stderr)) = (self.timestamps, &self.output) {
            write_lines(stderr, &session.map(|id| format!("<{id}> ")).unwrap_or_default(), line);
        }
        if let Some(file) = &self.timestamp_file {
            let id = session.map_or_else(|| process::id().to_string(), str::to_owned);
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

/// The log holds the groups' keys, and its name may be a well-known one in a directory that everybody writes to: no
/// link is followed, nothing but a plain file of our own is written to.
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

struct LogLayer(Arc<Log>);

/// What a span with a field `session` leaves with itself.
struct Session {
    id: String,
    started: SystemTime,
}

impl LogLayer {
    /// Libraries have things to say as well, with words that no reader of our log expects.
    fn is_wanted(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"))
            && (metadata.is_span() || self.0.is_wanted(level(*metadata.level())))
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_wanted(metadata)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut session = TextOf { field: "session", text: None };
        attributes.record(&mut session);
        if let (Some(id), Some(span)) = (session.text, context.span(id)) {
            span.extensions_mut().insert(Session { id, started: (self.0.clock)() });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = TextOf { field: "message", text: None };
        event.record(&mut message);
        let session = context.event_scope(event).into_iter().flatten().find_map(|span| {
            let extensions = span.extensions();
            extensions.get::<Session>().map(|session| session.id.clone())
        });
        self.0.message(level(*event.metadata().level()), session.as_deref(), &message.text.unwrap_or_default());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(session) = span.extensions().get::<Session>() {
            self.0.stamp(Some(&session.id));
            self.0.total(Some(&session.id), session.started);
        }
    }
}

/// How many `-v` it takes to see an event.
fn level(level: Level) -> u8 {
    match level {
        Level::ERROR | Level::WARN => 0,
        Level::INFO => 1,
        Level::DEBUG => 2,
        Level::TRACE => 3,
    }
}

/// Reads one field of an event or span.
struct TextOf {
    field: &'static str,
    text: Option<String>,
}

impl Visit for TextOf {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.field {
            self.text = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.field {
            let _ = write!(self.text.insert(String::new()), "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// A sink that can be looked at.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Stands still.
    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)
    }

    fn log(stderr: &Page, options: &LogOptions) -> Log {
        let output = Output::Stderr(sink(stderr.clone()));
        Log { output, clock, ..Log::open(&LogOptions { syslog: false, ..options.clone() }).unwrap() }
    }

    /// Runs something under a log; returns what stderr got.
    fn logged(options: &LogOptions, something: impl FnOnce()) -> String {
        let page = Page::default();
        let log = Arc::new(log(&page, options));
        let subscriber = tracing_subscriber::registry().with(LogLayer(log.clone()));
        let guard = Guard::start(log);
        tracing::subscriber::with_default(subscriber, something);
        guard.finish();
        page.text()
    }

    fn every_level() {
        tracing::error!("error");
        tracing::warn!("warning about {}", "x");
        tracing::info!("info");
        tracing::debug!("debug");
        tracing::trace!("trace");
        tracing::warn!(target: "rustls::conn", "a library's words");
    }

    #[test]
    fn each_v_shows_one_level_more_and_nothing_else() {
        for (verbosity, expected) in [
            (0, "error\nwarning about x\n"),
            (1, "error\nwarning about x\ninfo\n"),
            (2, "error\nwarning about x\ninfo\ndebug\n"),
            (3, "error\nwarning about x\ninfo\ndebug\ntrace\n"),
            (9, "error\nwarning about x\ninfo\ndebug\ntrace\n"),
        ] {
            assert_eq!(logged(&LogOptions { verbosity, ..LogOptions::default() }, every_level), expected);
        }
    }

    #[test]
    fn lines_of_a_session_carry_its_number() {
        let text = logged(&LogOptions { verbosity: 1, ..LogOptions::default() }, || {
            let _session = tracing::error_span!("session", session = 17).entered();
            let _inner = tracing::error_span!("file", path = "/etc/motd").entered();
            tracing::info!("two\nlines");
        });
        assert_eq!(text, "<17> two\n<17> lines\n");
    }

    #[test]
    fn timestamps_stand_where_scripts_look_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("stamps");
        let options = LogOptions { timestamps: true, timestamp_file: Some(file.clone()), ..LogOptions::default() };
        let text = logged(&options, || {
            tracing::warn!("outside");
            let _session = tracing::error_span!("session", session = 17).entered();
            tracing::warn!("inside");
        });
        let time = LocalTime::of(clock());
        let (at, me) = (time.prefix(), process::id());
        assert_eq!(
            text,
            format!(
                "TIMESTAMP: {time}\n{at}outside\n{at}<17> inside\n\
                 <17> TIMESTAMP: {time}\n<17> TOTALTIME: 0:00:00\nTIMESTAMP: {time}\nTOTALTIME: 0:00:00\n"
            )
        );
        assert_eq!(
            std::fs::read_to_string(file).unwrap(),
            format!(
                "<{me}> TIMESTAMP: {time}\n<17> TIMESTAMP: {time}\n<17> TOTALTIME: 0:00:00\n\
                 <{me}> TIMESTAMP: {time}\n<{me}> TOTALTIME: 0:00:00\n"
            )
        );
    }

    #[test]
    fn a_fatal_end_has_a_timestamp_only() {
        let page = Page::default();
        let options = LogOptions { timestamps: true, ..LogOptions::default() };
        drop(Guard::start(Arc::new(log(&page, &options))));
        let line = format!("TIMESTAMP: {}\n", LocalTime::of(clock()));
        assert_eq!(page.text(), line.repeat(2));
    }

    #[test]
    fn a_long_run_is_stamped_now_and_then() {
        let page = Page::default();
        let log = log(&page, &LogOptions { timestamps: true, ..LogOptions::default() });
        *log.last_stamp.lock().unwrap() = Some(clock() - Duration::from_secs(299));
        log.message(0, None, "soon");
        *log.last_stamp.lock().unwrap() = Some(clock() - Duration::from_secs(300));
        log.message(0, None, "late");
        log.message(0, None, "again");
        let time = LocalTime::of(clock());
        let at = time.prefix();
        assert_eq!(page.text(), format!("{at}soon\nTIMESTAMP: {time}\n{at}late\n{at}again\n"));
    }

    #[test]
    fn syslog_gets_the_lines_and_stderr_none() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("log");
        let daemon = UnixDatagram::bind(&address).unwrap();
        let options = LogOptions { timestamps: true, ..LogOptions::default() };
        let log = Log { output: Output::Syslog(Syslog::at(address).unwrap()), ..log(&Page::default(), &options) };
        log.stamp(None);
        log.message(1, None, "not wanted");
        log.message(0, Some("17"), "wanted");
        let mut buffer = [0; 1000];
        let length = daemon.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.starts_with("<132>") && text.ends_with("]: <17> wanted\n"), "{text}");
    }

    #[test]
    fn the_debug_file_has_every_level_and_is_ours_alone() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("debug");
        let options = LogOptions { debug_file: Some(DebugFile::At(file.clone())), ..LogOptions::default() };
        assert_eq!(logged(&options, every_level), "error\nwarning about x\n");
        let at = LocalTime::of(clock()).prefix();
        let expected = format!("{at}error\n{at}warning about x\n{at}info\n{at}debug\n{at}trace\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        let link = directory.path().join("link");
        symlink(&file, &link).unwrap();
        let hard_link = directory.path().join("hard");
        for trap in [link, "/dev/null".into(), directory.path().to_owned()] {
            assert!(open_debug_file(&trap).is_err(), "{}", trap.display());
        }
        std::fs::hard_link(&file, &hard_link).unwrap();
        assert!(open_debug_file(&hard_link).is_err());
    }

    #[test]
    fn the_default_debug_file_is_new_and_said() {
        let page = Page::default();
        let options = LogOptions { verbosity: 1, debug_file: Some(DebugFile::Default), ..LogOptions::default() };
        Guard::start(Arc::new(log(&page, &options))).finish();
        let text = page.text();
        let path = text.trim_end().strip_prefix("Full debug log: ").unwrap();
        assert!(path.starts_with("/tmp/csync2-debug-"), "{path}");
        assert!(std::fs::read_to_string(path).unwrap().contains(path));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let timestamp_file = Some("/nonexistent/x".into());
        let error = Log::open(&LogOptions { timestamp_file, ..LogOptions::default() }).err().unwrap();
        assert_eq!(error.to_string(), "Can't open timestanp file `/nonexistent/x': No such file or directory");
        let debug_file = Some(DebugFile::At("/nonexistent/x".into()));
        let error = Log::open(&LogOptions { debug_file, ..LogOptions::default() }).err().unwrap();
        assert_eq!(error.to_string(), "Can't open debug file `/nonexistent/x': No such file or directory");
    }
}
