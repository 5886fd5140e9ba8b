//! A new file that replaces another at once: complete, durable, with its owner and attributes. What goes into it, and
//! when, is for others.
//!
//! Where the file system allows, it has no name until it is put in place: nobody takes it for a file of the tree
//! meanwhile, and a crash leaves nothing behind.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, fchmod, fchown, fstat, fstatvfs, futimens, linkat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::attributes::{self, NotTakenOver};
use super::place::{both_times, owner_ids, permission_bits};
use super::{Place, meta, open};
use crate::model::{Metadata, Timestamp};

/// A new file with a temporary name, or without one yet. Dropping it without [`TempFile::persist`] removes it.
#[derive(Debug)]
pub struct TempFile {
    directory: Arc<OwnedFd>,
    name: CString,
    file: File,
    beside: bool,
    /// The name is in the directory, and ours to remove.
    named: bool,
}

impl TempFile {
    /// In the tempdir, else beside `place`, hidden if the file system can do that.
    pub(super) fn create(place: &Place, tempdir: Option<&Path>) -> io::Result<Self> {
        Self::hidden(place, tempdir).or_else(|_| {
            under_fresh_name(place.name(), |name| Self::named(place.shared_parent(), name, true)).map(|(_, temp)| temp)
        })
    }

    /// Nobody sees it beside `place`: it has no name yet, or lies in the tempdir.
    pub(super) fn hidden(place: &Place, tempdir: Option<&Path>) -> io::Result<Self> {
        let in_tempdir = |path: &Path| {
            let directory = open::directory(path).ok()?;
            let same_file_system = fstat(&directory).ok()?.st_dev == fstat(place.parent()).ok()?.st_dev;
            let directory = Arc::new(directory);
            let named = || under_fresh_name(place.name(), |name| Self::named(Arc::clone(&directory), name, false));
            let create = || {
                Self::nameless(Arc::clone(&directory), place.name(), false).or_else(|_| named().map(|(_, temp)| temp))
            };
            same_file_system.then(|| create().ok()).flatten()
        };
        match tempdir.and_then(in_tempdir) {
            Some(temp) => Ok(temp),
            None => Self::nameless(place.shared_parent(), place.name(), true),
        }
    }

    /// Under this name, which must be free.
    pub(super) fn visible(place: &Place, name: &[u8]) -> io::Result<Self> {
        Self::named(place.shared_parent(), &open::c_string(name)?, true)
    }

    fn nameless(directory: Arc<OwnedFd>, name: &CStr, beside: bool) -> io::Result<Self> {
        let file = nameless(&directory)?;
        Ok(Self { directory, name: temporary_name(name.to_bytes(), KEPT[0])?, file, beside, named: false })
    }

