//! What is still to be sent, and to whom.

use std::sync::Arc;

use super::SyncPath;

/// Names one marking of a file for a peer. A file marked again has another version, whoever marked it (the C program
/// too): clearing by version never forgets a change made during the push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirtyVersion(pub i64);

/// A row of the dirty table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyEntry {
    pub path: SyncPath,
    /// Push without asking for the peer's state, and win a conflict.
    pub forced: bool,
    /// The name this host has towards the peer.
    pub my_name: Arc<str>,
    pub peer: Arc<str>,
    pub version: DirtyVersion,
}

impl From<DirtyEntry> for Mark {
    fn from(entry: DirtyEntry) -> Self {
        let DirtyEntry { path, forced, my_name, peer, .. } = entry;
        Self { path, my_name: my_name.to_string(), peer: peer.to_string(), forced }
    }
}

/// A dirty row to be written; an existing row of the same file and peer is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub path: SyncPath,
    pub my_name: String,
    pub peer: String,
    pub forced: bool,
}
