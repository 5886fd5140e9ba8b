//! Walks a tree.
use std::{io, path::Path};

use crate::model::Metadata;

/// What the directory says about an entry before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindHint {
    Directory,
    Other,
    /// The file system does not tell, or it is the starting name.
    Unknown,
}

/// Decides what is looked at, and takes what is found. Paths are absolute: the starting name with components added.
pub trait Visitor {
    /// Whether the entry is to be looked at (one stat).
    fn wants(&mut self, path: &[u8], kind_hint: KindHint) -> bool;
    /// An entry; the answer says whether to go into it, if it is a directory.
    fn entry(&mut self, path: &[u8], metadata: Metadata) -> bool;
    /// `operation` failed on `path`: nothing is known about it and what lies below it.
    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error);
}

/// Walks `top` (a directory, or any other file) and what lies below it.
pub fn walk(top: &Path, visitor: &mut dyn Visitor) {
    let _ = visitor.wants(top.as_os_str().as_encoded_bytes(), KindHint::Unknown);
    todo!()
}
