//! The commands that change files, and the record that is kept of it.
//!
//! A file comes as a sequence: PATCH or MK…, then SETOWN, SETMOD, SETIME. What PATCH brings stays beside the target until
//! the sequence ends: with SETIME, or when the peer turns to something else. Only then is it flushed, renamed into place
//! and recorded, so that it never appears with a wrong owner, mode or time, and a session that breaks off leaves the old
//! file. An intent is written before the rename; a crash between the two is put right by `recover`.
//!
//! Whatever a command is about to change is looked at before the check for local changes, and again right before the
//! change: what happens in between is a conflict.

mod kept;
mod make;
mod patch;
mod shown;

use std::time::SystemTime;

use self::kept::Kept;
pub(super) use self::make::time_of;
use self::shown::Shown;
use super::apply::{Assembled, Copies, Refusal, Rules, Target};
use super::peer::Peer;
use super::permission::{self, Admitted};
use super::spool::Spooled;
use crate::config::{Backup, LocalPath};
use crate::engine::check::{self, CheckOptions};
use crate::engine::membership::{self, Event, Purpose};
use crate::engine::{EngineError, blocking};
use crate::model::{Checktxt, Metadata, SyncPath};
use crate::store::{Intent, IntentId, Receipt};
use crate::wire::Reply;

/// The receiving side of one session: what is being received, and what the peer has seen.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    open: Option<Sequence>,
    /// The state of files at their last SIG. SETIME alone says that both contents are equal: it counts only while the
    /// file is still what the peer compared.
    seen: Shown,
    signatures: Kept,
}

/// A file whose attributes are still coming.
#[derive(Debug)]
struct Sequence {
    path: SyncPath,
    state: State,
}

#[derive(Debug)]
enum State {
    Assembled(Box<Assembly>),
    /// Made already: other files may depend on it.
    Made {
        place: LocalPath,
        intent: IntentId,
        /// The state in which our last command left it: another one is a local change.
        left: Option<Metadata>,
    },
}

/// New content, complete beside its target, which is as it was.
#[derive(Debug)]
struct Assembly {
    target: Target,
    copies: Copies,
    new: Assembled,
    /// Written early only for what others can see beside the target.
    intent: Option<IntentId>,
}

/// Why a command was not carried out: for a reason that the peer is told, or for a failure of our own.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    Failed(EngineError),
}

impl Stop {
    /// As [`Refusal::in_system_words`].
    fn in_system_words(self) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.in_system_words()),
            failed @ Self::Failed(_) => failed,
        }
    }
}

impl<E: Into<Refusal>> From<E> for Stop {
    fn from(refusal: E) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl From<crate::store::StoreError> for Stop {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Receiver {
    /// Remembers what the peer was told about a file.
    pub(super) fn saw(&mut self, path: &SyncPath, metadata: Option<Metadata>) {
        match metadata {
            Some(metadata) => self.seen.insert(path.clone(), metadata),
            None => self.seen.remove(path),
        }
    }

    /// Remembers the signature that the peer got, for the PATCH that may follow: of a file that was in this state at this
    /// time.
    pub(super) fn keep(&mut self, path: &SyncPath, metadata: &Metadata, looked: SystemTime, signature: Spooled) {
        self.signatures.keep(path, metadata, looked, signature);
    }

    /// Ends the sequence, unless the next command still belongs to it. A refusal is logged: its commands have their
    /// answers already.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn settle(&mut self, peer: &Peer, next: Option<&SyncPath>) -> Result<(), EngineError> {
        let path = match &self.open {
            Some(open) if next != Some(&open.path) => open.path.clone(),
            _ => return Ok(()),
        };
        let ended = self.finish(peer).await;
        let reply = self.conclude(peer, &path, ended).await?;
        if !reply.is_ok() {
            tracing::warn!("ERROR: {path} from {} stays as it was: {}", peer.name, reply.text());
        }
        Ok(())
    }

    /// The answer to the peer. A local change makes the file dirty here.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn conclude(
        &mut self,
        peer: &Peer,
        path: &SyncPath,
        outcome: Result<(), Stop>,
    ) -> Result<Reply, EngineError> {
        let refusal = match outcome {
            Ok(()) => return Ok(Reply::CmdFinished),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Refused(refusal)) => refusal,
        };
        if matches!(refusal, Refusal::ChangedHere) {
            self.saw(path, None);
            check::examine(&peer.node, vec![path.clone()], CheckOptions::default()).await?;
            permission::mark_for_groups_of(peer, path).await?;
        }
        Ok(refusal.reply())
    }

    /// Forgets a sequence that the peer did not end: the old file stays. What was made already stays for
    /// [`Receiver::settle`] to record.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn drop_unfinished(&mut self, peer: &Peer) -> Result<(), EngineError> {
        if let Some(Sequence { state: State::Assembled(assembly), .. }) =
            self.open.take_if(|open| matches!(open.state, State::Assembled(_)))
        {
            abandon(peer, assembly.intent).await?;
        }
        Ok(())
    }

    /// Puts the file in place, makes it durable and records it.
    async fn finish(&mut self, peer: &Peer) -> Result<(), Stop> {
        let Some(Sequence { path, state }) = self.open.take() else { return Ok(()) };
        match state {
            State::Made { place, intent, left } => {
                let synced = blocking("MK", move || Target::find(&place).and_then(|target| target.sync())).await?;
                record(peer, Some(intent), path, left.into(), Actions::Schedule).await?;
                Ok(synced?)
            }
            State::Assembled(assembly) => {
                let Assembly { target, copies, mut new, intent } = *assembly;
                let looked = blocking("PATCH", move || {
                    target.must_be_unchanged()?;
                    let metadata = new.metadata()?;
                    Ok::<_, Refusal>((target, new, metadata))
                });
                let (target, new, metadata) = match looked.await? {
                    Ok(parts) => parts,
                    Err(refusal) => return Err(given_up(peer, intent, refusal).await),
                };
                let intent = match intent {
                    Some(intent) => intent,
                    None => begin_file(peer, &path, &new, &metadata).await?,
                };
                let digest = Some(new.digest);
                match blocking("PATCH", move || target.keep(copies).and_then(|()| target.replace(new))).await? {
                    Ok(now) => {
                        self.saw(&path, now.clone());
                        let found = OnDisk { metadata: now, digest };
                        Ok(record(peer, Some(intent), path, found, Actions::Schedule).await?)
                    }
                    Err(refusal) => Err(given_up(peer, Some(intent), refusal).await),
                }
            }
        }
    }

    /// Looks at a file that a command is about to change: it must have no change of our own.
    async fn prepare(&mut self, peer: &Peer, file: &Admitted) -> Result<(Target, Rules), Stop> {
        let place = file.place.clone();
        let found = blocking("look", move || Target::find(&place)).await?;
        if let Some(reply) = permission::dirty_check(peer, &file.path).await? {
            self.saw(&file.path, None);
            return Err(Refusal::Answer(reply).into());
        }
        Ok((found?, rules(peer, &file.path)))
    }
}

