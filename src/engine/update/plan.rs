//! Which dirty rows concern a peer, and what is to be done about each, by what is on this disk.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::job::Job;
use crate::config::LocalPath;
use crate::engine::check::{Marks, removal};
use crate::engine::{EngineError, Node, Report, blocking, membership};
use crate::fs::{Presence, PresenceCheckers};
use crate::model::{DirtyEntry, DirtyVersion, FileKind, Scope, SyncPath};
use crate::store::{DirtyFilter, StoreError};

/// A dirty row of a file that is shared with its peer: without the two names, which many rows have in common.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) place: LocalPath,
    /// The pre-shared key of the group that decides about the file.
    pub(super) key: Arc<str>,
    pub(super) version: DirtyVersion,
    /// Push without asking what the peer has. A won conflict sets it as well.
    pub(super) forced: bool,
}

impl Candidate {
    /// `None` when no group of ours shares the file with the peer under the row's name: the row stays.
    pub(super) fn of(node: &Node, entry: &DirtyEntry, report: &mut Report) -> Option<Self> {
        let DirtyEntry { forced, version, .. } = *entry;
        let group = membership::group_with_peer(&node.config, &entry.path, Some(&entry.my_name), &entry.peer);
        let Some(group) = group else {
            tracing::debug!("{} is in no common group with {}: its row stays.", entry.path, entry.peer);
            return None;
        };
        match node.config.local(&entry.path) {
            Ok(place) => Some(Self { place, key: Arc::clone(&group.key), version, forced }),
            Err(error) => {
                report.error(format_args!("ERROR: {}: {error} It stays dirty for {}.", entry.path, entry.peer));
                None
            }
        }
    }
}

/// What is dirty for a peer.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Rows.
    pub(super) count: usize,
    /// The candidates by the name that we have towards the peer: each is a HELLO of its own.
    pub(super) names: BTreeMap<Arc<str>, Vec<Candidate>>,
}

impl Dirty {
    /// Takes the rows in as they come. `paths`: the names that other peers of the run have.
    pub(super) async fn read(
        node: &Node,
        filter: DirtyFilter,
        paths: &Paths,
        report: &mut Report,
    ) -> Result<Self, StoreError> {
        let mut dirty = Self::default();
        let mut rows = node.store.marks(filter);
        while let Some(chunk) = rows.recv().await {
            let mut entries = chunk?;
            dirty.count += entries.len();
            paths.share(&mut entries);
            for entry in entries {
                let Some(candidate) = Candidate::of(node, &entry, report) else { continue };
                dirty.names.entry(entry.my_name).or_default().push(candidate);
            }
        }
        Ok(dirty)
    }
}

/// The names of a run's files, until it ends: what is dirty for many peers is kept once.
#[derive(Debug)]
pub(super) struct Paths(Option<Mutex<HashSet<SyncPath>>>);

impl Paths {
    /// For a run with so many peers.
    pub(super) fn for_peers(count: usize) -> Self {
        Self((count > 1).then(Mutex::default))
    }

    fn share(&self, entries: &mut [DirtyEntry]) {
        let Some(paths) = &self.0 else { return };
        let mut paths = paths.lock().unwrap_or_else(PoisonError::into_inner);
        for DirtyEntry { path, .. } in entries {
            match paths.get(path) {
                Some(known) => *path = known.clone(),
                None => _ = paths.insert(path.clone()),
            }
        }
    }
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the order of the work: what lies in a directory goes before it.
    pub(super) removals: VecDeque<Candidate>,
    /// In name order: a directory comes before what is in it.
    pub(super) pushes: Vec<Job>,
    /// What is to be pushed after these, likewise in order: it is looked at again when its turn has come.
    pub(super) later: VecDeque<Candidate>,
    /// Bytes of the regular files among `later`.
    pub(super) later_bytes: u64,
}

impl Plan {
    /// Files that wait.
    pub(super) fn len(&self) -> usize {
        self.removals.len() + self.pushes.len() + self.later.len()
    }
}

/// Looks at each file, and plans all removals, but no more than `room` pushes. What cannot be looked at is reported, and its
/// row stays dirty for `peer`.
pub(super) async fn look(
    node: &Node,
    peer: &str,
    mut candidates: Vec<Candidate>,
    room: usize,
    report: &mut Report,
) -> Result<Plan, EngineError> {
    candidates.sort_unstable_by(|one, other| one.place.path.cmp(&other.place.path));
    let (mut plan, unknown) = blocking("update", move || look_at_all(candidates, room)).await?;
    plan.removals = believable(node, plan.removals, report).await?;
    for (place, error) in unknown {
        let name = place.absolute();
        report.error(format_args!("ERROR: cannot look at {}: {error}. It stays dirty for {peer}.", name.display()));
    }
    Ok(plan)
}

/// Names in one query.
const CHUNK: usize = 500;

/// The removals that are no missing file system. A file that still has its row was not found to be removed by a check:
/// the same doubts apply to it as there.
async fn believable(
    node: &Node,
    mut removals: VecDeque<Candidate>,
    report: &mut Report,
) -> Result<VecDeque<Candidate>, EngineError> {
    let mut doubtful: HashSet<SyncPath> = HashSet::new();
    let mut said: HashSet<String> = HashSet::new();
    for some in removals.make_contiguous().chunks(CHUNK) {
        let files = some.iter().map(|removal| Scope::File(removal.place.path.clone()));
        let mut rows = node.store.files(files.collect());
        while let Some(chunk) = rows.recv().await {
            for record in chunk? {
                let Some(disbelief) = removal::disbelief(&node.config, &record, Marks::Everything) else { continue };
                if said.insert(disbelief.clone()) {
                    report.error(disbelief);
                }
                doubtful.insert(record.path);
            }
        }
    }
    removals.retain(|removal| !doubtful.contains(&removal.place.path));
    Ok(removals)
}

fn look_at_all(candidates: Vec<Candidate>, room: usize) -> (Plan, Vec<(LocalPath, io::Error)>) {
    let (mut plan, mut unknown) = (Plan::default(), Vec::new());
    let mut checkers = PresenceCheckers::default();
    // In the place of what was given: for many peers at once, another copy would count.
    let later = candidates.into_iter().filter_map(|candidate| {
        match checkers.check(candidate.place.root(), candidate.place.relative()) {
            // Sockets are never sent; but what a socket has taken the place of is gone.
            Presence::Present(metadata) if metadata.kind == FileKind::Socket => {
                plan.removals.push_front(Candidate { forced: false, ..candidate });
            }
            Presence::Present(metadata) if plan.pushes.len() < room => {
                plan.pushes.push(Job::new(candidate, Some(metadata)));
            }
            Presence::Present(metadata) => {
                plan.later_bytes += metadata.length();
                return Some(candidate);
            }
            Presence::Gone | Presence::BehindSymlink => plan.removals.push_front(candidate),
            Presence::Unknown(error) => unknown.push((candidate.place, error)),
        }
        None
    });
    plan.later = later.collect::<Vec<_>>().into();
    (plan, unknown)
}
