//! Walks a tree: getdents and one stat an entry, names sorted by their bytes, symlinks never followed.
//!
//! Which entries matter, and what follows from a failure, is the visitor's to decide.

use std::ffi::{CStr, CString};
use std::io;
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
    /// The walk is done with a directory that it was told to go into, whether or not it could be read.
    fn left(&mut self, _path: &[u8]) {}
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
        // Below a file there is nothing.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return,
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
                    self.visitor.left(&self.path);
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
            match self.enter(directory, name) {
                Ok(level) => self.levels.push(level),
                Err(error) => {
                    report(self.visitor, &self.path, "open", error);
                    self.visitor.left(&self.path);
                }
            }
        }
    }

    /// Opens a directory and reads its names. Should a symlink have taken its place since the stat, this fails.
    fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Level> {
        let directory = openat(parent, name, open::READ | OFlags::NOFOLLOW, Mode::empty())?;
        let metadata = meta::metadata_of(&directory)?;
        let mut names = Vec::new();
        if let Err(error) = read_names(directory.as_fd(), |name, kind_hint| names.push((name.to_owned(), kind_hint))) {
            report(self.visitor, &self.path, "read", error);
        }
        names.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        let identity = (metadata.device, metadata.inode);
        Ok(Level { directory: Some(directory), identity, names, path_length: self.path.len() })
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
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
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

#[cfg(test)]
mod tests {
    use super::super::Root;
    use super::super::testing::{chmod, unprivileged};
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    type Action = Box<dyn FnMut()>;

    /// Notes what it is told, relative to `top`.
    #[derive(Default)]
    struct Notes {
        top: PathBuf,
        seen: Vec<String>,
        failures: Vec<(String, &'static str, io::ErrorKind)>,
        /// Names that are not wanted.
        unwanted: Vec<&'static str>,
        /// Called before an entry is answered.
        at: Vec<(&'static str, Action)>,
    }

    impl Notes {
        fn of(top: &Path) -> Self {
            Self { top: top.to_owned(), ..Self::default() }
        }

        fn walk(mut self) -> Self {
            let top = self.top.clone();
            walk(&top, &mut self);
            self
        }

        fn relative(&self, path: &[u8]) -> String {
            let below = path.strip_prefix(self.top.as_os_str().as_bytes()).unwrap();
            String::from_utf8_lossy(below).into_owned()
        }
    }

    impl Visitor for Notes {
        fn wants(&mut self, path: &[u8], kind_hint: KindHint) -> bool {
            let path = self.relative(path);
            assert!(!path.ends_with("/d") || kind_hint != KindHint::Other);
            !self.unwanted.iter().any(|name| path.ends_with(name))
        }

        fn entry(&mut self, path: &[u8], _: Metadata) -> bool {
            let path = self.relative(path);
            for (name, action) in &mut self.at {
                if path == *name {
                    action();
                }
            }
            self.seen.push(path);
            true
        }

        fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
            self.failures.push((self.relative(path), operation, error.kind()));
        }
    }

    #[test]
    fn entries_come_in_the_order_of_their_bytes_and_links_are_entries() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("d/d")).unwrap();
        for name in ["d/d/x", "d.x", "B", "a", "d/ü", "d/\u{1}"] {
            fs::write(path(name), "").unwrap();
        }
        fs::write(path("").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        symlink("d", path("c")).unwrap();
        let notes = Notes::of(directory.path()).walk();
        let expected = ["", "/B", "/a", "/c", "/d", "/d/\u{1}", "/d/d", "/d/d/x", "/d/ü", "/d.x", "/\u{fffd}"];
        assert_eq!(notes.seen, expected);
        assert!(notes.failures.is_empty());
        let unwanted = vec!["/d", "/a"];
        assert_eq!(
            Notes { unwanted, ..Notes::of(directory.path()) }.walk().seen,
            ["", "/B", "/c", "/d.x", "/\u{fffd}"]
        );
    }

    #[test]
    fn the_starting_name_may_be_anything() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        symlink("/", directory.path().join("link")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(Notes::of(&directory.path().join(name)).walk().seen, [""]);
        }
        for name in ["none", "none/x", "file/x"] {
            let notes = Notes::of(&directory.path().join(name)).walk();
            assert!(notes.seen.is_empty() && notes.failures.is_empty());
        }
    }

    #[test]
    fn the_root_of_the_file_system_has_a_single_slash() {
        let mut entries = FirstEntries::default();
        walk(Path::new("/"), &mut entries);
        assert_eq!(entries.0[0], b"/");
        assert!(entries.0.contains(&b"/usr".to_vec()));
    }

    /// Does not go below the starting name.
    #[derive(Default)]
    struct FirstEntries(Vec<Vec<u8>>);

    impl Visitor for FirstEntries {
        fn wants(&mut self, path: &[u8], _: KindHint) -> bool {
            self.0.push(path.to_vec());
            path == b"/"
        }

        fn entry(&mut self, _: &[u8], metadata: Metadata) -> bool {
            metadata.is_directory()
        }

        fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
            panic!("{operation} {path:?}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let directory = tempfile::tempdir().unwrap();
        chmod(directory.path(), 0o755);
        for (name, mode) in [("closed", 0o711), ("locked", 0o644), ("open", 0o755)] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), "").unwrap();
            chmod(&directory.path().join(name), mode);
        }
        unprivileged(|| {
            let notes = Notes::of(directory.path()).walk();
            assert_eq!(notes.seen, ["", "/closed", "/locked", "/open", "/open/file"]);
            let denied = io::ErrorKind::PermissionDenied;
            assert_eq!(notes.failures, [("/closed".into(), "open", denied), ("/locked/file".into(), "stat", denied)]);
            let below = Notes::of(&directory.path().join("locked/file")).walk();
            assert_eq!(below.failures, [(String::new(), "stat", denied)]);
        });
    }

    #[test]
    fn a_directory_that_becomes_a_symlink_is_told_and_one_that_vanishes_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["swapped/inside", "vanishing"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::create_dir_all(path("outside/secret")).unwrap();
        let (swapped, vanishing, outside) = (path("swapped"), path("vanishing"), path("outside"));
        let swap = move || {
            fs::remove_dir_all(&swapped).unwrap();
            symlink(&outside, &swapped).unwrap();
        };
        let mut notes = Notes::of(directory.path());
        notes.at.push(("/swapped", Box::new(swap)));
        notes.at.push(("/vanishing", Box::new(move || fs::remove_dir(&vanishing).unwrap())));
        let notes = notes.walk();
        assert_eq!(notes.seen, ["", "/outside", "/outside/secret", "/swapped", "/vanishing"]);
        assert_eq!(notes.failures, [("/swapped".into(), "open", io::ErrorKind::NotADirectory)]);
    }

    /// A chain of directories `name` with a FIFO `z` in each; returns the deepest one's path below `top`.
    fn chain(top: &Path, name: &str, depth: usize) -> String {
        let root = Root::open(top).unwrap();
        let mut path = String::new();
        for _ in 0..depth {
            path.push_str(name);
            root.locate(path.as_bytes()).unwrap().make_directory(0o700).unwrap();
            path.push('/');
            root.locate(format!("{path}z").as_bytes()).unwrap().make_fifo().unwrap();
        }
        format!("/{}", path.trim_end_matches('/'))
    }

    #[test]
    fn trees_may_be_deeper_than_a_path_is_long_and_than_directories_stay_open() {
        let directory = tempfile::tempdir().unwrap();
        let (name, depth) = ("d".repeat(100), OPEN_LEVELS * 3);
        let deepest = chain(directory.path(), &name, depth);
        assert!(deepest.len() > 4 * 4096);
        let notes = Notes::of(directory.path()).walk();
        assert!(notes.failures.is_empty());
        assert_eq!(notes.seen.len(), 1 + 2 * depth);
        assert_eq!(notes.seen[depth], deepest);
        assert_eq!(notes.seen[depth + 1], format!("{deepest}/z"));
        assert_eq!(notes.seen.last().unwrap(), &format!("/{name}/z"));
    }

    #[test]
    fn a_way_back_that_is_lost_is_told_for_every_directory_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir(&top).unwrap();
        let deepest: &'static str = chain(&top, "d", 100).leak();
        let (from, to) = (top.join("d/d/d"), directory.path().join("elsewhere"));
        let mut notes = Notes::of(&top);
        notes.at.push((deepest, Box::new(move || fs::rename(&from, &to).unwrap())));
        let notes = notes.walk();
        let told: Vec<_> = notes.failures.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(told, ["/d/d", "/d"], "their z was not looked at");
        assert_eq!(notes.seen.iter().filter(|path| path.ends_with("/z")).count(), 98);
    }
}
