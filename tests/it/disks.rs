//! Disks that are full, read-only or broken, on either side: what cannot be done is said and stays to be done, the rest
//! arrives, and nothing is half there. strace makes calls fail, small file systems of their own run full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults::{as_ordinary_user, hand_over};
use crate::support::cluster::{Cluster, Node};
use crate::support::process::{Daemon, Output, run, wrap};
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, Tree, tree};

/// More options of a push, for each dialect.
const DIALECTS: [&[&str]; 2] = [&["-x"], &["-x", "--no-batches"]];

const READY: &str = "Csync2 daemon running. Waiting for connections.";

fn cluster() -> Cluster {
    Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).build()
}

/// A command some of whose system calls fail: `inject` as strace takes it, below this path or everywhere.
fn failing(command: &Command, inject: &str, path: Option<&Path>) -> Command {
    let inject = format!("inject={inject}");
    let mut strace = vec!["setpriv", "--pdeathsig", "KILL", "strace", "-f", "-o", "/dev/null", "-e", &inject];
    if let Some(path) = path {
        strace.extend(["-P", path.to_str().expect("UTF-8")]);
    }
    wrap(&strace, command)
}

/// A daemon for one session, some of whose calls fail.
fn serving_with(node: &Node, inject: &str, path: Option<&Path>) -> Daemon {
    Daemon::start(&failing(&node.command(node.program, ["-iii", "-v"]), inject, path), READY)
}

/// A push to a server that is there for one session.
fn pushed(cluster: &Cluster, options: &[&str]) -> Output {
    let beta = &cluster["beta"];
    let daemon = Daemon::start(&beta.command(beta.program, ["-iii", "-v"]), READY);
    let output = cluster["alpha"].csync2(options);
    daemon.wait();
    output
}

/// Everything has arrived, and beta has no change of its own.
fn expect_in_step(cluster: &Cluster) {
    let beta = &cluster["beta"];
    beta.csync2(["-crv", "/"]).success().logs_no("Marking");
    cluster.expect_agreement();
    cluster["alpha"].expect_clean();
    beta.expect_clean();
    assert!(beta.rows(Table::Intent).is_empty());
}

/// A file system of its own, gone with this value.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, options: &str) -> Self {
        mount(&["-t", "tmpfs", "-o", options, "csync2-test", at.to_str().expect("UTF-8")]);
        Mounted(at.to_owned())
    }

    fn change(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}"), self.0.to_str().expect("UTF-8")]);
    }

    /// Fills what is left of it.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut filler = fs::File::create(&path).expect("make a file");
        assert!(std::io::copy(&mut std::io::repeat(0), &mut filler).is_err(), "it has no end");
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().expect("mount").success(), "these tests run as root");
}

/// The files are in place, and nobody knows whether they are on disk: they count as received when that is certain.
#[test]
fn a_directory_that_cannot_be_flushed_makes_no_change_of_ones_own() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        alpha.put(&tree! { "d/f" => "1", "d/g" => "22", "d/gone" => "goes" });
        pushed(&cluster, options).success();
        alpha.put(&tree! { "d/f" => "changed", "d/new" => "4444", "e" => "elsewhere" });
        alpha.remove("d/gone");
        let directory = beta.path("d");
        let daemon = serving_with(beta, "fsync:error=EIO", Some(&directory));
        alpha.csync2(options).exits(1);
        let (_, log) = daemon.wait_with_log();
        assert!(
            log.iter().any(|line| line.contains("cannot be made durable") && line.contains("Input/output")),
            "{log:?}"
        );
        assert!(alpha.rows(Table::Dirty).iter().any(|row| row.starts_with("%25d%25/d/")));
        assert!(!beta.rows(Table::Intent).is_empty());

        // As long as it fails the intents stay, and nothing is marked.
        let check = failing(&beta.command(beta.program, ["-cr", "/"]), "fsync:error=EIO", Some(&directory));
        run(check).exits(1).logs("cannot be made durable");
        assert!(!beta.rows(Table::Intent).is_empty());
        beta.expect_clean();
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
        assert!(beta.rows(Table::Intent).is_empty());
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

