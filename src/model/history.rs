//! What is remembered of runs, and of the sessions with each peer: for who wants to know how it goes.

use super::DirtyVersion;

/// What came of the files of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Made like ours on the peer.
    pub sent: u64,
    pub removed: u64,
    /// Marked, and found to be like ours.
    pub equal: u64,
    /// Not brought to an end: refused, or not to be read here. They stay dirty.
    pub refused: u64,
    /// Bytes of contents that went out, packed or as differences where that was so.
    pub bytes: u64,
}

/// How a session with a peer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Well,
    /// The first thing that went wrong, in words.
    Badly(String),
    /// By a signal: neither the one nor the other.
    Stopped,
}

/// A session with a peer, or the attempt at one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub peer: String,
    /// When it ended, in seconds since 1970.
    pub at: i64,
    pub milliseconds: u64,
    pub end: End,
    /// `classic`, `atomic`, `batch 3`; `None`: it did not come to that.
    pub dialect: Option<String>,
    /// Where the peer was reached.
    pub address: Option<String>,
    pub figures: Figures,
}

/// A run that checked or pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRun {
    /// `x`, `c`, `cu` or `u`.
    pub mode: String,
    /// When it ended, in seconds since 1970.
    pub at: i64,
    pub milliseconds: u64,
    pub errors: u64,
    /// Files that a check has looked at.
    pub checked: u64,
    /// Files that it has marked as dirty.
    pub marked: u64,
}

/// What is remembered of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    pub peer: String,
    /// When its last session ended, and the last ones that ended well and badly, in seconds since 1970.
    pub ended: i64,
    pub succeeded: Option<i64>,
    pub failed: Option<i64>,
    /// What went wrong in the one that ended badly.
    pub error: Option<String>,
    /// As in [`Session`], as far as it was ever known.
    pub dialect: Option<String>,
    pub address: Option<String>,
    /// Of the last session.
    pub milliseconds: u64,
    pub figures: Figures,
}

impl Past {
    /// The last session ended badly.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failed.is_some() && self.failed >= self.succeeded
    }
}

/// What waits for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub peer: String,
    pub files: u64,
    /// Those of them that win conflicts.
    pub forced: u64,
    /// Sizes of the regular files among them when they were last checked.
    pub bytes: u64,
    /// The first of their markings.
    pub first: DirtyVersion,
    /// When that was made, in seconds since 1970, but for a minute; `None`: no run has ended since.
    pub since: Option<i64>,
}

/// The state database at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// By peer.
    pub pending: Vec<Pending>,
    /// By peer.
    pub past: Vec<Past>,
    /// By mode.
    pub runs: Vec<PastRun>,
    pub hints: u64,
    pub actions: u64,
    /// The processes that have said that they receive files, each once for a file.
    pub intents: Vec<String>,
}
