//! One file on its way to one peer: what is to be done, and how far it has come.

use crate::engine::tally::Fate;
use crate::engine::update::plan::Candidate;
use crate::model::{Metadata, SyncPath};
use crate::wire::batch::Theirs;

/// A file to be brought to the state it has here. There is one for each dirty row of each peer that is served: what it
/// holds itself is small, and the rest is shared.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) candidate: Candidate,
    /// What is here; `None`: the file is gone and is to be removed there.
    pub(super) metadata: Option<Metadata>,
    /// Counts up whenever the job begins anew or ends early: answers to an earlier attempt no longer matter.
    pub(super) attempt: u32,
    /// Answers to this attempt that are still to come before the outcome is known.
    pub(super) outstanding: u32,
    pub(super) progress: Progress,
    pub(super) due: Due,
    pub(super) past: Past,
    /// Of a regular file: the content that was sent or found to be equal, with the state of the file it was read from.
    pub(super) digest: Option<[u8; 32]>,
    /// Became part of this run as a missing parent: what is known below it follows.
    pub(super) adopted: bool,
    pub(super) obstacles: Obstacles,
    /// The job of the same file under another name that goes before this one: with both under way at once, the peer would
    /// take what comes under the first for a change of its own under the second.
    pub(super) other_spelling: Option<usize>,
    pub(super) nest: Nest,
    /// The peer was found to have it as it is here.
    pub(super) already: bool,
    /// What the peer has in its place, as it said along with the conflict.
    pub(super) theirs: Told,
}

/// What a peer says along with a conflict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    NotYet,
    NothingThere,
    There(Theirs),
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing was sent, or a question is under way.
    Asking,
    /// It is known to be there, or on its way: what lies below may follow.
    Underway,
    /// A directory that is right but for its time, which is set when everything in it is done.
    Untimed,
    /// The peer has confirmed everything.
    Done,
    /// Given up: the row stays.
    Failed,
}

/// What is sent when everything that was sent before is confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Due {
    #[default]
    Nothing,
    /// Owner, mode and time of what an MK… made.
    Attributes,
    /// A directory's time, when everything in it is done.
    Time,
}

/// What a job has been through and does not go through again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    /// A conflict is resolved once a file.
    pub(super) disputed: bool,
    /// A file that changes while it is sent is sent once more.
    pub(super) resent: bool,
    /// Its content went out in frames, and was counted there.
    pub(super) streamed: bool,
    /// How often it was away when its content was to be read.
    pub(super) vanished: u8,
    /// How often it waited again for its directory.
    pub(super) waits: u8,
}

/// What the peer has in the place of the file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Obstacles {
    /// Where something else of ours shall be, there may be a directory.
    pub(super) directory: bool,
    /// Where a directory of ours shall be, there is something else, or a link above it.
    pub(super) no_directory: bool,
}

/// A removal among the other removals: a directory goes after what is in it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nest {
    /// The removal of the closest directory above it.
    pub(super) above: Option<usize>,
    /// Removals right below it that are not over.
    pub(super) below: usize,
    /// One of them failed: the directory cannot be empty.
    pub(super) occupied: bool,
    /// The peer has it, and it waits for those below.
    pub(super) ready: bool,
}

impl Job {
    pub(super) fn new(candidate: Candidate, metadata: Option<Metadata>) -> Self {
        Self {
            candidate,
            metadata,
            attempt: 0,
            outstanding: 0,
            progress: Progress::Asking,
            due: Due::default(),
            past: Past::default(),
            digest: None,
            adopted: false,
            obstacles: Obstacles::default(),
            other_spelling: None,
            nest: Nest::default(),
            already: false,
            theirs: Told::default(),
        }
    }

    pub(super) fn path(&self) -> &SyncPath {
        &self.candidate.place.path
    }

    /// The two fields that every command about it begins with.
    pub(super) fn key_and_file(&self) -> (String, Vec<u8>) {
        (self.candidate.key.to_string(), self.path().as_bytes().to_vec())
    }

    pub(super) fn is_removal(&self) -> bool {
        self.metadata.is_none()
    }

    pub(super) fn is_directory(&self) -> bool {
        self.metadata.as_ref().is_some_and(Metadata::is_directory)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.progress, Progress::Done | Progress::Failed)
    }

    /// Bytes of a regular file.
    pub(super) fn length(&self) -> u64 {
        self.metadata.as_ref().map_or(0, Metadata::length)
    }

    /// What came of it, once it is over.
    pub(super) fn fate(&self) -> Fate {
        match self.progress {
            Progress::Failed => Fate::Refused,
            _ if self.already => Fate::Equal,
            _ if self.is_removal() => Fate::Removed,
            _ => Fate::Sent,
        }
    }

    /// From here on, answers to what was sent before are somebody else's.
    pub(super) fn begin_anew(&mut self) {
        self.attempt += 1;
        self.outstanding = 0;
        self.due = Due::default();
        self.already = false;
        self.progress = Progress::Asking;
    }
}
