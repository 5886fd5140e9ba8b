//! The batch dialect, receiving (docs/protocol.md): offers come in, answers go out, and what has become complete is made
//! durable and recorded together.
//!
//! [`offers`] looks at what is offered and says what is needed, [`contents`] keeps what comes in beside its target, and
//! [`commit`] puts everything in place that is complete, whenever nothing else is waiting to be read. The rules are those of
//! `permission`, `apply` and `receive`.

mod commit;
mod contents;
mod offers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::commit::Ready;
use self::contents::{Incoming, Summing};
use self::offers::Seen;
use super::apply::{Hiding, Target};
use super::peer::Peer;
use super::permission;
use super::refusal::Refusal;
use super::session::SessionError;
use crate::config::LocalPath;
use crate::engine::{EngineError, blocking};
use crate::model::{Metadata, SyncPath};
use crate::store::IntentId;
use crate::wire::batch::{Answer, MAX_OPEN, MAX_OPEN_BYTES, Offer, Push, Theirs};
use crate::wire::{Attributes, Connection, Reply, WireError};

/// Files whose content is under way, at most: each holds a descriptor. Clients of ours send one after the other.
const MOST_CONTENTS: usize = 64;

/// Bytes of frames that are worked on together.
const AT_ONCE: usize = 1 << 20;

/// Speaks frames until the client goes back to lines, or, when it is stopped, to the end of the content that is coming. What
/// is complete when the connection breaks is put in place; the rest stays as it was.
pub(super) async fn serve(
    connection: &mut Connection,
    peer: &Arc<Peer>,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let mut batch = Batch {
        peer: Arc::clone(peer),
        key: String::new(),
        open: HashMap::new(),
        names: HashSet::new(),
        bytes: 0,
        ready: Ready::default(),
        hiding: Hiding::default(),
        void: Vec::new(),
        unsummed: VecDeque::new(),
        summing: None,
        sums: 0,
        hashers: Arc::new(Semaphore::new(1)),
        answers: Vec::new(),
    };
    let outcome = batch.converse(connection, stop).await;
    match outcome {
        Err(SessionError::Wire(_) | SessionError::Stopped) => {
            batch.commit().await?;
            batch.give_up().await?;
        }
        // What the client can be told of it.
        Err(SessionError::Engine(_)) => drop(batch.send(connection).await),
        _ => {}
    }
    outcome
}

/// What is under way in one stretch of frames.
#[derive(Debug)]
struct Batch {
    peer: Arc<Peer>,
    /// Of the group that the client offers in.
    key: String,
    open: HashMap<u32, Open>,
    /// The names of open offers: of one name, one at a time.
    names: HashSet<SyncPath>,
    /// What open offers take, as far as the client decides that.
    bytes: usize,
    ready: Ready,
    hiding: Hiding,
    /// Intents that have told a temporary name which is not used any more.
    void: Vec<IntentId>,
    /// Files of which sums are to be made before they are wanted.
    unsummed: VecDeque<u32>,
    /// Those that are being made.
    summing: Option<Summing>,
    /// Bytes of sums that the client was sent and has not done with.
    sums: usize,
    /// How many contents may have a thread that hashes.
    hashers: Arc<Semaphore>,
    /// Encoded, not yet sent.
    answers: Vec<u8>,
}

/// An offer that is not closed.
#[derive(Debug)]
struct Open {
    path: Option<SyncPath>,
    bytes: usize,
    /// Bytes of its sums.
    sums: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Being looked at, or complete and waiting for [`Batch::commit`].
    Ours,
    /// The client was told a digest.
    Compared(Box<Compared>),
    /// Content is coming.
    Incoming(Box<Incoming>),
    /// It is refused, and the client may not know that yet: what comes is dropped.
    Refused,
}

/// A file that the client was shown.
#[derive(Debug)]
struct Compared {
    place: LocalPath,
    shown: Metadata,
    digest: [u8; 32],
    attributes: Attributes,
}

