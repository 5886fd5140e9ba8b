//! Contents on their way in. They go to files beside their targets, which have no name as long as the file system allows;
//! when one is complete, and what its digest says, it waits for the commit.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::commit::Finished;
use super::{Batch, MOST_CONTENTS, Open, State, unknown};
use crate::config::LocalPath;
use crate::delta::blocks::{self, KEY};
use crate::delta::following;
use crate::engine::content::Hashing;
use crate::engine::serve::apply::{Assembled, Room, Rules, Target, is_untouched};
use crate::engine::serve::peer::Peer;
use crate::engine::serve::receive;
use crate::engine::serve::refusal::Refusal;
use crate::engine::serve::session::SessionError;
use crate::engine::{EngineError, blocking};
use crate::fs::{self, Locator, TempFile};
use crate::model::{Metadata, SyncPath};
use crate::store::{Intent, IntentId};
use crate::wire::batch::{Answer, MAX_SUMS, Push};
use crate::wire::pack::unpack;
use crate::wire::{Attributes, WireError};

/// Of smaller files all is sent, in bytes.
const WORTH_SUMS: u64 = 32 << 10;

/// Bytes of sums in one frame: few enough that the client compares while the next are made.
const SUMS_AT_ONCE: usize = 8_000;

/// Frames of sums that wait until the client has read those before.
const SUMS_WAITING: usize = 4;

/// Bytes of what is here that are copied at a time.
const PIECE: usize = 128 * 1024;

/// A file whose content is coming.
#[derive(Debug)]
pub(super) struct Incoming {
    path: SyncPath,
    place: LocalPath,
    /// What was there when it was offered.
    before: Option<Metadata>,
    rules: Rules,
    /// As it was offered.
    size: u64,
    /// The name under which others see the content while it comes, and the intent that tells it.
    visible: Option<Vec<u8>>,
    reserved: Option<IntentId>,
    /// What the sums were made of, once something is copied from it.
    basis: Option<File>,
    content: Option<Content>,
}

/// What has come of it.
#[derive(Debug)]
struct Content {
    file: Hashing<fs::large::Writer<TempFile>>,
    /// It may have a thread that hashes: one does, as long as contents come one after the other.
    _hasher: Option<OwnedSemaphorePermit>,
    length: u64,
    /// Where the file ends, whatever more is sent.
    room: Room,
}

/// What the receiving of messages needs.
struct Desk {
    locator: Locator,
    hashers: Arc<Semaphore>,
    /// For pieces that are copied.
    piece: Vec<u8>,
    durable: bool,
}

/// What became of a file.
enum Outcome {
    Complete(Assembled),
    Refused(Refusal),
    Cancelled,
}

impl Incoming {
    pub(super) fn new(
        path: SyncPath,
        place: LocalPath,
        before: Option<Metadata>,
        rules: Rules,
        size: u64,
        visible: Option<Vec<u8>>,
    ) -> Self {
        Self { path, place, before, rules, size, visible, reserved: None, basis: None, content: None }
    }

    /// What is to be written down before its content comes.
    pub(super) fn reservation(&self, peer: &Peer) -> Option<Intent> {
        Some(receive::reservation(peer, &self.path, self.visible.clone()?))
    }

    /// Takes what was written down for it.
    pub(super) fn reserve(&mut self, reserved: &mut impl Iterator<Item = IntentId>) {
        self.reserved = if self.visible.is_some() { reserved.next() } else { None };
    }

    pub(super) fn reserved(&self) -> Option<IntentId> {
        self.reserved
    }

    /// Whether parts of what is here may save a part of the new content.
    pub(super) fn has_basis(&self) -> bool {
        self.before.as_ref().map_or(0, Metadata::size).min(self.size) >= WORTH_SUMS
    }

    /// Whether any of it has come.
    pub(super) fn has_begun(&self) -> bool {
        self.content.is_some()
    }

