//! Names of synchronized files as the database and the wire know them: `/etc/motd` or `%prefix%/motd`.
//!
//! A [`SyncPath`] has one canonical spelling and is checked when it is made: no empty, `.` or `..` component, no NUL.
//! What it means on this host's disk is for `config` to say, and only `fs` touches that.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::encoding;

/// A canonical name: absolute (`/`, `/a/b`) or below a prefix (`%name%`, `%name%/a/b`). Raw bytes, not encoded. Clones share
/// them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SyncPath(Arc<[u8]>);

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the name is neither absolute nor below a %prefix%")]
    Relative,
    #[error("the name has an empty component or a trailing slash")]
    EmptyComponent,
    #[error("the name has a `.` or `..` component")]
    DotComponent,
    #[error("the name holds a NUL byte")]
    Nul,
}

impl SyncPath {
    /// Checks a decoded name.
    ///
    /// # Errors
    /// The first rule of [`PathError`] that the name breaks.
    pub fn parse(name: &[u8]) -> Result<Self, PathError> {
        Self::check(name).map(|()| Self(name.into()))
    }

    /// Whether a decoded name is one.
    ///
    /// # Errors
    /// The first rule of [`PathError`] that the name breaks.
    pub fn check(name: &[u8]) -> Result<(), PathError> {
        if name.contains(&0) {
            return Err(PathError::Nul);
        }
        let below = match name.first() {
            Some(b'/') if name.len() == 1 => return Ok(()),
            Some(b'/') => &name[1..],
            Some(b'%') => {
                let end = name[1..].iter().position(|&byte| byte == b'%').ok_or(PathError::Relative)? + 1;
                if name[1..end].contains(&b'/') || end == 1 {
                    return Err(PathError::Relative);
                }
                match name.get(end + 1) {
                    None => return Ok(()),
                    Some(b'/') => &name[end + 2..],
                    Some(_) => return Err(PathError::Relative),
                }
            }
            _ => return Err(PathError::Relative),
        };
        for component in below.split(|&byte| byte == b'/') {
            match component {
                b"" => return Err(PathError::EmptyComponent),
                b"." | b".." => return Err(PathError::DotComponent),
                _ => {}
            }
        }
        Ok(())
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The spelling for the wire and the database.
    #[must_use]
    pub fn encoded(&self) -> String {
        encoding::encode(&self.0)
    }

    /// The prefix's name and what follows `%name%/` (empty for the prefix itself); `None` for an absolute name.
    #[must_use]
    pub fn split_prefix(&self) -> Option<(&[u8], &[u8])> {
        let after = self.0.strip_prefix(b"%")?;
        let end = after.iter().position(|&byte| byte == b'%')?;
        let rest = &after[end + 1..];
        Some((&after[..end], rest.strip_prefix(b"/").unwrap_or(rest)))
    }

    /// The directory that holds it; `None` for `/` and for a prefix itself.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|&byte| byte == b'/')?;
        match slash {
            0 if self.0.len() == 1 => None,
            0 => Some(Self(b"/".as_slice().into())),
            _ => Some(Self(self.0[..slash].into())),
        }
    }

    /// The last component (the prefix itself has its `%name%`, `/` the empty name).
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        file_name(&self.0)
    }

    /// The name of an entry of this directory. `name` is one component.
    ///
    /// # Errors
    /// [`PathError`] when `name` is no single proper component.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut joined = self.0.to_vec();
        if !joined.ends_with(b"/") {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Self::parse(&joined)
    }

    /// Whether `self` lies below `directory` (strictly).
    #[must_use]
    pub fn is_below(&self, directory: &Self) -> bool {
        match self.0.strip_prefix(&*directory.0) {
            Some(rest) if &*directory.0 == b"/" => !rest.is_empty(),
            Some(rest) => rest.first() == Some(&b'/'),
            None => false,
        }
    }

    /// How many components stand below the root or prefix: 0 for these themselves.
    #[must_use]
    pub fn depth(&self) -> usize {
        if &*self.0 == b"/" { 0 } else { self.0.split(|&byte| byte == b'/').count() - 1 }
    }
}

/// The name of one directory's entry after the other, in one place: what a walk that meets a million files compares.
#[derive(Debug, Clone, Default)]
pub struct NameBuffer(Vec<u8>);

impl NameBuffer {
    /// Becomes the name of an entry of `directory`. `name` is one proper component, as the system lists it: never empty, `.`
    /// or `..`, without a slash or NUL.
    pub fn join(&mut self, directory: &SyncPath, name: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(directory.as_bytes());
        if !self.0.ends_with(b"/") {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
        debug_assert!(SyncPath::check(&self.0).is_ok(), "{name:?} is no entry of a directory");
    }

    /// Becomes another name.
    pub fn copy(&mut self, path: &SyncPath) {
        self.0.clear();
        self.0.extend_from_slice(path.as_bytes());
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last component, as [`SyncPath::file_name`] gives it.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        file_name(&self.0)
    }

    #[must_use]
    pub fn to_path(&self) -> SyncPath {
        SyncPath(self.0.as_slice().into())
    }
}

fn file_name(name: &[u8]) -> &[u8] {
    name.rsplit(|&byte| byte == b'/').next().unwrap_or(name)
}

/// Names sort by the bytes of the C program's encoding, whatever a database's collation says.
impl Ord for SyncPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // Each byte is encoded by itself, and no encoding begins another one: the first bytes that differ decide.
        let (one, other) = (&*self.0, &*other.0);
        // Eight at a time: neighbours in a sorted list have much in common.
        let alike = one.chunks_exact(8).zip(other.chunks_exact(8)).take_while(|(one, other)| one == other).count() * 8;
        match one[alike..].iter().zip(&other[alike..]).find(|(one, other)| one != other) {
            None => one.len().cmp(&other.len()),
            Some((&one, &other)) => encoding::compare_bytes(one, other),
        }
    }
}

