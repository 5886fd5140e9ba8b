//! One file on its way to one peer.

use crate::config::LocalPath;
use crate::model::{DirtyEntry, Metadata, SyncPath};

/// A file to be brought to the state it has here.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked for at a place of its own")]
pub(super) struct Job {
    pub(super) entry: DirtyEntry,
    /// The pre-shared key of the group that the file is pushed in.
    pub(super) key: String,
    pub(super) place: LocalPath,
    /// What is here; `None`: the file is gone and is to be removed there.
    pub(super) metadata: Option<Metadata>,
    /// Push without asking what the peer has. A won conflict sets it as well.
    pub(super) forced: bool,
    /// A conflict is resolved once a file.
    pub(super) disputed: bool,
    /// How often it waited for its parent directory.
    pub(super) waits: u8,
    /// Counts up when it begins anew after a won conflict.
    pub(super) attempt: u8,
    /// Answers that are still to come before the outcome is known.
    pub(super) outstanding: usize,
    pub(super) progress: Progress,
    /// Of a regular file: the content that was sent or found to be equal.
    pub(super) digest: Option<[u8; 32]>,
    /// A directory whose time is set when everything in it is done.
    pub(super) time_is_due: bool,
    /// Something was refused: the row stays.
    pub(super) failed: bool,
    /// Made dirty in this run because it was missing as a parent: what is known below follows when it is missing there.
    pub(super) adopts: bool,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing was sent, or SIG or FLUSH is under way.
    Asking,
    /// It is known to be there, or on its way: what lies below may follow.
    Underway,
    /// Over, for better or worse.
    Over,
}

impl Job {
    pub(super) fn path(&self) -> &SyncPath {
        &self.entry.path
    }

    pub(super) fn file(&self) -> Vec<u8> {
        self.entry.path.as_bytes().to_vec()
    }

    pub(super) fn is_directory(&self) -> bool {
        self.metadata.as_ref().is_some_and(Metadata::is_directory)
    }
}
