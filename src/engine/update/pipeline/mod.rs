//! The work that brings one peer up to date (docs/protocol.md): which file's turn it is, and what is sent for it.
//!
//! Many files are under way at once. A file waits for its directory until that is on its way; a removal waits for the
//! removals below it; and where a file has several names, the peer is asked about one when all that is sent under the
//! other is on its way. Removals come first, then the rest in name order; the times of directories are set last, since
//! every file made in them changes them. [`answers`] acts on what the peer says, [`refusals`] on what it refuses,
//! [`conflicts`] on changes on both sides, [`parents`] on directories that the peer lacks; [`waits`] knows who waits for
//! whom, and [`forecasts`] is all that a dry run leaves behind.

mod answers;
mod batch;
mod conflicts;
mod forecasts;
mod parents;
mod refusals;
mod waits;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::batch::Offers;
use super::confirmed::{self, Confirmed};
use super::contents::Contents;
use super::exchange::{Awaited, Exchange, Question};
use super::job::{Due, Job, Progress};
use super::plan::{self, Candidate, Plan};
use super::{Common, Forecast, Prospect};
use crate::config::Group;
use crate::engine::contact::{Dialect, SessionError};
use crate::engine::{EngineError, Node, Report, membership};
use crate::model::{FileKind, Metadata, SyncPath};
use crate::store::StoreError;
use crate::wire::{Attributes, Request};

/// SIG and FLUSH requests under way at once. Enough to fill a long line, few enough to bound what waits in memory.
const WINDOW: usize = 64;

/// Requests of all kinds under way at once.
const LONGEST_QUEUE: usize = 4 * WINDOW;

/// Confirmed files whose dirty rows are removed in one statement.
const RECORD_AT: usize = 500;

/// With whom a pipeline works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    /// How the peer knows us.
    pub(super) my_name: &'a str,
    pub(super) peer: &'a str,
}

/// What came of a pipeline.
#[derive(Debug)]
pub(super) struct Worked {
    pub(super) report: Report,
    /// Of a dry run: in the order of the work.
    pub(super) forecasts: Vec<Forecast>,
    /// Files that were not brought to an end.
    pub(super) left: usize,
    /// An error: the session cannot go on.
    pub(super) result: Result<(), SessionError>,
}

/// What is to be sent for a file whose turn it is.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// What makes the peer's file like ours.
    Change(usize),
    /// The time of a directory.
    Time(usize),
}

