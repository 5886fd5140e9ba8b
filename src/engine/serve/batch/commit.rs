//! The end of a batch: everything that is complete is put in place, made durable and recorded together, and only then
//! confirmed. Intents first, then the contents on disk, the renames, the directories, and the rows.

use std::collections::HashMap;
use std::io;

use super::Batch;
use crate::config::LocalPath;
use crate::engine::serve::apply::{Assembled, Copies, Refusal, Rules, Target, is_untouched};
use crate::engine::serve::receive::{self, Actions, OnDisk};
use crate::engine::{EngineError, blocking};
use crate::fs::{Locator, Place};
use crate::model::{Metadata, SyncPath};
use crate::store::{Intent, IntentId, Receipt};
use crate::wire::Reply;

/// Files and changes that are put in place together, at most: each file holds a descriptor until then.
const MOST: usize = 500;

/// What waits for its batch.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) files: Vec<Finished>,
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
        self.files.len() + self.changes.len() >= MOST
    }
}

impl Batch {
    /// Puts in place what is complete.
    pub(super) async fn commit(&mut self) -> Result<(), EngineError> {
        let Ready { files, mut changes } = std::mem::take(&mut self.ready);
        if files.is_empty() && changes.is_empty() {
            return Ok(());
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
                    self.reject(file.id, &file.path, &file.place, refusal).await?;
                }
            }
        }
        let intent = |one: &Prepared| receive::file_intent(&self.peer, &one.file.path, &one.file.new, &one.metadata);
        let intents = self.begin(files.iter().map(intent).collect()).await?;
        let durable = self.peer.node.config.durable;
        let put = blocking("commit", move || {
            let (placed, synced) = put_in_place(files, &mut changes, durable);
            (placed, changes, synced)
        });
        let (placed, mut changes, synced) = put.await?;
        let unsafe_because = synced.err().map(|refusal| refusal.reply().text());
        for (outcome, intent) in placed.into_iter().zip(intents) {
            let outcome = match (outcome, &unsafe_because) {
                (Ok(Placed { id, path, place, .. }), Some(text)) => {
                    Err((id, path, place, Refusal::text(text.as_str())))
                }
                (outcome, _) => outcome,
            };
            match outcome {
                Ok(Placed { id, path, digest, now, .. }) => {
                    let found = OnDisk { metadata: now, digest: Some(digest) };
                    let receipt = receive::receipt(&self.peer, path, found, Actions::Schedule);
                    changes.push(Change { id, intent: Some(intent), receipt, touched: None, already: false });
                }
                Err((id, path, place, refusal)) => {
                    self.peer.node.store.abandon_receives(vec![intent]).await?;
                    self.reject(id, &path, &place, refusal).await?;
                }
            }
        }
        self.finish(changes, unsafe_because.as_deref()).await
    }

    /// Records that changes are about to be made.
    pub(super) async fn begin(&mut self, intents: Vec<Intent>) -> Result<Vec<IntentId>, EngineError> {
        Ok(self.peer.node.store.begin_receives(intents).await?)
    }

    /// Records what is made, and confirms what is durable.
    async fn finish(&mut self, changes: Vec<Change>, unsafe_because: Option<&str>) -> Result<(), EngineError> {
        let mut receipts = Vec::new();
        let confirmed = changes.into_iter().map(|Change { id, intent, receipt, already, .. }| {
            let path = receipt.path.clone();
            receipts.push((intent, receipt));
            (id, path, already)
        });
        let confirmed: Vec<_> = confirmed.collect();
        self.peer.node.store.finish_receives(receipts).await?;
        for (id, path, already) in confirmed {
            if let Some(text) = unsafe_because {
                self.refuse(id, &Reply::Text(text.to_owned()));
                continue;
            }
            if !already {
                tracing::info!("Updated {path} from {}.", self.peer.name);
            }
            self.done(id, already);
        }
        Ok(())
    }
}

fn prepare(locator: &mut Locator, mut file: Finished) -> Result<Prepared, Box<(Finished, Refusal)>> {
    let mut prepare = || {
        let target = Target::find_with(locator, &file.place)?;
        match (&target.before, &file.before) {
            (None, None) => {}
            (Some(now), Some(before)) if is_untouched(before, now) => {}
            _ => return Err(Refusal::ChangedHere),
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
    place: LocalPath,
    digest: [u8; 32],
    now: Option<Metadata>,
}

type Placement = Result<Placed, (u32, SyncPath, LocalPath, Refusal)>;

/// Contents to disk, renames, directories to disk. The error: one of these could not be flushed.
fn put_in_place(files: Vec<Prepared>, changes: &mut [Change], durable: bool) -> (Vec<Placement>, Result<(), Refusal>) {
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
        let Prepared { file: Finished { id, path, place, new, .. }, target, copies, .. } = one;
        let digest = new.digest;
        let replaced = synced.and_then(|()| {
            target.must_be_unchanged()?;
            target.keep(copies)?;
            let now = target.replace(new, false)?;
            touch(&mut touched, target.place())?;
            Ok(now)
        });
        placed.push(match replaced {
            Ok(now) => Ok(Placed { id, path, place, digest, now }),
            Err(refusal) => Err((id, path, place, refusal)),
        });
    }
    let mut sync = || {
        changes.iter().filter_map(|change| change.touched.as_ref()).try_for_each(|place| touch(&mut touched, place))?;
        touched.values().try_for_each(Place::sync_directory)
    };
    let synced = if durable { sync().map_err(Refusal::from) } else { Ok(()) };
    (placed, synced)
}

fn touch(touched: &mut HashMap<(u64, u64), Place>, place: &Place) -> io::Result<()> {
    touched.entry(place.directory()?).or_insert_with(|| place.clone());
    Ok(())
}
