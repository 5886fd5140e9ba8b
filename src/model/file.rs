//! What is known about one file: its state on disk, and the row the database keeps of it.

use super::{Checktxt, SyncPath};

/// A point in time as the file system gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds within that second, 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Nanoseconds since 1970, at the limits of `i64` for times beyond the years 1677 and 2262.
    #[must_use]
    pub fn as_nanoseconds(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanoseconds))
    }

    #[must_use]
    pub fn from_nanoseconds(total: i64) -> Self {
        let nanoseconds = u32::try_from(total.rem_euclid(1_000_000_000)).unwrap_or_default();
        Self { seconds: total.div_euclid(1_000_000_000), nanoseconds }
    }

    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// What a directory entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// Size in bytes.
    Regular {
        size: u64,
    },
    Directory,
    /// The target as it stands in the link, any length.
    Symlink {
        target: Vec<u8>,
    },
    /// `st_rdev`.
    CharDevice {
        device: u64,
    },
    /// `st_rdev`.
    BlockDevice {
        device: u64,
    },
    Fifo,
    Socket,
}

/// The result of an lstat (with readlink): never follows a symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub kind: FileKind,
    /// The whole `st_mode`, type bits included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// The file system that holds it (`st_dev`).
    pub device: u64,
    pub inode: u64,
    /// Hard links.
    pub links: u64,
}

impl Metadata {
    /// Bytes of a regular file; 0 for anything else.
    #[must_use]
    pub fn length(&self) -> u64 {
        if let FileKind::Regular { size } = self.kind { size } else { 0 }
    }

    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    #[must_use]
    pub fn is_regular(&self) -> bool {
        matches!(self.kind, FileKind::Regular { .. })
    }

    /// The bytes of a regular file; of anything else 0.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.kind {
            FileKind::Regular { size } => size,
            _ => 0,
        }
    }
}

/// A row of the file table with the columns of ours beside it. Rows of the C program have none of these: `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub path: SyncPath,
    /// As it stands in the row, decoded once. Unknown formats are kept.
    pub checktxt: Checktxt,
    /// Whole mtime in nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// Whole ctime in nanoseconds since 1970.
    pub ctime_ns: Option<i64>,
    /// The file system it was seen on.
    pub device: Option<i64>,
    /// SHA-256 of the content, where it was known without reading the file once more.
    pub digest: Option<[u8; 32]>,
}

/// The ctime of no file.
pub(super) const DOUBTED: i64 = i64::MIN;

impl FileRecord {
    /// The row of a file of which some peer has another state: the next check takes it for changed, whatever it finds.
    #[must_use]
    pub fn doubted(self) -> Self {
        Self { ctime_ns: Some(DOUBTED), digest: None, ..self }
    }

    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.ctime_ns == Some(DOUBTED)
    }
}
