//! The commands that change files, and the record that is kept of it.
//!
//! A file comes as a sequence: PATCH or MK…, then SETOWN, SETMOD, SETIME. What PATCH brings stays beside the target until
//! the sequence ends: with SETIME, or when the peer turns to something else. Only then is it made durable, renamed into place
//! and recorded, so that it never appears with a wrong owner, mode or time, and a session that breaks off leaves the old
//! file. An intent is written before the rename; a crash between that and the record is put right by `recover`. The
//! record is written along with the next intent, or when the peer pauses or asks for what the tables say.
//!
//! Whatever a command is about to change is looked at before the check for local changes, and again right before the
//! change: what happens in between is a conflict.

mod kept;
mod make;
mod patch;
mod shown;

use std::pin::pin;
use std::time::{Duration, SystemTime};

use self::kept::Kept;
pub(super) use self::make::{described, is_known, time_of};
pub(super) use self::patch::warn_of_lost;
use self::shown::Shown;
use super::apply::{Assembled, Copies, Hiding, Rules, Target};
use super::peer::Peer;
use super::permission::{self, Admitted};
use super::refusal::Refusal;
use super::spool::Spooled;
use crate::config::{Backup, LocalPath};
use crate::engine::check;
use crate::engine::membership::{self, Event, Purpose};
use crate::engine::{EngineError, step};
use crate::model::{Checktxt, Metadata, SyncPath};
use crate::store::{Intent, IntentId, Receipt};
use crate::wire::Reply;

/// How long a peer may pause before what is on disk is recorded: a fraction of the time that a check waits for a file that is
/// being received.
const MOMENT: Duration = Duration::from_millis(10);

