//! The end of a run that checked or pushed: what is remembered of it, told of it, and written for monitoring.

use serde_json::{Value, json};

use super::Run;
use super::status::{figures, metrics};
use crate::cli::Mode;
use crate::engine::status::{Status, now};
use crate::engine::tally::PeerTally;
use crate::model::errors::chain;
use crate::model::{End, Figures, PastRun};
use crate::store::StoreError;

/// The letters of a mode that checks or pushes.
pub(super) fn letters(mode: &Mode) -> Option<&'static str> {
    match mode {
        Mode::CheckAndUpdate { .. } => Some("x"),
        Mode::Check { then_update: false, .. } => Some("c"),
        Mode::Check { then_update: true, .. } => Some("cu"),
        Mode::Update { .. } => Some("u"),
        _ => None,
    }
}

impl Run {
    /// Remembers the run, writes the metrics and tells the result. What of this fails is a warning.
    pub(super) async fn conclude(&self, mode: &'static str) -> anyhow::Result<()> {
        for peer in self.tally.peers() {
            tracing::debug!("{}: {}.", peer.peer, figures(&peer.figures(), milliseconds(&peer)));
        }
        if !self.settings.dry_run {
            let run = self.past_run(mode);
            if let Err(error) = self.node.store.record_run(run).await {
                tracing::warn!("WARNING: this run is not remembered: {}.", chain(&error));
            }
        }
        if let Some(file) = &self.settings.metrics {
            match Status::of(&self.node.config, &self.node.store, &[]).await {
                Ok(status) => metrics::write_or_warn(file, &self.node.config_name, &status),
                Err(error) => tracing::warn!("WARNING: the metrics are not written: {}.", chain(&error)),
            }
        }
        if self.settings.json {
            self.printer.line(&[self.result(mode).to_string().as_bytes()])?;
            self.printer.flush()?;
        }
        Ok(())
    }

    fn past_run(&self, mode: &str) -> PastRun {
        PastRun {
            mode: mode.to_owned(),
            at: now(),
            milliseconds: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            errors: self.report.errors as u64,
            checked: self.tally.check.checked(),
            marked: self.tally.check.marked(),
        }
    }

    /// The result as an object (docs/json.md).
    fn result(&self, mode: &str) -> Value {
        let PastRun { mode, at, milliseconds, errors, checked, marked } = self.past_run(mode);
        json!({
            "mode": mode,
            "dry_run": self.settings.dry_run,
            "at": at,
            "milliseconds": milliseconds,
            "errors": errors,
            "first_error": self.report.first,
            "unfinished": self.report.unfinished,
            "checked": checked,
            "marked": marked,
            "peers": self.tally.peers().iter().map(|peer| session(peer)).collect::<Vec<_>>(),
        })
    }

    /// Files have been marked: it is remembered when.
    pub(super) async fn remember_marking(&self) {
        let recorded: Result<(), StoreError> = self.node.store.record_marking(now()).await;
        if let Err(error) = recorded {
            tracing::warn!("WARNING: when these files were marked is not remembered: {}.", chain(&error));
        }
    }
}

/// A session that has not come to an end has none of what belongs to one.
fn session(peer: &PeerTally) -> Value {
    let Figures { sent, removed, equal, refused, bytes } = peer.figures();
    let session = peer.session();
    let error = session.and_then(|session| if let End::Badly(error) = &session.end { Some(error) } else { None });
    json!({
        "peer": peer.peer,
        "ok": session.is_some_and(|session| session.end == End::Well),
        "error": error,
        "dialect": session.and_then(|session| session.dialect.as_ref()),
        "address": session.and_then(|session| session.address.as_ref()),
        "sent": sent,
        "removed": removed,
        "equal": equal,
        "refused": refused,
        "bytes": bytes,
        "milliseconds": milliseconds(peer),
    })
}

fn milliseconds(peer: &PeerTally) -> u64 {
    let elapsed = || u64::try_from(peer.elapsed().as_millis()).unwrap_or(u64::MAX);
    peer.session().map_or_else(elapsed, |session| session.milliseconds)
}
