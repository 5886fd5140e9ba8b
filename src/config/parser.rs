//! Tokens to tree.

use std::io;
use std::path::Path;

use super::ConfigError;

/// Parses a text.
pub fn parse(
    text: &[u8],
    file: &Path,
    include: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<(), ConfigError> {
    let _ = (text, file, include);
    todo!()
}
