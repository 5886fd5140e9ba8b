//! Finds the place of a name below a root without following a symlink.
use std::{io, path::Path};

use super::Place;

/// How names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolver {
    /// `openat2`; one component after the other where the kernel or a sandbox refuses that call.
    #[default]
    Openat2,
    /// One component after the other.
    Components,
}

/// Why a name has no place.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    #[error("a parent directory is missing")]
    ParentMissing,
    #[error("a parent is not a directory")]
    NotADirectory,
    #[error("a parent directory is a symlink")]
    BehindSymlink,
    #[error(transparent)]
    Io(io::Error),
}

/// An open directory below which a peer may work.
#[derive(Debug)]
pub struct Root {}

impl Root {
    /// Symlinks in `path` itself are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, Resolver::default())
    }
    pub fn open_with(path: &Path, resolver: Resolver) -> io::Result<Self> {
        todo!("{} {resolver:?}", path.display())
    }
    /// The place of a root itself, whether something is there or not.
    pub fn place_of(path: &Path) -> io::Result<Place> {
        todo!("{}", path.display())
    }
    /// The place of `relative`; empty for the root itself.
    pub fn locate(&self, relative: &[u8]) -> Result<Place, BeneathError> {
        todo!("{relative:?}")
    }
}
