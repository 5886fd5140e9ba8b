//! What this side has of a file at the moment of the push: synchronous, run through `blocking`, one call a file.

use std::io::{self, Seek, SeekFrom, Write};

use bytes::Bytes;
use tempfile::spooled_tempfile;
use tokio::sync::mpsc;

use super::contents::{Content, Contents};
use super::outbox::Body;
use crate::config::LocalPath;
use crate::delta::{self, Bounds, DeltaError};
use crate::engine::content;
use crate::fs::Locator;
use crate::model::Metadata;

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
pub(super) fn compare(contents: &Contents, place: &LocalPath, theirs: &[u8]) -> Result<Compared, DeltaError> {
    let mut content = open(contents, place)?;
    let metadata = content.metadata.clone();
    let mut rest = Comparing { expected: theirs };
    let equal = match delta::signature(&mut content, &mut rest) {
        Ok(()) => rest.expected.is_empty(),
        // The comparison breaks off where the signatures part.
        Err(DeltaError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => false,
        Err(error) => return Err(error),
    };
    let equal = equal && !has_changed(&content)?;
    let digest = equal.then(|| content.digest());
    if let Some(digest) = digest {
        contents.learn(place, &metadata, digest);
    }
    Ok(Compared { metadata, digest })
}

/// SHA-256 of a regular file, one of many in order, with its state, which did not change meanwhile.
pub(super) fn hash(contents: &Contents, locator: &mut Locator, place: &LocalPath) -> io::Result<(Metadata, [u8; 32])> {
    let mut content = contents.open(locator, place)?;
    if !content.is_hashed() {
        io::copy(&mut content, &mut io::sink())?;
    }
    if content.has_changed()? {
        return Err(io::Error::other("it was changed while it was read"));
    }
    let metadata = content.metadata.clone();
    let digest = content.digest();
    contents.learn(place, &metadata, digest);
    Ok((metadata, digest))
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
    content: Content,
    pieces: mpsc::Sender<Bytes>,
}

/// Makes the delta against the peer's signature, or all that is needed to make it while it is sent.
pub(super) fn prepare(contents: &Contents, place: &LocalPath, signature: &[u8]) -> Result<Prepared, DeltaError> {
    let mut content = open(contents, place)?;
    let size = content.size();
    if size > IN_MEMORY as u64 {
        content.read_ahead();
        if delta::is_literal(signature, Bounds::default())? {
            let (pieces, receiver) = mpsc::channel(PIECE.1);
            let whole = Whole { content, pieces };
            return Ok(Prepared::Whole { length: delta::literal_length(size), delta: Body::Pieces(receiver), whole });
        }
    }
    let mut delta = spooled_tempfile(IN_MEMORY);
    delta::delta(&mut content, signature, &mut delta, Bounds::default())?;
    let length = delta
        .seek(SeekFrom::End(0))
        .map_err(|source| DeltaError::Io { operation: "measure the spooled delta", source })?;
    let sent = Sent::of(content, true)?;
    sent.teach(contents, place);
    Ok(Prepared::Delta { length, delta: Body::Spooled(delta), sent })
}

impl Sent {
    fn of(content: Content, is_whole: bool) -> Result<Self, DeltaError> {
        let changed = !is_whole || has_changed(&content)?;
        Ok(Self { metadata: content.metadata.clone(), digest: content.digest(), changed })
    }

    fn teach(&self, contents: &Contents, place: &LocalPath) {
        if !self.changed {
            contents.learn(place, &self.metadata, self.digest);
        }
    }
}

impl Whole {
    /// Reads the file and sends it, while the other end of the delta is taken in. An error: what came out is refused by the
    /// peer.
    pub(super) fn send(self, contents: &Contents, place: &LocalPath) -> Result<Sent, DeltaError> {
        let Self { mut content, pieces } = self;
        let size = content.size();
        let mut output = Pieces { sender: pieces, piece: Vec::new() };
        let made = delta::literal_delta(&mut content, size, &mut output);
        output.flush().map_err(|source| DeltaError::Io { operation: "send the file", source })?;
        let is_whole = match made {
            Err(DeltaError::Shrunk) => false,
            other => other.map(|()| true)?,
        };
        let sent = Sent::of(content, is_whole)?;
        sent.teach(contents, place);
        Ok(sent)
    }
}

/// Passes what is written on to the task that sends it, in pieces of one size; [`Write::flush`] sends the last.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE.0 {
            self.flush()?;
        }
        self.piece.reserve(PIECE.0.saturating_sub(self.piece.len()));
        let length = bytes.len().min(PIECE.0 - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn open(contents: &Contents, place: &LocalPath) -> Result<Content, DeltaError> {
    contents
        .open(&mut Locator::default(), place)
        .map_err(|source| DeltaError::Io { operation: "open the file", source })
}

fn has_changed(content: &Content) -> Result<bool, DeltaError> {
    content.has_changed().map_err(|source| DeltaError::Io { operation: "look at the file", source })
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
        let place = LocalPath::within(directory.path(), "f");
        let signature_of = |content: &[u8]| {
            let mut signature = Vec::new();
            delta::signature(&mut &*content, &mut signature).unwrap();
            signature
        };
        let long = vec![7; 10_000];
        let contents = Contents::default();
        for (ours, theirs, equal) in [
            (&b"same"[..], &b"same"[..], true),
            (b"", b"", true),
            (b"ours", b"them", false),
            (&long, &long[1..], false),
            (&long[1..], &long, false),
            (b"", b"x", false),
        ] {
            std::fs::write(directory.path().join("f"), ours).unwrap();
            let compared = compare(&contents, &place, &signature_of(theirs)).unwrap();
            assert_eq!(compared.digest.is_some(), equal, "{ours:?} {theirs:?}");
            assert_eq!(compared.digest.is_some(), compared.digest == content::digest(&place).ok());
        }
        std::fs::remove_file(directory.path().join("f")).unwrap();
        assert!(compare(&contents, &place, &signature_of(b"x")).is_err());
        assert!(prepare(&contents, &place, &signature_of(b"x")).is_err());
    }

    /// All that a delta's receiver gets.
    fn collect(body: Body, send: impl FnOnce() -> Result<Sent, DeltaError> + Send) -> (Vec<u8>, Sent) {
        let Body::Pieces(mut pieces) = body else { panic!("it is sent while it is read") };
        std::thread::scope(|scope| {
            let sending = scope.spawn(send);
            let mut delta = Vec::new();
            while let Some(piece) = pieces.blocking_recv() {
                delta.extend_from_slice(&piece);
            }
            (delta, sending.join().unwrap().unwrap())
        })
    }

    #[test]
    fn a_large_file_that_is_new_there_is_sent_while_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let place = LocalPath::within(directory.path(), "f");
        let content: Vec<u8> =
            (0..3_000_001_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for (before, changed) in [(3_000_001, false), (2_000_000, true), (3_500_000, true)] {
            std::fs::write(&path, &content).unwrap();
            let contents = Contents::default();
            let prepared = prepare(&contents, &place, &delta::MISSING_BASIS).unwrap();
            let Prepared::Whole { length, delta: body, whole } = prepared else { panic!("it is a large one") };
            // What happens to the file meanwhile.
            if changed {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(before).unwrap();
            }
            let (delta, sent) = collect(body, || whole.send(&contents, &place));
            assert_eq!(delta.len() as u64, length);
            assert_eq!(sent.changed, changed);
            let nothing = tempfile::tempfile().unwrap();
            let mut arrived = Vec::new();
            match delta::patch(&nothing, &mut &delta[..], &mut arrived, u64::MAX) {
                Ok(_) => assert!(before >= 3_000_001 && arrived == content),
                Err(_) => assert!(before < 3_000_001, "what is too short is taken back"),
            }
        }
    }
}
