//! Copies of what a peer is about to change or remove. Whether a group wants them is for others to know.
//!
//! The newest copy has the file's own name below the backup directory, older ones `.1`, `.2` and so on behind it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::renameat;
use rustix::io::Errno;

use super::temp::{copy_of, cut};
use super::{BeneathError, Place, Root, meta, open};

/// Mode of the directories made here: copies are no more public than their originals.
const PRIVATE: u32 = 0o700;

/// Copies the regular file at `place` to `backup_root` + `real_path` with its owner, mode and mtime, after older copies
/// moved on to `.1`, `.2`, …: `generations` copies in all, of which `generations` − 1 are old ones. With less than two
/// generations, and for anything but a regular file, nothing is done (nor opened).
///
/// `real_path` is absolute and canonical. `backup_root` and the directories in it are made where they are missing.
///
/// # Errors
/// Whatever keeps the copy from being complete: then older copies are as they were.
pub fn backup(place: &Place, backup_root: &Path, real_path: &[u8], generations: u32) -> io::Result<()> {
    if generations < 2 || !place.metadata()?.is_some_and(|found| found.is_regular()) {
        return Ok(());
    }
    let source = place.open_regular()?;
    let root = open_or_make(backup_root)?;
    let relative = real_path.strip_prefix(b"/").unwrap_or(real_path);
    let target = make_parents(&root, relative, generations)?;
    // What cannot be taken over (the owner, for an ordinary user) is no reason to refuse the copy.
    let (copy, _) = copy_of(&target, &source)?;
    rotate(&target, generations)?;
    copy.persist(&target, false)
}

fn open_or_make(backup_root: &Path) -> io::Result<Root> {
    match Root::open(backup_root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Root::place_of(backup_root)?.make_directory(PRIVATE)?;
            Root::open(backup_root)
        }
        other => other,
    }
}

/// Makes the directories in which the copy is to lie. What was a file when it was backed up and is a directory by now
/// moves on as an older copy.
fn make_parents(root: &Root, relative: &[u8], generations: u32) -> io::Result<Place> {
    let slashes = relative.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in slashes {
        let directory = locate(root, &relative[..end])?;
        if directory.metadata()?.is_some_and(|found| !found.is_directory()) {
            rotate(&directory, generations)?;
        }
        directory.make_directory(PRIVATE)?;
    }
    locate(root, relative)
}

fn locate(root: &Root, relative: &[u8]) -> io::Result<Place> {
    root.locate(relative).map_err(|error| match error {
        BeneathError::Io(error) => error,
        other => io::Error::other(other),
    })
}

/// Moves the newest copy to `.1`, that to `.2`, and so on; the last one is replaced.
fn rotate(newest: &Place, generations: u32) -> io::Result<()> {
    let name = |generation: u32| {
        let suffix = if generation == 0 { String::new() } else { format!(".{generation}") };
        open::c_string(&[cut(newest.name().to_bytes(), 255 - suffix.len()), suffix.as_bytes()].concat())
    };
    let is_there = |generation: u32| name(generation).map(|name| meta::metadata_at(newest.parent(), &name).is_ok());
    let mut free = 0;
    // Only what is in an unbroken row moves: a number that is free takes the one before it.
    while free + 1 < generations && is_there(free)? {
        free += 1;
    }
    for generation in (0..free).rev() {
        match renameat(newest.parent().as_fd(), &*name(generation)?, newest.parent(), &*name(generation + 1)?) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
