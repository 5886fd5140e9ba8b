//! Replacing a file at once.
use std::{fs::File, io};

use super::Place;
use crate::model::Metadata;

/// Something of the old file that the new one could not get.
#[derive(Debug, thiserror::Error)]
#[error("take over {attribute}")]
pub struct NotTakenOver {
    /// `owner`, `mode`, or the name of an extended attribute.
    pub attribute: String,
    pub source: io::Error,
}

/// A new file under a temporary name; dropping removes it.
#[derive(Debug)]
pub struct TempFile {}

impl TempFile {
    /// Open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        todo!()
    }
    /// The name in its directory: `.NAME.XXXXXX`.
    pub fn name(&self) -> &[u8] {
        todo!()
    }
    /// Whether it lies beside the target (else in the tempdir).
    pub fn is_beside(&self) -> bool {
        todo!()
    }
    /// Gives it the owner, mode, ACL, attributes and label of the file it replaces. Call it after the last write.
    pub fn take_over(&self, old: Option<&Metadata>, old_file: Option<&File>) -> Vec<NotTakenOver> {
        todo!("{old:?} {old_file:?}")
    }
    /// Puts it in place. `durable`: content before the rename, the rename before the return.
    pub fn persist(self, place: &Place, durable: bool) -> io::Result<()> {
        todo!("{place:?} {durable}")
    }
}
