//! Which known files count as removed, and when that many removals are not believed.
//!
//! A removal here becomes a deletion on every peer, so it takes an ENOENT from the system. When the directory of a
//! prefix or of an include pattern is itself missing, or lies on another device than recorded, the likely cause is a
//! file system that is not mounted: then nothing below it is marked until the user confirms it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::Marks;
use super::known::Known;
use crate::config::{Config, MaxRemovals, RuleKind};
use crate::fs::{self, Presence, PresenceCheckers};
use crate::model::errors::strerror;
use crate::model::{FileRecord, SyncPath};

/// Known files that do not exist any more. Of each the name is kept, and what is to be known of all of them together.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// In name order.
    pub(super) removed: Vec<SyncPath>,
    /// Ready to be logged; what they are about keeps its rows.
    pub(super) errors: Vec<String>,
    guards: BTreeMap<PathBuf, Guard>,
    looker: Looker,
}

/// A directory whose absence is suspicious.
#[derive(Debug, Default)]
struct Guard {
    /// What is known to be gone at and below it: places in [`Removals::removed`].
    removed: Vec<usize>,
    /// The devices that it was on, as far as that is known.
    devices: BTreeSet<i64>,
    /// Some of it was below the directory, or was the directory.
    is_tree: bool,
    /// Something known below it is still there.
    alive: bool,
}

impl Removals {
    /// Looks for known files (in name order) on disk, and takes those in that are gone. Those that are there count as seen.
    pub(super) fn consider(&mut self, config: &Config, records: Vec<FileRecord>, known: &Known) {
        let mut gone = records;
        gone.retain(|record| self.looker.is_gone(config, &record.path, known, &mut self.errors));
        // What is above them is looked at after them: a file system that has gone is missing by now.
        let mut places = GuardPlaces::of(config);
        for record in gone {
            let place = config.local(&record.path).map(|local| local.absolute()).ok();
            for directory in places.of_file(&record) {
                let is_tree = place.as_ref() != Some(&directory) || record.checktxt.is_directory();
                let guard = self.guards.entry(directory).or_default();
                guard.removed.push(self.removed.len());
                guard.devices.extend(record.device);
                guard.is_tree |= is_tree;
            }
            self.removed.push(record.path);
        }
    }

