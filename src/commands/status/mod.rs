//! `--status`: how things are, for people, for monitoring and for programs. Nothing is changed, no action is run, and a
//! database that is not there is not made.

mod json;
pub(super) mod metrics;
mod text;

pub(super) use text::figures;

use std::fmt;

use crate::cli::{Printer, Settings, Status as Exit, Threshold};
use crate::engine::status::{Level, Status};
use crate::model::errors::chain;
use crate::store::{Store, StoreOptions};

use super::node_settings;

/// What is warned about where nothing else was said.
const WARNING: Threshold = Threshold { files: None, age: Some(3_600) };
const CRITICAL: Threshold = Threshold { files: None, age: Some(86_400) };

/// The status, judged.
#[derive(Debug)]
struct Judged {
    status: Status,
    /// Where it was read.
    database: String,
    my_name: String,
    warning: Threshold,
    critical: Threshold,
    level: Level,
    /// Why it is not fine.
    reasons: Vec<String>,
}

/// Prints the status, and ends as a plugin of Nagios does: also when it cannot be told.
pub(super) async fn run(settings: &Settings, peers: &[String], printer: &Printer) -> anyhow::Result<Exit> {
    let judged = match read(settings, peers).await {
        Ok(judged) => judged,
        Err(error) => {
            let reason = chain(error.as_ref());
            let text =
                if settings.json { json::unknown(&reason) } else { format!("CSYNC2 UNKNOWN: {}", one_line(&reason)) };
            printer.line(&[text.as_bytes()])?;
            printer.flush()?;
            return Ok(Exit::Unknown);
        }
    };
    if let Some(file) = &settings.metrics {
        metrics::write_or_warn(file, &settings.config_name, &judged.status);
    }
    if settings.json {
        printer.line(&[json::status(&judged).as_bytes()])?;
    } else {
        printer.bytes(text::status(&judged).as_bytes())?;
    }
    printer.flush()?;
    Ok(match judged.level {
        Level::Fine => Exit::Success,
        Level::Warning => Exit::Warning,
        Level::Critical => Exit::Critical,
    })
}

async fn read(settings: &Settings, peers: &[String]) -> anyhow::Result<Judged> {
    let node = node_settings(settings, true);
    let config = node.load(&settings.config_name).await?;
    let location = node.location(&config, &settings.config_name)?;
    let options = StoreOptions {
        lock_timeout: config.lock_timeout,
        read_only: true,
        must_exist: true,
        max_connections: 1,
        ..StoreOptions::default()
    };
    let store = Store::open(&location, &options).await?;
    let status = Status::of(&config, &store, peers).await?;
    store.close().await;
    let (warning, critical) = (settings.warning.unwrap_or(WARNING), settings.critical.unwrap_or(CRITICAL));
    let (database, my_name) = (location.to_string(), config.my_name.clone());
    let (level, reasons) = judge(&status, warning, critical);
    Ok(Judged { status, database, my_name, warning, critical, level, reasons })
}

fn judge(status: &Status, warning: Threshold, critical: Threshold) -> (Level, Vec<String>) {
    let (mut level, mut reasons) = (Level::Fine, Vec::new());
    let mut say = |found: Level, reason: String| {
        level = level.max(found);
        reasons.push(reason);
    };
    for peer in &status.peers {
        let (name, files, age) = (&peer.name, peer.files(), peer.since().map(|since| status.age(since)));
        let waits = || match age {
            Some(age) => format!("{name}: {} for {}", counted(files, "file waits", "files wait"), Span(age)),
            None => format!("{name}: {}", counted(files, "file waits", "files wait")),
        };
        if critical.is_reached(files, age) {
            say(Level::Critical, waits());
        } else if warning.is_reached(files, age) {
            say(Level::Warning, waits());
        }
        if peer.is_failing() {
            say(Level::Warning, format!("{name}: the last session failed"));
        }
        if !peer.is_member {
            say(Level::Warning, format!("{name} is in no group of this configuration"));
        }
    }
    if status.interrupted > 0 {
        let files = counted(status.interrupted, "file was", "files were");
        say(Level::Warning, format!("{files} being received when that was interrupted: the next run looks after that"));
    }
    (level, reasons)
}

/// `1 file`, `2 files`.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What monitoring reads is one line.
fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ").replace('|', "/")
}

/// Seconds, in the largest unit of which there are two: `90 s`, `3 min`, `47 h`, `2 d`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(formatter, "{seconds} s"),
            seconds @ 120..7_200 => write!(formatter, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(formatter, "{} h", seconds / 3_600),
            seconds => write!(formatter, "{} d", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::status::PeerStatus;
    use crate::model::{DirtyVersion, Past, Pending};

    fn peer(name: &str, files: u64, since: Option<i64>) -> PeerStatus {
        let first = DirtyVersion(1);
        let pending = Pending { peer: name.into(), files, forced: 0, bytes: 7, first, since };
        PeerStatus {
            name: name.into(),
            is_member: true,
            pending: (files > 0).then_some(pending),
            past: None,
            certificate: None,
        }
    }

    fn status(peers: Vec<PeerStatus>) -> Status {
        Status { at: 100_000, peers, runs: Vec::new(), hints: 0, actions: 0, receiving: 0, interrupted: 0 }
    }

    fn judged(status: &Status) -> (Level, String) {
        let (level, reasons) = judge(status, WARNING, CRITICAL);
        (level, reasons.join("; "))
    }

    #[test]
    fn what_waits_for_long_is_told() {
        assert_eq!(judged(&status(vec![peer("b", 0, None), peer("c", 9_999, None)])), (Level::Fine, String::new()));
        let waiting = status(vec![peer("b", 1, Some(100_000 - 3_600)), peer("c", 2, Some(100_000 - 90_000))]);
        let expected = "b: 1 file waits for 60 min; c: 2 files wait for 25 h";
        assert_eq!(judged(&waiting), (Level::Critical, expected.to_owned()));
    }

    #[test]
    fn a_peer_that_fails_is_told_as_long_as_something_waits() {
        let mut failing = peer("b", 1, None);
        let past = Past { failed: Some(5), succeeded: Some(4), error: Some("refused".into()), ..Past::default() };
        failing.past = Some(past.clone());
        let told = (Level::Warning, "b: the last session failed".to_owned());
        assert_eq!(judged(&status(vec![failing.clone()])), told);
        failing.past = Some(Past { succeeded: Some(6), ..past });
        assert_eq!(judged(&status(vec![failing.clone()])), (Level::Fine, String::new()));
        failing.pending = None;
        failing.is_member = false;
        let told = (Level::Warning, "b is in no group of this configuration".to_owned());
        assert_eq!(judged(&status(vec![failing])), told);
    }

    #[test]
    fn spans_are_told_in_a_unit_that_fits() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800, 1_000_000].map(|seconds| Span(seconds).to_string());
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d", "11 d"]);
    }
}
