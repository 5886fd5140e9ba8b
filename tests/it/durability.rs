//! `-A` and `-B` concern the state database alone: what was received is flushed to the disk before it is recorded, whatever
//! was asked for, and in which order. The calls of the server are watched with strace.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::cluster::Node;
use crate::support::process::{Daemon, wrap};
use crate::support::session::Session;
use crate::support::{Cast, Program, Table, dir, tree};

#[test]
fn received_files_are_durable_whatever_the_database_is() {
    for (options, words) in [("-iii", ""), ("-iii -A -B", ""), ("-iii", "batches no;"), ("-iii -A -B", "batches no;")] {
        let options: Vec<&str> = options.split(' ').collect();
        let (calls, tree) = calls_of_receiving(&options, words);
        let flushed = |line: &str, what: &str| line.contains("sync(") && line.contains(&format!("<{tree}{what}"));
        let behind = |start: usize, what: &str, find: &dyn Fn(&str) -> bool| {
            let found = calls.lines().skip(start).position(find);
            start + found.unwrap_or_else(|| panic!("{what} is missing with {options:?}:\n{calls}"))
        };
        let of_database = |line: &str| line.contains(".db3");
        // Another thread may be seen to go on before a call ends.
        let end_of = |start: usize| {
            let line = calls.lines().nth(start).expect("a call");
            let process = line.split(' ').next().expect("its process");
            let is_end = |line: &str| line.starts_with(process) && line.contains("resumed>");
            if line.ends_with("<unfinished ...>") { behind(start, "the end of a call", &is_end) } else { start }
        };
        // The content, while it has another name or none; its place; the directory; and then the peer is told.
        let content = behind(0, "fsync of the content", &|line| line.contains("fsync(") && flushed(line, "/"));
        let place = behind(0, "the new name", &|line| {
            (line.contains("rename") || line.contains("linkat")) && line.contains("\"f\"")
        });
        let directory = behind(place, "fsync of the directory", &|line| flushed(line, ">"));
        let told = behind(place, "an answer", &|line| line.contains("<socket:") || line.contains("<TCP:"));
        assert!(end_of(content) < place && end_of(directory) < told, "{calls}");
        let is_flush_of_database = |line: &&str| line.contains("sync(") && of_database(line);
        let flushes = calls.lines().filter(is_flush_of_database).count();
        assert_eq!(flushes == 0, options.contains(&"-A"), "{calls}");
        // The times of its log are nobody's business, and cost as much as all else.
        let with_times = |line: &str| line.contains("fsync(") && line.contains(".db3-wal");
        assert!(!calls.lines().any(with_times), "built without .cargo/config.toml? {calls}");
        if flushes > 0 {
            // What is about to happen is in the database before it does.
            let intent = behind(0, "fsync of the intent", &|line| line.contains("sync(") && of_database(line));
            assert!(end_of(intent) < place, "{calls}");
        }
        if words.is_empty() {
            let record = behind(directory, "the record", &|line| line.contains("pwrite64(") && of_database(line));
            assert!(record < told, "{calls}");
        }
    }
}

/// The calls of a server that receives a file and a directory, as strace tells them, and where it does.
fn calls_of_receiving(options: &[&str], words: &str) -> (String, String) {
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).top(words).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content", "d" => dir() });
    beta.csync2(["-cIr", "/"]).success();
    let (daemon, log) = watched(beta, options);
    alpha.csync2(["-xA"]).success();
    assert_eq!(daemon.wait(), Some(0));
    cluster.expect_agreement();
    (fs::read_to_string(&log).expect("read strace's log"), beta.tree_dir().display().to_string())
}

/// A server whose calls strace writes down, and where.
fn watched(node: &Node, options: &[&str]) -> (Daemon, PathBuf) {
    let log = node.base().join("calls");
    let trace = [
        "strace",
        "-f",
        "-y",
        "-e",
        "trace=fsync,fdatasync,rename,renameat,renameat2,linkat,pwrite64,write,writev,sendto",
        "-o",
    ];
    let trace = [&trace[..], &[log.to_str().expect("UTF-8")]].concat();
    // Should strace be killed, the server goes with it.
    let server = wrap(&["setpriv", "--pdeathsig", "KILL"], &node.command(node.program, options));
    let command = wrap(&trace, &server);
    (Daemon::start(&command, "Csync2 daemon running."), log)
}

#[test]
fn who_wants_no_durability_gets_files_without_a_flush() {
    for words in ["durability none;", "durability none; batches no;"] {
        let (calls, tree) = calls_of_receiving(&["-iii"], words);
        let position = |what: &str, find: &dyn Fn(&str) -> bool| {
            calls.lines().position(find).unwrap_or_else(|| panic!("{what} is missing:\n{calls}"))
        };
        let content = position("the content", &|line| line.contains("write(") && line.contains(&format!("<{tree}")));
        let place = position("the new name", &|line| line.contains("linkat") && line.contains("\"f\""));
        assert!(content < place, "{calls}");
        let is_flush =
            |line: &str| line.contains("sync(") && (line.contains(&format!("<{tree}")) || line.contains(".db3"));
        // Nor the intent, which is there for a power cut as well.
        assert!(!calls.lines().skip(content).take(place - content).any(is_flush), "{calls}");
        assert!(!calls.lines().any(|line| line.contains("sync(") && line.contains(&format!("<{tree}"))), "{calls}");
    }
}

