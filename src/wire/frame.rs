//! Frames: what the batch dialect sends instead of lines (docs/protocol.md). Cutting them out of a stream of bytes, and the
//! fields in them; which fields make which message is for `batch`.
//!
//! A frame is a byte that says what it is, the length of its body in four bytes, and the body. Numbers are big-endian.

use bytes::{Buf, Bytes, BytesMut};

use super::WireError;

/// The longest body, in bytes: it bounds what one frame costs whoever reads it.
pub const MAX_BODY: usize = 256 * 1024;

/// Bytes before the body.
pub const HEADER: usize = 5;

/// One frame as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub body: Bytes,
}

impl Frame {
    /// Takes the next frame from the front of `buffer`; `None` until it is complete.
    ///
    /// # Errors
    /// [`WireError::Protocol`] when it announces more than [`MAX_BODY`]. The stream is then unusable.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some((&kind, &length)) = buffer.split_first().and_then(|(kind, rest)| Some((kind, rest.first_chunk()?)))
        else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_BODY {
            return Err(WireError::Protocol(format!("a frame of {length} bytes was announced")));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        Ok(Some(Self { kind, body: buffer.split_to(length).freeze() }))
    }
}

/// Writes one frame.
#[derive(Debug)]
pub(super) struct FrameWriter(Vec<u8>);

impl FrameWriter {
    pub(super) fn new(kind: u8) -> Self {
        Self(vec![kind, 0, 0, 0, 0])
    }

    pub(super) fn byte(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    pub(super) fn short(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Bytes with their length before them.
    pub(super) fn counted(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.short(length).rest(bytes)
    }

    /// Bytes that end with the frame.
    pub(super) fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.before(&[])
    }

    /// The frame but for bytes that end it.
    pub(super) fn before(mut self, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - HEADER + rest.len()).unwrap_or(u32::MAX);
        self.0[1..HEADER].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// Reads the fields of a body, front to back.
#[derive(Debug)]
pub(super) struct FrameReader(Bytes);

impl FrameReader {
    pub(super) fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn short(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], WireError> {
        let array = *self.0.first_chunk().ok_or_else(cut_short)?;
        self.0.advance(LENGTH);
        Ok(array)
    }

    pub(super) fn counted(&mut self) -> Result<Bytes, WireError> {
        let length = self.short()? as usize;
        if length > self.0.len() {
            return Err(cut_short());
        }
        Ok(self.0.split_to(length))
    }

    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left over.
    pub(super) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::Protocol("a frame is longer than its message".to_owned()))
        }
    }
}

fn cut_short() -> WireError {
    WireError::Protocol("a frame is shorter than its message".to_owned())
}
