//! FETCH and PUSH: a peer that joins says what it lacks. That is marked for it alone, and pushed to it as by `csync2 -u -P`;
//! so it arrives by the rules of every push, and a push that breaks off goes on with the next one.

use std::time::Duration;

use tokio::time::Instant;

use super::peer::Peer;
use super::permission::Admitted;
use super::session::{Session, SessionError};
use crate::engine::update::{self, UpdateOptions};
use crate::engine::{EngineError, mark, step};
use crate::fs::{Presence, presence};
use crate::model::{Mark, Scope, SyncPath};
use crate::wire::Reply;

/// Files in one transaction.
const CHUNK: usize = 1_000;

/// How often a client is told that its push goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// What a peer has asked for and is not marked yet.
#[derive(Debug, Default)]
pub(super) struct Wishes(Vec<SyncPath>);

impl Wishes {
    /// Takes a file in. One that is gone here is none: whether it was removed is for a check to say.
    pub(super) async fn add(&mut self, peer: &Peer, file: &Admitted) -> Result<Reply, EngineError> {
        let place = file.place.clone();
        let is_here = move || matches!(presence(place.root(), place.relative()), Presence::Present(_));
        if !step("FETCH", is_here).await? {
            return Ok(Reply::PathNotFound);
        }
        self.0.push(file.path.clone());
        if self.0.len() >= CHUNK {
            self.mark(peer).await?;
        }
        Ok(Reply::CmdFinished)
    }

    /// Marks for this peer what is not marked for it. Nothing has changed here, so no action is called for.
    async fn mark(&mut self, peer: &Peer) -> Result<(), EngineError> {
        let node = &peer.node;
        let mut paths = std::mem::take(&mut self.0);
        paths.sort_unstable();
        paths.dedup();
        let mut marks: Vec<Mark> = Vec::new();
        for (path, known) in paths.iter().zip(node.store.known(paths.clone()).await?) {
            if known.marks.iter().all(|mark| *mark.peer != *peer.name) {
                marks.extend(mark::marks(&node.config, path, false).into_iter().filter(|mark| mark.peer == peer.name));
            }
        }
        for Mark { path, .. } in &marks {
            mark::announce(path);
        }
        if marks.is_empty() { Ok(()) } else { Ok(node.store.mark(marks, Vec::new()).await?) }
    }
}

impl Session {
    /// Pushes all that is dirty for the peer and that is here, and tells it meanwhile that there is more to wait for: who lacks
    /// files does not ask for removals, which stay dirty. When it has gone, or this host is to stop, the push ends after the file
    /// in hand, and what is left stays dirty.
    pub(super) async fn push(&mut self, peer: &Peer) -> Result<Reply, SessionError> {
        self.wishes.mark(peer).await?;
        let stop = self.stop.child_token();
        let options = UpdateOptions {
            peers: Some(vec![peer.name.clone()]),
            without_removals: true,
            holder: Some(self.holder.clone()),
            stop: stop.clone(),
            ..UpdateOptions::default()
        };
        let mut pushing = Box::pin(update::update(&peer.node, vec![Scope::All], &options));
        let mut ticks = tokio::time::interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
        let report = loop {
            tokio::select! {
                outcome = &mut pushing => break outcome?.report,
                _ = ticks.tick() => {
                    let told = self.connection.write_line(&Reply::Pushing.encode()).await;
                    if told.is_err() || self.connection.flush().await.is_err() {
                        stop.cancel();
                    }
                }
            }
        };
        Ok(match report.errors {
            0 if !report.unfinished => Reply::CmdFinished,
            0 => Reply::Text("The push was stopped; the next one sends what is left.".to_owned()),
            errors => Reply::Text(format!("The push ended with {errors} errors, see the log of this host.")),
        })
    }
}
