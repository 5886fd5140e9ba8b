//! The status for people. Its first line is that of a plugin of Nagios, figures included.

use std::fmt::Write;

use time::OffsetDateTime;

use super::{Judged, Span, counted, one_line};
use crate::engine::status::{Level, PeerStatus, Status};
use crate::model::{Figures, PastRun};

pub(super) fn status(judged: &Judged) -> String {
    let Judged { status, database, my_name, .. } = judged;
    let mut text = first_line(judged);
    for peer in &status.peers {
        write_peer(&mut text, status, peer);
    }
    let _ = writeln!(text, "{my_name} (this host)");
    let mut line = |what: &str, says: &str| {
        let _ = writeln!(text, "  {what:<13}{says}");
    };
    line("database", database);
    let checks = if status.hints == 0 { "" } else { ": csync2 -c looks at them" };
    line("hints", &format!("{}{checks}", status.hints));
    let runs = if status.actions == 0 { "" } else { ": the next run runs them" };
    line("actions", &format!("{}{runs}", status.actions));
    line("receiving", &format!("{}, interrupted {}", status.receiving, status.interrupted));
    for run in &status.runs {
        line(&format!("last -{}", run.mode), &past_run(status, run));
    }
    text
}

fn first_line(judged: &Judged) -> String {
    let Judged { status, warning, critical, level, reasons, .. } = judged;
    let word = match level {
        Level::Fine => "OK",
        Level::Warning => "WARNING",
        Level::Critical => "CRITICAL",
    };
    let (all, files) = (status.peers.len(), status.files());
    let waiting = status.peers.iter().filter(|peer| peer.files() > 0).count();
    let mut line = match files {
        0 => format!("CSYNC2 {word}: nothing waits for {}", counted(all as u64, "peer", "peers")),
        _ => format!("CSYNC2 {word}: {} for {waiting} of {}", counted(files, "file waits", "files wait"), {
            counted(all as u64, "peer", "peers")
        }),
    };
    for reason in reasons {
        let _ = write!(line, "; {}", one_line(reason));
    }
    let limit = |one: Option<u64>| one.map(|number| number.to_string()).unwrap_or_default();
    let limits = |of: fn(&super::Threshold) -> Option<u64>| format!("{};{};0", limit(of(warning)), limit(of(critical)));
    let (of_files, of_age) = (limits(|threshold| threshold.files), limits(|threshold| threshold.age));
    let age = status.since().map_or(0, |since| status.age(since));
    let most = status.peers.iter().map(PeerStatus::files).max().unwrap_or(0);
    // The thresholds are those of one peer.
    let _ =
        write!(line, " | files={files};;;0 most={most};{of_files} bytes={}B;;;0 age={age}s;{of_age}", status.bytes());
    let _ = write!(line, " hints={};;;0 actions={};;;0", status.hints, status.actions);
    for peer in &status.peers {
        let _ = write!(line, " '{}'={};{of_files}", peer.name.replace(['\'', '='], "_"), peer.files());
    }
    line.push('\n');
    line
}

fn write_peer(text: &mut String, status: &Status, peer: &PeerStatus) {
    let stranger =
        if peer.is_member { "" } else { " (in no group of this configuration; csync2 -R forgets what waits)" };
    let _ = writeln!(text, "{}{stranger}", peer.name);
    let mut line = |what: &str, says: &str| {
        let _ = writeln!(text, "  {what:<13}{says}");
    };
    match &peer.pending {
        None => line("waiting", "nothing"),
        Some(pending) => {
            let forced = if pending.forced == 0 { String::new() } else { format!(" ({} forced)", pending.forced) };
            let files = counted(pending.files, "file", "files");
            let since = pending.since.map_or_else(
                || "since when is not known yet".to_owned(),
                |since| format!("the oldest since {}", moment(status, since)),
            );
            line("waiting", &format!("{files}{forced}, {} bytes, {since}", pending.bytes));
        }
    }
    let past = peer.past.as_ref();
    let never = || "never".to_owned();
    line("last success", &past.and_then(|past| past.succeeded).map_or_else(never, |at| moment(status, at)));
    if let Some(past) = past {
        if let Some(failed) = past.failed {
            line("last failure", &moment(status, failed));
            line("last error", &one_line(past.error.as_deref().unwrap_or_default()));
        }
        line("last session", &figures(&past.figures, past.milliseconds));
        line("dialect", past.dialect.as_deref().unwrap_or("not known yet"));
        line("address", past.address.as_deref().unwrap_or("not known yet"));
    }
    let pinned =
        peer.certificate.as_ref().map(|one| format!("{} ({}, until {})", one.fingerprint, one.key, one.not_after));
    line("certificate", &pinned.unwrap_or_else(|| "none is pinned".to_owned()));
}

/// What came of a session: also the summary of a run.
pub(in crate::commands) fn figures(figures: &Figures, milliseconds: u64) -> String {
    let Figures { sent, removed, equal, refused, bytes } = figures;
    format!(
        "{sent} sent, {removed} removed, {equal} equal already, {refused} refused; {bytes} bytes in {}.{:03} s",
        milliseconds / 1000,
        milliseconds % 1000
    )
}

fn past_run(status: &Status, run: &PastRun) -> String {
    let PastRun { at, milliseconds, errors, checked, marked, .. } = run;
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let errors = counted(*errors, "error", "errors");
    let ended = moment(status, *at);
    format!("{ended}: {errors}, {checked} checked, {marked} marked in {seconds}.{rest:03} s")
}

/// `2026-11-28 16:20:41 UTC (3 min ago)`
fn moment(status: &Status, at: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(at) else { return at.to_string() };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC ({} ago)",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        Span(status.age(at))
    )
}