impl PartialOrd for SyncPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// For messages; bytes that are no UTF-8 show as U+FFFD. Output for scripts writes the raw bytes instead.
/// A name for a message. Peers choose names: what would begin a new line or move a terminal's cursor is escaped.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for character in String::from_utf8_lossy(name).chars() {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

impl fmt::Display for SyncPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(formatter)
    }
}

impl fmt::Debug for SyncPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), formatter)
    }
}

/// Which names an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every name.
    All,
    /// This name alone.
    File(SyncPath),
    /// This name and everything below it.
    Tree(SyncPath),
}

impl Scope {
    /// Whether the scope takes in `path`.
    #[must_use]
    pub fn contains(&self, path: &SyncPath) -> bool {
        match self {
            Self::All => true,
            Self::File(name) => path == name,
            Self::Tree(top) => path == top || path.is_below(top),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(name: &str) -> SyncPath {
        SyncPath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_in_a_message_begins_no_line_and_moves_no_cursor() {
        assert_eq!(shown(b"/etc/a\nERROR: \x1b[31m\tb\r"), r"/etc/a\nERROR: \u{1b}[31m\tb\r");
        assert_eq!(shown("/srv/größe \\ %".as_bytes()), "/srv/größe \\ %");
    }

    #[test]
    fn canonical_names_are_accepted() {
        for name in ["/", "/etc/motd", "%p%", "%p%/a b/..c", "/%x/y%"] {
            assert_eq!(path(name).as_bytes(), name.as_bytes());
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for (name, error) in [
            ("", PathError::Relative),
            ("etc", PathError::Relative),
            ("%p", PathError::Relative),
            ("%%/a", PathError::Relative),
            ("%a/b%/c", PathError::Relative),
            ("%p%x", PathError::Relative),
            ("//etc", PathError::EmptyComponent),
            ("/etc/", PathError::EmptyComponent),
            ("%p%/", PathError::EmptyComponent),
            ("/etc/../shadow", PathError::DotComponent),
            ("%p%/..", PathError::DotComponent),
            ("/./etc", PathError::DotComponent),
            ("/a\0b", PathError::Nul),
        ] {
            assert_eq!(SyncPath::parse(name.as_bytes()), Err(error), "{name}");
        }
    }

    #[test]
    fn prefixes_and_parents_come_apart() {
        assert_eq!(path("%p%/a/b").split_prefix(), Some((&b"p"[..], &b"a/b"[..])));
        assert_eq!(path("%p%").split_prefix(), Some((&b"p"[..], &b""[..])));
        assert_eq!(path("/a").split_prefix(), None);
        assert_eq!(path("%p%/a").parent(), Some(path("%p%")));
        assert_eq!(path("%p%").parent(), None);
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert!(path("/a/b").is_below(&path("/a")) && path("/a").is_below(&path("/")));
        assert!(!path("/ab").is_below(&path("/a")) && !path("/a").is_below(&path("/a")));
        assert_eq!([path("/").depth(), path("/a/b").depth(), path("%p%").depth()], [0, 2, 0]);
    }

    #[test]
    fn a_buffer_takes_one_component_after_the_other() {
        let mut buffer = NameBuffer::default();
        for (directory, name, expected) in [("/", "a", "/a"), ("%p%", "b c", "%p%/b c"), ("/x/y", "..z", "/x/y/..z")] {
            buffer.join(&path(directory), name.as_bytes());
            assert_eq!((buffer.to_path(), buffer.file_name()), (path(expected), name.as_bytes()));
            assert_eq!(path(directory).join(name.as_bytes()), Ok(path(expected)));
        }
        buffer.copy(&path("%p%"));
        assert_eq!((buffer.as_bytes(), buffer.file_name()), (&b"%p%"[..], &b"%p%"[..]));
    }

    #[test]
    fn order_is_that_of_the_encoded_bytes() {
        // A blank is written `%20`, so it sorts behind `#` and before `&`.
        let mut names = ["/&", "/a.d", "/a/x", "/ ", "/#", "/é"].map(path);
        names.sort();
        assert_eq!(names, ["/#", "/ ", "/&", "/a.d", "/a/x", "/é"].map(path));
    }

    proptest! {
        #[test]
        fn order_is_that_of_whole_encoded_names(names in prop::collection::vec("(abcdefg)?[ab #%&:|~\u{7f}\u{e9}]{0,4}", 2)) {
            let [one, other] = [0, 1].map(|index| path(&format!("/x{}", names[index])));
            let encoded = |path: &SyncPath| encoding::classic(path.as_bytes());
            prop_assert_eq!(one.cmp(&other), encoded(&one).cmp(&encoded(&other)));
        }
    }
}
