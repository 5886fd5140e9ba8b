//! The work in the batch dialect (docs/protocol.md): files are offered as many as may be open, and what the peer answers
//! decides. Jobs, conflicts, refusals and missing directories are those of the other dialects.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;

use super::{Pipeline, Task};
use crate::engine::check::{Marks, removal};
use crate::engine::contact::{Dialect, SessionError};
use crate::engine::update::exchange::{Answer as Line, Happened};
use crate::engine::update::feed::{Sent, Wanted, Whole};
use crate::engine::update::job::{Due, Progress, Told};
use crate::engine::update::local;
use crate::engine::{EngineError, blocking};
use crate::fs::{Locator, Presence, presence};
use crate::model::errors::strerror;
use crate::model::{FileKind, Metadata, SyncPath};
use crate::wire::batch::{Answer, Described, MAX_SUMS, Offer, Push, Theirs};
use crate::wire::frame::{HEADER, MAX_BODY};
use crate::wire::{Attributes, Reply, WireError};

/// Offers that are open at once: less than the peer allows, since one that it has refused may not be over there.
const OFFERS: usize = 2_000;

/// How often a file may be away when it is to be read.
const VANISHED: u8 = 10;

/// Bytes of open offers, likewise.
const BYTES: usize = 4 << 20;

/// What is offered.
#[derive(Debug, Default)]
pub(super) struct Offers {
    open: HashMap<u32, Offered>,
    next_id: u32,
    bytes: usize,
    /// Bytes of sums that are kept.
    sums: usize,
    /// The group key that the peer knows of.
    key: Option<String>,
    /// Frames have been sent.
    begun: bool,
}

#[derive(Debug)]
struct Offered {
    number: usize,
    attempt: u32,
    bytes: usize,
    /// Where what the peer says of its file goes, as long as more of it is to come.
    describing: Option<Sender<Bytes>>,
    /// How many bytes that were.
    sums: usize,
    /// It is its time only.
    time_only: bool,
    /// What a user reads of it was said.
    announced: bool,
}

impl Offers {
    /// Says which key the next offer is made with, unless the peer knows it.
    fn use_key(&mut self, key: &str, frames: &mut Vec<u8>) {
        if self.key.as_deref() != Some(key) {
            frames.extend(Push::Key(key.to_owned()).encode());
            self.key = Some(key.to_owned());
        }
    }
}

