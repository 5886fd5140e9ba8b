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

#[cfg(test)]
mod tests {
    use super::super::testing::{chmod, unprivileged};
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn gone_is_only_what_the_system_says_does_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), "content").unwrap();
        symlink("nowhere", path("a/dangling")).unwrap();
        symlink("a", path("alias")).unwrap();
        let mut checker = PresenceChecker::new(directory.path());
        for name in ["", "a", "a/b", "a/b/file", "a/dangling", "alias"] {
            assert!(matches!(checker.check(name.as_bytes()), Presence::Present(_)), "{name}");
        }
        for name in ["none", "a/none", "a/b/none", "none/x", "none/y", "a/b/file/x", "a/b/file/x/y", "a/none/x"] {
            assert!(matches!(checker.check(name.as_bytes()), Presence::Gone), "{name}");
        }
        for name in ["alias/b", "alias/b/file", "alias/none", "a/dangling/x"] {
            assert!(matches!(checker.check(name.as_bytes()), Presence::BehindSymlink), "{name}");
        }
        for name in ["a/../a/b", "/a/b", "a/b\0c", &format!("a/{}", "n".repeat(256))] {
            assert!(matches!(checker.check(name.as_bytes()), Presence::Unknown(_)), "{name:?}");
        }
        fs::remove_dir_all(path("a")).unwrap();
        assert!(matches!(checker.check(b"a/b/file"), Presence::Gone));
        assert!(matches!(presence(&path("a"), b"b/file"), Presence::Gone), "no root");
        fs::write(path("a"), "").unwrap();
        assert!(matches!(presence(&path("a"), b"b"), Presence::Gone), "the root is no directory");
    }

    #[test]
    fn what_may_not_be_seen_is_unknown() {
        let directory = tempfile::tempdir().unwrap();
        chmod(directory.path(), 0o755);
        fs::create_dir_all(directory.path().join("closed/d")).unwrap();
        chmod(&directory.path().join("closed"), 0);
        unprivileged(|| {
            let mut checker = PresenceChecker::new(directory.path());
            for name in ["closed/file", "closed/d", "closed/d/file", "closed/d/other", "closed/none/file"] {
                match checker.check(name.as_bytes()) {
                    Presence::Unknown(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
                    other => panic!("{name}: {other:?}"),
                }
            }
            let closed = directory.path().join("closed/d");
            assert!(matches!(presence(&closed, b"file"), Presence::Unknown(_)));
        });
        chmod(&directory.path().join("closed"), 0o700);
    }
}
