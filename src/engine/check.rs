//! Update detection: what changed on this disk since the file table was written, and whom that concerns.
//!
//! A check reads the table once and keeps a fingerprint of each row in its scope. It walks the disk once, with a thread
//! for each processor, eight at most; a file that agrees with its fingerprint is done. One without a row is new. One that
//! does not agree is looked at again beside its row as it is now ([`compare()`]).
//!
//! Changes are written in chunks, each file's row together with its dirty rows. A row that somebody else replaced meanwhile
//! (a session that received the file) is not overwritten: that file is looked at again.
//!
//! A file counts as removed only when the system says that it does not exist. Whatever cannot be looked at keeps its
//! row, and [`removal`] refuses to take a missing file system for a mass removal.

mod compare;
mod detector;
pub mod includes;
mod known;
pub mod removal;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::compare::{Comparison, compare};
use self::detector::{Detector, Findings, Outbox};
use self::known::Known;
use super::directories::Directories;
use super::find::{self, Failure};
use super::membership::{self, Purpose};
use super::selection::{self, Target};
use super::tally::{CheckTally, RunTally};
use super::{EngineError, Node, Report, blocking, content, mark, notice};
use crate::fs::{Presence, PresenceCheckers};
use crate::model::errors::strerror;
use crate::model::{Checktxt, FileRecord, Metadata, Scope, SyncPath};
use crate::store::{Change, StoreError};

/// How a check behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    pub marks: Marks,
    /// `-F`: new dirty rows are forced.
    pub forced: bool,
    /// `--allow-mass-removal`: a missing root means that everything below it was removed on purpose.
    pub allow_mass_removal: bool,
}

/// What a check marks as dirty of what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marks {
    #[default]
    Everything,
    /// Known files that have changed. New ones are taken in, and those that are gone forgotten: they are to come anew (`--join`).
    Changes,
    /// Nothing: the file table is filled (`-I`).
    Nothing,
}

/// Chunks that are written at the same time: while the database brings one to the disk, it can work at the next.
const WRITERS: usize = 2;

/// Threads of a walk, at most: a disk that is read from has little use for more.
const WALKERS: usize = 8;

/// What is waited before a file is looked at again that was being received, or changed while we looked; and in the end. In all
/// it is the `lock-timeout`: a session that brings hundreds of files to a slow disk takes its time.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Checks what the targets name and writes what changed; `directories` gets what `-W` asks for, `tally`
/// what is counted. When it is stopped, what it
/// has come to by then is written, and nothing counts as removed.
///
/// # Errors
/// Those of the store. What cannot be read on disk is counted in the report.
pub async fn check(
    node: &Arc<Node>,
    targets: &[Target],
    options: CheckOptions,
    directories: Option<&Directories>,
    tally: &Arc<RunTally>,
    stop: &CancellationToken,
) -> Result<Report, EngineError> {
    let mut report = Report::default();
    for target in targets {
        if !report.unfinished {
            report.merge(check_target(node, target, options, directories, tally, stop).await?);
        }
    }
    if report.unfinished {
        return Ok(report);
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
    tally: &Arc<RunTally>,
    stop: &CancellationToken,
) -> Result<Report, EngineError> {
    let scopes = selection::scopes(&node.config, target);
    let known = Arc::new(read_known(node, scopes.clone()).await?);
    tally.check.begin(known.len() as u64);
    let receiving = node.store.intents().await?.into_iter().filter_map(|(_, intent)| {
        let directory = intent.path.parent()?;
        let temporary = (!intent.temp_name.is_empty()).then(|| directory.join(&intent.temp_name).ok()).flatten()?;
        Some(temporary.as_bytes().to_vec())
    });
    let (sender, receiver) = mpsc::channel(1);
    let walk = Walk {
        node: Arc::clone(node),
        target: target.clone(),
        options,
        known: Arc::clone(&known),
        skip: receiving.collect(),
        directories: directories.cloned(),
        tally: Arc::clone(tally),
        stop: stop.clone(),
    };
    let walking = tokio::spawn(blocking("check", move || walk.run(sender)));
    let written = write_findings(node, receiver, options, &tally.check).await;
    let walked = walking.await.map_err(|source| EngineError::Worker { operation: "check", source })??;
    let mut stale = written?;
    let mut report = Report::default();
    walked.failures.iter().for_each(|failure| report_failure(&mut report, failure));
    report.merge(walked.report);
    report.unfinished = stop.is_cancelled();
    if known.unseen() > 0 && !report.unfinished {
        let removed = find_removed(node, &scopes, &known, &walked.failures, options, &mut report).await?;
        stale.extend(write_removals(node, &removed, &known, options, &tally.check).await?);
    }
    report.merge(examine_all(node, stale, options, &tally.check).await?.report);
    tally.check.end();
    Ok(report)
}

/// Writes what a walk finds, in order; returns the names whose rows changed meanwhile.
async fn write_findings(
    node: &Arc<Node>,
    mut findings: mpsc::Receiver<Findings>,
    options: CheckOptions,
    tally: &CheckTally,
) -> Result<Vec<SyncPath>, EngineError> {
    let mut stale = Vec::new();
    let chunks = stream::poll_fn(|context| findings.poll_recv(context));
    let mut written = chunks.map(|findings| write_chunk(node, findings, options)).buffered(WRITERS);
    while let Some(written) = written.next().await {
        stale.extend(written?.announce(tally));
    }
    Ok(stale)
}

async fn write_chunk(node: &Arc<Node>, findings: Findings, options: CheckOptions) -> Result<Written, EngineError> {
    let Findings { new: mut changes, different } = findings;
    changes.extend(look_again(node, different, options).await?);
    changes.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    write(node, changes).await
}

/// Compares files with their rows. These are read before the files are looked at: a session that receives one of them
/// meanwhile changes both.
async fn look_again(
    node: &Arc<Node>,
    mut paths: Vec<SyncPath>,
    options: CheckOptions,
) -> Result<Vec<Change>, EngineError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    paths.sort_unstable();
    let rows = look_up(node, &paths).await?;
    let node = Arc::clone(node);
    blocking("check", move || {
        let mut checkers = PresenceCheckers::default();
        let change = |path: SyncPath| {
            let local = node.config.local(&path).ok()?;
            let presence = checkers.check(local.root(), local.relative());
            // One that has gone since it was found is left to the next check.
            let Presence::Present(metadata) = presence else { return None };
            let known = rows.get(&path);
            change_of(&node, path, &metadata, known, options)
        };
        paths.into_iter().filter_map(change).collect()
    })
    .await
}