    fn named(directory: Arc<OwnedFd>, name: &CStr, beside: bool) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&*directory, name, flags, Mode::RUSR | Mode::WUSR)?.into();
        Ok(Self { directory, name: name.to_owned(), file, beside, named: true })
    }

    /// Gives a file without a name the one that [`TempFile::name`] has told already, or another where that cannot be had.
    fn give_name(&mut self, place: &Place) -> io::Result<()> {
        if self.link_to(self.directory.as_fd(), &self.name).is_err() {
            self.name = under_fresh_name(place.name(), |name| Ok(self.link_to(self.directory.as_fd(), name)?))?.0;
        }
        self.named = true;
        Ok(())
    }

    fn link_to(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        match link_by_descriptor(&self.file, directory, name) {
            Err(Errno::NOENT) => linkat(CWD, proc_path(&self.file).as_str(), directory, name, AtFlags::SYMLINK_FOLLOW),
            other => other,
        }
    }

    /// Open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Bytes that can be added where it lies, without what is kept for the administrator. A file system that does not tell
    /// has room for everything.
    ///
    /// # Errors
    /// The system's.
    pub fn room(&self) -> io::Result<u64> {
        let found = fstatvfs(&self.file)?;
        Ok(if found.f_blocks == 0 { u64::MAX } else { found.f_bavail.saturating_mul(found.f_frsize) })
    }

    /// The name that it has, or will have for a moment, in its directory: `.NAME.XXXXXX`, at most 255 bytes.
    pub fn name(&self) -> &[u8] {
        self.name.to_bytes()
    }

    /// Whether it lies beside the target (else in the tempdir).
    pub fn is_beside(&self) -> bool {
        self.beside
    }

    /// Gives it the owner and mode of `old`, and the ACL, `user.` attributes and security label of `old_file`. Best effort:
    /// the list says what was not possible. Without the owner there is no setuid or setgid bit either.
    ///
    /// Belongs after the last write, which may clear such bits.
    pub fn take_over(&self, old: Option<&Metadata>, old_file: Option<&File>) -> Vec<NotTakenOver> {
        let mut lost = Vec::new();
        let mut attempt = |attribute: &str, result: Result<(), Errno>| {
            let outcome = result.map_err(|error| NotTakenOver { attribute: attribute.into(), source: error.into() });
            outcome.map_err(|missing| lost.push(missing)).is_ok()
        };
        // The order matters: a change of owner clears capabilities and setuid bits, and setting an ACL changes the mode.
        let owned = old.is_none_or(|old| {
            let owner = self.change_owner(Some(old.uid), Some(old.gid));
            if owner.is_err() {
                // An ordinary user may still be able to give it the group.
                let _ = self.change_owner(None, Some(old.gid));
            }
            attempt("owner", owner)
        });
        if let Some(old_file) = old_file {
            attributes::take_over(&self.file, old_file, &mut attempt);
        }
        if let Some(old) = old {
            let mode = if owned { old.mode } else { old.mode & 0o1777 };
            attempt("mode", fchmod(&self.file, permission_bits(mode)));
        }
        lost
    }

    /// Gives it the content, times and attributes of `source`, which is read from where it stands. Returns what was not
    /// possible.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn copy_from(&mut self, mut source: &File) -> io::Result<Vec<NotTakenOver>> {
        let old = meta::metadata_of(source)?;
        io::copy(&mut source, &mut self.file)?;
        let lost = self.take_over(Some(&old), Some(source));
        self.set_times(old.mtime)?;
        Ok(lost)
    }

    /// Changes its owner; `None` leaves that one as it is.
    ///
    /// # Errors
    /// No permission; an id of 2³² − 1 as `InvalidInput`.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        Ok(self.change_owner(uid, gid)?)
    }

    fn change_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = owner_ids(uid, gid)?;
        fchown(&self.file, uid, gid)
    }

    /// Sets the permission bits of `mode` (0o7777; others are ignored). Belongs after [`TempFile::set_owner`] and the last
    /// write, which may clear setuid and setgid.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.file, permission_bits(mode))?)
    }

    /// Sets mtime, and atime with it. Belongs after the last write.
    ///
    /// # Errors
    /// A time that the file system cannot keep.
    pub fn set_times(&self, mtime: Timestamp) -> io::Result<()> {
        Ok(futimens(&self.file, &both_times(mtime))?)
    }

    /// Puts it in place of what is at `place`, in one step; returns it, which is that file now. Where it shall be durable it
    /// must be on disk before that, with its attributes, and the directory is to be flushed behind it.
    ///
    /// # Errors
    /// Those of rename (a directory is in the way, for example): nothing has changed, and the temporary file is gone.
    pub fn persist(mut self, place: &Place) -> io::Result<Self> {
        if !self.named && self.link_to(place.parent(), place.name()).is_err() {
            // Something is there.
            self.give_name(place)?;
        }
        if self.named {
            match renameat(&*self.directory, &*self.name, place.parent(), place.name()) {
                // The tempdir is another mount of the same file system.
                Err(Errno::XDEV) if !self.beside => {
                    let (copy, _) = copy_of(place, &File::from(self.reopen()?))?;
                    copy.sync()?;
                    return copy.persist(place);
                }
                result => result?,
            }
            self.named = false;
        }
        Ok(self)
    }

    /// As it is now.
    ///
    /// # Errors
    /// The system's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        meta::metadata_of(&self.file)
    }

    /// Makes its content and attributes durable.
    ///
    /// # Errors
    /// Those of fsync.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// From the start, for reading.
    fn reopen(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&*self.directory, &*self.name, flags, Mode::empty())?)
    }
}

