//! Signatures that were sent for SIG: the PATCH that follows asks for the same once more.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::apply::is_untouched;
use super::super::spool::Spooled;
use crate::model::{FileKind, Metadata, SyncPath};

/// Signatures of smaller files, in bytes, are made again.
const WORTH_KEEPING: u64 = 1 << 20;

/// A pipelining peer asks for many before it patches the first.
const KEPT: usize = 64;

/// A file that was changed so short a time before it was looked at may be changed again without its ctime telling: clocks
/// have ticks.
const SETTLED: Duration = Duration::from_secs(1);

/// The latest, with the state of the file that they were made of.
#[derive(Debug, Default)]
pub(super) struct Kept(VecDeque<(SyncPath, Metadata, Spooled)>);

impl Kept {
    /// Keeps the signature of a file that was in this state at this time, before it was read, if that is worth it.
    pub(super) fn keep(&mut self, path: &SyncPath, metadata: &Metadata, looked: SystemTime, signature: Spooled) {
        let FileKind::Regular { size } = metadata.kind else { return };
        let looked = looked.duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed =
            u64::try_from(metadata.ctime.seconds).map(|seconds| Duration::new(seconds, metadata.ctime.nanoseconds));
        if size < WORTH_KEEPING || changed.is_ok_and(|changed| changed + SETTLED > looked) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;

    #[test]
    fn only_the_signature_of_a_file_that_is_still_the_same_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        std::fs::write(&file, vec![0; 1 << 20]).unwrap();
        let path = SyncPath::parse(b"/f").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let changed =
            UNIX_EPOCH + Duration::new(metadata.ctime.seconds.try_into().unwrap(), metadata.ctime.nanoseconds);
        let later = changed + SETTLED;
        let signature = || Spooled::new(tempfile::spooled_tempfile(0)).unwrap();
        let mut kept = Kept::default();

        kept.keep(&path, &metadata, later, signature());
        assert!(kept.take(&SyncPath::parse(b"/g").unwrap(), Some(&metadata)).is_none());
        assert!(kept.take(&path, Some(&metadata)).is_some());
        assert!(kept.take(&path, Some(&metadata)).is_none(), "it is gone");

        kept.keep(&path, &metadata, changed + SETTLED / 2, signature());
        assert!(kept.take(&path, Some(&metadata)).is_none(), "nobody could tell a change in the same moment");

        kept.keep(&path, &metadata, later, signature());
        let mut now = metadata.clone();
        now.ctime.nanoseconds ^= 1;
        assert!(kept.take(&path, Some(&now)).is_none(), "it was changed");
        kept.keep(&path, &metadata, later, signature());
        assert!(kept.take(&path, None).is_none(), "it was removed");

        for number in 0..2 * KEPT {
            kept.keep(&SyncPath::parse(format!("/{number}").as_bytes()).unwrap(), &metadata, later, signature());
        }
        assert_eq!(kept.0.len(), KEPT);
    }
}