#[derive(Debug)]
pub(super) struct Pipeline<'a> {
    node: &'a Arc<Node>,
    pair: Pair<'a>,
    exchange: &'a mut Exchange,
    dry_run: bool,
    without_removals: bool,
    contents: &'a Arc<Contents>,
    stop: &'a CancellationToken,
    /// Files that are planned at once.
    room: usize,
    /// What was planned and is not under way.
    plan: Plan,
    /// The files have been looked at.
    is_planned: bool,
    /// Directories of ours that hold what could not be removed.
    occupied: HashSet<SyncPath>,
    /// Where something was removed: there may be a directory.
    emptied: HashSet<SyncPath>,
    jobs: Vec<Job>,
    /// The files that are pushed, by name.
    index: HashMap<SyncPath, usize>,
    /// Jobs that may begin, lowest first.
    ready: BinaryHeap<Reverse<usize>>,
    /// Jobs that wait for the one they are filed under: their directory, or the same file under another name.
    waiting: HashMap<usize, Vec<usize>>,
    /// Jobs about which the peer was asked.
    decided: VecDeque<Task>,
    /// Openings under way.
    asking: usize,
    /// Directories whose time is to be set.
    untimed: Vec<usize>,
    confirmed: Vec<Confirmed>,
    /// In the batch dialect.
    offered: Offers,
    /// Writes down what was confirmed before.
    recording: Option<JoinHandle<Result<(), StoreError>>>,
    reported_parents: HashSet<SyncPath>,
    /// What to do about refusals, as far as it was said.
    advised: HashSet<String>,
    report: Report,
    /// Of removals, and of pushes.
    forecasts: (Vec<Forecast>, Vec<Forecast>),
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(run: &'a Common, pair: Pair<'a>, exchange: &'a mut Exchange) -> Self {
        Self {
            node: &run.node,
            pair,
            exchange,
            dry_run: run.dry_run,
            without_removals: run.without_removals,
            contents: &run.contents,
            stop: &run.stop,
            room: run.room,
            plan: Plan::default(),
            is_planned: false,
            occupied: HashSet::new(),
            emptied: HashSet::new(),
            jobs: Vec::new(),
            index: HashMap::new(),
            ready: BinaryHeap::new(),
            waiting: HashMap::new(),
            decided: VecDeque::new(),
            asking: 0,
            untimed: Vec::new(),
            confirmed: Vec::new(),
            offered: Offers::default(),
            recording: None,
            reported_parents: HashSet::new(),
            advised: HashSet::new(),
            report: Report::default(),
            forecasts: Default::default(),
        }
    }

    /// Works the candidates off. What was confirmed is recorded also when the session breaks off.
    pub(super) async fn run(mut self, candidates: Vec<Candidate>) -> Worked {
        let all = candidates.len();
        let worked = self.work(candidates).await;
        let recorded = self.record_all().await;
        let under_way = self.jobs.iter().filter(|job| !job.is_over()).count();
        let left = if self.is_planned { self.plan.len() + under_way } else { all };
        self.report.unfinished = left > 0 && self.stop.is_cancelled();
        let is_explained = worked.is_err() || self.report.unfinished;
        debug_assert!(left == 0 || is_explained, "jobs were forgotten");
        let forecasts = self.sorted_forecasts();
        Worked { report: self.report, forecasts, left, result: worked.and(recorded) }
    }

    async fn work(&mut self, candidates: Vec<Candidate>) -> Result<(), SessionError> {
        self.plan = self.look(candidates).await?;
        self.is_planned = true;
        let bytes = self.plan.later_bytes + self.plan.pushes.iter().map(Job::length).sum::<u64>();
        self.exchange.tally.add(self.plan.len(), bytes);
        loop {
            self.remove_all().await?;
            let pushes = std::mem::take(&mut self.plan.pushes);
            self.add_pushes(pushes);
            self.drain().await?;
            if self.plan.later.is_empty() || self.stop.is_cancelled() {
                break;
            }
            self.forget();
            self.plan_more().await?;
        }
        // A directory whose time was disputed comes round again.
        while !self.untimed.is_empty() && !self.stop.is_cancelled() {
            self.decided.extend(std::mem::take(&mut self.untimed).into_iter().map(Task::Time));
            self.drain().await?;
        }
        self.leave().await
    }

    async fn look(&mut self, candidates: Vec<Candidate>) -> Result<Plan, EngineError> {
        let mut plan = plan::look(self.node, self.pair.peer, candidates, self.room, &mut self.report).await?;
        if self.without_removals {
            plan.removals.clear();
        }
        Ok(plan)
    }

    /// Plans what comes next. If some of it is gone meanwhile, all that is left is looked at: what is gone goes first, also
    /// where it comes later.
    async fn plan_more(&mut self) -> Result<(), EngineError> {
        let next: Vec<Candidate> = self.plan.later.iter().take(self.room).cloned().collect();
        let count = next.len();
        let plan = self.look(next).await?;
        if plan.removals.is_empty() {
            self.plan.later.drain(..count);
            self.plan.pushes = plan.pushes;
        } else {
            self.plan = self.look(self.plan.later.iter().cloned().collect()).await?;
        }
        Ok(())
    }

    async fn remove_all(&mut self) -> Result<(), SessionError> {
        while !self.plan.removals.is_empty() && !self.stop.is_cancelled() {
            self.forget();
            let next = self.plan.removals.len().min(self.room);
            let next = self.plan.removals.drain(..next).map(|candidate| Job::new(candidate, None)).collect();
            self.add_removals(next);
            self.drain().await?;
        }
        Ok(())
    }

    /// Lets go of what is over, when nothing is under way: what is to come needs to know of directories alone.
    fn forget(&mut self) {
        for failed in self.jobs.iter().filter(|job| job.is_removal() && job.progress == Progress::Failed) {
            let mut above = failed.path().parent();
            while let Some(directory) = above {
                above = directory.parent();
                self.occupied.insert(directory);
            }
        }
        self.jobs.retain(|job| job.is_directory() || !job.is_over());
        self.jobs.shrink_to_fit();
        (self.index, self.untimed) = (HashMap::with_capacity(self.jobs.len()), Vec::new());
        for (number, job) in self.jobs.iter_mut().enumerate() {
            job.other_spelling = None;
            self.index.insert(job.path().clone(), number);
            if job.progress == Progress::Untimed {
                self.untimed.push(number);
            }
        }
    }

    /// Sends and receives until nothing is left to do.
    async fn drain(&mut self) -> Result<(), SessionError> {
        if self.offers() {
            return self.drain_offers().await;
        }
        loop {
            self.issue();
            let Some((awaited, answer)) = self.exchange.next().await? else { return Ok(()) };
            self.receive(awaited, answer).await?;
            self.record_some().await?;
        }
    }

    /// Sends as much as may be under way: questions first, so that answers are in when data may follow.
    fn issue(&mut self) {
        while !self.exchange.is_patching() && self.exchange.in_flight() < LONGEST_QUEUE {
            if self.asking < WINDOW
                && !self.stop.is_cancelled()
                && let Some(Reverse(number)) = self.ready.pop()
            {
                match self.jobs[number].other_spelling {
                    Some(other) if self.jobs[other].progress == Progress::Asking => self.wait_for(other, number),
                    _ => self.open(number),
                }
            } else if let Some(task) = self.next_decided() {
                match task {
                    Task::Change(number) => self.change(number),
                    Task::Time(number) => self.time_directory(number),
                }
            } else {
                return;
            }
        }
    }

    /// What was decided first. Of a run that is being stopped only what the peer has had its mark removed for.
    fn next_decided(&mut self) -> Option<Task> {
        loop {
            let task = self.decided.pop_front()?;
            let must_follow = matches!(task, Task::Change(number) if self.jobs[number].candidate.forced);
            if must_follow || !self.stop.is_cancelled() {
                return Some(task);
            }
        }
    }

    fn open(&mut self, number: usize) {
        let job = &self.jobs[number];
        let (key, file) = job.key_and_file();
        if !job.candidate.forced {
            self.ask(number, &Request::Sig { key, file }, Question::Signature);
        } else if self.dry_run {
            self.announce(number);
            let prospect = if self.jobs[number].is_removal() { Prospect::Delete } else { Prospect::Modify };
            self.forecast(number, prospect);
        } else {
            self.ask(number, &Request::Flush { key, file }, Question::Flush);
        }
    }

    /// Sends a request. `false`: it cannot be sent, and the job is over.
    fn ask(&mut self, number: usize, request: &Request, question: Question) -> bool {
        let job = &mut self.jobs[number];
        let awaited = Awaited { number, attempt: job.attempt, question };
        if self.exchange.ask(awaited, request).is_err() {
            let command = request.command();
            let problem = format!("its names make the line of {command} longer than a peer reads; shorten them");
            self.fail(number, Some(&problem));
            return false;
        }
        tracing::trace!("Local> {} {}", request.command(), job.path());
        job.outstanding += 1;
        self.asking += usize::from(question.is_opening());
        true
    }

    /// Sends what makes the peer's file like ours.
    fn change(&mut self, number: usize) {
        let job = &self.jobs[number];
        let (key, file) = job.key_and_file();
        let Some(metadata) = job.metadata.clone() else {
            self.ask(number, &Request::Del { key, file }, Question::Change);
            return;
        };
        let atomic = self.exchange.dialect == Dialect::Atomic;
        if metadata.is_regular() && job.obstacles.directory && !atomic {
            // The C program's server hangs in a PATCH of a directory that it cannot remove; DEL tells us so.
            self.ask(number, &Request::Del { key, file }, Question::ClearTheWay);
            return;
        }
        let Metadata { uid, gid, mode, mtime, .. } = metadata;
        let attributes = atomic.then_some(Attributes { uid, gid, mode, mtime });
        let request = match &metadata.kind {
            FileKind::Regular { .. } => {
                let request = match attributes {
                    Some(attributes) => Request::AtomicPatch { key, file, attributes },
                    None => Request::Patch { key, file },
                };
                self.ask(number, &request, Question::SendData);
                return;
            }
            FileKind::Directory => Request::MkDir { key, file, attributes },
            FileKind::Symlink { target } => Request::MkLink { key, file, target: target.clone() },
            FileKind::CharDevice { device } => Request::MkChr { key, file, device: Some(*device) },
            FileKind::BlockDevice { device } => Request::MkBlk { key, file, device: Some(*device) },
            FileKind::Fifo => Request::MkFifo { key, file },
            FileKind::Socket => Request::MkSock { key, file },
        };
        if !self.ask(number, &request, Question::Change) {
            return;
        }
        let job = &mut self.jobs[number];
        // Refused commands must not be followed by others that are not: the C program checks SETIME for no conflict, and
        // what MKLINK cannot replace would get the link's owner.
        let attributes_wait = match metadata.kind {
            FileKind::Directory => false,
            FileKind::Symlink { .. } => job.candidate.forced || job.obstacles.directory,
            _ => true,
        };
        if attributes_wait {
            job.due = Due::Attributes;
        } else if self.set_attributes(number, &metadata) {
            self.is_underway(number);
        }
    }

    /// Owner, mode and time, as far as the kind of file has them. A directory's time waits for what comes into it.
    fn set_attributes(&mut self, number: usize, metadata: &Metadata) -> bool {
        let (key, file) = self.jobs[number].key_and_file();
        let owner = Request::SetOwn { key: key.clone(), file: file.clone(), uid: metadata.uid, gid: metadata.gid };
        let mode = Request::SetMod { key, file, mode: metadata.mode };
        let sent = self.ask(number, &owner, Question::Change);
        match metadata.kind {
            FileKind::Symlink { .. } => sent,
            FileKind::Directory => {
                self.jobs[number].due = Due::Time;
                sent && self.ask(number, &mode, Question::Change)
            }
            _ => sent && self.ask(number, &mode, Question::Change) && self.set_time(number, metadata),
        }
    }

    fn set_time(&mut self, number: usize, metadata: &Metadata) -> bool {
        let (key, file) = self.jobs[number].key_and_file();
        let mtime = self.exchange.dialect.mtime_number(metadata.mtime);
        self.ask(number, &Request::SeTime { key, file, mtime }, Question::Change)
    }

    fn time_directory(&mut self, number: usize) {
        if self.jobs[number].progress == Progress::Untimed
            && let Some(metadata) = self.jobs[number].metadata.clone()
        {
            self.jobs[number].progress = Progress::Underway;
            self.set_time(number, &metadata);
        }
    }

    /// The peer has the file or is about to make it: what waits for that may follow.
    fn is_underway(&mut self, number: usize) {
        self.jobs[number].progress = Progress::Underway;
        self.release(number);
    }

    /// The group that decides about a file.
    fn group_of(&self, path: &SyncPath) -> Option<&'a Group> {
        let node: &'a Node = self.node;
        membership::group_with_peer(&node.config, path, Some(self.pair.my_name), self.pair.peer)
    }

    async fn record_some(&mut self) -> Result<(), SessionError> {
        if self.confirmed.len() >= RECORD_AT { self.record_confirmed().await } else { Ok(()) }
    }

    /// Starts to write down what was confirmed, once what was confirmed before is: the network does not wait for the
    /// database as long as that keeps up.
    async fn record_confirmed(&mut self) -> Result<(), SessionError> {
        self.is_recorded().await?;
        let (node, confirmed) = (Arc::clone(self.node), std::mem::take(&mut self.confirmed));
        self.recording = Some(tokio::spawn(async move { confirmed::record(&node, confirmed).await }));
        Ok(())
    }

    async fn is_recorded(&mut self) -> Result<(), SessionError> {
        let Some(recording) = self.recording.take() else { return Ok(()) };
        let recorded = recording.await.map_err(|source| EngineError::Worker { operation: "update", source })?;
        Ok(recorded?)
    }

    /// Writes down everything, also when something before could not be.
    async fn record_all(&mut self) -> Result<(), SessionError> {
        let before = self.is_recorded().await;
        let last = confirmed::record(self.node, std::mem::take(&mut self.confirmed)).await;
        before.and(last.map_err(SessionError::from))
    }
}