impl AsFd for TempFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.named {
            let _ = unlinkat(&*self.directory, &*self.name, AtFlags::empty());
        }
    }
}

/// A file in `directory` without a name. The error: the file system has none such, or it could not be given one later (no
/// /proc).
fn nameless(directory: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(openat(directory, c".", flags, Mode::RUSR | Mode::WUSR)?);
    // A name that is taken, and so makes no link.
    if link_by_descriptor(&file, directory.as_fd(), c".") != Err(Errno::EXIST) {
        std::fs::symlink_metadata(proc_path(&file))?;
    }
    Ok(file)
}

/// Gives the file a name without a look at /proc, which costs several times as much. ENOENT: only root may do that (Linux
/// before 6.10).
fn link_by_descriptor(file: &File, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    linkat(file, c"", directory, name, AtFlags::EMPTY_PATH)
}

fn proc_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// A temporary file beside `place` with the content, times and attributes of `source`, which is read from where it stands.
pub(super) fn copy_of(place: &Place, source: &File) -> io::Result<(TempFile, Vec<NotTakenOver>)> {
    let mut copy = TempFile::create(place, None)?;
    let lost = copy.copy_from(source)?;
    Ok((copy, lost))
}

/// A temporary name for what is to be made beside `name`.
pub(super) fn name_beside(name: &CStr) -> io::Result<CString> {
    temporary_name(name.to_bytes(), KEPT[0])
}

/// What `name` keeps of its bytes in a temporary name: as many as fit in `NAME_MAX`, or in the least that file systems with
/// encrypted names leave.
const KEPT: [usize; 2] = [255 - 8, 64];

/// Calls `make` with `.NAME.XXXXXX` until it finds a name that is free.
fn under_fresh_name<T>(name: &CStr, make: impl Fn(&CStr) -> io::Result<T>) -> io::Result<(CString, T)> {
    for kept in KEPT {
        for _ in 0..100 {
            let candidate = temporary_name(name.to_bytes(), kept)?;
            match make(&candidate) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) => break,
                result => return result.map(|made| (candidate, made)),
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a temporary file"))
}

fn temporary_name(name: &[u8], kept: usize) -> io::Result<CString> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let letters = random.map(|byte| LETTERS[usize::from(byte % 32)]);
    open::c_string(&[b".", cut(name, kept), b".", &letters].concat())
}

