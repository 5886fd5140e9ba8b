//! The commands that change files, and the record that is kept of it.
//!
//! A file comes as a sequence: PATCH or MK…, then SETOWN, SETMOD, SETIME. The intent written before the first of them
//! covers the whole sequence; row, dirty rows and actions are written once, at its end: with SETIME, or when the peer
//! turns to something else. A crash in between is put right by `recover`.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use tempfile::SpooledTempFile;

use super::apply::{Refusal, Rules, Target};
use super::permission::{self, Admitted};
use super::query;
use crate::engine::check::{self, CheckOptions};
use crate::engine::membership::{self, Event, Purpose};
use crate::engine::{EngineError, Node, blocking, recover};
use crate::model::checktxt::mtime_of_unknown_unit;
use crate::model::{FileKind, Metadata, MtimeUnit, SyncPath, Timestamp};
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
    intent: IntentId,
    /// The state in which our last command left it: another one is a local change.
    left: Option<Metadata>,
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

/// One attribute to be set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute {
    Owner { uid: u32, gid: u32 },
    Mode(u32),
    Time(Timestamp),
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

    /// Records what was received, unless the next command still belongs to it.
    pub(super) async fn settle(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        next: Option<&SyncPath>,
    ) -> Result<(), EngineError> {
        if self.open.as_ref().is_none_or(|open| next == Some(&open.path)) {
            return Ok(());
        }
        let Some(open) = self.open.take() else { return Ok(()) };
        record(node, peer, Some(open.intent), open.path, open.left, true).await
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
        let built = blocking("PATCH", move || {
            delta.seek(SeekFrom::Start(0))?;
            let assembled = target.assemble(basis, &mut delta as &mut dyn Read, attributes.as_ref(), &rules)?;
            if !target.is_unchanged()? {
                return Err(Refusal(Reply::Text("The file was changed during the transfer".to_owned())));
            }
            Ok((target, assembled))
        });
        let (target, assembled) = answered!(built.await?);
        let after = node.record(file.path.clone(), &assembled.metadata, None).checktxt;
        let intent = Intent {
            path: file.path.clone(),
            peer: peer.to_owned(),
            temp_name: assembled.name(),
            target: Some(after),
            holder: recover::holder(),
        };
        let intent = node.store.begin_receive(intent).await?;
        let replaced = blocking("PATCH", move || target.replace(assembled)).await?;
        self.conclude(node, peer, file.path, intent, replaced, attributes.is_some()).await
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
        let intent = Intent {
            path: file.path.clone(),
            peer: peer.to_owned(),
            temp_name: Vec::new(),
            target: Some(described),
            holder: recover::holder(),
        };
        let intent = node.store.begin_receive(intent).await?;
        let made = blocking("MK", move || {
            target.clear_the_way();
            target.make(&kind)?;
            if let Some(attributes) = attributes {
                target.set_owner(attributes.uid, attributes.gid, ignore)?;
                target.set_mode(attributes.mode, ignore)?;
                target.set_time(attributes.mtime)?;
            }
            target.now()
        });
        let made = made.await?;
        self.conclude(node, peer, file.path, intent, made, false).await
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
        let intent = Intent {
            path: file.path.clone(),
            peer: peer.to_owned(),
            temp_name: Vec::new(),
            target: None,
            holder: recover::holder(),
        };
        let intent = node.store.begin_receive(intent).await?;
        let removed = blocking("DEL", move || target.remove().map(|()| None)).await?;
        self.conclude(node, peer, file.path, intent, removed, true).await
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
        let left = match &self.open {
            Some(open) => open.left.clone(),
            None => match attribute {
                Attribute::Time(_) if self.seen.contains_key(&file.path) => self.seen.get(&file.path).cloned(),
                _ => match permission::dirty_check(node, peer, &file.path).await? {
                    Some(reply) => return Ok(Err(reply)),
                    None => None,
                },
            },
        };
        let ignore = node.config.ignore;
        let place = file.place.clone();
        let set = blocking("SET", move || {
            let target = Target::find(&place)?;
            if let (Some(left), Some(now)) = (&left, &target.before)
                && !is_untouched(left, now)
            {
                return Ok::<_, Refusal>(Err(()));
            }
            match attribute {
                Attribute::Owner { uid, gid } => target.set_owner(uid, gid, ignore)?,
                Attribute::Mode(mode) => target.set_mode(mode, ignore)?,
                Attribute::Time(mtime) => target.set_time(mtime)?,
            }
            Ok(Ok(target.now()?))
        });
        let Ok(now) = answered!(set.await?) else {
            // Somebody here changed it since: that is a conflict, and not to be covered up.
            self.settle(node, peer, None).await?;
            self.seen.remove(&file.path);
            check::examine(node, vec![file.path.clone()], CheckOptions::default()).await?;
            permission::mark_for_groups_of(node, &file.path, peer).await?;
            return Ok(Err(Reply::AlsoDirty));
        };
        self.saw(&file.path, now.clone());
        match &mut self.open {
            Some(open) => {
                open.left = now;
                if matches!(attribute, Attribute::Time(_)) {
                    self.settle(node, peer, None).await?;
                }
            }
            None => record(node, peer, None, file.path, now, false).await?,
        }
        Ok(Ok(()))
    }

    /// Keeps the sequence open after success; drops the intent after a refusal, which records nothing.
    async fn conclude(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        path: SyncPath,
        intent: IntentId,
        result: Result<Option<Metadata>, Refusal>,
        complete: bool,
    ) -> Answer<()> {
        match result {
            Ok(left) => {
                self.saw(&path, left.clone());
                self.open = Some(Sequence { path, intent, left });
                if complete {
                    self.settle(node, peer, None).await?;
                }
                Ok(Ok(()))
            }
            Err(refusal) => {
                node.store.abandon_receive(intent).await?;
                Ok(Err(refusal.into()))
            }
        }
    }
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
fn described(node: &Node, path: &SyncPath, kind: &FileKind) -> crate::model::Checktxt {
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
