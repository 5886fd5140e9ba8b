//! What is remembered of a session: how it ended, and what came of the files.

use super::{Common, Outcome};
use crate::engine::status::now;
use crate::engine::tally::PeerTally;
use crate::model::errors::chain;
use crate::model::{End, Session};

/// Ends the count of a session and remembers it, unless it was a dry run. That this fails is no failure of the session.
pub(super) async fn record(run: &Common, tally: &PeerTally, outcome: &mut Outcome) {
    let (dialect, address) = std::mem::take(&mut outcome.reached);
    let report = &outcome.report;
    let end = match &report.first {
        Some(error) => End::Badly(error.clone()),
        None if report.unfinished => End::Stopped,
        None => End::Well,
    };
    let session = Session {
        peer: tally.peer.clone(),
        at: now(),
        milliseconds: u64::try_from(tally.elapsed().as_millis()).unwrap_or(u64::MAX),
        end,
        dialect,
        address,
        figures: tally.figures(),
    };
    tally.end(session.clone());
    if run.dry_run {
        return;
    }
    if let Err(error) = run.node.store.record_session(session).await {
        tracing::warn!("WARNING: what came of the session with {} is not remembered: {}.", tally.peer, chain(&error));
    }
}