/// The receiving side of one session: what is being received, and what the peer has seen.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    open: Option<Sequence>,
    /// The state of files at their last SIG. SETIME alone says that both contents are equal: it counts only while the
    /// file is still what the peer compared.
    seen: Shown,
    signatures: Kept,
    hiding: Hiding,
    /// What is on disk and not in the tables yet, which name it as being received.
    unrecorded: Vec<(IntentId, Receipt)>,
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
    /// What told its temporary name, where others can see it beside the target.
    reserved: Option<IntentId>,
    actions: Actions,
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
        match refusal.into() {
            Refusal::Unsettled(source) => Self::Failed(EngineError::Unsettled { source }),
            refusal => Self::Refused(refusal),
        }
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
        if matches!(refusal, Refusal::ChangedMeanwhile) {
            self.saw(path, None);
            self.record(peer).await?;
            return permission::changed_meanwhile(peer, path).await;
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
            abandon(peer, assembly.reserved).await?;
        }
        Ok(())
    }

    /// Puts the file in place, makes it durable and records it.
    async fn finish(&mut self, peer: &Peer) -> Result<(), Stop> {
        let Some(Sequence { path, state }) = self.open.take() else { return Ok(()) };
        match state {
            State::Made { place, intent, left } => {
                let durable = peer.node.config.durable;
                let synced =
                    step(
                        "MK",
                        move || {
                            if durable { Target::find(&place).and_then(|target| target.sync()) } else { Ok(()) }
                        },
                    )
                    .await?;
                if let Err(unsettled @ Refusal::Unsettled(_)) = synced {
                    return Err(unsettled.into());
                }
                self.unrecorded.push((intent, receipt(peer, path, left.into(), Actions::Schedule)));
                Ok(synced?)
            }
            State::Assembled(assembly) => {
                let Assembly { target, copies, new, reserved, actions } = *assembly;
                let durable = peer.node.config.durable;
                // It goes to the disk while the intent does.
                let sync = if durable { new.start_sync().map(Some) } else { Ok(None) };
                let (metadata, sync) = match new.metadata().and_then(|metadata| Ok((metadata, sync?))) {
                    Ok(begun) => begun,
                    Err(error) => return Err(given_up(peer, reserved, error.into()).await),
                };
                let intent = self.begin_file(peer, &path, &new, &metadata).await?;
                abandon(peer, reserved).await?;
                let synced = match sync {
                    Some(sync) => sync.await.map_err(|source| EngineError::Worker { operation: "PATCH", source })?,
                    None => Ok(()),
                };
                let digest = Some(new.digest);
                let replaced = step("PATCH", move || {
                    synced?;
                    target.must_be_unchanged()?;
                    target.keep(copies)?;
                    let now = target.replace(new)?;
                    if durable {
                        target.sync()?;
                    }
                    Ok(now)
                });
                match replaced.await? {
                    Ok(now) => {
                        self.saw(&path, Some(now.clone()));
                        let found = OnDisk { metadata: Some(now), digest };
                        self.unrecorded.push((intent, receipt(peer, path, found, actions)));
                        Ok(())
                    }
                    Err(refusal) => Err(given_up(peer, Some(intent), refusal).await),
                }
            }
        }
    }

    /// The name that others will see new content under while it comes, if they will, with the intent that tells it.
    async fn reserve(
        &mut self,
        peer: &Peer,
        path: &SyncPath,
        target: &Target,
        rules: &Rules,
    ) -> Result<(Option<Vec<u8>>, Option<IntentId>), Stop> {
        let Some(name) = self.hiding.visible_name(target, rules)? else { return Ok((None, None)) };
        let reserved = self.begin_with(peer, reservation(peer, path, name.clone())).await?;
        Ok((Some(name), Some(reserved)))
    }

    /// Keeps new content until its attributes have come.
    fn keep_assembled(&mut self, path: SyncPath, assembly: Assembly) {
        self.open = Some(Sequence { path, state: State::Assembled(Box::new(assembly)) });
    }

    /// Looks at a file that a command is about to change: it must have no change of our own.
    async fn prepare(&mut self, peer: &Peer, file: &Admitted) -> Result<(Target, Rules), Stop> {
        let known = peer.node.store.known(vec![file.path.clone()]).await?.pop().unwrap_or_default();
        let place = file.place.clone();
        let found = step("look", move || Target::find(&place)).await?;
        if found.as_ref().is_ok_and(Target::is_large) {
            self.record(peer).await?;
        }
        let is_ours_alone = |target: &Target| {
            let before = target.before.as_ref();
            known.marks.is_empty() && check::is_recorded(&peer.node, known.record.as_ref(), before)
        };
        if !found.as_ref().is_ok_and(is_ours_alone) {
            self.record(peer).await?;
            if let Some(reply) = permission::dirty_check(peer, &file.path).await? {
                self.saw(&file.path, None);
                return Err(Refusal::Answer(reply).into());
            }
        }
        Ok((found?, rules(peer, &file.path)))
    }

    /// Whether attributes of a file are still to come.
    pub(super) fn is_at_a_file(&self) -> bool {
        self.open.is_some()
    }

    /// Whether something on disk is not recorded yet: of this file, or of any.
    pub(super) fn has_unrecorded(&self, file: Option<&[u8]>) -> bool {
        self.unrecorded.iter().any(|(_, receipt)| file.is_none_or(|file| receipt.path.as_bytes() == file))
    }

    /// Records what is on disk. Most often that is left to [`Receiver::begin`], which does it along with what it has to
    /// write: until then the tables say of a file that it is being received, and a check would have to wait.
    ///
    /// # Errors
    /// Those of the store. The intents are there still, then.
    pub(super) async fn record(&mut self, peer: &Peer) -> Result<(), EngineError> {
        if !self.unrecorded.is_empty() {
            peer.node.store.finish_receives(self.receipts()).await?;
            self.unrecorded.clear();
        }
        Ok(())
    }

    /// Waits for the peer. What is not recorded yet is, when that takes its time.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn meanwhile<T>(
        &mut self,
        peer: &Peer,
        waiting: impl Future<Output = T>,
    ) -> Result<T, EngineError> {
        let mut waiting = pin!(waiting);
        if self.has_unrecorded(None) {
            match tokio::time::timeout(MOMENT, &mut waiting).await {
                Ok(done) => return Ok(done),
                Err(_) => self.record(peer).await?,
            }
        }
        Ok(waiting.await)
    }

    /// Records what has no intent, with all that is to be recorded before it.
    async fn record_at_once(&mut self, peer: &Peer, receipt: Receipt) -> Result<(), EngineError> {
        let mut receipts = self.receipts();
        receipts.push((None, receipt));
        peer.node.store.finish_receives(receipts).await?;
        self.unrecorded.clear();
        Ok(())
    }

    fn receipts(&self) -> Vec<(Option<IntentId>, Receipt)> {
        self.unrecorded.iter().map(|(intent, receipt)| (Some(*intent), receipt.clone())).collect()
    }

    /// Writes down what is about to happen to a file, and what has happened to those before it.
    async fn begin(
        &mut self,
        peer: &Peer,
        path: &SyncPath,
        temp_name: Vec<u8>,
        target: Option<Checktxt>,
    ) -> Result<IntentId, EngineError> {
        self.begin_with(peer, intent(peer, path, temp_name, target)).await
    }

    async fn begin_file(
        &mut self,
        peer: &Peer,
        path: &SyncPath,
        new: &Assembled,
        metadata: &Metadata,
    ) -> Result<IntentId, EngineError> {
        self.begin_with(peer, file_intent(peer, path, new, metadata)).await
    }

    async fn begin_with(&mut self, peer: &Peer, intent: Intent) -> Result<IntentId, EngineError> {
        let begun = peer.node.store.next_receives(self.receipts(), vec![intent]).await?;
        self.unrecorded.clear();
        Ok(begun[0])
    }
}

