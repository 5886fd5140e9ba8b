//! Walks the disk for the files that groups cover, under every spelling of their names. What follows from a file is
//! the finder's business: a check compares it with its row, `-o` prints it.
//!
//! Each spelling of a path is a walk of its own: entering `/a` as a plain path does not mean that `%p%`, which is the
//! same directory, is entered too. One walk on disk serves them all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::coverage::Coverage;
use super::membership::{self, Purpose};
use super::selection::Target;
use crate::config::Config;
use crate::fs::{self, Entry, KindHint, Presence, Visitor, presence};
use crate::model::{Metadata, NameBuffer, SyncPath};

/// Takes what a walk finds.
pub trait Finder: Send {
    /// A covered file, under one of the names by which it is covered; the others follow.
    fn found(&mut self, name: &NameBuffer, metadata: &Metadata);
    /// A directory that is covered, or holds something that is, after everything in it. Only recursive walks with a single
    /// finder tell.
    fn left(&mut self, _directory: &SyncPath) {}
    /// Whether nothing more needs to be found.
    fn is_done(&self) -> bool {
        false
    }
}

/// A place where a walk could not look: nothing is known about what is at or below it.
#[derive(Debug)]
pub struct Failure {
    pub place: Vec<u8>,
    /// What was tried: of several files in the place, the first one by name.
    pub path: Vec<u8>,
    pub operation: &'static str,
    pub error: io::Error,
}

/// Tells the finders of the target and, if it is recursive, of everything below it. A single finder is told in the order
/// of the bytes; several share the work, each in a thread. Returns the places where it could not look, in order, each
/// once: what keeps us from one file of a directory keeps us from the others.
pub fn find<F: Finder>(config: &Config, target: &Target, purpose: Purpose, finders: &mut [F]) -> Vec<Failure> {
    let mut walk = Walk::new(config, target, purpose);
    if let Some(metadata) = walk.look_at_top() {
        if target.recursive {
            let top = Path::new(OsStr::from_bytes(walk.top));
            tracing::debug!("Running recursive check for {} ...", top.display());
            let mut visits: Vec<Visit<F>> = finders.iter_mut().map(|finder| Visit::new(&walk, finder)).collect();
            fs::walk(top, &mut visits);
        } else if let Some(finder) = finders.first_mut() {
            let mut visit = Visit::new(&walk, finder);
            visit.spell(&Entry { path: walk.top, name: b"", inside: None });
            visit.tell(None, &metadata);
        }
    }
    let failures = walk.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.into_values().collect()
}

/// What all finders of a walk have in common.
struct Walk<'c> {
    config: &'c Config,
    purpose: Purpose,
    top: &'c [u8],
    /// The names of `top` that lead to it: those behind a symlink do not.
    tops: Vec<SyncPath>,
    everything: Coverage<'c>,
    /// By their places.
    failures: Mutex<BTreeMap<Vec<u8>, Failure>>,
}

impl<'c> Walk<'c> {
    fn new(config: &'c Config, target: &'c Target, purpose: Purpose) -> Self {
        let everything = Coverage::of(config, purpose);
        Self { config, purpose, top: &target.real, tops: Vec::new(), everything, failures: Mutex::default() }
    }

    fn look_at_top(&mut self) -> Option<Metadata> {
        let mut found = None;
        for name in self.config.names_of(self.top) {
            let Ok(local) = self.config.local(&name) else { continue };
            match presence(local.root(), local.relative()) {
                Presence::Present(metadata) => {
                    found = Some(metadata);
                    self.tops.push(name);
                }
                Presence::Gone | Presence::BehindSymlink => {}
                Presence::Unknown(error) => self.failed(self.top, "look at", error),
            }
        }
        found
    }

    fn failed(&self, path: &[u8], operation: &'static str, error: io::Error) {
        let place = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) if slash > 0 && operation == "stat" => &path[..slash],
            _ => path,
        };
        let failure = Failure { place: place.to_vec(), path: path.to_vec(), operation, error };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get_mut(place) {
            Some(known) if known.path <= failure.path => {}
            Some(known) => *known = failure,
            None => drop(failures.insert(place.to_vec(), failure)),
        }
    }

    /// The names of the entries of a directory with which a prefix begins: these have a name that is no continuation of
    /// one that the directory has.
    fn prefixes_in(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let begins_here = |prefix: &'c [u8]| {
            let below = if directory == b"/" { prefix } else { prefix.strip_prefix(directory)? };
            let name = below.strip_prefix(b"/")?;
            (!name.is_empty() && !name.contains(&b'/')).then(|| name.to_vec())
        };
        let directories = self.config.prefixes.iter().filter_map(|prefix| prefix.directory.as_deref());
        directories.filter_map(|prefix| begins_here(prefix.as_os_str().as_bytes())).collect()
    }
}

/// A directory in which the walk is, under the names by which it was entered.
struct Level<'c> {
    spellings: Vec<Spelling<'c>>,
    /// See [`Walk::prefixes_in`].
    prefixes: Vec<Vec<u8>>,
}

