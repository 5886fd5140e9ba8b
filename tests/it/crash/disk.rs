//! What a power cut leaves of some directories: the contents that were flushed, under the names that were flushed, and of
//! all else what chance wills.
//!
//! A content counts as flushed with fsync of the file, a name with fsync of its directory. What one call does to names is
//! there whole or not at all. Anything but a regular file is on disk with its name.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::support::tracer::Call;

/// Device, inode, and when that was given to a file: it may have been another's before.
type FileId = (u64, u64, Option<SystemTime>);
type Names = BTreeMap<PathBuf, FileId>;

/// What became of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unflushed {
    Lost,
    Kept,
    /// Any part of it, by this seed.
    Either(u64),
}

/// Some directories, as they are and as they are on disk.
pub(super) struct Disk {
    roots: Vec<PathBuf>,
    names: Names,
    flushed: Names,
    /// What happened to names since, call by call. `None`: it went.
    steps: Vec<BTreeMap<PathBuf, Option<FileId>>>,
    /// As they were when they were flushed.
    files: HashMap<FileId, Image>,
}

/// A file of any kind, with its attributes.
#[derive(Clone)]
struct Image {
    mode: u32,
    owner: (u32, u32),
    mtime: Timespec,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
    Special { kind: FileType, number: u64 },
}

const NAMING: [i64; 11] = [
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

impl Disk {
    /// All that is in these directories now is on disk.
    pub(super) fn of(roots: Vec<PathBuf>) -> Self {
        let names = scan(&roots);
        let files = names.iter().map(|(path, id)| (*id, Image::of(path))).collect();
        Self { roots, flushed: names.clone(), names, steps: Vec::new(), files }
    }

    /// Takes a call into account.
    pub(super) fn watch(&mut self, call: &Call) {
        if call.result < 0 {
            return;
        }
        match call.number {
            libc::SYS_fsync | libc::SYS_fdatasync => self.flush(&call.descriptor(call.arguments[0])),
            libc::SYS_openat => {
                let has =
                    |flag: i32| call.arguments[2] & u64::from(flag.cast_unsigned()) == u64::from(flag.cast_unsigned());
                if has(libc::O_TMPFILE) {
                    self.begin(&call.descriptor(call.result.cast_unsigned()));
                } else if has(libc::O_CREAT) {
                    self.look(true);
                }
            }
            number if NAMING.contains(&number) => self.look(false),
            _ => {}
        }
    }

    /// A new file: whatever had its inode before.
    fn begin(&mut self, opened: &Path) {
        let found = fs::metadata(opened).expect("a file that was opened");
        self.files.remove(&id_of(&found));
    }

    fn flush(&mut self, opened: &Path) {
        let Ok(found) = fs::metadata(opened) else { return };
        let id = id_of(&found);
        if !found.is_dir() {
            self.files.insert(id, Image::of_open(opened, &found));
            return;
        }
        let Ok(directory) = fs::read_link(opened) else { return };
        let (flushed, left) = std::mem::take(&mut self.steps)
            .into_iter()
            .partition::<Vec<_>, _>(|step| step.keys().any(|path| path.parent() == Some(&directory)));
        self.steps = left;
        for step in &flushed {
            apply(&mut self.flushed, step);
        }
    }

    fn look(&mut self, created: bool) {
        let names = scan(&self.roots);
        let mut step = BTreeMap::new();
        for (path, id) in names.iter().filter(|(path, id)| self.names.get(*path) != Some(id)) {
            step.insert(path.clone(), Some(*id));
            let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
            if !is_file {
                self.files.insert(*id, Image::of(path));
            } else if created {
                self.files.remove(id);
            }
        }
        step.extend(self.names.keys().filter(|path| !names.contains_key(*path)).map(|path| (path.clone(), None)));
        if !step.is_empty() {
            self.steps.push(step);
        }
        self.names = names;
    }

    /// Cuts the power. `fate` says of each path what becomes of what was not flushed.
    pub(super) fn cut(mut self, fate: impl Fn(&Path) -> Unflushed) {
        // A call that was under way when the process died has done its work perhaps.
        self.look(false);
        let mut random = 0;
        let mut is_kept = |fate: Unflushed| match fate {
            Unflushed::Lost => false,
            Unflushed::Kept => true,
            Unflushed::Either(seed) => {
                random = mixed(random ^ seed);
                random % 2 == 0
            }
        };
        let mut names = self.flushed;
        for step in &self.steps {
            let path = step.keys().next().expect("a step does something");
            if is_kept(fate(path)) {
                apply(&mut names, step);
            }
        }
        // The shared memory of SQLite lies in a file, but not on a disk.
        names.retain(|path, _| !path.as_os_str().as_encoded_bytes().ends_with(b"-shm"));
        let left: BTreeMap<PathBuf, Image> = names
            .into_iter()
            .filter_map(|(path, id)| {
                let now = self.names.iter().find(|(_, other)| **other == id).map(|(path, _)| Image::of(path));
                let image = match (self.files.get(&id), now) {
                    (None, Some(now)) => now.mixed_with(&now.emptied(), &mut || is_kept(fate(&path))),
                    (Some(flushed), Some(now)) => now.mixed_with(flushed, &mut || is_kept(fate(&path))),
                    // It came and went; nobody knows what was in it.
                    (flushed, None) => flushed?.clone(),
                };
                Some((path, image))
            })
            .collect();
        restore(&self.roots, &self.names, &left);
    }
}

fn apply(names: &mut Names, step: &BTreeMap<PathBuf, Option<FileId>>) {
    for (path, id) in step {
        match id {
            Some(id) => drop(names.insert(path.clone(), *id)),
            None => drop(names.remove(path)),
        }
    }
}

/// Makes the directories hold this. What is so already is left alone.
fn restore(roots: &[PathBuf], now: &Names, wanted: &BTreeMap<PathBuf, Image>) {
    for path in now.keys().rev() {
        let stays = wanted.get(path).is_some_and(|image| image.is_at(path));
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() && !stays => fs::remove_dir_all(path).expect("remove a directory"),
            Ok(_) if !stays => fs::remove_file(path).expect("remove a file"),
            _ => {}
        }
    }
    let mut directories = Vec::new();
    for (path, image) in wanted {
        // What lies in a directory that is not on disk is out of reach.
        let parent = path.parent().expect("below a root");
        if !parent.is_dir() || roots.contains(path) || image.is_at(path) {
            continue;
        }
        directories.push(parent);
        image.write(path);
    }
    // Their times went with what was made in them.
    for directory in directories.into_iter().rev() {
        if let Some(image) = wanted.get(directory) {
            image.set_attributes(directory);
        }
    }
}

