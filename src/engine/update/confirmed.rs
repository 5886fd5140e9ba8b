//! What is written down once a peer has confirmed a file: its dirty row goes, and the content it has now is remembered.
//!
//! A file may have changed since the check that marked it, and what was sent is what it was at that moment. Where that is not
//! what the row says, the file may come to look like its row again without any change that a check could see: a directory is
//! moved away and back, or is a link for a while. So the row is doubted, before the dirty row goes.

use std::collections::{HashMap, HashSet};

use crate::engine::Node;
use crate::model::{DirtyEntry, FileRecord, Metadata, SyncPath};
use crate::store::{Change, StoreError};

/// A file that a peer has now.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) entry: DirtyEntry,
    /// As it was sent; `None`: as removed.
    pub(super) state: Option<Metadata>,
    /// SHA-256 of the content, where that was read.
    pub(super) digest: Option<[u8; 32]>,
}

/// How often a row that is missing is written: another session may be writing it for its own peer, or a check.
const ATTEMPTS: usize = 5;

/// Forgets exactly the dirty rows that were read: a file that was marked again stays dirty, and so does one whose row is
/// being written by somebody else. Adds the digests to the file table.
pub(super) async fn record(node: &Node, mut confirmed: Vec<Confirmed>) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        if confirmed.is_empty() {
            break;
        }
        confirmed = record_once(node, confirmed).await?;
    }
    Ok(())
}

/// Returns those that had no row, and may have one by now.
async fn record_once(node: &Node, confirmed: Vec<Confirmed>) -> Result<Vec<Confirmed>, StoreError> {
    let paths: Vec<SyncPath> = confirmed.iter().map(|one| one.entry.path.clone()).collect();
    let rows = node.store.records(&paths).await?;
    let rows: HashMap<SyncPath, FileRecord> = rows.into_iter().map(|row| (row.path.clone(), row)).collect();
    let (mut doubts, mut digests) = (Vec::new(), Vec::new());
    for Confirmed { entry, state, digest } in &confirmed {
        let row = rows.get(&entry.path);
        let change = |record| {
            let (path, record) = (entry.path.clone(), Some(record));
            let expected = row.map(|row| row.checktxt.clone());
            Change { path, expected, record, marks: Vec::new(), actions: Vec::new() }
        };
        match (row, state) {
            (None, None) => {}
            // A check had found it removed, and it is there again; or nothing has seen it yet. Nobody would miss it.
            (None, Some(state)) => doubts.push(change(node.record(entry.path.clone(), state, None).doubted())),
            (Some(row), None) => doubts.push(change(row.clone().doubted())),
            (Some(row), Some(state)) => match relation(node, row, state) {
                Relation::Exact => {
                    if digest.is_some() && row.digest != *digest {
                        digests.push(change(node.record(entry.path.clone(), state, *digest)));
                    }
                }
                // As in a check: ctime alone says nothing, unless the contents are known to differ.
                Relation::ButForCtime if row.digest.zip(*digest).is_none_or(|(row, sent)| row == sent) => {}
                Relation::ButForCtime | Relation::Other => doubts.push(change(row.clone().doubted())),
            },
        }
    }
    let undecided: HashSet<SyncPath> = node.store.apply(doubts).await?.into_iter().collect();
    let (undecided, arrived): (Vec<_>, Vec<_>) =
        confirmed.into_iter().partition(|one| undecided.contains(&one.entry.path));
    let arrived: Vec<DirtyEntry> = arrived.into_iter().map(|one| one.entry).collect();
    node.store.clear(&arrived).await?;
    node.store.apply(digests).await?;
    Ok(undecided.into_iter().filter(|one| !rows.contains_key(&one.entry.path)).collect())
}

/// What a row says of a state of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// It is about this very state: with the digest of a later one, the change would go unnoticed, and the other peers would
    /// never see it.
    Exact,
    ButForCtime,
    Other,
}

fn relation(node: &Node, row: &FileRecord, state: &Metadata) -> Relation {
    let fresh = node.record(row.path.clone(), state, None);
    let agree = |row: Option<i64>, now| !state.is_regular() || row.is_none() || row == now;
    if row.is_doubted() || !row.checktxt.describes(&fresh.checktxt, state.mtime) || !agree(row.mtime_ns, fresh.mtime_ns)
    {
        Relation::Other
    } else if agree(row.ctime_ns, fresh.ctime_ns) {
        Relation::Exact
    } else {
        Relation::ButForCtime
    }
}
