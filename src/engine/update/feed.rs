//! The contents of files as they go out in frames: read piece by piece, hashed on the way, one file after the other. What
//! came of each is told before its last frame leaves.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;

use super::contents::{Content, Contents};
use crate::config::LocalPath;
use crate::delta::blocks::Piece;
use crate::delta::following::{Follower, Progress};
use crate::fs::Locator;
use crate::model::{FileKind, Metadata};
use crate::wire::Attributes;
use crate::wire::batch::Push;
use crate::wire::pack::Packer;

/// Bytes of frames that are made at a time.
const AT_ONCE: usize = 256 << 10;

/// Bytes that the peer has and that are passed before what is made is sent.
const COPIED_AT_ONCE: u64 = 32 << 20;

/// Bytes of content in one frame.
const PIECE: usize = 128 * 1024;

/// What else the last frames take, at most.
const HEADERS: usize = 4 << 10;

/// A file whose content the peer waits for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: u32,
    pub(super) place: LocalPath,
    /// What was read for other peers.
    pub(super) contents: Arc<Contents>,
    /// Send it even if it changes while it is read.
    pub(super) insist: bool,
    /// Pack what shrinks.
    pub(super) pack: bool,
    /// What the peer says of the blocks of its file, as it comes.
    pub(super) theirs: Option<Receiver<Bytes>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u32,
    /// The error: it could not be read, and was called off.
    pub(super) outcome: io::Result<Whole>,
}

/// A file that was read to its end.
#[derive(Debug)]
pub(super) struct Whole {
    /// Its state before that.
    pub(super) metadata: Metadata,
    pub(super) digest: [u8; 32],
    /// It was changed while it was read. Unless that was insisted on, it was called off.
    pub(super) changed: bool,
}

/// Bytes of contents in frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amount {
    /// Those that the peer has.
    pub(super) copied: u64,
    /// All others, and what was made of them.
    pub(super) literal: u64,
    pub(super) out: u64,
}

/// The files that wait, and the one that is being read.
#[derive(Debug, Default)]
pub(super) struct Feed {
    waiting: VecDeque<Wanted>,
    reading: Option<Reading>,
    packer: Option<Packer>,
    /// For what is read.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Reading {
    wanted: Wanted,
    file: Content,
    follower: Option<Follower>,
}

/// What became of a piece.
enum Step {
    More,
    /// The peer has to say more first.
    Waiting,
    Ended,
}

impl Feed {
    pub(super) fn push(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none()
    }

    /// The next frames, with what came of the files that they end. `room` is a buffer to put them in. Waits for what a peer
    /// says of its file only when there is nothing to send.
    pub(super) fn frames(&mut self, room: Vec<u8>) -> (Vec<u8>, Vec<Sent>, Amount) {
        let (mut frames, mut sent, mut amount) = (room, Vec::new(), Amount::default());
        let mut is_waiting = false;
        let mut locator = Locator::default();
        frames.clear();
        frames.reserve_exact(AT_ONCE + PIECE + HEADERS);
        while frames.len() < AT_ONCE && amount.copied < COPIED_AT_ONCE && !is_waiting {
            let reading = match self.reading.take() {
                Some(reading) => Ok(reading),
                None => match self.waiting.pop_front() {
                    Some(wanted) => {
                        if let Some(packer) = &mut self.packer {
                            packer.begin();
                        }
                        Reading::begin(&mut locator, wanted)
                    }
                    None => break,
                },
            };
            let (packer, buffer) = (&mut self.packer, &mut self.buffer);
            let outcome =
                reading.and_then(|mut reading| match reading.piece(packer, buffer, &mut frames, &mut amount) {
                    Ok(Step::Waiting) if frames.is_empty() => {
                        reading.wait();
                        Ok((Some(reading), None))
                    }
                    Ok(Step::Waiting) => {
                        is_waiting = true;
                        Ok((Some(reading), None))
                    }
                    Ok(Step::More) => Ok((Some(reading), None)),
                    Ok(Step::Ended) => Ok((None, Some(reading.end(&mut frames)?))),
                    Err(error) => Err((reading.wanted.id, error)),
                });
            match outcome {
                Ok((reading, ended)) => {
                    self.reading = reading;
                    sent.extend(ended);
                }
                Err((id, error)) => {
                    frames.extend(Push::Cancel { id }.encode());
                    sent.push(Sent { id, outcome: Err(error) });
                }
            }
        }
        (frames, sent, amount)
    }
}

impl Reading {
    fn begin(locator: &mut Locator, wanted: Wanted) -> Result<Self, (u32, io::Error)> {
        let file = wanted.contents.open(locator, &wanted.place).map_err(|error| (wanted.id, error))?;
        let follower = wanted.theirs.as_ref().map(|_| Follower::default());
        Ok(Self { wanted, file, follower })
    }

