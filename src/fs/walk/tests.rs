use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::Root;
use super::super::testing::{chmod, unprivileged};
use super::*;

type Action = Box<dyn FnMut() + Send>;

/// Notes what it is told, relative to `top`.
#[derive(Default)]
struct Notes {
    top: PathBuf,
    seen: Vec<String>,
    failures: Vec<(String, &'static str, io::ErrorKind)>,
    /// Names that are not wanted.
    unwanted: Vec<&'static str>,
    /// Called before an entry is answered.
    at: Vec<(&'static str, Action)>,
}

impl Notes {
    fn of(top: &Path) -> Self {
        Self { top: top.to_owned(), ..Self::default() }
    }

    fn walk(mut self) -> Self {
        let top = self.top.clone();
        walk(&top, std::slice::from_mut(&mut self));
        self
    }

    fn relative(&self, path: &[u8]) -> String {
        let below = path.strip_prefix(self.top.as_os_str().as_bytes()).unwrap();
        String::from_utf8_lossy(below).into_owned()
    }
}

impl Visitor for Notes {
    type Directory = ();

    fn wants(&mut self, entry: &Entry<'_, ()>, kind_hint: KindHint) -> bool {
        let path = self.relative(entry.path);
        assert!(path.ends_with(&*String::from_utf8_lossy(entry.name)) || entry.inside.is_none());
        assert!(!path.ends_with("/d") || kind_hint != KindHint::Other);
        !self.unwanted.iter().any(|name| path.ends_with(name))
    }

    fn entry(&mut self, entry: &Entry<'_, ()>, _: Metadata) -> Option<()> {
        let path = self.relative(entry.path);
        for (name, action) in &mut self.at {
            if path == *name {
                action();
            }
        }
        self.seen.push(path);
        Some(())
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        self.failures.push((self.relative(path), operation, error.kind()));
    }
}

#[test]
fn entries_come_in_the_order_of_their_bytes_and_links_are_entries() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("d/d")).unwrap();
    for name in ["d/d/x", "d.x", "B", "a", "d/ü", "d/\u{1}"] {
        fs::write(path(name), "").unwrap();
    }
    fs::write(path("").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    symlink("d", path("c")).unwrap();
    let notes = Notes::of(directory.path()).walk();
    let expected = ["", "/B", "/a", "/c", "/d", "/d/\u{1}", "/d/d", "/d/d/x", "/d/ü", "/d.x", "/\u{fffd}"];
    assert_eq!(notes.seen, expected);
    assert!(notes.failures.is_empty());
    let unwanted = vec!["/d", "/a"];
    assert_eq!(Notes { unwanted, ..Notes::of(directory.path()) }.walk().seen, ["", "/B", "/c", "/d.x", "/\u{fffd}"]);
}

#[test]
fn the_starting_name_may_be_anything() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    symlink("/", directory.path().join("link")).unwrap();
    for name in ["file", "link"] {
        assert_eq!(Notes::of(&directory.path().join(name)).walk().seen, [""]);
    }
    for name in ["none", "none/x", "file/x"] {
        let notes = Notes::of(&directory.path().join(name)).walk();
        assert!(notes.seen.is_empty() && notes.failures.is_empty());
    }
}

#[test]
fn the_root_of_the_file_system_has_a_single_slash() {
    let mut entries = FirstEntries::default();
    walk(Path::new("/"), std::slice::from_mut(&mut entries));
    assert_eq!(entries.0[0], b"/");
    assert!(entries.0.contains(&b"/usr".to_vec()));
}

/// Does not go below the starting name.
#[derive(Default)]
struct FirstEntries(Vec<Vec<u8>>);

impl Visitor for FirstEntries {
    type Directory = ();

    fn wants(&mut self, entry: &Entry<'_, ()>, _: KindHint) -> bool {
        self.0.push(entry.path.to_vec());
        entry.path == b"/"
    }