async fn look_up(node: &Node, paths: &[SyncPath]) -> Result<HashMap<SyncPath, FileRecord>, StoreError> {
    let rows = node.store.records(paths).await?;
    Ok(rows.into_iter().map(|record| (record.path.clone(), record)).collect())
}

/// The known files that the walk did not meet and that are gone, as far as that is believed.
async fn find_removed(
    node: &Arc<Node>,
    scopes: &[Scope],
    known: &Arc<Known>,
    failures: &[Failure],
    options: CheckOptions,
    report: &mut Report,
) -> Result<Vec<SyncPath>, EngineError> {
    let mut unseen = Vec::new();
    let mut rows = node.store.files(scopes.to_vec());
    while let Some(chunk) = rows.recv().await {
        let names = chunk?.into_iter().map(|record| record.path);
        let known = names.filter(|path| known.contains(path) && !known.has_seen(path));
        unseen.extend(known.filter(|path| may_be_removed(node, path, failures)));
    }
    let mut removals = removal::Removals::default();
    for names in unseen.chunks(detector::CHUNK) {
        let mut rows = look_up(node, names).await?;
        let candidates = names.iter().filter_map(|path| rows.remove(path)).collect();
        let (worker, known) = (Arc::clone(node), Arc::clone(known));
        let consider = move || {
            removals.consider(&worker.config, candidates, &known);
            removals
        };
        removals = blocking("check", consider).await?;
    }
    if !options.allow_mass_removal && !removals.removed.is_empty() {
        if removals.are_in_doubt() {
            note_others(node, scopes, known, &mut removals).await?;
        }
        let (worker, count) = (Arc::clone(node), known.len());
        removals = blocking("check", move || removals.judged(&worker.config, count, options.marks)).await?;
    }
    removals.errors.into_iter().for_each(|error| report.error(error));
    Ok(removals.removed)
}

/// Writes that files are gone, as far as their rows are still those that the check began with: they were looked at after
/// those. Returns the names whose rows changed meanwhile.
async fn write_removals(
    node: &Node,
    removed: &[SyncPath],
    known: &Known,
    options: CheckOptions,
    tally: &CheckTally,
) -> Result<Vec<SyncPath>, EngineError> {
    let mut stale = Vec::new();
    for chunk in removed.chunks(detector::CHUNK) {
        let mut rows = look_up(node, chunk).await?;
        let mut changes = Vec::with_capacity(chunk.len());
        for record in chunk.iter().filter_map(|path| rows.remove(path)) {
            if known.agrees_with(&record) {
                changes.push(removal_of(node, record, options));
            } else {
                stale.push(record.path);
            }
        }
        stale.extend(write(node, changes).await?.announce(tally));
    }
    Ok(stale)
}

