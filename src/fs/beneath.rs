//! Finds the place of a name below a root without following a symlink. Which root and which names: for others to say.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::Errno;

use super::{Place, open};

/// How names are resolved. Both ways give the same answers.
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
    /// Not permitted, too many open files, a name that cannot be one, and so on.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for BeneathError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::ParentMissing,
            Errno::NOTDIR => Self::NotADirectory,
            Errno::LOOP => Self::BehindSymlink,
            other => Self::Io(other.into()),
        }
    }
}

/// An open directory below which a peer may work: a prefix's directory, or `/`.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    resolver: Resolver,
}

impl Root {
    /// Opens an existing directory. `path` is the administrator's: symlinks in it, and at its end, are followed once, here.
    ///
    /// # Errors
    /// When it is missing, no directory, or cannot be searched.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, Resolver::default())
    }

    /// [`Root::open`] with a given way to resolve names.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn open_with(path: &Path, resolver: Resolver) -> io::Result<Self> {
        Ok(Self { directory: open::directory(path)?, path: path.to_owned(), resolver })
    }

    /// The place of a root itself, whether something is there or not: for making a root that is missing.
    ///
    /// # Errors
    /// When the directory that should hold it is missing.
    pub fn place_of(path: &Path) -> io::Result<Place> {
        let real = match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = match path.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                    Some(parent) => parent,
                    None => return Err(error),
                };
                parent.canonicalize()?.join(path.file_name().ok_or(error)?)
            }
            other => other?,
        };
        let (parent, name) = open::parent(&real)?;
        Ok(Place::new(parent, name))
    }

    /// The place of `relative`: components joined by single slashes; empty for the root itself. Whether something is
    /// there does not matter.
    ///
    /// # Errors
    /// [`BeneathError`]; names with empty, `.` or `..` components or NUL bytes are an `Io` error of kind `InvalidInput`.
    pub fn locate(&self, relative: &[u8]) -> Result<Place, BeneathError> {
        if relative.is_empty() {
            return Ok(Self::place_of(&self.path)?);
        }
        let (parent, name) = open::split(relative);
        check_component(name)?;
        Ok(Place::new(self.open_directory(parent)?, open::c_string(name)?))
    }

    /// Opens the directory `relative` (empty: the root) as a handle for names in it.
    pub(super) fn open_directory(&self, relative: &[u8]) -> Result<OwnedFd, BeneathError> {
        if relative.is_empty() {
            return Ok(self.directory.try_clone()?);
        }
        relative.split(|&byte| byte == b'/').try_for_each(check_component)?;
        descend(self.directory.as_fd(), open::pieces(relative), |directory, piece| match self.resolver {
            Resolver::Openat2 => at_once(directory, piece),
            Resolver::Components => one_by_one(directory, piece),
        })
    }
}

/// Finds the places of many names, one after the other: the last directory stays open, so that a list in name order costs
/// little. For one unit of work: what is renamed meanwhile is found where it was.
#[derive(Debug, Default)]
pub struct Locator {
    root: Option<(PathBuf, Root)>,
    /// A place in the directory of that name.
    last: Option<(Vec<u8>, Place)>,
}

impl Locator {
    /// Takes the root below which names are looked up from here on.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn below(&mut self, root: &Path) -> io::Result<&mut Self> {
        if self.root.as_ref().is_none_or(|(path, _)| path != root) {
            self.last = None;
            self.root = Some((root.to_owned(), Root::open(root)?));
        }
        Ok(self)
    }

    /// As [`Root::locate`].
    ///
    /// # Errors
    /// As [`Root::locate`].
    pub fn locate(&mut self, relative: &[u8]) -> Result<Place, BeneathError> {
        let (parent, name) = open::split(relative);
        if let Some((directory, place)) = &self.last
            && directory == parent
        {
            return place.sibling(name);
        }
        let Some((_, root)) = &self.root else { return Err(BeneathError::ParentMissing) };
        let place = root.locate(relative)?;
        if !relative.is_empty() {
            self.last = Some((parent.to_vec(), place.clone()));
        }
        Ok(place)
    }
}

pub(super) fn check_component(component: &[u8]) -> Result<(), BeneathError> {
    if matches!(component, b"" | b"." | b"..") || component.contains(&b'/') {
        return Err(BeneathError::Io(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{:?} is no name for a file", String::from_utf8_lossy(component)),
        )));
    }
    Ok(())
}

/// Opens one part of a path after the other, each in the directory before it.
fn descend<'p>(
    top: BorrowedFd<'_>,
    mut parts: impl Iterator<Item = &'p [u8]>,
    enter: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<OwnedFd, BeneathError>,
) -> Result<OwnedFd, BeneathError> {
    let first = parts.next().map_or_else(|| Ok(top.try_clone_to_owned()?), |part| enter(top, part))?;
    parts.try_fold(first, |directory, part| enter(directory.as_fd(), part))
}

fn at_once(directory: BorrowedFd<'_>, piece: &[u8]) -> Result<OwnedFd, BeneathError> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(directory, &*open::c_string(piece)?, open::HANDLE, Mode::empty(), resolve) {
        // An old kernel; a sandbox; a rename somewhere while the kernel looked.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => one_by_one(directory, piece),
        other => Ok(other?),
    }
}

