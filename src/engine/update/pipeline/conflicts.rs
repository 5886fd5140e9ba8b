//! A file that was changed on both sides: [`conflict`] decides, here the peer is asked what that needs.

use std::cmp::Reverse;

use super::Pipeline;
use crate::engine::conflict::{self, Dispute, Loss, Step};
use crate::engine::membership::{self, Purpose};
use crate::engine::update::exchange::Question;
use crate::engine::update::session::SessionError;
use crate::model::FileKind;
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
            let ours = if let FileKind::Regular { size } = metadata.kind { size } else { 0 };
            conflict::by_size(group.auto, ours, there.then(|| u64::try_from(theirs).unwrap_or_default()))
        };
        self.settle(number, step).await
    }

    async fn settle(&mut self, number: usize, step: Step) -> Result<(), SessionError> {
        let job = &mut self.jobs[number];
        let (key, file) = job.key_and_file();
        match step {
            Step::Won(test) => {
                tracing::warn!(
                    "Auto-resolving conflict: Won '{test}' test. {} goes to {}.",
                    job.path(),
                    self.pair.peer
                );
                job.forced = true;
                job.begin_anew();
                self.ready.push(Reverse(number));
            }
            Step::Lost(loss) => return self.lose(number, loss).await,
            Step::AskMtime => _ = self.ask(number, &Request::GetTm { key, file }, Question::Mtime),
            Step::AskSize => _ = self.ask(number, &Request::GetSz { key, file }, Question::Size),
        }
        Ok(())
    }

    async fn lose(&mut self, number: usize, loss: Option<Loss>) -> Result<(), SessionError> {
        match loss {
            Some(Loss::Test(test)) => tracing::warn!("Do not auto-resolve conflict: Lost '{test}' test."),
            Some(Loss::Removal) => tracing::warn!("Do not auto-resolve conflict: This is a removal."),
            None => {}
        }
        self.refuse(number, Reply::AlsoDirty.text().as_bytes()).await
    }
}