/// Tells of the known files that are there, until no removal depends on any more of them.
async fn note_others(
    node: &Node,
    scopes: &[Scope],
    known: &Known,
    removals: &mut removal::Removals,
) -> Result<(), StoreError> {
    let mut rows = node.store.files(scopes.to_vec());
    while let Some(chunk) = rows.recv().await {
        for record in chunk?.into_iter().filter(|record| known.has_seen(&record.path)) {
            removals.note_known(&node.config, &record.path);
        }
        if !removals.are_in_doubt() {
            break;
        }
    }
    Ok(())
}

fn may_be_removed(node: &Node, path: &SyncPath, failures: &[Failure]) -> bool {
    let is_unreadable =
        |place: PathBuf| failures.iter().any(|failure| place.starts_with(OsStr::from_bytes(&failure.place)));
    membership::is_covered(&node.config, path, Purpose::Sync)
        && !node.config.local(path).is_ok_and(|local| is_unreadable(local.absolute()))
}

fn report_failure(report: &mut Report, Failure { path, operation, error, .. }: &Failure) {
    report.error(format_args!(
        "ERROR: cannot {operation} {}: {}. What is known there stays as it is and does not count as removed; make it \
         readable and check again.",
        String::from_utf8_lossy(path),
        strerror(error)
    ));
}

/// Looks at single names: as `-c FILE` does, and as a session does before it changes a file. What could not be decided is
/// counted in the report: nothing may be concluded about it then.
///
/// # Errors
/// Those of the store.
pub async fn examine(node: &Arc<Node>, paths: Vec<SyncPath>, options: CheckOptions) -> Result<Examined, EngineError> {
    examine_all(node, paths, options, &CheckTally::default()).await
}

/// What came of looking at single names.
#[derive(Debug, Default)]
pub struct Examined {
    pub report: Report,
    /// Those that could not be decided, each with an error in the report.
    pub undecided: Vec<SyncPath>,
}

/// The same as a part of a check that counts.
async fn examine_all(
    node: &Arc<Node>,
    mut paths: Vec<SyncPath>,
    options: CheckOptions,
    tally: &CheckTally,
) -> Result<Examined, EngineError> {
    let mut examined = Examined::default();
    let mut overtaken: HashMap<SyncPath, Overtaken> = HashMap::new();
    let patience = Instant::now() + node.config.lock_timeout;
    let mut pause = PAUSES.0;
    loop {
        let mut rows = look_up(node, &paths).await?;
        paths.retain(|path| {
            let row = rows.get(path).map(|record| record.checktxt.clone());
            overtaken.entry(path.clone()).or_insert_with(|| Overtaken::at(row.clone())).now(row) < 2
        });
        if paths.is_empty() {
            return Ok(examined);
        }
        let worker = Arc::clone(node);
        let looked = blocking("check", move || -> Vec<_> {
            let mut checkers = PresenceCheckers::default();
            let looked = paths.into_iter().map(|path| {
                let known = rows.remove(&path);
                (path.clone(), examine_one(&worker, &mut checkers, path, known, options))
            });
            looked.collect()
        });
        let mut changes = Vec::new();
        for (path, looked) in looked.await? {
            match looked {
                Ok(change) => changes.extend(change),
                Err(disbelief) => {
                    examined.report.error(disbelief);
                    examined.undecided.push(path);
                }
            }
        }
        paths = write_in_chunks(node, changes, tally).await?;
        if Instant::now() >= patience {
            break;
        }
        if !paths.is_empty() {
            // A session is receiving the file, or another check has just written its row.
            tokio::time::sleep(pause).await;
            pause = PAUSES.1.min(2 * pause);
        }
    }
    for path in paths {
        let report = &mut examined.report;
        report.error(format_args!("ERROR: {path} is being received or checked all the time: it was not checked."));
        examined.undecided.push(path);
    }
    Ok(examined)
}

/// How often others have written a row since it was first read here. When they have done so twice, the second of them has read
/// what the first one wrote, and looked at the file only then: later than we were asked to. So the file is checked.
struct Overtaken {
    row: Option<Checktxt>,
    times: u32,
}

impl Overtaken {
    fn at(row: Option<Checktxt>) -> Self {
        Self { row, times: 0 }
    }