    fn entry(&mut self, _: &Entry<'_, ()>, _: Metadata) -> Option<()> {
        Some(())
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        panic!("{operation} {path:?}: {error}");
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    chmod(directory.path(), 0o755);
    for (name, mode) in [("closed", 0o711), ("locked", 0o644), ("open", 0o755)] {
        fs::create_dir(directory.path().join(name)).unwrap();
        fs::write(directory.path().join(name).join("file"), "").unwrap();
        chmod(&directory.path().join(name), mode);
    }
    unprivileged(|| {
        let notes = Notes::of(directory.path()).walk();
        assert_eq!(notes.seen, ["", "/closed", "/locked", "/open", "/open/file"]);
        let denied = io::ErrorKind::PermissionDenied;
        assert_eq!(notes.failures, [("/closed".into(), "open", denied), ("/locked/file".into(), "stat", denied)]);
        let below = Notes::of(&directory.path().join("locked/file")).walk();
        assert_eq!(below.failures, [(String::new(), "stat", denied)]);
    });
}

#[test]
fn a_directory_that_becomes_a_symlink_is_told_and_one_that_vanishes_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["swapped/inside", "vanishing"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::create_dir_all(path("outside/secret")).unwrap();
    let (swapped, vanishing, outside) = (path("swapped"), path("vanishing"), path("outside"));
    let swap = move || {
        fs::remove_dir_all(&swapped).unwrap();
        symlink(&outside, &swapped).unwrap();
    };
    let mut notes = Notes::of(directory.path());
    notes.at.push(("/swapped", Box::new(swap)));
    notes.at.push(("/vanishing", Box::new(move || fs::remove_dir(&vanishing).unwrap())));
    let notes = notes.walk();
    assert_eq!(notes.seen, ["", "/outside", "/outside/secret", "/swapped", "/vanishing"]);
    assert_eq!(notes.failures, [("/swapped".into(), "open", io::ErrorKind::NotADirectory)]);
}

/// A chain of directories `name` with a FIFO `z` in each; returns the deepest one's path below `top`.
fn chain(top: &Path, name: &str, depth: usize) -> String {
    let root = Root::open(top).unwrap();
    let mut path = String::new();
    for _ in 0..depth {
        path.push_str(name);
        root.locate(path.as_bytes()).unwrap().make_directory(0o700).unwrap();
        path.push('/');
        root.locate(format!("{path}z").as_bytes()).unwrap().make_fifo().unwrap();
    }
    format!("/{}", path.trim_end_matches('/'))
}

#[test]
fn trees_may_be_deeper_than_a_path_is_long_and_than_directories_stay_open() {
    let directory = tempfile::tempdir().unwrap();
    let (name, depth) = ("d".repeat(100), OPEN_LEVELS * 3);
    let deepest = chain(directory.path(), &name, depth);
    assert!(deepest.len() > 4 * 4096);
    let notes = Notes::of(directory.path()).walk();
    assert!(notes.failures.is_empty());
    assert_eq!(notes.seen.len(), 1 + 2 * depth);
    assert_eq!(notes.seen[depth], deepest);
    assert_eq!(notes.seen[depth + 1], format!("{deepest}/z"));
    assert_eq!(notes.seen.last().unwrap(), &format!("/{name}/z"));
}

#[test]
fn a_way_back_that_is_lost_is_told_for_every_directory_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    fs::create_dir(&top).unwrap();
    let deepest: &'static str = chain(&top, "d", 100).leak();
    let (from, to) = (top.join("d/d/d"), directory.path().join("elsewhere"));
    let mut notes = Notes::of(&top);
    notes.at.push((deepest, Box::new(move || fs::rename(&from, &to).unwrap())));
    let notes = notes.walk();
    let told: Vec<_> = notes.failures.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(told, ["/d/d", "/d"], "their z was not looked at");
    assert_eq!(notes.seen.iter().filter(|path| path.ends_with("/z")).count(), 98);
}

/// Counts its entries; may refuse to go on.
#[derive(Default)]
struct Walkers {
    notes: Notes,
    panics_at: Option<&'static str>,
}

