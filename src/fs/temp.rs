//! A new file under a temporary name that replaces another at once: complete, durable, with its owner and attributes.
//! What goes into it, and when, is for others.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat,
    futimens, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::place::{both_times, permission_bits};
use super::{Place, meta, open};
use crate::model::Metadata;

/// Something of the old file that the new one could not get.
#[derive(Debug, thiserror::Error)]
#[error("take over {attribute}")]
pub struct NotTakenOver {
    /// `owner`, `mode`, or the name of an extended attribute.
    pub attribute: String,
    pub source: io::Error,
}

/// A new file under a temporary name. Dropping it without [`TempFile::persist`] removes it.
#[derive(Debug)]
pub struct TempFile {
    directory: OwnedFd,
    name: CString,
    file: File,
    beside: bool,
    /// The name is no longer ours to remove.
    persisted: bool,
}

impl TempFile {
    pub(super) fn create(place: &Place, tempdir: Option<&Path>) -> io::Result<Self> {
        let in_tempdir = |path: &Path| {
            let directory = open::directory(path).ok()?;
            let same_file_system = fstat(&directory).ok()?.st_dev == fstat(place.parent()).ok()?.st_dev;
            same_file_system.then(|| Self::create_in(directory, place.name(), false).ok()).flatten()
        };
        match tempdir.and_then(in_tempdir) {
            Some(temp) => Ok(temp),
            None => Self::create_in(place.parent().try_clone_to_owned()?, place.name(), true),
        }
    }

    fn create_in(directory: OwnedFd, name: &CStr, beside: bool) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, file) =
            under_fresh_name(name, |candidate| Ok(openat(&directory, candidate, flags, Mode::RUSR | Mode::WUSR)?))?;
        Ok(Self { directory, name, file: file.into(), beside, persisted: false })
    }

    /// Open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The name in its directory: `.NAME.XXXXXX`, at most 255 bytes.
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
            let (uid, gid) = (Some(Uid::from_raw(old.uid)), Some(Gid::from_raw(old.gid)));
            let owner = fchown(&self.file, uid, gid);
            if owner.is_err() {
                // An ordinary user may still be able to give it the group.
                let _ = fchown(&self.file, None, gid);
            }
            attempt("owner", owner)
        });
        if let Some(old_file) = old_file {
            take_over_attributes(&self.file, old_file, &mut attempt);
        }
        if let Some(old) = old {
            let mode = if owned { old.mode } else { old.mode & 0o1777 };
            attempt("mode", fchmod(&self.file, permission_bits(mode)));
        }
        lost
    }

    /// Puts it in place of what is at `place`, in one step. `durable`: the content is on disk before the rename, the
    /// rename before this returns.
    ///
    /// # Errors
    /// Those of fsync and rename (a directory is in the way, for example); the temporary file is gone then.
    pub fn persist(mut self, place: &Place, durable: bool) -> io::Result<()> {
        if durable {
            self.file.sync_all()?;
        }
        match renameat(&self.directory, &*self.name, place.parent(), place.name()) {
            // The tempdir is another mount of the same file system.
            Err(Errno::XDEV) if !self.beside => {
                let (copy, _) = copy_of(place, &File::from(self.reopen()?))?;
                return copy.persist(place, durable);
            }
            result => result?,
        }
        self.persisted = true;
        if durable { open::sync(place.parent()) } else { Ok(()) }
    }

    /// From the start, for reading.
    fn reopen(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, &*self.name, flags, Mode::empty())?)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.persisted {
            let _ = unlinkat(&self.directory, &*self.name, AtFlags::empty());
        }
    }
}

/// A temporary file beside `place` with the content, times and attributes of `source`, which is read from where it stands.
pub(super) fn copy_of(place: &Place, mut source: &File) -> io::Result<(TempFile, Vec<NotTakenOver>)> {
    let mut copy = TempFile::create(place, None)?;
    let old = meta::metadata_of(source)?;
    io::copy(&mut source, copy.file())?;
    let lost = copy.take_over(Some(&old), Some(source));
    futimens(&copy.file, &both_times(old.mtime))?;
    Ok((copy, lost))
}

/// Makes something under a temporary name beside `place`, and returns the place where it is now.
pub(super) fn make_beside(place: &Place, make: impl Fn(&Place) -> io::Result<()>) -> io::Result<Place> {
    under_fresh_name(place.name(), |candidate| {
        let beside = place.sibling(candidate.into())?;
        make(&beside).map(|()| beside)
    })
    .map(|(_, beside)| beside)
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

/// The size that the kernel allows for a list of attributes and for a value, in bytes.
const XATTR_MAX: usize = 65_536;
const ACL: &CStr = c"system.posix_acl_access";

/// Attributes of the file. Those that belong to its content (capabilities, integrity sums) or to a file system's own
/// bookkeeping (`trusted.`) do not move to other content.
fn is_taken_over(name: &CStr) -> bool {
    name == ACL || name == c"security.selinux" || name.to_bytes().starts_with(b"user.")
}

fn take_over_attributes(new: &File, old: &File, attempt: &mut impl FnMut(&str, Result<(), Errno>) -> bool) {
    let mut list = vec![0; XATTR_MAX];
    let length = match flistxattr(old, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return,
        Err(error) => {
            attempt("extended attributes", Err(error));
            return;
        }
    };
    let mut value = vec![0; XATTR_MAX];
    let mut has_acl = false;
    for name in
        list[..length].split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    {
        if is_taken_over(name) {
            has_acl |= name == ACL;
            let copied = fgetxattr(old, name, &mut value[..])
                .and_then(|length| fsetxattr(new, name, &value[..length], XattrFlags::empty()));
            attempt(&name.to_string_lossy(), copied);
        }
    }
    if !has_acl {
        // One that came from the directory's default ACL would give others what the old file did not.
        match fremovexattr(new, ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => {
                attempt(&ACL.to_string_lossy(), Err(error));
            }
        }
    }
}
