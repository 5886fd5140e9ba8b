//! The walk of a check: compares each file that is found with what is known, and hands on what does not agree.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::known::Acquaintance;
use super::{Walk, change_of};
use crate::engine::find::Finder;
use crate::model::{Metadata, NameBuffer, SyncPath};
use crate::store::Change;

/// Files whose rows do not say what is on disk.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Those without a row.
    pub(super) new: Vec<Change>,
    /// Those with a row that says something else, as far as a fingerprint can tell.
    pub(super) different: Vec<SyncPath>,
}

/// Files a transaction: each file's row with its dirty rows.
pub(super) const CHUNK: usize = 8_000;

/// Files that a detector keeps before it goes to the others.
const BATCH: usize = 500;

/// Files that a detector counts for itself first.
const COUNTED: u64 = 1_000;

impl Findings {
    fn len(&self) -> usize {
        self.new.len() + self.different.len()
    }

    fn append(&mut self, more: &mut Self) {
        self.new.append(&mut more.new);
        self.different.append(&mut more.different);
    }
}

/// Where the detectors of a walk put what they find; it goes on in chunks.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Findings>,
    chunk: Mutex<Findings>,
}

impl Outbox {
    pub(super) fn to(sender: mpsc::Sender<Findings>) -> Self {
        Self { sender, chunk: Mutex::default() }
    }

    fn put(&self, batch: &mut Findings) {
        let mut chunk = self.chunk.lock().unwrap_or_else(PoisonError::into_inner);
        chunk.append(batch);
        if chunk.len() >= CHUNK {
            let full = std::mem::take(&mut *chunk);
            drop(chunk);
            self.send(full);
        }
    }

    /// Sends what is left.
    pub(super) fn finish(&self) {
        let rest = std::mem::take(&mut *self.chunk.lock().unwrap_or_else(PoisonError::into_inner));
        if rest.len() > 0 {
            self.send(rest);
        }
    }

    /// A receiver that is gone has met an error of the store, which ends the run: nothing is to be done here.
    fn send(&self, findings: Findings) {
        let _ = self.sender.blocking_send(findings);
    }
}

/// Compares what one thread of the walk finds.
pub(super) struct Detector<'c> {
    walk: &'c Walk,
    outbox: &'c Outbox,
    batch: Findings,
    text: Vec<u8>,
    /// Files that are not counted yet.
    found: u64,
}

impl<'c> Detector<'c> {
    pub(super) fn new(walk: &'c Walk, outbox: &'c Outbox) -> Self {
        Self { walk, outbox, batch: Findings::default(), text: Vec::new(), found: 0 }
    }

    /// Hands on what is left.
    pub(super) fn finish(mut self) {
        self.walk.tally.check.add_checked(self.found);
        self.outbox.put(&mut self.batch);
    }
}

impl Finder for Detector<'_> {
    fn found(&mut self, name: &NameBuffer, metadata: &Metadata) {
        let Walk { node, options, known, skip, .. } = self.walk;
        if !skip.is_empty() && skip.contains(name.as_bytes()) {
            return;
        }
        self.found += 1;
        if self.found == COUNTED {
            self.walk.tally.check.add_checked(std::mem::take(&mut self.found));
        }
        match known.meet(name.as_bytes(), metadata, node.config.ignore, &mut self.text) {
            Acquaintance::Same => return,
            Acquaintance::Unknown => {
                self.batch.new.extend(change_of(node, name.to_path(), metadata, None, *options));
            }
            Acquaintance::Different => self.batch.different.push(name.to_path()),
        }
        if self.batch.len() >= BATCH {
            self.outbox.put(&mut self.batch);
        }
    }

    fn left(&mut self, directory: &SyncPath) {
        if let Some(directories) = &self.walk.directories {
            directories.write(directory);
        }
    }

    fn is_done(&self) -> bool {
        self.walk.stop.is_cancelled()
    }
}
