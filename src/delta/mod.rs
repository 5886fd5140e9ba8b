//! Signatures, deltas and patches of librsync, streaming, and safe with whatever a peer sends. Where the bytes come from
//! and go to is for others.
//!
//! The formats are those of every csync2: MD4 signatures with blocks of 2,048 bytes and strong sums of 16, and ordinary
//! deltas. What a peer sends is checked before the C code of librsync sees it. The batch dialect has [`blocks`] instead.

pub mod blocks;
mod collisions;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use librsync::SignatureType;

/// Why a signature, delta or patch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The peer's signature is none: the peer's fault.
    #[error("bad signature: {0}")]
    BadSignature(&'static str),
    /// The peer's delta cannot be applied: the peer's fault, or it was made for another basis.
    #[error("bad delta: {0}")]
    BadDelta(String),
    /// The peer's delta makes more than is allowed.
    #[error("the delta makes more than {limit} bytes")]
    TooLong { limit: u64 },
    /// Reading or writing failed; `operation` says what was being done.
    #[error("{operation}")]
    Io { operation: &'static str, source: io::Error },
    /// librsync failed where no peer had a hand in it: out of memory.
    #[error("librsync: {0}")]
    Library(String),
}

/// What stands for the signature of a file that is not there: the header alone, with strong length 8, as the C program
/// sends it.
pub const MISSING_BASIS: [u8; 12] = [0x72, 0x73, 0x01, 0x36, 0, 0, 8, 0, 0, 0, 0, 8];

/// Bytes of a signature's header: magic, block length, strong length.
const HEADER: usize = 12;
const SIGNATURE_MAGIC: [u8; 4] = [0x72, 0x73, 0x01, 0x36];
const DELTA_MAGIC: [u8; 4] = [0x72, 0x73, 0x02, 0x36];
const BLOCK_LENGTH: usize = 2048;
const STRONG_LENGTH: usize = 16;
/// Nobody is known to use other blocks than 2,048 bytes. An enemy's weak sum can match at every byte, and each match
/// costs the MD4 of a whole block.
const MAX_BLOCK_LENGTH: usize = 1 << 14;
/// More blocks overflow the C code's size of its hash table.
const LIBRARY_BLOCKS: usize = 1 << 27;

/// What a peer's signature may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A signature of more blocks is answered with the whole file. Each takes some 50 bytes of memory.
    pub blocks: usize,
}

impl Default for Bounds {
    /// 16 million blocks: files up to 32 GiB.
    fn default() -> Self {
        Self { blocks: 1 << 24 }
    }
}

impl Bounds {
    /// Bytes of the longest signature that is worth keeping. Of a longer one its header is enough: with the header alone
    /// [`delta`] gives the whole file, as it would with all of it.
    #[must_use]
    pub fn signature_length(&self) -> usize {
        HEADER + self.blocks.saturating_mul(4 + STRONG_LENGTH)
    }
}

/// Writes the signature of `input`.
///
/// # Errors
/// [`DeltaError::Io`] when reading or writing fails.
pub fn signature(input: &mut dyn Read, output: &mut dyn Write) -> Result<(), DeltaError> {
    let (input, failure) = Watched::new(input);
    let mut job = librsync::Signature::with_options(input, BLOCK_LENGTH, STRONG_LENGTH, SignatureType::MD4)
        .map_err(|error| DeltaError::Library(error.to_string()))?;
    pump(&mut job, |bytes| write(output, "write the signature", bytes)).map_err(|error| {
        error.or_else_job(|error| match failure.take() {
            Some(source) => DeltaError::Io { operation: "read the file for its signature", source },
            None => DeltaError::Library(error.to_string()),
        })
    })
}

/// Checks the first 12 bytes of a signature; more may follow.
///
/// # Errors
/// [`DeltaError::BadSignature`] unless it is an MD4 signature with blocks of 1 byte to 16 KiB and strong sums of 1 to 16.
pub fn check_signature_header(signature: &[u8]) -> Result<(), DeltaError> {
    strong_length(signature).map(|_| ())
}

