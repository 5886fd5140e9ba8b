//! Which group a file belongs to, with whom it is shared, and who may touch it. Pure: no disk, no database.

use crate::config::{Config, Group};
use crate::model::{ScheduledAction, SyncPath};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Sync,
    /// `compare` patterns count as includes.
    Compare,
}

/// Why an action would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The file was changed here.
    Local,
    /// The file came from a peer.
    Received,
}

/// A peer with whom a file is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerName<'c> {
    /// How the peer knows us.
    pub my_name: &'c str,
    pub peer: &'c str,
    /// The group that gave our name.
    pub group: &'c Group,
}

/// The answer to a peer's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Allowed,
    /// The peer only receives.
    Slave,
    Denied(DeniedBecause),
}

/// Why a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedBecause {
    NoGroupCovers,
    NotAMember,
    WrongKey,
}

/// Whether `path` is a file of `group`.
#[must_use]
pub fn covers(group: &Group, path: &SyncPath, purpose: Purpose) -> bool {
    let _ = (group, path, purpose);
    todo!()
}

/// The groups that hold `path`, in the order of precedence.
pub fn groups_of<'c>(config: &'c Config, path: &'c SyncPath, purpose: Purpose) -> impl Iterator<Item = &'c Group> {
    config.groups.iter().filter(move |group| covers(group, path, purpose))
}

/// Whether any group holds `path`.
#[must_use]
pub fn is_covered(config: &Config, path: &SyncPath, purpose: Purpose) -> bool {
    groups_of(config, path, purpose).next().is_some()
}

/// Whether a walk enters `directory`.
#[must_use]
pub fn descend(config: &Config, directory: &SyncPath, purpose: Purpose) -> bool {
    let _ = (config, directory, purpose);
    todo!()
}

/// Whether some include lies below `path`.
#[must_use]
pub fn below_covered(config: &Config, path: &SyncPath, purpose: Purpose) -> bool {
    let _ = (config, path, purpose);
    todo!()
}

/// With whom `path` is shared: each peer once, our name from the first group in the order of precedence.
#[must_use]
pub fn peers_of<'c>(config: &'c Config, path: &SyncPath, purpose: Purpose) -> Vec<PeerName<'c>> {
    let _ = (config, path, purpose);
    todo!()
}

/// All pairs of our name and a peer's, each once.
#[must_use]
pub fn pairs(config: &Config) -> Vec<(String, String)> {
    let _ = config;
    todo!()
}

/// The first group that holds `path` and has `peer` as a member (and us under `my_name`).
#[must_use]
pub fn group_with_peer<'c>(
    config: &'c Config,
    path: &SyncPath,
    my_name: Option<&str>,
    peer: &str,
) -> Option<&'c Group> {
    let _ = (config, path, my_name, peer);
    todo!()
}

/// Whether the real path lies above the directory of some prefix.
#[must_use]
pub fn above_prefix(config: &Config, real: &[u8]) -> bool {
    let _ = (config, real);
    todo!()
}

/// Whether `peer` may do something to `path` with `key`.
#[must_use]
pub fn permission(config: &Config, path: &SyncPath, peer: &str, key: &str, purpose: Purpose) -> Permission {
    let _ = (config, path, peer, key, purpose);
    todo!()
}

/// The commands to be run because of a change to `path`.
#[must_use]
pub fn actions_for(config: &Config, path: &SyncPath, event: Event) -> Vec<ScheduledAction> {
    let _ = (config, path, event);
    todo!()
}
