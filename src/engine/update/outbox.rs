//! The sending half of a pipelined session: a task of its own, so that answers are read while requests go out. In what
//! order is for `exchange` to say.

use std::io::{self, Seek, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tempfile::{SpooledData, SpooledTempFile};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::feed::{Amount, Feed, Sent, Wanted};
use crate::engine::blocking;
use crate::engine::tally::PeerTally;
use crate::model::errors::chain;
use crate::wire::{WireError, Writer};

/// Something to be sent.
enum Item {
    Bytes(Vec<u8>),
    Stream { length: u64, data: Body },
    Content(Wanted),
}

/// The data of a stream.
#[derive(Debug)]
pub(super) enum Body {
    /// Complete.
    Spooled(SpooledTempFile),
    /// Still being made.
    Pieces(mpsc::Receiver<Bytes>),
}

/// Takes what is to be sent, in order. What waits here is bounded by the number of commands in flight. Dropping it ends
/// the task.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::UnboundedSender<Item>,
    task: AbortOnDropHandle<Result<Writer, WireError>>,
    /// Pieces of streams that have gone out.
    progress: Arc<AtomicU64>,
    sent: mpsc::UnboundedReceiver<Sent>,
}

impl Outbox {
    pub(super) fn start(writer: Writer, tally: Arc<PeerTally>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (tell, sent) = mpsc::unbounded_channel();
        let progress = Arc::new(AtomicU64::new(0));
        let sending = Sending { writer, tell, progress: Arc::clone(&progress), tally };
        let task = AbortOnDropHandle::new(tokio::spawn(sending.run(receiver)));
        Self { sender, task, progress, sent }
    }

    // A writer that failed has closed the channel: whoever waits for the answer sees the connection end.

    pub(super) fn send(&self, bytes: Vec<u8>) {
        let _ = self.sender.send(Item::Bytes(bytes));
    }

    pub(super) fn send_stream(&self, length: u64, data: Body) {
        let _ = self.sender.send(Item::Stream { length, data });
    }

    pub(super) fn send_content(&self, wanted: Wanted) {
        let _ = self.sender.send(Item::Content(wanted));
    }

    /// What came of the next content, in the order in which they were given.
    pub(super) async fn sent(&mut self) -> Option<Sent> {
        self.sent.recv().await
    }

    /// Grows while a long stream is being sent.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Ends the task once everything is sent.
    pub(super) async fn finish(self) -> Result<Writer, WireError> {
        drop(self.sender);
        self.task
            .await
            .unwrap_or_else(|error| Err(WireError::Protocol(format!("the sending task ended early: {error}"))))
    }
}

/// The task.
struct Sending {
    writer: Writer,
    tell: mpsc::UnboundedSender<Sent>,
    progress: Arc<AtomicU64>,
    tally: Arc<PeerTally>,
}

impl Sending {
    async fn run(mut self, mut items: mpsc::UnboundedReceiver<Item>) -> Result<Writer, WireError> {
        let mut next = None;
        loop {
            let item = match next.take() {
                Some(item) => item,
                None => match items.recv().await {
                    Some(item) => item,
                    None => return Ok(self.writer),
                },
            };
            match item {
                Item::Bytes(bytes) => self.writer.write(&bytes).await?,
                Item::Stream { length, data } => {
                    let mut source = Counted { source: source(data)?, progress: Arc::clone(&self.progress) };
                    self.writer.write_octet_stream(length, &mut source).await?;
                    self.tally.pass(0, length);
                }
                Item::Content(wanted) => {
                    let mut feed = Feed::default();
                    feed.push(wanted);
                    while let Ok(item) = items.try_recv() {
                        match item {
                            Item::Content(wanted) => feed.push(wanted),
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.send_contents(feed).await?;
                }
            }
            if items.is_empty() && next.is_none() {
                self.writer.flush().await?;
            }
        }
    }

    /// Reads the next piece while the last one is on its way.
    async fn send_contents(&mut self, mut feed: Feed) -> Result<(), WireError> {
        let (mut frames, mut room, mut amount) = (Vec::new(), Vec::new(), Amount::default());
        loop {
            let is_over = feed.is_empty();
            let read = async {
                if is_over {
                    return Ok((feed, (Vec::new(), Vec::new(), Amount::default())));
                }
                blocking("update", move || {
                    let made = feed.frames(room);
                    (feed, made)
                })
                .await
            };
            let (written, read) = tokio::join!(self.writer.write(&frames), read);
            written?;
            self.progress.fetch_add(1, Ordering::Relaxed);
            self.tally.pass(amount.copied + amount.literal, amount.out);
            if is_over {
                return Ok(());
            }
            room = std::mem::take(&mut frames);
            let sent;
            (feed, (frames, sent, amount)) = read.map_err(|error| WireError::Protocol(chain(&error)))?;
            for one in sent {
                // Nobody listens any more when the session has ended.
                let _ = self.tell.send(one);
            }
        }
    }
}

fn source(data: Body) -> Result<Pin<Box<dyn AsyncRead + Send>>, WireError> {
    let mut data = match data {
        Body::Spooled(data) => data,
        Body::Pieces(pieces) => return Ok(Box::pin(Joined { pieces, rest: Bytes::new() })),
    };
    data.seek(SeekFrom::Start(0)).map_err(|source| WireError::Io {
        operation: "read the spooled delta for",
        peer: "the peer".into(),
        source,
    })?;
    Ok(match data.into_inner() {
        SpooledData::InMemory(cursor) => Box::pin(cursor),
        SpooledData::OnDisk(file) => Box::pin(tokio::fs::File::from_std(file)),
    })
}

/// Pieces as one stream. It ends early when they do.
struct Joined {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for Joined {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(context)) {
                Some(piece) => self.rest = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// Counts the pieces that are taken from a source.
struct Counted {
    source: Pin<Box<dyn AsyncRead + Send>>,
    progress: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.source.as_mut().poll_read(context, buffer)
    }
}