impl Visitor for Walkers {
    /// The path of the directory.
    type Directory = Vec<u8>;

    fn wants(&mut self, entry: &Entry<'_, Vec<u8>>, _: KindHint) -> bool {
        if let Some(directory) = entry.inside {
            assert_eq!([directory, &b"/"[..], entry.name].concat(), entry.path);
        }
        true
    }

    fn entry(&mut self, entry: &Entry<'_, Vec<u8>>, _: Metadata) -> Option<Vec<u8>> {
        let path = self.notes.relative(entry.path);
        assert!(self.panics_at.is_none_or(|name| !path.ends_with(name)), "as told");
        self.notes.seen.push(path);
        Some(entry.path.to_vec())
    }

    fn left(&mut self, _: Vec<u8>) {
        panic!("nobody knows when all have left");
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        self.notes.failed(path, operation, error);
    }
}

/// What each of several visitors has seen.
fn walk_together(top: &Path, visitors: usize) -> Vec<Notes> {
    let mut walkers: Vec<Walkers> = (0..visitors).map(|_| Walkers { notes: Notes::of(top), panics_at: None }).collect();
    walk(top, &mut walkers);
    walkers.into_iter().map(|walker| walker.notes).collect()
}

/// A tree: names of few bytes, so that directories fill up, each with what is in it (`None`: a file).
#[derive(Debug, Clone)]
struct Grown(BTreeMap<String, Option<Grown>>);

fn tree() -> impl Strategy<Value = Grown> {
    let leaf = prop::collection::btree_map("[a-d.]{1,3}x", Just(None), 0..100).prop_map(Grown);
    leaf.prop_recursive(4, 400, 8, |inner| {
        prop::collection::btree_map("[a-d.]{1,3}x", prop::option::of(inner), 0..12).prop_map(Grown)
    })
}

fn grow(directory: &Path, tree: &Grown) {
    for (name, below) in &tree.0 {
        let path = directory.join(name);
        match below {
            None => fs::write(path, "").unwrap(),
            Some(below) => {
                fs::create_dir(&path).unwrap();
                grow(&path, below);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn several_see_together_what_one_sees_alone(tree in tree(), visitors in 2usize..5) {
        let directory = tempfile::tempdir().unwrap();
        grow(directory.path(), &tree);
        let alone = Notes::of(directory.path()).walk();
        let together = walk_together(directory.path(), visitors);
        prop_assert!(together.iter().all(|notes| notes.failures.is_empty()));
        let mut seen: Vec<String> = together.into_iter().flat_map(|notes| notes.seen).collect();
        seen.sort_unstable();
        let mut expected = alone.seen;
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn one_directory_is_shared_by_those_who_have_nothing_to_do() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..5_000 {
        fs::write(directory.path().join(number.to_string()), "").unwrap();
    }
    // When the others begin is up to the system.
    while walk_together(directory.path(), 3).iter().filter(|notes| !notes.seen.is_empty()).count() < 2 {}
}

#[test]
fn several_find_their_way_in_deep_trees_too() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        chain(directory.path(), &name.repeat(100), OPEN_LEVELS * 2);
    }
    let alone = Notes::of(directory.path()).walk();
    let together = walk_together(directory.path(), 3);
    assert!(together.iter().all(|notes| notes.failures.is_empty()));
    assert_eq!(together.iter().map(|notes| notes.seen.len()).sum::<usize>(), alone.seen.len());
}

#[test]
fn a_visitor_that_panics_takes_the_walk_with_it() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..500 {
        fs::write(directory.path().join(number.to_string()), "").unwrap();
    }
    let walker = |_| Walkers { notes: Notes::of(directory.path()), panics_at: Some("/77") };
    let mut walkers: Vec<Walkers> = (0..3).map(walker).collect();
    assert!(catch_unwind(AssertUnwindSafe(|| walk(directory.path(), &mut walkers))).is_err());
}
