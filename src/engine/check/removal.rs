//! Which known files count as removed, and when that many removals are not believed.
//!
//! A removal here becomes a deletion on every peer, so it takes an ENOENT from the system. When the directory of a
//! prefix or of an include pattern is itself missing, or lies on another device than recorded, the likely cause is a
//! file system that is not mounted: then nothing below it is marked until the user confirms it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, MaxRemovals, RuleKind};
use crate::fs::{self, Presence, PresenceChecker};
use crate::model::errors::strerror;
use crate::model::{FileRecord, SyncPath};

/// What is to be done about known files that the walk did not meet.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) removed: Vec<SyncPath>,
    /// Ready to be logged; what they are about keeps its rows.
    pub(super) errors: Vec<String>,
}

/// Looks for each candidate (in name order) on disk. `known` is everything in the scope of the check.
pub(super) fn judge(
    config: &Config,
    known: &HashMap<SyncPath, FileRecord>,
    candidates: Vec<SyncPath>,
    allow_mass_removal: bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.removed = gone(config, candidates, &mut verdict.errors);
    if allow_mass_removal {
        return verdict;
    }
    refuse_missing_roots(config, known, &mut verdict);
    refuse_too_many(config, known.len(), &mut verdict);
    verdict
}

/// The candidates that do not exist any more. What cannot be found out is reported once a directory.
fn gone(config: &Config, candidates: Vec<SyncPath>, errors: &mut Vec<String>) -> Vec<SyncPath> {
    let mut checkers: HashMap<PathBuf, PresenceChecker> = HashMap::new();
    let mut unreadable = HashSet::new();
    let mut undefined = HashSet::new();
    candidates
        .into_iter()
        .filter(|path| {
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
            let checker = checkers.entry(local.root.clone()).or_insert_with(|| PresenceChecker::new(&local.root));
            match checker.check(&local.relative) {
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

fn unreadable_message(place: &Path, error: &io::Error) -> String {
    format!(
        "ERROR: cannot look at {}: {}. Known files there are not taken for removed; make the directory readable and \
         check again.",
        place.display(),
        strerror(error)
    )
}

/// A directory whose absence is suspicious, and what is known to be gone at and below it.
struct Guard {
    removed: Vec<SyncPath>,
    /// Something known below it is still there.
    alive: bool,
}

fn refuse_missing_roots(config: &Config, known: &HashMap<SyncPath, FileRecord>, verdict: &mut Verdict) {
    let removed: HashSet<&SyncPath> = verdict.removed.iter().collect();
    let mut guards: BTreeMap<PathBuf, Guard> = BTreeMap::new();
    for path in &verdict.removed {
        let Some(record) = known.get(path) else { continue };
        for directory in guard_directories(config, record) {
            guards
                .entry(directory)
                .or_insert_with(|| Guard { removed: Vec::new(), alive: false })
                .removed
                .push(path.clone());
        }
    }
    if guards.is_empty() {
        return;
    }
    for path in known.keys().filter(|path| !removed.contains(path)) {
        let Ok(local) = config.local(path) else { continue };
        let place = local.absolute();
        for directory in place.ancestors().skip(1) {
            if let Some(guard) = guards.get_mut(directory) {
                guard.alive = true;
            }
        }
    }
    let mut refused: HashSet<SyncPath> = HashSet::new();
    for (directory, guard) in guards {
        // A guard inside one that was refused already says nothing new.
        if guard.alive || guard.removed.iter().all(|path| refused.contains(path)) {
            continue;
        }
        let Some(reason) = suspicion(config, &directory, known, &guard.removed) else { continue };
        verdict.errors.push(format!(
            "ERROR: {} {reason}, and with it all {} known files there: not marked as removed. Is a file system not \
             mounted? If they were removed on purpose, confirm it: csync2 -cr --allow-mass-removal {}",
            directory.display(),
            guard.removed.len(),
            directory.display()
        ));
        refused.extend(guard.removed);
    }
    verdict.removed.retain(|path| !refused.contains(path));
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
fn suspicion(
    config: &Config,
    directory: &Path,
    known: &HashMap<SyncPath, FileRecord>,
    removed: &[SyncPath],
) -> Option<&'static str> {
    let is_directory_row = |path: &SyncPath| known.get(path).is_some_and(|record| record.checktxt.is_directory());
    let guards_a_tree = removed
        .iter()
        .any(|path| config.local(path).is_ok_and(|local| local.absolute() != directory) || is_directory_row(path));
    if !guards_a_tree {
        return None;
    }
    let devices = removed.iter().filter_map(|path| known.get(path)?.device);
    absence(directory, devices).or_else(|| {
        // The C program records no device: an empty directory is all that can be seen of a missing file system.
        let unrecorded = |path: &SyncPath| known.get(path).is_some_and(|record| record.device.is_none());
        let is_empty = || std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
        (removed.iter().all(unrecorded) && is_empty()).then_some("is empty")
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
        directories.push(local.root.clone());
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
pub(super) fn literal_directory(pattern: &[u8]) -> Option<SyncPath> {
    let is_wild = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
    let literal = match pattern.iter().position(is_wild) {
        None => pattern,
        Some(wild) => &pattern[..pattern[..wild].iter().rposition(|&byte| byte == b'/')?],
    };
    SyncPath::parse(literal).ok()
}

fn refuse_too_many(config: &Config, known: usize, verdict: &mut Verdict) {
    let limit = match config.max_removals {
        None => return,
        Some(MaxRemovals::Files(files)) => usize::try_from(files).unwrap_or(usize::MAX),
        Some(MaxRemovals::Percent(percent)) => known.saturating_mul(usize::from(percent)) / 100,
    };
    if verdict.removed.len() > limit {
        verdict.errors.push(format!(
            "ERROR: {} of {known} known files are gone, more than max-removals allows ({limit}): none is marked as \
             removed. If they were removed on purpose, check again with --allow-mass-removal.",
            verdict.removed.len()
        ));
        verdict.removed.clear();
    }
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