impl Batch {
    async fn converse(&mut self, connection: &mut Connection, stop: &CancellationToken) -> Result<(), SessionError> {
        loop {
            if stop.is_cancelled() && !self.is_at_a_file() {
                self.commit().await?;
                self.send(connection).await?;
                return Err(SessionError::Stopped);
            }
            let mut frames = connection.frames_at_hand(AT_ONCE).await?;
            self.pass_sums().await?;
            if frames.is_empty() {
                self.commit().await?;
                self.begin_sums();
                self.send(connection).await?;
                // What has begun to come does come to an end.
                let stop = if self.is_at_a_file() { CancellationToken::new() } else { stop.clone() };
                let sums = async {
                    match &mut self.summing {
                        Some(summing) => summing.made.recv().await,
                        None => future::pending().await,
                    }
                };
                tokio::select! {
                    read = connection.read_frames(AT_ONCE) => frames = read?,
                    made = sums => {
                        self.pass(made).await?;
                        continue;
                    }
                    () = stop.cancelled() => continue,
                }
            }
            if frames.is_empty() {
                return Err(WireError::Closed.into());
            }
            let messages: Result<Vec<Push>, WireError> = frames.into_iter().map(Push::parse).collect();
            if self.receive(messages?).await? {
                self.send(connection).await?;
                return Ok(());
            }
            // The client goes on with what is wanted while the rest is put in place.
            self.send(connection).await?;
            if self.ready.is_full() {
                self.commit().await?;
            }
        }
    }

    /// Drops what is not complete.
    async fn give_up(&mut self) -> Result<(), EngineError> {
        for (_, open) in self.open.drain() {
            if let State::Incoming(incoming) = open.state {
                self.void.extend(incoming.reserved());
            }
        }
        self.end_reservations().await
    }

    fn is_at_a_file(&self) -> bool {
        self.open.values().any(|open| matches!(&open.state, State::Incoming(incoming) if incoming.has_begun()))
    }

    async fn send(&mut self, connection: &mut Connection) -> Result<(), WireError> {
        if self.answers.is_empty() {
            return Ok(());
        }
        connection.write(&std::mem::take(&mut self.answers)).await?;
        connection.flush().await
    }

    /// Acts on messages, those of one sort together. `true`: the client went back to lines.
    async fn receive(&mut self, messages: Vec<Push>) -> Result<bool, SessionError> {
        let (mut offers, mut same, mut contents) = (Vec::new(), Vec::new(), Vec::new());
        for message in messages {
            match message {
                Push::Offer(offer) if same.is_empty() && contents.is_empty() => offers.push(offer),
                Push::Same { id } if offers.is_empty() && contents.is_empty() => same.push(self.same(id)?),
                Push::Data { .. }
                | Push::Packed { .. }
                | Push::Copy { .. }
                | Push::End { .. }
                | Push::Cancel { .. }
                    if offers.is_empty() && same.is_empty() =>
                {
                    contents.push(message);
                }
                other => {
                    self.offers(std::mem::take(&mut offers)).await?;
                    self.set_times(std::mem::take(&mut same)).await?;
                    self.contents(std::mem::take(&mut contents)).await?;
                    match other {
                        Push::Key(key) => self.key = key,
                        Push::Offer(offer) => offers.push(offer),
                        Push::Same { id } => same.push(self.same(id)?),
                        Push::Leave => return self.leave().await.map(|()| true),
                        content => contents.push(content),
                    }
                }
            }
        }
        self.offers(offers).await?;
        self.set_times(same).await?;
        self.contents(contents).await?;
        Ok(false)
    }

    async fn leave(&mut self) -> Result<(), SessionError> {
        self.commit().await?;
        if !self.open.is_empty() {
            return Err(WireError::Protocol("the peer left frames with offers open".to_owned()).into());
        }
        self.answer(&Answer::Left);
        Ok(())
    }

    fn answer(&mut self, answer: &Answer) {
        self.answers.extend(answer.encode());
    }

