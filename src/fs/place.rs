//! What can be done at one place: an open parent directory and a name in it. Whether it may be done is for others.
//!
//! No operation follows a symlink at the name, so nothing outside the parent directory is reached.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fstat, mkdirat,
    mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::temp::{self, NotTakenOver, TempFile};
use super::{meta, open, walk};
use crate::model::{FileKind, Metadata, Timestamp};

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
}

/// An open parent directory and a name in it, whether something is there or not.
#[derive(Debug)]
pub struct Place {
    parent: OwnedFd,
    /// One component; `.` for the root of the file system, which has no name.
    name: CString,
}

impl Place {
    pub(super) fn new(parent: OwnedFd, name: CString) -> Self {
        Self { parent, name }
    }

    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(super) fn name(&self) -> &CStr {
        &self.name
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { parent: self.parent.try_clone()?, name: self.name.clone() })
    }

    /// Another name in the same directory.
    pub(super) fn sibling(&self, name: CString) -> io::Result<Self> {
        Ok(Self { parent: self.parent.try_clone()?, name })
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
        refuse(statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)?;
        // Should a FIFO take its place in this moment, NONBLOCK keeps us from hanging.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.parent, &*self.name, flags, Mode::empty())?;
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
        let is_directory = match statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => FileType::from_raw_mode(stat?.st_mode) == FileType::Directory,
        };
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(&self.parent, &*self.name, flags) {
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
        match mkdirat(&self.parent, &*self.name, Mode::RWXU) {
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
        Ok(mknodat(&self.parent, &*self.name, kind, Mode::RUSR | Mode::WUSR, device)?)
    }

    /// Makes a symlink whose target is these bytes.
    ///
    /// # Errors
    /// Something is there, an empty or overlong target, no permission, and so on.
    pub fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        Ok(symlinkat(&*open::c_string(target)?, &self.parent, &*self.name)?)
    }

    /// Changes the owner, of a symlink its own; `None` leaves that one as it is. Where both are right already nothing is
    /// touched, so that setuid bits and ctime stay.
    ///
    /// # Errors
    /// Nothing there, no permission, an id of 2³² − 1 (which would mean "leave it") as `InvalidInput`.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let owner = owner_ids(uid, gid)?;
        let now = statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if uid.is_none_or(|uid| uid == now.st_uid) && gid.is_none_or(|gid| gid == now.st_gid) {
            return Ok(());
        }
        Ok(chownat(&self.parent, &*self.name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the permission bits of `mode` (0o7777; others are ignored). Belongs after [`Place::set_owner`]: a change of
    /// owner clears setuid and setgid.
    ///
    /// # Errors
    /// Kind `InvalidInput` for a symlink, which has no mode of its own; else the system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat(&self.parent, &*self.name, flags, Mode::empty())?;
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
                let opened = openat(&self.parent, &*self.name, open::READ | OFlags::NOFOLLOW, Mode::empty())?;
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
        Ok(utimensat(&self.parent, &*self.name, &both_times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The names in the directory that is there, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// Nothing or no directory there, no permission, and so on.
    pub fn entries(&self) -> io::Result<Vec<Vec<u8>>> {
        let opened = openat(&self.parent, &*self.name, open::READ | OFlags::NOFOLLOW, Mode::empty())?;
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

    /// Whether what is there is no directory and has other names too: a change in place would reach these, which may
    /// lie anywhere. [`Place::detach`] first, then.
    ///
    /// # Errors
    /// Those of lstat.
    pub fn has_other_links(&self) -> io::Result<bool> {
        Ok(self.metadata()?.is_some_and(|found| !found.is_directory() && found.links > 1))
    }

    /// Replaces what is there by a copy with the same content and metadata, so that other names of the file keep the
    /// old one. Directories are left alone. Returns what the copy could not take over.
    ///
    /// # Errors
    /// Reading, writing or renaming failed: then nothing has changed.
    pub fn detach(&self) -> io::Result<Vec<NotTakenOver>> {
        let Some(old) = self.metadata()? else { return Ok(Vec::new()) };
        let node = match &old.kind {
            FileKind::Directory => return Ok(Vec::new()),
            FileKind::Regular { .. } => {
                let (copy, lost) = temp::copy_of(self, &self.open_regular()?)?;
                copy.persist(self, true)?;
                return Ok(lost);
            }
            FileKind::Symlink { target } => temp::make_beside(self, |place| place.make_symlink(target))?,
            FileKind::CharDevice { device } => {
                temp::make_beside(self, |place| place.make_device(DeviceKind::Char, *device))?
            }
            FileKind::BlockDevice { device } => {
                temp::make_beside(self, |place| place.make_device(DeviceKind::Block, *device))?
            }
            FileKind::Fifo => temp::make_beside(self, Self::make_fifo)?,
            FileKind::Socket => temp::make_beside(self, |place| place.make_node(FileType::Socket, 0))?,
        };
        let put_in_place = || {
            node.set_owner(Some(old.uid), Some(old.gid))?;
            if !matches!(old.kind, FileKind::Symlink { .. }) {
                node.set_mode(old.mode)?;
            }
            node.set_times(old.mtime)?;
            rustix::fs::renameat(&node.parent, &*node.name, &self.parent, &*self.name)?;
            self.sync_directory()
        };
        put_in_place().inspect_err(|_: &io::Error| node.clear_the_way())?;
        Ok(Vec::new())
    }

    /// An empty file (mode 0600) that can replace what is here: in `tempdir` if that is a directory on the same file
    /// system that takes it, else beside the target. (The C program would truncate and copy where a rename cannot do.)
    ///
    /// # Errors
    /// Those of creating it beside the target.
    pub fn temp(&self, tempdir: Option<&Path>) -> io::Result<TempFile> {
        TempFile::create(self, tempdir)
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
mod tests {
    use super::super::testing::{chmod, mode_of, names_in, unprivileged};
    use super::*;
    use crate::fs::{BeneathError, Resolver, Root};
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    fn place(directory: &tempfile::TempDir, name: &str) -> Place {
        Root::open(directory.path()).unwrap().locate(name.as_bytes()).unwrap()
    }

    #[test]
    fn everything_but_sockets_can_be_made_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        place(&directory, "d").make_directory(0o1755).unwrap();
        place(&directory, "fifo").make_fifo().unwrap();
        place(&directory, "link").make_symlink(b"no \xff where").unwrap();
        assert_eq!(place(&directory, "null").make_device(DeviceKind::Char, 0x103).is_ok(), is_root);
        assert_eq!(place(&directory, "disk").make_device(DeviceKind::Block, 0xfd00_0001).is_ok(), is_root);
        let kind = |name| place(&directory, name).metadata().unwrap().map(|found| found.kind);
        assert_eq!(kind("d"), Some(FileKind::Directory));
        assert_eq!(mode_of(&directory.path().join("d")), 0o1755, "whatever the umask");
        assert_eq!(kind("fifo"), Some(FileKind::Fifo));
        assert_eq!(kind("link"), Some(FileKind::Symlink { target: b"no \xff where".to_vec() }));
        assert_eq!(kind("null"), is_root.then_some(FileKind::CharDevice { device: 0x103 }));
        assert_eq!(kind("disk"), is_root.then_some(FileKind::BlockDevice { device: 0xfd00_0001 }));
        assert_eq!(place(&directory, "fifo").make_fifo().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for name in ["d", "fifo", "link", "null", "disk", "never there"] {
            place(&directory, name).remove().unwrap();
        }
        assert!(names_in(directory.path()).is_empty());
    }

    #[test]
    fn an_existing_directory_is_fine_and_a_full_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let d = place(&directory, "d");
        d.make_directory(0o750).unwrap();
        d.make_directory(0o700).unwrap();
        assert_eq!(mode_of(&directory.path().join("d")), 0o750);
        fs::write(directory.path().join("d/b"), "").unwrap();
        fs::write(directory.path().join("d/a"), "").unwrap();
        assert_eq!(d.remove().unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        d.clear_the_way();
        assert_eq!(d.entries().unwrap(), [b"a", b"b"]);
        d.sync_directory().unwrap();
        assert_eq!(place(&directory, "d/a").make_directory(0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "content").unwrap();
        symlink("file", directory.path().join("link")).unwrap();
        place(&directory, "fifo").make_fifo().unwrap();
        let mut text = String::new();
        place(&directory, "file").open_regular().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        for name in ["link", "fifo", ""] {
            assert_eq!(
                place(&directory, name).open_regular().unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{name}"
            );
        }
        assert_eq!(place(&directory, "none").open_regular().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn changes_reach_a_symlink_and_never_its_target() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::create_dir(&target).unwrap();
        let before = meta::metadata(&target).unwrap();
        symlink("target", directory.path().join("link")).unwrap();
        let link = place(&directory, "link");
        assert_eq!(link.set_mode(0o777).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        link.set_times(Timestamp { seconds: -1, nanoseconds: 500 }).unwrap();
        assert_eq!(link.metadata().unwrap().unwrap().mtime, Timestamp { seconds: -1, nanoseconds: 500 });
        if rustix::process::geteuid().is_root() {
            link.set_owner(Some(12), Some(34)).unwrap();
            let owned = link.metadata().unwrap().unwrap();
            assert_eq!((owned.uid, owned.gid), (12, 34));
        }
        assert!(link.entries().is_err());
        assert!(link.make_directory(0o777).is_err());
        assert_eq!(meta::metadata(&target).unwrap(), before);
    }

    #[test]
    fn modes_are_set_on_every_kind_of_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        place(&directory, "d").make_directory(0o700).unwrap();
        place(&directory, "fifo").make_fifo().unwrap();
        for (name, mode) in [("file", 0o104_755), ("d", 0o43_770), ("fifo", 0o10_620)] {
            let place = place(&directory, name);
            place.set_mode(mode).unwrap();
            assert_eq!(place.metadata().unwrap().unwrap().mode, mode);
        }
        for name in ["file", "d"] {
            place(&directory, name).set_mode_by_opening(0o711).unwrap();
            assert_eq!(mode_of(&directory.path().join(name)), 0o711);
        }
        assert!(place(&directory, "fifo").set_mode_by_opening(0o711).is_err());
    }

    #[test]
    fn the_owner_it_has_is_set_without_touching_the_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let file = place(&directory, "file");
        file.set_mode(0o4755).unwrap();
        let before = file.metadata().unwrap().unwrap();
        file.set_owner(Some(before.uid), Some(before.gid)).unwrap();
        file.set_owner(None, None).unwrap();
        assert_eq!(file.metadata().unwrap().unwrap(), before);
        assert_eq!(file.set_owner(Some(u32::MAX), None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(place(&directory, "none").set_owner(None, None).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_detached_file_no_longer_reaches_its_other_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "content").unwrap();
        symlink("nowhere", path("link")).unwrap();
        place(&directory, "fifo").make_fifo().unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
        for name in ["file", "link", "fifo", "socket"] {
            let this = place(&directory, name);
            if name != "link" {
                this.set_mode(0o640).unwrap();
            }
            this.set_times(Timestamp { seconds: 1_000_000_000, nanoseconds: 7 }).unwrap();
            assert!(!this.has_other_links().unwrap());
            let other = path(&format!("{name}.other"));
            fs::hard_link(path(name), &other).unwrap();
            assert!(this.has_other_links().unwrap());
            let before = this.metadata().unwrap().unwrap();
            assert!(this.detach().unwrap().is_empty());
            let after = this.metadata().unwrap().unwrap();
            assert_ne!(after.inode, before.inode, "{name}");
            let kept = |found: &Metadata| (found.kind.clone(), found.mode, found.uid, found.gid, found.mtime);
            assert_eq!(kept(&after), kept(&before));
            assert!(!this.has_other_links().unwrap());
            assert_eq!(fs::symlink_metadata(&other).unwrap().ino(), before.inode);
        }
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "content");
        assert!(fs::symlink_metadata(path("socket")).unwrap().file_type().is_socket());
        assert!(
            place(&directory, "").detach().unwrap().is_empty()
                && place(&directory, "none").detach().unwrap().is_empty()
        );
        assert_eq!(names_in(directory.path()).len(), 8, "nothing temporary is left");
    }

    #[test]
    fn what_may_not_be_seen_is_an_error_and_not_an_absence() {
        let directory = tempfile::tempdir().unwrap();
        chmod(directory.path(), 0o755);
        fs::create_dir(directory.path().join("closed")).unwrap();
        fs::write(directory.path().join("closed/file"), "").unwrap();
        chmod(&directory.path().join("closed"), 0);
        unprivileged(|| {
            // A handle to the directory can be had; what is in it cannot.
            let error = place(&directory, "closed/file").metadata().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            let error = Root::open(directory.path()).unwrap().locate(b"closed/d/x").unwrap_err();
            assert!(matches!(error, BeneathError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied));
            assert!(place(&directory, "closed").set_mode(0o777).is_err());
        });
        chmod(&directory.path().join("closed"), 0o700);
    }

    /// While a directory turns into a symlink and back as fast as it can, nothing is changed where the link leads.
    #[test]
    fn nothing_gets_outside_however_directories_are_swapped() {
        for resolver in [Resolver::Openat2, Resolver::Components] {
            let directory = tempfile::tempdir().unwrap();
            let outside = directory.path().join("outside");
            let root = directory.path().join("root");
            fs::create_dir_all(outside.join("d")).unwrap();
            fs::write(outside.join("old"), "old").unwrap();
            chmod(&outside.join("old"), 0o600);
            fs::create_dir_all(root.join("dir/d")).unwrap();
            symlink(&outside, root.join("link")).unwrap();
            let before = meta::metadata(&outside).unwrap();
            let stop = AtomicBool::new(false);
            let done = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let exchange = rustix::fs::RenameFlags::EXCHANGE;
                        rustix::fs::renameat_with(CWD, root.join("dir"), CWD, root.join("link"), exchange).unwrap();
                    }
                });
                let root = Root::open_with(&root, resolver).unwrap();
                let work = || {
                    let mut done = 0;
                    for _ in 0..2000 {
                        let Ok(new) = root.locate(b"dir/new") else { continue };
                        let mut temp = new.temp(None).unwrap();
                        temp.file().write_all(b"new").unwrap();
                        temp.persist(&new, false).unwrap();
                        if let Ok(old) = root.locate(b"dir/old") {
                            let _ = (
                                old.set_mode(0o777),
                                old.set_times(Timestamp::default()),
                                old.set_owner(Some(7), None),
                            );
                            old.clear_the_way();
                        }
                        if let Ok(below) = root.locate(b"dir/d/below") {
                            let _ = (below.make_directory(0o700), below.remove());
                        }
                        // The name itself may be the link just now.
                        if let Ok(itself) = root.locate(b"dir") {
                            let _ = (itself.set_mode(0o755), itself.set_times(Timestamp::default()), itself.entries());
                            assert!(itself.open_regular().is_err());
                        }
                        done += 1;
                    }
                    done
                };
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                stop.store(true, Ordering::Relaxed);
                result.unwrap()
            });
            assert!(done > 0, "the directory was met as a directory");
            assert_eq!(meta::metadata(&outside).unwrap(), before);
            assert_eq!(names_in(&outside), ["d", "old"]);
            assert!(names_in(&outside.join("d")).is_empty());
            assert_eq!(
                (mode_of(&outside.join("old")), fs::read(outside.join("old")).unwrap()),
                (0o600, b"old".to_vec())
            );
        }
    }
}
