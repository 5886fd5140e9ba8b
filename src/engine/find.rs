//! Walks the disk for the files that groups cover, under every spelling of their names. What follows from a file is
//! the finder's business: a check compares it with its row, `-o` prints it.
//!
//! Each spelling of a path is a walk of its own: entering `/a` as a plain path does not mean that `%p%`, which is the
//! same directory, is entered too. One walk on disk serves them all.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::membership::{self, Purpose};
use super::selection::Target;
use crate::config::Config;
use crate::fs::{self, KindHint, Presence, Visitor, presence};
use crate::model::{Metadata, SyncPath};

/// Takes what a walk finds.
pub trait Finder {
    /// A covered file, under all names by which it is covered. A directory comes before what it holds.
    fn found(&mut self, names: &[SyncPath], metadata: &Metadata);
    /// A directory that is covered, or holds something that is, after everything in it. Only recursive walks tell.
    fn left(&mut self, directory: &SyncPath);
    /// As [`Visitor::failed`], but once a directory: what keeps us from one of its files keeps us from the others.
    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error);
    /// Whether nothing more needs to be found.
    fn is_done(&self) -> bool {
        false
    }
}

/// Tells `finder` of the target and, if it is recursive, of everything below it. Returns the places where it could not
/// look: nothing is known about what is at or below them.
pub fn find(config: &Config, target: &Target, purpose: Purpose, finder: &mut dyn Finder) -> Vec<Vec<u8>> {
    let top = &target.real;
    let (tops, covered, levels, unreadable) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut walk = Walk { config, purpose, top, tops, covered, levels, unreadable, finder };
    let Some(metadata) = walk.look_at_top() else { return walk.unreadable };
    if target.recursive {
        let top = Path::new(OsStr::from_bytes(top));
        tracing::debug!("Running recursive check for {} ...", top.display());
        fs::walk(top, &mut walk);
    } else {
        walk.covered = walk.covered_names(top);
        walk.tell(&metadata);
    }
    walk.unreadable
}

struct Walk<'a> {
    config: &'a Config,
    purpose: Purpose,
    top: &'a [u8],
    /// The names of `top` that lead to it: those behind a symlink do not.
    tops: Vec<SyncPath>,
    /// The names by which the entry that is looked at is covered.
    covered: Vec<SyncPath>,
    /// The directories in which the walk is, the innermost last: each under the names by which it was entered.
    levels: Vec<Vec<Entered>>,
    unreadable: Vec<Vec<u8>>,
    finder: &'a mut dyn Finder,
}

/// A directory under one of its names.
struct Entered {
    name: SyncPath,
    /// It is covered, or something in it is.
    is_relevant: bool,
}

impl Walk<'_> {
    fn look_at_top(&mut self) -> Option<Metadata> {
        let mut found = None;
        for name in self.config.names_of(self.top) {
            let Ok(local) = self.config.local(&name) else { continue };
            match presence(&local.root, &local.relative) {
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

    /// The spellings of a real path that the walk has come to.
    fn names(&self, path: &[u8]) -> Vec<SyncPath> {
        if path == self.top {
            return self.tops.clone();
        }
        let mut names = self.config.names_of(path);
        names.retain(|name| name.parent().is_none_or(|directory| self.entered().any(|level| level.name == directory)));
        names
    }

    fn entered(&self) -> impl Iterator<Item = &Entered> {
        self.levels.last().into_iter().flatten()
    }

    fn covered_names(&self, path: &[u8]) -> Vec<SyncPath> {
        let mut names = self.names(path);
        names.retain(|name| membership::is_covered(self.config, name, self.purpose));
        names
    }

    /// The spellings under which a directory is entered.
    fn descends(&self, path: &[u8]) -> Vec<SyncPath> {
        let leads_to_prefix = membership::above_prefix(self.config, path);
        let mut names = self.names(path);
        names.retain(|name| {
            (leads_to_prefix && name.split_prefix().is_none()) || membership::descend(self.config, name, self.purpose)
        });
        names
    }

    fn tell(&mut self, metadata: &Metadata) {
        if self.covered.is_empty() {
            return;
        }
        for level in self.levels.last_mut().into_iter().flatten().filter(|level| !level.is_relevant) {
            level.is_relevant = self.covered.iter().any(|name| name.parent().as_ref() == Some(&level.name));
        }
        self.finder.found(&self.covered, metadata);
    }
}

impl Visitor for Walk<'_> {
    fn wants(&mut self, path: &[u8], hint: KindHint) -> bool {
        if self.finder.is_done() {
            return false;
        }
        self.covered = self.covered_names(path);
        !self.covered.is_empty() || (hint != KindHint::Other && !self.descends(path).is_empty())
    }

    fn entry(&mut self, path: &[u8], metadata: Metadata) -> bool {
        self.tell(&metadata);
        if !metadata.is_directory() {
            return false;
        }
        let entered = self.descends(path).into_iter();
        let level: Vec<Entered> =
            entered.map(|name| Entered { is_relevant: self.covered.contains(&name), name }).collect();
        let descend = !level.is_empty();
        if descend {
            self.levels.push(level);
        }
        descend
    }

    fn left(&mut self, _: &[u8]) {
        for level in self.levels.pop().into_iter().flatten().filter(|level| level.is_relevant) {
            self.finder.left(&level.name);
        }
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        let directory = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) if slash > 0 && operation == "stat" => &path[..slash],
            _ => path,
        };
        if !self.unreadable.iter().any(|known| known == directory) {
            self.unreadable.push(directory.to_vec());
            self.finder.failed(path, operation, error);
        }
    }
}
