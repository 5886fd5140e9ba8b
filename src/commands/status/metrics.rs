//! `--metrics FILE`: the status in the text format of Prometheus, for the textfile collector of the node exporter. The file
//! appears whole, in place of the one before.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::engine::status::{PeerStatus, Status};
use crate::model::errors::strerror;
use crate::model::{Figures, Past, PastRun};

/// Writes the file. That this fails is a warning: it is no part of the work.
pub(in crate::commands) fn write_or_warn(path: &Path, config_name: &str, status: &Status) {
    if let Err(error) = write(path, &render(config_name, status)) {
        tracing::warn!("WARNING: cannot write the metrics to {}: {}.", path.display(), strerror(&error));
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    // The collector reads what ends in .prom: not this one.
    let mut file = tempfile::Builder::new().prefix(".csync2-").tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// All metrics: each name with all of its values, as the format wants it.
fn render(config_name: &str, status: &Status) -> String {
    let mut page = Page { text: String::new(), config_name };
    page.gauge("status_timestamp_seconds", "When these values were read.", [(vec![], Some(status.at))]);
    let mut peers = |name: &str, help: &str, value: &dyn Fn(&PeerStatus) -> Option<i64>| {
        page.gauge(name, help, status.peers.iter().map(|peer| (vec![("peer", peer.name.as_str())], value(peer))));
    };
    peers("pending_files", "Files that wait for the peer.", &|peer| Some(peer.files().cast_signed()));
    peers("pending_bytes", "Bytes of the files that wait for the peer.", &|peer| {
        Some(peer.pending.as_ref().map_or(0, |pending| pending.bytes).cast_signed())
    });
    peers("pending_oldest_timestamp_seconds", "Since when the oldest of these files has waited.", &PeerStatus::since);
    peers("peer_failing", "1: files wait, and the last session with the peer failed.", &|peer| {
        Some(i64::from(peer.is_failing()))
    });
    let past = |of: fn(&Past) -> Option<i64>| move |peer: &PeerStatus| peer.past.as_ref().and_then(of);
    peers(
        "peer_last_success_timestamp_seconds",
        "When a session with the peer last ended well.",
        &past(|past| past.succeeded),
    );
    peers(
        "peer_last_failure_timestamp_seconds",
        "When a session with the peer last failed.",
        &past(|past| past.failed),
    );
    peers("session_timestamp_seconds", "When the last session with the peer ended.", &past(|past| Some(past.ended)));
    peers(
        "session_sent_bytes",
        "Bytes of contents that went out in the last session.",
        &past(|past| Some(past.figures.bytes.cast_signed())),
    );
    page.seconds(
        "session_duration_seconds",
        "How long the last session with the peer took.",
        status.peers.iter().filter_map(|peer| Some((("peer", peer.name.as_str()), peer.past.as_ref()?.milliseconds))),
    );
    let results = status.peers.iter().filter_map(|peer| Some((peer, peer.past.as_ref()?.figures)));
    let results = results.flat_map(|(peer, figures)| {
        let Figures { sent, removed, equal, refused, .. } = figures;
        [("sent", sent), ("removed", removed), ("equal", equal), ("refused", refused)]
            .map(|(result, count)| (vec![("peer", peer.name.as_str()), ("result", result)], Some(count.cast_signed())))
    });
    page.gauge("session_files", "What came of the files of the last session with the peer.", results);
    let mut runs = |name: &str, help: &str, value: fn(&PastRun) -> i64| {
        page.gauge(name, help, status.runs.iter().map(|run| (vec![("mode", run.mode.as_str())], Some(value(run)))));
    };
    runs("run_timestamp_seconds", "When the last run ended.", |run| run.at);
    runs("run_errors", "Errors of the last run.", |run| run.errors.cast_signed());
    runs("run_checked_files", "Files that the last run checked.", |run| run.checked.cast_signed());
    runs("run_marked_files", "Files that the last run found changed.", |run| run.marked.cast_signed());
    let durations = status.runs.iter().map(|run| (("mode", run.mode.as_str()), run.milliseconds));
    page.seconds("run_duration_seconds", "How long the last run took.", durations);
    for (name, help, count) in [
        ("hints", "Files that were noted and not checked yet.", status.hints),
        ("actions", "Actions that are scheduled.", status.actions),
        ("receiving_files", "Files that are being received.", status.receiving),
        ("interrupted_files", "Files that were being received when that was interrupted.", status.interrupted),
    ] {
        page.gauge(name, help, [(vec![], Some(count.cast_signed()))]);
    }
    page.text
}

struct Page<'n> {
    text: String,
    /// Two configurations of a host are told apart by it.
    config_name: &'n str,
}

impl Page<'_> {
    /// A metric, with its values that are known.
    fn gauge<'v>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, Option<i64>)>,
    ) {
        let values = values.into_iter().filter_map(|(labels, value)| Some((labels, value?.to_string())));
        self.metric(name, help, values);
    }

    /// A metric of milliseconds, in seconds.
    fn seconds<'v>(&mut self, name: &str, help: &str, values: impl Iterator<Item = ((&'v str, &'v str), u64)>) {
        let values = values.map(|(label, value)| (vec![label], format!("{}.{:03}", value / 1000, value % 1000)));
        self.metric(name, help, values);
    }

    fn metric<'v>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (Vec<(&'v str, &'v str)>, String)>) {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return;
        }
        let _ = writeln!(self.text, "# HELP csync2_{name} {help}\n# TYPE csync2_{name} gauge");
        for (mut labels, value) in values {
            if !self.config_name.is_empty() {
                labels.insert(0, ("config", self.config_name));
            }
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.text, "csync2_{name}{labels} {value}");
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let peer = PeerStatus { name: "b\"\\".into(), is_member: true, pending: None, past: None, certificate: None };
        Status { at: 7, peers: vec![peer], runs: Vec::new(), hints: 3, actions: 0, receiving: 0, interrupted: 0 }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = render("two", &status());
        let expected = "# HELP csync2_pending_files Files that wait for the peer.\n# TYPE csync2_pending_files gauge\n\
            csync2_pending_files{config=\"two\",peer=\"b\\\"\\\\\"} 0\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("csync2_hints{config=\"two\"} 3\n"), "{text}");
        assert!(!text.contains("last_success") && !text.contains("oldest"), "{text}");
        assert!(render("", &status()).contains("\ncsync2_hints 3\n"));
    }

    #[test]
    fn the_file_appears_whole_and_can_be_read_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csync2.prom");
        std::fs::write(&path, "old").unwrap();
        write(&path, "new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write(&directory.path().join("none/x"), "").is_err());
    }
}
