//! The messages of the batch dialect (docs/protocol.md), as values. No sockets, no meaning.
//!
//! [`Push`] goes from the client to the server, [`Answer`] back. An id names one offer of a session; it is the client's to
//! choose, and free again when the answer that closes it has come.

use bytes::Bytes;

use super::frame::{Frame, FrameReader, FrameWriter};
use super::{Attributes, WireError};
use crate::model::{FileKind, Timestamp};

/// The versions of the dialect that this program speaks: the lowest and the highest.
pub const VERSIONS: (u32, u32) = (1, 1);

/// Offers that may be open at once. With more of them a client has lost step.
pub const MAX_OPEN: usize = 4_096;

/// Bytes of names and link targets in open offers, at most.
pub const MAX_OPEN_BYTES: usize = 8 << 20;

/// Bytes of sums of files whose content is under way, at most.
pub const MAX_SUMS: usize = 12 << 20;

/// How the client describes a file, or its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub id: u32,
    /// Whatever the server has: the client's wins.
    pub forced: bool,
    /// The contents were compared, and are not the same.
    pub differs: bool,
    /// A directory that is known to be right but for its time.
    pub time_only: bool,
    /// `None`: the file is gone.
    pub state: Option<Described>,
    /// As it stands in commands, not encoded.
    pub name: Bytes,
}

/// The state of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub kind: FileKind,
    pub attributes: Attributes,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// The pre-shared key of the group in which the offers that follow are made.
    Key(String),
    Offer(Offer),
    /// The next bytes of the content.
    Data {
        id: u32,
        bytes: Bytes,
    },
    /// The next bytes of the content, as one frame of zstd.
    Packed {
        id: u32,
        bytes: Bytes,
    },
    /// The next bytes of the content are these of the server's own file.
    Copy {
        id: u32,
        offset: u64,
        length: u64,
    },
    /// The content is complete. Attributes are those of the file that was read, the digest is its SHA-256.
    End {
        id: u32,
        attributes: Attributes,
        digest: [u8; 32],
    },
    /// There will be no content.
    Cancel {
        id: u32,
    },
    /// The content is what the server's digest says.
    Same {
        id: u32,
    },
    /// Back to lines.
    Leave,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Sums of blocks of the server's file, behind their length and key. Empty: that was all.
    Sums { id: u32, bytes: Bytes },
    /// The content is needed. `described`: sums follow; else all of it.
    Want { id: u32, described: bool },
    /// But for its time the file is as offered, if its content is: this is the SHA-256 of the server's.
    Compare { id: u32, digest: [u8; 32] },
    /// Closes the offer: the file was changed on the server as well.
    Conflict { id: u32, theirs: Option<Theirs> },
    /// Closes the offer. The text is the line of the classic dialect.
    Refused { id: u32, text: Bytes },
    /// Closes the offer: it is so, durably, and recorded. `already`: it was so before.
    Done { id: u32, already: bool },
    /// All that was offered is closed; lines follow.
    Left,
}

/// What the server has in place of an offer that is disputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theirs {
    pub mtime: Timestamp,
    /// As lstat says, whatever it is.
    pub size: u64,
}

const KEY: u8 = 0x01;
const OFFER: u8 = 0x02;
const DATA: u8 = 0x03;
const COPY: u8 = 0x04;
const END: u8 = 0x05;
const CANCEL: u8 = 0x06;
const SAME: u8 = 0x07;
const LEAVE: u8 = 0x08;
const PACKED: u8 = 0x09;
const SUMS: u8 = 0x81;
const WANT: u8 = 0x82;
const COMPARE: u8 = 0x83;
const CONFLICT: u8 = 0x84;
const REFUSED: u8 = 0x85;
const DONE: u8 = 0x86;
const LEFT: u8 = 0x87;

const FORCED: u8 = 1;
const DIFFERS: u8 = 2;
const TIME_ONLY: u8 = 4;