    fn content(&mut self, desk: &mut Desk) -> Result<&mut Content, Refusal> {
        if self.content.is_none() {
            let target = Target::known(&mut desk.locator, &self.place, self.before.clone())?;
            let temp = target.temp(self.visible.as_deref(), &self.rules)?;
            let room = Room::of(&temp, &self.rules)?;
            room.check(self.size)?;
            let temp = fs::large::Writer::new(temp);
            let hasher = Arc::clone(&desk.hashers).try_acquire_owned().ok();
            let file = if hasher.is_some() { Hashing::new(temp) } else { Hashing::without_thread(temp) };
            self.content = Some(Content { file, _hasher: hasher, length: 0, room });
        }
        self.content.as_mut().ok_or(Refusal::ParentMissing)
    }

    fn take(&mut self, desk: &mut Desk, message: Push) -> Result<Option<Outcome>, Refusal> {
        match message {
            Push::Data { bytes, .. } => self.content(desk)?.write(&bytes)?,
            Push::Packed { bytes, .. } => match unpack(&bytes) {
                Ok(bytes) => self.content(desk)?.write(&bytes)?,
                Err(_) => return Err(Refusal::text("The content did not arrive as it was sent")),
            },
            Push::Copy { offset, length, .. } => {
                let basis = match self.basis.take() {
                    Some(basis) => basis,
                    None => open_basis(&mut desk.locator, &self.place, self.before.as_ref())?,
                };
                let content = self.content(desk)?;
                desk.piece.resize(PIECE, 0);
                content.copy(&basis, offset, length, &mut desk.piece)?;
                self.basis = Some(basis);
            }
            Push::End { attributes, digest, .. } => {
                return self.complete(desk, &attributes, digest).map(|new| Some(Outcome::Complete(new)));
            }
            Push::Cancel { .. } => return Ok(Some(Outcome::Cancelled)),
            Push::Key(_) | Push::Offer(_) | Push::Same { .. } | Push::Leave => {}
        }
        Ok(None)
    }

    fn complete(&mut self, desk: &mut Desk, attributes: &Attributes, digest: [u8; 32]) -> Result<Assembled, Refusal> {
        self.content(desk)?;
        let Some(content) = self.content.take() else { return Err(Refusal::ParentMissing) };
        let (mut temp, arrived) = content.file.finish();
        if arrived != digest {
            return Err(Refusal::text("The content did not arrive as it was sent"));
        }
        if desk.durable {
            // It has until the commit.
            temp.begin();
        }
        // What has come into being meanwhile is seen at the commit.
        let target = match self.before {
            None => Target::known(&mut desk.locator, &self.place, None)?,
            Some(_) => Target::find_with(&mut desk.locator, &self.place)?,
        };
        let old = match target.basis()? {
            Some(file) => Some((fs::meta::metadata_of(&file)?, file)),
            None => None,
        };
        target.complete(
            temp.into_file(),
            digest,
            old.as_ref().map(|(metadata, file)| (metadata, file)),
            Some(attributes),
            &self.rules,
        )
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.length += bytes.len() as u64;
        self.room.check(self.length)?;
        Ok(self.file.write_all(bytes)?)
    }

