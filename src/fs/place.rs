//! What can be done at one place: an open parent directory and a name in it. Whether it may be done is for others.
//!
//! No operation follows a symlink at the name, so nothing outside the parent directory is reached.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fstat, mkdirat,
    mknodat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::beneath::{BeneathError, check_component};
use super::temp::{self, TempFile};
use super::{meta, open, walk};
use crate::model::{FileKind, Metadata, Timestamp};

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
}

/// An open parent directory and a name in it, whether something is there or not. Places in one directory may share its
/// descriptor.
#[derive(Debug, Clone)]
pub struct Place {
    parent: Arc<OwnedFd>,
    /// One component; `.` for the root of the file system, which has no name.
    name: CString,
}

impl Place {
    pub(super) fn new(parent: OwnedFd, name: CString) -> Self {
        Self { parent: Arc::new(parent), name }
    }

    pub(super) fn shared_parent(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.parent)
    }

    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(super) fn name(&self) -> &CStr {
        &self.name
    }

    /// Another name in the same directory.
    ///
    /// # Errors
    /// It is no single proper component.
    pub fn sibling(&self, name: &[u8]) -> Result<Self, BeneathError> {
        check_component(name)?;
        Ok(self.renamed(open::c_string(name)?))
    }

    fn renamed(&self, name: CString) -> Self {
        Self { parent: self.shared_parent(), name }
    }

    /// Tells its directory from others: device and inode.
    ///
    /// # Errors
    /// Those of fstat.
    pub fn directory(&self) -> io::Result<(u64, u64)> {
        let found = meta::metadata_of(self.parent())?;
        Ok((found.device, found.inode))
    }

    /// `None`: nothing is there.
    ///
    /// # Errors
    /// Any but ENOENT.
    pub fn metadata(&self) -> io::Result<Option<Metadata>> {
        match meta::metadata_at(self.parent(), &self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// `st_size` of whatever is there: of a directory what its file system says, of a symlink the length of its target.
    ///
    /// # Errors
    /// Any of lstat's, also that nothing is there.
    pub fn size(&self) -> io::Result<u64> {
        let stat = statat(&*self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(u64::try_from(stat.st_size).unwrap_or_default())
    }

    /// Opens a regular file for reading. Anything else is refused without opening it, since opening a FIFO blocks and
    /// opening a device may do something.
    ///
    /// # Errors
    /// Kind `InvalidInput` for anything but a regular file; else the system's.
    pub fn open_regular(&self) -> io::Result<File> {
        let refuse = |mode| match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        };
        refuse(statat(&*self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)?;
        // Should a FIFO take its place in this moment, NONBLOCK keeps us from hanging.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&*self.parent, &*self.name, flags, Mode::empty())?;
        refuse(fstat(&file)?.st_mode)?;
        Ok(file.into())
    }

    /// Removes what is there (a directory only if it is empty), ignoring errors.
    pub fn clear_the_way(&self) {
        let _ = self.remove();
    }

    /// Unlink or rmdir. Nothing there is fine.
    ///
    /// # Errors
    /// A directory that is not empty, no permission, and so on.
    pub fn remove(&self) -> io::Result<()> {
        let is_directory = match statat(&*self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => FileType::from_raw_mode(stat?.st_mode) == FileType::Directory,
        };
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(&*self.parent, &*self.name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory with exactly the permission bits of `mode`, whatever the umask. An existing directory is fine
    /// and keeps its mode.
    ///
    /// # Errors
    /// Something else is there, no permission, and so on.
    pub fn make_directory(&self, mode: u32) -> io::Result<()> {
        match mkdirat(&*self.parent, &*self.name, Mode::RWXU) {
            Ok(()) => self.set_mode(mode),
            Err(Errno::EXIST) if self.metadata()?.is_some_and(|found| found.is_directory()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a device node with mode 0600. `device` is `st_rdev`.
    ///
    /// # Errors
    /// Something is there, no permission, and so on.
    pub fn make_device(&self, kind: DeviceKind, device: u64) -> io::Result<()> {
        let kind = match kind {
            DeviceKind::Char => FileType::CharacterDevice,
            DeviceKind::Block => FileType::BlockDevice,
        };
        self.make_node(kind, device)
    }

    /// Makes a FIFO with mode 0600.
    ///
    /// # Errors
    /// Something is there, no permission, and so on.
    pub fn make_fifo(&self) -> io::Result<()> {
        self.make_node(FileType::Fifo, 0)
    }

    fn make_node(&self, kind: FileType, device: u64) -> io::Result<()> {
        Ok(mknodat(&*self.parent, &*self.name, kind, Mode::RUSR | Mode::WUSR, device)?)
    }

    /// Makes a symlink whose target is these bytes.
    ///
    /// # Errors
    /// Something is there, an empty or overlong target, no permission, and so on.
    pub fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        Ok(symlinkat(&*open::c_string(target)?, &*self.parent, &*self.name)?)
    }

    /// Changes the owner, of a symlink its own; `None` leaves that one as it is. Where both are right already nothing is
    /// touched, so that setuid bits and ctime stay.
    ///
    /// # Errors
    /// Nothing there, no permission, an id of 2³² − 1 (which would mean "leave it") as `InvalidInput`.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let owner = owner_ids(uid, gid)?;
        let now = statat(&*self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if uid.is_none_or(|uid| uid == now.st_uid) && gid.is_none_or(|gid| gid == now.st_gid) {
            return Ok(());
        }
        Ok(chownat(&*self.parent, &*self.name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the permission bits of `mode` (0o7777; others are ignored). Belongs after [`Place::set_owner`]: a change of
    /// owner clears setuid and setgid.
    ///
    /// # Errors
    /// Kind `InvalidInput` for a symlink, which has no mode of its own; else the system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat(&*self.parent, &*self.name, flags, Mode::empty())?;
        let now = fstat(&handle)?.st_mode;
        if FileType::from_raw_mode(now) == FileType::Symlink {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a symlink has no mode"));
        }
        if now & 0o7777 == mode & 0o7777 {
            return Ok(());
        }
        // Older kernels cannot change a mode without following symlinks; through /proc it is the file that was opened.
        let through_proc = format!("/proc/self/fd/{}", handle.as_raw_fd());
        match chmodat(CWD, through_proc, permission_bits(mode), AtFlags::empty()) {
            Err(Errno::NOENT) => self.set_mode_by_opening(mode),
            other => Ok(other?),
        }
    }

    /// For a chroot without /proc; needs read permission.
    fn set_mode_by_opening(&self, mode: u32) -> io::Result<()> {
        match self.metadata()?.map(|found| found.kind) {
            Some(FileKind::Directory) => {
                let opened = openat(&*self.parent, &*self.name, open::READ | OFlags::NOFOLLOW, Mode::empty())?;
                Ok(fchmod(opened, permission_bits(mode))?)
            }
            _ => Ok(fchmod(self.open_regular()?, permission_bits(mode))?),
        }
    }

    /// Sets mtime, and atime with it, as the C program does. Of a symlink: its own.
    ///
    /// # Errors
    /// Nothing there, no permission, a time that the file system cannot keep.
    pub fn set_times(&self, mtime: Timestamp) -> io::Result<()> {
        Ok(utimensat(&*self.parent, &*self.name, &both_times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The names in the directory that is there, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// Nothing or no directory there, no permission, and so on.
    pub fn entries(&self) -> io::Result<Vec<Vec<u8>>> {
        let opened = openat(&*self.parent, &*self.name, open::READ | OFlags::NOFOLLOW, Mode::empty())?;
        let mut entries = Vec::new();
        walk::read_names(opened.as_fd(), |name, _| entries.push(name.to_bytes().to_vec()))?;
        entries.sort_unstable();
        Ok(entries)
    }

    /// Makes names made and removed in the parent directory durable.
    ///
    /// # Errors
    /// Those of fsync.
    pub fn sync_directory(&self) -> io::Result<()> {
        open::sync(self.parent())
    }

    /// A place beside this one, under a name that is hardly taken: for what is to be moved here when it is complete.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn beside(&self) -> io::Result<Self> {
        Ok(self.renamed(temp::name_beside(&self.name)?))
    }

    /// Its last component.
    pub fn file_name(&self) -> &[u8] {
        self.name.to_bytes()
    }

    /// Moves what is here to another place in the same directory, over what is there, in one step.
    ///
    /// # Errors
    /// Those of rename: nothing has changed.
    pub fn move_over(&self, target: &Self) -> io::Result<()> {
        Ok(renameat(&*self.parent, &*self.name, &*target.parent, &*target.name)?)
    }

    /// An empty file (mode 0600) that can replace what is here: in `tempdir` if that is a directory on the same file
    /// system that takes it, else beside the target. (The C program would truncate and copy where a rename cannot do.)
    ///
    /// # Errors
    /// Those of creating it beside the target.
    pub fn temp(&self, tempdir: Option<&Path>) -> io::Result<TempFile> {
        TempFile::create(self, tempdir)
    }

    /// The same where nobody sees it until it is put in place.
    ///
    /// # Errors
    /// There is no such file on this file system, or those of creating it.
    pub fn hidden_temp(&self, tempdir: Option<&Path>) -> io::Result<TempFile> {
        TempFile::hidden(self, tempdir)
    }

    /// The same beside the target, where others see it under this name.
    ///
    /// # Errors
    /// Those of creating it, also that the name is taken.
    pub fn visible_temp(&self, name: &[u8]) -> io::Result<TempFile> {
        TempFile::visible(self, name)
    }
}

/// For chown, where 2³² − 1 would mean "leave it".
pub(super) fn owner_ids(uid: Option<u32>, gid: Option<u32>) -> Result<(Option<Uid>, Option<Gid>), Errno> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    Ok((uid.map(Uid::from_raw), gid.map(Gid::from_raw)))
}

pub(super) fn permission_bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// mtime, and the same as atime.
pub(super) fn both_times(time: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
