//! The state of one file on disk, never through a symlink. What the state means is for `model` and others.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};

use super::open;
use crate::model::{FileKind, Metadata, Timestamp};

/// What lstat and readlink say about `path`, which may be of any length, as may a link's target. Symlinks in its parent
/// directories are followed: for names that a peer chose use [`Place::metadata`](super::Place::metadata).
///
/// # Errors
/// The system's: not found, not permitted, and so on.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    let (directory, name) = open::parent(path)?;
    metadata_at(directory.as_fd(), &name)
}

/// The state of an open file, also of a symlink opened with `O_PATH`.
///
/// # Errors
/// Those of fstat and readlink.
pub fn metadata_of(file: impl AsFd) -> io::Result<Metadata> {
    let stat = fstat(&file)?;
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => readlinkat(&file, c"", Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    Ok(from_stat(&stat, target))
}

/// The state of the entry `name` of an open directory.
pub(super) fn metadata_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Metadata> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(from_stat(&stat, Vec::new()));
    }
    // Through one descriptor, so that the target belongs to the same link as the rest.
    let link = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    metadata_of(link)
}

// The widths of these fields differ between architectures.
#[allow(clippy::useless_conversion)]
fn from_stat(stat: &Stat, target: Vec<u8>) -> Metadata {
    let device = u64::from(stat.st_rdev);
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink { target },
        FileType::CharacterDevice => FileKind::CharDevice { device },
        FileType::BlockDevice => FileKind::BlockDevice { device },
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::RegularFile | FileType::Unknown => {
            FileKind::Regular { size: u64::try_from(stat.st_size).unwrap_or_default() }
        }
    };
    let time = |seconds: i64, nanoseconds| Timestamp { seconds, nanoseconds };
    Metadata {
        kind,
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: time(stat.st_mtime.into(), stat.st_mtime_nsec.try_into().unwrap_or_default()),
        ctime: time(stat.st_ctime.into(), stat.st_ctime_nsec.try_into().unwrap_or_default()),
        device: u64::from(stat.st_dev),
        inode: u64::from(stat.st_ino),
        links: u64::from(stat.st_nlink),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn it_says_what_lstat_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "seven b").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(&file, directory.path().join("other")).unwrap();
        let (ours, std) = (metadata(&file).unwrap(), fs::symlink_metadata(&file).unwrap());
        assert_eq!(ours.kind, FileKind::Regular { size: 7 });
        assert_eq!((ours.mode, ours.uid, ours.gid, ours.links), (0o104_751, std.uid(), std.gid(), 2));
        assert_eq!((ours.mtime.seconds, i64::from(ours.mtime.nanoseconds)), (std.mtime(), std.mtime_nsec()));
        assert_eq!((ours.ctime.seconds, i64::from(ours.ctime.nanoseconds)), (std.ctime(), std.ctime_nsec()));
        assert_eq!((ours.device, ours.inode), (std.dev(), std.ino()));
        assert_eq!(metadata_of(fs::File::open(&file).unwrap()).unwrap(), ours);
        assert!(metadata(directory.path()).unwrap().is_directory());
        assert!(metadata(Path::new("/")).unwrap().is_directory());
        assert!(matches!(metadata(Path::new("/dev/null")).unwrap().kind, FileKind::CharDevice { device: 0x103 }));
        assert_eq!(metadata(&file.join("below")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(metadata(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_keeps_its_whole_target() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        let target = "t/".repeat(2000);
        symlink(&target, &link).unwrap();
        let kind = FileKind::Symlink { target: target.into_bytes() };
        assert_eq!(metadata(&link).unwrap().kind, kind);
    }
}