/// A content that the disk does not take replaces nothing.
#[test]
fn a_content_that_cannot_be_flushed_replaces_nothing() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        alpha.put(&tree! { "f" => "old" });
        pushed(&cluster, options).success();
        alpha.put(&tree! { "f" => "the new one", "g" => "new as well" });
        let call = if options.len() == 1 { "fsync" } else { "fdatasync" };
        let daemon = serving_with(beta, &format!("{call}:error=EIO"), None);
        alpha.csync2(options).exits(1);
        daemon.wait();
        assert_eq!(beta.tree().len(), 2, "the directory and the file");
        assert_eq!(beta.read("f"), "old");
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

#[test]
fn what_does_not_fit_on_the_disk_stays_behind_and_the_rest_arrives() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        let disk = Mounted::new(beta.tree_dir(), "size=4m,mode=755");
        let few = (0..30).fold(tree! { "large" => "old" }, |tree, number| tree.with(format!("f{number}"), "content"));
        alpha.put(&few);
        pushed(&cluster, options).success();
        let more = (0..30).fold(tree! { "large" => "x".repeat(6 << 20) }, |tree, number| {
            tree.with(format!("f{number}"), "another content")
        });
        alpha.put(&more);
        pushed(&cluster, options).exits(1).logs("%d%/large").logs("No space left on device");
        assert_eq!(beta.read("large"), "old");
        assert!((0..30).all(|number| beta.read(&format!("f{number}")) == "another content"));
        let dirty = alpha.rows(Table::Dirty);
        assert!(dirty.len() == 1 && dirty[0].starts_with("%25d%25/large\t"), "{dirty:?}");
        assert_eq!(beta.tree().len(), 32, "nothing is left beside");
        disk.change("size=64m");
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

#[test]
fn a_read_only_disk_changes_nothing() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        let disk = Mounted::new(beta.tree_dir(), "size=4m,mode=755");
        alpha.put(&tree! { "f" => "old", "gone" => "goes" });
        pushed(&cluster, options).success();
        let before = beta.tree();
        alpha.put(&tree! { "f" => "the new one", "d/new" => "new" });
        alpha.remove("gone");
        disk.change("ro");
        pushed(&cluster, options).exits(1).logs("%d%/f").logs("Read-only file system");
        crate::support::assert_same(&before, &beta.tree());
        disk.change("rw");
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

#[test]
fn a_server_whose_database_is_full_loses_nothing() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        let disk = Mounted::new(&beta.base().join("db"), "size=32m,mode=755");
        let files = |content: &str| {
            (0..200)
                .fold(Tree::new(), |tree, number| tree.with(format!("f{number}"), file(&content.repeat(number + 1))))
        };
        alpha.put(&files("o"));
        pushed(&cluster, options).success();
        alpha.put(&files("new"));
        let filler = disk.fill();
        pushed(&cluster, options).exits(1);
        assert!(beta.tree().iter().all(|(name, _)| !name.starts_with(b".f")), "nothing is left beside");
        fs::remove_file(filler).expect("make room");
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

