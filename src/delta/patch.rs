//! Applying a peer's delta.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use super::commands::{Command, MAGIC};
use super::{DeltaError, write};

/// Bytes moved at a time.
const PIECE: usize = 128 * 1024;

const WRITE: &str = "write the patched file";
pub(super) const READ_BASIS: &str = "read the file that is patched";

/// Applies a peer's delta to `basis`, at most to `limit` bytes. Returns how many bytes it made. The delta
/// is read to the end of the stream.
///
/// # Errors
/// [`DeltaError::BadDelta`], [`DeltaError::TooLong`], [`DeltaError::Io`]. Part of the output may have been written.
pub fn patch(basis: &File, delta: &mut dyn Read, output: &mut dyn Write, limit: u64) -> Result<u64, DeltaError> {
    let size = basis.metadata().map_err(|source| DeltaError::Io { operation: READ_BASIS, source })?.len();
    let mut delta = Buffered { delta, buffer: vec![0; PIECE], start: 0, end: 0 };
    if delta.number(MAGIC.len())? != u64::from(u32::from_be_bytes(MAGIC)) {
        return Err(DeltaError::BadDelta("it does not begin as a delta does"));
    }
    let mut piece = Vec::new();
    let mut made = 0_u64;
    loop {
        let command = Command::read(|width| delta.number(width))?;
        let length = match command {
            Command::End if delta.is_at_end()? => return Ok(made),
            Command::End => return Err(DeltaError::BadDelta("something stands behind its end")),
            Command::Literal(length) | Command::Copy { length, .. } => length,
        };
        if length == 0 {
            return Err(DeltaError::BadDelta("a command without bytes"));
        }
        if made.checked_add(length).is_none_or(|made| made > limit) {
            return Err(DeltaError::TooLong { limit });
        }
        made += length;
        match command {
            Command::End => {}
            Command::Literal(mut left) => {
                while left > 0 {
                    let data = delta.data(left)?;
                    write(output, WRITE, data)?;
                    left -= data.len() as u64;
                }
            }
            Command::Copy { position, length } => {
                if position.checked_add(length).is_none_or(|end| end > size) {
                    return Err(DeltaError::BadDelta("it copies what the file does not have"));
                }
                piece.resize(PIECE, 0);
                copy(basis, position, length, output, &mut piece)?;
            }
        }
    }
}

fn copy(
    basis: &File,
    mut position: u64,
    mut left: u64,
    output: &mut dyn Write,
    piece: &mut [u8],
) -> Result<(), DeltaError> {
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let length = match basis.read_at(&mut piece[..wanted], position) {
            Ok(0) => return Err(DeltaError::BadDelta("the file became shorter while it was patched")),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(DeltaError::Io { operation: READ_BASIS, source }),
        };
        write(output, WRITE, &piece[..length])?;
        position += length as u64;
        left -= length as u64;
    }
    Ok(())
}

/// The delta, read ahead.
struct Buffered<'d> {
    delta: &'d mut dyn Read,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffered<'_> {
    /// Some bytes, at least one and at most `limit`.
    fn data(&mut self, limit: u64) -> Result<&[u8], DeltaError> {
        if self.is_at_end()? {
            return Err(DeltaError::BadDelta("it ends too early"));
        }
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(self.end - self.start);
        let data = &self.buffer[self.start..][..length];
        self.start += length;
        Ok(data)
    }

    /// Nothing is left, and nothing comes.
    fn is_at_end(&mut self) -> Result<bool, DeltaError> {
        if self.start == self.end {
            let read = loop {
                match self.delta.read(&mut self.buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.end = read.map_err(|source| DeltaError::Io { operation: "receive the delta", source })?;
            self.start = 0;
        }
        Ok(self.start == self.end)
    }

    /// A number of so many bytes, at most eight.
    fn number(&mut self, width: usize) -> Result<u64, DeltaError> {
        (0..width).try_fold(0, |number, _| Ok(number << 8 | u64::from(self.data(1)?[0])))
    }
}
