//! Copies of what a peer is about to change or remove. Whether a group wants them is for others to know.
//!
//! The newest copy has the file's own name below the backup directory, older ones `.1`, `.2` and so on behind it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::renameat;
use rustix::io::Errno;

use super::temp::{TempFile, copy_of, cut};
use super::{BeneathError, Place, Root, meta, open};

/// Mode of the directories made here: copies are no more public than their originals.
const PRIVATE: u32 = 0o700;

/// A copy that is complete, but not in its place: dropped, it leaves the older ones as they were.
#[derive(Debug)]
pub struct Backup {
    copy: TempFile,
    target: Place,
    generations: u32,
    durable: bool,
}

impl Backup {
    /// Copies the regular file at `place` with its owner, mode and mtime, to become `backup_root` + `real_path`. With less
    /// than two generations, and for anything but a regular file, nothing is done (nor opened).
    ///
    /// `real_path` is absolute and canonical. `backup_root` and the directories in it are made where they are missing.
    /// `durable`: all of it is on disk when [`Backup::keep`] returns.
    ///
    /// # Errors
    /// Whatever keeps the copy from being complete.
    pub fn of(
        place: &Place,
        backup_root: &Path,
        real_path: &[u8],
        generations: u32,
        durable: bool,
    ) -> io::Result<Option<Self>> {
        if generations < 2 || !place.metadata()?.is_some_and(|found| found.is_regular()) {
            return Ok(None);
        }
        let source = place.open_regular()?;
        let root = open_or_make(backup_root, durable)?;
        let relative = real_path.strip_prefix(b"/").unwrap_or(real_path);
        let target = make_parents(&root, relative, generations, durable)?;
        // What cannot be taken over (the owner, for an ordinary user) is no reason to refuse the copy.
        let (copy, _) = copy_of(&target, &source)?;
        Ok(Some(Self { copy, target, generations, durable }))
    }

    /// Puts the copy in its place, after older ones moved on to `.1`, `.2`, …: as many copies in all as there are
    /// generations.
    ///
    /// # Errors
    /// When a copy cannot be renamed: none is lost then.
    pub fn keep(self) -> io::Result<()> {
        if self.durable {
            self.copy.sync()?;
        }
        rotate(&self.target, self.generations)?;
        self.copy.persist(&self.target)?;
        if self.durable { self.target.sync_directory() } else { Ok(()) }
    }
}

fn open_or_make(directory: &Path, durable: bool) -> io::Result<Root> {
    match Root::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                open_or_make(parent, durable)?;
            }
            make(&Root::place_of(directory)?, durable)?;
            Root::open(directory)
        }
        other => other,
    }
}

/// Makes the directories in which the copy is to lie. What was a file when it was backed up and is a directory by now
/// moves on as an older copy.
fn make_parents(root: &Root, relative: &[u8], generations: u32, durable: bool) -> io::Result<Place> {
    let slashes = relative.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in slashes {
        let directory = locate(root, &relative[..end])?;
        match directory.metadata()? {
            Some(found) if found.is_directory() => continue,
            Some(found) if found.is_regular() => rotate(&directory, generations)?,
            _ => {}
        }
        make(&directory, durable)?;
    }
    locate(root, relative)
}

fn make(directory: &Place, durable: bool) -> io::Result<()> {
    directory.make_directory(PRIVATE)?;
    if durable { directory.sync_directory() } else { Ok(()) }
}

fn locate(root: &Root, relative: &[u8]) -> io::Result<Place> {
    root.locate(relative).map_err(|error| match error {
        BeneathError::Io(error) => error,
        other => io::Error::other(other),
    })
}

