//! SIGTERM and SIGINT: a run ends after the file in hand, a daemon after its sessions; what is left stays dirty and is told.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::cluster::Node;
use crate::support::cutting::{Cut, Line};
use crate::support::process::Daemon;
use crate::support::session::Session;
use crate::support::tree::file;
use crate::support::{Cast, Postgres, Program, Table, Tree, scenarios, tree};

scenarios! { ours:
    a_push_ends_after_what_is_in_hand
    a_daemon_ends_after_its_sessions
    a_session_ends_after_the_file_in_hand
}

/// A run of `-v`, once it has logged this.
fn running(node: &Node, arguments: &[&str], when: &str) -> Daemon {
    Daemon::start(&node.command(node.program, arguments), when)
}

/// How it ended, with all that it has logged.
fn end(run: Daemon) -> (Option<i32>, String) {
    let (code, lines) = run.wait_with_log();
    (code, lines.join("\n"))
}

fn a_push_ends_after_what_is_in_hand(cast: Cast) {
    // In batches 2,000 are in hand at a time.
    for (words, signal, number, bytes) in
        [("", Signal::TERM, 4_500, 260_000), ("batches no;", Signal::INT, 500, 80_000)]
    {
        let cluster = cast.cluster(["alpha", "beta"]).top(words).build();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        let at = |port| SocketAddr::new(beta.host.parse().expect("an address"), port);
        let free = TcpListener::bind(at(0)).and_then(|listener| listener.local_addr()).expect("a free port").port();
        beta.serve_with(&["-ii", "-v", "-p", &free.to_string()]);
        let line = Line::between(at(beta.port), at(free));
        let files = (0..number).fold(Tree::new(), |tree, number| tree.with(format!("f{number}"), file("content")));
        alpha.put(&files);
        alpha.csync2(["-cr", "/"]).success();
        // The peer hears no more when it has some of them, until the run knows that it is to end.
        line.cut_next(Some(Cut::Hold(bytes)));
        let push = running(alpha, &["-uvv"], "Connecting to host");
        let arrived = || fs::read_dir(beta.tree_dir()).expect("read the tree").count();
        while arrived() < 20 {
            std::thread::yield_now();
        }
        push.signal(signal);
        push.wait_for("ending after what is in hand");
        line.release();
        let (code, log) = end(push);
        let left = alpha.rows(Table::Dirty).len();
        assert_eq!(code, Some(1), "{log}");
        assert!(left > 0 && left < number, "{left} files are left");
        assert!(log.contains("stopped by a signal before the end."), "{log}");
        assert!(log.contains(&format!("Dirty so far: {left} for {}.", beta.host)), "{log}");
        // All that the peer has is known to have arrived.
        assert_eq!(arrived() + left, number + 1, "the directory itself is dirty until its time is set");
        alpha.csync2(["-x"]).success();
        cluster.expect_agreement();
        alpha.expect_clean();
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
    }
}

/// A check that waits for its database is stopped, and goes on then: what it does not come to is not taken for removed.
#[test]
fn a_check_that_is_stopped_takes_nothing_for_removed() {
    let cluster = Cast::postgres(Program::Ours).cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let name = alpha.database_name().expect("PostgreSQL");
    alpha.put(&tree! { "gone" => "1", "stays" => "22" });
    alpha.csync2(["-cIr", "/"]).success();
    alpha.remove("gone");
    for signals in [1, 2] {
        let held = Postgres::shared().hold(name, "LOCK TABLE file IN ACCESS EXCLUSIVE MODE");
        let check = running(alpha, &["-crvv", "/"], "Database: ");
        Postgres::shared().wait_for_a_waiter(name);
        check.signal(Signal::TERM);
        check.wait_for("ending after what is in hand");
        if signals == 2 {
            check.signal(Signal::TERM);
            assert_eq!(check.wait(), Some(128 + 15), "once more, and it ends at once");
            drop(held);
        } else {
            drop(held);
            let (code, log) = end(check);
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("stopped by a signal before the end. Dirty so far: nothing."), "{log}");
        }
        alpha.expect_clean();
    }
    alpha.csync2(["-cr", "/"]).success();
    let dirty = alpha.rows(Table::Dirty);
    assert!(dirty.iter().any(|row| row.contains("gone")), "{dirty:?}");
}

