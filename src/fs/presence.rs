//! Whether known files are still there. What follows from an absence is for others to decide.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::{BeneathError, Root, meta, open};
use crate::model::Metadata;

/// What became of a known file.
#[derive(Debug)]
pub enum Presence {
    Present(Metadata),
    /// The system says that it does not exist (ENOENT, ENOTDIR), and nothing else.
    Gone,
    /// One of its parent directories below the root is a symlink: the path is not *pure*.
    BehindSymlink,
    /// Could not be found out: nothing may be concluded.
    Unknown(io::Error),
}

/// Looks at many files below one root. The last parent directory stays open, so that a list in name order costs one stat a
/// file.
#[derive(Debug)]
pub struct PresenceChecker {
    root: Result<Root, Absence>,
    /// The parent directory that was asked for last, and what it was.
    parent: Option<(Vec<u8>, Result<OwnedFd, Absence>)>,
}

/// Why everything below a directory is not [`Presence::Present`]. The same answer is given many times.
#[derive(Debug, Clone, Copy)]
enum Absence {
    Gone,
    BehindSymlink,
    Unknown(Cause),
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    System(i32),
    Other(io::ErrorKind),
}

impl PresenceChecker {
    /// `root`'s own path may hold symlinks. When it is missing or no directory, everything below it is
    /// [`Presence::Gone`]: whether to believe that is for the caller.
    pub fn new(root: &Path) -> Self {
        Self { root: Root::open(root).map_err(Absence::from), parent: None }
    }

    /// `relative` is the name below the root, components joined by single slashes; empty for the root itself.
    pub fn check(&mut self, relative: &[u8]) -> Presence {
        let root = match &self.root {
            Ok(root) => root,
            Err(absence) => return (*absence).into(),
        };
        if relative.is_empty() {
            let itself = root.locate(relative).and_then(|place| Ok(place.metadata()?));
            return match itself {
                Ok(Some(metadata)) => Presence::Present(metadata),
                Ok(None) => Presence::Gone,
                Err(error) => Absence::from(error).into(),
            };
        }
        let (parent, name) = open::split(relative);
        if self.parent.as_ref().is_none_or(|(last, _)| last != parent) {
            self.parent = Some((parent.to_vec(), root.open_directory(parent).map_err(Absence::from)));
        }
        let found = match &self.parent {
            Some((_, Ok(directory))) => {
                open::c_string(name).and_then(|name| meta::metadata_at(directory.as_fd(), &name))
            }
            Some((_, Err(absence))) => return (*absence).into(),
            None => return Presence::Gone,
        };
        found.map_or_else(|error| Absence::from(error).into(), Presence::Present)
    }
}

/// Looks at one file, `relative` below `root`; see [`PresenceChecker`] for many.
pub fn presence(root: &Path, relative: &[u8]) -> Presence {
    PresenceChecker::new(root).check(relative)
}

impl From<io::Error> for Absence {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Gone,
            kind => Self::Unknown(error.raw_os_error().map_or(Cause::Other(kind), Cause::System)),
        }
    }
}

impl From<BeneathError> for Absence {
    fn from(error: BeneathError) -> Self {
        match error {
            BeneathError::ParentMissing | BeneathError::NotADirectory => Self::Gone,
            BeneathError::BehindSymlink => Self::BehindSymlink,
            BeneathError::Io(error) => error.into(),
        }
    }
}

impl From<Absence> for Presence {
    fn from(absence: Absence) -> Self {
        match absence {
            Absence::Gone => Self::Gone,
            Absence::BehindSymlink => Self::BehindSymlink,
            Absence::Unknown(Cause::System(code)) => Self::Unknown(io::Error::from_raw_os_error(code)),
            Absence::Unknown(Cause::Other(kind)) => Self::Unknown(kind.into()),
        }
    }
}
