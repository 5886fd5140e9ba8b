//! Which known files count as removed, and when that many removals are not believed.
//!
//! A removal here becomes a deletion on every peer, so it takes an ENOENT from the system. When the directory of a
//! prefix or of an include pattern is itself missing, or lies on another device than recorded, the likely cause is a
//! file system that is not mounted: then nothing below it is marked until the user confirms it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::Marks;
use crate::config::{Config, MaxRemovals, RuleKind};
use crate::fs::{self, Presence, PresenceChecker};
use crate::model::errors::strerror;
use crate::model::{FileRecord, SyncPath};

/// Known files that do not exist any more.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// In name order.
    pub(super) removed: Vec<FileRecord>,
    /// Ready to be logged; what they are about keeps its rows.
    pub(super) errors: Vec<String>,
    names: HashSet<SyncPath>,
    guards: BTreeMap<PathBuf, Guard>,
}

/// A directory whose absence is suspicious.
#[derive(Debug, Default)]
struct Guard {
    /// What is known to be gone at and below it: places in [`Removals::removed`].
    removed: Vec<usize>,
    /// Something known below it is still there.
    alive: bool,
}

impl Removals {
    /// Looks for each candidate (in name order) on disk.
    pub(super) fn among(config: &Config, candidates: Vec<FileRecord>) -> Self {
        let mut errors = Vec::new();
        let removed = gone(config, candidates, &mut errors);
        let mut guards: BTreeMap<PathBuf, Guard> = BTreeMap::new();
        for (number, record) in removed.iter().enumerate() {
            for directory in guard_directories(config, record) {
                guards.entry(directory).or_default().removed.push(number);
            }
        }
        let names = removed.iter().map(|record| record.path.clone()).collect();
        Self { removed, errors, names, guards }
    }

    /// Whether something known that is still there may make a removal believable.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.guards.values().any(|guard| !guard.alive)
    }

    /// Takes note of a file in the scope of the check, removed or not.
    pub(super) fn note_known(&mut self, config: &Config, path: &SyncPath) {
        let Ok(local) = config.local(path) else { return };
        if self.names.contains(path) {
            return;
        }
        let place = local.absolute();
        for directory in place.ancestors().skip(1) {
            if let Some(guard) = self.guards.get_mut(directory) {
                guard.alive = true;
            }
        }
    }

    /// Leaves out what is not believed. `known` is the number of files in the scope of the check; those that are still
    /// there were noted.
    pub(super) fn judged(mut self, config: &Config, known: usize, marks: Marks) -> Self {
        self.refuse_missing_roots(config, marks);
        // A join that forgets them has them come anew.
        if marks != Marks::Changes {
            self.refuse_too_many(config, known);
        }
        self
    }

    fn refuse_missing_roots(&mut self, config: &Config, marks: Marks) {
        let mut refused: HashSet<usize> = HashSet::new();
        for (directory, guard) in &self.guards {
            // A guard inside one that was refused already says nothing new.
            if guard.alive || guard.removed.iter().all(|number| refused.contains(number)) {
                continue;
            }
            let removed: Vec<&FileRecord> = guard.removed.iter().map(|&number| &self.removed[number]).collect();
            let Some(reason) = suspicion(config, directory, &removed) else { continue };
            self.errors.push(format!(
                "ERROR: {} {reason}, and with it all {} known files there: not marked as removed. Is a file system not \
                 mounted? {}",
                directory.display(),
                removed.len(),
                way_out(directory, marks)
            ));
            refused.extend(&guard.removed);
        }
        let mut number = 0..;
        self.removed.retain(|_| number.next().is_some_and(|number| !refused.contains(&number)));
    }

    fn refuse_too_many(&mut self, config: &Config, known: usize) {
        let limit = match config.max_removals {
            None => return,
            Some(MaxRemovals::Files(files)) => usize::try_from(files).unwrap_or(usize::MAX),
            Some(MaxRemovals::Percent(percent)) => known.saturating_mul(usize::from(percent)) / 100,
        };
        if self.removed.len() > limit {
            self.errors.push(format!(
                "ERROR: {} of {known} known files are gone, more than max-removals allows ({limit}): none is marked as \
                 removed. If they were removed on purpose, check again with --allow-mass-removal.",
                self.removed.len()
            ));
            self.removed.clear();
        }
    }
}

/// The candidates that do not exist any more. What cannot be found out is reported once a directory.
fn gone(config: &Config, candidates: Vec<FileRecord>, errors: &mut Vec<String>) -> Vec<FileRecord> {
    let mut checkers: HashMap<PathBuf, PresenceChecker> = HashMap::new();
    let mut unreadable = HashSet::new();
    let mut undefined = HashSet::new();
    candidates
        .into_iter()
        .filter(|FileRecord { path, .. }| {
            let local = match config.local(path) {
                Ok(local) => local,
                Err(error) => {
                    if undefined.insert(error.prefix.clone()) {
                        errors
                            .push(format!("{error} Known files below it are not checked and do not count as removed."));
                    }
                    return false;
                }
            };
            let checker = checkers.entry(local.root().to_owned()).or_insert_with(|| PresenceChecker::new(local.root()));
            match checker.check(local.relative()) {
                Presence::Gone | Presence::BehindSymlink => true,
                Presence::Present(_) => false,
                Presence::Unknown(error) => {
                    if unreadable.insert((path.parent(), error.raw_os_error())) {
                        errors.push(unreadable_message(&local.absolute(), &error));
                    }
                    false
                }
            }
        })
        .collect()
}

