//! The commands that change files, and the record that is kept of it.
//!
//! A file comes as a sequence: PATCH or MK…, then SETOWN, SETMOD, SETIME. What PATCH brings stays beside the target until
//! the sequence ends: with SETIME, or when the peer turns to something else. Only then is it flushed, renamed into place
//! and recorded, so that it never appears with a wrong owner, mode or time, and a session that breaks off leaves the old
//! file. An intent is written before the rename; a crash between the two is put right by `recover`.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use tempfile::SpooledTempFile;

use super::apply::{Assembled, Attribute, Refusal, Rules, Target};
use super::permission::{self, Admitted};
use super::query;
use crate::config::LocalPath;
use crate::engine::check::{self, CheckOptions};
use crate::engine::membership::{self, Event, Purpose};
use crate::engine::{EngineError, Node, blocking, recover};
use crate::model::checktxt::mtime_of_unknown_unit;
use crate::model::{Checktxt, FileKind, Metadata, MtimeUnit, SyncPath, Timestamp};
use crate::store::{Intent, IntentId, Receipt};
use crate::wire::{Attributes, Reply};

/// How many files are remembered as they were when the peer asked for them.
const REMEMBERED: usize = 4_096;

/// The receiving side of one session: what is being received, and what the peer has seen.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    open: Option<Sequence>,
    /// The state of files at their last SIG. SETIME alone says that both contents are equal: it counts only while the
    /// file is still what the peer compared.
    seen: HashMap<SyncPath, Metadata>,
}

/// A file whose attributes are still coming.
#[derive(Debug)]
struct Sequence {
    path: SyncPath,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Complete beside its target, which is as it was.
    Assembled(Box<(Target, Assembled)>),
    /// Made already: other files may depend on it.
    Made {
        place: LocalPath,
        intent: IntentId,
        /// The state in which our last command left it: another one is a local change.
        left: Option<Metadata>,
    },
}

/// A basis that waits for its delta.
#[derive(Debug)]
pub(super) struct Patch {
    file: Admitted,
    target: Target,
    basis: Option<std::fs::File>,
    rules: Rules,
    attributes: Option<Attributes>,
}

/// The answer to the peer inside, a failure of our own outside.
type Answer<T> = Result<Result<T, Reply>, EngineError>;

/// Leaves with the answer to the peer.
macro_rules! answered {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(Reply::from(refusal))),
        }
    };
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        refusal.0
    }
}

impl Receiver {
    /// Remembers what the peer was told about a file.
    pub(super) fn saw(&mut self, path: &SyncPath, metadata: Option<Metadata>) {
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        match metadata {
            Some(metadata) => self.seen.insert(path.clone(), metadata),
            None => self.seen.remove(path),
        };
    }

    /// Ends the sequence, unless the next command still belongs to it. A refusal is logged: its commands have their
    /// answers already.
    pub(super) async fn settle(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        next: Option<&SyncPath>,
    ) -> Result<(), EngineError> {
        if self.open.as_ref().is_none_or(|open| next == Some(&open.path)) {
            return Ok(());
        }
        if let Err(reply) = self.finish(node, peer).await? {
            tracing::warn!("ERROR: a file from {peer} stays as it was: {}", reply.text());
        }
        Ok(())
    }

    /// Forgets a sequence that the peer did not end: the old file stays.
    pub(super) fn drop_unfinished(&mut self) {
        if matches!(&self.open, Some(Sequence { state: State::Assembled(_), .. })) {
            self.open = None;
        }
    }

    /// Puts the file in place, makes it durable and records it.
    async fn finish(&mut self, node: &Arc<Node>, peer: &str) -> Answer<()> {
        let Some(Sequence { path, state }) = self.open.take() else { return Ok(Ok(())) };
        match state {
            State::Made { place, intent, left } => {
                let synced = blocking("MK", move || Target::find(&place).and_then(|target| target.sync())).await?;
                record(node, peer, Some(intent), path, left, true).await?;
                Ok(synced.map_err(Reply::from))
            }
            State::Assembled(parts) => {
                let (target, mut assembled) = *parts;
                let looked = blocking("PATCH", move || {
                    if !target.is_unchanged()? {
                        return Err(Refusal(Reply::Text("The file was changed during the transfer".to_owned())));
                    }
                    let metadata = assembled.metadata()?;
                    Ok((target, assembled, metadata))
                });
                let (target, assembled, metadata) = answered!(looked.await?);
                let after = node.record(path.clone(), &metadata, None).checktxt;
                let intent = begin(node, peer, &path, assembled.name(), Some(after)).await?;
                match blocking("PATCH", move || target.replace(assembled)).await? {
                    Ok(now) => {
                        self.saw(&path, now.clone());
                        record(node, peer, Some(intent), path, now, true).await?;
                        Ok(Ok(()))
                    }
                    Err(refusal) => {
                        node.store.abandon_receive(intent).await?;
                        Ok(Err(refusal.into()))
                    }
                }
            }
        }
    }

