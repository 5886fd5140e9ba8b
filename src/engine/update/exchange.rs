//! The conversation with one peer, in step (docs/protocol.md, "Pipelining"). Requests go out before earlier answers are
//! in; each answer is read whole, whatever becomes of it, and comes back with what it belongs to. What is asked and what
//! answers mean is for `pipeline`.
//!
//! Behind a PATCH the peer waits for a delta, and would take any command for one: requests made meanwhile wait here.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::feed::{Sent, Wanted};
use super::outbox::{Body, Outbox};
use crate::delta::{Bounds, MISSING_BASIS};
use crate::engine::contact::Dialect;
use crate::engine::tally::PeerTally;
use crate::model::Checktxt;
use crate::wire::batch::{Answer as BatchAnswer, Push};
use crate::wire::codec::MAX_LINE;
use crate::wire::frame::Frame;
use crate::wire::{Connection, OctetHeader, Reader, Reply, Request, WireError};

/// What was asked: it decides how much belongs to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Signature,
    Flush,
    /// PATCH: `OK (send_data).`, then the signature.
    SendData,
    /// A delta, MK…, SETOWN, SETMOD, SETIME or DEL.
    Change,
    /// DEL of a directory that stands where a file shall be.
    ClearTheWay,
    Mtime,
    Size,
}

impl Question {
    /// It comes first for a file and changes nothing.
    pub(super) fn is_opening(self) -> bool {
        matches!(self, Self::Signature | Self::Flush)
    }
}

/// What an answer that is to come belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    /// The job.
    pub(super) number: usize,
    pub(super) attempt: u32,
    pub(super) question: Question,
}

/// An answer with all that belongs to it.
#[derive(Debug)]
pub(super) struct Answer {
    /// The line as it came.
    pub(super) line: Vec<u8>,
    pub(super) reply: Reply,
    /// Of a success; `None` where there is nothing but the line.
    pub(super) data: Option<Data>,
}

/// What stands behind the line.
#[derive(Debug)]
pub(super) enum Data {
    /// Of SIG: the peer's file. Without signature: it could not be made, or is too long to be kept.
    State { checktxt: Checktxt, signature: Option<Vec<u8>> },
    /// Of PATCH: what the delta is made against.
    Basis(Vec<u8>),
    /// Of GETTM and GETSZ.
    Number(i64),
}

/// A request that no peer could read: the names in it are too long. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineTooLong;

/// What happened while frames are spoken.
#[derive(Debug)]
pub(super) enum Happened {
    Sent(Sent),
    Answers(Vec<BatchAnswer>),
}

/// Bytes of answers that are acted on together.
const ANSWERS: usize = 1 << 18;

fn parsed(frames: Vec<Frame>) -> Result<Vec<BatchAnswer>, WireError> {
    frames.into_iter().map(BatchAnswer::parse).collect()
}

#[derive(Debug)]
pub(super) struct Exchange {
    reader: Reader,
    outbox: Outbox,
    pub(super) dialect: Dialect,
    pub(super) tally: Arc<PeerTally>,
    expected: VecDeque<Awaited>,
    /// Behind a PATCH whose delta is not sent.
    held: Vec<(Vec<u8>, Awaited)>,
    patching: bool,
    /// The answer to BATCH is to come.
    entering: bool,
}

impl Exchange {
    pub(super) fn start(connection: Connection, dialect: Dialect, tally: Arc<PeerTally>) -> Self {
        let (reader, writer) = connection.split();
        Self {
            reader,
            outbox: Outbox::start(writer, Arc::clone(&tally)),
            dialect,
            tally,
            expected: VecDeque::new(),
            held: Vec::new(),
            patching: false,
            entering: false,
        }
    }

