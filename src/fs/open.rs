//! Opens directories by paths of any length: the kernel takes 4,095 bytes at once, so longer ones go in pieces.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// What a piece may hold at most, in bytes; below `PATH_MAX` with its NUL.
const PIECE: usize = 4000;

/// A handle for names below a directory; needs search permission only, and cannot be read from.
pub(super) const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory whose names are to be read, or which is to be synced.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory named by this host's administrator: symlinks are followed.
pub(super) fn directory(path: &Path) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    let (start, rest) = match bytes.strip_prefix(b"/") {
        Some(rest) => (Path::new("/"), rest),
        None => (Path::new("."), bytes),
    };
    let mut directory = openat(CWD, start, HANDLE, Mode::empty())?;
    for piece in pieces(rest) {
        directory = openat(&directory, &*c_string(piece)?, HANDLE, Mode::empty())?;
    }
    Ok(directory)
}

/// Opens the directory that holds `path` (symlinks are followed) and gives the name in it; `.` for `/`.
pub(super) fn parent(path: &Path) -> io::Result<(OwnedFd, CString)> {
    let bytes = path.as_os_str().as_bytes();
    let trimmed = &bytes[..bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1)];
    if trimmed.is_empty() && !bytes.is_empty() {
        return Ok((directory(Path::new("/"))?, c".".into()));
    }
    let (parent, name) = split(trimmed);
    let parent = if trimmed.starts_with(b"/") && parent.is_empty() { b"/" } else { parent };
    Ok((directory(Path::new(std::ffi::OsStr::from_bytes(parent)))?, c_string(name)?))
}

/// The directory part and the last name of a path without a slash at its end.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Cuts a relative path at slashes into pieces that the kernel takes. Empty for the empty path.
pub(super) fn pieces(relative: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = relative;
    std::iter::from_fn(move || {
        while let [b'/', tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return None;
        }
        let end = match rest.get(..PIECE) {
            None => rest.len(),
            // A single name beyond the limit goes as it is: the kernel's error is the right answer.
            Some(window) => window
                .iter()
                .rposition(|&byte| byte == b'/')
                .unwrap_or_else(|| rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len())),
        };
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(piece)
    })
}

/// A name for the kernel; one that holds a NUL is an error.
pub(super) fn c_string(name: &[u8]) -> io::Result<CString> {
    Ok(CString::new(name)?)
}

/// Makes the names in a directory durable. `directory` may be a handle that cannot be read from.
pub(super) fn sync(directory: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::io::Errno;
    match openat(directory, c".", READ, Mode::empty()).and_then(|readable| rustix::fs::fsync(readable.as_fd())) {
        // A directory that may be written but not read, and file systems without fsync of directories: nothing
        // better can be done, and refusing the change would help nobody.
        Ok(()) | Err(Errno::ACCESS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_root_is_its_own_entry() {
        assert_eq!(parent(Path::new("/")).unwrap().1.as_bytes(), b".");
        assert_eq!(parent(Path::new("/usr/")).unwrap().1.as_bytes(), b"usr");
        assert_eq!(parent(Path::new("name")).unwrap().1.as_bytes(), b"name");
        assert!(parent(Path::new("/no/such/directory")).is_err());
    }

    proptest! {
        #[test]
        fn pieces_are_short_and_lose_nothing(lengths in prop::collection::vec(1usize..255, 0..80)) {
            let path = lengths.iter().map(|&length| vec![b'n'; length]).collect::<Vec<_>>().join(&b'/');
            let cut: Vec<_> = pieces(&path).collect();
            prop_assert!(cut.iter().all(|piece| piece.len() <= PIECE && !piece.starts_with(b"/")));
            prop_assert_eq!(cut.join(&b'/'), path);
        }
    }
}