    /// Appends bytes of `basis`; `piece` is room for some of them. What it does not have is missed when the digest is
    /// compared.
    fn copy(&mut self, basis: &File, mut offset: u64, length: u64, piece: &mut [u8]) -> Result<(), Refusal> {
        let end = offset.saturating_add(length);
        while offset < end {
            let room = usize::try_from(end - offset).unwrap_or(usize::MAX).min(piece.len());
            match basis.read_at(&mut piece[..room], offset) {
                Ok(0) => break,
                Ok(read) => {
                    self.write(&piece[..read])?;
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Asks for the next content of which the client gets sums, and begins to make them, unless others are being made or the
    /// client has many.
    pub(super) fn begin_sums(&mut self) {
        while self.summing.is_none() && self.sums <= MAX_SUMS / 2 {
            let Some(id) = self.unsummed.pop_front() else { return };
            let Some(Open { state: State::Incoming(incoming), .. }) = self.open.get(&id) else { continue };
            self.summing = Some(Summing::start(id, incoming));
            self.answer(&Answer::Want { id, described: true });
        }
    }

    /// Passes on the sums that are made.
    pub(super) async fn pass_sums(&mut self) -> Result<(), EngineError> {
        while let Some(summing) = &mut self.summing {
            match summing.made.try_recv() {
                Ok(bytes) => self.pass(Some(bytes)).await?,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => self.pass(None).await?,
            }
        }
        Ok(())
    }

    /// Passes on sums. `None`: there are no more.
    pub(super) async fn pass(&mut self, made: Option<Bytes>) -> Result<(), EngineError> {
        let Some(summing) = &mut self.summing else { return Ok(()) };
        let id = summing.id;
        let Some(open) = self.open.get_mut(&id).filter(|open| !matches!(open.state, State::Refused)) else {
            self.summing = None;
            return Ok(());
        };
        if let Some(bytes) = made {
            open.sums += bytes.len();
            self.sums += bytes.len();
            self.answer(&Answer::Sums { id, bytes });
            return Ok(());
        }
        let coming = match &open.state {
            State::Incoming(incoming) => Some((incoming.path.clone(), incoming.place.clone(), incoming.reserved)),
            _ => None,
        };
        let outcome = summing.outcome().await?;
        self.summing = None;
        if let (Err(refusal), Some((path, place, reserved))) = (outcome, coming) {
            self.void.extend(reserved);
            return self.reject(id, &path, &place, refusal).await;
        }
        // What is complete needs no more of them, whatever became of them.
        self.answer(&Answer::Sums { id, bytes: Bytes::new() });
        Ok(())
    }

    /// Keeps what has come.
    pub(super) async fn contents(&mut self, messages: Vec<Push>) -> Result<(), SessionError> {
        let mut files: HashMap<u32, Box<Incoming>> = HashMap::new();
        let mut own = Vec::new();
        for message in messages {
            let Some(id) = id_of(&message) else { continue };
            if files.contains_key(&id) {
                own.push((id, message));
                continue;
            }
            let Some(open) = self.open.get_mut(&id) else { return Err(unknown(id).into()) };
            match std::mem::replace(&mut open.state, State::Ours) {
                State::Incoming(incoming) => {
                    files.insert(id, incoming);
                    own.push((id, message));
                }
                State::Refused => {
                    open.state = State::Refused;
                    if matches!(message, Push::End { .. } | Push::Cancel { .. }) {
                        self.forget(id);
                    }
                }
                State::Ours | State::Compared(_) => return Err(unknown(id).into()),
            }
        }
        if own.is_empty() {
            return Ok(());
        }
        let (hashers, durable) = (Arc::clone(&self.hashers), self.peer.node.config.durable);
        let received = blocking("receive", move || {
            let mut desk = Desk { locator: Locator::default(), hashers, piece: Vec::new(), durable };
            let mut outcomes = Vec::new();
            for (id, message) in own {
                let is_last = matches!(message, Push::End { .. } | Push::Cancel { .. });
                let Some(incoming) = files.get_mut(&id) else {
                    // Refused above; the client did not know it.
                    outcomes.push((id, None, is_last));
                    continue;
                };
                let outcome = match incoming.take(&mut desk, message) {
                    Ok(None) => continue,
                    Ok(Some(outcome)) => outcome,
                    Err(refusal) => Outcome::Refused(refusal),
                };
                let incoming = files.remove(&id);
                outcomes.push((id, incoming.map(|incoming| (incoming, outcome)), is_last));
            }
            (files, outcomes)
        });
        let (files, outcomes) = received.await?;
        for (id, incoming) in files {
            self.set_state(id, State::Incoming(incoming));
        }
        let begun = |open: &&Open| matches!(&open.state, State::Incoming(incoming) if incoming.has_begun());
        if self.open.values().filter(begun).count() > MOST_CONTENTS {
            return Err(WireError::Protocol("the contents of too many files at once".to_owned()).into());
        }
        for (id, outcome, is_last) in outcomes {
            match outcome {
                Some((incoming, Outcome::Complete(new))) => {
                    receive::warn_of_lost(&self.peer, &new).await?;
                    let Incoming { path, place, before, rules, reserved, .. } = *incoming;
                    self.ready.files.push(Finished { id, path, place, before, rules, new, already: false, reserved });
                }
                Some((incoming, Outcome::Cancelled)) => {
                    self.void.extend(incoming.reserved);
                    self.forget(id);
                }
                Some((incoming, Outcome::Refused(refusal))) => {
                    let (path, place) = (incoming.path.clone(), incoming.place.clone());
                    self.void.extend(incoming.reserved);
                    if !is_last {
                        self.set_state(id, State::Incoming(incoming));
                    }
                    self.reject(id, &path, &place, refusal).await?;
                }
                None if is_last => self.forget(id),
                None => {}
            }
        }
        Ok(())
    }
}

/// The sums of one file that are being made.
#[derive(Debug)]
pub(super) struct Summing {
    pub(super) id: u32,
    pub(super) made: mpsc::Receiver<Bytes>,
    task: JoinHandle<Result<Result<(), Refusal>, EngineError>>,
}

impl Summing {
    fn start(id: u32, incoming: &Incoming) -> Self {
        let (sender, made) = mpsc::channel(SUMS_WAITING);
        let (place, before) = (incoming.place.clone(), incoming.before.clone());
        let task = tokio::spawn(blocking("sums", move || {
            let basis = open_basis(&mut Locator::default(), &place, before.as_ref())?;
            make_sums(basis, &sender)
        }));
        Self { id, made, task }
    }

    /// How it ended.
    async fn outcome(&mut self) -> Result<Result<(), Refusal>, EngineError> {
        let joined = (&mut self.task).await;
        joined.unwrap_or_else(|source| Err(EngineError::Worker { operation: "sums", source }))
    }
}

/// Hands on the block length, the key and the sums of what is here, piece by piece.
fn make_sums(basis: File, made: &mpsc::Sender<Bytes>) -> Result<(), Refusal> {
    fs::read_ahead(&basis);
    let block_length = blocks::block_length(basis.metadata()?.len());
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut piece = following::head(block_length, &key).to_vec();
    // A file that grows meanwhile may have more blocks than its length said.
    let mut left = blocks::MAX_BLOCKS;
    // Nobody may be there any more.
    let send = |piece: &mut Vec<u8>| drop(made.blocking_send(std::mem::take(piece).into()));
    blocks::sums(&mut Awaited { basis, made }, block_length, &key, &mut |sum| {
        if left > 0 {
            piece.extend(sum);
            left -= 1;
        }
        if piece.len() >= SUMS_AT_ONCE {
            send(&mut piece);
        }
    })?;
    if !piece.is_empty() {
        send(&mut piece);
    }
    Ok(())
}

/// A file that is read as long as its sums are waited for.
struct Awaited<'m> {
    basis: File,
    made: &'m mpsc::Sender<Bytes>,
}

impl Read for Awaited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.made.is_closed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.basis.read(buffer)
    }
}

/// Opens what was there when the file was offered.
fn open_basis(locator: &mut Locator, place: &LocalPath, before: Option<&Metadata>) -> Result<File, Refusal> {
    let basis = Target::find_with(locator, place)?.place().open_regular()?;
    let now = fs::meta::metadata_of(&basis)?;
    match before {
        Some(before) if is_untouched(before, &now) => Ok(basis),
        _ => Err(Refusal::ChangedMeanwhile),
    }
}

fn id_of(message: &Push) -> Option<u32> {
    match message {
        Push::Data { id, .. }
        | Push::Packed { id, .. }
        | Push::Copy { id, .. }
        | Push::End { id, .. }
        | Push::Cancel { id } => Some(*id),
        Push::Key(_) | Push::Offer(_) | Push::Same { .. } | Push::Leave => None,
    }
}