impl Push {
    /// Reads one frame.
    ///
    /// # Errors
    /// [`WireError::Protocol`] when it is none of these messages.
    pub fn parse(frame: Frame) -> Result<Self, WireError> {
        let mut fields = FrameReader::new(frame.body);
        let push = match frame.kind {
            KEY => {
                let key = String::from_utf8(fields.rest().to_vec());
                Self::Key(key.map_err(|_| WireError::Protocol("a key that is no text".to_owned()))?)
            }
            OFFER => Self::Offer(Offer::parse(&mut fields)?),
            DATA => Self::Data { id: fields.short()?, bytes: fields.rest() },
            COPY => Self::Copy { id: fields.short()?, offset: fields.long()?, length: fields.long()? },
            END => Self::End { id: fields.short()?, attributes: attributes(&mut fields)?, digest: fields.array()? },
            CANCEL => Self::Cancel { id: fields.short()? },
            SAME => Self::Same { id: fields.short()? },
            LEAVE => Self::Leave,
            PACKED => Self::Packed { id: fields.short()?, bytes: fields.rest() },
            other => return Err(unknown(other)),
        };
        fields.end()?;
        Ok(push)
    }

    /// Appends the frame of a [`Push::Data`], whose bytes are copied this once.
    pub fn append_data(frames: &mut Vec<u8>, id: u32, bytes: &[u8]) {
        frames.extend(FrameWriter::new(DATA).short(id).before(bytes));
        frames.extend_from_slice(bytes);
    }

    /// The frame. One of more than [`super::frame::MAX_BODY`] is refused by whoever reads it: names and targets decide.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => FrameWriter::new(KEY).rest(key.as_bytes()).finish(),
            Self::Offer(offer) => offer.encode(),
            Self::Data { id, bytes } => FrameWriter::new(DATA).short(*id).rest(bytes).finish(),
            Self::Copy { id, offset, length } => FrameWriter::new(COPY).short(*id).long(*offset).long(*length).finish(),
            Self::End { id, attributes, digest } => {
                with_attributes(FrameWriter::new(END).short(*id), attributes).rest(digest).finish()
            }
            Self::Cancel { id } => FrameWriter::new(CANCEL).short(*id).finish(),
            Self::Same { id } => FrameWriter::new(SAME).short(*id).finish(),
            Self::Leave => FrameWriter::new(LEAVE).finish(),
            Self::Packed { id, bytes } => FrameWriter::new(PACKED).short(*id).rest(bytes).finish(),
        }
    }
}

impl Offer {
    fn parse(fields: &mut FrameReader) -> Result<Self, WireError> {
        let (id, flags) = (fields.short()?, fields.byte()?);
        if flags & !(FORCED | DIFFERS | TIME_ONLY) != 0 {
            return Err(WireError::Protocol(format!("an offer has unknown flags ({flags:#04x})")));
        }
        let kind = fields.byte()?;
        let state = if kind == 0 {
            None
        } else {
            let attributes = attributes(fields)?;
            let kind = match kind {
                1 => FileKind::Regular { size: fields.long()? },
                2 => FileKind::Directory,
                3 => FileKind::Symlink { target: fields.counted()?.to_vec() },
                4 => FileKind::CharDevice { device: fields.long()? },
                5 => FileKind::BlockDevice { device: fields.long()? },
                6 => FileKind::Fifo,
                7 => FileKind::Socket,
                other => return Err(WireError::Protocol(format!("an offer of an unknown kind ({other})"))),
            };
            Some(Described { kind, attributes })
        };
        let has = |flag| flags & flag != 0;
        let (forced, differs, time_only) = (has(FORCED), has(DIFFERS), has(TIME_ONLY));
        Ok(Self { id, forced, differs, time_only, state, name: fields.rest() })
    }

    /// What it takes in the memory of whoever keeps it, as far as the client decides that.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let target = match &self.state {
            Some(Described { kind: FileKind::Symlink { target }, .. }) => target.len(),
            _ => 0,
        };
        self.name.len() + target
    }

    fn encode(&self) -> Vec<u8> {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(self.forced, FORCED) | flag(self.differs, DIFFERS) | flag(self.time_only, TIME_ONLY);
        let frame = FrameWriter::new(OFFER).short(self.id).byte(flags);
        let Some(Described { kind, attributes }) = &self.state else {
            return frame.byte(0).rest(&self.name).finish();
        };
        let number = match kind {
            FileKind::Regular { .. } => 1,
            FileKind::Directory => 2,
            FileKind::Symlink { .. } => 3,
            FileKind::CharDevice { .. } => 4,
            FileKind::BlockDevice { .. } => 5,
            FileKind::Fifo => 6,
            FileKind::Socket => 7,
        };
        let frame = with_attributes(frame.byte(number), attributes);
        let frame = match kind {
            FileKind::Regular { size } => frame.long(*size),
            FileKind::Symlink { target } => frame.counted(target),
            FileKind::CharDevice { device } | FileKind::BlockDevice { device } => frame.long(*device),
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => frame,
        };
        frame.rest(&self.name).finish()
    }
}