/// What is on disk after a command.
#[derive(Debug, Default)]
struct OnDisk {
    /// `None`: the file is gone.
    metadata: Option<Metadata>,
    /// Of the content, where it has passed through our hands.
    digest: Option<[u8; 32]>,
}

impl From<Option<Metadata>> for OnDisk {
    fn from(metadata: Option<Metadata>) -> Self {
        Self { metadata, digest: None }
    }
}

/// Whether a change that was received calls for the group's actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actions {
    Schedule,
    None,
}

/// Writes down what is about to happen to a file.
async fn begin(
    peer: &Peer,
    path: &SyncPath,
    temp_name: Vec<u8>,
    target: Option<Checktxt>,
) -> Result<IntentId, EngineError> {
    let (path, sender) = (path.clone(), peer.name.clone());
    let intent = Intent { path, peer: sender, temp_name, target, holder: peer.holder.clone() };
    Ok(peer.node.store.begin_receive(intent).await?)
}

async fn begin_file(
    peer: &Peer,
    path: &SyncPath,
    new: &Assembled,
    metadata: &Metadata,
) -> Result<IntentId, EngineError> {
    begin(peer, path, new.name(), Some(peer.node.record(path.clone(), metadata, None).checktxt)).await
}

async fn abandon(peer: &Peer, intent: Option<IntentId>) -> Result<(), EngineError> {
    match intent {
        Some(intent) => Ok(peer.node.store.abandon_receive(intent).await?),
        None => Ok(()),
    }
}

/// The end of a change that was not made.
async fn given_up(peer: &Peer, intent: Option<IntentId>, refusal: Refusal) -> Stop {
    match abandon(peer, intent).await {
        Ok(()) => refusal.into(),
        Err(error) => error.into(),
    }
}

/// Writes down what is on disk because the peer wanted it.
async fn record(
    peer: &Peer,
    intent: Option<IntentId>,
    path: SyncPath,
    found: OnDisk,
    actions: Actions,
) -> Result<(), EngineError> {
    let actions = match actions {
        Actions::Schedule => membership::actions_for(&peer.node.config, &path, Event::Received),
        Actions::None => Vec::new(),
    };
    peer.jobs.add(&actions);
    let record = found.metadata.map(|metadata| peer.node.record(path.clone(), &metadata, found.digest));
    let receipt = Receipt { path, sender: peer.name.clone(), record, actions };
    Ok(peer.node.store.finish_receive(intent, receipt).await?)
}

fn rules(peer: &Peer, path: &SyncPath) -> Rules {
    let config = &peer.node.config;
    let mut backups: Vec<Backup> = Vec::new();
    for backup in membership::groups_of(config, path, Purpose::Sync).filter_map(|group| group.backup.as_ref()) {
        match backups.iter_mut().find(|known| known.directory == backup.directory) {
            // Two groups with one directory: one copy, as many generations as either wants.
            Some(known) => known.generations = known.generations.max(backup.generations),
            None => backups.push(backup.clone()),
        }
    }
    Rules { ignore: config.ignore, backups, tempdir: config.tempdir.clone() }
}
