//! Signatures, deltas and patches of librsync, streaming, in bounded memory and linear time whatever a peer sends. Where
//! the bytes come from and go to is for others.
//!
//! The formats are those of every csync2: MD4 signatures with blocks of 2,048 bytes and strong sums of 16, and ordinary
//! deltas. [`mod@signature`] and [`mod@patch`] give what librsync gives, byte for byte. A delta of [`delta`] may differ from
//! librsync's for the same files, as long as both make the same file of the basis. librsync itself judges that in the tests.
//! The batch dialect has [`blocks`] and [`following`] instead.

pub mod blocks;
mod commands;
mod difference;
pub mod following;
mod index;
mod literal;
mod patch;
mod signature;
mod sums;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

pub use self::difference::delta;
pub use self::literal::{literal_delta, literal_length};
pub use self::patch::patch;
pub use self::signature::{signature, signature_length};
use self::sums::Sums;

/// Why a signature, delta or patch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The peer's signature is none: the peer's fault.
    #[error("bad signature: {0}")]
    BadSignature(&'static str),
    /// The peer's delta cannot be applied: the peer's fault, or it was made for another basis.
    #[error("bad delta: {0}")]
    BadDelta(&'static str),
    /// The peer's delta makes more than is allowed.
    #[error("the delta makes more than {limit} bytes")]
    TooLong { limit: u64 },
    /// The file became shorter while it was read.
    #[error("it became shorter while it was read")]
    Shrunk,
    /// Reading or writing failed; `operation` says what was being done.
    #[error("{operation}")]
    Io { operation: &'static str, source: io::Error },
}

/// What stands for the signature of a file that is not there: the header alone, with strong length 8, as the C program
/// sends it.
pub const MISSING_BASIS: [u8; 12] = [0x72, 0x73, 0x01, 0x36, 0, 0, 8, 0, 0, 0, 0, 8];

/// Bytes of a signature's header: magic, block length, strong length.
const HEADER: usize = 12;
const SIGNATURE_MAGIC: [u8; 4] = [0x72, 0x73, 0x01, 0x36];
const BLOCK_LENGTH: usize = 2048;
const WEAK_LENGTH: usize = 4;
const STRONG_LENGTH: usize = 16;
/// Nobody is known to use other blocks than 2,048 bytes, and each match costs the MD4 of a whole block.
const MAX_BLOCK_LENGTH: usize = 1 << 14;

const READ_NEW: &str = "read the file for its delta";
const WRITE_DELTA: &str = "write the delta";

/// What a peer's signature may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A signature of more blocks is answered with the whole file. Each takes some 27 bytes of memory.
    pub blocks: usize,
}

impl Default for Bounds {
    /// Files up to 2.6 GiB; 38 MB of memory.
    fn default() -> Self {
        Self { blocks: 1_400_000 }
    }
}

impl Bounds {
    /// Bytes of the longest signature that is worth keeping. Of a longer one its header is enough: with the header alone
    /// [`delta`] gives the whole file, as it would with all of it.
    #[must_use]
    pub fn signature_length(&self) -> usize {
        HEADER + self.blocks.saturating_mul(WEAK_LENGTH + STRONG_LENGTH)
    }
}

/// Checks the first 12 bytes of a signature; more may follow.
///
/// # Errors
/// [`DeltaError::BadSignature`] unless it is an MD4 signature with blocks of 1 byte to 16 KiB and strong sums of 1 to 16.
pub fn check_signature_header(signature: &[u8]) -> Result<(), DeltaError> {
    sums::lengths(signature).map(|_| ())
}

/// Whether the delta against this signature is the whole file, since there is nothing to compare with, or too much.
///
/// # Errors
/// [`DeltaError::BadSignature`].
pub fn is_literal(signature: &[u8], bounds: Bounds) -> Result<bool, DeltaError> {
    Ok(Sums::parse(signature)?.are_useless(bounds))
}

fn write(output: &mut dyn Write, operation: &'static str, bytes: &[u8]) -> Result<(), DeltaError> {
    output.write_all(bytes).map_err(|source| DeltaError::Io { operation, source })
}

/// Fills the buffer from `input`. Less than its length: the end.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
