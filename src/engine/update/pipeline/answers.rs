//! What follows from the peer's answers.

use std::sync::Arc;

use super::{Pipeline, Task};
use crate::engine::blocking;
use crate::engine::contact::{Dialect, SessionError};
use crate::engine::update::Prospect;
use crate::engine::update::confirmed::Confirmed;
use crate::engine::update::exchange::{Answer, Awaited, Data, Question};
use crate::engine::update::job::{Due, Progress};
use crate::engine::update::local::{self, Compared, Prepared, Sent};
use crate::engine::update::plan::Candidate;
use crate::model::errors::chain;
use crate::model::{Checktxt, DirtyEntry, FileKind, MtimeUnit};
use crate::wire::Reply;

impl Pipeline<'_> {
    pub(super) async fn receive(&mut self, awaited: Awaited, answer: Answer) -> Result<(), SessionError> {
        let Awaited { number, attempt, question } = awaited;
        self.asking -= usize::from(question.is_opening());
        if attempt != self.jobs[number].attempt {
            if let Some(Data::Basis(_)) = answer.data {
                self.exchange.send_delta(Awaited { question: Question::Change, ..awaited }, None);
            }
            return Ok(());
        }
        self.jobs[number].outstanding -= 1;
        if question.is_opening() && attempt == 0 {
            self.announce(number);
        }
        if !answer.reply.is_ok() {
            return self.on_refusal(number, &answer).await;
        }
        match (question, answer.data) {
            (_, Some(Data::State { checktxt, signature })) => {
                let is_missing = matches!(answer.reply, Reply::NotFound | Reply::PathNotFound);
                self.jobs[number].obstacles.no_directory =
                    answer.reply == Reply::NotFound || !(is_missing || checktxt.is_directory());
                match is_missing {
                    true if self.is_held_back(number) => Ok(()),
                    true => self.on_missing(number).await,
                    false => self.on_state(number, &checktxt, signature).await,
                }
            }
            (_, Some(Data::Basis(signature))) => self.on_basis(awaited, signature).await,
            (question, Some(Data::Number(theirs))) => self.on_measure(number, question, theirs).await,
            (Question::Flush, None) if self.is_held_back(number) => Ok(()),
            (Question::Flush, None) => self.decide(number).await,
            (Question::ClearTheWay, None) => {
                self.jobs[number].obstacles.directory = false;
                self.change(number);
                Ok(())
            }
            (_, None) => {
                self.conclude(number);
                Ok(())
            }
        }
    }

    /// Says whose turn it is, in the words that scripts look for.
    pub(super) fn announce(&self, number: usize) {
        let job = &self.jobs[number];
        let verb = if job.is_removal() { "Deleting" } else { "Updating" };
        tracing::info!("{verb} {} on {} ...", job.path(), self.pair.peer);
    }

    /// The peer does not have the file.
    async fn on_missing(&mut self, number: usize) -> Result<(), SessionError> {
        match (self.jobs[number].is_removal(), self.dry_run) {
            (true, _) => self.is_gone(number),
            (false, true) => {
                self.forecast(number, Prospect::Modify);
                self.adopt_contents(number).await?;
            }
            (false, false) => self.decide(number).await?,
        }
        Ok(())
    }

    /// Nothing is left to remove.
    pub(super) fn is_gone(&mut self, number: usize) {
        tracing::info!("File is already up to date on peer.");
        self.jobs[number].already = true;
        if self.dry_run {
            self.forecast(number, Prospect::InSync);
        } else {
            self.jobs[number].outstanding = 0;
            self.conclude(number);
        }
    }

    /// The peer has something under this name.
    async fn on_state(
        &mut self,
        number: usize,
        theirs: &Checktxt,
        signature: Option<Vec<u8>>,
    ) -> Result<(), SessionError> {
        if self.jobs[number].is_removal() {
            if theirs.is_socket() {
                // It belongs to a program of theirs.
                self.is_gone(number);
                return Ok(());
            }
            if self.dry_run {
                self.forecast(number, Prospect::Delete);
                return Ok(());
            }
            return self.decide(number).await;
        }
        let equal = self.is_equal(number, theirs, signature).await?;
        if self.dry_run {
            if equal {
                tracing::info!("File is already up to date on peer.");
            }
            self.forecast(number, if equal { Prospect::InSync } else { Prospect::Modify });
            return Ok(());
        }
        if !equal {
            self.jobs[number].obstacles.directory |= theirs.is_directory();
            return self.decide(number).await;
        }
        tracing::info!("File is already up to date on peer.");
        self.jobs[number].already = true;
        self.is_underway(number);
        let Some(metadata) = self.jobs[number].metadata.clone() else { return Ok(()) };
        match metadata.kind {
            FileKind::Symlink { .. } => self.conclude(number),
            FileKind::Directory => {
                self.jobs[number].due = Due::Time;
                self.conclude(number);
            }
            _ => _ = self.set_time(number, &metadata),
        }
        Ok(())
    }

    /// Whether the peer's file is like ours, but for its time.
    async fn is_equal(
        &mut self,
        number: usize,
        theirs: &Checktxt,
        signature: Option<Vec<u8>>,
    ) -> Result<bool, SessionError> {
        let ignore = self.node.config.ignore;
        let job = &mut self.jobs[number];
        let described = |metadata| Checktxt::of(metadata, ignore, MtimeUnit::Zero).equal_but_for_mtime(theirs);
        let Some(metadata) = job.metadata.as_ref().filter(|metadata| described(metadata)) else { return Ok(false) };
        if !metadata.is_regular() {
            return Ok(true);
        }
        let Some(signature) = signature else { return Ok(false) };
        let (place, contents) = (job.candidate.place.clone(), Arc::clone(self.contents));
        let compared = blocking("update", move || local::compare(&contents, &place, &signature)).await?;
        // A file that cannot be read is found out, and said, when its delta is made.
        let Ok(Compared { metadata, digest: Some(digest) }) = compared else { return Ok(false) };
        let equal = described(&metadata);
        job.metadata = Some(metadata);
        job.digest = equal.then_some(digest);
        Ok(equal)
    }

    /// The peer's file is to be changed.
    async fn decide(&mut self, number: usize) -> Result<(), SessionError> {
        let job = &mut self.jobs[number];
        if job.is_removal() && job.nest.below > 0 {
            job.nest.ready = true;
            return Ok(());
        }
        if job.is_removal() && job.nest.occupied {
            self.fail(number, None);
            return Ok(());
        }
        self.adopt_contents(number).await?;
        self.decided.push_back(Task::Change(number));
        Ok(())
    }

    /// The peer waits for the delta.
    async fn on_basis(&mut self, patch: Awaited, signature: Vec<u8>) -> Result<(), SessionError> {
        let (number, delta) = (patch.number, Awaited { question: Question::Change, ..patch });
        let (place, contents) = (self.jobs[number].candidate.place.clone(), Arc::clone(self.contents));
        let prepared = blocking("update", move || local::prepare(&contents, &place, &signature)).await?;
        let sent = match prepared {
            Ok(Prepared::Delta { length, delta: body, sent }) => {
                self.exchange.send_delta(delta, Some((length, body)));
                Ok(sent)
            }
            Ok(Prepared::Whole { length, delta: body, whole }) => {
                self.exchange.send_delta(delta, Some((length, body)));
                let (place, contents) = (self.jobs[number].candidate.place.clone(), Arc::clone(self.contents));
                blocking("update", move || whole.send(&contents, &place)).await?
            }
            Err(error) => {
                self.exchange.send_delta(delta, None);
                Err(error)
            }
        };
        let Sent { metadata, digest, changed } = match sent {
            Ok(sent) => sent,
            Err(error) => {
                // The peer leaves its file as it is, and the session goes on.
                let place = self.jobs[number].candidate.place.absolute();
                self.fail(number, Some(&format!("{}: {}", place.display(), chain(&error))));
                return Ok(());
            }
        };
        let job = &mut self.jobs[number];
        job.outstanding += 1;
        if changed && job.past.resent {
            self.fail(number, Some("it was changed while it was sent; it goes with the next run"));
        } else if changed {
            job.past.resent = true;
            job.begin_anew();
            self.ready.push(std::cmp::Reverse(number));
        } else {
            let sent = job.metadata.replace(metadata.clone());
            job.digest = Some(digest);
            let with_it = self.exchange.dialect == Dialect::Atomic
                && sent.is_some_and(|sent| {
                    (sent.uid, sent.gid, sent.mode, sent.mtime)
                        == (metadata.uid, metadata.gid, metadata.mode, metadata.mtime)
                });
            if with_it || self.set_attributes(number, &metadata) {
                self.is_underway(number);
            }
        }
        Ok(())
    }

    /// The peer has done something for this file. All is done when no answer is outstanding and nothing is due.
    pub(super) fn conclude(&mut self, number: usize) {
        let job = &mut self.jobs[number];
        if job.outstanding > 0 || job.is_over() {
            return;
        }
        match std::mem::take(&mut job.due) {
            Due::Nothing => {}
            Due::Attributes => {
                if let Some(metadata) = job.metadata.clone() {
                    self.set_attributes(number, &metadata);
                }
                return;
            }
            Due::Time => {
                job.progress = Progress::Untimed;
                self.untimed.push(number);
                return self.release(number);
            }
        }
        job.progress = Progress::Done;
        let Candidate { ref place, forced, version, .. } = job.candidate;
        let (my_name, peer) = (self.pair.my_name.into(), self.pair.peer.into());
        let entry = DirtyEntry { path: place.path.clone(), forced, my_name, peer, version };
        self.confirmed.push(Confirmed { entry, state: job.metadata.clone(), digest: job.digest });
        self.is_over(number);
    }

    /// Whatever waits for this job goes on.
    pub(super) fn is_over(&mut self, number: usize) {
        let job = &self.jobs[number];
        self.exchange.tally.end_file(job.fate(), if job.past.streamed { 0 } else { job.length() });
        self.release(number);
        let Some(above) = self.jobs[number].nest.above else { return };
        let failed = self.jobs[number].progress == Progress::Failed;
        let directory = &mut self.jobs[above];
        directory.nest.below -= 1;
        directory.nest.occupied |= failed;
        if directory.nest.below > 0 || !directory.nest.ready {
            return;
        }
        if directory.nest.occupied {
            self.fail(above, None);
        } else {
            self.decided.push_back(Task::Change(above));
        }
    }
}
