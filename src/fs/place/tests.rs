//! Every operation at a place, with symlinks, other links and missing permissions in the way.

use super::*;
use crate::fs::testing::{chmod, mode_of, names_in, unprivileged};
use crate::fs::{BeneathError, Resolver, Root};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

fn place(directory: &tempfile::TempDir, name: &str) -> Place {
    Root::open(directory.path()).unwrap().locate(name.as_bytes()).unwrap()
}

#[test]
fn everything_but_sockets_can_be_made_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    place(&directory, "d").make_directory(0o1755).unwrap();
    place(&directory, "fifo").make_fifo().unwrap();
    place(&directory, "link").make_symlink(b"no \xff where").unwrap();
    assert_eq!(place(&directory, "null").make_device(DeviceKind::Char, 0x103).is_ok(), is_root);
    assert_eq!(place(&directory, "disk").make_device(DeviceKind::Block, 0xfd00_0001).is_ok(), is_root);
    let kind = |name| place(&directory, name).metadata().unwrap().map(|found| found.kind);
    assert_eq!(kind("d"), Some(FileKind::Directory));
    assert_eq!(mode_of(&directory.path().join("d")), 0o1755, "whatever the umask");
    assert_eq!(kind("fifo"), Some(FileKind::Fifo));
    assert_eq!(kind("link"), Some(FileKind::Symlink { target: b"no \xff where".to_vec() }));
    assert_eq!(kind("null"), is_root.then_some(FileKind::CharDevice { device: 0x103 }));
    assert_eq!(kind("disk"), is_root.then_some(FileKind::BlockDevice { device: 0xfd00_0001 }));
    assert_eq!(place(&directory, "fifo").make_fifo().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    for name in ["d", "fifo", "link", "null", "disk", "never there"] {
        place(&directory, name).remove().unwrap();
    }
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn an_existing_directory_is_fine_and_a_full_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let d = place(&directory, "d");
    d.make_directory(0o750).unwrap();
    d.make_directory(0o700).unwrap();
    assert_eq!(mode_of(&directory.path().join("d")), 0o750);
    fs::write(directory.path().join("d/b"), "").unwrap();
    fs::write(directory.path().join("d/a"), "").unwrap();
    assert_eq!(d.remove().unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    d.clear_the_way();
    assert_eq!(d.entries().unwrap(), [b"a", b"b"]);
    d.sync_directory().unwrap();
    assert_eq!(place(&directory, "d/a").make_directory(0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn only_regular_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "content").unwrap();
    symlink("file", directory.path().join("link")).unwrap();
    place(&directory, "fifo").make_fifo().unwrap();
    let mut text = String::new();
    place(&directory, "file").open_regular().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    for name in ["link", "fifo", ""] {
        assert_eq!(place(&directory, name).open_regular().unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
    }
    assert_eq!(place(&directory, "none").open_regular().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn changes_reach_a_symlink_and_never_its_target() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::create_dir(&target).unwrap();
    let before = meta::metadata(&target).unwrap();
    symlink("target", directory.path().join("link")).unwrap();
    let link = place(&directory, "link");
    assert_eq!(link.set_mode(0o777).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    link.set_times(Timestamp { seconds: -1, nanoseconds: 500 }).unwrap();
    assert_eq!(link.metadata().unwrap().unwrap().mtime, Timestamp { seconds: -1, nanoseconds: 500 });
    if rustix::process::geteuid().is_root() {
        link.set_owner(Some(12), Some(34)).unwrap();
        let owned = link.metadata().unwrap().unwrap();
        assert_eq!((owned.uid, owned.gid), (12, 34));
    }
    assert!(link.entries().is_err());
    assert!(link.make_directory(0o777).is_err());
    assert_eq!(meta::metadata(&target).unwrap(), before);
}

#[test]
fn modes_are_set_on_every_kind_of_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    place(&directory, "d").make_directory(0o700).unwrap();
    place(&directory, "fifo").make_fifo().unwrap();
    for (name, mode) in [("file", 0o104_755), ("d", 0o43_770), ("fifo", 0o10_620)] {
        let place = place(&directory, name);
        place.set_mode(mode).unwrap();
        assert_eq!(place.metadata().unwrap().unwrap().mode, mode);
    }
    for name in ["file", "d"] {
        place(&directory, name).set_mode_by_opening(0o711).unwrap();
        assert_eq!(mode_of(&directory.path().join(name)), 0o711);
    }
    assert!(place(&directory, "fifo").set_mode_by_opening(0o711).is_err());
}

#[test]
fn the_owner_it_has_is_set_without_touching_the_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let file = place(&directory, "file");
    file.set_mode(0o4755).unwrap();
    let before = file.metadata().unwrap().unwrap();
    file.set_owner(Some(before.uid), Some(before.gid)).unwrap();
    file.set_owner(None, None).unwrap();
    assert_eq!(file.metadata().unwrap().unwrap(), before);
    assert_eq!(file.set_owner(Some(u32::MAX), None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(place(&directory, "none").set_owner(None, None).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_copy_takes_the_place_of_its_original_and_not_of_its_other_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "content").unwrap();
    fs::hard_link(path("file"), path("other")).unwrap();
    let this = place(&directory, "file");
    this.set_mode(0o640).unwrap();
    this.set_times(Timestamp { seconds: 1_000_000_000, nanoseconds: 7 }).unwrap();
    let before = this.metadata().unwrap().unwrap();
    let mut copy = this.temp(None).unwrap();
    assert!(copy.copy_from(&this.open_regular().unwrap()).unwrap().is_empty());
    copy.persist(&this).unwrap();
    let after = this.metadata().unwrap().unwrap();
    assert_ne!(after.inode, before.inode);
    let kept = |found: &Metadata| (found.kind.clone(), found.mode, found.uid, found.gid, found.mtime);
    assert_eq!(kept(&after), kept(&before));
    assert_eq!(fs::metadata(path("other")).unwrap().ino(), before.inode);
    assert_eq!(fs::read_to_string(path("file")).unwrap(), "content");
    assert_eq!(names_in(directory.path()), ["file", "other"]);
}

#[test]
fn what_is_made_beside_takes_a_place_in_one_step() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("name"), "content").unwrap();
    let this = place(&directory, "name");
    let beside = this.beside().unwrap();
    assert!(beside.file_name().starts_with(b".name."));
    assert!(beside.move_over(&this).is_err(), "nothing is there");
    beside.make_symlink(b"target").unwrap();
    beside.move_over(&this).unwrap();
    assert_eq!(fs::read_link(directory.path().join("name")).unwrap().as_os_str(), "target");
    assert_eq!(names_in(directory.path()), ["name"]);
}

#[test]
fn what_may_not_be_seen_is_an_error_and_not_an_absence() {
    let directory = tempfile::tempdir().unwrap();
    chmod(directory.path(), 0o755);
    fs::create_dir(directory.path().join("closed")).unwrap();
    fs::write(directory.path().join("closed/file"), "").unwrap();
    chmod(&directory.path().join("closed"), 0);
    unprivileged(|| {
        // A handle to the directory can be had; what is in it cannot.
        let error = place(&directory, "closed/file").metadata().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let error = Root::open(directory.path()).unwrap().locate(b"closed/d/x").unwrap_err();
        assert!(matches!(error, BeneathError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied));
        assert!(place(&directory, "closed").set_mode(0o777).is_err());
    });
    chmod(&directory.path().join("closed"), 0o700);
}

/// While a directory turns into a symlink and back as fast as it can, nothing is changed where the link leads.
#[test]
fn nothing_gets_outside_however_directories_are_swapped() {
    for resolver in [Resolver::Openat2, Resolver::Components] {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        let root = directory.path().join("root");
        fs::create_dir_all(outside.join("d")).unwrap();
        fs::write(outside.join("old"), "old").unwrap();
        chmod(&outside.join("old"), 0o600);
        fs::create_dir_all(root.join("dir/d")).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let before = meta::metadata(&outside).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, root.join("dir"), CWD, root.join("link"), exchange).unwrap();
                }
            });
            let root = Root::open_with(&root, resolver).unwrap();
            let work = || {
                // As long as it takes to have met both often.
                let (mut directories, mut links) = (0, 0);
                while directories < 300 || links < 300 {
                    assert!(directories < 20_000 && links < 1_000_000, "{directories} directories, {links} links");
                    let new = match root.locate(b"dir/new") {
                        Ok(new) => new,
                        Err(error) => {
                            assert!(matches!(error, BeneathError::BehindSymlink));
                            links += 1;
                            continue;
                        }
                    };
                    directories += 1;
                    let mut temp = new.temp(None).unwrap();
                    temp.file().write_all(b"new").unwrap();
                    temp.persist(&new).unwrap();
                    if let Ok(old) = root.locate(b"dir/old") {
                        let _ =
                            (old.set_mode(0o777), old.set_times(Timestamp::default()), old.set_owner(Some(7), None));
                        old.clear_the_way();
                    }
                    if let Ok(below) = root.locate(b"dir/d/below") {
                        let _ = (below.make_directory(0o700), below.remove());
                    }
                    // The name itself may be the link just now.
                    if let Ok(itself) = root.locate(b"dir") {
                        let _ = (itself.set_mode(0o755), itself.set_times(Timestamp::default()), itself.entries());
                        assert!(itself.open_regular().is_err());
                    }
                }
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            stop.store(true, Ordering::Relaxed);
            result.unwrap();
        });
        assert_eq!(meta::metadata(&outside).unwrap(), before);
        assert_eq!(names_in(&outside), ["d", "old"]);
        assert!(names_in(&outside.join("d")).is_empty());
        assert_eq!((mode_of(&outside.join("old")), fs::read(outside.join("old")).unwrap()), (0o600, b"old".to_vec()));
    }
}
