//! What kind of thing a file is, in the words of diff(1).

use std::fmt;

use crate::model::{Checktxt, FileKind};

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// Each with its word in a checktxt and its name for people.
const KINDS: [(Kind, &str, &str); 7] = [
    (Kind::Regular, "reg", "regular file"),
    (Kind::Directory, "dir", "directory"),
    (Kind::Symlink, "lnk", "symbolic link"),
    (Kind::CharDevice, "chr", "character special file"),
    (Kind::BlockDevice, "blk", "block special file"),
    (Kind::Fifo, "fifo", "fifo"),
    (Kind::Socket, "sock", "socket"),
];

impl Kind {
    /// `None` for a text that says nothing about it.
    pub(super) fn of_checktxt(checktxt: &Checktxt) -> Option<Self> {
        let word = checktxt.file_type()?;
        KINDS.iter().find(|(_, known, _)| known.as_bytes() == word).map(|&(kind, ..)| kind)
    }

    pub(super) fn of(kind: &FileKind) -> Self {
        match kind {
            FileKind::Regular { .. } => Self::Regular,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink { .. } => Self::Symlink,
            FileKind::CharDevice { .. } => Self::CharDevice,
            FileKind::BlockDevice { .. } => Self::BlockDevice,
            FileKind::Fifo => Self::Fifo,
            FileKind::Socket => Self::Socket,
        }
    }

    /// For a spool; 0 is no kind.
    pub(super) fn to_byte(kind: Option<Self>) -> u8 {
        KINDS.iter().zip(1..).find(|((known, ..), _)| Some(*known) == kind).map_or(0, |(_, number)| number)
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let index = usize::from(byte).checked_sub(1)?;
        KINDS.get(index).map(|&(kind, ..)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, ..)| kind == self).map_or("", |&(.., name)| name);
        formatter.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_from_checktxts_and_bytes() {
        for (index, &(kind, word, _)) in KINDS.iter().enumerate() {
            let checktxt = Checktxt::from_text(format!("v1:mode=1:type={word}:size=1").as_bytes());
            assert_eq!(Kind::of_checktxt(&checktxt), Some(kind));
            let byte = Kind::to_byte(Some(kind));
            assert_eq!((usize::from(byte), Kind::from_byte(byte)), (index + 1, Some(kind)));
        }
        assert_eq!((Kind::to_byte(None), Kind::from_byte(0), Kind::from_byte(9)), (0, None, None));
        assert_eq!(Kind::of_checktxt(&Checktxt::from_text(b"---")), None);
    }
}
