//! Which dirty rows concern a peer, and what is to be done about each, by what is on this disk.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::job::Job;
use crate::config::LocalPath;
use crate::engine::check::removal;
use crate::engine::{EngineError, Node, Report, blocking, membership};
use crate::fs::{Presence, PresenceChecker};
use crate::model::{DirtyEntry, FileKind, Scope, SyncPath};

/// A dirty row of a file that is shared with its peer.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) entry: DirtyEntry,
    /// The pre-shared key of the group that decides about the file.
    key: String,
    place: LocalPath,
}

impl Candidate {
    /// `None` when no group of ours shares the file with the peer under the row's name: the row stays.
    pub(super) fn of(node: &Node, entry: DirtyEntry, report: &mut Report) -> Option<Self> {
        let group = membership::group_with_peer(&node.config, &entry.path, Some(&entry.my_name), &entry.peer);
        let Some(group) = group else {
            tracing::debug!("{} is in no common group with {}: its row stays.", entry.path, entry.peer);
            return None;
        };
        match node.config.local(&entry.path) {
            Ok(place) => Some(Self { key: group.key.clone(), place, entry }),
            Err(error) => {
                report.error(format_args!("ERROR: {}: {error} It stays dirty for {}.", entry.path, entry.peer));
                None
            }
        }
    }
}

/// The candidates by the name that we have towards the peer: each is a HELLO of its own.
pub(super) fn by_name(node: &Node, entries: Vec<DirtyEntry>, report: &mut Report) -> BTreeMap<String, Vec<Candidate>> {
    let mut names: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in entries.into_iter().filter_map(|entry| Candidate::of(node, entry, report)) {
        match names.get_mut(&candidate.entry.my_name) {
            Some(candidates) => candidates.push(candidate),
            None => _ = names.insert(candidate.entry.my_name.clone(), vec![candidate]),
        }
    }
    names
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the order of the work: what lies in a directory goes before it.
    pub(super) removals: Vec<Job>,
    /// In name order: a directory comes before what is in it.
    pub(super) pushes: Vec<Job>,
}

/// Looks at each file. What cannot be looked at is reported, and its row stays.
pub(super) async fn look(node: &Node, candidates: Vec<Candidate>, report: &mut Report) -> Result<Plan, EngineError> {
    let (mut plan, unknown) = blocking("update", move || look_at_all(candidates)).await?;
    plan.removals = believable(node, plan.removals, report).await?;
    plan.removals.sort_by(|one, other| other.path().cmp(one.path()));
    plan.pushes.sort_by(|one, other| one.path().cmp(other.path()));
    for (candidate, error) in unknown {
        let (name, peer) = (candidate.place.absolute(), candidate.entry.peer);
        report.error(format_args!("ERROR: cannot look at {}: {error}. It stays dirty for {peer}.", name.display()));
    }
    Ok(plan)
}

/// Names in one query.
const CHUNK: usize = 500;

/// The removals that are no missing file system. A file that still has its row was not found to be removed by a check:
/// the same doubts apply to it as there.
async fn believable(node: &Node, removals: Vec<Job>, report: &mut Report) -> Result<Vec<Job>, EngineError> {
    let mut doubtful: HashSet<SyncPath> = HashSet::new();
    let mut said: HashSet<String> = HashSet::new();
    for some in removals.chunks(CHUNK) {
        let mut rows = node.store.files(some.iter().map(|job| Scope::File(job.path().clone())).collect());
        while let Some(chunk) = rows.recv().await {
            for record in chunk? {
                let Some(disbelief) = removal::disbelief(&node.config, &record) else { continue };
                if said.insert(disbelief.clone()) {
                    report.error(disbelief);
                }
                doubtful.insert(record.path);
            }
        }
    }
    Ok(removals.into_iter().filter(|job| !doubtful.contains(job.path())).collect())
}

fn look_at_all(candidates: Vec<Candidate>) -> (Plan, Vec<(Candidate, io::Error)>) {
    let (mut plan, mut unknown) = (Plan::default(), Vec::new());
    let mut checker: Option<(std::path::PathBuf, PresenceChecker)> = None;
    for candidate in candidates {
        let root = &candidate.place.root;
        if checker.as_ref().is_none_or(|(known, _)| known != root) {
            checker = Some((root.clone(), PresenceChecker::new(root)));
        }
        let Some((_, checker)) = &mut checker else { continue };
        let presence = checker.check(&candidate.place.relative);
        let Candidate { entry, key, place } = candidate;
        match presence {
            // Sockets are never sent; but what a socket has taken the place of is gone.
            Presence::Present(metadata) if metadata.kind == FileKind::Socket => {
                let entry = DirtyEntry { forced: false, ..entry };
                plan.removals.push(Job::new(entry, key, place, None));
            }
            Presence::Present(metadata) => plan.pushes.push(Job::new(entry, key, place, Some(metadata))),
            Presence::Gone | Presence::BehindSymlink => plan.removals.push(Job::new(entry, key, place, None)),
            Presence::Unknown(error) => unknown.push((Candidate { entry, key, place }, error)),
        }
    }
    (plan, unknown)
}