fn one_by_one(top: BorrowedFd<'_>, piece: &[u8]) -> Result<OwnedFd, BeneathError> {
    descend(top, piece.split(|&byte| byte == b'/'), enter)
}

fn enter(directory: BorrowedFd<'_>, component: &[u8]) -> Result<OwnedFd, BeneathError> {
    let name = &*open::c_string(component)?;
    loop {
        match openat(directory, name, open::HANDLE | OFlags::NOFOLLOW, Mode::empty()) {
            // The kernel says ENOTDIR of a symlink too.
            Err(Errno::NOTDIR) => {}
            other => return Ok(other?),
        }
        match FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) {
            FileType::Symlink => return Err(BeneathError::BehindSymlink),
            // It changed between the two calls. That it is no directory would count as an absence: ask again.
            FileType::Directory => {}
            _ => return Err(BeneathError::NotADirectory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    const BOTH: [Resolver; 2] = [Resolver::Openat2, Resolver::Components];

    #[test]
    fn parents_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        symlink("a", root.join("inner")).unwrap();
        symlink("../outside", root.join("outer")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        for resolver in BOTH {
            let root = Root::open_with(&root, resolver).unwrap();
            for name in ["", "new", "a", "inner", "dangling", "file", "a/b", "a/b/new"] {
                assert!(root.locate(name.as_bytes()).is_ok(), "{name}");
            }
            assert!(matches!(root.locate(b"no/x"), Err(BeneathError::ParentMissing)));
            assert!(matches!(root.locate(b"a/no/x"), Err(BeneathError::ParentMissing)));
            for name in ["file/x", "file/x/y"] {
                assert!(matches!(root.locate(name.as_bytes()), Err(BeneathError::NotADirectory)), "{name}");
            }
            for name in ["inner/x", "inner/b/x", "outer/x", "dangling/x"] {
                assert!(matches!(root.locate(name.as_bytes()), Err(BeneathError::BehindSymlink)), "{name}");
            }
            for name in
                ["..", "../outside/x", "a/../../outside/x", "/etc/x", "a//b", "a/", "./a", "a/./b", "a\0/b", "\0"]
            {
                match root.locate(name.as_bytes()) {
                    Err(BeneathError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}"),
                    other => panic!("{name:?}: {other:?}"),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn both_ways_of_resolving_agree(
            components in prop::collection::vec(
                prop::sample::select(vec!["a", "b", "file", "inner", "outer", "..", ".", "", "none", "\u{1}"]), 0..5),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().join("a");
            fs::create_dir_all(root.join("a/b/a/b")).unwrap();
            fs::write(root.join("a/file"), "").unwrap();
            symlink("b", root.join("a/inner")).unwrap();
            symlink("/", root.join("outer")).unwrap();
            let name = components.join("/");
            let [at_once, one_by_one] = BOTH.map(|resolver| {
                let place = Root::open_with(&root, resolver).unwrap().locate(name.as_bytes());
                // Debug output of a place holds descriptor numbers.
                format!("{:?}", place.map(|place| place.metadata().unwrap()))
            });
            prop_assert_eq!(at_once, one_by_one);
        }
    }

    #[test]
    fn names_may_be_longer_than_the_kernel_takes_at_once() {
        for resolver in BOTH {
            let directory = tempfile::tempdir().unwrap();
            let root = Root::open_with(directory.path(), resolver).unwrap();
            let mut name = Vec::new();
            for _ in 0..40 {
                name.extend_from_slice(&[b'd'; 250]);
                root.locate(&name).unwrap().make_directory(0o700).unwrap();
                name.push(b'/');
            }
            name.extend_from_slice(b"link");
            root.locate(&name).unwrap().make_symlink(b"target").unwrap();
            assert!(name.len() > 10_000);
            let found = root.locate(&name).unwrap().metadata().unwrap().unwrap();
            let absolute = [directory.path().as_os_str().as_bytes(), b"/", &name].concat();
            assert_eq!(super::super::metadata(Path::new(std::ffi::OsStr::from_bytes(&absolute))).unwrap(), found);
            assert!(matches!(root.locate(&[&name[..], b"/x"].concat()), Err(BeneathError::BehindSymlink)));
        }
    }

    #[test]
    fn the_roots_own_path_may_hold_symlinks() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        symlink("real", directory.path().join("alias")).unwrap();
        let root = Root::open(&directory.path().join("alias")).unwrap();
        root.locate(b"made").unwrap().make_directory(0o700).unwrap();
        assert!(directory.path().join("real/made").is_dir());
        root.locate(b"").unwrap().set_mode(0o711).unwrap();
        assert_eq!(super::super::metadata(&directory.path().join("real")).unwrap().mode, 0o40_711);
        assert_eq!(root.locate(b"").unwrap().entries().unwrap(), [b"made"]);
    }

    #[test]
    fn a_missing_root_can_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root");
        assert_eq!(Root::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        Root::place_of(&path).unwrap().make_directory(0o755).unwrap();
        Root::open(&path).unwrap().locate(b"").unwrap().remove().unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert_eq!(Root::open(&path).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(Root::open(Path::new("/")).unwrap().locate(b"").unwrap().metadata().unwrap().unwrap().is_directory());
    }
}
