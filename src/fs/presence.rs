//! Whether known files are still there. What follows from an absence is for others to decide.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    path: PathBuf,
    /// `None` when it is to be opened.
    root: Option<Root>,
    /// The parent directory of the last file that was there.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl PresenceChecker {
    /// `root`'s own path may hold symlinks. When it is missing or no directory, everything below it is
    /// [`Presence::Gone`]: whether to believe that is for the caller.
    pub fn new(root: &Path) -> Self {
        Self { path: root.to_owned(), root: None, parent: None }
    }

    /// `relative` is the name below the root, components joined by single slashes; empty for the root itself.
    pub fn check(&mut self, relative: &[u8]) -> Presence {
        let (parent, name) = open::split(relative);
        if let Some((last, directory)) = &self.parent
            && last == parent
            && let Ok(metadata) = look(directory, name)
        {
            return Presence::Present(metadata);
        }
        if let Ok(metadata) = self.look_below_root(relative) {
            return Presence::Present(metadata);
        }
        // An absence is believed only of the directories that have the names now: the open ones may have been replaced.
        self.root = None;
        self.look_below_root(relative).map_or_else(Presence::from, Presence::Present)
    }

    fn look_below_root(&mut self, relative: &[u8]) -> Result<Metadata, BeneathError> {
        let root = match &mut self.root {
            Some(root) => root,
            none => none.insert(Root::open(&self.path)?),
        };
        if relative.is_empty() {
            return root.locate(relative)?.metadata()?.ok_or(BeneathError::ParentMissing);
        }
        let (parent, name) = open::split(relative);
        let directory = root.open_directory(parent)?;
        let metadata = look(&directory, name)?;
        self.parent = Some((parent.to_vec(), directory));
        Ok(metadata)
    }
}

/// The same for files below several roots.
#[derive(Debug, Default)]
pub struct PresenceCheckers(HashMap<PathBuf, PresenceChecker>);

impl PresenceCheckers {
    /// As [`PresenceChecker::check`].
    pub fn check(&mut self, root: &Path, relative: &[u8]) -> Presence {
        if let Some(checker) = self.0.get_mut(root) {
            return checker.check(relative);
        }
        self.0.entry(root.to_owned()).or_insert_with(|| PresenceChecker::new(root)).check(relative)
    }
}

/// Looks at one file, `relative` below `root`; see [`PresenceChecker`] for many.
pub fn presence(root: &Path, relative: &[u8]) -> Presence {
    PresenceChecker::new(root).check(relative)
}

fn look(directory: &OwnedFd, name: &[u8]) -> io::Result<Metadata> {
    meta::metadata_at(directory.as_fd(), &open::c_string(name)?)
}

impl From<BeneathError> for Presence {
    fn from(error: BeneathError) -> Self {
        match error {
            BeneathError::ParentMissing | BeneathError::NotADirectory => Self::Gone,
            BeneathError::BehindSymlink => Self::BehindSymlink,
            BeneathError::Io(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Gone,
                _ => Self::Unknown(error),
            },
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
    fn a_directory_that_is_replaced_meanwhile_loses_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["current/one", "current/two", "next/one", "next/two"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let mut checker = PresenceChecker::new(directory.path());
        assert!(matches!(checker.check(b"current/one"), Presence::Present(_)));
        fs::remove_dir_all(path("current")).unwrap();
        fs::rename(path("next"), path("current")).unwrap();
        assert!(matches!(checker.check(b"current/two"), Presence::Present(_)));

        let mut checker = PresenceChecker::new(&path("current"));
        assert!(matches!(checker.check(b"one"), Presence::Present(_)));
        fs::create_dir_all(path("next/three/four")).unwrap();
        fs::remove_dir_all(path("current")).unwrap();
        assert!(matches!(checker.check(b"three/four"), Presence::Gone));
        fs::rename(path("next"), path("current")).unwrap();
        assert!(matches!(checker.check(b"three/four"), Presence::Present(_)));
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
