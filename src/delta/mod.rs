//! librsync: signature, delta, patch.
use std::{
    fs::File,
    io::{self, Read, Write},
};

/// Why a signature, delta or patch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The peer's signature is no signature: the peer's fault.
    #[error("bad signature: {0}")]
    BadSignature(&'static str),
    /// The peer's delta cannot be applied: the peer's fault.
    #[error("bad delta: {0}")]
    BadDelta(String),
    /// The delta makes more than allowed: the peer's fault.
    #[error("the delta makes more than {limit} bytes")]
    TooLong { limit: u64 },
    /// Input or output failed; `operation` says which.
    #[error("{operation}")]
    Io { operation: &'static str, source: io::Error },
}

/// What the C program sends for a file that is not there: the bare header, strong length 8.
pub const MISSING_BASIS: [u8; 12] = [0x72, 0x73, 0x01, 0x36, 0, 0, 8, 0, 0, 0, 0, 8];

/// Limits for work that a peer's signature asks for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A signature with more blocks is answered with the whole file.
    pub blocks: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { blocks: 1 << 24 }
    }
}

/// MD4, blocks of 2048 bytes, strong sums of 16.
pub fn signature(input: &mut dyn Read, output: &mut dyn Write) -> Result<(), DeltaError> {
    let _ = (input, output);
    todo!()
}

/// Checks the first 12 bytes (more may follow).
pub fn check_signature_header(signature: &[u8]) -> Result<(), DeltaError> {
    todo!("{signature:?}")
}

/// What turns the file that `signature` describes into `new`.
pub fn delta(new: &mut dyn Read, signature: &[u8], output: &mut dyn Write, bounds: Bounds) -> Result<(), DeltaError> {
    let _ = (new, output);
    todo!("{signature:?} {bounds:?}")
}

/// Applies a peer's delta; returns the bytes written, at most `limit`.
pub fn patch(basis: File, delta: &mut dyn Read, output: &mut dyn Write, limit: u64) -> Result<u64, DeltaError> {
    let _ = (delta, output);
    todo!("{basis:?} {limit}")
}
