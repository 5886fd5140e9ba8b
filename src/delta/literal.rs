//! Deltas that need no basis: the whole file. Their length is known before the file is read.

use std::io::{Read, Write};

use super::commands::{Command, INVALID, MAGIC};
use super::{DeltaError, READ_NEW, WRITE_DELTA, fill, write};

/// Bytes that one literal command holds, as in librsync's own deltas.
pub(super) const LITERAL: usize = 32_768;

/// A command with its data.
pub(super) fn write_literal(output: &mut dyn Write, data: &[u8]) -> Result<(), DeltaError> {
    for piece in data.chunks(LITERAL) {
        write(output, WRITE_DELTA, &Command::Literal(piece.len() as u64).encode())?;
        write(output, WRITE_DELTA, piece)?;
    }
    Ok(())
}

/// A delta of all that `new` gives.
pub(super) fn delta_of_all(new: &mut dyn Read, output: &mut dyn Write) -> Result<(), DeltaError> {
    write(output, WRITE_DELTA, &MAGIC)?;
    let mut literal = vec![0; LITERAL];
    loop {
        let length = fill(new, &mut literal).map_err(|source| DeltaError::Io { operation: READ_NEW, source })?;
        write_literal(output, &literal[..length])?;
        if length < LITERAL {
            return write(output, WRITE_DELTA, &Command::End.encode());
        }
    }
}

/// Bytes of the [`literal_delta`] of a file of `size` bytes.
#[must_use]
pub fn literal_length(size: u64) -> u64 {
    let command = |length: u64| if length == 0 { 0 } else { Command::Literal(length).encode().len() as u64 + length };
    let full = LITERAL as u64;
    MAGIC.len() as u64 + size / full * command(full) + command(size % full) + 1
}

/// Writes a delta of the first `size` bytes of `new`, [`literal_length`] bytes whatever happens to the file meanwhile: one
/// that cannot be read to the end, or ends before, gets a delta that its receiver refuses.
///
/// # Errors
/// [`DeltaError::Shrunk`] and [`DeltaError::Io`] of reading, after such a delta was written; [`DeltaError::Io`] of writing.
pub fn literal_delta(new: &mut dyn Read, size: u64, output: &mut dyn Write) -> Result<(), DeltaError> {
    write(output, WRITE_DELTA, &MAGIC)?;
    let mut left = size;
    let mut literal = vec![0; LITERAL];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(LITERAL).min(LITERAL);
        let failure = match fill(new, &mut literal[..length]) {
            Ok(read) if read == length => None,
            Ok(_) => Some(DeltaError::Shrunk),
            Err(source) => Some(DeltaError::Io { operation: READ_NEW, source }),
        };
        write_literal(output, &literal[..length])?;
        left -= length as u64;
        if let Some(failure) = failure {
            literal.fill(INVALID);
            let mut void = literal_length(left) - MAGIC.len() as u64;
            while void > 0 {
                let length = usize::try_from(void).unwrap_or(LITERAL).min(LITERAL);
                write(output, WRITE_DELTA, &literal[..length])?;
                void -= length as u64;
            }
            return Err(failure);
        }
    }
    write(output, WRITE_DELTA, &Command::End.encode())
}