/// The same for a comparison, which goes on with the next run.
#[test]
fn a_comparison_that_is_stopped_says_so() {
    let cluster = Cast::postgres(Program::Ours).cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    let name = alpha.database_name().expect("PostgreSQL");
    alpha.put(&tree! { "f" => "1", "d/g" => "22" });
    alpha.csync2(["-x"]).success();
    let held = Postgres::shared().hold(name, "LOCK TABLE file IN ACCESS EXCLUSIVE MODE");
    let comparison = running(alpha, &["-Tvv"], "Database: ");
    Postgres::shared().wait_for_a_waiter(name);
    comparison.signal(Signal::TERM);
    comparison.wait_for("ending after what is in hand");
    drop(held);
    let (code, log) = end(comparison);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("stopped by a signal before the end."), "{log}");
    alpha.csync2(["-T"]).prints("").exits(2);
}

fn a_daemon_ends_after_its_sessions(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let idle = running(alpha, &["-ii"], "Csync2 daemon running.");
    idle.signal(Signal::TERM);
    assert_eq!(idle.wait(), Some(0), "one without sessions");

    beta.csync2(["-cIr", "/"]).success();
    let mut session = Session::greeted(alpha, beta);
    beta.daemon().signal(Signal::TERM);
    beta.daemon().wait_for("Stopping: waiting for 1 sessions to end.");
    alpha.put(&tree! { "f" => "not now" });
    alpha.csync2(["-x"]).exits(1).logs("Connection refused");
    session.ask("MKDIR KEY %25d%25/d", "OK (cmd_finished).");
    session.ask("SETOWN KEY %25d%25/d 0 0", "OK (cmd_finished).");
    session.ask("SETMOD KEY %25d%25/d 16877", "OK (cmd_finished).");
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(beta.take_daemon().wait(), Some(0));
    assert!(beta.path("d").is_dir());
    beta.csync2(["-crv", "/"]).success().logs_no("Marking");
}

fn a_session_ends_after_the_file_in_hand(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.csync2(["-cIr", "/"]).success();
    let served = running(beta, &["-iiiv"], "Csync2 daemon running.");
    let mut session = Session::greeted(alpha, beta);
    session.ask("MKFIFO KEY %25d%25/pipe", "OK (cmd_finished).");
    served.signal(Signal::TERM);
    served.wait_for("ending after what is in hand");
    session.ask("SETOWN KEY %25d%25/pipe 0 0", "OK (cmd_finished).");
    session.ask("SETMOD KEY %25d%25/pipe 4516", "OK (cmd_finished).");
    session.ask("SETIME KEY %25d%25/pipe 1500000000", "OK (cmd_finished).");
    assert_eq!(session.line(), None, "the session is over");
    let (code, log) = end(served);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("stopped by a signal"), "{log}");
    beta.csync2(["-crv", "/"]).success().logs_no("Marking");

    // In inetd's hands, with nothing in hand.
    let (mut session, connection) = Session::accepted(alpha, beta);
    let mut inherited = beta.command(beta.program, ["-i"]);
    inherited.stdin(Stdio::from(OwnedFd::from(connection.try_clone().expect("a descriptor"))));
    inherited.stdout(Stdio::from(OwnedFd::from(connection)));
    let mut child = inherited.spawn().expect("start a session");
    drop(inherited);
    session.ask("CONFIG ", "OK (cmd_finished).");
    session.ask(&format!("HELLO {}", alpha.host), "OK (cmd_finished).");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("send a signal");
    assert_eq!(session.line(), None, "the session is over");
    assert_eq!(child.wait().expect("wait for a session").code(), Some(1));
}