/// The length of the strong sums, from a header that is checked whole.
fn strong_length(signature: &[u8]) -> Result<usize, DeltaError> {
    let number = |at: usize| {
        let bytes = signature.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let (Some(block_length), Some(strong_length)) = (number(4), number(8)) else {
        return Err(DeltaError::BadSignature("shorter than its header"));
    };
    if !signature.starts_with(&SIGNATURE_MAGIC) {
        return Err(DeltaError::BadSignature("not an MD4 signature of librsync"));
    }
    if !(1..=MAX_BLOCK_LENGTH).contains(&block_length) {
        return Err(DeltaError::BadSignature("impossible block length"));
    }
    if !(1..=STRONG_LENGTH).contains(&strong_length) {
        return Err(DeltaError::BadSignature("impossible length of strong sums"));
    }
    Ok(strong_length)
}

/// Writes what turns the file that the peer's `signature` describes into `new`. For a signature without blocks, one that
/// is too large, or one made to keep us busy, that is the whole of `new`.
///
/// # Errors
/// [`DeltaError::BadSignature`], before anything is written; [`DeltaError::Io`].
pub fn delta(new: &mut dyn Read, signature: &[u8], output: &mut dyn Write, bounds: Bounds) -> Result<(), DeltaError> {
    let sum_length = 4 + strong_length(signature)?;
    let sums = &signature[HEADER..];
    if !sums.len().is_multiple_of(sum_length) {
        return Err(DeltaError::BadSignature("ends within a block's sums"));
    }
    let blocks = bounds.blocks.min(LIBRARY_BLOCKS);
    if sums.is_empty() || sums.len() / sum_length > blocks || collisions::are_costly(sums, sum_length) {
        return literal_delta(new, output);
    }
    let (new, failure) = Watched::new(new);
    let reader = io::BufReader::with_capacity(64 * 1024, new);
    let mut job = librsync::Delta::with_buf_read(reader, &mut &*signature)
        .map_err(|error| DeltaError::Library(error.to_string()))?;
    pump(&mut job, |bytes| write(output, WRITE_DELTA, bytes)).map_err(|error| {
        error.or_else_job(|error| match failure.take() {
            Some(source) => DeltaError::Io { operation: READ_NEW, source },
            None => DeltaError::Library(error.to_string()),
        })
    })
}

const READ_NEW: &str = "read the file for its delta";
const WRITE_DELTA: &str = "write the delta";

/// Bytes that one literal command holds, as in librsync's own deltas.
const LITERAL: usize = 32_768;

/// A delta that needs no basis: literal commands only.
fn literal_delta(new: &mut dyn Read, output: &mut dyn Write) -> Result<(), DeltaError> {
    write(output, WRITE_DELTA, &DELTA_MAGIC)?;
    let mut literal = Vec::with_capacity(LITERAL);
    loop {
        literal.clear();
        let mut limited = Read::take(&mut *new, LITERAL as u64);
        let length =
            limited.read_to_end(&mut literal).map_err(|source| DeltaError::Io { operation: READ_NEW, source })?;
        if length == 0 {
            // The command that ends a delta.
            return write(output, WRITE_DELTA, &[0]);
        }
        write(output, WRITE_DELTA, &literal_command(length))?;
        write(output, WRITE_DELTA, &literal)?;
    }
}

/// The command ahead of `length` literal bytes, 1 to [`LITERAL`]: up to 64 it is the length itself, then 0x41 with one
/// byte of length, 0x42 with two.
fn literal_command(length: usize) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=64), _) => vec![short],
        (Ok(byte), _) => vec![0x41, byte],
        (_, Ok(two)) => [&[0x42][..], &two.to_be_bytes()].concat(),
        _ => unreachable!("a literal has at most {LITERAL} bytes"),
    }
}

