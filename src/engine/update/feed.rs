//! The contents of files as they go out in frames: read piece by piece, hashed on the way, one file after the other. What
//! came of each is told before its last frame leaves.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::contents::{Content, Contents};
use crate::config::LocalPath;
use crate::delta::blocks::{Matcher, Piece};
use crate::model::{FileKind, Metadata};
use crate::wire::Attributes;
use crate::wire::batch::Push;

/// Bytes of frames that are made at a time.
const AT_ONCE: usize = 256 << 10;

/// Bytes of content in one frame.
const PIECE: usize = 128 * 1024;

/// A file whose content the peer waits for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: u32,
    pub(super) place: LocalPath,
    /// What was read for other peers.
    pub(super) contents: Arc<Contents>,
    /// Send it even if it changes while it is read.
    pub(super) insist: bool,
    /// The blocks of what the peer has: their length and their sums.
    pub(super) sums: Option<(u32, Vec<u8>)>,
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

/// The files that wait, and the one that is being read.
#[derive(Debug, Default)]
pub(super) struct Feed {
    waiting: VecDeque<Wanted>,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    wanted: Wanted,
    file: Content,
    matcher: Option<Matcher>,
}

impl Feed {
    pub(super) fn push(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none()
    }

    /// The next frames, with what came of the files that they end.
    pub(super) fn frames(&mut self) -> (Vec<u8>, Vec<Sent>) {
        let (mut frames, mut sent) = (Vec::new(), Vec::new());
        while frames.len() < AT_ONCE {
            let reading = match self.reading.take() {
                Some(reading) => Ok(reading),
                None => match self.waiting.pop_front() {
                    Some(wanted) => Reading::begin(wanted),
                    None => break,
                },
            };
            let outcome = reading.and_then(|mut reading| match reading.piece(&mut frames) {
                Ok(true) => {
                    self.reading = Some(reading);
                    Ok(None)
                }
                Ok(false) => reading.end(&mut frames).map(Some),
                Err(error) => Err((reading.wanted.id, error)),
            });
            match outcome {
                Ok(ended) => sent.extend(ended),
                Err((id, error)) => {
                    frames.extend(Push::Cancel { id }.encode());
                    sent.push(Sent { id, outcome: Err(error) });
                }
            }
        }
        (frames, sent)
    }
}

impl Reading {
    fn begin(mut wanted: Wanted) -> Result<Self, (u32, io::Error)> {
        let file = wanted.contents.open(&wanted.place).map_err(|error| (wanted.id, error))?;
        let matcher = wanted.sums.take().and_then(|(length, sums)| Matcher::new(length, &sums));
        Ok(Self { wanted, file, matcher })
    }

    /// Appends frames with the next bytes; `false` at the end.
    fn piece(&mut self, frames: &mut Vec<u8>) -> io::Result<bool> {
        let id = self.wanted.id;
        if let Some(matcher) = &mut self.matcher {
            return matcher.step(&mut self.file, &mut |piece| {
                frames.extend(match piece {
                    Piece::Literal(bytes) => Push::Data { id, bytes: Bytes::copy_from_slice(bytes) }.encode(),
                    Piece::Copy { offset, length } => Push::Copy { id, offset, length }.encode(),
                });
            });
        }
        let expected = match self.file.metadata.kind {
            // One byte more shows that a small file ends there.
            FileKind::Regular { size } => usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(PIECE),
            _ => PIECE,
        };
        let mut bytes = vec![0; expected];
        let mut length = 0;
        while length < bytes.len() {
            match self.file.read(&mut bytes[length..])? {
                0 => break,
                read => length += read,
            }
        }
        let is_last = length < bytes.len();
        bytes.truncate(length);
        if !bytes.is_empty() {
            frames.extend(Push::Data { id, bytes: Bytes::from(bytes) }.encode());
        }
        Ok(!is_last)
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
