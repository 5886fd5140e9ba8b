//! A file that was changed on both sides: [`conflict`] decides, here the peer is asked what that needs.

use std::cmp::Reverse;
use std::os::unix::ffi::OsStrExt;

use super::Pipeline;
use crate::engine::blocking;
use crate::engine::conflict::{self, Dispute, Loss, Step};
use crate::engine::contact::SessionError;
use crate::engine::membership::{self, Purpose};
use crate::engine::update::exchange::Question;
use crate::engine::update::job::Told;
use crate::engine::update::local;
use crate::wire::batch::Theirs;
use crate::wire::{Reply, Request};

impl Pipeline<'_> {
    pub(super) async fn dispute(&mut self, number: usize) -> Result<(), SessionError> {
        let job = &mut self.jobs[number];
        job.past.disputed = true;
        // What was sent along with the refused command is refused as well: that is no second conflict.
        job.begin_anew();
        let (path, removal) = (job.path().clone(), job.is_removal());
        let Some(group) = self.group_of(&path) else { return self.settle(number, Step::Lost(None)).await };
        let peer = self.pair.peer;
        let mut common = membership::groups_of(&self.node.config, &path, Purpose::Sync);
        let peer_is_slave =
            common.any(|group| !group.i_am_slave && group.hosts.iter().any(|host| host.name == peer && host.slave));
        let side = group.hosts.iter().find(|host| host.name == peer).map(|host| host.side);
        let Some(peer_side) = side else { return self.settle(number, Step::Lost(None)).await };
        let dispute = Dispute { method: group.auto, peer_side, peer_is_slave, removal };
        self.settle(number, conflict::resolve(&dispute)).await
    }

    /// The peer said how old or large its file is.
    pub(super) async fn on_measure(
        &mut self,
        number: usize,
        question: Question,
        theirs: i64,
    ) -> Result<(), SessionError> {
        let job = &self.jobs[number];
        let (Some(group), Some(metadata)) = (self.group_of(job.path()), &job.metadata) else {
            return self.settle(number, Step::Lost(None)).await;
        };
        let there = theirs != -1;
        let step = if question == Question::Mtime {
            let dialect = self.exchange.dialect;
            let theirs = there.then(|| dialect.mtime(theirs));
            conflict::by_mtime(group.auto, &dialect.comparable(metadata.mtime), theirs.as_ref())
        } else {
            let place = job.candidate.place.clone();
            let ours = blocking("update", move || local::size(&place)).await?;
            conflict::by_size(group.auto, ours, there.then(|| u64::try_from(theirs).unwrap_or_default()))
        };
        self.settle(number, step).await
    }

    async fn settle(&mut self, number: usize, step: Step) -> Result<(), SessionError> {
        let step = match (step, std::mem::take(&mut self.jobs[number].theirs)) {
            (Step::AskMtime | Step::AskSize, Told::There(theirs)) => self.judge(number, step, Some(theirs)).await?,
            (Step::AskMtime | Step::AskSize, Told::NothingThere) => self.judge(number, step, None).await?,
            _ => step,
        };
        match step {
            Step::Won(test) => self.win(number, test),
            Step::Lost(loss) => return self.lose(number, loss).await,
            Step::AskMtime => self.measure(number, Question::Mtime),
            Step::AskSize => self.measure(number, Question::Size),
        }
        Ok(())
    }

    /// Decides by what the peer said along with the conflict.
    async fn judge(&mut self, number: usize, asked: Step, theirs: Option<Theirs>) -> Result<Step, SessionError> {
        let job = &self.jobs[number];
        let (Some(group), Some(metadata)) = (self.group_of(job.path()), &job.metadata) else {
            return Ok(Step::Lost(None));
        };
        if asked == Step::AskMtime {
            return Ok(conflict::by_mtime(group.auto, &metadata.mtime, theirs.map(|theirs| theirs.mtime).as_ref()));
        }
        let place = job.candidate.place.clone();
        let ours = blocking("update", move || local::size(&place)).await?;
        Ok(conflict::by_size(group.auto, ours, theirs.map(|theirs| theirs.size)))
    }

    fn measure(&mut self, number: usize, question: Question) {
        let (key, file) = self.jobs[number].key_and_file();
        let request =
            if question == Question::Mtime { Request::GetTm { key, file } } else { Request::GetSz { key, file } };
        self.ask(number, &request, question);
    }

    /// Pushes it again, forced.
    fn win(&mut self, number: usize, test: &str) {
        let job = &mut self.jobs[number];
        let what = if job.is_removal() { "The removal of " } else { "" };
        tracing::warn!(
            "Auto-resolving conflict: Won '{test}' test. {what}{} goes to {peer}, where it was changed as well.",
            job.path(),
            peer = self.pair.peer
        );
        job.candidate.forced = true;
        job.begin_anew();
        self.ready.push(Reverse(number));
    }

    async fn lose(&mut self, number: usize, loss: Option<Loss>) -> Result<(), SessionError> {
        if self.is_settled(number).await? {
            self.give_up(number);
            return Ok(());
        }
        let (path, peer) = (self.jobs[number].path(), self.pair.peer);
        match loss {
            Some(Loss::Test { name, because }) => {
                tracing::warn!("Do not auto-resolve conflict: Lost '{name}' test. {path} on {peer}: {because}.");
            }
            Some(Loss::Removal) => {
                tracing::warn!(
                    "Do not auto-resolve conflict: This is a removal. {path} was removed here and changed on {peer}."
                );
            }
            None => {}
        }
        self.report_refusal(number, Reply::AlsoDirty.text().as_bytes());
        Ok(())
    }

    /// What the user can do about a conflict that nothing has decided.
    pub(super) fn remedy(&self, number: usize) -> String {
        let here = self.jobs[number].candidate.place.absolute();
        let needs_no_quotes = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(byte);
        let is_plain = here.as_os_str().as_bytes().iter().all(needs_no_quotes);
        let operand = if is_plain { here.display().to_string() } else { "FILE".to_owned() };
        let peer = self.pair.peer;
        format!(
            " Changed on both sides. If this host shall win: `csync2 -f {operand}`, then `csync2 -u`; if {peer} shall \
             win, the same there."
        )
    }
}
