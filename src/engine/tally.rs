//! What a run has done so far, counted while it works: for who watches it, for the summary at its end, and for what is
//! remembered of it. Counting is one addition for a file; whoever reads sees numbers of about the same moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Figures, Session};

/// A run.
#[derive(Debug, Default)]
pub struct RunTally {
    pub check: CheckTally,
    peers: Mutex<Vec<Arc<PeerTally>>>,
}

/// The checks of a run.
#[derive(Debug, Default)]
pub struct CheckTally {
    /// One is under way.
    active: AtomicBool,
    /// Files that were known where it looks.
    expected: AtomicU64,
    checked: AtomicU64,
    marked: AtomicU64,
}

/// The session with a peer.
#[derive(Debug)]
pub struct PeerTally {
    pub peer: String,
    begun: Instant,
    /// What is to be done: files, and bytes of their contents.
    files: AtomicU64,
    length: AtomicU64,
    /// What is done of that: files that are over, and bytes that were read or need not be.
    over: AtomicU64,
    passed: AtomicU64,
    sent: AtomicU64,
    removed: AtomicU64,
    equal: AtomicU64,
    refused: AtomicU64,
    /// Bytes of contents that went out.
    bytes: AtomicU64,
    session: OnceLock<Session>,
}

/// What came of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Sent,
    Removed,
    Equal,
    Refused,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub files: u64,
    pub over: u64,
    pub length: u64,
    pub passed: u64,
    /// Bytes that went out.
    pub bytes: u64,
}

impl RunTally {
    /// Begins to count a session.
    pub fn peer(&self, peer: &str) -> Arc<PeerTally> {
        let tally = Arc::new(PeerTally::of(peer));
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&tally));
        tally
    }

    /// The sessions so far, in the order of their beginnings.
    pub fn peers(&self) -> Vec<Arc<PeerTally>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl CheckTally {
    pub(super) fn begin(&self, expected: u64) {
        self.expected.fetch_add(expected, Relaxed);
        self.active.store(true, Relaxed);
    }

    pub(super) fn end(&self) {
        self.active.store(false, Relaxed);
    }

    pub(super) fn add_checked(&self, files: u64) {
        self.checked.fetch_add(files, Relaxed);
    }

    pub(super) fn add_marked(&self, files: usize) {
        self.marked.fetch_add(files as u64, Relaxed);
    }

    /// Files that were looked at, and files that were known there: of one that is under way.
    pub fn way(&self) -> Option<(u64, u64)> {
        self.active.load(Relaxed).then(|| (self.checked(), self.expected.load(Relaxed)))
    }

    pub fn checked(&self) -> u64 {
        self.checked.load(Relaxed)
    }

    pub fn marked(&self) -> u64 {
        self.marked.load(Relaxed)
    }
}

impl PeerTally {
    #[must_use]
    pub fn of(peer: &str) -> Self {
        let none = AtomicU64::default;
        Self {
            peer: peer.to_owned(),
            begun: Instant::now(),
            files: none(),
            length: none(),
            over: none(),
            passed: none(),
            sent: none(),
            removed: none(),
            equal: none(),
            refused: none(),
            bytes: none(),
            session: OnceLock::new(),
        }
    }

    /// More is to be done.
    pub(super) fn add(&self, files: usize, length: u64) {
        self.files.fetch_add(files as u64, Relaxed);
        self.length.fetch_add(length, Relaxed);
    }

    /// Contents were read, and this much of them went out.
    pub(super) fn pass(&self, read: u64, out: u64) {
        self.passed.fetch_add(read, Relaxed);
        self.bytes.fetch_add(out, Relaxed);
    }

    /// A file is over. `unread`: bytes that nobody had to read for it.
    pub(super) fn end_file(&self, fate: Fate, unread: u64) {
        let count = match fate {
            Fate::Sent => &self.sent,
            Fate::Removed => &self.removed,
            Fate::Equal => &self.equal,
            Fate::Refused => &self.refused,
        };
        count.fetch_add(1, Relaxed);
        self.over.fetch_add(1, Relaxed);
        self.passed.fetch_add(unread, Relaxed);
    }

    pub(super) fn end(&self, session: Session) {
        // It has one end.
        let _ = self.session.set(session);
    }

    /// Once it has ended.
    pub fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn figures(&self) -> Figures {
        let count = |count: &AtomicU64| count.load(Relaxed);
        Figures {
            sent: count(&self.sent),
            removed: count(&self.removed),
            equal: count(&self.equal),
            refused: count(&self.refused),
            bytes: count(&self.bytes),
        }
    }

    pub fn way(&self) -> Way {
        let count = |count: &AtomicU64| count.load(Relaxed);
        Way {
            files: count(&self.files),
            over: count(&self.over),
            length: count(&self.length),
            passed: count(&self.passed),
            bytes: count(&self.bytes),
        }
    }
}
