//! Making signatures: blocks of a piece are hashed side by side in the vector unit.

use std::io::{Read, Write};

use super::{BLOCK_LENGTH, DeltaError, HEADER, STRONG_LENGTH, WEAK_LENGTH, fill, sums, write};

/// Bytes read and hashed at a time.
const PIECE: usize = 64 * BLOCK_LENGTH;

const WRITE: &str = "write the signature";

/// Writes the signature of `input`.
///
/// # Errors
/// [`DeltaError::Io`] when reading or writing fails.
pub fn signature(input: &mut dyn Read, output: &mut dyn Write) -> Result<(), DeltaError> {
    write(output, WRITE, &sums::header(BLOCK_LENGTH, STRONG_LENGTH))?;
    let mut piece = vec![0; PIECE];
    loop {
        let read = fill(input, &mut piece);
        let length = read.map_err(|source| DeltaError::Io { operation: "read the file for its signature", source })?;
        write(output, WRITE, &sums::of(&piece[..length], BLOCK_LENGTH, STRONG_LENGTH))?;
        if length < PIECE {
            return Ok(());
        }
    }
}

/// Bytes of the signature of a file of `size` bytes.
#[must_use]
pub fn signature_length(size: u64) -> u64 {
    HEADER as u64 + size.div_ceil(BLOCK_LENGTH as u64) * (WEAK_LENGTH + STRONG_LENGTH) as u64
}