impl Pipeline<'_> {
    /// Whether files are offered.
    pub(super) fn offers(&self) -> bool {
        matches!(self.exchange.dialect, Dialect::Batch { .. })
    }

    /// Offers, and acts on answers, until nothing is left to do.
    pub(super) async fn drain_offers(&mut self) -> Result<(), SessionError> {
        loop {
            self.offer_all();
            if self.offered.open.is_empty() {
                return Ok(());
            }
            match self.exchange.happened().await? {
                Happened::Sent(sent) => self.on_sent(sent).await?,
                Happened::Answers(answers) => self.on_answers(answers).await?,
            }
            self.record_some().await?;
        }
    }

    /// Goes back to lines.
    pub(super) async fn leave(&mut self) -> Result<(), SessionError> {
        if std::mem::take(&mut self.offered.begun) { Ok(self.exchange.leave().await?) } else { Ok(()) }
    }

    fn offer_all(&mut self) {
        let mut frames = Vec::new();
        while self.offered.open.len() < OFFERS && self.offered.bytes < BYTES && !self.stop.is_cancelled() {
            if let Some(std::cmp::Reverse(number)) = self.ready.pop() {
                match self.jobs[number].other_spelling {
                    Some(other) if self.jobs[other].progress == Progress::Asking => self.wait_for(other, number),
                    _ => self.offer(number, false, &mut frames),
                }
            } else if let Some(task) = self.decided.pop_front() {
                match task {
                    Task::Change(number) => self.offer(number, false, &mut frames),
                    Task::Time(number) if self.jobs[number].progress == Progress::Untimed => {
                        self.jobs[number].progress = Progress::Underway;
                        self.offer(number, true, &mut frames);
                    }
                    Task::Time(_) => {}
                }
            } else {
                break;
            }
        }
        if !frames.is_empty() {
            if !std::mem::replace(&mut self.offered.begun, true) {
                self.exchange.begin_frames();
            }
            self.exchange.send_frames(frames);
        }
    }

    fn offer(&mut self, number: usize, time_only: bool, frames: &mut Vec<u8>) {
        let id = self.offered.next_id;
        let job = &self.jobs[number];
        let offer = offer(id, job.metadata.as_ref(), job.path(), job.candidate.forced, time_only);
        let bytes = offer.bytes();
        let frame = Push::Offer(offer).encode();
        if frame.len() > HEADER + MAX_BODY {
            return self.fail(number, Some("its names are longer than a frame may be; shorten them"));
        }
        self.offered.use_key(&job.candidate.key, frames);
        frames.extend(frame);
        tracing::trace!("Local> OFFER {}", job.path());
        let job = &mut self.jobs[number];
        job.outstanding += 1;
        if job.is_directory() && !time_only {
            job.due = Due::Time;
        }
        let announced = job.attempt > 0 || time_only;
        let offered = Offered { number, attempt: job.attempt, bytes, describing: None, sums: 0, time_only, announced };
        self.offered.next_id = id.wrapping_add(1);
        self.offered.bytes += bytes;
        self.offered.open.insert(id, offered);
    }

    fn close(&mut self, id: u32) -> Option<Offered> {
        let offered = self.offered.open.remove(&id)?;
        self.offered.bytes -= offered.bytes;
        self.offered.sums -= offered.sums;
        Some(offered)
    }

    /// The job of an answer, unless that is about an earlier attempt; what it is about is said once.
    fn subject(&mut self, offered: &mut Offered) -> Option<usize> {
        let number = offered.number;
        if self.jobs[number].attempt != offered.attempt || self.jobs[number].is_over() {
            return None;
        }
        if !std::mem::replace(&mut offered.announced, true) {
            self.announce(number);
        }
        Some(number)
    }

    async fn on_answers(&mut self, answers: Vec<Answer>) -> Result<(), SessionError> {
        let mut compares = Vec::new();
        for answer in answers {
            match answer {
                Answer::Want { id, described } => self.on_want(id, described)?,
                Answer::Compare { id, digest } => compares.push((id, digest)),
                Answer::Sums { id, bytes } => self.on_sums(id, bytes)?,
                Answer::Left => return Err(WireError::Protocol("the peer left frames unasked".to_owned()).into()),
                Answer::Conflict { id, theirs } => self.on_conflict(id, theirs).await?,
                Answer::Refused { id, text } => self.on_refused(id, text.to_vec()).await?,
                Answer::Done { id, already } => self.on_done(id, already).await?,
            }
        }
        self.compare(compares).await
    }

    /// Sums are kept until the content is over. The peer says no more than is allowed; what it says of a content that was
    /// called off meanwhile is dropped.
    fn on_sums(&mut self, id: u32, bytes: Bytes) -> Result<(), SessionError> {
        let Some(offered) = self.offered.open.get_mut(&id) else { return Ok(()) };
        let Some(describing) = &offered.describing else { return Err(out_of_step(id).into()) };
        if bytes.is_empty() {
            offered.describing = None;
            return Ok(());
        }
        self.offered.sums += bytes.len();
        offered.sums += bytes.len();
        if self.offered.sums > MAX_SUMS {
            return Err(WireError::Protocol(format!("too many sums for offer {id}")).into());
        }
        // Nobody reads it any more where the content has failed.
        let _ = describing.send(bytes);
        Ok(())
    }

    fn on_want(&mut self, id: u32, described: bool) -> Result<(), SessionError> {
        let Some(mut offered) = self.offered.open.remove(&id) else { return Err(out_of_step(id).into()) };
        let subject = self.subject(&mut offered);
        let theirs = described.then(|| {
            let (describing, theirs) = channel();
            offered.describing = Some(describing);
            theirs
        });
        self.offered.open.insert(id, offered);
        if let Some(number) = subject {
            let job = &mut self.jobs[number];
            job.past.streamed = true;
            let (place, insist) = (job.candidate.place.clone(), job.past.resent);
            let contents = Arc::clone(self.contents);
            let pack = self.node.config.compression;
            self.exchange.send_content(Wanted { id, place, contents, insist, pack, theirs });
        } else {
            self.close(id);
            self.exchange.send_frames(Push::Cancel { id }.encode());
        }
        Ok(())
    }

    /// What came of a content, before the peer's answer to it.
    async fn on_sent(&mut self, Sent { id, outcome }: Sent) -> Result<(), SessionError> {
        let is_over = !matches!(&outcome, Ok(Whole { changed: false, .. }));
        let Some(offered) = self.offered.open.get(&id) else { return Ok(()) };
        let number = offered.number;
        let insisted = self.jobs[number].past.resent;
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.has_another_state(number).await? => {
                self.close(id);
                self.jobs[number].begin_anew();
                self.ready.push(std::cmp::Reverse(number));
            }
            Err(error) => {
                self.close(id);
                let place = self.jobs[number].candidate.place.absolute();
                self.fail(number, Some(&format!("{}: {}", place.display(), strerror(&error))));
            }
            Ok(Whole { changed: true, .. }) if insisted => {
                self.fail(number, Some("it was changed while it was sent; it goes with the next run"));
            }
            Ok(Whole { metadata, digest, .. }) => {
                let job = &mut self.jobs[number];
                job.metadata = Some(metadata);
                job.digest = Some(digest);
                if is_over {
                    job.past.resent = true;
                    job.begin_anew();
                    self.ready.push(std::cmp::Reverse(number));
                    self.close(id);
                }
            }
        }
        Ok(())
    }

    /// Takes note of how a file is now that was away when its content was to be read: removed, or there again, as editors replace
    /// files. `false`: it has been so too often, or its removal is not to be believed, or not asked for.
    async fn has_another_state(&mut self, number: usize) -> Result<bool, SessionError> {
        let (path, place) = (self.jobs[number].path().clone(), self.jobs[number].candidate.place.clone());
        let past = &mut self.jobs[number].past;
        past.vanished += 1;
        if past.vanished > VANISHED {
            return Ok(false);
        }
        let now = match blocking("update", move || presence(place.root(), place.relative())).await? {
            Presence::Present(metadata) if metadata.kind != FileKind::Socket => Some(metadata),
            Presence::Gone | Presence::BehindSymlink => {
                if self.without_removals {
                    return Ok(false);
                }
                let record = self.node.store.file(&path).await.map_err(EngineError::from)?;
                if record
                    .is_some_and(|record| removal::disbelief(&self.node.config, &record, Marks::Everything).is_some())
                {
                    return Ok(false);
                }
                None
            }
            _ => return Ok(false),
        };
        self.jobs[number].metadata = now;
        Ok(true)
    }

    /// Hashes what is here of files that look equal.
    async fn compare(&mut self, compares: Vec<(u32, [u8; 32])>) -> Result<(), SessionError> {
        let mut questions = Vec::new();
        for (id, digest) in compares {
            let Some(offered) = self.offered.open.get(&id) else { return Err(out_of_step(id).into()) };
            questions.push((id, digest, self.jobs[offered.number].candidate.place.clone()));
        }
        if questions.is_empty() {
            return Ok(());
        }
        let contents = Arc::clone(self.contents);
        let compared = blocking("update", move || {
            let mut locator = Locator::default();
            let compare = |(id, theirs, place)| {
                (id, local::hash(&contents, &mut locator, &place).ok().filter(|(_, ours)| *ours == theirs))
            };
            questions.into_iter().map(compare).collect::<Vec<_>>()
        });
        let mut frames = Vec::new();
        for (id, equal) in compared.await? {
            let Some(mut offered) = self.offered.open.remove(&id) else { continue };
            let is_current = self.subject(&mut offered).is_some();
            let job = &mut self.jobs[offered.number];
            match equal {
                Some((metadata, digest))
                    if is_current && job.metadata.as_ref().is_some_and(|offered| is_same(offered, &metadata)) =>
                {
                    job.metadata = Some(metadata);
                    job.digest = Some(digest);
                    tracing::info!("File is already up to date on peer.");
                    job.already = true;
                    frames.extend(Push::Same { id }.encode());
                }
                // A file that cannot be read is found out, and said, when its content is sent.
                _ => {
                    let offer = offer(id, job.metadata.as_ref(), job.path(), job.candidate.forced, false);
                    self.offered.use_key(&job.candidate.key, &mut frames);
                    frames.extend(Push::Offer(Offer { differs: true, ..offer }).encode());
                }
            }
            self.offered.open.insert(id, offered);
        }
        self.exchange.send_frames(frames);
        Ok(())
    }

    async fn on_conflict(&mut self, id: u32, theirs: Option<Theirs>) -> Result<(), SessionError> {
        let Some(mut offered) = self.close(id) else { return Err(out_of_step(id).into()) };
        let Some(number) = self.subject(&mut offered) else { return Ok(()) };
        self.jobs[number].outstanding -= 1;
        self.jobs[number].theirs = theirs.map_or(Told::NothingThere, Told::There);
        let line = Reply::AlsoDirty.text().into_bytes();
        self.on_refusal(number, &Line { line, reply: Reply::AlsoDirty, data: None }).await
    }

    async fn on_refused(&mut self, id: u32, line: Vec<u8>) -> Result<(), SessionError> {
        let Some(mut offered) = self.close(id) else { return Err(out_of_step(id).into()) };
        let Some(number) = self.subject(&mut offered) else { return Ok(()) };
        let reply = Reply::parse(&line);
        let job = &mut self.jobs[number];
        job.outstanding -= 1;
        // The system's words: what is below may be the reason.
        let may_be_filled = job.is_removal() && matches!(reply, Reply::Text(_));
        if may_be_filled && job.nest.below > 0 {
            // It is offered again when those below are over.
            job.nest.ready = true;
            return Ok(());
        }
        if may_be_filled && job.nest.occupied {
            self.fail(number, None);
            return Ok(());
        }
        self.on_refusal(number, &Line { line, reply, data: None }).await
    }

    async fn on_done(&mut self, id: u32, already: bool) -> Result<(), SessionError> {
        let Some(mut offered) = self.close(id) else { return Err(out_of_step(id).into()) };
        let Some(number) = self.subject(&mut offered) else { return Ok(()) };
        let job = &mut self.jobs[number];
        job.outstanding -= 1;
        let is_said = offered.time_only || job.digest.is_some();
        if already && !is_said {
            tracing::info!("File is already up to date on peer.");
        }
        if already {
            job.already |= !offered.time_only;
            job.adopted = false;
        }
        self.adopt_contents(number).await?;
        self.conclude(number);
        Ok(())
    }
}

fn offer(id: u32, metadata: Option<&Metadata>, path: &SyncPath, forced: bool, time_only: bool) -> Offer {
    let describe = |metadata: &Metadata| {
        let Metadata { uid, gid, mode, mtime, .. } = *metadata;
        Described { kind: metadata.kind.clone(), attributes: Attributes { uid, gid, mode, mtime } }
    };
    let (state, name) = (metadata.map(describe), path.as_bytes().to_vec().into());
    Offer { id, forced: forced && !time_only, differs: false, time_only, state, name }
}

/// Whether the file is still as it was offered.
fn is_same(offered: &Metadata, now: &Metadata) -> bool {
    let state =
        |metadata: &Metadata| (metadata.kind.clone(), metadata.mode, metadata.uid, metadata.gid, metadata.mtime);
    state(offered) == state(now)
}

fn out_of_step(id: u32) -> WireError {
    WireError::Protocol(format!("the peer answered offer {id}, which is not open"))
}
