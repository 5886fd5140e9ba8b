//! Directories that the peer lacks: ours go first, with what is known below them, if the peer shares them.

use std::collections::HashSet;

use super::{Pair, Pipeline};
use crate::engine::contact::SessionError;
use crate::engine::update::Prospect;
use crate::engine::update::job::{Job, Progress};
use crate::engine::update::plan::{self, Candidate};
use crate::engine::{Node, mark};
use crate::model::{DirtyEntry, DirtyVersion, Mark, Scope, SyncPath};
use crate::store::{DirtyFilter, StoreError};

/// How often a file waits again for its directory.
const RETRIES: u8 = 3;

/// Files looked up in one query.
const CHUNK: usize = 500;

impl Pipeline<'_> {
    pub(super) async fn on_missing_parent(&mut self, number: usize, line: &[u8]) -> Result<(), SessionError> {
        let Some(parent) = self.jobs[number].path().parent() else { return self.refuse(number, line).await };
        if !self.index.contains_key(&parent) {
            self.adopt(vec![parent.clone()], true).await?;
        }
        let Some(&directory) = self.index.get(&parent).filter(|&&parent| self.jobs[parent].is_directory()) else {
            self.leave_below(number, &parent);
            return Ok(());
        };
        if self.dry_run {
            self.forecast(number, Prospect::Modify);
        } else if self.jobs[directory].progress == Progress::Failed {
            self.fail(number, None);
        } else if self.jobs[number].past.waits == RETRIES {
            self.leave_below(number, &parent);
        } else {
            let job = &mut self.jobs[number];
            job.past.waits += 1;
            job.begin_anew();
            self.wait_for(directory, number);
        }
        Ok(())
    }

    /// A directory that cannot be made is reported once; what belongs below it stays dirty.
    fn leave_below(&mut self, number: usize, parent: &SyncPath) {
        if !self.reported_parents.insert(parent.clone()) {
            return self.fail(number, None);
        }
        let problem = format!(
            "Parent dir missing. {parent} does not exist there and cannot be made from here: is it a directory in a \
             group of both hosts? Else make it there."
        );
        self.fail(number, Some(&problem));
    }

    /// What is known below a directory that the peer did not have is missing there as well.
    pub(super) async fn adopt_contents(&mut self, number: usize) -> Result<(), SessionError> {
        let job = &mut self.jobs[number];
        if !std::mem::take(&mut job.adopted) || !job.is_directory() {
            return Ok(());
        }
        let top = job.path().clone();
        let mut below = Vec::new();
        let mut rows = self.node.store.files(vec![Scope::Tree(top.clone())]);
        while let Some(chunk) = rows.recv().await {
            let known = chunk?.into_iter().map(|record| record.path);
            below.extend(known.filter(|path| *path != top && !self.has_in_plan(path)));
        }
        self.adopt(below, false).await
    }

    fn has_in_plan(&self, path: &SyncPath) -> bool {
        let is_later = || self.plan.later.binary_search_by(|candidate| candidate.place.path.cmp(path)).is_ok();
        self.index.contains_key(path) || is_later()
    }

    /// Makes files part of this run: those that are here and that the peer shares.
    async fn adopt(&mut self, paths: Vec<SyncPath>, as_parents: bool) -> Result<(), SessionError> {
        for paths in paths.chunks(CHUNK) {
            let (node, pair) = (self.node, self.pair);
            let unmarked = |path: &SyncPath| DirtyEntry {
                path: path.clone(),
                forced: false,
                my_name: pair.my_name.into(),
                peer: pair.peer.into(),
                version: DirtyVersion(0),
            };
            let candidates = paths.iter().filter_map(|path| Candidate::of(node, &unmarked(path), &mut self.report));
            let candidates: Vec<Candidate> = candidates.collect();
            let mut jobs = plan::look(self.node, pair.peer, candidates, CHUNK, &mut self.report).await?.pushes;
            jobs.retain(|job| !as_parents || job.is_directory());
            let mut rows = rows(node, pair, jobs.iter().map(Job::path), self.dry_run).await?;
            for job in &mut jobs {
                job.adopted = as_parents;
                if let Some(row) = rows.iter().position(|row| row.path == *job.path()) {
                    let DirtyEntry { forced, version, .. } = rows.swap_remove(row);
                    (job.candidate.forced, job.candidate.version) = (forced, version);
                }
            }
            self.exchange.tally.add(jobs.len(), jobs.iter().map(Job::length).sum());
            self.add_pushes(jobs);
        }
        Ok(())
    }
}

/// The dirty rows of these files, made where there is none: one that is there may be forced, and stays as it is.
async fn rows(
    node: &Node,
    pair: Pair<'_>,
    paths: impl Iterator<Item = &SyncPath>,
    dry_run: bool,
) -> Result<Vec<DirtyEntry>, StoreError> {
    let paths: Vec<SyncPath> = paths.cloned().collect();
    let scopes: Vec<Scope> = paths.iter().cloned().map(Scope::File).collect();
    let filter = DirtyFilter { peer: Some(pair.peer.to_owned()), scopes };
    let rows = node.store.dirty(filter.clone()).await?;
    let marked: HashSet<&SyncPath> = rows.iter().map(|row| &row.path).collect();
    let missing = paths.into_iter().filter(|path| !marked.contains(path)).map(|path| Mark {
        path,
        my_name: pair.my_name.to_owned(),
        peer: pair.peer.to_owned(),
        forced: false,
    });
    let missing: Vec<Mark> = missing.collect();
    if dry_run || missing.is_empty() {
        return Ok(rows);
    }
    for new in &missing {
        mark::announce(&new.path);
    }
    node.store.mark(missing, Vec::new()).await?;
    node.store.dirty(filter).await
}
