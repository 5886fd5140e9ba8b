//! File trees as values: written to disk, read from disk, compared with a readable difference.
//!
//! An attribute that is not given is filled in with a fixed default when written, and not looked at when compared. So
//! two trees read from disk are compared in everything, a tree written down in a test in what it says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use sha2::{Digest, Sha256};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, chownat, mknodat, utimensat};

/// Modification time of files that give none, in seconds since 1970.
pub(crate) const MTIME: i64 = 1_600_000_000;

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
    Fifo,
    Socket,
    Device { number: u64, block: bool },
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    mtime: Option<i64>,
}

impl Entry {
    fn new(kind: Kind) -> Self {
        Entry { kind, mode: None, owner: None, mtime: None }
    }

    /// Permission bits with set-id and sticky bits; not for links.
    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    pub(crate) fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// Modification time in seconds; that of directories and links is not compared.
    pub(crate) fn mtime(mut self, seconds: i64) -> Self {
        self.mtime = Some(seconds);
        self
    }

    /// Equal in all that both say.
    pub(crate) fn agrees(&self, other: &Entry) -> bool {
        fn both<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        self.kind == other.kind
            && both(self.mode, other.mode)
            && both(self.owner, other.owner)
            && both(self.mtime, other.mtime)
    }

    pub(crate) fn is_of_the_kind_of(&self, other: &Entry) -> bool {
        std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
    }

    fn read(path: &Path) -> Entry {
        let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("lstat {}: {error}", path.display()));
        let file_type = metadata.file_type();
        let kind = if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_file() {
            Kind::File(fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display())))
        } else if file_type.is_symlink() {
            Kind::Link(fs::read_link(path).expect("readlink").into_os_string().into_vec())
        } else if file_type.is_fifo() {
            Kind::Fifo
        } else if file_type.is_socket() {
            Kind::Socket
        } else {
            Kind::Device { number: metadata.rdev(), block: file_type.is_block_device() }
        };
        Entry {
            mode: (!file_type.is_symlink()).then_some(metadata.mode() & 0o7777),
            owner: Some((metadata.uid(), metadata.gid())),
            mtime: (!file_type.is_dir() && !file_type.is_symlink()).then_some(metadata.mtime()),
            kind,
        }
    }

    fn write(&self, path: &Path) {
        let failed = |error: &dyn fmt::Display| -> ! { panic!("write {}: {error}", path.display()) };
        let old = fs::symlink_metadata(path).ok().map(|metadata| metadata.file_type());
        match (&self.kind, old) {
            (Kind::Directory, Some(old)) if old.is_dir() => {}
            (Kind::File(_), Some(old)) if old.is_file() => {}
            (_, Some(old)) if old.is_dir() => fs::remove_dir_all(path).unwrap_or_else(|error| failed(&error)),
            (_, Some(_)) => fs::remove_file(path).unwrap_or_else(|error| failed(&error)),
            (_, None) => fs::create_dir_all(path.parent().expect("a parent")).unwrap_or_else(|error| failed(&error)),
        }
        let node = |kind, number| mknodat(CWD, path, kind, Mode::RUSR, number).map_err(Into::into);
        match &self.kind {
            Kind::Directory => fs::create_dir_all(path),
            Kind::File(content) => fs::write(path, content),
            Kind::Link(target) => symlink(OsStr::from_bytes(target), path),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::Socket => node(FileType::Socket, 0),
            Kind::Device { number, block: true } => node(FileType::BlockDevice, *number),
            Kind::Device { number, block: false } => node(FileType::CharacterDevice, *number),
        }
        .unwrap_or_else(|error| failed(&error));
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap_or_else(|error| failed(&error));
        }
        let default_mode = match self.kind {
            Kind::Directory => Some(0o755),
            Kind::Link(_) => None,
            _ => Some(0o644),
        };
        if let Some(mode) = self.mode.or(default_mode) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap_or_else(|error| failed(&error));
        }
        let default_mtime = (!matches!(self.kind, Kind::Directory | Kind::Link(_))).then_some(MTIME);
        if let Some(seconds) = self.mtime.or(default_mtime) {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap_or_else(|error| failed(&error));
        }
    }
}

impl From<&str> for Entry {
    fn from(content: &str) -> Self {
        Entry::new(Kind::File(content.into()))
    }
}

impl From<String> for Entry {
    fn from(content: String) -> Self {
        Entry::new(Kind::File(content.into()))
    }
}

impl From<Vec<u8>> for Entry {
    fn from(content: Vec<u8>) -> Self {
        Entry::new(Kind::File(content))
    }
}

pub(crate) fn file(content: &str) -> Entry {
    content.into()
}

pub(crate) fn dir() -> Entry {
    Entry::new(Kind::Directory)
}

pub(crate) fn link(target: impl AsRef<[u8]>) -> Entry {
    Entry::new(Kind::Link(target.as_ref().into()))
}