    /// Takes a new offer into account.
    fn open(&mut self, offer: &Offer) -> Result<(), WireError> {
        let refuse = |problem: &str| Err(WireError::Protocol(format!("offer {}: {problem}", offer.id)));
        if offer.differs {
            match self.open.get(&offer.id) {
                Some(Open { state: State::Compared(_), .. }) => self.forget(offer.id),
                _ => return refuse("no contents were to be compared"),
            }
        }
        let bytes = offer.bytes();
        if self.open.len() >= MAX_OPEN || self.bytes + bytes > MAX_OPEN_BYTES {
            return refuse("too many are open");
        }
        if self.open.contains_key(&offer.id) {
            return refuse("its id is in use");
        }
        self.bytes += bytes;
        self.open.insert(offer.id, Open { path: None, bytes, sums: 0, state: State::Ours });
        Ok(())
    }

    /// Its id is free again.
    fn forget(&mut self, id: u32) {
        if let Some(open) = self.open.remove(&id) {
            self.bytes -= open.bytes;
            self.sums -= open.sums;
            // Those that are still being made are for nobody.
            self.summing.take_if(|summing| summing.id == id);
            if let Some(path) = open.path {
                self.names.remove(&path);
            }
        }
    }

    fn set_state(&mut self, id: u32, state: State) {
        if let Some(open) = self.open.get_mut(&id) {
            open.state = state;
        }
    }

    fn done(&mut self, id: u32, already: bool) {
        self.forget(id);
        self.answer(&Answer::Done { id, already });
    }

    /// Says no.
    fn refuse(&mut self, id: u32, reply: &Reply) {
        self.drop_content(id);
        self.answer(&Answer::Refused { id, text: reply.text().into_bytes().into() });
    }

    /// Is about to close an offer. Whoever does not know that yet may go on sending content.
    fn drop_content(&mut self, id: u32) {
        let was_wanted = matches!(self.open.get(&id), Some(Open { state: State::Incoming(_), .. }));
        if was_wanted {
            self.set_state(id, State::Refused);
            if let Some(path) = self.open.get_mut(&id).and_then(|open| open.path.take()) {
                self.names.remove(&path);
            }
        } else {
            self.forget(id);
        }
    }

    /// Says why a file is left as it is.
    async fn reject(
        &mut self,
        id: u32,
        path: &SyncPath,
        place: &LocalPath,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        let reply = match refusal {
            Refusal::ChangedMeanwhile => permission::changed_meanwhile(&self.peer, path).await?,
            refusal => refusal.reply(),
        };
        match reply {
            Reply::AlsoDirty => self.conflict(id, place.clone()).await?,
            reply => {
                if let Reply::Text(text) = &reply {
                    tracing::warn!("ERROR: {path} from {}: {text}", self.peer.name);
                }
                self.refuse(id, &reply);
            }
        }
        Ok(())
    }

    /// The file was changed here as well: the client decides, and is told what that needs.
    async fn conflict(&mut self, id: u32, place: LocalPath) -> Result<(), EngineError> {
        let theirs = blocking("look", move || {
            let target = Target::find(&place).ok()?;
            let size = target.place().size().ok()?;
            Some(Theirs { mtime: target.before?.mtime, size })
        });
        let theirs = theirs.await?;
        self.drop_content(id);
        self.answer(&Answer::Conflict { id, theirs });
        Ok(())
    }

    /// The client found both contents equal: the time is set, as far as the file is still what the client was shown.
    fn same(&mut self, id: u32) -> Result<Seen, WireError> {
        let Some(Open { path: Some(path), state, .. }) = self.open.get_mut(&id) else {
            return Err(unknown(id));
        };
        let path = path.clone();
        let State::Compared(compared) = std::mem::replace(state, State::Ours) else { return Err(unknown(id)) };
        let Compared { place, shown, digest, attributes } = *compared;
        Ok(Seen { id, path, place, shown, digest: Some(digest), mtime: attributes.mtime })
    }
}

fn unknown(id: u32) -> WireError {
    WireError::Protocol(format!("offer {id} is not open for that"))
}
