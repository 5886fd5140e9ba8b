//! Many at work at once on one database, and a database that is restarted under them: none fails because of another, and
//! nothing is lost.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::Node;
use crate::support::process::{Daemon, run};
use crate::support::tree::file;
use crate::support::{Cast, Postgres, Program, Tree, scenarios, tree};

scenarios! { ours:
    a_later_run_waits_for_the_earlier_ones_result
    a_busy_cluster_loses_nothing
}

/// Two runs for one peer: the second waits, and takes over when the first one is killed.
fn a_later_run_waits_for_the_earlier_ones_result(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cr", "/"]).success();
    // It accepts connections and says nothing.
    let silent = TcpListener::bind((beta.host.as_str(), beta.port)).expect("listen");
    let start = |ready| Daemon::start(&alpha.command(alpha.program, ["-uv"]), ready);
    let first = start("Connecting to host");
    let connection = silent.accept().expect("accept");
    let second = start("Waiting for another csync2 that is updating");
    let third = start("Waiting for another csync2 that is updating");
    drop(first);
    let next = silent.accept().expect("one of them takes over");
    drop(silent);
    beta.serve();
    // The peer breaks off: this one fails, the other one delivers.
    drop((connection, next));
    let mut codes = [second.wait(), third.wait()];
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1)]);
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// The server of all databases crashes, or is restarted in good order, while runs and sessions are at work.
#[test]
fn a_postgres_that_is_restarted_in_mid_run_costs_nothing() {
    const FILES: usize = 400;
    let server = Postgres::start_with(&["synchronous_commit = on"]);
    let cluster = Cast::postgres(Program::Ours).cluster(["alpha", "beta", "gamma"]).build();
    for node in cluster.nodes() {
        node.reach_database_at(&server.url(node.name()));
    }
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    cluster.nodes().iter().for_each(Node::serve);
    alpha.csync2(["-x"]).success();
    for (round, mode) in ["immediate", "fast", "immediate", "fast"].into_iter().enumerate() {
        let content = |number: usize| file(&format!("{round}{}", "x".repeat(number)));
        let files = |part: &str| (0..FILES).fold(Tree::new(), |tree, n| tree.with(format!("{part}/{n}"), content(n)));
        alpha.put(&files("pushed"));
        beta.put(&files("checked"));
        let arrived = || {
            let is_new = |n| {
                fs::read_to_string(beta.path(format!("pushed/{n}")))
                    .is_ok_and(|text| text.starts_with(&round.to_string()))
            };
            (0..FILES).filter(|&n| is_new(n)).count()
        };
        let (push, check) = (alpha.command(alpha.program, ["-x"]), beta.command(beta.program, ["-cr", "/"]));
        let (push, check) = (thread::spawn(|| run(push)), thread::spawn(|| run(check)));
        while arrived() < FILES / 8 * round {
            thread::yield_now();
        }
        server.restart(mode);
        for ended in [push, check] {
            let output = ended.join().expect("a run");
            let told = output.stderr_text();
            // What a file had begun to be read from may not be begun anew: that is said, and the next run completes.
            assert!(output.code == Some(0) || told.contains("127.0.0.1"), "{output:?}");
        }
        for node in [alpha, beta] {
            node.csync2(["-x"]).success();
        }
        cluster.expect_agreement();
        for node in cluster.nodes() {
            node.csync2(["-crv", "/"]).success().logs_no("Marking");
            node.expect_clean();
        }
    }
}

/// How long a cluster is kept busy: a soak takes ten minutes.
fn soaking_time() -> Duration {
    let wanted = std::env::var("CSYNC2_SOAK_SECONDS").ok();
    Duration::from_secs(wanted.map_or(8, |seconds| seconds.parse().expect("CSYNC2_SOAK_SECONDS is a number")))
}

const RUNS_AT_ONCE: usize = 8;

/// Files that the writer goes round, and how many it changes in a second.
const NAMES: usize = 600;
const CHANGES: u32 = 50;

/// One host runs `csync2 -x` eight times at once, over and over, while a writer changes its files and four peers push to it.
fn a_busy_cluster_loses_nothing(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma", "delta", "epsilon"]).build();
    let (alpha, peers) = (&cluster["alpha"], &cluster.nodes()[1..]);
    for node in cluster.nodes() {
        for other in cluster.nodes() {
            fs::create_dir_all(node.path(other.name())).expect("make a directory");
        }
        node.csync2(["-cIr", "/"]).success();
        // Without `-v`: it tells of errors alone.
        node.serve_with(&["-ii"]);
    }
    let (is_over, runs) = (AtomicBool::new(false), AtomicUsize::new(0));
    let changes = thread::scope(|scope| {
        let mut loops = Vec::new();
        for node in (0..RUNS_AT_ONCE).map(|_| alpha).chain(peers) {
            let mut command = node.command(node.program, ["-x"]);
            command.stdin(Stdio::null());
            let (is_over, runs) = (&is_over, &runs);
            loops.push(scope.spawn(move || go_on(&mut command, is_over, runs)));
        }
        let until = Instant::now() + soaking_time();
        let writers: Vec<_> = cluster
            .nodes()
            .iter()
            .map(|node| {
                let pace = if node.name() == "alpha" { CHANGES } else { CHANGES / 10 };
                let directory = node.path(node.name());
                scope.spawn(move || write_until(until, &directory, pace))
            })
            .collect();
        let changes: usize = writers.into_iter().map(|writer| writer.join().expect("a writer")).sum();
        is_over.store(true, Ordering::Relaxed);
        for runs in loops {
            runs.join().expect("every run succeeds and says nothing");
        }
        changes
    });
    for node in cluster.nodes() {
        node.csync2(["-x"]).success().silent();
    }
    cluster.expect_agreement();
    for node in cluster.nodes() {
        node.expect_clean();
        said_nothing(node);
    }
    println!("{} changes, {} runs", changes, runs.load(Ordering::Relaxed));
}

fn go_on(command: &mut Command, is_over: &AtomicBool, runs: &AtomicUsize) {
    while !is_over.load(Ordering::Relaxed) {
        let output = command.output().expect("start a run");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{}: {told}", output.status);
        runs.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes, changes, replaces and removes files until then; how often.
fn write_until(until: Instant, directory: &Path, in_a_second: u32) -> usize {
    let pause = Duration::from_secs(1) / in_a_second;
    let mut next = Instant::now();
    for change in 0.. {
        next += pause;
        if next > until {
            return change;
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let path = directory.join((change * 7 % NAMES).to_string());
        let content = format!("{change} ").repeat(change % 50 + 1);
        match change % 10 {
            0 => drop(fs::remove_file(&path)),
            // Whoever looks in between finds a part of it.
            1..=4 => fs::write(&path, content).expect("write a file"),
            _ => {
                let new = directory.with_extension("new");
                fs::write(&new, content).expect("write a file");
                fs::rename(&new, &path).expect("rename");
            }
        }
    }
    unreachable!("changes have no end")
}

/// A daemon that has had nothing to complain of.
fn said_nothing(node: &Node) {
    let daemon = node.take_daemon();
    daemon.signal(rustix::process::Signal::TERM);
    let (code, lines) = daemon.wait_with_log();
    assert_eq!((code, lines.len()), (Some(0), 1), "{} said: {lines:#?}", node.name());
}