    /// PATCH, first half: everything up to the signature of the basis.
    pub(super) async fn begin_patch(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        file: Admitted,
        attributes: Option<Attributes>,
    ) -> Answer<(Patch, u64, SpooledTempFile)> {
        self.settle(node, peer, None).await?;
        if let Some(reply) = permission::dirty_check(node, peer, &file.path).await? {
            return Ok(Err(reply));
        }
        let rules = rules(node, &file.path);
        let prepared = blocking("PATCH", move || {
            let mut target = Target::find(&file.place)?;
            target.back_up(&rules)?;
            if target.before.as_ref().is_some_and(|before| !before.is_regular()) {
                target.clear_the_way();
                target = Target::find(&file.place)?;
                if target.before.is_some() {
                    return Err(Refusal(Reply::Text("Directory not empty".to_owned())));
                }
            }
            let basis = target.basis()?;
            let (length, data) = query::signature_of(basis.as_ref())?;
            Ok((Patch { file, target, basis, rules, attributes }, length, data))
        });
        Ok(prepared.await?.map_err(Reply::from))
    }

    /// PATCH, second half: the delta is here.
    pub(super) async fn finish_patch(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        patch: Patch,
        mut delta: SpooledTempFile,
    ) -> Answer<()> {
        let Patch { file, target, basis, rules, attributes } = patch;
        let complete = attributes.is_some();
        let built = blocking("PATCH", move || {
            delta.seek(SeekFrom::Start(0))?;
            let assembled = target.assemble(basis, &mut delta as &mut dyn Read, attributes.as_ref(), &rules)?;
            Ok::<_, Refusal>(Box::new((target, assembled)))
        });
        let parts = answered!(built.await?);
        self.open = Some(Sequence { path: file.path, state: State::Assembled(parts) });
        if complete { self.finish(node, peer).await } else { Ok(Ok(())) }
    }

    /// MKDIR, MKLINK, MKFIFO, MKCHR, MKBLK, MKSOCK.
    pub(super) async fn make(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        file: Admitted,
        kind: FileKind,
        attributes: Option<Attributes>,
    ) -> Answer<()> {
        self.settle(node, peer, None).await?;
        if let Some(reply) = permission::dirty_check(node, peer, &file.path).await? {
            return Ok(Err(reply));
        }
        if kind == FileKind::Socket {
            return Ok(Ok(()));
        }
        let rules = rules(node, &file.path);
        let described = described(node, &file.path, &kind);
        let place = file.place.clone();
        let found = blocking("MK", move || {
            let target = Target::find(&place)?;
            target.back_up(&rules)?;
            Ok::<_, Refusal>((target, rules.ignore))
        });
        let (target, ignore) = answered!(found.await?);
        let intent = begin(node, peer, &file.path, Vec::new(), Some(described)).await?;
        let made = blocking("MK", move || {
            target.clear_the_way();
            target.make(&kind)?;
            for attribute in attributes.iter().flat_map(Attribute::all) {
                target.set(attribute, ignore)?;
            }
            target.now()
        });
        match made.await? {
            Ok(left) => {
                self.saw(&file.path, left.clone());
                let state = State::Made { place: file.place, intent, left };
                self.open = Some(Sequence { path: file.path, state });
                Ok(Ok(()))
            }
            Err(refusal) => {
                node.store.abandon_receive(intent).await?;
                Ok(Err(refusal.into()))
            }
        }
    }

