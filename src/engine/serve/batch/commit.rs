//! The end of a batch: everything that is complete is put in place, made durable and recorded together, and only then
//! confirmed. Intents first, then the contents on disk, the renames and times, the directories, and the rows.
//!
//! Where a flush fails behind the change, nobody knows what a power cut would leave. Then nothing of the batch is confirmed
//! or recorded: the intents stay, the session ends, and `recover` tries until it can compare and record what is there.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::Batch;
use super::offers::Seen;
use crate::config::LocalPath;
use crate::engine::serve::apply::{Assembled, Copies, Rules, Target, is_untouched};
use crate::engine::serve::attribute::Attribute;
use crate::engine::serve::receive::{self, Actions, OnDisk};
use crate::engine::serve::refusal::Refusal;
use crate::engine::{EngineError, blocking};
use crate::fs::{Locator, Place};
use crate::model::errors::strerror;
use crate::model::{Ignore, Metadata, SyncPath, Timestamp};
use crate::store::{Intent, IntentId, Receipt};
use crate::wire::Reply;

/// Files and changes that are put in place together, at most: each file holds a descriptor until then.
const MOST: usize = 500;

/// What waits for its batch.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) files: Vec<Finished>,
    /// Files that are right but for their time.
    pub(super) times: Vec<Seen>,
    pub(super) changes: Vec<Change>,
}

/// New content, complete beside its target.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) id: u32,
    pub(super) path: SyncPath,
    pub(super) place: LocalPath,
    /// What was there when it was offered.
    pub(super) before: Option<Metadata>,
    pub(super) rules: Rules,
    pub(super) new: Assembled,
    /// The content was so before.
    pub(super) already: bool,
    /// What told its temporary name as long as its content was coming.
    pub(super) reserved: Option<IntentId>,
}

/// A change that is made, and neither durable nor recorded.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: u32,
    pub(super) intent: Option<IntentId>,
    pub(super) receipt: Receipt,
    /// The place whose directory is to be flushed.
    pub(super) touched: Option<Place>,
    /// It was so before, but for its time.
    pub(super) already: bool,
}

/// A file about to be replaced.
struct Prepared {
    file: Finished,
    target: Target,
    copies: Copies,
    metadata: Metadata,
}

impl Ready {
    pub(super) fn is_full(&self) -> bool {
        self.files.len() + self.times.len() + self.changes.len() >= MOST
    }
}

impl Batch {
    /// Puts in place what is complete.
    pub(super) async fn commit(&mut self) -> Result<(), EngineError> {
        let Ready { files, times, mut changes } = std::mem::take(&mut self.ready);
        if files.is_empty() && times.is_empty() && changes.is_empty() {
            return self.end_reservations().await;
        }
        let prepared = blocking("commit", move || {
            let mut locator = Locator::default();
            files.into_iter().map(|file| prepare(&mut locator, file)).collect::<Vec<_>>()
        });
        let mut files = Vec::new();
        for outcome in prepared.await? {
            match outcome {
                Ok(prepared) => files.push(prepared),
                Err(rejected) => {
                    let (file, refusal) = *rejected;
                    self.void.extend(file.reserved);
                    self.reject(file.id, &file.path, &file.place, refusal).await?;
                }
            }
        }
        let node = Arc::clone(&self.peer.node);
        let of_file = |one: &Prepared| receive::file_intent(&self.peer, &one.file.path, &one.file.new, &one.metadata);
        let of_time = |seen: &Seen| {
            let after = Attribute::Time(seen.mtime).applied_to(&seen.shown, node.config.ignore);
            let after = node.record(seen.path.clone(), &after, None).checktxt;
            receive::intent(&self.peer, &seen.path, Vec::new(), Some(after))
        };
        let intents = self.begin(files.iter().map(of_file).chain(times.iter().map(of_time)).collect()).await?;
        self.void.extend(files.iter().filter_map(|one| one.file.reserved));
        self.end_reservations().await?;
        let (durable, ignore) = (node.config.durable, node.config.ignore);
        let put = blocking("commit", move || {
            let (placed, synced) = put_in_place(files, times, &changes, durable, ignore);
            (placed, changes, synced)
        });
        let (placed, made, synced) = put.await?;
        changes = made;
        let mut unsettled = synced.err();
        for (outcome, intent) in placed.into_iter().zip(intents) {
            match outcome {
                Ok(Placed { id, path, digest, now, already }) => {
                    let actions = if already { Actions::None } else { Actions::Schedule };
                    let receipt = receive::receipt(&self.peer, path, OnDisk { metadata: now, digest }, actions);
                    changes.push(Change { id, intent: Some(intent), receipt, touched: None, already });
                }
                Err((id, _, _, Refusal::Unsettled(error))) => {
                    self.refuse(id, &Reply::Text(strerror(&error)));
                    unsettled = Some(error);
                }
                Err((id, path, place, refusal)) => {
                    self.peer.node.store.abandon_receives(vec![intent]).await?;
                    self.reject(id, &path, &place, refusal).await?;
                }
            }
        }
        match unsettled {
            None => self.finish(changes).await,
            Some(source) => {
                let reply = Reply::Text(strerror(&source));
                for change in &changes {
                    self.refuse(change.id, &reply);
                }
                Err(EngineError::Unsettled { source })
            }
        }
    }

