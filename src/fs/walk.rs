//! Walks a tree: getdents and one stat an entry, names sorted by their bytes, symlinks never followed.
//!
//! Which entries matter, and what follows from a failure, is the visitor's to decide.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use super::{meta, open};
use crate::model::Metadata;

/// What the directory says about an entry before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindHint {
    Directory,
    Other,
    /// The file system does not tell, or it is the starting name.
    Unknown,
}

/// Decides what is looked at, and takes what is found. Paths are the starting name with components added.
pub trait Visitor {
    /// Whether the entry is to be looked at, which costs a stat. What is not wanted is not descended into.
    fn wants(&mut self, path: &[u8], kind_hint: KindHint) -> bool;
    /// An entry; the answer says whether to go into it, if it is a directory.
    fn entry(&mut self, path: &[u8], metadata: Metadata) -> bool;
    /// `operation` (`stat`, `open`, `read`) failed on `path`: nothing is known about what lies below it, and after `stat`
    /// nothing about itself. What has vanished meanwhile is no failure and is passed over.
    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error);
}

/// Walks `top` (a directory or any other file; a symlink is an entry) and what lies below it, each directory before what
/// it holds. Symlinks in the directories that lead to `top` are followed.
pub fn walk(top: &Path, visitor: &mut dyn Visitor) {
    let path = top.as_os_str().as_bytes().to_vec();
    if !visitor.wants(&path, KindHint::Unknown) {
        return;
    }
    let (parent, name) = match open::parent(top) {
        Ok(found) => found,
        Err(error) => return report(visitor, &path, "stat", error),
    };
    let mut walker = Walker { path, levels: Vec::new(), visitor };
    walker.look(parent.as_fd(), &name);
    walker.run();
}

/// How many directories are kept open at once. Those further up are closed and found again through `..`.
const OPEN_LEVELS: usize = 64;

struct Walker<'v> {
    /// The entry that is looked at.
    path: Vec<u8>,
    levels: Vec<Level>,
    visitor: &'v mut dyn Visitor,
}

/// A directory in which the walk is.
struct Level {
    /// `None` when closed for the time being.
    directory: Option<OwnedFd>,
    /// To know it again.
    identity: (u64, u64),
    /// What is still to be looked at, the next one last.
    names: Vec<(CString, KindHint)>,
    /// Of [`Walker::path`], without a slash.
    path_length: usize,
}

impl Walker<'_> {
    fn run(&mut self) {
        while let Some(level) = self.levels.last_mut() {
            let path_length = level.path_length;
            self.path.truncate(path_length);
            match (level.names.pop(), level.directory.take()) {
                (Some((name, kind_hint)), Some(directory)) => {
                    if !self.path.ends_with(b"/") {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(name.as_bytes());
                    let depth = self.levels.len();
                    if self.visitor.wants(&self.path, kind_hint) {
                        self.look(directory.as_fd(), &name);
                    }
                    self.levels[depth - 1].directory = Some(directory);
                    self.close_distant();
                }
                (name, directory) => {
                    self.levels.pop();
                    match directory {
                        Some(directory) => self.come_back(directory.as_fd()),
                        // No way back to it was found, and there is more in it.
                        None if name.is_some() => self.visitor.failed(&self.path, "open", Errno::STALE.into()),
                        None => {}
                    }
                }
            }
        }
    }

    /// Stats an entry and enters it if the visitor says so.
    fn look(&mut self, directory: BorrowedFd<'_>, name: &CStr) {
        let metadata = match meta::metadata_at(directory, name) {
            Ok(metadata) => metadata,
            Err(error) => return report(self.visitor, &self.path, "stat", error),
        };
        let is_directory = metadata.is_directory();
        if self.visitor.entry(&self.path, metadata) && is_directory {
            self.enter(directory, name);
        }
    }

    /// Opens a directory and reads its names. Should a symlink have taken its place since the stat, this fails.
    fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr) {
        let opened = openat(parent, name, open::READ | OFlags::NOFOLLOW, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|directory| meta::metadata_of(&directory).map(|metadata| (directory, metadata)));
        let (directory, metadata) = match opened {
            Ok(found) => found,
            Err(error) => return report(self.visitor, &self.path, "open", error),
        };
        let mut names = Vec::new();
        if let Err(error) = read_names(directory.as_fd(), |name, kind_hint| names.push((name.to_owned(), kind_hint))) {
            report(self.visitor, &self.path, "read", error);
        }
        names.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        let identity = (metadata.device, metadata.inode);
        self.levels.push(Level { directory: Some(directory), identity, names, path_length: self.path.len() });
    }

    fn close_distant(&mut self) {
        if let Some(distant) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
            self.levels[distant].directory = None;
        }
    }

    /// Opens the level above `child` again if it was closed.
    fn come_back(&mut self, child: BorrowedFd<'_>) {
        let Some(level) = self.levels.last_mut() else { return };
        if level.directory.is_none()
            && let Ok(directory) = openat(child, c"..", open::READ, Mode::empty())
            && let Ok(metadata) = meta::metadata_of(&directory)
            // Else it was moved away while we were below it.
            && (metadata.device, metadata.inode) == level.identity
        {
            level.directory = Some(directory);
        }
    }
}

/// What does not exist any more is passed over.
fn report(visitor: &mut dyn Visitor, path: &[u8], operation: &'static str, error: io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        visitor.failed(path, operation, error);
    }
}

/// Calls `found` for every name in an open directory but `.` and `..`, in the file system's order.
pub(super) fn read_names(directory: BorrowedFd<'_>, mut found: impl FnMut(&CStr, KindHint)) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            let kind_hint = match entry.file_type() {
                FileType::Directory => KindHint::Directory,
                FileType::Unknown => KindHint::Unknown,
                _ => KindHint::Other,
            };
            found(entry.file_name(), kind_hint);
        }
    }
    Ok(())
}
