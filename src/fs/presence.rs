//! Whether known files are still there.
use std::{io, path::Path};

use crate::model::Metadata;

/// What became of a known file.
#[derive(Debug)]
pub enum Presence {
    Present(Metadata),
    /// The system says that it does not exist (ENOENT, ENOTDIR).
    Gone,
    /// One of its parent directories below the root is a symlink: the path is not pure.
    BehindSymlink,
    /// Could not be found out: nothing may be concluded.
    Unknown(io::Error),
}

/// Looks at many files below one root, cheapest when they come in name order.
#[derive(Debug)]
pub struct PresenceChecker {}

impl PresenceChecker {
    /// `root`'s own path may hold symlinks. A root that is missing makes everything [`Presence::Gone`].
    pub fn new(root: &Path) -> Self {
        todo!("{}", root.display())
    }
    /// `relative` is the name below the root; empty for the root itself.
    pub fn check(&mut self, relative: &[u8]) -> Presence {
        todo!("{relative:?}")
    }
}

/// Looks at one file below `root`.
pub fn presence(root: &Path, relative: &[u8]) -> Presence {
    PresenceChecker::new(root).check(relative)
}