#[test]
fn a_client_whose_database_is_full_forgets_nothing() {
    for options in DIALECTS {
        let cluster = cluster();
        let alpha = &cluster["alpha"];
        let disk = Mounted::new(&alpha.base().join("db"), "size=32m,mode=755");
        let files = |content: &str| {
            (0..200)
                .fold(Tree::new(), |tree, number| tree.with(format!("f{number}"), file(&content.repeat(number + 1))))
        };
        alpha.put(&files("o"));
        pushed(&cluster, options).success();
        alpha.put(&files("new"));
        let filler = disk.fill();
        // Whether it comes as far as the peer or not.
        let beta = &cluster["beta"];
        let daemon = Daemon::start(&beta.command(beta.program, ["-ii", "-v"]), READY);
        alpha.csync2(options).exits(1).logs(".db3").logs("full");
        drop(daemon);
        fs::remove_file(filler).expect("make room");
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

/// Of thousands that an ordinary user sends it may read all but one.
#[test]
fn one_file_that_cannot_be_read_keeps_no_other_back() {
    const FILES: usize = 3_000;
    let cluster = cluster();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&(0..FILES).fold(Tree::new(), |tree, number| tree.with(format!("d/f{number}"), "content")));
    cluster.nodes().iter().for_each(hand_over);
    fs::set_permissions(alpha.path("d/f1500"), fs::Permissions::from_mode(0o000)).expect("chmod");
    let daemon = Daemon::start(&beta.command(beta.program, ["-iii", "-v"]), READY);
    as_ordinary_user(alpha, &["-x"]).exits(1).logs("%d%/d/f1500").logs("Permission denied");
    daemon.wait();
    assert_eq!(fs::read_dir(beta.path("d")).expect("read the directory").count(), FILES - 1);
    assert_eq!(alpha.rows(Table::Dirty).iter().filter(|row| !row.starts_with("%25d%25/d\t")).count(), 1);
    fs::set_permissions(alpha.path("d/f1500"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let daemon = Daemon::start(&beta.command(beta.program, ["-iii", "-v"]), READY);
    as_ordinary_user(alpha, &["-x"]).success();
    daemon.wait();
    expect_in_step(&cluster);
}

/// The server is an ordinary user that may not write in one directory of many.
#[test]
fn one_directory_that_cannot_be_written_keeps_no_other_back() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        let files = |content: &str| {
            (0..300).fold(Tree::new(), |tree, number| tree.with(format!("d{}/f{number}", number % 10), content))
        };
        alpha.put(&files("old"));
        cluster.nodes().iter().for_each(hand_over);
        let serve = || {
            let ids = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
            Daemon::start(&wrap(&ids, &beta.command(beta.program, ["-iii", "-v"])), READY)
        };
        let push = |daemon: Daemon| {
            let output = as_ordinary_user(alpha, options);
            daemon.wait();
            output
        };
        push(serve()).success();
        alpha.put(&files("another"));
        hand_over(alpha);
        let closed = |mode| fs::set_permissions(beta.path("d7"), fs::Permissions::from_mode(mode)).expect("chmod");
        closed(0o555);
        beta.csync2(["-cIr", "/"]).success();
        push(serve()).exits(1).logs("%d%/d7/f7:").logs("Permission denied");
        let arrived = (0..300).filter(|number| beta.read(&format!("d{}/f{number}", number % 10)) == "another").count();
        assert_eq!(arrived, 270);
        closed(0o755);
        beta.csync2(["-cIr", "/"]).success();
        push(serve()).success();
        expect_in_step(&cluster);
    }
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_is_named_and_the_rest_arrives() {
    for options in DIALECTS {
        let cluster = cluster();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        alpha.put(&tree! { "bad" => "x".repeat(300_000), "good" => "y".repeat(300_000) });
        let daemon = Daemon::start(&beta.command(beta.program, ["-iii", "-v"]), READY);
        let push = failing(&alpha.command(alpha.program, options), "read:error=EIO:when=2+", Some(&alpha.path("bad")));
        run(push).exits(1).logs("%d%/bad").logs("Input/output error");
        daemon.wait();
        beta.expect(tree! { "good" => "y".repeat(300_000) });
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

/// Clocks that were wrong leave times in the future or before all time: they arrive as any other, once.
#[test]
fn times_far_away_are_times_like_any_other() {
    for options in DIALECTS {
        let cluster = cluster();
        let alpha = &cluster["alpha"];
        let (future, past) = (4_102_444_800, -1_000_000_000);
        alpha.put(&tree! { "f" => file("1").mtime(future), "g" => file("22").mtime(past) });
        pushed(&cluster, options).success();
        alpha.csync2(["-crv", "/"]).success().logs_no("Marking");
        expect_in_step(&cluster);
        alpha.put(&tree! { "f" => file("1").mtime(past), "g" => file("22").mtime(future) });
        pushed(&cluster, options).success();
        expect_in_step(&cluster);
    }
}

/// Something else is mounted where the files were, or nothing any more.
#[test]
fn another_device_in_the_place_of_an_include_removes_nothing() {
    let cluster = cluster();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "1", "d/g" => "22" });
    pushed(&cluster, &["-x"]).success();
    let other = Mounted::new(alpha.tree_dir(), "size=1m,mode=755");
    alpha.csync2(["-cr", "/"]).exits(1).logs("--allow-mass-removal");
    alpha.expect_clean();
    drop(other);
    alpha.csync2(["-crv", "/"]).success().logs_no("Marking");
    assert_eq!(beta.read("d/g"), "22");
    expect_in_step(&cluster);
}
