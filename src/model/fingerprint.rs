//! What stands for a name and for the state of a file where a million of them are compared: keyed hashes.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::file::DOUBTED;
use super::{FileRecord, Metadata};

/// What a [`Fingerprinter`] makes of a row of the file table, or of a file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    pub name: u128,
    /// Where a row and a file agree in this, the row describes the file as it is.
    pub state: u128,
}

/// Makes fingerprints. The key is chosen at random, so that nobody can make two states that look alike: a change would
/// be missed. Fingerprints of different fingerprinters say nothing about each other.
#[derive(Clone)]
pub struct Fingerprinter {
    keyed: SipHasher13,
}

impl Fingerprinter {
    /// One with a key of its own.
    #[must_use]
    pub fn random() -> Self {
        let random = RandomState::new();
        Self { keyed: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)) }
    }

    /// Of a [`SyncPath`](super::SyncPath), by its bytes.
    #[must_use]
    pub fn name(&self, name: &[u8]) -> u128 {
        self.keyed.hash(name).as_u128()
    }

    /// Of what a row says beside its name: its checktxt, decoded once, and the columns of ours.
    ///
    /// The times of anything but a regular file count for nothing, as in a comparison: all that matters of it stands in
    /// its checktxt.
    #[must_use]
    pub fn state(&self, checktxt: &[u8], mtime_ns: Option<i64>, ctime_ns: Option<i64>, device: Option<i64>) -> u128 {
        let is_known = u8::from(mtime_ns.is_some())
            | u8::from(ctime_ns.is_some()) << 1
            | u8::from(device.is_some()) << 2
            | u8::from(ctime_ns == Some(DOUBTED)) << 3;
        let [mtime, ctime] = [mtime_ns, ctime_ns].map(Option::unwrap_or_default);
        let [mtime, ctime] = if is_regular(checktxt) { [mtime, ctime] } else { [0, 0] };
        let mut columns = [0; 25];
        columns[0] = is_known;
        columns[1..9].copy_from_slice(&mtime.to_le_bytes());
        columns[9..17].copy_from_slice(&ctime.to_le_bytes());
        columns[17..].copy_from_slice(&device.unwrap_or_default().to_le_bytes());
        let mut hasher = self.keyed;
        hasher.write(&columns);
        hasher.write(checktxt);
        hasher.finish128().as_u128()
    }

    /// Of a file on disk, whose checktxt is that of the rows (in seconds).
    #[must_use]
    pub fn state_on_disk(&self, checktxt: &[u8], metadata: &Metadata) -> u128 {
        let [mtime, ctime] = [metadata.mtime, metadata.ctime].map(|time| Some(time.as_nanoseconds()));
        self.state(checktxt, mtime, ctime, Some(metadata.device.cast_signed()))
    }

    /// Of a row.
    #[must_use]
    pub fn of(&self, record: &FileRecord) -> Fingerprint {
        let FileRecord { path, checktxt, mtime_ns, ctime_ns, device, .. } = record;
        Fingerprint {
            name: self.name(path.as_bytes()),
            state: self.state(checktxt.as_bytes(), *mtime_ns, *ctime_ns, *device),
        }
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Fingerprinter").finish_non_exhaustive()
    }
}

/// `…:type=reg:size=N`: no other kind has its type followed by a size.
fn is_regular(checktxt: &[u8]) -> bool {
    let last = checktxt.iter().rposition(|&byte| byte == b':').unwrap_or(0);
    checktxt[..last].ends_with(b":type=reg")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Checktxt, SyncPath};

    fn row(checktxt: &str) -> FileRecord {
        FileRecord {
            path: SyncPath::parse(b"/f").unwrap(),
            checktxt: Checktxt::from_text(checktxt.as_bytes()),
            mtime_ns: Some(5),
            ctime_ns: Some(6),
            device: Some(7),
            digest: None,
        }
    }

    #[test]
    fn every_column_counts_but_the_times_of_what_is_no_regular_file() {
        let fingerprinter = Fingerprinter::random();
        let of = |record: FileRecord| fingerprinter.of(&record).state;
        for (checktxt, times_count) in [
            ("v1:mtime=0:mode=33188:uid=0:gid=0:type=reg:size=5", true),
            ("v1:mode=16877:uid=0:gid=0:type=dir", false),
            ("v1:mtime=0:type=chr:dev=5", false),
            ("v1:type=lnk:target=x", false),
        ] {
            let row = || row(checktxt);
            assert_eq!(of(row()), of(row()));
            assert_ne!(of(row()), of(FileRecord { device: Some(8), ..row() }));
            assert_ne!(of(row()), of(FileRecord { device: None, ..row() }));
            assert_ne!(of(row()), of(FileRecord { mtime_ns: None, ..row() }));
            assert_ne!(of(row()), of(FileRecord { ctime_ns: None, ..row() }));
            assert_ne!(of(row()), of(row().doubted()));
            for other in [FileRecord { mtime_ns: Some(8), ..row() }, FileRecord { ctime_ns: Some(8), ..row() }] {
                assert_eq!(of(row()) != of(other), times_count, "{checktxt}");
            }
            assert_ne!(of(row()), of(FileRecord { checktxt: Checktxt::from_text(b"v1"), ..row() }));
        }
        assert_ne!(of(row("v1")), Fingerprinter::random().of(&row("v1")).state, "each has its key");
        assert_ne!(fingerprinter.name(b"/a"), fingerprinter.name(b"/b"));
    }
}
