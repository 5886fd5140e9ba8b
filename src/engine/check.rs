//! Update detection: what changed on this disk since the file table was written, and whom that concerns.
//!
//! A check reads the rows of its scope once, walks the disk once, and compares. Changes are written in chunks, each
//! file's row together with its dirty rows. A row that somebody else replaced meanwhile (a session that received the
//! file) is not overwritten: that file is looked at again.
//!
//! A file counts as removed only when the system says that it does not exist. Whatever cannot be looked at keeps its
//! row, and [`removal`] refuses to take a missing file system for a mass removal.

mod compare;
mod includes;
pub mod removal;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use self::compare::{Comparison, compare};
use super::directories::Directories;
use super::find::{self, Finder};
use super::membership::{self, Purpose};
use super::selection::{self, Target};
use super::{EngineError, Node, Report, blocking, content, mark, notice};
use crate::fs::{Presence, presence};
use crate::model::errors::strerror;
use crate::model::{Checktxt, FileRecord, Metadata, Scope, SyncPath};
use crate::store::Change;

/// How a check behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// `-I`: fill the file table, mark nothing.
    pub init: bool,
    /// `-F`: new dirty rows are forced.
    pub forced: bool,
    /// `--allow-mass-removal`: a missing root means that everything below it was removed on purpose.
    pub allow_mass_removal: bool,
}

/// Files a transaction: each file's row with its dirty rows.
const CHUNK: usize = 2_000;

/// How often a file is looked at again that changes while we look.
const ATTEMPTS: u32 = 5;

/// What is waited before the second attempt; each further one waits longer.
const PAUSE: Duration = Duration::from_millis(10);

/// Checks what the targets name and writes what changed; `directories` gets what `-W` asks for.
///
/// # Errors
/// Those of the store. What cannot be read on disk is counted in the report.
pub async fn check(
    node: &Arc<Node>,
    targets: &[Target],
    options: CheckOptions,
    directories: Option<&Directories>,
) -> Result<Report, EngineError> {
    let mut report = Report::default();
    for target in targets {
        report.merge(check_target(node, target, options, directories).await?);
    }
    // With `-G` the other groups' are not known, and would be news the next time.
    if targets.contains(&Target::everything()) && node.groups.is_none() {
        let config = Arc::clone(&node.config);
        let facts = blocking("check", move || includes::without_directory(&config)).await?;
        notice::warn(&node.store, &format!("includes {}", node.config_name), &facts).await?;
    }
    Ok(report)
}

