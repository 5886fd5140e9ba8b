//! Walks a tree: getdents and one stat an entry, names sorted by their bytes, symlinks never followed.
//!
//! Which entries matter, and what follows from a failure, is the visitor's to decide. Several visitors share a tree: one
//! that has nothing left to do is given half of a directory, or of the directories, that another one has before it.

mod names;
mod sharing;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use self::names::Names;
pub(super) use self::names::read_names;
use self::sharing::{Exchange, Working};
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

/// An entry that the walk has come to.
#[derive(Debug)]
pub struct Entry<'w, D> {
    /// The starting name with components added.
    pub path: &'w [u8],
    /// The last of them.
    pub name: &'w [u8],
    /// What the visitor said of the directory that holds it; `None` for the starting name.
    pub inside: Option<&'w D>,
}

/// Decides what is looked at, and takes what is found.
pub trait Visitor: Send {
    /// What is to be known of a directory while the walk is in it. Visitors that share the directory each get a clone.
    type Directory: Clone + Send;

    /// Whether the entry is to be looked at, which costs a stat. What is not wanted is not descended into.
    fn wants(&mut self, entry: &Entry<'_, Self::Directory>, kind_hint: KindHint) -> bool;
    /// What the entry is; it is the one that was wanted last. The answer says whether to go into it, if it is a directory.
    fn entry(&mut self, entry: &Entry<'_, Self::Directory>, metadata: Metadata) -> Option<Self::Directory>;
    /// The walk is done with a directory that it was told to go into, whether or not it could be read. Where several
    /// visitors share the tree nobody is told.
    fn left(&mut self, _directory: Self::Directory) {}
    /// `operation` (`stat`, `open`, `read`) failed on `path`: nothing is known about what lies below it, and after `stat`
    /// nothing about itself. What has vanished meanwhile is no failure and is passed over.
    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error);
}

/// Walks `top` (a directory or any other file; a symlink is an entry) and what lies below it, each directory before what
/// it holds. Symlinks in the directories that lead to `top` are followed.
///
/// Each visitor has a thread, the first one the caller's. A single visitor sees the tree in the order of the bytes; of
/// several, any may see any part of it.
///
/// # Panics
/// When there is no visitor, or when one panics.
pub fn walk<V: Visitor>(top: &Path, visitors: &mut [V]) {
    let path = top.as_os_str().as_bytes().to_vec();
    let (first, others) = visitors.split_first_mut().expect("somebody visits");
    let exchange = Exchange::default();
    let is_alone = others.is_empty();
    let walker =
        |visitor, path| Walker { path, name: Vec::new(), levels: Vec::new(), visitor, exchange: &exchange, is_alone };
    let mut first = walker(first, path);
    let working = exchange.begin();
    first.begin(top);
    if first.levels.is_empty() {
        return;
    }
    thread::scope(|scope| {
        for visitor in others {
            let other = walker(visitor, Vec::new());
            scope.spawn(|| other.work(None));
        }
        first.work(Some(working));
    });
}

/// How many directories are kept open at once. Those further up are closed and found again through `..`.
const OPEN_LEVELS: usize = 64;

struct Walker<'w, V: Visitor> {
    /// The entry that is looked at.
    path: Vec<u8>,
    /// Its name, with a NUL.
    name: Vec<u8>,
    levels: Vec<Level<V::Directory>>,
    visitor: &'w mut V,
    exchange: &'w Exchange<Share<V::Directory>>,
    is_alone: bool,
}

/// A directory by whatever name: device and inode.
type Identity = (u64, u64);

/// A directory in which the walk is.
struct Level<D> {
    /// `None` when closed for the time being.
    directory: Option<Arc<OwnedFd>>,
    /// To know it again.
    identity: Identity,
    /// What is still to be looked at.
    names: Names,
    /// Of [`Walker::path`], without a slash.
    path_length: usize,
    known: D,
}

/// A part of a directory that another walker shall look at.
struct Share<D> {
    path: Vec<u8>,
    level: Level<D>,
}

