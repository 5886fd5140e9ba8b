//! The content of a file of ours, opened without following a symlink on the way and without blocking on a FIFO.

mod hashing;

use std::fs::File;
use std::io;

pub use self::hashing::Hashing;
use crate::config::LocalPath;
use crate::fs::{BeneathError, Locator, Place, Root};

/// The open directory and the name in it that a path on this disk stands for.
///
/// # Errors
/// When a component is missing, is no directory, or is a symlink below the root.
pub fn locate(place: &LocalPath) -> Result<Place, BeneathError> {
    if place.relative().is_empty() {
        return Root::place_of(place.root()).map_err(of_root);
    }
    Root::open(place.root()).map_err(of_root)?.locate(place.relative())
}

/// The same for one of many, in order.
///
/// # Errors
/// As [`locate`].
pub fn locate_with(locator: &mut Locator, place: &LocalPath) -> Result<Place, BeneathError> {
    if place.relative().is_empty() {
        return locate(place);
    }
    locator.below(place.root()).map_err(of_root)?.locate(place.relative())
}

/// A root that is missing is a missing parent of everything below it.
fn of_root(error: io::Error) -> BeneathError {
    match error.kind() {
        io::ErrorKind::NotFound => BeneathError::ParentMissing,
        io::ErrorKind::NotADirectory => BeneathError::NotADirectory,
        _ => BeneathError::Io(error),
    }
}

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the system; a path that is no longer pure counts as not found.
pub fn open(place: &LocalPath) -> io::Result<File> {
    open_with(&mut Locator::default(), place)
}

/// The same for one of many, in order.
///
/// # Errors
/// As [`open`].
pub fn open_with(locator: &mut Locator, place: &LocalPath) -> io::Result<File> {
    match locate_with(locator, place) {
        Ok(at) => at.open_regular(),
        Err(BeneathError::Io(error)) => Err(error),
        Err(other) => Err(io::Error::new(io::ErrorKind::NotFound, other)),
    }
}

/// SHA-256 of a regular file.
///
/// # Errors
/// Those of opening and reading it.
pub fn digest(place: &LocalPath) -> io::Result<[u8; 32]> {
    digest_of(open(place)?)
}

/// SHA-256 of an open file, from where it stands.
///
/// # Errors
/// Those of reading it.
pub fn digest_of(file: File) -> io::Result<[u8; 32]> {
    let mut content = Hashing::new(file);
    io::copy(&mut content, &mut io::sink())?;
    Ok(content.digest())
}
