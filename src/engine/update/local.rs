//! What this side has of a file at the moment of the push: synchronous, run through `blocking`, one call a file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use bytes::Bytes;
use tempfile::spooled_tempfile;
use tokio::sync::mpsc;

use super::outbox::Body;
use crate::config::LocalPath;
use crate::delta::{self, Bounds, DeltaError};
use crate::engine::content::{self, Hashing};
use crate::fs;
use crate::model::{FileKind, Metadata};

/// Deltas above this size wait on disk for their turn. A larger file that is sent whole is sent while it is read.
const IN_MEMORY: usize = 1 << 20;

/// Bytes of such a file that are sent at a time, and how many such pieces may wait.
const PIECE: (usize, usize) = (256 * 1024, 4);

/// Our file against the peer's signature.
#[derive(Debug)]
pub(super) struct Compared {
    /// The state of the file that was read.
    pub(super) metadata: Metadata,
    /// Of the content, where it is the peer's.
    pub(super) digest: Option<[u8; 32]>,
}

/// Compares a regular file with the signature of the peer's.
pub(super) fn compare(place: &LocalPath, theirs: &[u8]) -> Result<Compared, DeltaError> {
    let mut content = Hashing::new(open(place)?);
    let metadata = inspect(content.file())?;
    let mut rest = Comparing { expected: theirs };
    let equal = match delta::signature(&mut content, &mut rest) {
        Ok(()) => rest.expected.is_empty(),
        // The comparison breaks off where the signatures part.
        Err(DeltaError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => false,
        Err(error) => return Err(error),
    };
    let equal = equal && inspect(content.file())? == metadata;
    Ok(Compared { metadata, digest: equal.then(|| content.digest()) })
}

/// The size that the system gives for a file of any kind, as the answer to GETSZ has it: a link is as long as its target.
/// 0 for what is gone.
pub(super) fn size(place: &LocalPath) -> u64 {
    content::locate(place).ok().and_then(|place| place.size().ok()).unwrap_or_default()
}

/// What was sent for a regular file.
#[derive(Debug)]
pub(super) struct Sent {
    /// The state of the file that was read.
    pub(super) metadata: Metadata,
    pub(super) digest: [u8; 32],
    /// It was changed while it was read: the content may be a mixture, or was taken back.
    pub(super) changed: bool,
}

/// What is to be sent for a regular file.
#[derive(Debug)]
pub(super) enum Prepared {
    Delta { length: u64, delta: Body, sent: Sent },
    Whole { length: u64, delta: Body, whole: Whole },
}

/// A large file that is sent as it is: its delta is as long as announced whatever becomes of the file.
#[derive(Debug)]
pub(super) struct Whole {
    content: Hashing<File>,
    metadata: Metadata,
    size: u64,
    pieces: mpsc::Sender<Bytes>,
}

/// Makes the delta against the peer's signature, or all that is needed to make it while it is sent.
pub(super) fn prepare(place: &LocalPath, signature: &[u8]) -> Result<Prepared, DeltaError> {
    let file = open(place)?;
    let metadata = inspect(&file)?;
    let mut content = Hashing::new(file);
    if let FileKind::Regular { size } = metadata.kind
        && size > IN_MEMORY as u64
    {
        fs::read_ahead(content.file());
        if delta::is_literal(signature, Bounds::default())? {
            let (pieces, receiver) = mpsc::channel(PIECE.1);
            let whole = Whole { content, metadata, size, pieces };
            return Ok(Prepared::Whole { length: delta::literal_length(size), delta: Body::Pieces(receiver), whole });
        }
    }
    let mut delta = spooled_tempfile(IN_MEMORY);
    delta::delta(&mut content, signature, &mut delta, Bounds::default())?;
    let length = delta
        .seek(SeekFrom::End(0))
        .map_err(|source| DeltaError::Io { operation: "measure the spooled delta", source })?;
    let changed = inspect(content.file())? != metadata;
    let sent = Sent { metadata, digest: content.digest(), changed };
    Ok(Prepared::Delta { length, delta: Body::Spooled(delta), sent })
}

impl Whole {
    /// Reads the file and sends it, while the other end of the delta is taken in. An error: what came out is refused by the
    /// peer.
    pub(super) fn send(self) -> Result<Sent, DeltaError> {
        let Self { mut content, metadata, size, pieces } = self;
        let mut output = io::BufWriter::with_capacity(PIECE.0, Pieces(pieces));
        let is_whole = match delta::literal_delta(&mut content, size, &mut output) {
            Err(DeltaError::Shrunk) => false,
            other => other.map(|()| true)?,
        };
        output.flush().map_err(|source| DeltaError::Io { operation: "send the file", source })?;
        let changed = !is_whole || inspect(content.file())? != metadata;
        Ok(Sent { metadata, digest: content.digest(), changed })
    }
}

/// Passes what is written on to the task that sends it.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(place: &LocalPath) -> Result<File, DeltaError> {
    content::open(place).map_err(|source| DeltaError::Io { operation: "open the file", source })
}

fn inspect(file: &File) -> Result<Metadata, DeltaError> {
    fs::meta::metadata_of(file).map_err(|source| DeltaError::Io { operation: "look at the file", source })
}

/// Compares what is written with what is expected, and fails at the first difference.
struct Comparing<'a> {
    expected: &'a [u8],
}

impl Write for Comparing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.expected.strip_prefix(bytes) {
            Some(rest) => {
                self.expected = rest;
                Ok(bytes.len())
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "the signatures differ")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_content_is_equal() {
        let directory = tempfile::tempdir().unwrap();
        let place = LocalPath { root: directory.path().to_owned(), relative: b"f".to_vec() };
        let signature_of = |content: &[u8]| {
            let mut signature = Vec::new();
            delta::signature(&mut &*content, &mut signature).unwrap();
            signature
        };
        let long = vec![7; 10_000];
        for (ours, theirs, equal) in [
            (&b"same"[..], &b"same"[..], true),
            (b"", b"", true),
            (b"ours", b"them", false),
            (&long, &long[1..], false),
            (&long[1..], &long, false),
            (b"", b"x", false),
        ] {
            std::fs::write(directory.path().join("f"), ours).unwrap();
            let compared = compare(&place, &signature_of(theirs)).unwrap();
            assert_eq!(compared.digest.is_some(), equal, "{ours:?} {theirs:?}");
            assert_eq!(compared.digest.is_some(), compared.digest == content::digest(&place).ok());
        }
        std::fs::remove_file(directory.path().join("f")).unwrap();
        assert!(compare(&place, &signature_of(b"x")).is_err());
        assert!(prepare(&place, &signature_of(b"x")).is_err());
    }
}