impl<V: Visitor> Walker<'_, V> {
    /// Looks at the starting name.
    fn begin(&mut self, top: &Path) {
        let entry = Entry { path: &self.path, name: open::split(&self.path).1, inside: None };
        if !self.visitor.wants(&entry, KindHint::Unknown) {
            return;
        }
        match open::parent(top) {
            Ok((parent, name)) => self.look(parent.as_fd(), &name),
            // Below a file there is nothing.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => report(self.visitor, &self.path, "stat", error),
        }
    }

    /// Walks until nobody has anything left to share.
    fn work(mut self, working: Option<Working<'_, Share<V::Directory>>>) {
        let mut working = working;
        loop {
            self.run();
            drop(working.take());
            let Some((share, again)) = self.exchange.wait() else { return };
            working = Some(again);
            self.path = share.path;
            self.levels.push(share.level);
        }
    }

    fn run(&mut self) {
        while let Some(path_length) = self.levels.last().map(|level| level.path_length) {
            self.path.truncate(path_length);
            if self.exchange.is_wanted() {
                self.share();
            }
            self.step();
        }
    }

    /// Looks at the next entry of the innermost directory, or leaves it.
    fn step(&mut self) {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return };
        let Some(directory) = level.directory.take() else { return self.leave(None) };
        let mut name = std::mem::take(&mut self.name);
        match level.names.next(&mut name) {
            Some(kind_hint) => {
                let name = CStr::from_bytes_with_nul(&name).unwrap_or_default();
                if !self.path.ends_with(b"/") {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(name.to_bytes());
                let entry = Entry { path: &self.path, name: name.to_bytes(), inside: Some(&level.known) };
                if self.visitor.wants(&entry, kind_hint) {
                    self.look(directory.as_fd(), name);
                }
                self.levels[depth - 1].directory = Some(directory);
                self.close_distant();
            }
            None => self.leave(Some(&directory)),
        }
        self.name = name;
    }

    /// Stats an entry and enters it if the visitor says so.
    fn look(&mut self, directory: BorrowedFd<'_>, name: &CStr) {
        let metadata = match meta::metadata_at(directory, name) {
            Ok(metadata) => metadata,
            Err(error) => return report(self.visitor, &self.path, "stat", error),
        };
        let is_directory = metadata.is_directory();
        let inside = self.levels.last().map(|level| &level.known);
        let entry = Entry { path: &self.path, name: name.to_bytes(), inside };
        let Some(known) = self.visitor.entry(&entry, metadata).filter(|_| is_directory) else { return };
        match self.enter(directory, name) {
            Ok((directory, identity, names)) => {
                let path_length = self.path.len();
                self.levels.push(Level { directory: Some(Arc::new(directory)), identity, names, path_length, known });
            }
            Err(error) => {
                report(self.visitor, &self.path, "open", error);
                self.tell_left(known);
            }
        }
    }

    /// Opens a directory and reads its names. Should a symlink have taken its place since the stat, this fails.
    fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<(OwnedFd, Identity, Names)> {
        let directory = openat(parent, name, open::READ | OFlags::NOFOLLOW, Mode::empty())?;
        let metadata = meta::metadata_of(&directory)?;
        let (names, result) = Names::read(directory.as_fd());
        if let Err(error) = result {
            report(self.visitor, &self.path, "read", error);
        }
        Ok((directory, (metadata.device, metadata.inode), names))
    }

    /// Goes back to the level above; `directory` is `None` when it was closed, and no way back to it was found.
    fn leave(&mut self, directory: Option<&OwnedFd>) {
        let Some(level) = self.levels.pop() else { return };
        match directory {
            Some(directory) => self.come_back(directory.as_fd()),
            None if level.names.is_empty() => {}
            None => self.visitor.failed(&self.path, "open", Errno::STALE.into()),
        }
        self.tell_left(level.known);
    }

    fn tell_left(&mut self, directory: V::Directory) {
        if self.is_alone {
            self.visitor.left(directory);
        }
    }

    /// Offers half of what is before this walker, as far up as possible: that is the most.
    fn share(&mut self) {
        for level in &mut self.levels {
            let Some(directory) = &level.directory else { continue };
            let Some(names) = level.names.split() else { continue };
            let (directory, known) = (Some(Arc::clone(directory)), level.known.clone());
            let path = self.path[..level.path_length].to_vec();
            self.exchange.offer(Share { path, level: Level { directory, names, known, ..*level } });
            return;
        }
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
            level.directory = Some(Arc::new(directory));
        }
    }
}

/// What does not exist any more is passed over.
fn report(visitor: &mut impl Visitor, path: &[u8], operation: &'static str, error: io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        visitor.failed(path, operation, error);
    }
}

#[cfg(test)]
mod tests;
