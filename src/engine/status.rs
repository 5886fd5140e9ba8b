//! How things are between this host and its peers, as far as this host knows, and whether that is well. Nothing is asked of
//! a peer, and nothing is changed.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{membership, recover};
use crate::config::Config;
use crate::model::{Past, PastRun, Pending, Standing};
use crate::store::{Store, StoreError};
use crate::wire::certificate::Description;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Fine,
    Warning,
    Critical,
}

/// What is known of a peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    pub name: String,
    /// It shares files with this host, as the configuration is now.
    pub is_member: bool,
    /// What waits for it; `None`: nothing.
    pub pending: Option<Pending>,
    /// `None`: no session with it is remembered.
    pub past: Option<Past>,
    /// The one that is pinned for it.
    pub certificate: Option<Description>,
}

/// All that is known.
#[derive(Debug, Clone)]
pub struct Status {
    /// When it was so, in seconds since 1970.
    pub at: i64,
    /// By name: those of the configuration, and others for whom something waits.
    pub peers: Vec<PeerStatus>,
    pub runs: Vec<PastRun>,
    pub hints: u64,
    pub actions: u64,
    /// Files that are being received.
    pub receiving: u64,
    /// Files that were being received by processes that are no more.
    pub interrupted: u64,
}

impl Status {
    /// Reads it; with names only for these peers.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(config: &Config, store: &Store, names: &[String]) -> Result<Self, StoreError> {
        let Standing { mut pending, mut past, runs, hints, actions, intents } = store.standing().await?;
        let mut certificates = store.certificates().await?;
        let members: BTreeSet<String> = membership::pairs(config).into_iter().map(|(_, peer)| peer).collect();
        let waiting = pending.iter().map(|pending| &pending.peer);
        let all: BTreeSet<String> = members.iter().chain(waiting).chain(names).cloned().collect();
        let mut peers = Vec::new();
        for name in all.into_iter().filter(|name| names.is_empty() || names.contains(name)) {
            let pinned = take(&mut certificates, |(peer, _)| *peer == name);
            peers.push(PeerStatus {
                is_member: members.contains(&name),
                pending: take(&mut pending, |pending| pending.peer == name),
                past: take(&mut past, |past| past.peer == name),
                certificate: pinned.map(|(_, der)| Description::of(&der)),
                name,
            });
        }
        let interrupted = intents.iter().filter(|holder| !recover::is_alive(holder)).count() as u64;
        let receiving = intents.len() as u64 - interrupted;
        Ok(Self { at: now(), peers, runs, hints, actions, receiving, interrupted })
    }

    /// Files that wait, for all of these peers together.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.peers.iter().map(PeerStatus::files).sum()
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.peers.iter().filter_map(|peer| peer.pending.as_ref()).map(|pending| pending.bytes).sum()
    }

    /// Since when the first of them has waited, as far as that is known.
    #[must_use]
    pub fn since(&self) -> Option<i64> {
        self.peers.iter().filter_map(PeerStatus::since).min()
    }

    /// Seconds that have passed since a moment.
    #[must_use]
    pub fn age(&self, moment: i64) -> u64 {
        u64::try_from(self.at.saturating_sub(moment)).unwrap_or(0)
    }
}

impl PeerStatus {
    #[must_use]
    pub fn files(&self) -> u64 {
        self.pending.as_ref().map_or(0, |pending| pending.files)
    }

    #[must_use]
    pub fn since(&self) -> Option<i64> {
        self.pending.as_ref().and_then(|pending| pending.since)
    }

    /// Something waits for it, and the last attempt to send it went wrong.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.files() > 0 && self.past.as_ref().is_some_and(Past::is_failing)
    }
}

/// Takes the first that fits out of a list.
fn take<T>(list: &mut Vec<T>, fits: impl Fn(&T) -> bool) -> Option<T> {
    list.iter().position(fits).map(|at| list.swap_remove(at))
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