    /// Records that changes are about to be made.
    pub(super) async fn begin(&mut self, intents: Vec<Intent>) -> Result<Vec<IntentId>, EngineError> {
        Ok(self.peer.node.store.begin_receives(intents).await?)
    }

    /// Ends intents that told a temporary name, and nothing else.
    pub(super) async fn end_reservations(&mut self) -> Result<(), EngineError> {
        Ok(self.peer.node.store.abandon_receives(std::mem::take(&mut self.void)).await?)
    }

    /// Records what is made and durable, and confirms it.
    async fn finish(&mut self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut receipts = Vec::new();
        let confirmed = changes.into_iter().map(|Change { id, intent, receipt, already, .. }| {
            let path = receipt.path.clone();
            receipts.push((intent, receipt));
            (id, path, already)
        });
        let confirmed: Vec<_> = confirmed.collect();
        self.peer.node.store.finish_receives(receipts).await?;
        for (id, path, already) in confirmed {
            if !already {
                tracing::info!("Updated {path} from {}.", self.peer.name);
            }
            self.done(id, already);
        }
        Ok(())
    }
}

fn prepare(locator: &mut Locator, file: Finished) -> Result<Prepared, Box<(Finished, Refusal)>> {
    let mut prepare = || {
        let target = Target::find_with(locator, &file.place)?;
        match (&target.before, &file.before) {
            (None, None) => {}
            (Some(now), Some(before)) if is_untouched(before, now) => {}
            _ => return Err(Refusal::ChangedMeanwhile),
        }
        let copies = target.back_up(&file.rules)?;
        let metadata = file.new.metadata()?;
        Ok((target, copies, metadata))
    };
    match prepare() {
        Ok((target, copies, metadata)) => Ok(Prepared { file, target, copies, metadata }),
        Err(refusal) => Err(Box::new((file, refusal))),
    }
}

/// A file that is in its place.
struct Placed {
    id: u32,
    path: SyncPath,
    digest: Option<[u8; 32]>,
    now: Option<Metadata>,
    already: bool,
}

type Placement = Result<Placed, (u32, SyncPath, LocalPath, Refusal)>;

/// Contents to disk, renames and times, and these to disk. The error: it is unknown whether all that is made is on disk.
fn put_in_place(
    files: Vec<Prepared>,
    times: Vec<Seen>,
    changes: &[Change],
    durable: bool,
    ignore: Ignore,
) -> (Vec<Placement>, io::Result<()>) {
    let synced: Vec<_> = files
        .into_iter()
        .map(|one| {
            let synced = if durable { one.file.new.sync() } else { Ok(()) };
            (one, synced)
        })
        .collect();
    let mut touched: HashMap<(u64, u64), Place> = HashMap::new();
    let mut placed = Vec::new();
    for (one, synced) in synced {
        let Prepared { file: Finished { id, path, place, new, already, .. }, target, copies, .. } = one;
        let digest = Some(new.digest);
        let replaced = synced.and_then(|()| {
            target.must_be_unchanged()?;
            target.keep(copies)?;
            let now = target.replace(new)?;
            if durable {
                touch(&mut touched, target.place()).map_err(Refusal::Unsettled)?;
            }
            Ok(now)
        });
        placed.push(match replaced {
            Ok(now) => Ok(Placed { id, path, digest, now: Some(now), already }),
            Err(refusal) => Err((id, path, place, refusal)),
        });
    }
    let (mut locator, mut timed) = (Locator::default(), Vec::new());
    for Seen { id, path, place, shown, digest, mtime } in times {
        placed.push(match set_time(&mut locator, &place, &shown, mtime, ignore) {
            Ok((now, file)) => {
                timed.extend(file);
                Ok(Placed { id, path, digest, now, already: true })
            }
            Err(refusal) => Err((id, path, place, refusal)),
        });
    }
    let mut sync = || {
        timed.iter().try_for_each(File::sync_all)?;
        changes.iter().filter_map(|change| change.touched.as_ref()).try_for_each(|place| touch(&mut touched, place))?;
        touched.values().try_for_each(Place::sync_directory)
    };
    (placed, if durable { sync() } else { Ok(()) })
}

/// Sets the time of a file that nobody changed. With the file, to be flushed, if it is one that can be opened.
fn set_time(
    locator: &mut Locator,
    place: &LocalPath,
    shown: &Metadata,
    mtime: Timestamp,
    ignore: Ignore,
) -> Result<(Option<Metadata>, Option<File>), Refusal> {
    let target = Target::find_with(locator, place)?;
    if !target.before.as_ref().is_some_and(|now| is_untouched(shown, now)) {
        return Err(Refusal::ChangedMeanwhile);
    }
    let file = if shown.is_regular() { target.basis()? } else { None };
    target.set(Attribute::Time(mtime), ignore)?;
    Ok((target.place().metadata().map_err(Refusal::Unsettled)?, file))
}

fn touch(touched: &mut HashMap<(u64, u64), Place>, place: &Place) -> io::Result<()> {
    touched.entry(place.directory()?).or_insert_with(|| place.clone());
    Ok(())
}
