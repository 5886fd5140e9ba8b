//! Pushing: every peer that has dirty rows is served by a task of its own, all at once, in this one process. A peer that
//! is slow, dead or refuses us costs its own rows only: they stay, and the others are served.
//!
//! A claim keeps other processes away, [`plan`] says what is to be done, [`session`] has one peer listen to us,
//! [`exchange`] keeps requests and answers in step, [`pipeline`] brings the peer up to date, file by file ([`job`]), and
//! [`confirmed`] writes down what arrived. [`contents`] has a file read once for all peers.

mod confirmed;
mod contents;
mod exchange;
mod feed;
mod job;
mod local;
mod outbox;
mod pipeline;
mod plan;
mod record;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::contents::Contents;
use self::plan::{Dirty, Paths};
use super::stop::within_grace;
use super::tally::{PeerTally, RunTally};
use super::{EngineError, Node, Report, claim, recover};
use crate::model::errors::chain;
use crate::model::{Scope, SyncPath};
use crate::store::{DirtyFilter, Store, StoreError};
use crate::wire::Connection;

/// How an update behaves.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// `-d`: change nothing anywhere, say what would be done.
    pub dry_run: bool,
    /// `-P`: only these peers, in lower case.
    pub peers: Option<Vec<String>>,
    /// Removes nothing on a peer: what is gone here stays dirty.
    pub without_removals: bool,
    /// Who claims the peers, where that is not the process as a whole: a session of a daemon.
    pub holder: Option<String>,
    /// Begins no other file once this is cancelled.
    pub stop: CancellationToken,
    /// Where the work is counted.
    pub tally: Arc<RunTally>,
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
    /// How the peer was reached that was served: its dialect, and the address.
    reached: (Option<String>, Option<String>),
    /// Of a dry run: peer by peer, in the order in which the work would be done.
    pub forecasts: Vec<Forecast>,
    /// The session with the peer that was served.
    tally: Option<Arc<PeerTally>>,
    /// The connection to the peer that was served, when it has had our goodbye.
    closing: Option<Connection>,
}

/// What all peers of a run have in common.
#[derive(Debug)]
struct Common {
    node: Arc<Node>,
    /// As [`UpdateOptions::dry_run`].
    dry_run: bool,
    /// As [`UpdateOptions::without_removals`].
    without_removals: bool,
    /// Names whoever claims the peers.
    holder: String,
    contents: Arc<Contents>,
    paths: Paths,
    /// Files that are planned at once for one peer.
    room: usize,
    /// As [`UpdateOptions::stop`].
    stop: CancellationToken,
    /// As [`UpdateOptions::tally`].
    tally: Arc<RunTally>,
}

/// Pushes the dirty rows within `scopes` to their peers.
///
/// # Errors
/// When it cannot be read who has any. Everything that concerns one peer is counted in its report.
pub async fn update(node: &Arc<Node>, scopes: Vec<Scope>, options: &UpdateOptions) -> Result<Outcome, EngineError> {
    let with_rows: BTreeSet<String> = node.store.dirty_peers().await?.into_iter().map(|(_, peer)| peer).collect();
    let wanted = |peer: &String| options.peers.as_ref().is_none_or(|peers| peers.contains(&peer.to_lowercase()));
    let work: Vec<String> = with_rows.into_iter().filter(wanted).collect();
    let places = Arc::new(Semaphore::new(node.config.max_parallel_peers.max(1)));
    let contents = Arc::new(Contents::for_peers(work.len()));
    let (dry_run, without_removals) = (options.dry_run, options.without_removals);
    let (stop, tally) = (options.stop.clone(), Arc::clone(&options.tally));
    let holder = options.holder.clone().unwrap_or_else(recover::holder);
    let room = room(work.len().min(node.config.max_parallel_peers));
    let paths = Paths::for_peers(work.len());
    let node = Arc::clone(node);
    let run = Arc::new(Common { node, dry_run, without_removals, holder, contents, paths, room, stop, tally });
    let (mut tasks, mut peers) = (JoinSet::new(), HashMap::new());
    for peer in work {
        let (run, places, served) = (Arc::clone(&run), Arc::clone(&places), peer.clone());
        let filter = DirtyFilter { peer: Some(peer.clone()), scopes: scopes.clone() };
        let task = tasks.spawn(async move {
            let mut outcome = Outcome::default();
            // The semaphore is never closed.
            let Some(_place) = run.stop.run_until_cancelled(places.acquire_owned()).await else {
                outcome.report.unfinished = true;
                return outcome;
            };
            if within_grace(&run.stop, serve(&run, &served, filter, &mut outcome)).await.is_none() {
                outcome.report.unfinished = true;
                tracing::warn!("WARNING: the session with {served} was cut off: what was under way took too long.");
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

/// Files that are planned at once in a run: what is known of each takes some hundred bytes.
const ROOM: usize = 1 << 14;

/// Fewer for one peer would have it wait.
const ROOM_OF_ONE: usize = 1 << 11;

/// What a peer's part of it is, with so many peers.
fn room(peers: usize) -> usize {
    (ROOM / peers.max(1)).max(ROOM_OF_ONE)
}

async fn serve(run: &Arc<Common>, peer: &str, filter: DirtyFilter, outcome: &mut Outcome) {
    if let Err(error) = serve_rows(run, peer, filter, outcome).await {
        let error = chain(&error);
        outcome.report.error(format_args!("ERROR: {peer}: {error}. What is dirty for it stays so."));
    }
    if let Some(tally) = outcome.tally.take() {
        record::record(run, &tally, outcome).await;
    }
    if let Some(connection) = outcome.closing.take() {
        part(peer, connection).await;
    }
}

/// Serves a peer while no other process does. The rows are read by then: what another one has delivered meanwhile is no
/// longer to be sent.
async fn serve_rows(
    run: &Arc<Common>,
    peer: &str,
    filter: DirtyFilter,
    outcome: &mut Outcome,
) -> Result<(), StoreError> {
    let store = &run.node.store;
    if run.dry_run {
        return serve_dirty(run, peer, filter, outcome).await;
    }
    // Who has nothing of what this run is about is not waited for.
    if filter.scopes != [Scope::All] && !has_rows(store, filter.clone()).await? {
        return Ok(());
    }
    let waiting = || tracing::info!("Waiting for another csync2 that is updating {peer} ...");
    let claiming = claim::claim(store, peer, &run.holder, waiting);
    let Some(claimed) = run.stop.run_until_cancelled(claiming).await.transpose()? else {
        outcome.report.unfinished = true;
        return Ok(());
    };
    let served = serve_dirty(run, peer, filter, outcome).await;
    claimed.release().await?;
    served
}

async fn has_rows(store: &Store, filter: DirtyFilter) -> Result<bool, StoreError> {
    let mut rows = store.marks(filter);
    while let Some(chunk) = rows.recv().await {
        if !chunk?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn serve_dirty(
    run: &Arc<Common>,
    peer: &str,
    filter: DirtyFilter,
    outcome: &mut Outcome,
) -> Result<(), StoreError> {
    let dirty = Dirty::read(&run.node, filter, &run.paths, &mut outcome.report).await?;
    if dirty.count > 0 {
        session::serve_peer(run, peer, dirty, outcome).await;
    }
    Ok(())
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