impl Answer {
    /// Reads one frame.
    ///
    /// # Errors
    /// [`WireError::Protocol`] when it is none of these messages.
    pub fn parse(frame: Frame) -> Result<Self, WireError> {
        let mut fields = FrameReader::new(frame.body);
        let answer = match frame.kind {
            SUMS => Self::Sums { id: fields.short()?, bytes: fields.rest() },
            WANT => Self::Want { id: fields.short()?, described: flag(&mut fields)? },
            COMPARE => Self::Compare { id: fields.short()?, digest: fields.array()? },
            CONFLICT => {
                let id = fields.short()?;
                let theirs = if flag(&mut fields)? {
                    Some(Theirs { mtime: time(&mut fields)?, size: fields.long()? })
                } else {
                    None
                };
                Self::Conflict { id, theirs }
            }
            REFUSED => Self::Refused { id: fields.short()?, text: fields.rest() },
            DONE => Self::Done { id: fields.short()?, already: flag(&mut fields)? },
            LEFT => Self::Left,
            other => return Err(unknown(other)),
        };
        fields.end()?;
        Ok(answer)
    }

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Sums { id, bytes } => FrameWriter::new(SUMS).short(*id).rest(bytes).finish(),
            Self::Want { id, described } => FrameWriter::new(WANT).short(*id).byte((*described).into()).finish(),
            Self::Compare { id, digest } => FrameWriter::new(COMPARE).short(*id).rest(digest).finish(),
            Self::Conflict { id, theirs } => {
                let frame = FrameWriter::new(CONFLICT).short(*id).byte(theirs.is_some().into());
                match theirs {
                    Some(Theirs { mtime, size }) => with_time(frame, *mtime).long(*size).finish(),
                    None => frame.finish(),
                }
            }
            Self::Refused { id, text } => FrameWriter::new(REFUSED).short(*id).rest(text).finish(),
            Self::Done { id, already } => FrameWriter::new(DONE).short(*id).byte((*already).into()).finish(),
            Self::Left => FrameWriter::new(LEFT).finish(),
        }
    }
}

fn unknown(kind: u8) -> WireError {
    WireError::Protocol(format!("a frame of an unknown kind ({kind:#04x})"))
}

fn flag(fields: &mut FrameReader) -> Result<bool, WireError> {
    match fields.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(WireError::Protocol(format!("{other} is neither yes nor no"))),
    }
}

fn attributes(fields: &mut FrameReader) -> Result<Attributes, WireError> {
    let (mode, uid, gid) = (fields.short()?, fields.short()?, fields.short()?);
    Ok(Attributes { uid, gid, mode, mtime: time(fields)? })
}

fn with_attributes(frame: FrameWriter, attributes: &Attributes) -> FrameWriter {
    let Attributes { uid, gid, mode, mtime } = *attributes;
    with_time(frame.short(mode).short(uid).short(gid), mtime)
}

fn time(fields: &mut FrameReader) -> Result<Timestamp, WireError> {
    let (seconds, nanoseconds) = (fields.long()?.cast_signed(), fields.short()?);
    if nanoseconds >= 1_000_000_000 {
        return Err(WireError::Protocol(format!("{nanoseconds} nanoseconds are more than a second")));
    }
    Ok(Timestamp { seconds, nanoseconds })
}

