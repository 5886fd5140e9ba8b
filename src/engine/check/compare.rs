//! Whether a row still describes the file on disk: a pure decision, but for the one content that it may ask for.

use std::io;

use crate::model::{Checktxt, FileRecord, Ignore, Metadata, MtimeUnit};

/// What a comparison of row and disk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Nothing to do.
    Same,
    /// The same file, but the columns beside its checktxt are missing or out of date.
    Refresh { digest: Option<[u8; 32]> },
    /// New, or another state: peers must be told.
    Changed,
}

/// Compares a row with the disk.
///
/// A checktxt that agrees while ctime or the nanoseconds differ makes the row suspect: with a digest the content
/// decides, without one the row is refreshed silently, since ctime alone changes on every node when labels are restored
/// or links made. `content` is only asked for then.
pub(super) fn compare(
    known: Option<&FileRecord>,
    metadata: &Metadata,
    ignore: Ignore,
    content: impl FnOnce() -> io::Result<[u8; 32]>,
) -> Comparison {
    let Some(known) = known.filter(|known| !known.is_doubted()) else { return Comparison::Changed };
    let now = Checktxt::of(metadata, ignore, MtimeUnit::Seconds);
    if !known.checktxt.describes(&now, metadata.mtime) {
        return Comparison::Changed;
    }
    let (mtime, ctime) = (metadata.mtime.as_nanoseconds(), metadata.ctime.as_nanoseconds());
    // A file system may come back under another number: removals are doubted by it, so it must not go stale.
    let moved = known.device != Some(metadata.device.cast_signed());
    if known.mtime_ns == Some(mtime) && known.ctime_ns == Some(ctime) {
        return if moved { Comparison::Refresh { digest: known.digest } } else { Comparison::Same };
    }
    if !metadata.is_regular() {
        // Everything that matters of it stands in its checktxt.
        let is_complete = known.ctime_ns.is_some() && !moved;
        return if is_complete { Comparison::Same } else { Comparison::Refresh { digest: None } };
    }
    match known.digest {
        None => Comparison::Refresh { digest: None },
        Some(digest) => match content() {
            Ok(now) if now == digest => Comparison::Refresh { digest: Some(digest) },
            Ok(_) => Comparison::Changed,
            // It vanished or cannot be read: whoever looks next decides.
            Err(_) => Comparison::Same,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FileKind, SyncPath, Timestamp};

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn disk(nanoseconds: u32, ctime: i64) -> Metadata {
        Metadata {
            kind: FileKind::Regular { size: 3 },
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 100, nanoseconds },
            ctime: Timestamp::from_seconds(ctime),
            device: 1,
            inode: 1,
            links: 1,
        }
    }

    fn row(of: &Metadata, digest: Option<[u8; 32]>) -> FileRecord {
        FileRecord {
            path: SyncPath::parse(b"/f").unwrap(),
            checktxt: Checktxt::of(of, Ignore::default(), MtimeUnit::Seconds),
            mtime_ns: Some(of.mtime.as_nanoseconds()),
            ctime_ns: Some(of.ctime.as_nanoseconds()),
            device: Some(1),
            digest,
        }
    }

    fn outcome(known: Option<&FileRecord>, now: &Metadata, content: [u8; 32]) -> Comparison {
        compare(known, now, Ignore::default(), || Ok(content))
    }

    #[test]
    fn an_unknown_file_is_a_change_and_an_equal_one_is_none() {
        let now = disk(5, 7);
        assert_eq!(outcome(None, &now, OLD), Comparison::Changed);
        assert_eq!(outcome(Some(&row(&now, None)), &now, OLD), Comparison::Same);
    }

    #[test]
    fn a_change_within_the_second_is_seen_by_its_content() {
        let known = row(&disk(5, 7), Some(OLD));
        assert_eq!(outcome(Some(&known), &disk(6, 8), NEW), Comparison::Changed);
        assert_eq!(outcome(Some(&known), &disk(6, 8), OLD), Comparison::Refresh { digest: Some(OLD) });
    }

    #[test]
    fn a_new_ctime_alone_marks_nothing() {
        assert_eq!(outcome(Some(&row(&disk(5, 7), None)), &disk(5, 8), NEW), Comparison::Refresh { digest: None });
    }

    #[test]
    fn another_device_number_is_noted_silently() {
        let now = Metadata { device: 7, ..disk(5, 7) };
        assert_eq!(outcome(Some(&row(&disk(5, 7), Some(OLD))), &now, NEW), Comparison::Refresh { digest: Some(OLD) });
        let directory = Metadata { kind: FileKind::Directory, ..now };
        assert_eq!(outcome(Some(&row(&directory, None)), &directory, OLD), Comparison::Refresh { digest: None });
        let unmoved = Metadata { device: 1, ..directory };
        assert_eq!(outcome(Some(&row(&unmoved, None)), &unmoved, OLD), Comparison::Same);
    }

    #[test]
    fn a_row_of_the_c_program_is_filled_in_silently() {
        let now = disk(5, 7);
        let known = FileRecord { mtime_ns: None, ctime_ns: None, device: None, ..row(&now, None) };
        assert_eq!(outcome(Some(&known), &now, OLD), Comparison::Refresh { digest: None });
    }
}