    /// How often it is by now.
    fn now(&mut self, row: Option<Checktxt>) -> u32 {
        if self.row != row {
            self.times += 1;
            self.row = row;
        }
        self.times
    }
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
    checkers: &mut PresenceCheckers,
    path: SyncPath,
    known: Option<FileRecord>,
    options: CheckOptions,
) -> Result<Option<Change>, String> {
    let Ok(local) = node.config.local(&path) else { return Ok(None) };
    match checkers.check(local.root(), local.relative()) {
        Presence::Present(metadata) => Ok(change_of(node, path, &metadata, known.as_ref(), options)),
        Presence::Gone | Presence::BehindSymlink => {
            let Some(record) = known else { return Ok(None) };
            match (!options.allow_mass_removal)
                .then(|| removal::disbelief(&node.config, &record, options.marks))
                .flatten()
            {
                Some(disbelief) => Err(disbelief),
                None => Ok(Some(removal_of(node, record, options))),
            }
        }
        Presence::Unknown(_) => Ok(None),
    }
}

/// What came of a chunk.
struct Written {
    marked: Vec<SyncPath>,
    /// Their rows changed meanwhile.
    stale: Vec<SyncPath>,
}

impl Written {
    /// Says and counts what was marked, and returns what was not written.
    fn announce(self, tally: &CheckTally) -> Vec<SyncPath> {
        tally.add_marked(self.marked.len());
        self.marked.iter().for_each(mark::announce);
        self.stale
    }
}

async fn write(node: &Node, changes: Vec<Change>) -> Result<Written, EngineError> {
    let marks = changes.iter().filter(|change| !change.marks.is_empty());
    let mut marked: Vec<SyncPath> = marks.map(|change| change.path.clone()).collect();
    let stale = node.store.apply(changes).await?;
    if !stale.is_empty() {
        let skipped: HashSet<&SyncPath> = stale.iter().collect();
        marked.retain(|path| !skipped.contains(path));
    }
    Ok(Written { marked, stale })
}

/// Writes any number of changes; returns the names whose rows changed meanwhile.
async fn write_in_chunks(node: &Node, changes: Vec<Change>, tally: &CheckTally) -> Result<Vec<SyncPath>, EngineError> {
    let (mut changes, mut stale) = (changes.into_iter().peekable(), Vec::new());
    while changes.peek().is_some() {
        let chunk = changes.by_ref().take(detector::CHUNK).collect();
        stale.extend(write(node, chunk).await?.announce(tally));
    }
    Ok(stale)
}

async fn read_known(node: &Node, scopes: Vec<Scope>) -> Result<Known, StoreError> {
    let mut known = Known::new();
    let mut rows = node.store.fingerprints(scopes, known.fingerprinter().clone());
    while let Some(chunk) = rows.recv().await {
        chunk?.into_iter().for_each(|row| known.insert(row));
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
            let is_told = match options.marks {
                Marks::Everything => true,
                Marks::Changes => known.is_some(),
                Marks::Nothing => false,
            };
            let change = if is_told { marked(node, path, expected, options) } else { bare(path, expected) };
            Some(Change { record: Some(record), ..change })
        }
    }
}

fn removal_of(node: &Node, record: FileRecord, options: CheckOptions) -> Change {
    match options.marks {
        Marks::Everything => marked(node, record.path, Some(record.checktxt), options),
        Marks::Changes | Marks::Nothing => bare(record.path, Some(record.checktxt)),
    }
}

fn bare(path: SyncPath, expected: Option<Checktxt>) -> Change {
    Change { path, expected, record: None, marks: Vec::new(), actions: Vec::new() }
}

fn marked(node: &Node, path: SyncPath, expected: Option<Checktxt>, options: CheckOptions) -> Change {
    let marks = mark::marks(&node.config, &path, options.forced);
    let actions = mark::local_actions(&node.config, &path);
    Change { marks, actions, ..bare(path, expected) }
}

/// The synchronous half of a check.
struct Walk {
    node: Arc<Node>,
    target: Target,
    options: CheckOptions,
    known: Arc<Known>,
    /// Temporary files of sessions that are receiving.
    skip: HashSet<Vec<u8>>,
    directories: Option<Directories>,
    tally: Arc<RunTally>,
    stop: CancellationToken,
}

/// What a walk could not do.
struct Walked {
    failures: Vec<Failure>,
    report: Report,
}

impl Walk {
    fn run(&self, sender: mpsc::Sender<Findings>) -> Walked {
        let outbox = Outbox::to(sender);
        // `-W` wants a directory after what it holds: one walks alone.
        let alone = self.directories.is_some() || !self.target.recursive;
        let walkers = if alone { 1 } else { thread::available_parallelism().map_or(1, usize::from).min(WALKERS) };
        let detector = |_| Detector::new(self, &outbox);
        let mut detectors: Vec<Detector> = (0..walkers).map(detector).collect();
        let failures = find::find(&self.node.config, &self.target, Purpose::Sync, &mut detectors);
        detectors.into_iter().for_each(Detector::finish);
        outbox.finish();
        let report = self.directories.as_ref().map(Directories::flush).unwrap_or_default();
        Walked { failures, report }
    }
}