    /// Whether something known that is still there may make a removal believable.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.guards.values().any(|guard| !guard.alive)
    }

    /// Takes note of a known file that is there. One that was not looked at says nothing: it may be behind the same missing file
    /// system.
    pub(super) fn note_known(&mut self, config: &Config, path: &SyncPath) {
        let Ok(local) = config.local(path) else { return };
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
        self.refuse_missing_roots(marks);
        // A join that forgets them has them come anew.
        if marks != Marks::Changes {
            self.refuse_too_many(config, known);
        }
        self
    }

    fn refuse_missing_roots(&mut self, marks: Marks) {
        let mut refused: HashSet<usize> = HashSet::new();
        for (directory, guard) in &self.guards {
            // A guard inside one that was refused already says nothing new.
            if guard.alive || guard.removed.iter().all(|number| refused.contains(number)) {
                continue;
            }
            let Some(reason) = guard.suspicion(directory) else { continue };
            self.errors.push(format!(
                "ERROR: {} {reason}, and with it all {} known files there: not marked as removed. Is a file system not \
                 mounted? {}",
                directory.display(),
                guard.removed.len(),
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

impl Guard {
    /// Why a directory below which everything known is gone is not trusted; `None`: it is an ordinary removal.
    fn suspicion(&self, directory: &Path) -> Option<&'static str> {
        if !self.is_tree {
            return None;
        }
        absence(directory, self.devices.iter().copied()).or_else(|| {
            // The C program records no device: an empty directory is all that can be seen of a missing file system.
            let is_empty = || std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
            (self.devices.is_empty() && is_empty()).then_some("is empty")
        })
    }
}

/// Finds out of known files whether they are gone. What cannot be found out is reported once a directory.
#[derive(Debug, Default)]
struct Looker {
    checkers: PresenceCheckers,
    unreadable: HashSet<(Option<SyncPath>, Option<i32>)>,
    undefined: HashSet<String>,
}

impl Looker {
    fn is_gone(&mut self, config: &Config, path: &SyncPath, known: &Known, errors: &mut Vec<String>) -> bool {
        let local = match config.local(path) {
            Ok(local) => local,
            Err(error) => {
                if self.undefined.insert(error.prefix.clone()) {
                    errors.push(format!("{error} Known files below it are not checked and do not count as removed."));
                }
                return false;
            }
        };
        match self.checkers.check(local.root(), local.relative()) {
            Presence::Gone | Presence::BehindSymlink => true,
            Presence::Present(_) => {
                known.see(path);
                false
            }
            Presence::Unknown(error) => {
                if self.unreadable.insert((path.parent(), error.raw_os_error())) {
                    errors.push(unreadable_message(&local.absolute(), &error));
                }
                false
            }
        }
    }
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
/// `marks`: what the check would mark that does not believe it.
#[must_use]
pub fn disbelief(config: &Config, record: &FileRecord, marks: Marks) -> Option<String> {
    let place = config.local(&record.path).ok()?.absolute();
    GuardPlaces::of(config).of_file(record).into_iter().find_map(|directory| {
        if directory == place && !record.checktxt.is_directory() {
            return None;
        }
        let reason = absence(&directory, record.device)?;
        Some(format!(
            "ERROR: {} {reason}: what was known there does not count as removed. Is a file system not mounted? {}",
            directory.display(),
            way_out(&directory, marks)
        ))
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

/// Finds the directories that stand for files' prefixes, for the include patterns that cover them, and for file systems that
/// were mounted below them.
struct GuardPlaces<'c> {
    config: &'c Config,
    /// What the include patterns say before their first wildcard.
    includes: Vec<PathBuf>,
    /// The parent directory of the last file, and the deepest directory at or above it that is there, with its device.
    last: Option<(PathBuf, Option<(PathBuf, i64)>)>,
}

impl<'c> GuardPlaces<'c> {
    fn of(config: &'c Config) -> Self {
        let rules = config.groups.iter().flat_map(|group| &group.rules).filter(|rule| rule.kind == RuleKind::Include);
        let literals = rules.filter_map(|rule| literal_directory(rule.pattern.as_bytes()));
        let places = literals.filter_map(|literal| config.local(&literal).ok().map(|local| local.absolute()));
        // `/` is always there, and it stands for no file system that might be missing.
        Self { config, includes: places.filter(|place| place != Path::new("/")).collect(), last: None }
    }

    /// In order, each once.
    fn of_file(&mut self, record: &FileRecord) -> Vec<PathBuf> {
        let Ok(local) = self.config.local(&record.path) else { return Vec::new() };
        let place = local.absolute();
        let mut directories: Vec<_> =
            self.includes.iter().filter(|include| place.starts_with(include)).cloned().collect();
        if record.path.split_prefix().is_some() {
            directories.push(local.root().to_owned());
        }
        if let Some((directory, device)) = self.existing_ancestor(&place)
            && record.device.is_some_and(|before| before != *device)
        {
            directories.push(directory.clone());
        }
        directories.sort();
        directories.dedup();
        directories
    }

    fn existing_ancestor(&mut self, place: &Path) -> Option<&(PathBuf, i64)> {
        let parent = place.parent()?;
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            self.last = Some((parent.to_owned(), existing(parent)));
        }
        self.last.as_ref()?.1.as_ref()
    }
}

/// The deepest directory at or above a place that is there, and its device.
fn existing(place: &Path) -> Option<(PathBuf, i64)> {
    place.ancestors().find_map(|directory| {
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
