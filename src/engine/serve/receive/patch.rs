//! PATCH: the signature of what we have goes out, a delta comes in, and the new content is built beside the old.

use std::fs::File;

use super::super::apply::{Assembled, Copies, Rules, Target};
use super::super::peer::Peer;
use super::super::permission::Admitted;
use super::super::query;
use super::super::refusal::Refusal;
use super::super::spool::{Incoming, Spooled};
use super::{Actions, Assembly, Receiver, Stop, given_up};
use crate::engine::{EngineError, blocking, notice, step};
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
}

/// Says what the new file could not get of the old one. Owner and mode are the peer's to set, unless they are ignored.
pub(in super::super) async fn warn_of_lost(peer: &Peer, new: &Assembled) -> Result<(), EngineError> {
    let ignore = peer.node.config.ignore;
    let stays_lost = |attribute: &str| match attribute {
        "owner" => ignore.uid || ignore.gid,
        "mode" => ignore.mode,
        _ => true,
    };
    for lost in new.lost.iter().filter(|lost| stays_lost(&lost.attribute)) {
        notice::warn_of_lost(&peer.node.store, &lost.attribute, &chain(lost)).await?;
    }
    Ok(())
}

impl Receiver {
    /// First half: everything up to the signature of the basis.
    pub(in super::super) async fn begin_patch(
        &mut self,
        peer: &Peer,
        file: Admitted,
        attributes: Option<Attributes>,
    ) -> Result<(Patch, Spooled), Stop> {
        let (target, rules) = self.prepare(peer, &file).await.map_err(Stop::in_system_words)?;
        let kept = self.signatures.take(&file.path, target.before.as_ref());
        let prepared = step("PATCH", move || {
            target.can_become_a_file()?;
            let copies = target.back_up(&rules)?;
            let basis = target.basis()?;
            let signature = match kept {
                Some(kept) => kept,
                None => query::signature_of(basis.as_ref())?,
            };
            Ok::<_, Refusal>((Patch { path: file.path, target, copies, basis, rules, attributes }, signature))
        });
        Ok(prepared.await??)
    }

    /// Second half: the delta is here, or arrives meanwhile.
    pub(in super::super) async fn finish_patch(
        &mut self,
        peer: &Peer,
        patch: Patch,
        mut delta: Incoming,
    ) -> Result<(), Stop> {
        let Patch { path, target, copies, basis, rules, attributes } = patch;
        let complete = attributes.is_some();
        let arrives = !delta.is_complete();
        let (visible, reserved) = self.reserve(peer, &path, &target, &rules).await?;
        let build = move || {
            let temp = target.temp(visible.as_deref(), &rules)?;
            let new = target.assemble(temp, basis.as_ref(), &mut delta, attributes.as_ref(), &rules)?;
            Ok::<_, Refusal>((target, new))
        };
        let built = if arrives { blocking("PATCH", build).await? } else { step("PATCH", build).await? };
        let (target, new) = match built {
            Ok(built) => built,
            Err(refusal) => return Err(given_up(peer, reserved, refusal).await),
        };
        warn_of_lost(peer, &new).await?;
        self.keep_assembled(path, Assembly { target, copies, new, reserved, actions: Actions::Schedule });
        if complete { self.finish(peer).await } else { Ok(()) }
    }
}
