//! What this side has of a file at the moment of the push: synchronous, run through `blocking`, one call a file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use tempfile::{SpooledTempFile, spooled_tempfile};

use crate::config::LocalPath;
use crate::delta::{self, Bounds, DeltaError};
use crate::engine::content::{self, Hashing};
use crate::fs;
use crate::model::Metadata;

/// Deltas above this size wait on disk for their turn.
const IN_MEMORY: usize = 1 << 20;

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

/// SHA-256 of a regular file, with its state, which did not change meanwhile.
pub(super) fn hash(place: &LocalPath) -> io::Result<(Metadata, [u8; 32])> {
    let mut content = Hashing::new(content::open(place)?);
    let before = fs::meta::metadata_of(content.file())?;
    io::copy(&mut content, &mut io::sink())?;
    if fs::meta::metadata_of(content.file())? != before {
        return Err(io::Error::other("it was changed while it was read"));
    }
    Ok((before, content.digest()))
}

/// The size that the system gives for a file of any kind, as the answer to GETSZ has it: a link is as long as its target.
/// 0 for what is gone.
pub(super) fn size(place: &LocalPath) -> u64 {
    content::locate(place).ok().and_then(|place| place.size().ok()).unwrap_or_default()
}

/// What is sent for a regular file.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) length: u64,
    pub(super) delta: SpooledTempFile,
    /// The state of the file that was read.
    pub(super) metadata: Metadata,
    pub(super) digest: [u8; 32],
    /// It was changed while it was read: the content may be a mixture.
    pub(super) changed: bool,
}

/// Makes the delta against the peer's signature.
pub(super) fn prepare(place: &LocalPath, signature: &[u8]) -> Result<Prepared, DeltaError> {
    let mut content = Hashing::new(open(place)?);
    let metadata = inspect(content.file())?;
    let mut delta = spooled_tempfile(IN_MEMORY);
    delta::delta(&mut content, signature, &mut delta, Bounds::default())?;
    let length = delta
        .seek(SeekFrom::End(0))
        .map_err(|source| DeltaError::Io { operation: "measure the spooled delta", source })?;
    let changed = inspect(content.file())? != metadata;
    Ok(Prepared { length, delta, metadata, digest: content.digest(), changed })
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
