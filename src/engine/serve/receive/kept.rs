//! Signatures that were sent for SIG: the PATCH that follows asks for the same once more.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::apply::is_untouched;
use super::super::spool::Spooled;
use crate::model::{FileKind, Metadata, SyncPath};

/// Signatures of smaller files, in bytes, are made again.
const WORTH_KEEPING: u64 = 1 << 20;

/// A pipelining peer asks for many before it patches the first.
const KEPT: usize = 64;

/// A file that was changed this many seconds ago may be changed again without its ctime telling: clocks have ticks.
const SETTLED: u64 = 1;

/// The latest, with the state of the file that they were made of.
#[derive(Debug, Default)]
pub(super) struct Kept(VecDeque<(SyncPath, Metadata, Spooled)>);

impl Kept {
    /// Keeps the signature of a file, if it is worth it. `metadata` is older than the signature.
    pub(super) fn keep(&mut self, path: &SyncPath, metadata: &Metadata, signature: Spooled) {
        let FileKind::Regular { size } = metadata.kind else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let settled = u64::try_from(metadata.ctime.seconds).is_ok_and(|ctime| ctime + SETTLED < now);
        if size < WORTH_KEEPING || !settled {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((path.clone(), metadata.clone(), signature));
    }

    /// The signature of a file, if it is still the same.
    pub(super) fn take(&mut self, path: &SyncPath, now: Option<&Metadata>) -> Option<Spooled> {
        let found = self.0.iter().position(|(kept, ..)| kept == path)?;
        let (_, metadata, signature) = self.0.remove(found)?;
        (now.is_some_and(|now| is_untouched(&metadata, now) && metadata.kind == now.kind)).then_some(signature)
    }
}