/// A daemon goes by the configuration as it is now.
#[test]
fn durability_can_be_asked_for_later() {
    let words = "durability none;";
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).top(words).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.csync2(["-cIr", "/"]).success();
    let (daemon, log) = watched(beta, &["-ii"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-xA"]).success();
    let config = beta.system_dir().join("csync2.cfg");
    let durable = fs::read_to_string(&config).expect("read the config").replace(words, "");
    fs::write(&config, durable).expect("write the config");
    alpha.put(&tree! { "g" => "content" });
    alpha.csync2(["-xA"]).success();
    // Not strace, which would go on.
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.id())).expect("the children of strace");
    let server = Pid::from_raw(children.trim().parse().expect("one child")).expect("a process");
    kill_process(server, Signal::TERM).expect("stop the server");
    assert_eq!(daemon.wait(), Some(0));
    let calls = fs::read_to_string(&log).expect("read strace's log");
    let placed = |name: &str| {
        let place = calls.lines().position(|line| line.contains("linkat") && line.contains(&format!("\"{name}\"")));
        place.unwrap_or_else(|| panic!("{name} has no place:\n{calls}"))
    };
    let between: Vec<_> = calls.lines().take(placed("g")).skip(placed("f")).collect();
    assert!(between.iter().any(|line| line.contains("sync(") && line.contains(".db3")), "the intent of g: {calls}");
    cluster.expect_agreement();
}

/// A server that dies right behind its answer may not have recorded the file yet.
#[test]
fn what_was_answered_survives_a_kill() {
    for cast in [Cast::plain(Program::Ours, Program::Ours), Cast::postgres(Program::Ours)] {
        let cluster = cast.cluster(["alpha", "beta"]).build();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        beta.csync2(["-cIr", "/"]).success();
        for round in 1..=5 {
            let (mut session, mut server) = served_on_a_socket(alpha, beta);
            session.ask("CONFIG ", "OK (cmd_finished).");
            session.ask(&format!("HELLO {}", alpha.host), "OK (cmd_finished).");
            let (first, second) = ("x".repeat(round), "yy".repeat(round));
            send_file(&mut session, "f", &first);
            send_file(&mut session, "g", &second);
            server.kill().expect("kill the server");
            server.wait().expect("wait for the server");
            beta.csync2(["-cr", "/"]).success().silent();
            beta.expect_clean();
            assert_eq!((beta.read("f"), beta.read("g")), (first, second));
            assert_eq!(beta.rows(Table::File).len(), 3, "with the directory");
        }
    }
}

fn served_on_a_socket(client: &Node, server: &Node) -> (Session, Child) {
    let (session, socket) = Session::accepted(client, server);
    let socket = OwnedFd::from(socket);
    let mut command = server.command(server.program, ["-i"]);
    command.stdin(Stdio::from(socket.try_clone().expect("dup"))).stdout(Stdio::from(socket)).stderr(Stdio::null());
    (session, command.spawn().expect("start the server"))
}

/// Sends a file of at most 64 bytes, up to the last answer.
fn send_file(session: &mut Session, name: &str, content: &str) {
    session.ask(&format!("PATCH KEY %25d%25/{name}"), "OK (send_data).");
    let header = session.line().expect("a header");
    session.bytes(header.strip_prefix("octet-stream ").and_then(|length| length.parse().ok()).expect("a length"));
    let length = u8::try_from(content.len()).expect("a short content");
    let delta = [&b"rs\x026"[..], &[length], content.as_bytes(), b"\0"].concat();
    session.send(format!("octet-stream {}\n", delta.len()).as_bytes());
    session.send(&delta);
    session.expect(&["OK (cmd_finished)."]);
    session.ask(&format!("SETIME KEY %25d%25/{name} 1500000000"), "OK (cmd_finished).");
}

/// PostgreSQL waits for its log on disk unless `-A` says otherwise.
#[test]
fn asynchronous_commits_are_for_who_asks_for_them() {
    let cluster = Cast::postgres(Program::Ours).cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.csync2(["-cIr", "/"]).success();
    let name = alpha.database_name().expect("PostgreSQL");
    alpha.database.execute(
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
         $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE TRIGGER see AFTER INSERT ON file FOR EACH STATEMENT EXECUTE FUNCTION see()",
    );
    alpha.database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = local"));
    let seen = || crate::support::Postgres::shared().sql(name, "SELECT DISTINCT setting FROM seen; DELETE FROM seen");
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cr", "/"]).success();
    assert_eq!(seen().trim(), "local");
    alpha.put(&tree! { "g" => "more content" });
    alpha.csync2(["-cAr", "/"]).success();
    assert_eq!(seen().trim(), "off");
    assert_eq!(alpha.rows(Table::File).len(), 3);
}
