//! The pipelined conversation that brings one peer up to date (spec: update.md and protocol.md, 'Pipelining').
//!
//! The peer reads strictly in order and answers in order, so requests go out before earlier answers are in, and
//! `expected` remembers what the next answer belongs to. Two rules bound this: after PATCH nothing may follow until its
//! delta was sent (the peer would read commands as data), and a file waits for its directory until that is on its way.
//!
//! Removals come first, deepest first; then the rest in name order. The times of directories are set last, since every
//! file made in them changes them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::job::{Job, Progress};
use super::local::{self, Local};
use super::outbox::Outbox;
use super::session::SessionError;
use super::{Forecast, Prospect};
use crate::config::Group;
use crate::engine::conflict::{self, Dispute, Loss, Step};
use crate::engine::membership::{self, Purpose};
use crate::engine::{Node, Report, blocking};
use crate::model::checktxt::{mtime_number, mtime_of_unknown_unit};
use crate::model::{Checktxt, DirtyEntry, FileKind, Mark, Metadata, MtimeUnit, Scope, SyncPath};
use crate::store::{Change, DirtyFilter};
use crate::wire::{OctetHeader, Reader, Reply, Request, WireError};

/// SIG requests under way at once. Enough to fill a long line, few enough to bound what waits in memory.
const WINDOW: usize = 64;

/// Confirmed files whose dirty rows are removed in one statement.
const CLEAR_AT: usize = 500;

/// How often a file waits again for its directory.
const PARENT_RETRIES: u8 = 3;

/// Longest signature taken into memory: that of a file of about 32 GiB.
const MAX_SIGNATURE: u64 = 340 << 20;

/// What the next answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Signature,
    Flush,
    /// `OK (send_data).`, then the signature.
    SendData,
    /// Answer to a delta, to MK…, SETOWN, SETMOD, SETIME or DEL.
    Done,
    Mtime,
    Size,
}

/// One answer that is to come. A job that begins anew after a won conflict has another attempt number: what still comes
/// in from the earlier one no longer matters.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    number: usize,
    attempt: u8,
    expected: Expected,
}