/// Applies the peer's delta to `basis`; returns how many bytes were written, at most `limit`. Ends with the delta's end
/// command: what follows in `delta` may have been read, and is not looked at.
///
/// # Errors
/// [`DeltaError::BadDelta`] also for copies from beyond the end of `basis`; [`DeltaError::TooLong`]; [`DeltaError::Io`].
/// Part of the output has been written then.
pub fn patch(basis: File, delta: &mut dyn Read, output: &mut dyn Write, limit: u64) -> Result<u64, DeltaError> {
    let length = basis.metadata().map_err(|source| DeltaError::Io { operation: READ_BASIS, source })?.len();
    let (basis, basis_failure) = Watched::new(Basis { file: basis, length });
    let (delta, delta_failure) = Watched::new(delta);
    let mut job = librsync::Patch::new(basis, delta).map_err(|error| DeltaError::Library(error.to_string()))?;
    let mut written = 0;
    let take = |bytes: &[u8]| {
        written += bytes.len() as u64;
        if written > limit {
            return Err(DeltaError::TooLong { limit });
        }
        write(output, "write the patched file", bytes)
    };
    pump(&mut job, take).map_err(|error| {
        error.or_else_job(|error| {
            if let Some(source) = delta_failure.take() {
                DeltaError::Io { operation: "receive the delta", source }
            } else if let Some(source) = basis_failure.take() {
                DeltaError::Io { operation: READ_BASIS, source }
            } else {
                DeltaError::BadDelta(error.to_string())
            }
        })
    })?;
    Ok(written)
}

const READ_BASIS: &str = "read the file that is patched";

/// The file that is patched. Positions come from the peer: those behind its end are its end, since the system has errors
/// of its own for very large ones.
struct Basis {
    file: File,
    /// In bytes.
    length: u64,
}

impl Read for Basis {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Basis {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(match position {
            SeekFrom::Start(position) => SeekFrom::Start(position.min(self.length)),
            other => other,
        })
    }
}

fn write(output: &mut dyn Write, operation: &'static str, bytes: &[u8]) -> Result<(), DeltaError> {
    output.write_all(bytes).map_err(|source| DeltaError::Io { operation, source })
}

/// Where a job stopped.
enum Stopped {
    /// In librsync, or in a reader that it called.
    Job(io::Error),
    /// In what takes its output.
    Taker(DeltaError),
}

impl Stopped {
    fn or_else_job(self, explain: impl FnOnce(io::Error) -> DeltaError) -> DeltaError {
        match self {
            Self::Job(error) => explain(error),
            Self::Taker(error) => error,
        }
    }
}

/// Runs a job to its end.
fn pump(job: &mut dyn Read, mut take: impl FnMut(&[u8]) -> Result<(), DeltaError>) -> Result<(), Stopped> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match job.read(&mut buffer).map_err(Stopped::Job)? {
            0 => return Ok(()),
            length => take(&buffer[..length]).map_err(Stopped::Taker)?,
        }
    }
}

/// The first error of a [`Watched`] stream.
#[derive(Clone, Default)]
struct Failure(Rc<RefCell<Option<io::Error>>>);

impl Failure {
    fn take(&self) -> Option<io::Error> {
        self.0.take()
    }
}

/// A stream that librsync reads from: its error codes would not say which of several streams failed, and why.
struct Watched<R> {
    stream: R,
    failure: Failure,
}

impl<R> Watched<R> {
    fn new(stream: R) -> (Self, Failure) {
        let failure = Failure::default();
        (Self { stream, failure: failure.clone() }, failure)
    }

    /// Keeps an error, and gives librsync another in its place.
    fn watch<T>(&mut self, operate: impl Fn(&mut R) -> io::Result<T>) -> io::Result<T> {
        loop {
            match operate(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.failure.0.borrow_mut() = Some(error);
                    return Err(kind.into());
                }
                done => return done,
            }
        }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The loop in `watch` needs a closure that can be called again.
        let buffer = RefCell::new(buffer);
        self.watch(|stream| stream.read(&mut buffer.borrow_mut()))
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.watch(|stream| stream.seek(position))
    }
}

#[cfg(test)]
mod tests;
