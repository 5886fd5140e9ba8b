//! Pushing: every peer that has dirty rows is served by a task of its own, all at once, in this one process.
//!
//! [`session`] gets a peer to listen to us, [`pipeline`] brings it up to date, [`job`] knows the life of one file. A
//! peer that is slow, dead or refuses us costs its own rows only: they stay, and the others are served.

mod claim;
mod job;
mod local;
mod outbox;
mod pipeline;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{EngineError, Node, Report, chain};
use crate::model::{DirtyEntry, Scope, SyncPath};
use crate::store::{DirtyFilter, StoreError};

/// How an update behaves.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// `-d`: change nothing anywhere, say what would be done.
    pub dry_run: bool,
    /// `-P`: only these peers, in lower case.
    pub peers: Option<Vec<String>>,
}

/// What a dry run says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    Modify,
    Delete,
    InSync,
}

/// One line of a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    pub prospect: Prospect,
    pub forced: bool,
    pub peer: String,
    pub path: SyncPath,
}

/// What came of an update.
#[derive(Debug, Default)]
pub struct Outcome {
    pub report: Report,
    /// Of a dry run: peer by peer, in the order in which the work would be done.
    pub forecasts: Vec<Forecast>,
}

/// Pushes the dirty rows within `scopes` to their peers.
///
/// # Errors
/// When the dirty rows cannot be read. Everything that concerns one peer is counted in its report.
pub async fn update(node: &Arc<Node>, scopes: Vec<Scope>, options: &UpdateOptions) -> Result<Outcome, EngineError> {
    let mut outcome = Outcome::default();
    let mut work: BTreeMap<String, Vec<DirtyEntry>> = BTreeMap::new();
    for entry in node.store.dirty(DirtyFilter { peer: None, scopes: scopes.clone() }).await? {
        let wanted = options.peers.as_ref().is_none_or(|peers| peers.contains(&entry.peer.to_lowercase()));
        if wanted {
            work.entry(entry.peer.clone()).or_default().push(entry);
        }
    }
    let places = Arc::new(Semaphore::new(node.config.max_parallel_peers.max(1)));
    let mut tasks = JoinSet::new();
    for (peer, entries) in work {
        let (node, places, dry_run) = (Arc::clone(node), Arc::clone(&places), options.dry_run);
        let filter = DirtyFilter { peer: Some(peer.clone()), scopes: scopes.clone() };
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await.ok();
            let outcome = if dry_run {
                session::serve_peer(&node, &peer, entries, true).await
            } else {
                alone(&node, &peer, filter).await
            };
            (peer, outcome)
        });
    }
    let mut outcomes = BTreeMap::new();
    while let Some(joined) = tasks.join_next().await {
        let (peer, result) = joined.map_err(|source| EngineError::Worker { operation: "update", source })?;
        outcomes.insert(peer, result);
    }
    for (_, one) in outcomes {
        outcome.report.merge(one.report);
        outcome.forecasts.extend(one.forecasts);
    }
    Ok(outcome)
}

/// Serves a peer while no other process does. What another one has delivered meanwhile is no longer to be sent.
async fn alone(node: &Arc<Node>, peer: &str, filter: DirtyFilter) -> Outcome {
    let serve = async {
        let claimed = claim::claim(node, peer).await?;
        let outcome = match node.store.dirty(filter).await? {
            entries if entries.is_empty() => Outcome::default(),
            entries => session::serve_peer(node, peer, entries, false).await,
        };
        claimed.release().await?;
        Ok::<_, StoreError>(outcome)
    };
    serve.await.unwrap_or_else(|error| {
        let mut outcome = Outcome::default();
        outcome.report.error(format_args!("ERROR: {peer}: {}. What is dirty for it stays so.", chain(&error)));
        outcome
    })
}