/// What is to be done where nothing is to be mounted. A join asks for no removal, and does not lead to one.
fn way_out(directory: &Path, marks: Marks) -> String {
    let directory = directory.display();
    match marks {
        Marks::Everything => {
            format!("If they were removed on purpose, confirm it: csync2 -cr --allow-mass-removal {directory}")
        }
        Marks::Nothing => format!("If they are to be forgotten: csync2 -cIr --allow-mass-removal {directory}"),
        Marks::Changes => "If they are lost here, make the directory, and join with --allow-mass-removal: they are \
                           forgotten then, come anew, and are removed nowhere."
            .to_owned(),
    }
}

fn unreadable_message(place: &Path, error: &io::Error) -> String {
    format!(
        "ERROR: cannot look at {}: {}. Known files there are not taken for removed; make the directory readable and \
         check again.",
        place.display(),
        strerror(error)
    )
}

/// Why the absence of one file is not believed: the directory that stands for its file system is missing, or lies on
/// another device than the file did. Its row is what is known of it; a removal that a check has found has none any more.
#[must_use]
pub fn disbelief(config: &Config, record: &FileRecord) -> Option<String> {
    let place = config.local(&record.path).ok()?.absolute();
    guard_directories(config, record).into_iter().find_map(|directory| {
        if directory == place && !record.checktxt.is_directory() {
            return None;
        }
        let reason = absence(&directory, record.device)?;
        Some(format!(
            "ERROR: {} {reason}: what was known there does not count as removed. Is a file system not mounted? If it \
             was removed on purpose, confirm it: csync2 -cr --allow-mass-removal {}",
            directory.display(),
            directory.display()
        ))
    })
}

/// Why a directory below which everything known is gone is not trusted; `None`: it is an ordinary removal.
fn suspicion(config: &Config, directory: &Path, removed: &[&FileRecord]) -> Option<&'static str> {
    let is_tree = |record: &&FileRecord| {
        let place = config.local(&record.path).map(|local| local.absolute());
        place.is_ok_and(|place| place != directory) || record.checktxt.is_directory()
    };
    if !removed.iter().any(is_tree) {
        return None;
    }
    let devices = removed.iter().filter_map(|record| record.device);
    absence(directory, devices).or_else(|| {
        // The C program records no device: an empty directory is all that can be seen of a missing file system.
        let is_empty = || std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
        (removed.iter().all(|record| record.device.is_none()) && is_empty()).then_some("is empty")
    })
}

/// What is wrong with a directory that holds files of these devices, as far as it can be seen from outside.
fn absence(directory: &Path, devices: impl IntoIterator<Item = i64>) -> Option<&'static str> {
    match fs::metadata(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Some("is missing")
        }
        Err(_) => Some("cannot be looked at"),
        Ok(now) => {
            let mut devices = devices.into_iter();
            devices.any(|device| device != now.device.cast_signed()).then_some("lies on another device than before")
        }
    }
}

/// The directories that stand for the file's prefix, for the include patterns that cover it, and for a file system that
/// was mounted below them.
fn guard_directories(config: &Config, record: &FileRecord) -> Vec<PathBuf> {
    let path = &record.path;
    let mut directories = Vec::new();
    let Ok(local) = config.local(path) else { return directories };
    if path.split_prefix().is_some() {
        directories.push(local.root().to_owned());
    }
    let place = local.absolute();
    let rules = config.groups.iter().flat_map(|group| &group.rules);
    for rule in rules.filter(|rule| rule.kind == RuleKind::Include) {
        let Some(literal) = literal_directory(rule.pattern.as_bytes()) else { continue };
        let Ok(directory) = config.local(&literal) else { continue };
        let directory = directory.absolute();
        // `/` is always there, and it stands for no file system that might be missing.
        if directory != Path::new("/") && place.starts_with(&directory) {
            directories.push(directory);
        }
    }
    if let Some((directory, device)) = existing_ancestor(&place)
        && record.device.is_some_and(|before| before != device)
    {
        directories.push(directory);
    }
    directories.sort();
    directories.dedup();
    directories
}

/// The deepest directory above a path that is there, and its device.
fn existing_ancestor(place: &Path) -> Option<(PathBuf, i64)> {
    place.ancestors().skip(1).find_map(|directory| {
        let metadata = fs::metadata(directory).ok()?;
        Some((directory.to_owned(), metadata.device.cast_signed()))
    })
}

/// The leading components of a path pattern that hold no wildcard.
pub(in crate::engine) fn literal_directory(pattern: &[u8]) -> Option<SyncPath> {
    let is_wild = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
    let literal = match pattern.iter().position(is_wild) {
        None => pattern,
        Some(wild) => &pattern[..pattern[..wild].iter().rposition(|&byte| byte == b'/')?],
    };
    SyncPath::parse(literal).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_part_of_a_pattern_ends_before_the_first_wildcard() {
        let literal = |pattern: &str| literal_directory(pattern.as_bytes()).map(|path| path.to_string());
        assert_eq!(literal("/etc/booth").as_deref(), Some("/etc/booth"));
        assert_eq!(literal("/var/csync2/*").as_deref(), Some("/var/csync2"));
        assert_eq!(literal("%p%/a*/b").as_deref(), Some("%p%"));
        assert_eq!(literal("*.conf"), None);
    }
}
