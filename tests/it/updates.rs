//! No update is lost: what changes while a check or a push is at work is found by this run or by the next one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::process::{Daemon, run};
use crate::support::{Cast, Postgres, Program, Table, scenarios, tree};

scenarios! { ours:
    a_directory_that_turns_into_a_link_again_and_again_arrives
    a_directory_that_turns_into_a_link_leads_nobody_outside
    a_file_that_grows_and_shrinks_all_the_time_arrives_as_it_stays
    a_clock_that_jumps_by_years_changes_nothing
}

/// While `work` goes on, a directory is now itself, now a link to another one.
fn while_swapped(directory: &Path, outside: &Path, work: impl FnOnce()) {
    let beside = directory.with_extension("beside");
    symlink(outside, &beside).expect("make a link");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                renameat_with(CWD, directory, CWD, &beside, RenameFlags::EXCHANGE).expect("exchange");
            }
        });
        work();
        is_over.store(true, Ordering::Relaxed);
    });
    if fs::symlink_metadata(directory).expect("lstat").is_symlink() {
        renameat_with(CWD, directory, CWD, &beside, RenameFlags::EXCHANGE).expect("exchange");
    }
    fs::remove_file(beside).expect("remove the link");
}

fn a_directory_that_turns_into_a_link_again_and_again_arrives(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).in_group("exclude *.beside;").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let outside = cluster.directory().join("outside");
    fs::create_dir(&outside).expect("make a directory");
    fs::write(outside.join("f"), "somebody else's").expect("write a file");
    alpha.put(&tree! { "d/f" => "1", "d/g/h" => "22", "i" => "333" });
    alpha.csync2(["-x"]).success();
    for round in 1..=5 {
        let content = "x".repeat(round * 10);
        while_swapped(&alpha.path("d"), &outside, || {
            for name in ["d/g/h", "i"] {
                // Through the link there is no `g`.
                while fs::write(alpha.path(name), &content).is_err() {}
            }
            // What the link has in its way stays dirty, or is sent as it was at that moment.
            drop((alpha.csync2(["-x"]), alpha.csync2(["-x"])));
        });
        alpha.csync2(["-x"]).success();
        cluster.expect_agreement();
        assert_eq!(beta.read("d/g/h"), content);
        alpha.expect_clean();
    }
}

fn a_file_that_grows_and_shrinks_all_the_time_arrives_as_it_stays(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "log" => "begins", "other" => "1" });
    alpha.csync2(["-x"]).success();
    let log = fs::OpenOptions::new().write(true).open(alpha.path("log")).expect("open");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for length in [2 << 20, 100, 40_000] {
                    log.set_len(length).expect("change its length");
                }
            }
        });
        for round in 2..=5 {
            alpha.put(&tree! { "other" => "x".repeat(round) });
            // It may go as it was at a moment, or stay dirty; it is nobody else's trouble.
            let _ = alpha.csync2(["-x"]);
            assert_eq!(beta.read("other"), "x".repeat(round));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
    beta.csync2(["-crv", "/"]).success().logs_no("Marking");
}

/// What libfaketime (Debian's faketime) makes of the wall clock; the times of files and the clock of timers stay true.
fn clock(offset: &str) -> [(&'static str, String); 4] {
    let libraries = fs::read_dir("/usr/lib").expect("read /usr/lib").flatten();
    let mut libraries = libraries.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let library = libraries.find(|path| path.exists()).expect("libfaketime");
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", offset.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}

fn a_clock_that_jumps_by_years_changes_nothing(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    for (round, offset) in (1..).zip(["+10y", "-10y", "+0", "+1d"]) {
        alpha.put(&tree! { "f" => "x".repeat(round), "d/g" => offset });
        let at_that_time = |arguments: [&str; 1]| {
            let mut command = alpha.command(alpha.program, arguments);
            command.envs(clock(offset));
            run(command)
        };
        at_that_time(["-x"]).success();
        cluster.expect_agreement();
        at_that_time(["-xv"]).success().logs_no("Updating").logs_no("Marking");
        alpha.expect_clean();
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
    }
}

fn a_directory_that_turns_into_a_link_leads_nobody_outside(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).in_group("exclude *.beside;").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let outside = cluster.directory().join("outside");
    fs::create_dir_all(outside.join("g")).expect("make a directory");
    for name in ["f", "g/h"] {
        fs::write(outside.join(name), "somebody else's").expect("write a file");
    }
    alpha.put(&tree! { "d/f" => "1", "d/g/h" => "22" });
    alpha.csync2(["-x"]).success();
    while_swapped(&beta.path("d"), &outside, || {
        for round in 1..=5 {
            alpha
                .put(&tree! { "d/f" => "x".repeat(round), "d/g/h" => "y".repeat(round), "d/new" => "z".repeat(round) });
            drop(alpha.csync2(["-x"]));
        }
    });
    let mut left: Vec<_> =
        fs::read_dir(&outside).expect("read it").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["f", "g"]);
    for name in ["f", "g/h"] {
        assert_eq!(fs::read_to_string(outside.join(name)).expect("read it"), "somebody else's");
    }
    // What beta took for its own changes is a conflict, which alpha wins by force.
    alpha.csync2(["-mr", "/"]).success();
    alpha.csync2(["-fr", "/"]).success();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

/// A file that is hinted at while the check of an earlier hint goes on is checked once more.
#[test]
fn a_hint_that_is_given_during_its_check_stays() {
    let cluster = Cast::postgres(Program::Ours).cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let name = alpha.database_name().expect("PostgreSQL");
    alpha.put(&tree! { "f" => "1" });
    let hint = ["-h".to_owned(), alpha.path("f").display().to_string()];
    alpha.csync2(&hint).success();
    let held = Postgres::shared().hold(name, "LOCK TABLE file IN ACCESS EXCLUSIVE MODE");
    let check = Daemon::start(&alpha.command(alpha.program, ["-cvv"]), "Database: ");
    Postgres::shared().wait_for_a_waiter(name);
    alpha.csync2(&hint).success();
    drop(held);
    assert_eq!(check.wait(), Some(0));
    assert_eq!(alpha.rows(Table::Hint).len(), 1);
    alpha.csync2(["-c"]).success();
    assert_eq!(alpha.rows(Table::Hint).len(), 0);
}
