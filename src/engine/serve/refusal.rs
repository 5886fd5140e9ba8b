//! Why a command of a peer was not carried out, and what the peer is told.

use std::io;

use crate::delta::DeltaError;
use crate::fs::BeneathError;
use crate::model::errors::strerror;
use crate::wire::Reply;

/// Why a command was not carried out.
#[derive(Debug)]
pub(super) enum Refusal {
    Answer(Reply),
    ParentMissing,
    /// A component of the path is something else.
    NotADirectory,
    /// A component of the path is a symlink.
    BehindSymlink,
    /// The file is not what it was when the peer asked for it: a conflict, not to be covered up, or another session's doing.
    ChangedMeanwhile,
    /// The change is made, and may not be on disk, or nobody knows how the file is now: its intent must stay.
    Unsettled(io::Error),
}

impl Refusal {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Answer(Reply::Text(text.into()))
    }

    /// SIG has words of its own for a missing parent; the other commands give the system's. (A client in C takes the former
    /// for a reason to mark anew, and forgets that the file was forced.)
    pub(super) fn in_system_words(self) -> Self {
        match self {
            Self::ParentMissing => Self::text("No such file or directory"),
            other => other,
        }
    }

    /// Nothing can be there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::ParentMissing | Self::NotADirectory)
    }

    /// What the peer is told.
    pub(super) fn reply(self) -> Reply {
        match self {
            Self::Answer(reply) => reply,
            Self::ParentMissing => Reply::ParentDirMissing,
            Self::NotADirectory => Reply::Text("Not a directory".to_owned()),
            Self::BehindSymlink => Reply::Text("Too many levels of symbolic links".to_owned()),
            Self::ChangedMeanwhile => Reply::AlsoDirty,
            Self::Unsettled(error) => Reply::Text(strerror(&error)),
        }
    }
}

impl From<BeneathError> for Refusal {
    fn from(error: BeneathError) -> Self {
        match error {
            BeneathError::ParentMissing => Self::ParentMissing,
            BeneathError::NotADirectory => Self::NotADirectory,
            BeneathError::BehindSymlink => Self::BehindSymlink,
            BeneathError::Io(error) => Self::from(error),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::text(strerror(&error))
    }
}

impl From<DeltaError> for Refusal {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Io { source, .. } => Self::from(source),
            other => Self::text(other.to_string()),
        }
    }
}