/// Moves the newest copy to `.1`, that to `.2`, and so on; the last one is replaced. Only what is in an unbroken row
/// moves: a number that is free takes the one before it. A directory under such a name holds copies of other files: it
/// makes way for a newest copy, and otherwise stays where it is.
fn rotate(newest: &Place, generations: u32) -> io::Result<()> {
    let mut row = Vec::new();
    for number in 0_u32.. {
        let name = numbered(newest, number)?;
        match meta::metadata_at(newest.parent(), &name) {
            Ok(found) if found.is_directory() && number == 0 => return make_way(newest),
            Ok(found) if found.is_directory() => continue,
            Ok(_) => row.push(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                row.push(name);
                break;
            }
            Err(error) => return Err(error),
        }
        if row.len() >= generations as usize {
            break;
        }
    }
    for pair in row.windows(2).rev() {
        rename(newest, &pair[0], &pair[1])?;
    }
    Ok(())
}

/// Gives a directory the first number that is free.
fn make_way(directory: &Place) -> io::Result<()> {
    for number in 1_u32.. {
        let name = numbered(directory, number)?;
        match meta::metadata_at(directory.parent(), &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return rename(directory, directory.name(), &name),
            found => drop(found?),
        }
    }
    Ok(())
}

/// What was renamed by another session meanwhile is fine.
fn rename(beside: &Place, from: &CStr, to: &CStr) -> io::Result<()> {
    match renameat(beside.parent().as_fd(), from, beside.parent(), to) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The name of an older copy; 0 is the newest.
fn numbered(newest: &Place, number: u32) -> io::Result<CString> {
    let suffix = if number == 0 { String::new() } else { format!(".{number}") };
    open::c_string(&[cut(newest.name().to_bytes(), 255 - suffix.len()), suffix.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{chmod, mode_of, names_in};
    use super::*;
    use crate::model::Timestamp;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Story {
        directory: tempfile::TempDir,
    }

    impl Story {
        fn begin() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("data")).unwrap();
            Self { directory }
        }

        fn place(&self) -> Place {
            Root::open(&self.directory.path().join("data")).unwrap().locate(b"file").unwrap()
        }

        fn backup(&self, real_path: &str, generations: u32) -> io::Result<()> {
            let root = self.directory.path().join("backup");
            match Backup::of(&self.place(), &root, real_path.as_bytes(), generations, true)? {
                Some(backup) => backup.keep(),
                None => Ok(()),
            }
        }

        fn back_up_content(&self, content: &str, generations: u32) {
            fs::write(self.directory.path().join("data/file"), content).unwrap();
            self.backup("/srv/data/file", generations).unwrap();
        }

        fn copies(&self) -> Vec<(String, String)> {
            let copies = self.directory.path().join("backup/srv/data");
            let content = |name: &String| fs::read_to_string(copies.join(name)).unwrap();
            names_in(&copies).into_iter().map(|name| (name.clone(), content(&name))).collect()
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, content)| ((*name).into(), (*content).into())).collect()
    }

    #[test]
    fn as_many_copies_are_kept_as_configured() {
        let story = Story::begin();
        for content in ["first", "second", "third", "fourth"] {
            story.back_up_content(content, 3);
        }
        assert_eq!(story.copies(), pairs(&[("file", "fourth"), ("file.1", "third"), ("file.2", "second")]));
        story.back_up_content("fifth", 2);
        assert_eq!(story.copies(), pairs(&[("file", "fifth"), ("file.1", "fourth"), ("file.2", "second")]));
    }

    #[test]
    fn a_copy_keeps_mode_and_time_in_private_directories() {
        let story = Story::begin();
        fs::write(story.directory.path().join("data/file"), "content").unwrap();
        chmod(&story.directory.path().join("data/file"), 0o4751);
        let mtime = Timestamp { seconds: 981_173_106, nanoseconds: 123_456_789 };
        story.place().set_times(mtime).unwrap();
        story.backup("/srv/file", 2).unwrap();
        let backup = story.directory.path().join("backup");
        let copy = meta::metadata(&backup.join("srv/file")).unwrap();
        let original = story.place().metadata().unwrap().unwrap();
        assert_eq!((copy.mode, copy.uid, copy.gid, copy.mtime), (0o104_751, original.uid, original.gid, mtime));
        assert_eq!((mode_of(&backup), mode_of(&backup.join("srv"))), (0o700, 0o700));
    }

    #[test]
    fn only_regular_files_are_copied_and_only_with_generations() {
        let story = Story::begin();
        let backup = story.directory.path().join("backup");
        story.backup("/file", 3).unwrap();
        story.place().make_fifo().unwrap();
        story.backup("/file", 3).unwrap();
        story.place().remove().unwrap();
        symlink("/etc/passwd", story.directory.path().join("data/file")).unwrap();
        story.backup("/file", 3).unwrap();
        story.place().remove().unwrap();
        story.place().make_directory(0o700).unwrap();
        story.backup("/file", 3).unwrap();
        story.place().remove().unwrap();
        fs::write(story.directory.path().join("data/file"), "content").unwrap();
        story.backup("/file", 1).unwrap();
        assert!(!backup.exists());
    }

    #[test]
    fn an_unusable_backup_directory_is_an_error() {
        let story = Story::begin();
        fs::write(story.directory.path().join("data/file"), "content").unwrap();
        fs::write(story.directory.path().join("backup"), "a file").unwrap();
        assert!(story.backup("/file", 3).is_err());
        fs::remove_file(story.directory.path().join("backup")).unwrap();
        fs::create_dir(story.directory.path().join("backup")).unwrap();
        symlink("/tmp", story.directory.path().join("backup/srv")).unwrap();
        assert!(story.backup("/srv/file", 3).is_err(), "a link in it is not followed");
        assert_eq!(names_in(&story.directory.path().join("backup")), ["srv"]);
    }

    #[test]
    fn what_was_a_file_then_may_be_a_directory_now_and_the_other_way_round() {
        let story = Story::begin();
        fs::write(story.directory.path().join("data/file"), "content").unwrap();
        story.backup("/srv/name", 3).unwrap();
        story.backup("/srv/name/below", 3).unwrap();
        story.backup("/srv/name", 3).unwrap();
        let srv = story.directory.path().join("backup/srv");
        assert_eq!(names_in(&srv), ["name", "name.1", "name.2"]);
        assert_eq!(fs::read_to_string(srv.join("name.2/below")).unwrap(), "content");
        // And on and on: a directory takes no part in the row.
        for content in ["one", "another one"] {
            fs::write(story.directory.path().join("data/file"), content).unwrap();
            story.backup("/srv/name", 3).unwrap();
        }
        assert_eq!(names_in(&srv), ["name", "name.1", "name.2", "name.3"]);
        let content = |name: &str| fs::read_to_string(srv.join(name)).unwrap();
        assert_eq!(["name", "name.1", "name.3"].map(content), ["another one", "one", "content"]);
        fs::remove_dir_all(&srv).unwrap();
        let long = format!("/srv/{}", "n".repeat(255));
        for _ in 0..3 {
            story.backup(&long, 3).unwrap();
        }
        assert_eq!(names_in(&srv).len(), 3);
    }

    #[test]
    fn a_copy_that_is_not_kept_leaves_the_older_ones_alone() {
        let story = Story::begin();
        story.back_up_content("first", 2);
        let root = story.directory.path().join("backup");
        drop(Backup::of(&story.place(), &root, b"/srv/data/file", 2, true).unwrap().unwrap());
        assert_eq!(story.copies(), pairs(&[("file", "first")]));
    }

    #[test]
    fn the_backup_directory_may_be_missing_with_its_parents_or_be_reached_through_a_link() {
        let story = Story::begin();
        let base = story.directory.path();
        symlink("a/b", base.join("backup")).unwrap();
        fs::write(base.join("data/file"), "content").unwrap();
        assert!(story.backup("/f", 2).is_err(), "a link to nowhere");
        fs::create_dir_all(base.join("a/b")).unwrap();
        story.backup("/f", 2).unwrap();
        let backup = Backup::of(&story.place(), &base.join("c/d/e"), b"/f", 2, false).unwrap().unwrap();
        backup.keep().unwrap();
        for copy in ["a/b/f", "c/d/e/f"] {
            assert_eq!(fs::read_to_string(base.join(copy)).unwrap(), "content");
        }
        assert_eq!(mode_of(&base.join("c")), 0o700);
    }
}