fn with_time(frame: FrameWriter, time: Timestamp) -> FrameWriter {
    frame.long(time.seconds.cast_unsigned()).short(time.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{HEADER, MAX_BODY};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn timestamps() -> impl Strategy<Value = Timestamp> {
        (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds })
    }

    fn all_attributes() -> impl Strategy<Value = Attributes> {
        (any::<u32>(), any::<u32>(), any::<u32>(), timestamps()).prop_map(|(uid, gid, mode, mtime)| Attributes {
            uid,
            gid,
            mode,
            mtime,
        })
    }

    fn kinds() -> impl Strategy<Value = FileKind> {
        prop_oneof![
            any::<u64>().prop_map(|size| FileKind::Regular { size }),
            Just(FileKind::Directory),
            bytes().prop_map(|target| FileKind::Symlink { target: target.to_vec() }),
            any::<u64>().prop_map(|device| FileKind::CharDevice { device }),
            any::<u64>().prop_map(|device| FileKind::BlockDevice { device }),
            Just(FileKind::Fifo),
            Just(FileKind::Socket),
        ]
    }

    fn offers() -> impl Strategy<Value = Offer> {
        let state =
            prop::option::of((kinds(), all_attributes()).prop_map(|(kind, attributes)| Described { kind, attributes }));
        (any::<u32>(), any::<[bool; 3]>(), state, bytes()).prop_map(|(id, flags, state, name)| {
            let [forced, differs, time_only] = flags;
            Offer { id, forced, differs, time_only, state, name }
        })
    }

    fn pushes() -> impl Strategy<Value = Push> {
        prop_oneof![
            "[a-z]{0,9}".prop_map(Push::Key),
            offers().prop_map(Push::Offer),
            (any::<u32>(), bytes()).prop_map(|(id, bytes)| Push::Data { id, bytes }),
            (any::<u32>(), bytes()).prop_map(|(id, bytes)| Push::Packed { id, bytes }),
            any::<(u32, u64, u64)>().prop_map(|(id, offset, length)| Push::Copy { id, offset, length }),
            (any::<u32>(), all_attributes(), any::<[u8; 32]>()).prop_map(|(id, attributes, digest)| Push::End {
                id,
                attributes,
                digest
            }),
            any::<u32>().prop_map(|id| Push::Cancel { id }),
            any::<u32>().prop_map(|id| Push::Same { id }),
            Just(Push::Leave),
        ]
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let theirs = prop::option::of((timestamps(), any::<u64>()).prop_map(|(mtime, size)| Theirs { mtime, size }));
        prop_oneof![
            (any::<u32>(), bytes()).prop_map(|(id, bytes)| Answer::Sums { id, bytes }),
            any::<(u32, bool)>().prop_map(|(id, described)| Answer::Want { id, described }),
            any::<(u32, [u8; 32])>().prop_map(|(id, digest)| Answer::Compare { id, digest }),
            (any::<u32>(), theirs).prop_map(|(id, theirs)| Answer::Conflict { id, theirs }),
            (any::<u32>(), bytes()).prop_map(|(id, text)| Answer::Refused { id, text }),
            any::<(u32, bool)>().prop_map(|(id, already)| Answer::Done { id, already }),
            Just(Answer::Left),
        ]
    }

    fn frame(encoded: &[u8]) -> Frame {
        Frame::take(&mut BytesMut::from(encoded)).unwrap().unwrap()
    }

    proptest! {
        #[test]
        fn every_message_comes_back(push in pushes(), answer in answers()) {
            prop_assert_eq!(Push::parse(frame(&push.encode())).unwrap(), push);
            prop_assert_eq!(Answer::parse(frame(&answer.encode())).unwrap(), answer);
        }

        #[test]
        fn what_is_no_message_is_refused_and_what_is_one_is_written_in_one_way(
            kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let frame = Frame { kind, body: body.into() };
            let encoded = [&[kind][..], &u32::try_from(frame.body.len()).unwrap().to_be_bytes(), &frame.body].concat();
            if let Ok(push) = Push::parse(frame.clone()) {
                prop_assert_eq!(push.encode(), encoded.clone());
            }
            if let Ok(answer) = Answer::parse(frame) {
                prop_assert_eq!(answer.encode(), encoded);
            }
        }

        #[test]
        fn frames_come_out_whole_however_the_stream_is_cut(
            sent in prop::collection::vec(pushes(), 0..8), cut in any::<prop::sample::Index>(),
        ) {
            let stream: Vec<u8> = sent.iter().flat_map(Push::encode).collect();
            let (first, second) = stream.split_at(cut.index(stream.len() + 1));
            let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
            for piece in [first, second] {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::take(&mut buffer).unwrap() {
                    received.push(Push::parse(frame).unwrap());
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(received, sent);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_there() {
        let header = |length: usize| {
            let length = u32::try_from(length).unwrap();
            BytesMut::from(&[&[DATA][..], &length.to_be_bytes()].concat()[..])
        };
        assert!(Frame::take(&mut header(MAX_BODY)).unwrap().is_none());
        assert!(Frame::take(&mut header(MAX_BODY + 1)).is_err());
        assert_eq!(Push::Leave.encode().len(), HEADER);
    }
}