struct Spelling<'c> {
    name: SyncPath,
    /// Of what is below it.
    coverage: Coverage<'c>,
    /// It is covered, or something in it is.
    is_relevant: AtomicBool,
}

/// One finder's part of a walk.
struct Visit<'w, 'c, F> {
    walk: &'w Walk<'c>,
    finder: &'w mut F,
    /// The names of the entry that is looked at; more of them than it has, to be used again.
    names: Vec<Name>,
    /// How many it has.
    count: usize,
}

#[derive(Default)]
struct Name {
    spelled: NameBuffer,
    /// Of what spelling of its directory it is a continuation; `None` for the names of the top and for a prefix itself.
    within: Option<usize>,
    is_covered: bool,
}

impl<'w, 'c, F: Finder> Visit<'w, 'c, F> {
    fn new(walk: &'w Walk<'c>, finder: &'w mut F) -> Self {
        Self { walk, finder, names: Vec::new(), count: 0 }
    }

    fn names(&self) -> &[Name] {
        &self.names[..self.count]
    }

    /// Finds out the names of an entry that the walk has come to, in the order of the configuration.
    fn spell(&mut self, entry: &Entry<'_, Arc<Level<'c>>>) {
        self.count = 0;
        let walk = self.walk;
        let Some(level) = entry.inside else {
            return walk.tops.iter().for_each(|top| self.add(None, &walk.everything, |name| name.copy(top)));
        };
        if !level.prefixes.iter().any(|name| name == entry.name) {
            for (number, spelling) in level.spellings.iter().enumerate() {
                self.add(Some(number), &spelling.coverage, |name| name.join(&spelling.name, entry.name));
            }
            return;
        }
        for spelled in walk.config.names_of(entry.path) {
            let Some(directory) = spelled.parent() else {
                self.add(None, &walk.everything, |name| name.copy(&spelled));
                continue;
            };
            if let Some(number) = level.spellings.iter().position(|spelling| spelling.name == directory) {
                self.add(Some(number), &level.spellings[number].coverage, |name| name.copy(&spelled));
            }
        }
    }

    /// Adds a name that `fill` puts into its place.
    fn add(&mut self, within: Option<usize>, coverage: &Coverage, fill: impl FnOnce(&mut NameBuffer)) {
        if self.count == self.names.len() {
            self.names.push(Name::default());
        }
        let place = &mut self.names[self.count];
        fill(&mut place.spelled);
        place.within = within;
        place.is_covered = coverage.covers(&place.spelled);
        self.count += 1;
    }

    /// Whether the entry is entered under this name.
    fn descends(&self, name: &Name, leads_to_prefix: bool) -> bool {
        let is_plain = name.spelled.as_bytes().first() == Some(&b'/');
        (leads_to_prefix && is_plain)
            || name.is_covered
            || membership::below_covered(self.walk.config, &name.spelled.to_path(), self.walk.purpose)
    }

    fn tell(&mut self, inside: Option<&Arc<Level<'c>>>, metadata: &Metadata) {
        for name in self.names[..self.count].iter().filter(|name| name.is_covered) {
            if let (Some(level), Some(within)) = (inside, name.within) {
                level.spellings[within].is_relevant.store(true, Ordering::Relaxed);
            }
            self.finder.found(&name.spelled, metadata);
        }
    }
}

impl<'c, F: Finder> Visitor for Visit<'_, 'c, F> {
    type Directory = Arc<Level<'c>>;

    fn wants(&mut self, entry: &Entry<'_, Self::Directory>, hint: KindHint) -> bool {
        if self.finder.is_done() {
            return false;
        }
        self.spell(entry);
        self.names().iter().any(|name| name.is_covered)
            || (hint != KindHint::Other && {
                let leads_to_prefix = membership::above_prefix(self.walk.config, entry.path);
                self.names().iter().any(|name| self.descends(name, leads_to_prefix))
            })
    }

    fn entry(&mut self, entry: &Entry<'_, Self::Directory>, metadata: Metadata) -> Option<Self::Directory> {
        self.tell(entry.inside, &metadata);
        if !metadata.is_directory() {
            return None;
        }
        let leads_to_prefix = membership::above_prefix(self.walk.config, entry.path);
        let entered = self.names().iter().filter(|name| self.descends(name, leads_to_prefix));
        let spelling = |name: &Name| {
            let above = match (entry.inside, name.within) {
                (Some(level), Some(within)) => &level.spellings[within].coverage,
                _ => &self.walk.everything,
            };
            let path = name.spelled.to_path();
            Spelling { coverage: above.below(&path), is_relevant: AtomicBool::new(name.is_covered), name: path }
        };
        let spellings: Vec<Spelling> = entered.map(spelling).collect();
        if spellings.is_empty() {
            return None;
        }
        Some(Arc::new(Level { spellings, prefixes: self.walk.prefixes_in(entry.path) }))
    }

    fn left(&mut self, level: Self::Directory) {
        for spelling in level.spellings.iter().filter(|spelling| spelling.is_relevant.load(Ordering::Relaxed)) {
            self.finder.left(&spelling.name);
        }
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        self.walk.failed(path, operation, error);
    }
}