    /// Where we connected from.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.reader.local_address()
    }

    /// Sends a request of the session as a whole and waits for its answer line. Only between pipelines.
    pub(super) async fn converse(&mut self, request: &Request) -> Result<Vec<u8>, WireError> {
        debug_assert!(self.in_flight() == 0, "answers to earlier requests are to come");
        self.outbox.send(request.encode());
        self.line().await
    }

    /// Sends a request about one file, as soon as the peer reads commands.
    pub(super) fn ask(&mut self, awaited: Awaited, request: &Request) -> Result<(), LineTooLong> {
        let line = request.encode();
        if line.len() > MAX_LINE {
            return Err(LineTooLong);
        }
        if self.patching {
            self.held.push((line, awaited));
        } else {
            self.dispatch(line, awaited);
        }
        Ok(())
    }

    fn dispatch(&mut self, line: Vec<u8>, awaited: Awaited) {
        self.patching = awaited.question == Question::SendData;
        self.outbox.send(line);
        self.expected.push_back(awaited);
    }

    /// A PATCH is out, and its delta is not: only questions of small consequence should be asked.
    pub(super) fn is_patching(&self) -> bool {
        self.patching
    }

    /// Sends the delta that the peer waits for; `None`: there is none, and the peer leaves its file as it is.
    pub(super) fn send_delta(&mut self, awaited: Awaited, delta: Option<(u64, Body)>) {
        match delta {
            Some((length, data)) => self.outbox.send_stream(length, data),
            None => self.outbox.send(OctetHeader::Failed.encode()),
        }
        self.expected.push_back(awaited);
        self.resume();
    }

    /// The peer reads commands again: what was held back follows, up to the next PATCH.
    fn resume(&mut self) {
        self.patching = false;
        for (line, awaited) in std::mem::take(&mut self.held) {
            if self.patching {
                self.held.push((line, awaited));
            } else {
                self.dispatch(line, awaited);
            }
        }
    }

    /// Answers that are to come.
    pub(super) fn in_flight(&self) -> usize {
        self.expected.len() + self.held.len()
    }

    /// The next answer; `None` when nothing was asked. After the answer to a PATCH that was accepted, its delta must be
    /// sent.
    pub(super) async fn next(&mut self) -> Result<Option<(Awaited, Answer)>, WireError> {
        let Some(awaited) = self.expected.pop_front() else { return Ok(None) };
        let line = self.line().await?;
        let reply = Reply::parse(&line);
        let mut answer = Answer { line, reply, data: None };
        if answer.reply.is_ok() {
            match awaited.question {
                Question::Signature => answer = self.state(answer).await?,
                Question::SendData => {
                    let signature = self.signature().await?.unwrap_or_else(|| MISSING_BASIS.to_vec());
                    answer.data = Some(Data::Basis(signature));
                }
                Question::Mtime | Question::Size => answer.data = Some(Data::Number(self.number().await?)),
                Question::Flush | Question::Change | Question::ClearTheWay => {}
            }
        } else if awaited.question == Question::SendData {
            self.resume();
        }
        Ok(Some((awaited, answer)))
    }

    /// What follows the first line of the answer to SIG. An error behind it counts as the answer.
    async fn state(&mut self, answer: Answer) -> Result<Answer, WireError> {
        let checktxt = Checktxt::from_text(&self.line().await?);
        let signature = self.signature().await?;
        let end = self.line().await?;
        let reply = Reply::parse(&end);
        if reply.is_ok() {
            Ok(Answer { data: Some(Data::State { checktxt, signature }), ..answer })
        } else {
            Ok(Answer { line: end, reply, data: None })
        }
    }

    /// The signature that comes next; `None` when the peer could not make it. Of one that is too long, the header alone is
    /// kept: it is equal to none, and a delta against it is the whole file.
    async fn signature(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        let header = OctetHeader::parse(&self.line().await?)?;
        let OctetHeader::Length(length) = header else { return Ok(None) };
        let longest = Bounds::default().signature_length();
        let kept = if length > longest as u64 { MISSING_BASIS.len() } else { longest };
        let mut signature = Vec::with_capacity(usize::try_from(length).unwrap_or(kept).min(kept));
        let mut sink = |bytes: &[u8]| {
            let room = kept - signature.len();
            signature.extend_from_slice(&bytes[..bytes.len().min(room)]);
            Ok(())
        };
        // The sink never fails.
        let _ = self.reader.read_body(length, &mut sink).await?;
        Ok(Some(signature))
    }

    async fn number(&mut self) -> Result<i64, WireError> {
        let line = self.line().await?;
        let text = String::from_utf8_lossy(&line);
        text.trim().parse().map_err(|_| WireError::Protocol(format!("a number expected, got `{text}`")))
    }

    /// The next line. As long as a delta is on its way out, the peer owes us none.
    async fn line(&mut self) -> Result<Vec<u8>, WireError> {
        loop {
            let sent = self.outbox.progress();
            match self.reader.read_line().await {
                Err(WireError::TimedOut { .. }) if self.outbox.progress() != sent => {}
                Ok(Some(line)) => {
                    tracing::trace!("Peer> {}", String::from_utf8_lossy(&line));
                    return Ok(line);
                }
                Ok(None) => return Err(WireError::Closed),
                Err(error) => return Err(error),
            }
        }
    }

    /// Frames follow. The answer comes ahead of the peer's first one.
    pub(super) fn begin_frames(&mut self) {
        if let Dialect::Batch { version } = self.dialect {
            self.outbox.send(Request::Batch { version }.encode());
            self.entering = true;
        }
    }

    pub(super) fn send_frames(&mut self, frames: Vec<u8>) {
        self.outbox.send(frames);
    }

    pub(super) fn send_content(&mut self, wanted: Wanted) {
        self.outbox.send_content(wanted);
    }

    /// What happens next: a content is about to leave whole, or the peer has answered. Of one file, that comes first.
    pub(super) async fn happened(&mut self) -> Result<Happened, WireError> {
        self.enter().await?;
        loop {
            let sent = self.outbox.progress();
            tokio::select! {
                biased;
                Some(sent) = self.outbox.sent() => return Ok(Happened::Sent(sent)),
                frames = self.reader.read_frames(ANSWERS) => match frames {
                    Err(WireError::TimedOut { .. }) if self.outbox.progress() != sent => {}
                    Err(error) => return Err(error),
                    Ok(frames) if frames.is_empty() => return Err(WireError::Closed),
                    Ok(frames) => return Ok(Happened::Answers(parsed(frames)?)),
                },
            }
        }
    }

    async fn enter(&mut self) -> Result<(), WireError> {
        if std::mem::take(&mut self.entering) {
            let line = self.line().await?;
            if !matches!(Reply::parse(&line), Reply::Batch { .. }) {
                let answer = String::from_utf8_lossy(&line).into_owned();
                return Err(WireError::Protocol(format!("the peer answered BATCH with `{answer}`")));
            }
        }
        Ok(())
    }

    /// Back to lines, when no offer is open.
    pub(super) async fn leave(&mut self) -> Result<(), WireError> {
        self.outbox.send(Push::Leave.encode());
        self.enter().await?;
        match parsed(self.reader.read_frames(1).await?)?.as_slice() {
            [BatchAnswer::Left] => Ok(()),
            [] => Err(WireError::Closed),
            _ => Err(WireError::Protocol("the peer answered what nobody asked".to_owned())),
        }
    }

    /// Says goodbye. The peer runs its actions before it closes the connection.
    pub(super) async fn finish(mut self) -> Result<Connection, WireError> {
        self.converse(&Request::Bye).await?;
        let writer = self.outbox.finish().await?;
        Ok(Connection::unite(self.reader, writer))
    }
}