fn id_of(found: &fs::Metadata) -> FileId {
    (found.dev(), found.ino(), found.created().ok())
}

fn scan(roots: &[PathBuf]) -> Names {
    let mut names = Names::new();
    let mut open = roots.to_vec();
    while let Some(path) = open.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten();
            open.extend(entries.map(|entry| entry.expect("read a directory").path()));
        }
        names.insert(path, id_of(&found));
    }
    names
}

/// As far as a block on disk goes.
const BLOCK: usize = 4096;

impl Image {
    fn of(path: &Path) -> Self {
        let found = fs::symlink_metadata(path).expect("lstat");
        if found.is_file() { Self::of_open(path, &found) } else { Self::new(&found, Body::of(path, &found)) }
    }

    fn of_open(path: &Path, found: &fs::Metadata) -> Self {
        Self::new(found, Body::File(fs::read(path).expect("read a file")))
    }

    fn new(found: &fs::Metadata, body: Body) -> Self {
        let mtime = Timespec { tv_sec: found.mtime(), tv_nsec: found.mtime_nsec() };
        Self { mode: found.mode() & 0o7777, owner: (found.uid(), found.gid()), mtime, body }
    }

    fn emptied(&self) -> Self {
        match self.body {
            Body::File(_) => Self { body: Body::File(Vec::new()), ..self.clone() },
            _ => self.clone(),
        }
    }

    /// Any mixture of an older state and this one.
    fn mixed_with(&self, older: &Self, is_new: &mut impl FnMut() -> bool) -> Self {
        let (Body::File(new), Body::File(old)) = (&self.body, &older.body) else { return self.clone() };
        let mut content = vec![0; if is_new() { new.len() } else { old.len() }];
        for (number, block) in content.chunks_mut(BLOCK).enumerate() {
            let source = if is_new() { new } else { old };
            let part = &source[source.len().min(number * BLOCK)..];
            let part = &part[..part.len().min(block.len())];
            block[..part.len()].copy_from_slice(part);
        }
        let attributes = if is_new() { self } else { older };
        Self { body: Body::File(content), ..attributes.clone() }
    }

    fn is_at(&self, path: &Path) -> bool {
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        let there = Self::new(&found, if found.is_file() { Body::Directory } else { Body::of(path, &found) });
        let same_body = match (&self.body, &there.body) {
            (Body::File(content), _) => found.is_file() && fs::read(path).is_ok_and(|now| now == *content),
            (Body::Directory, _) => return found.is_dir(),
            (Body::Link(target), Body::Link(other)) => target == other,
            (Body::Special { kind, number }, Body::Special { kind: other, number: other_number }) => {
                (kind, number) == (other, other_number)
            }
            _ => false,
        };
        same_body && (self.mode, self.owner, self.mtime) == (there.mode, there.owner, there.mtime)
    }

    fn write(&self, path: &Path) {
        match &self.body {
            Body::Directory => fs::create_dir(path).expect("make a directory"),
            Body::File(content) => fs::write(path, content).expect("write a file"),
            Body::Link(target) => symlink(target, path).expect("make a link"),
            Body::Special { kind, number } => mknodat(CWD, path, *kind, Mode::RUSR, *number).expect("make a node"),
        }
        self.set_attributes(path);
    }

    fn set_attributes(&self, path: &Path) {
        lchown(path, Some(self.owner.0), Some(self.owner.1)).expect("chown");
        if !matches!(self.body, Body::Link(_)) {
            fs::set_permissions(path, Permissions::from_mode(self.mode)).expect("chmod");
        }
        let times = Timestamps { last_access: self.mtime, last_modification: self.mtime };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set the time");
    }
}

impl Body {
    fn of(path: &Path, found: &fs::Metadata) -> Self {
        let kind = found.file_type();
        if kind.is_dir() {
            Body::Directory
        } else if kind.is_symlink() {
            Body::Link(fs::read_link(path).expect("readlink"))
        } else {
            let kind = if kind.is_fifo() { FileType::Fifo } else { FileType::Socket };
            Body::Special { kind, number: found.rdev() }
        }
    }
}

/// A number that has nothing to do with this one to the eye (splitmix64).
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
