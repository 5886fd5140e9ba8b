//! The files of a workload: the sender's, and what the receiver has at first.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::workload::{Kind, Workload};
use crate::support::Tree;
use crate::support::process::run;
use crate::support::tree::MTIME;

/// Files in one directory of a source.
const IN_ONE_DIRECTORY: usize = 100;

/// A file of 1 % changed bytes has as many changed places.
const PLACES: u64 = 100;

const MIB: usize = 1024 * 1024;

pub(super) struct Source {
    directory: TempDir,
    old: Old,
}

/// What the receiver has before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    Nothing,
    /// What the sender has.
    Same,
    /// Something else: what the sender had before.
    Other,
}

impl Source {
    pub(super) fn make(workload: Workload) -> Source {
        let directory = tempfile::Builder::new().prefix("csync2-source-").tempdir().expect("make a directory");
        let (tree, before) = (directory.path().join("tree"), directory.path().join("before"));
        fs::create_dir(&tree).expect("make a directory");
        let size = workload.size;
        let mut random = Random(1);
        let old = match workload.kind {
            Kind::Check | Kind::Huge => {
                write_small(&tree, 0..size, 16, 16, &mut random);
                Old::Nothing
            }
            Kind::Push | Kind::Far => {
                write_small(&tree, 0..size, 1024, 4096, &mut random);
                Old::Nothing
            }
            Kind::Equal => {
                write_small(&tree, 0..size, 1024, 4096, &mut random);
                Old::Same
            }
            Kind::Compare => {
                write_small(&tree, 0..size, 16, 16, &mut random);
                Old::Same
            }
            Kind::New => {
                write_large(&tree.join("large"), size, &mut random);
                Old::Nothing
            }
            Kind::Changed => {
                fs::create_dir(&before).expect("make a directory");
                write_large(&before.join("large"), size, &mut random);
                copy(&before, &tree);
                change(&tree.join("large"), &mut random);
                Old::Other
            }
            Kind::Removals => {
                // Something stays: an empty root looks like a file system that is not mounted.
                write_small(&tree, 0..1, 16, 16, &mut random);
                fs::create_dir(&before).expect("make a directory");
                copy(&tree, &before);
                write_small(&before, 1..size + 1, 16, 16, &mut random);
                Old::Other
            }
            Kind::Start | Kind::Status => Old::Nothing,
        };
        Source { directory, old }
    }

    /// What the sender has.
    pub(super) fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Lets something happen while the sender has what it had before.
    pub(super) fn as_before(&self, work: impl FnOnce()) {
        let (tree, before, aside) = (self.tree(), self.before(), self.directory.path().join("aside"));
        let rename = |from: &Path, to: &Path| fs::rename(from, to).expect("rename a directory");
        rename(&tree, &aside);
        rename(&before, &tree);
        work();
        rename(&tree, &before);
        rename(&aside, &tree);
    }

    fn before(&self) -> PathBuf {
        self.directory.path().join("before")
    }

    /// The receiver has files before.
    pub(super) fn is_known(&self) -> bool {
        self.old != Old::Nothing
    }

    /// Brings a receiver to its beginning.
    pub(super) fn prepare(&self, target: &Path) {
        match self.old {
            Old::Nothing => {}
            Old::Same => copy(&self.tree(), target),
            Old::Other => copy(&self.before(), target),
        }
    }

    /// Names, sizes, modes, times and contents of all files agree.
    pub(super) fn assert_arrived(&self, target: &Path) {
        let list = |directory: &Path| {
            let mut find = Command::new("find");
            find.arg(directory).args(["-type", "f", "-printf", "%P %s %m %Ts\\n"]);
            let text = run(find).success().stdout_text();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let files = list(&self.tree());
        assert!(files == list(target), "{} is no copy of the source", target.display());
        for name in files.iter().filter_map(|line| line.split(' ').next()) {
            assert!(same(&self.tree().join(name), &target.join(name)), "{name} in {} differs", target.display());
        }
    }
}

fn write_small(root: &Path, numbers: std::ops::Range<usize>, least: u64, most: u64, random: &mut Random) {
    for first in numbers.clone().step_by(IN_ONE_DIRECTORY) {
        let mut tree = Tree::new();
        for number in first..numbers.end.min(first + IN_ONE_DIRECTORY) {
            let mut content = vec![0; usize::try_from(least + random.next() % (most - least + 1)).expect("small")];
            random.fill(&mut content);
            tree = tree.with(format!("{:04}/{number:06}", number / IN_ONE_DIRECTORY), content);
        }
        tree.write(root);
    }
}

fn write_large(path: &Path, mebibytes: usize, random: &mut Random) {
    let file = File::create(path).expect("make a large file");
    let mut piece = vec![0; MIB];
    for number in 0..mebibytes {
        random.fill(&mut piece);
        file.write_all_at(&piece, (number * MIB) as u64).expect("write a large file");
    }
    set_time(&file, 0);
}

/// Writes over 1 % of a file, in [`PLACES`] at equal distances, and makes it younger.
fn change(path: &Path, random: &mut Random) {
    let file = File::options().write(true).open(path).expect("open a large file");
    let distance = file.metadata().expect("stat").len() / PLACES;
    let mut piece = vec![0; usize::try_from(distance / 100).expect("small")];
    for place in 0..PLACES {
        random.fill(&mut piece);
        file.write_all_at(&piece, place * distance + distance / 3).expect("write a large file");
    }
    set_time(&file, 1000);
}

fn set_time(file: &File, later: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME.cast_unsigned() + later);
    file.set_modified(time).expect("set a time");
}

/// With all attributes.
pub(super) fn copy(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from.join(".")).arg(to);
    // A slow disk takes minutes.
    assert!(copy.status().expect("start cp").success(), "{copy:?}");
}

fn same(one: &Path, other: &Path) -> bool {
    let open = |path: &Path| File::open(path).expect("open a file");
    let (mut one, mut other) = (open(one), open(other));
    let (mut left, mut right) = (vec![0; MIB], vec![0; MIB]);
    loop {
        let length = one.read(&mut left).expect("read a file");
        if length == 0 {
            return other.read(&mut right).expect("read a file") == 0;
        }
        if other.read_exact(&mut right[..length]).is_err() || left[..length] != right[..length] {
            return false;
        }
    }
}

/// Pseudo-random (xorshift): no two blocks are alike, and the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}