    /// Waits for the next that the peer says of its file.
    fn wait(&mut self) {
        if let (Some(follower), Some(theirs)) = (&mut self.follower, &self.wanted.theirs) {
            match theirs.recv() {
                Ok(bytes) => follower.add(&bytes),
                Err(_) => follower.complete(),
            }
        }
    }

    /// Appends frames with the next bytes, and counts them.
    fn piece(
        &mut self,
        packer: &mut Option<Packer>,
        buffer: &mut Vec<u8>,
        frames: &mut Vec<u8>,
        amount: &mut Amount,
    ) -> io::Result<Step> {
        let Wanted { id, pack, .. } = self.wanted;
        if pack && packer.is_none() {
            *packer = Packer::new().ok();
        }
        let mut packer = packer.as_mut().filter(|_| pack);
        let mut data = |frames: &mut Vec<u8>, bytes: &[u8], amount: &mut Amount| {
            let packed = packer.as_mut().and_then(|packer| packer.pack(bytes));
            amount.literal += bytes.len() as u64;
            amount.out += packed.as_ref().map_or(bytes.len(), Vec::len) as u64;
            match packed {
                Some(packed) => frames.extend(Push::Packed { id, bytes: packed.into() }.encode()),
                None => Push::append_data(frames, id, bytes),
            }
        };
        if let (Some(follower), Some(theirs)) = (&mut self.follower, &self.wanted.theirs) {
            loop {
                match theirs.try_recv() {
                    Ok(bytes) => follower.add(&bytes),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        follower.complete();
                        break;
                    }
                }
            }
            let progress = follower.step(&mut self.file, &mut |piece| match piece {
                Piece::Literal(bytes) => data(frames, bytes, amount),
                Piece::Copy { offset, length } => {
                    amount.copied += length;
                    frames.extend(Push::Copy { id, offset, length }.encode());
                }
            });
            return Ok(match progress? {
                Progress::More => Step::More,
                Progress::NeedsSums => Step::Waiting,
                Progress::Done => Step::Ended,
            });
        }
        let expected = match self.file.metadata.kind {
            // One byte more shows that a small file ends there.
            FileKind::Regular { size } => usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(PIECE),
            _ => PIECE,
        };
        if buffer.len() < expected {
            buffer.resize(expected, 0);
        }
        let mut length = 0;
        while length < expected {
            match self.file.read(&mut buffer[length..expected])? {
                0 => break,
                read => length += read,
            }
        }
        if length > 0 {
            data(frames, &buffer[..length], amount);
        }
        Ok(if length == expected { Step::More } else { Step::Ended })
    }

    fn end(self, frames: &mut Vec<u8>) -> Result<Sent, (u32, io::Error)> {
        let Self { wanted: Wanted { id, place, contents, insist, .. }, file, .. } = self;
        let changed = file.has_changed().map_err(|error| (id, error))?;
        let before = file.metadata.clone();
        let digest = file.digest();
        if !changed {
            contents.learn(&place, &before, digest);
        }
        let Metadata { uid, gid, mode, mtime, .. } = before;
        let last = if changed && !insist {
            Push::Cancel { id }
        } else {
            Push::End { id, attributes: Attributes { uid, gid, mode, mtime }, digest }
        };
        frames.extend(last.encode());
        Ok(Sent { id, outcome: Ok(Whole { metadata: before, digest, changed }) })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::frame::Frame;
    use crate::wire::pack::unpack;

    /// The messages for the content of a file.
    fn pushed(content: &[u8], pack: bool) -> Vec<Push> {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), content).unwrap();
        let place = LocalPath::within(scratch.path(), "f");
        let mut feed = Feed::default();
        feed.push(Wanted {
            id: 1,
            place,
            contents: Arc::new(Contents::for_peers(1)),
            insist: false,
            pack,
            theirs: None,
        });
        let mut messages = Vec::new();
        while !feed.is_empty() {
            let mut frames = BytesMut::from(&feed.frames(Vec::new()).0[..]);
            while let Some(frame) = Frame::take(&mut frames).unwrap() {
                messages.push(Push::parse(frame).unwrap());
            }
        }
        messages
    }

    #[test]
    fn what_shrinks_is_packed_if_that_is_wanted() {
        let text: Vec<u8> = (0..100_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        let mut noise = vec![0; 1 << 20];
        getrandom::fill(&mut noise).unwrap();
        for (content, pack, is_packed) in [(&text, true, true), (&text, false, false), (&noise, true, false)] {
            let (mut sent, mut bytes) = (Vec::new(), 0);
            for message in pushed(content, pack) {
                match message {
                    Push::Data { bytes: piece, .. } => {
                        bytes += piece.len();
                        sent.extend(piece);
                    }
                    Push::Packed { bytes: piece, .. } => {
                        bytes += piece.len();
                        sent.extend(unpack(&piece).unwrap());
                    }
                    other => assert!(matches!(other, Push::End { .. }), "{other:?}"),
                }
            }
            assert!(sent == *content);
            assert_eq!(bytes < content.len() / 2, is_packed, "{bytes}");
        }
    }
}