    /// DEL.
    pub(super) async fn delete(&mut self, node: &Arc<Node>, peer: &str, file: Admitted) -> Answer<()> {
        self.settle(node, peer, None).await?;
        if let Some(reply) = permission::dirty_check(node, peer, &file.path).await? {
            return Ok(Err(reply));
        }
        let rules = rules(node, &file.path);
        let place = file.place.clone();
        let found = blocking("DEL", move || {
            let target = Target::find(&place)?;
            target.back_up(&rules)?;
            Ok::<_, Refusal>(target)
        });
        let target = match found.await? {
            Ok(target) if target.before.is_some() => target,
            // Nothing there, or nothing can be there: what was asked for is so.
            Ok(_) | Err(Refusal(Reply::ParentDirMissing)) => {
                record(node, peer, None, file.path, None, true).await?;
                return Ok(Ok(()));
            }
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let intent = begin(node, peer, &file.path, Vec::new(), None).await?;
        let removed = blocking("DEL", move || target.remove().and_then(|()| target.sync())).await?;
        if let Err(refusal) = removed {
            node.store.abandon_receive(intent).await?;
            return Ok(Err(refusal.into()));
        }
        self.saw(&file.path, None);
        record(node, peer, Some(intent), file.path, None, true).await?;
        Ok(Ok(()))
    }

    /// SETOWN, SETMOD, SETIME.
    pub(super) async fn set(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        file: Admitted,
        attribute: Attribute,
    ) -> Answer<()> {
        self.settle(node, peer, Some(&file.path)).await?;
        let ignore = node.config.ignore;
        if let Some(Sequence { state: State::Assembled(parts), .. }) = &self.open {
            // An open file of ours, its inode in memory: not worth a change of threads.
            answered!(parts.1.set(attribute, ignore));
            return if let Attribute::Time(_) = attribute { self.finish(node, peer).await } else { Ok(Ok(())) };
        }
        let left = match &self.open {
            Some(Sequence { state: State::Made { left, .. }, .. }) => left.clone(),
            _ => match self.seen.get(&file.path) {
                Some(seen) if matches!(attribute, Attribute::Time(_)) => Some(seen.clone()),
                _ => {
                    // The C program's SETIME does not look for conflicts; a mark that is there must not be wiped.
                    let reply = match attribute {
                        Attribute::Time(_) => node.store.is_dirty(&file.path).await?.then_some(Reply::AlsoDirty),
                        _ => permission::dirty_check(node, peer, &file.path).await?,
                    };
                    match reply {
                        Some(reply) => return Ok(Err(reply)),
                        None => None,
                    }
                }
            },
        };
        let place = file.place.clone();
        let set = blocking("SET", move || {
            let target = Target::find(&place)?;
            if let (Some(left), Some(now)) = (&left, &target.before)
                && !is_untouched(left, now)
            {
                return Ok::<_, Refusal>(None);
            }
            target.set(attribute, ignore)?;
            Ok(Some(target.now()?))
        });
        let Some(now) = answered!(set.await?) else {
            // Somebody here changed it since: that is a conflict, and not to be covered up.
            self.settle(node, peer, None).await?;
            self.seen.remove(&file.path);
            check::examine(node, vec![file.path.clone()], CheckOptions::default()).await?;
            permission::mark_for_groups_of(node, &file.path, peer).await?;
            return Ok(Err(Reply::AlsoDirty));
        };
        self.saw(&file.path, now.clone());
        if let Some(Sequence { state: State::Made { left, .. }, .. }) = &mut self.open {
            *left = now;
            return if let Attribute::Time(_) = attribute { self.finish(node, peer).await } else { Ok(Ok(())) };
        }
        record(node, peer, None, file.path, now, false).await?;
        Ok(Ok(()))
    }
}

/// Writes down what is about to happen to a file.
async fn begin(
    node: &Node,
    peer: &str,
    path: &SyncPath,
    temp_name: Vec<u8>,
    target: Option<Checktxt>,
) -> Result<IntentId, EngineError> {
    let intent = Intent { path: path.clone(), peer: peer.to_owned(), temp_name, target, holder: recover::holder() };
    Ok(node.store.begin_receive(intent).await?)
}

/// Whether nobody changed the file between two looks. A directory's ctime changes with every file made in it.
fn is_untouched(left: &Metadata, now: &Metadata) -> bool {
    let owner_and_mode = |metadata: &Metadata| (metadata.mode, metadata.uid, metadata.gid);
    left.inode == now.inode
        && if left.is_directory() { owner_and_mode(left) == owner_and_mode(now) } else { left.ctime == now.ctime }
}

/// Writes down what is on disk because the peer wanted it.
async fn record(
    node: &Arc<Node>,
    peer: &str,
    intent: Option<IntentId>,
    path: SyncPath,
    metadata: Option<Metadata>,
    with_actions: bool,
) -> Result<(), EngineError> {
    let actions = if with_actions { membership::actions_for(&node.config, &path, Event::Received) } else { Vec::new() };
    let record = metadata.map(|metadata| node.record(path.clone(), &metadata, None));
    let receipt = Receipt { path, sender: peer.to_owned(), record, actions };
    Ok(node.store.finish_receive(intent, receipt).await?)
}

fn rules(node: &Node, path: &SyncPath) -> Rules {
    let groups = membership::groups_of(&node.config, path, Purpose::Sync);
    let mut backups: Vec<_> = groups.filter_map(|group| group.backup.clone()).collect();
    backups.dedup();
    Rules { ignore: node.config.ignore, backups, tempdir: node.config.tempdir.clone() }
}

/// The state that MK… makes, as far as the kind goes: owner, mode and time are not part of what `recover` compares.
fn described(node: &Node, path: &SyncPath, kind: &FileKind) -> Checktxt {
    let metadata = Metadata {
        kind: kind.clone(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        device: 0,
        inode: 0,
        links: 1,
    };
    node.record(path.clone(), &metadata, None).checktxt
}

/// SETIME's number in the unit of the session, as far as that is known.
pub(super) fn time_of(number: i64, unit: Option<MtimeUnit>) -> Timestamp {
    match unit {
        Some(MtimeUnit::Nanoseconds) => Timestamp::from_nanoseconds(number),
        _ => mtime_of_unknown_unit(number),
    }
}

/// Takes a delta as it comes in.
pub(super) fn sink(delta: &mut SpooledTempFile) -> impl FnMut(&[u8]) -> std::io::Result<()> + Send + '_ {
    |bytes| delta.write_all(bytes)
}
