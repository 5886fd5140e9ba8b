//! What can be done at a place.
use std::{fs::File, io, path::Path};

use super::TempFile;
use crate::model::{Metadata, Timestamp};

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
}

/// An open parent directory and a name in it, whether something is there or not.
#[derive(Debug)]
pub struct Place {}

impl Place {
    /// `None`: nothing there.
    pub fn metadata(&self) -> io::Result<Option<Metadata>> {
        todo!()
    }
    /// Opens a regular file for reading; refuses anything else without opening it.
    pub fn open_regular(&self) -> io::Result<File> {
        todo!()
    }
    /// Removes what is there (a directory only if it is empty), ignoring errors.
    pub fn clear_the_way(&self) {
        let _ = self.remove();
    }
    /// Unlink or rmdir; nothing there is fine.
    pub fn remove(&self) -> io::Result<()> {
        todo!()
    }
    /// An existing directory is fine and keeps its mode. `mode`: permission bits, not narrowed by the umask.
    pub fn make_directory(&self, mode: u32) -> io::Result<()> {
        todo!("{mode}")
    }
    /// `device` as in `st_rdev`; mode 0600.
    pub fn make_device(&self, kind: DeviceKind, device: u64) -> io::Result<()> {
        todo!("{kind:?} {device}")
    }
    /// Mode 0600.
    pub fn make_fifo(&self) -> io::Result<()> {
        todo!()
    }
    pub fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        todo!("{target:?}")
    }
    /// Of a symlink: of itself. `None` leaves that one alone.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        todo!("{uid:?} {gid:?}")
    }
    /// `mode`: permission bits, others are ignored. Fails on a symlink. Belongs after [`Place::set_owner`], which clears setuid.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        todo!("{mode}")
    }
    /// Sets atime too, as the C program does. Of a symlink: of itself.
    pub fn set_times(&self, mtime: Timestamp) -> io::Result<()> {
        todo!("{mtime:?}")
    }
    /// The names in the directory that is there, sorted.
    pub fn entries(&self) -> io::Result<Vec<Vec<u8>>> {
        todo!()
    }
    /// Makes names made and removed in the parent directory durable.
    pub fn sync_directory(&self) -> io::Result<()> {
        todo!()
    }
    /// Whether what is there has other names: then a change in place would reach these too.
    pub fn has_other_links(&self) -> io::Result<bool> {
        todo!()
    }
    /// Replaces what is there by a copy of its own with the same content and metadata.
    pub fn detach(&self) -> io::Result<()> {
        todo!()
    }
    /// An empty file (mode 0600) that can replace what is here: in `tempdir` if that is a directory on the same file system, else beside it.
    pub fn temp(&self, tempdir: Option<&Path>) -> io::Result<TempFile> {
        todo!("{tempdir:?}")
    }
}