async fn check_target(
    node: &Arc<Node>,
    target: &Target,
    options: CheckOptions,
    directories: Option<&Directories>,
) -> Result<Report, EngineError> {
    let known = read_known(node, selection::scopes(&node.config, target)).await?;
    let receiving = node.store.intents().await?.into_iter().filter_map(|(_, intent)| {
        let directory = intent.path.parent()?;
        (!intent.temp_name.is_empty()).then(|| directory.join(&intent.temp_name).ok()).flatten()
    });
    let (sender, mut receiver) = mpsc::channel(4);
    let detector = Detector {
        node: Arc::clone(node),
        options,
        directories: directories.cloned(),
        known,
        seen: HashSet::new(),
        skip: receiving.collect(),
        unreadable: Vec::new(),
        outbox: Outbox { sender, chunk: Vec::with_capacity(CHUNK) },
        report: Report::default(),
    };
    let target = target.clone();
    let work = tokio::spawn(blocking("check", move || detector.run(&target)));
    let mut stale = Vec::new();
    let mut failed = None;
    while let Some(changes) = receiver.recv().await {
        match write(node, changes, &mut stale).await {
            Ok(()) => {}
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(receiver);
    let mut report = work.await.map_err(|source| EngineError::Worker { operation: "check", source })??;
    if let Some(error) = failed {
        return Err(error);
    }
    report.merge(examine(node, stale, options).await?);
    Ok(report)
}

/// Looks at single names: as `-c FILE` does, and as a session does before it changes a file. What could not be decided is
/// counted in the report: nothing may be concluded about it then.
///
/// # Errors
/// Those of the store.
pub async fn examine(node: &Arc<Node>, paths: Vec<SyncPath>, options: CheckOptions) -> Result<Report, EngineError> {
    let mut report = Report::default();
    let mut paths = paths;
    for attempt in 0..ATTEMPTS {
        if paths.is_empty() {
            return Ok(report);
        }
        if attempt > 0 {
            // A session is receiving the file, or another check has just written its row.
            tokio::time::sleep(PAUSE * attempt).await;
        }
        let mut changes = Vec::new();
        for path in paths {
            let known = node.store.file(&path).await?;
            let worker = Arc::clone(node);
            match blocking("check", move || examine_one(&worker, path, known, options)).await? {
                Ok(change) => changes.extend(change),
                Err(disbelief) => report.error(disbelief),
            }
        }
        paths = Vec::new();
        write(node, changes, &mut paths).await?;
    }
    for path in paths {
        report.error(format_args!("ERROR: {path} is being received or checked all the time: it was not checked."));
    }
    Ok(report)
}

/// Whether a row says of a file exactly what is there now (`None`: nothing): then there is nothing to check.
pub(super) fn is_recorded(node: &Node, known: Option<&FileRecord>, now: Option<&Metadata>) -> bool {
    let Some(now) = now else { return known.is_none() };
    let mut is_suspect = false;
    let content = || {
        is_suspect = true;
        Err(io::ErrorKind::Unsupported.into())
    };
    compare(known, now, node.config.ignore, content) == Comparison::Same && !is_suspect
}

fn examine_one(
    node: &Node,
    path: SyncPath,
    known: Option<FileRecord>,
    options: CheckOptions,
) -> Result<Option<Change>, String> {
    let Ok(local) = node.config.local(&path) else { return Ok(None) };
    match presence(&local.root, &local.relative) {
        Presence::Present(metadata) => Ok(change_of(node, path, &metadata, known.as_ref(), options)),
        Presence::Gone | Presence::BehindSymlink => {
            let Some(record) = known else { return Ok(None) };
            match removal::disbelief(&node.config, &record) {
                Some(disbelief) if !options.allow_mass_removal => Err(disbelief),
                _ => Ok(Some(removal_of(node, record, options))),
            }
        }
        Presence::Unknown(_) => Ok(None),
    }
}

/// Writes a chunk and says what it marked; names whose rows changed meanwhile are added to `stale`.
async fn write(node: &Node, changes: Vec<Change>, stale: &mut Vec<SyncPath>) -> Result<(), EngineError> {
    if changes.is_empty() {
        return Ok(());
    }
    let marked: Vec<SyncPath> =
        changes.iter().filter(|change| !change.marks.is_empty()).map(|change| change.path.clone()).collect();
    let skipped = node.store.apply(changes).await?;
    marked.iter().filter(|path| !skipped.contains(path)).for_each(mark::announce);
    stale.extend(skipped);
    Ok(())
}

async fn read_known(node: &Node, scopes: Vec<Scope>) -> Result<HashMap<SyncPath, FileRecord>, EngineError> {
    let mut known = HashMap::new();
    let mut rows = node.store.files(scopes);
    while let Some(chunk) = rows.recv().await {
        known.extend(chunk?.into_iter().map(|record| (record.path.clone(), record)));
    }
    Ok(known)
}

/// The change that a file on disk calls for, `None` when its row says all there is to say.
fn change_of(
    node: &Node,
    path: SyncPath,
    metadata: &Metadata,
    known: Option<&FileRecord>,
    options: CheckOptions,
) -> Option<Change> {
    let expected = known.map(|record| record.checktxt.clone());
    let content = || content::digest(&node.config.local(&path).map_err(io::Error::other)?);
    match compare(known, metadata, node.config.ignore, content) {
        Comparison::Same => None,
        Comparison::Refresh { digest } => {
            Some(Change { record: Some(node.record(path.clone(), metadata, digest)), ..bare(path, expected) })
        }
        Comparison::Changed => {
            let record = node.record(path.clone(), metadata, None);
            Some(Change { record: Some(record), ..marked(node, path, expected, options) })
        }
    }
}

fn removal_of(node: &Node, record: FileRecord, options: CheckOptions) -> Change {
    marked(node, record.path, Some(record.checktxt), options)
}

fn bare(path: SyncPath, expected: Option<Checktxt>) -> Change {
    Change { path, expected, record: None, marks: Vec::new(), actions: Vec::new() }
}

fn marked(node: &Node, path: SyncPath, expected: Option<Checktxt>, options: CheckOptions) -> Change {
    if options.init {
        return bare(path, expected);
    }
    let marks = mark::marks(&node.config, &path, options.forced);
    let actions = mark::local_actions(&node.config, &path);
    Change { marks, actions, ..bare(path, expected) }
}

/// Collects changes and hands them on in chunks.
struct Outbox {
    sender: mpsc::Sender<Vec<Change>>,
    chunk: Vec<Change>,
}

impl Outbox {
    fn push(&mut self, change: Change) {
        self.chunk.push(change);
        if self.chunk.len() >= CHUNK {
            self.flush();
        }
    }

    /// A receiver that is gone has met an error of the store, which ends the run: nothing is to be done here.
    fn flush(&mut self) {
        if !self.chunk.is_empty() {
            let _ = self.sender.blocking_send(std::mem::take(&mut self.chunk));
        }
    }
}

/// The synchronous half of a check: walks the disk with the known rows at hand.
struct Detector {
    node: Arc<Node>,
    options: CheckOptions,
    directories: Option<Directories>,
    known: HashMap<SyncPath, FileRecord>,
    seen: HashSet<SyncPath>,
    /// Temporary files of sessions that are receiving.
    skip: HashSet<SyncPath>,
    /// Where the walk could not look: nothing at and below these places counts as removed.
    unreadable: Vec<Vec<u8>>,
    outbox: Outbox,
    report: Report,
}

impl Detector {
    fn run(mut self, target: &Target) -> Report {
        let node = Arc::clone(&self.node);
        self.unreadable = find::find(&node.config, target, Purpose::Sync, &mut self);
        self.removals();
        self.outbox.flush();
        if let Some(directories) = &self.directories {
            self.report.merge(directories.flush());
        }
        self.report
    }

    fn removals(&mut self) {
        let unseen = self.known.keys().filter(|path| !self.seen.contains(*path));
        let covered = unseen.filter(|path| membership::is_covered(&self.node.config, path, Purpose::Sync));
        let mut candidates: Vec<SyncPath> = covered.filter(|path| !self.is_unreadable(path)).cloned().collect();
        candidates.sort();
        let verdict = removal::judge(&self.node.config, &self.known, candidates, self.options.allow_mass_removal);
        for error in verdict.errors {
            self.report.error(error);
        }
        for path in verdict.removed {
            if let Some(record) = self.known.remove(&path) {
                self.outbox.push(removal_of(&self.node, record, self.options));
            }
        }
    }

    fn is_unreadable(&self, path: &SyncPath) -> bool {
        let Ok(local) = self.node.config.local(path) else { return false };
        let place = local.absolute();
        self.unreadable.iter().any(|directory| place.starts_with(OsStr::from_bytes(directory)))
    }
}

impl Finder for Detector {
    fn found(&mut self, names: &[SyncPath], metadata: &Metadata) {
        for name in names.iter().filter(|name| !self.skip.contains(*name)) {
            let known = self.known.get(name);
            if let Some(change) = change_of(&self.node, name.clone(), metadata, known, self.options) {
                self.outbox.push(change);
            }
            if self.known.contains_key(name) {
                self.seen.insert(name.clone());
            }
        }
    }

    fn left(&mut self, directory: &SyncPath) {
        if let Some(directories) = &self.directories {
            directories.write(directory);
        }
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        self.report.error(format_args!(
            "ERROR: cannot {operation} {}: {}. What is known there stays as it is and does not count as removed; make \
             it readable and check again.",
            String::from_utf8_lossy(path),
            strerror(&error)
        ));
    }
}
