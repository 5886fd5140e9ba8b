//! Pushing: every peer that has dirty rows is served by a task of its own, all at once, in this one process. A peer that
//! is slow, dead or refuses us costs its own rows only: they stay, and the others are served.
//!
//! A claim keeps other processes away, [`plan`] says what is to be done, [`session`] has one peer listen to us,
//! [`exchange`] keeps requests and answers in step, [`pipeline`] brings the peer up to date, file by file ([`job`]), and
//! [`confirmed`] writes down what arrived.

mod confirmed;
mod exchange;
mod feed;
mod job;
mod local;
mod outbox;
mod pipeline;
mod plan;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{EngineError, Node, Report, claim, recover};
use crate::model::errors::chain;
use crate::model::{DirtyEntry, Scope, SyncPath};
use crate::store::{DirtyFilter, StoreError};
use crate::wire::Connection;

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
    /// The connection to the peer that was served, when it has had our goodbye.
    closing: Option<Connection>,
}

/// Pushes the dirty rows within `scopes` to their peers.
///
/// # Errors
/// When the dirty rows cannot be read. Everything that concerns one peer is counted in its report.
pub async fn update(node: &Arc<Node>, scopes: Vec<Scope>, options: &UpdateOptions) -> Result<Outcome, EngineError> {
    let mut work: BTreeMap<String, Vec<DirtyEntry>> = BTreeMap::new();
    for entry in node.store.dirty(DirtyFilter { peer: None, scopes: scopes.clone() }).await? {
        let wanted = options.peers.as_ref().is_none_or(|peers| peers.contains(&entry.peer.to_lowercase()));
        if wanted {
            work.entry(entry.peer.clone()).or_default().push(entry);
        }
    }
    let places = Arc::new(Semaphore::new(node.config.max_parallel_peers.max(1)));
    let (mut tasks, mut peers) = (JoinSet::new(), HashMap::new());
    for (peer, entries) in work {
        let (node, places, dry_run) = (Arc::clone(node), Arc::clone(&places), options.dry_run);
        let served = peer.clone();
        let filter = DirtyFilter { peer: Some(peer.clone()), scopes: scopes.clone() };
        let task = tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await.ok();
            let mut outcome = if dry_run {
                session::serve_peer(&node, &served, entries, true).await
            } else {
                alone(&node, &served, filter).await
            };
            if let Some(connection) = outcome.closing.take() {
                part(&served, connection).await;
            }
            outcome
        });
        peers.insert(task.id(), peer);
    }
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    while let Some(joined) = tasks.join_next_with_id().await {
        let (id, outcome) = match joined {
            Ok(joined) => joined,
            Err(error) => {
                let mut outcome = Outcome::default();
                let peer = peers.get(&error.id()).map_or("", String::as_str);
                outcome.report.error(format_args!("ERROR: {peer}: the update ended early: {error}"));
                (error.id(), outcome)
            }
        };
        outcomes.insert(peers.remove(&id).unwrap_or_default(), outcome);
    }
    let mut total = Outcome::default();
    for outcome in outcomes.into_values() {
        total.report.merge(outcome.report);
        total.forecasts.extend(outcome.forecasts);
    }
    Ok(total)
}

/// Serves a peer while no other process does. What another one has delivered meanwhile is no longer to be sent.
async fn alone(node: &Arc<Node>, peer: &str, filter: DirtyFilter) -> Outcome {
    let mut outcome = Outcome::default();
    let serve = async {
        let waiting = || tracing::info!("Waiting for another csync2 that is updating {peer} ...");
        let claimed = claim::claim(&node.store, peer, &recover::holder(), waiting).await?;
        let entries = node.store.dirty(filter).await;
        if let Ok(entries) = &entries
            && !entries.is_empty()
        {
            outcome = session::serve_peer(node, peer, entries.clone(), false).await;
        }
        claimed.release().await?;
        entries.map(drop)
    };
    let result: Result<(), StoreError> = serve.await;
    if let Err(error) = result {
        outcome.report.error(format_args!("ERROR: {peer}: {}. What is dirty for it stays so.", chain(&error)));
    }
    outcome
}

/// Waits until the peer has run its actions: scripts count on them when we return. Others may push to it meanwhile.
async fn part(peer: &str, connection: Connection) {
    if !connection.finish().await {
        tracing::warn!(
            "WARNING: {peer} has what was sent, but has not ended the session within idle-timeout: its actions may \
             still be running."
        );
    }
}
