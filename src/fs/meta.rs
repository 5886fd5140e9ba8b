//! The state of one file on disk.
use std::{fs::File, io, path::Path};

use crate::model::Metadata;

/// What lstat says about `path`, which may be of any length; never follows a symlink at its end.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    todo!("{}", path.display())
}

/// The state of an open file.
pub fn metadata_of(file: &File) -> io::Result<Metadata> {
    todo!("{file:?}")
}
