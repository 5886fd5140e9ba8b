//! PATCH: the signature of what we have goes out, a delta comes in, and the new content is built beside the old.

use std::fs::File;
use std::io;

use tempfile::SpooledTempFile;

use super::super::apply::{Copies, Refusal, Rules, Target};
use super::super::peer::Peer;
use super::super::permission::Admitted;
use super::super::query;
use super::super::spool::Spool;
use super::{Assembly, Receiver, Sequence, State, Stop};
use crate::engine::{EngineError, notice, step};
use crate::model::SyncPath;
use crate::model::errors::chain;
use crate::wire::Attributes;

/// A basis that waits for its delta.
#[derive(Debug)]
pub(in super::super) struct Patch {
    path: SyncPath,
    target: Target,
    copies: Copies,
    basis: Option<File>,
    rules: Rules,
    /// Those that came along, in the second dialect.
    attributes: Option<Attributes>,
    delta: Spool,
}

impl Patch {
    /// The next piece of the delta.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(in super::super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.delta.push(bytes, || self.target.scratch(&self.rules))
    }
}

impl Receiver {
    /// First half: everything up to the signature of the basis, with its length.
    pub(in super::super) async fn begin_patch(
        &mut self,
        peer: &Peer,
        file: Admitted,
        attributes: Option<Attributes>,
    ) -> Result<(Patch, u64, SpooledTempFile), Stop> {
        let (target, rules) = self.prepare(peer, &file).await.map_err(Stop::in_system_words)?;
        let prepared = step("PATCH", move || {
            target.can_become_a_file()?;
            let copies = target.back_up(&rules)?;
            let basis = target.basis()?;
            let (length, signature) = query::signature_of(basis.as_ref())?;
            let delta = Spool::default();
            let patch = Patch { path: file.path, target, copies, basis, rules, attributes, delta };
            Ok::<_, Refusal>((patch, length, signature))
        });
        Ok(prepared.await??)
    }

    /// Second half: the delta is here.
    pub(in super::super) async fn finish_patch(&mut self, peer: &Peer, patch: Patch) -> Result<(), Stop> {
        let Patch { path, target, copies, basis, rules, attributes, delta } = patch;
        let complete = attributes.is_some();
        let built = step("PATCH", move || {
            let mut new = target.assemble(basis, delta.into_reader()?, attributes.as_ref(), &rules)?;
            let metadata = new.metadata()?;
            Ok::<_, Refusal>((target, new, metadata))
        });
        let (target, mut new, metadata) = built.await??;
        // Owner and mode are the peer's to set, unless they are ignored.
        let ignore = peer.node.config.ignore;
        let stays_lost = |attribute: &str| match attribute {
            "owner" => ignore.uid || ignore.gid,
            "mode" => ignore.mode,
            _ => true,
        };
        for lost in new.lost.iter().filter(|lost| stays_lost(&lost.attribute)) {
            notice::warn_of_lost(&peer.node.store, &lost.attribute, &chain(lost)).await.map_err(EngineError::from)?;
        }
        // Owner, mode and time may come meanwhile; they are flushed with the name.
        let flush = new.start_flush()?;
        let intent = if new.is_visible() { Some(self.begin_file(peer, &path, &new, &metadata).await?) } else { None };
        let assembly = Assembly { target, copies, new, flush, intent };
        self.open = Some(Sequence { path, state: State::Assembled(Box::new(assembly)) });
        if complete { self.finish(peer).await } else { Ok(()) }
    }
}