/// What is on disk after a command.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// `None`: the file is gone.
    pub(super) metadata: Option<Metadata>,
    /// Of the content, where it has passed through our hands.
    pub(super) digest: Option<[u8; 32]>,
}

impl From<Option<Metadata>> for OnDisk {
    fn from(metadata: Option<Metadata>) -> Self {
        Self { metadata, digest: None }
    }
}

/// Whether a change that was received calls for the group's actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    Schedule,
    None,
}

pub(super) fn intent(peer: &Peer, path: &SyncPath, temp_name: Vec<u8>, target: Option<Checktxt>) -> Intent {
    let (path, sender) = (path.clone(), peer.name.clone());
    Intent { path, peer: sender, temp_name, target, holder: peer.holder.clone() }
}

pub(super) fn file_intent(peer: &Peer, path: &SyncPath, new: &Assembled, metadata: &Metadata) -> Intent {
    intent(peer, path, new.name(), Some(peer.node.record(path.clone(), metadata, None).checktxt))
}

/// Tells a temporary name, and nothing of how the file will look: no state that is found is this one.
pub(super) fn reservation(peer: &Peer, path: &SyncPath, temp_name: Vec<u8>) -> Intent {
    intent(peer, path, temp_name, Some(Checktxt::from_text(b"v1:type=reg")))
}

async fn abandon(peer: &Peer, intent: Option<IntentId>) -> Result<(), EngineError> {
    match intent {
        Some(intent) => Ok(peer.node.store.abandon_receives(vec![intent]).await?),
        None => Ok(()),
    }
}

/// The end of a change that was not made, or of which nobody can be sure.
async fn given_up(peer: &Peer, intent: Option<IntentId>, refusal: Refusal) -> Stop {
    if matches!(refusal, Refusal::Unsettled(_)) {
        return refusal.into();
    }
    match abandon(peer, intent).await {
        Ok(()) => refusal.into(),
        Err(error) => error.into(),
    }
}

/// What is on disk because the peer wanted it. The session runs the actions that it calls for.
pub(super) fn receipt(peer: &Peer, path: SyncPath, found: OnDisk, actions: Actions) -> Receipt {
    let actions = match actions {
        Actions::Schedule => membership::actions_for(&peer.node.config, &path, Event::Received),
        Actions::None => Vec::new(),
    };
    peer.jobs.add(&actions);
    let record = found.metadata.map(|metadata| peer.node.record(path.clone(), &metadata, found.digest));
    Receipt { path, sender: peer.name.clone(), record, actions }
}

pub(super) fn rules(peer: &Peer, path: &SyncPath) -> Rules {
    let config = &peer.node.config;
    let mut backups: Vec<Backup> = Vec::new();
    for backup in membership::groups_of(config, path, Purpose::Sync).filter_map(|group| group.backup.as_ref()) {
        match backups.iter_mut().find(|known| known.directory == backup.directory) {
            // Two groups with one directory: one copy, as many generations as either wants.
            Some(known) => known.generations = known.generations.max(backup.generations),
            None => backups.push(backup.clone()),
        }
    }
    Rules {
        ignore: config.ignore,
        backups,
        tempdir: config.tempdir.clone(),
        durable: config.durable,
        max_file_size: config.max_file_size,
    }
}