/// The first bytes of a name, at most `length`, without cutting through a UTF-8 character (some file systems refuse that).
pub(super) fn cut(name: &[u8], length: usize) -> &[u8] {
    let is_continuation = |at: usize| name.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = length.min(name.len());
    let boundary = (end.saturating_sub(3)..=end).rev().find(|&at| !is_continuation(at));
    &name[..boundary.unwrap_or(end)]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{chmod, names_in, unprivileged};
    use super::*;
    use crate::fs::Root;
    use std::fs;
    use std::io::Write;

    fn place(directory: &Path, name: &str) -> Place {
        Root::open(directory).unwrap().locate(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_is_replaced_at_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("name"), "old").unwrap();
        let place = place(directory.path(), "name");
        let mut temp = place.temp(None).unwrap();
        assert!(temp.is_beside());
        let name = String::from_utf8(temp.name().to_vec()).unwrap();
        assert!(name.starts_with(".name.") && name.len() == 12, "{name}");
        temp.file().write_all(b"the new content").unwrap();
        assert_eq!(meta::metadata_of(&temp.file).unwrap().mode, 0o100_600);
        assert_eq!(fs::read(directory.path().join("name")).unwrap(), b"old");
        assert_eq!(names_in(directory.path()), ["name"], "nobody sees it yet");
        temp.persist(&place).unwrap();
        assert_eq!(fs::read(directory.path().join("name")).unwrap(), b"the new content");
        assert_eq!(names_in(directory.path()), ["name"]);
    }

    #[test]
    fn owner_mode_and_time_can_be_right_before_it_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "name");
        let temp = place.temp(None).unwrap();
        let mine = meta::metadata_of(&temp.file).unwrap();
        temp.set_owner(Some(mine.uid), Some(mine.gid)).unwrap();
        temp.set_owner(None, None).unwrap();
        assert_eq!(temp.set_owner(None, Some(u32::MAX)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        temp.set_mode(0o104_711).unwrap();
        let mtime = Timestamp { seconds: -2, nanoseconds: 999_999_999 };
        temp.set_times(mtime).unwrap();
        temp.persist(&place).unwrap();
        let found = place.metadata().unwrap().unwrap();
        assert_eq!((found.mode, found.mtime), (0o104_711, mtime));
    }

    #[test]
    fn a_dropped_or_refused_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("name")).unwrap();
        let place = place(directory.path(), "name");
        drop(place.temp(None).unwrap());
        assert!(place.temp(None).unwrap().persist(&place).is_err(), "a directory is in the way");
        assert_eq!(names_in(directory.path()), ["name"]);
    }

    #[test]
    fn a_file_without_a_name_gets_another_when_its_own_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "name");
        let mut temp = place.temp(None).unwrap();
        temp.file().write_all(b"content").unwrap();
        fs::write(directory.path().join(std::str::from_utf8(temp.name()).unwrap()), "somebody else's").unwrap();
        temp.persist(&place).unwrap();
        assert_eq!(fs::read(directory.path().join("name")).unwrap(), b"content");
        assert_eq!(names_in(directory.path()).len(), 2);
    }

    #[test]
    fn a_visible_file_has_the_name_that_it_was_promised() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "name");
        let mut temp = place.visible_temp(b".name.abcdef").unwrap();
        temp.file().write_all(b"content").unwrap();
        assert_eq!(names_in(directory.path()), [".name.abcdef"]);
        assert!(place.visible_temp(b".name.abcdef").is_err(), "it is taken");
        temp.persist(&place).unwrap();
        assert_eq!(names_in(directory.path()), ["name"]);
    }

    #[test]
    fn any_name_leaves_room_for_its_temporary_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["n".repeat(255), "ü".repeat(127), "x".into(), "y".repeat(247)] {
            let place = place(directory.path(), &name);
            let temp = place.temp(None).unwrap();
            assert!(temp.name().len() <= 255 && std::str::from_utf8(temp.name()).is_ok());
            temp.persist(&place).unwrap();
            assert!(directory.path().join(name).exists());
        }
        assert_eq!(cut("aüb".as_bytes(), 2), b"a");
        assert_eq!(cut(b"a\xbf\xbf\xbf\xbf\xbf", 5), b"a\xbf\xbf\xbf\xbf", "no UTF-8: cut anywhere");
    }

    #[test]
    fn the_tempdir_is_used_where_a_rename_can_leave_it() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["tempdir", "data"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let data = directory.path().join("data");
        let place = place(&data, "name");
        let mut temp = place.temp(Some(&directory.path().join("tempdir"))).unwrap();
        assert!(!temp.is_beside() && names_in(&data).is_empty());
        temp.file().write_all(b"content").unwrap();
        temp.persist(&place).unwrap();
        assert_eq!(fs::read(data.join("name")).unwrap(), b"content");
        assert!(names_in(&directory.path().join("tempdir")).is_empty());
        for unusable in [Path::new("/proc"), &directory.path().join("missing"), &data.join("name")] {
            assert!(place.temp(Some(unusable)).unwrap().is_beside(), "{}", unusable.display());
        }
    }

    #[test]
    fn who_cannot_give_files_away_makes_no_setuid_file() {
        let directory = tempfile::tempdir().unwrap();
        chmod(directory.path(), 0o777);
        unprivileged(|| {
            let place = place(directory.path(), "name");
            let temp = place.temp(None).unwrap();
            let mine = meta::metadata_of(&temp.file).unwrap();
            let foreign = Metadata { uid: mine.uid + 1, mode: 0o106_755, ..mine };
            let lost = temp.take_over(Some(&foreign), None);
            assert_eq!(lost.iter().map(|lost| &lost.attribute[..]).collect::<Vec<_>>(), ["owner"]);
            assert_eq!(meta::metadata_of(&temp.file).unwrap().mode, 0o100_755);
        });
    }
}
