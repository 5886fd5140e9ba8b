//! What a run's log looks like, wherever it goes.

use super::*;
use crate::cli::output::page::Page;
use std::os::unix::net::UnixDatagram;

/// Stands still.
fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)
}

fn log(stderr: &Page, options: &LogOptions) -> Log {
    let process = Speaker::new(None, clock());
    let stderr = Stderr::to(stderr.clone(), options.journal_stream.is_some());
    Log { process, stderr, clock, ..Log::open(&LogOptions { syslog: false, ..options.clone() }, None).unwrap() }
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
fn a_panic_goes_to_the_log() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(log_panic));
    let text = logged(&LogOptions::default(), || {
        let _session = tracing::error_span!("session", session = 17).entered();
        assert!(std::panic::catch_unwind(|| panic!("out of cheese")).is_err());
    });
    std::panic::set_hook(usual);
    assert!(text.starts_with("<17> panicked at src/logging/tests.rs:"), "{text}");
    assert!(text.ends_with("\n<17> out of cheese\n"), "{text}");
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
    *log.process.last_stamp() = Some(clock() - Duration::from_secs(299));
    log.message(0, &log.process, "soon");
    *log.process.last_stamp() = Some(clock() - Duration::from_secs(300));
    log.message(1, &log.process, "nobody sees this");
    log.message(0, &log.process, "late");
    log.message(0, &log.process, "again");
    let time = LocalTime::of(clock());
    let at = time.prefix();
    assert_eq!(page.text(), format!("{at}soon\nTIMESTAMP: {time}\n{at}late\n{at}again\n"));
}

#[test]
fn a_daemon_is_stamped_when_it_speaks_and_its_sessions_for_themselves() {
    let options = LogOptions { timestamps: true, process: ProcessKind::Daemon, verbosity: 1, ..LogOptions::default() };
    let serve_two = || {
        for session in 1..=2 {
            let _session = tracing::error_span!("session", session).entered();
            tracing::debug!("nobody sees this");
        }
    };
    let time = LocalTime::of(clock());
    let at = time.prefix();
    let (stamp, total) = (format!("TIMESTAMP: {time}"), "TOTALTIME: 0:00:00");
    let end = |id: u8| format!("<{id}> {stamp}\n<{id}> {total}\n");
    assert_eq!(
        logged(&options, || {
            tracing::info!("Listening");
            serve_two();
        }),
        format!("{stamp}\n{at}Listening\n{}{}", end(1), end(2))
    );
    let whole = format!("<1> {stamp}\n{}<2> {stamp}\n{}", end(1), end(2));
    assert_eq!(logged(&options, serve_two), whole, "nothing was said before");
}

#[test]
fn the_journal_is_told_the_priority_of_each_line() {
    let options =
        LogOptions { verbosity: 3, timestamps: true, journal_stream: Some("1:2".into()), ..LogOptions::default() };
    let text = logged(&options, || {
        let _session = tracing::error_span!("session", session = 4).entered();
        tracing::warn!("two\nlines");
        tracing::info!("info");
        tracing::trace!("trace");
    });
    let time = LocalTime::of(clock());
    let at = time.prefix();
    assert_eq!(
        text,
        format!(
            "<6>TIMESTAMP: {time}\n<4>{at}<4> two\n<4>{at}<4> lines\n<6>{at}<4> info\n<7>{at}<4> trace\n\
             <6><4> TIMESTAMP: {time}\n<6><4> TOTALTIME: 0:00:00\n<6>TIMESTAMP: {time}\n<6>TOTALTIME: 0:00:00\n"
        )
    );
}

#[test]
fn syslog_gets_the_messages_and_stderr_the_times() {
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("log");
    let daemon = UnixDatagram::bind(&address).unwrap();
    let options = LogOptions { timestamps: true, ..LogOptions::default() };
    let page = Page::default();
    let log = Log { syslog: Some(Syslog::at(address).unwrap()), ..log(&page, &options) };
    log.stamp(&log.process);
    log.message(1, &log.process, "not wanted");
    log.message(0, &log.session("17".into()), "wanted");
    assert_eq!(page.text(), format!("TIMESTAMP: {}\n", LocalTime::of(clock())));
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
    let error = Log::open(&LogOptions { timestamp_file, ..LogOptions::default() }, None).err().unwrap();
    assert_eq!(error.to_string(), "Can't open timestanp file `/nonexistent/x': No such file or directory");
    let debug_file = Some(DebugFile::At("/nonexistent/x".into()));
    let error = Log::open(&LogOptions { debug_file, ..LogOptions::default() }, None).err().unwrap();
    assert_eq!(error.to_string(), "Can't open debug file `/nonexistent/x': No such file or directory");
}