#[derive(Debug)]
pub(super) struct Pipeline<'a> {
    node: &'a Arc<Node>,
    peer: &'a str,
    reader: &'a mut Reader,
    outbox: &'a Outbox,
    dry_run: bool,
    jobs: Vec<Job>,
    index: HashMap<SyncPath, usize>,
    /// Jobs that may begin, lowest first.
    ready: BinaryHeap<Reverse<usize>>,
    /// Jobs that wait for the directory job they are filed under.
    waiting: HashMap<usize, Vec<usize>>,
    /// Jobs whose data or MK command is to be sent.
    decided: VecDeque<usize>,
    expected: VecDeque<Awaited>,
    asking: usize,
    /// A PATCH is out and its delta is not.
    patching: bool,
    /// Directories whose time is to be set.
    timed: Vec<usize>,
    confirmed: Vec<usize>,
    reported_parents: HashSet<SyncPath>,
    report: Report,
    /// With the number of the job: the order of the work.
    forecasts: Vec<(usize, Forecast)>,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(
        node: &'a Arc<Node>,
        peer: &'a str,
        reader: &'a mut Reader,
        outbox: &'a Outbox,
        dry_run: bool,
    ) -> Self {
        Self {
            node,
            peer,
            reader,
            outbox,
            dry_run,
            jobs: Vec::new(),
            index: HashMap::new(),
            ready: BinaryHeap::new(),
            waiting: HashMap::new(),
            decided: VecDeque::new(),
            expected: VecDeque::new(),
            asking: 0,
            patching: false,
            timed: Vec::new(),
            confirmed: Vec::new(),
            reported_parents: HashSet::new(),
            report: Report::default(),
            forecasts: Vec::new(),
        }
    }

    /// Works the entries off. What was confirmed is cleared also when the session breaks off.
    pub(super) async fn run(mut self, entries: Vec<DirtyEntry>) -> (Report, Vec<Forecast>, Result<(), SessionError>) {
        let mut result = self.work(entries).await;
        if let Err(error) = self.clear_confirmed().await
            && result.is_ok()
        {
            result = Err(error);
        }
        self.forecasts.sort_by_key(|(number, _)| *number);
        let forecasts = self.forecasts.into_iter().map(|(_, forecast)| forecast).collect();
        (self.report, forecasts, result)
    }

    async fn work(&mut self, entries: Vec<DirtyEntry>) -> Result<(), SessionError> {
        let (mut removals, pushes) = self.plan(entries).await?;
        // What lies in a directory sorts behind it.
        removals.sort_by(|a, b| b.path().cmp(a.path()));
        for job in removals {
            self.add(job);
        }
        self.drain().await?;
        for job in pushes {
            self.add(job);
        }
        self.drain().await?;
        self.set_directory_times().await
    }

    /// Looks at each entry on disk: what is gone, and what is there.
    async fn plan(&mut self, entries: Vec<DirtyEntry>) -> Result<(Vec<Job>, Vec<Job>), SessionError> {
        let (mut removals, mut pushes) = (Vec::new(), Vec::new());
        let mut known = Vec::new();
        for entry in entries {
            let Some(group) = self.group_of(&entry.path, &entry.my_name) else {
                tracing::debug!("{} is in no common group with {}: its row stays.", entry.path, self.peer);
                continue;
            };
            match self.node.config.local(&entry.path) {
                Ok(place) => known.push((entry, group.key.clone(), place)),
                Err(error) => self.report.error(error),
            }
        }
        let looked = blocking("update", move || {
            known.into_iter().map(|(entry, key, place)| (local::look(&place), entry, key, place)).collect::<Vec<_>>()
        });
        for (found, entry, key, place) in looked.await? {
            let metadata = match found {
                Local::There(metadata) => Some(metadata),
                Local::Gone => None,
                Local::Unknown(error) => {
                    let name = place.absolute();
                    self.report.error(format_args!(
                        "ERROR: cannot look at {}: {error}. It stays dirty for {}.",
                        name.display(),
                        self.peer
                    ));
                    continue;
                }
            };
            if metadata.as_ref().is_some_and(|metadata| metadata.kind == FileKind::Socket) {
                // Sockets are never sent: nothing is left to be done about them.
                if !self.dry_run {
                    self.node.store.clear(&[entry]).await?;
                }
                continue;
            }
            let list = if metadata.is_some() { &mut pushes } else { &mut removals };
            list.push(Job {
                forced: entry.forced,
                entry,
                key,
                place,
                metadata,
                disputed: false,
                waits: 0,
                outstanding: 0,
                progress: Progress::Asking,
                digest: None,
                attempt: 0,
                time_is_due: false,
                failed: false,
                adopts: false,
            });
        }
        Ok((removals, pushes))
    }

    fn group_of(&self, path: &SyncPath, my_name: &str) -> Option<&'a Group> {
        let node: &'a Node = self.node;
        membership::group_with_peer(&node.config, path, Some(my_name), self.peer)
    }

    fn add(&mut self, job: Job) {
        let number = self.jobs.len();
        let parent = job.path().parent().and_then(|parent| self.index.get(&parent).copied());
        if job.metadata.is_some() {
            self.index.insert(job.path().clone(), number);
        }
        self.jobs.push(job);
        match parent {
            Some(parent) if self.jobs[number].metadata.is_some() && !self.dry_run => self.wait_for(parent, number),
            _ => self.ready.push(Reverse(number)),
        }
    }

    fn wait_for(&mut self, parent: usize, number: usize) {
        if self.jobs[parent].progress == Progress::Asking {
            self.waiting.entry(parent).or_default().push(number);
        } else {
            self.ready.push(Reverse(number));
        }
    }

    /// Lets what lies below a directory begin.
    fn release(&mut self, number: usize) {
        for child in self.waiting.remove(&number).unwrap_or_default() {
            self.ready.push(Reverse(child));
        }
    }

    /// Sends and receives until nothing is left to do.
    async fn drain(&mut self) -> Result<(), SessionError> {
        loop {
            self.issue();
            let Some(awaited) = self.expected.pop_front() else { return Ok(()) };
            self.receive(awaited).await?;
            if self.confirmed.len() >= CLEAR_AT {
                self.clear_confirmed().await?;
            }
        }
    }

    /// Sends as much as the two rules allow: questions first, so that answers are in when data may follow.
    fn issue(&mut self) {
        while !self.patching {
            if self.asking < WINDOW
                && let Some(Reverse(number)) = self.ready.pop()
            {
                self.begin(number);
            } else if let Some(number) = self.decided.pop_front() {
                self.change(number);
            } else {
                return;
            }
        }
    }

    fn begin(&mut self, number: usize) {
        let job = &mut self.jobs[number];
        if self.dry_run && job.forced {
            let prospect = if job.metadata.is_some() { Prospect::Modify } else { Prospect::Delete };
            return self.forecast(number, prospect);
        }
        if job.waits == 0 && !self.dry_run {
            let verb = if job.metadata.is_some() { "Updating" } else { "Deleting" };
            tracing::info!("{verb} {} on {} ...", job.path(), self.peer);
        }
        let (key, file) = (job.key.clone(), job.file());
        let (request, expected) = if job.forced {
            (Request::Flush { key, file }, Expected::Flush)
        } else {
            (Request::Sig { key, file }, Expected::Signature)
        };
        self.asking += 1;
        self.send(number, &request, expected);
    }

    fn send(&mut self, number: usize, request: &Request, expected: Expected) {
        self.outbox.send(request);
        self.expect(number, expected);
    }

    fn expect(&mut self, number: usize, expected: Expected) {
        let job = &mut self.jobs[number];
        job.outstanding += 1;
        self.expected.push_back(Awaited { number, attempt: job.attempt, expected });
    }

    /// Sends what makes the peer's file like ours.
    fn change(&mut self, number: usize) {
        let job = &self.jobs[number];
        let (key, file) = (job.key.clone(), job.file());
        let Some(metadata) = job.metadata.clone() else {
            return self.send(number, &Request::Del { key, file }, Expected::Done);
        };
        let request = match &metadata.kind {
            FileKind::Regular { .. } => {
                self.patching = true;
                return self.send(number, &Request::Patch { key, file }, Expected::SendData);
            }
            FileKind::Directory => Request::MkDir { key, file, attributes: None },
            FileKind::Symlink { target } => Request::MkLink { key, file, target: target.clone() },
            FileKind::CharDevice { device } => Request::MkChr { key, file, device: Some(*device) },
            FileKind::BlockDevice { device } => Request::MkBlk { key, file, device: Some(*device) },
            FileKind::Fifo => Request::MkFifo { key, file },
            FileKind::Socket => Request::MkSock { key, file },
        };
        self.send(number, &request, Expected::Done);
        self.attributes(number, &metadata);
        self.jobs[number].progress = Progress::Underway;
        self.release(number);
    }

    /// Owner, mode and time, as far as the kind of file has them. A directory's time waits for what comes into it.
    fn attributes(&mut self, number: usize, metadata: &Metadata) {
        let job = &self.jobs[number];
        let (key, file) = (job.key.clone(), job.file());
        let owner = Request::SetOwn { key: key.clone(), file: file.clone(), uid: metadata.uid, gid: metadata.gid };
        self.send(number, &owner, Expected::Done);
        if matches!(metadata.kind, FileKind::Symlink { .. }) {
            return;
        }
        self.send(number, &Request::SetMod { key, file, mode: metadata.mode }, Expected::Done);
        if metadata.is_directory() {
            self.set_time_last(number);
        } else {
            self.set_time(number, metadata);
        }
    }

    fn set_time_last(&mut self, number: usize) {
        if !std::mem::replace(&mut self.jobs[number].time_is_due, true) {
            self.timed.push(number);
        }
    }

    fn set_time(&mut self, number: usize, metadata: &Metadata) {
        let job = &self.jobs[number];
        let mtime = mtime_number(metadata.mtime, MtimeUnit::Seconds);
        let request = Request::SeTime { key: job.key.clone(), file: job.file(), mtime };
        self.send(number, &request, Expected::Done);
    }

    async fn receive(&mut self, awaited: Awaited) -> Result<(), SessionError> {
        let Awaited { number, attempt, expected } = awaited;
        let line = self.reader.read_line().await?.ok_or(WireError::Closed)?;
        let reply = Reply::parse(&line);
        if attempt != self.jobs[number].attempt {
            return Ok(());
        }
        self.jobs[number].outstanding -= 1;
        match expected {
            Expected::Signature => {
                self.asking -= 1;
                self.on_signature(number, &reply, &line).await
            }
            Expected::Flush => {
                self.asking -= 1;
                if reply.is_ok() {
                    self.decided.push_back(number);
                } else {
                    self.refuse(number, &line);
                }
                Ok(())
            }
            Expected::SendData if reply.is_ok() => self.on_send_data(number).await,
            Expected::SendData => {
                self.patching = false;
                self.on_refusal(number, &reply, &line).await
            }
            Expected::Mtime | Expected::Size if reply.is_ok() => self.on_measure(number, expected).await,
            Expected::Mtime | Expected::Size => {
                self.refuse(number, &line);
                Ok(())
            }
            Expected::Done if reply.is_ok() => {
                self.conclude(number);
                Ok(())
            }
            Expected::Done => self.on_refusal(number, &reply, &line).await,
        }
    }

    async fn on_signature(&mut self, number: usize, reply: &Reply, line: &[u8]) -> Result<(), SessionError> {
        if !reply.is_ok() {
            return self.on_refusal(number, reply, line).await;
        }
        let checktxt = Checktxt::from_text(&self.reader.read_line().await?.ok_or(WireError::Closed)?);
        let signature = self.read_signature().await?;
        let end = self.reader.read_line().await?.ok_or(WireError::Closed)?;
        if !Reply::parse(&end).is_ok() {
            self.refuse(number, &end);
            return Ok(());
        }
        let missing = matches!(reply, Reply::NotFound | Reply::PathNotFound);
        let Some(metadata) = self.jobs[number].metadata.clone() else {
            match (missing, self.dry_run) {
                (true, true) => self.forecast(number, Prospect::InSync),
                (true, false) => self.conclude(number),
                (false, true) => self.forecast(number, Prospect::Delete),
                (false, false) => self.decided.push_back(number),
            }
            return Ok(());
        };
        let equal = !missing && self.is_equal(number, &metadata, &checktxt, signature).await?;
        if self.dry_run {
            self.forecast(number, if equal { Prospect::InSync } else { Prospect::Modify });
        } else if equal {
            tracing::info!("File is already up to date on peer.");
            self.jobs[number].progress = Progress::Underway;
            self.release(number);
            match metadata.kind {
                FileKind::Symlink { .. } => self.conclude(number),
                FileKind::Directory => {
                    self.set_time_last(number);
                    self.conclude(number);
                }
                _ => self.set_time(number, &metadata),
            }
        } else {
            if missing && self.jobs[number].adopts {
                self.adopt_contents(number).await?;
            }
            self.decided.push_back(number);
        }
        Ok(())
    }

    /// The signature that follows, whole; `None` when the peer could not make it or it is beyond all measure.
    async fn read_signature(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let OctetHeader::Length(length) = self.reader.read_octet_header().await? else { return Ok(None) };
        let fits = length <= MAX_SIGNATURE;
        let mut signature = Vec::new();
        let mut sink = |bytes: &[u8]| {
            if fits {
                signature.extend_from_slice(bytes);
            }
            Ok(())
        };
        // The sink never fails.
        let _ = self.reader.read_body(length, &mut sink).await?;
        Ok(fits.then_some(signature))
    }

    async fn is_equal(
        &mut self,
        number: usize,
        metadata: &Metadata,
        theirs: &Checktxt,
        signature: Option<Vec<u8>>,
    ) -> Result<bool, SessionError> {
        let ours = Checktxt::of(metadata, self.node.config.ignore, MtimeUnit::Zero);
        if !ours.equal_but_for_mtime(theirs) {
            return Ok(false);
        }
        let (true, Some(signature)) = (metadata.is_regular(), signature) else { return Ok(!metadata.is_regular()) };
        let place = self.jobs[number].place.clone();
        let compared = blocking("update", move || local::same_content(&place, &signature)).await?;
        // A file that cannot be read is found out, and said, when its delta is made.
        self.jobs[number].digest = compared.unwrap_or(None);
        Ok(self.jobs[number].digest.is_some())
    }

    async fn on_send_data(&mut self, number: usize) -> Result<(), SessionError> {
        let signature = self.read_signature().await?.unwrap_or_else(|| crate::delta::MISSING_BASIS.to_vec());
        let place = self.jobs[number].place.clone();
        let prepared = blocking("update", move || local::prepare(&place, &signature)).await?;
        self.patching = false;
        let job = &mut self.jobs[number];
        job.progress = Progress::Underway;
        match prepared {
            Ok(prepared) => {
                if prepared.changed {
                    let (path, peer) = (job.path(), self.peer);
                    self.report
                        .error(format_args!("ERROR: {path} was changed while it was sent to {peer}: it stays dirty."));
                    self.stay(number);
                }
                let job = &mut self.jobs[number];
                job.digest = Some(prepared.digest);
                job.metadata = Some(prepared.metadata.clone());
                self.outbox.send_stream(prepared.length, prepared.delta);
                self.expect(number, Expected::Done);
                self.attributes(number, &prepared.metadata);
            }
            Err(error) => {
                self.report.error(format_args!(
                    "ERROR: {}: {error}{}. It stays dirty for {}.",
                    self.jobs[number].place.absolute().display(),
                    std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default(),
                    self.peer
                ));
                self.jobs[number].failed = true;
                // The peer answers that the file is not changed, and the session goes on.
                self.outbox.send_text(b"octet-stream -1\n");
                self.expect(number, Expected::Done);
            }
        }
        Ok(())
    }

    /// Any answer but OK to something that concerns one file.
    async fn on_refusal(&mut self, number: usize, reply: &Reply, line: &[u8]) -> Result<(), SessionError> {
        let nothing_there = match reply {
            Reply::ParentDirMissing => true,
            Reply::Text(text) => text == "Not a directory",
            _ => false,
        };
        match reply {
            // Where its directory is missing, or is something else by now, there is nothing left to remove.
            _ if nothing_there && self.jobs[number].metadata.is_none() => {
                if self.dry_run {
                    self.forecast(number, Prospect::InSync);
                } else {
                    self.conclude(number);
                }
                Ok(())
            }
            Reply::ParentDirMissing if self.dry_run => {
                self.forecast(number, Prospect::Modify);
                Ok(())
            }
            Reply::ParentDirMissing => self.on_missing_parent(number, line).await,
            Reply::AlsoDirty if !self.jobs[number].disputed => {
                self.jobs[number].disputed = true;
                self.dispute(number, line);
                Ok(())
            }
            _ => {
                self.refuse(number, line);
                Ok(())
            }
        }
    }

    fn dispute(&mut self, number: usize, line: &[u8]) {
        let job = &self.jobs[number];
        let (path, my_name, removal) = (job.path().clone(), job.entry.my_name.clone(), job.metadata.is_none());
        let Some(group) = self.group_of(&path, &my_name) else { return self.refuse(number, line) };
        let peer = self.peer;
        let in_group = |group: &'_ Group| {
            group.hosts.iter().find(|host| host.name == peer).cloned().map(|host| (group.i_am_slave, host))
        };
        let Some((_, host)) = in_group(group) else { return self.refuse(number, line) };
        let common = membership::groups_of(&self.node.config, &path, Purpose::Sync).filter_map(in_group);
        let step = conflict::resolve(&Dispute {
            method: group.auto,
            peer_side: host.side,
            peer_is_slave: { common }.any(|(i_am_slave, host)| host.slave && !i_am_slave),
            removal,
        });
        self.settle(number, step);
    }

    fn settle(&mut self, number: usize, step: Step) {
        let (key, file) = (self.jobs[number].key.clone(), self.jobs[number].file());
        match step {
            Step::Won(test) => {
                tracing::warn!("Auto-resolving conflict: Won '{test}' test.");
                let job = &mut self.jobs[number];
                job.forced = true;
                job.attempt += 1;
                job.outstanding = 0;
                job.progress = Progress::Asking;
                self.ready.push(Reverse(number));
            }
            Step::Lost(loss) => {
                match loss {
                    Some(Loss::Test(test)) => tracing::warn!("Do not auto-resolve conflict: Lost '{test}' test."),
                    Some(Loss::Removal) => tracing::warn!("Do not auto-resolve conflict: This is a removal."),
                    None => {}
                }
                self.refuse(number, b"File is also marked dirty here!");
            }
            Step::AskMtime => self.send(number, &Request::GetTm { key, file }, Expected::Mtime),
            Step::AskSize => self.send(number, &Request::GetSz { key, file }, Expected::Size),
        }
    }

    async fn on_measure(&mut self, number: usize, expected: Expected) -> Result<(), SessionError> {
        let line = self.reader.read_line().await?.ok_or(WireError::Closed)?;
        let theirs: i64 = std::str::from_utf8(&line)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| WireError::Protocol(format!("no number: {}", String::from_utf8_lossy(&line))))?;
        let job = &self.jobs[number];
        let (Some(group), Some(metadata)) = (self.group_of(job.path(), &job.entry.my_name), job.metadata.as_ref())
        else {
            self.refuse(number, b"File is also marked dirty here!");
            return Ok(());
        };
        let step = if expected == Expected::Mtime {
            let theirs = (theirs != -1).then(|| mtime_of_unknown_unit(theirs).seconds);
            conflict::by_mtime(group.auto, &metadata.mtime.seconds, theirs.as_ref())
        } else {
            let ours = if let FileKind::Regular { size } = metadata.kind { size } else { 0 };
            conflict::by_size(group.auto, ours, u64::try_from(theirs).ok())
        };
        self.settle(number, step);
        Ok(())
    }

    /// The peer lacks the file's directory: ours goes first, with what is known below it.
    async fn on_missing_parent(&mut self, number: usize, line: &[u8]) -> Result<(), SessionError> {
        let Some(parent) = self.jobs[number].path().parent() else {
            self.refuse(number, line);
            return Ok(());
        };
        if let Some(&directory) = self.index.get(&parent) {
            let job = &self.jobs[directory];
            if !job.failed && job.is_directory() && self.jobs[number].waits < PARENT_RETRIES {
                self.jobs[number].waits += 1;
                self.wait_for(directory, number);
            } else {
                self.leave_below(number, &parent);
            }
            return Ok(());
        }
        let my_name = self.jobs[number].entry.my_name.clone();
        let place = self.node.config.local(&parent).ok();
        let here = match place {
            Some(place) => blocking("update", move || local::look(&place)).await?,
            None => Local::Gone,
        };
        let shared = self.group_of(&parent, &my_name).is_some()
            && membership::is_covered(&self.node.config, &parent, Purpose::Sync);
        if !shared || !matches!(here, Local::There(ref metadata) if metadata.is_directory()) {
            self.leave_below(number, &parent);
            return Ok(());
        }
        for entry in self.mark_for_peer(vec![parent.clone()], &my_name).await? {
            self.adopt(entry, true).await?;
        }
        match self.index.get(&parent).copied() {
            Some(directory) => {
                self.jobs[number].waits += 1;
                self.wait_for(directory, number);
            }
            None => self.leave_below(number, &parent),
        }
        Ok(())
    }

    /// A directory that cannot be made is reported once; what belongs below it stays dirty.
    fn leave_below(&mut self, number: usize, parent: &SyncPath) {
        if self.reported_parents.insert(parent.clone()) {
            let job = &self.jobs[number];
            self.report.error(format_args!(
                "ERROR: {}: {}: Parent dir missing. {parent} does not exist on {} and cannot be made from here: is it \
                 in a group of both hosts? Else make it there.",
                self.peer,
                job.path(),
                self.peer
            ));
        }
        self.stay(number);
    }

    async fn mark_for_peer(&mut self, paths: Vec<SyncPath>, my_name: &str) -> Result<Vec<DirtyEntry>, SessionError> {
        let scopes = paths.iter().cloned().map(Scope::File).collect();
        let marks = paths.into_iter().map(|path| Mark {
            path,
            my_name: my_name.to_owned(),
            peer: self.peer.to_owned(),
            forced: false,
        });
        self.node.store.mark(marks.collect(), Vec::new()).await?;
        Ok(self.node.store.dirty(DirtyFilter { peer: Some(self.peer.to_owned()), scopes }).await?)
    }

    async fn adopt(&mut self, entry: DirtyEntry, adopts: bool) -> Result<(), SessionError> {
        let (_, pushes) = self.plan(vec![entry]).await?;
        for job in pushes {
            self.add(Job { adopts, ..job });
        }
        Ok(())
    }

    /// What is known below a directory that the peer did not have is missing there as well.
    async fn adopt_contents(&mut self, number: usize) -> Result<(), SessionError> {
        let (path, my_name) = (self.jobs[number].path().clone(), self.jobs[number].entry.my_name.clone());
        let mut below = Vec::new();
        let mut rows = self.node.store.files(vec![Scope::Tree(path.clone())]);
        while let Some(chunk) = rows.recv().await {
            let known = chunk?.into_iter().map(|record| record.path);
            below.extend(known.filter(|known| *known != path && !self.index.contains_key(known)));
        }
        below.retain(|path| self.group_of(path, &my_name).is_some());
        if !below.is_empty() {
            let entries = self.mark_for_peer(below, &my_name).await?;
            let (_, pushes) = self.plan(entries).await?;
            for job in pushes {
                self.add(job);
            }
        }
        Ok(())
    }

    async fn set_directory_times(&mut self) -> Result<(), SessionError> {
        let mut timed = std::mem::take(&mut self.timed);
        timed.sort_by_key(|&number| Reverse(self.jobs[number].path().depth()));
        for chunk in timed.chunks(WINDOW) {
            for &number in chunk {
                self.jobs[number].time_is_due = false;
                if !self.jobs[number].failed
                    && let Some(metadata) = self.jobs[number].metadata.clone()
                {
                    self.set_time(number, &metadata);
                }
            }
            self.drain().await?;
        }
        Ok(())
    }

    /// The peer said no: reported with all that is needed to act on it.
    fn refuse(&mut self, number: usize, line: &[u8]) {
        let job = &self.jobs[number];
        if !job.failed {
            let answer = String::from_utf8_lossy(line);
            let advice = match Reply::parse(line) {
                Reply::AlsoDirty => {
                    " Changed on both sides: `csync2 -f FILE` on the side that shall win, then `csync2 -u` there."
                }
                Reply::PermissionDenied => " Do both hosts have the same key file and the same patterns for the group?",
                Reply::PermissionDeniedSlave => " This host is a slave in the group: it only receives.",
                _ => "",
            };
            self.report.error(format_args!("ERROR: {}: {}: {answer}{advice}", self.peer, job.path()));
        }
        self.stay(number);
    }

    /// The row stays; whatever waits for this directory finds out from the peer.
    fn stay(&mut self, number: usize) {
        if !std::mem::replace(&mut self.jobs[number].failed, true) {
            tracing::info!("File stays in dirty state. Try again later...");
        }
        self.conclude(number);
    }

    /// An answer is in. The outcome is known when none is outstanding.
    fn conclude(&mut self, number: usize) {
        let job = &mut self.jobs[number];
        if job.outstanding > 0 {
            return;
        }
        job.progress = Progress::Over;
        if !job.failed && !job.time_is_due {
            self.confirmed.push(number);
        }
        self.release(number);
    }

    fn forecast(&mut self, number: usize, prospect: Prospect) {
        let job = &mut self.jobs[number];
        job.progress = Progress::Over;
        let (forced, peer, path) = (job.forced, self.peer.to_owned(), job.path().clone());
        self.forecasts.push((number, Forecast { prospect, forced, peer, path }));
        self.release(number);
    }

    /// Forgets exactly the dirty rows that were read, and remembers the digests of what the peer has now.
    async fn clear_confirmed(&mut self) -> Result<(), SessionError> {
        let confirmed = std::mem::take(&mut self.confirmed);
        if confirmed.is_empty() {
            return Ok(());
        }
        let entries: Vec<DirtyEntry> = confirmed.iter().map(|&number| self.jobs[number].entry.clone()).collect();
        self.node.store.clear(&entries).await?;
        let pushed: HashMap<&SyncPath, usize> = confirmed
            .iter()
            .filter(|&&number| self.jobs[number].digest.is_some())
            .map(|&number| (self.jobs[number].path(), number))
            .collect();
        if pushed.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut rows = self.node.store.files(pushed.keys().map(|&path| Scope::File(path.clone())).collect());
        while let Some(chunk) = rows.recv().await {
            for record in chunk? {
                let Some(job) = pushed.get(&record.path).map(|&number| &self.jobs[number]) else { continue };
                let Some(metadata) = &job.metadata else { continue };
                let fresh = self.node.record(record.path.clone(), metadata, job.digest);
                if record.checktxt.describes(&fresh.checktxt, metadata.mtime) && record.digest != fresh.digest {
                    changes.push(Change {
                        path: record.path,
                        expected: Some(record.checktxt),
                        record: Some(fresh),
                        marks: Vec::new(),
                        actions: Vec::new(),
                    });
                }
            }
        }
        self.node.store.apply(changes).await?;
        Ok(())
    }
}