pub(crate) fn fifo() -> Entry {
    Entry::new(Kind::Fifo)
}

pub(crate) fn socket() -> Entry {
    Entry::new(Kind::Socket)
}

pub(crate) fn device(major: u32, minor: u32, block: bool) -> Entry {
    Entry::new(Kind::Device { number: rustix::fs::makedev(major, minor), block })
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Directory => write!(f, "directory")?,
            Kind::File(content) if content.len() <= 60 => write!(f, "file \"{}\"", content.escape_ascii())?,
            Kind::File(content) => {
                let (start, digest) = (content[..40].escape_ascii(), Sha256::digest(content));
                write!(f, "file of {} bytes \"{start}…\" ({})", content.len(), hex::encode(&digest[..8]))?;
            }
            Kind::Link(target) => write!(f, "link to \"{}\"", target.escape_ascii())?,
            Kind::Fifo => write!(f, "fifo")?,
            Kind::Socket => write!(f, "socket")?,
            Kind::Device { number, block } => write!(f, "device {number:#x} (block: {block})")?,
        }
        self.mode.map_or(Ok(()), |mode| write!(f, ", mode {mode:04o}"))?;
        self.owner.map_or(Ok(()), |(uid, gid)| write!(f, ", owner {uid}:{gid}"))?;
        self.mtime.map_or(Ok(()), |mtime| write!(f, ", mtime {mtime}"))
    }
}

/// Entries by their path relative to the tree's root; `.` is the root itself, where it matters.
#[derive(Clone, Default)]
pub(crate) struct Tree(BTreeMap<Vec<u8>, Entry>);

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, entry)| (name.escape_ascii().to_string(), entry))).finish()
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        Tree::default()
    }

    pub(crate) fn with(mut self, path: impl AsRef<[u8]>, entry: impl Into<Entry>) -> Self {
        self.0.insert(path.as_ref().into(), entry.into());
        self
    }

    /// With the directories that hold the entries, where they are not given themselves.
    pub(crate) fn with_parents(mut self) -> Self {
        let names: Vec<Vec<u8>> = self.0.keys().cloned().collect();
        for name in names {
            for (end, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                self.0.entry(name[..end].into()).or_insert_with(dir);
            }
        }
        self
    }

    /// Everything below `root`, and the root itself as `.`
    pub(crate) fn of(root: &Path) -> Self {
        let mut tree = Tree::new().with(".", Entry::read(root));
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
                let path = entry.expect("read a directory").path();
                let entry = Entry::read(&path);
                let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec();
                if entry.kind == Kind::Directory {
                    open.push(path);
                }
                tree.0.insert(name, entry);
            }
        }
        tree
    }

    /// Without the entry for the root itself.
    pub(crate) fn without_root(self) -> Self {
        self.without(".")
    }

    pub(crate) fn without(mut self, path: impl AsRef<[u8]>) -> Self {
        self.0.remove(path.as_ref());
        self
    }

    /// Writes all entries below `root`, over what is there; makes parents that are missing.
    pub(crate) fn write(&self, root: &Path) {
        for (name, entry) in &self.0 {
            entry.write(&join(root, name));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, path: impl AsRef<[u8]>) -> Option<&Entry> {
        self.0.get(path.as_ref())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_slice(), entry))
    }

    /// One line for each entry.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, entry)| format!("{}: {entry:?}", name.escape_ascii()))
    }

    /// One line for each entry in which the trees differ.
    fn difference(&self, other: &Tree) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let mut lines = Vec::new();
        for name in names {
            let (a, b) = (self.0.get(name), other.0.get(name));
            if !a.zip(b).is_some_and(|(a, b)| a.agrees(b)) {
                let shown = |entry: Option<&Entry>| entry.map_or("nothing".into(), |entry| format!("{entry:?}"));
                lines.push(format!("{}:\n    {}\n    {}", name.escape_ascii(), shown(a), shown(b)));
            }
        }
        lines
    }
}

/// `root/relative`, whatever bytes the name has.
pub(crate) fn join(root: &Path, relative: impl AsRef<[u8]>) -> PathBuf {
    root.join(OsStr::from_bytes(relative.as_ref()))
}

/// Panics with one entry of `left`, one of `right` for each path in which they differ.
#[track_caller]
pub(crate) fn assert_same(left: &Tree, right: &Tree) {
    let lines = left.difference(right);
    assert!(lines.is_empty(), "the trees differ in {} entries (first left, then right):\n{}", lines.len(), {
        lines[..lines.len().min(30)].join("\n")
    });
}

/// `tree! { "motd" => "hello", "d/link" => link("motd"), "d/secret" => file("x").mode(0o600) }`
macro_rules! tree {
    ($($path:expr => $entry:expr),* $(,)?) => { $crate::support::Tree::new()$(.with($path, $entry))* };
}
pub(crate) use tree;
