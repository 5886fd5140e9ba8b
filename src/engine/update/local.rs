//! What this side has of a file at the moment of the push: synchronous, run through `blocking`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use tempfile::SpooledTempFile;

use super::outbox::Outbox;
use crate::config::LocalPath;
use crate::delta::{self, Bounds, DeltaError};
use crate::engine::content::{self, Hashing};
use crate::fs::{self, Presence};
use crate::model::Metadata;

/// The state of a file here.
#[derive(Debug)]
pub(super) enum Local {
    There(Metadata),
    /// Does not exist, or lies behind a symlink.
    Gone,
    Unknown(io::Error),
}

pub(super) fn look(place: &LocalPath) -> Local {
    match fs::presence(&place.root, &place.relative) {
        Presence::Present(metadata) => Local::There(metadata),
        Presence::Gone | Presence::BehindSymlink => Local::Gone,
        Presence::Unknown(error) => Local::Unknown(error),
    }
}

/// Whether the peer's signature is that of our file; the digest of the content where it is.
pub(super) fn same_content(place: &LocalPath, theirs: &[u8]) -> Result<Option<[u8; 32]>, DeltaError> {
    let mut file = Hashing::new(open(place)?);
    let mut compared = Comparing { expected: theirs };
    match delta::signature(&mut file, &mut compared) {
        Ok(()) if compared.expected.is_empty() => Ok(Some(file.digest())),
        Ok(()) => Ok(None),
        // The comparison breaks off where the signatures part.
        Err(DeltaError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
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
    let file = open(place)?;
    let inspect = |file: &File| {
        fs::meta::metadata_of(file).map_err(|source| DeltaError::Io { operation: "look at the file", source })
    };
    let metadata = inspect(&file)?;
    let mut delta = Outbox::spool();
    let mut content = Hashing::new(file);
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
