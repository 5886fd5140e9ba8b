//! What the peer was shown of our files in this session: their state at its last SIG or change.

use std::collections::HashMap;

use crate::model::{Metadata, SyncPath};

/// How many files are remembered for certain; twice as many are at most.
const REMEMBERED: usize = 4_096;

/// The latest files by name. Memory is bounded, and what was shown just now is never forgotten: a pipelining peer's
/// answer to it is still to come.
#[derive(Debug, Default)]
pub(super) struct Shown {
    recent: HashMap<SyncPath, Metadata>,
    older: HashMap<SyncPath, Metadata>,
}

impl Shown {
    pub(super) fn insert(&mut self, path: SyncPath, metadata: Metadata) {
        if self.recent.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(path, metadata);
    }

    pub(super) fn remove(&mut self, path: &SyncPath) {
        self.recent.remove(path);
        self.older.remove(path);
    }

    pub(super) fn get(&self, path: &SyncPath) -> Option<&Metadata> {
        self.recent.get(path).or_else(|| self.older.get(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FileKind, Timestamp};

    #[test]
    fn memory_is_bounded_and_what_was_shown_last_is_kept() {
        let path = |number: usize| SyncPath::parse(format!("/{number}").as_bytes()).unwrap();
        let metadata = Metadata {
            kind: FileKind::Fifo,
            mode: 0o10_644,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            device: 1,
            inode: 1,
            links: 1,
        };
        let mut shown = Shown::default();
        for number in 0..3 * REMEMBERED + 5 {
            shown.insert(path(number), metadata.clone());
            assert!((number.saturating_sub(100)..=number).all(|latest| shown.get(&path(latest)).is_some()));
        }
        assert!(shown.recent.len() + shown.older.len() <= 2 * REMEMBERED);
        shown.remove(&path(3 * REMEMBERED));
        assert!(shown.get(&path(3 * REMEMBERED)).is_none() && shown.get(&path(0)).is_none());
    }
}
