//! Copies of what a peer is about to replace.
use std::{io, path::Path};

use super::Place;

/// Copies the regular file at `place` to `backup_root` + `real_path` (absolute), after older copies moved on to `.1`, `.2`, …
/// Anything but a regular file is left out without a word.
pub fn backup(place: &Place, backup_root: &Path, real_path: &[u8], generations: u32) -> io::Result<()> {
    todo!("{place:?} {} {real_path:?} {generations}", backup_root.display())
}
