//! The server, spoken to byte by byte: the order of a session, answers, permission, what must be refused.
//!
//! The answers were taken from the C program, which runs the same sessions.

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::support::cluster::{Cluster, KEY};
use crate::support::session::{Recording, Session};
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, dir, fifo, link, scenarios, tree};

scenarios! { one program:
    a_session_starts_with_config
    a_group_list_is_set_once
    commands_need_a_hello
    names_must_belong_to_the_address
    unknown_commands_leave_the_session_open
    commands_take_any_case_and_line_end
    only_members_with_the_key_may
    sig_tells_what_is_there
    questions_are_answered
    the_list_is_in_order
    files_are_made_and_removed
    a_patch_replaces_the_file
    a_patch_can_be_given_up
    a_client_that_vanishes_changes_nothing
    a_local_change_is_a_conflict
    requests_may_be_pipelined
    sessions_run_side_by_side
    a_pipe_is_served
    an_inherited_socket_is_served
    three_i_serve_once
}

const OK: &str = "OK (cmd_finished).";

fn two_nodes(cast: Cast) -> Cluster {
    cast.cluster(["alpha", "beta"]).start()
}

fn greeted(cluster: &Cluster) -> Session {
    Session::greeted(&cluster["alpha"], &cluster["beta"])
}

fn a_session_starts_with_config(cast: Cast) {
    let cluster = two_nodes(cast);
    let open = || Session::open(&cluster["alpha"], &cluster["beta"]);
    for early in ["HELLO x", "BYE", "SIG a b", "nonsense", ""] {
        let mut session = open();
        session.ask(early, "Expecting SSL (optional) and CONFIG as first commands.");
        assert_eq!(session.line(), None, "after `{early}`");
    }
    let mut session = open();
    session.ask("CONFIG Not/A.Name", "Config names are limited to [a-z0-9]+.");
    assert_eq!(session.rest().trim(), "");
    let mut session = open();
    session.send(b"CONFIG nosuch\nBYE\n");
    assert_eq!(session.line(), None);
    let mut session = open();
    session.ask("CONFIG ", OK);
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None);
}

fn a_group_list_is_set_once(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = greeted(&cluster);
    session.ask("GROUP other,groups", OK);
    session.ask("GROUP demo", "Group list already set!");
    session.ask("SIG KEY %25d%25", "Permission denied!");
    let mut session = greeted(&cluster);
    session.ask("GROUP other,demo", OK);
    session.ask("GETSZ KEY %25d%25/none", "OK (data_follows).");
}

/// The C program looks at the last group only.
fn every_group_of_the_list_counts(cast: Cast) {
    let group = |name: &str| format!("group {name} {{ host {{alpha}} {{beta}}; key demo.key; include %d%/{name}; }}\n");
    let prefix = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n".to_owned();
    let cluster = cast.cluster(["alpha", "beta"]).config(&(prefix + &["a", "b", "c", "d"].map(group).concat())).start();
    let mut session = greeted(&cluster);
    session.ask("GROUP b,c,unknown,d", OK);
    for name in ["b", "c", "d"] {
        session.ask(&format!("MKDIR KEY %25d%25/{name}"), OK);
    }
    session.ask("MKDIR KEY %25d%25/a", "Permission denied!");
    session.ask("BYE", "OK (cu_later).");
    cluster["beta"].expect(tree! {
        "b" => dir().mode(0o700), "c" => dir().mode(0o700), "d" => dir().mode(0o700),
    });
}

fn commands_need_a_hello(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = Session::open(&cluster["alpha"], &cluster["beta"]);
    session.ask("CONFIG ", OK);
    let answer = cluster.fill_in("Dear {alpha}, please identify first.");
    for request in ["SIG KEY %25d%25", "DEL KEY %25d%25/f", "LIST {beta} - KEY", "FLUSH KEY %25d%25"] {
        session.ask(&cluster.fill_in(request), &answer);
    }
    session.ask("BYE", "OK (cu_later).");
}

fn names_must_belong_to_the_address(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = greeted(&cluster);
    session.ask(&cluster.fill_in("HELLO {beta}"), "Identification failed!");
    // The earlier identity is gone.
    session.ask("SIG KEY %25d%25", &cluster.fill_in("Dear {alpha}, please identify first."));
    session.ask("HELLO", "Identification failed!");
    session.ask("HELLO no-such-host.invalid", "Identification failed!");
    session.ask(&cluster.fill_in("HELLO {alpha}"), OK);
    session.ask("MARK KEY %25d%25/f", OK);
}

fn unknown_commands_leave_the_session_open(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = greeted(&cluster);
    for request in ["MAKECOFFEE", "OK (cmd_finished).", "SIGH KEY %25d%25"] {
        session.ask(request, "Unknown command!");
    }
    // A blank line is no command: there is no answer to it.
    session.ask("\n \t\r\n  MARK KEY %25d%25/f", OK);
}

fn commands_take_any_case_and_line_end(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = Session::open(&cluster["alpha"], &cluster["beta"]);
    session.send(cluster.fill_in("config \r\nHello {alpha}\r\n").as_bytes());
    session.expect(&[OK, OK]);
    session.ask("mArK \t KEY\t%25d%25/f", OK);
    // Fields beyond those a command knows are dropped.
    session.ask("MARK KEY %25d%25/f and more", OK);
}

fn only_members_with_the_key_may(cast: Cast) {
    let cluster = two_nodes(cast);
    cluster["beta"].put(&tree! { "f" => "kept" });
    let mut session = greeted(&cluster);
    let wrong_key = "A".repeat(KEY.len());
    let truncated = &KEY[..KEY.len() - 1];
    for request in [
        format!("DEL {wrong_key} %25d%25/f"),
        format!("SIG {truncated} %25d%25/f"),
        format!("MARK {KEY}K %25d%25/f"),
        "PATCH KEY /etc/csync2-test-file".to_owned(),
        "TYPE KEY /etc/passwd".to_owned(),
        "DEL KEY relative".to_owned(),
        "MKDIR KEY %25other%25/d".to_owned(),
        "SETMOD KEY /etc/passwd 33188".to_owned(),
        "DEL KEY".to_owned(),
        "SIG".to_owned(),
    ] {
        session.ask(&request, "Permission denied!");
    }
    cluster["beta"].expect(tree! { "f" => "kept" });
}

fn sig_tells_what_is_there(cast: Cast) {
    let cluster = two_nodes(cast);
    cluster["beta"].put(&tree! {
        "f" => file("hello\n").mode(0o640).owner(3, 4), "empty" => "", "d" => dir().mode(0o2711), "d/inside" => "", "p" => fifo(),
        "out" => link("d"),
    });
    let mut session = greeted(&cluster);
    let nothing = ["---", "octet-stream 0", OK];
    session.ask("SIG KEY %25d%25/f", "OK (data_follows).");
    session.expect(&["v1:mtime=0:mode=33184:uid=3:gid=4:type=reg:size=6", "octet-stream 32"]);
    let signature = session.bytes(32);
    assert_eq!(signature[..12], *b"rs\x016\0\0\x08\0\0\0\0\x10", "MD4, block length 2048, strong length 16");
    session.expect(&[OK]);
    session.ask("SIG KEY %25d%25/empty", "OK (data_follows).");
    session.expect(&["v1:mtime=0:mode=33188:uid=0:gid=0:type=reg:size=0", "octet-stream 12"]);
    assert_eq!(session.bytes(12), b"rs\x016\0\0\x08\0\0\0\0\x10");
    session.expect(&[OK]);
    session.ask("SIG KEY %25d%25/d", "OK (data_follows).");
    session.expect(&["v1:mode=17865:uid=0:gid=0:type=dir", "octet-stream 0", OK]);
    session.ask("SIG KEY %25d%25/p", "OK (data_follows).");
    session.expect(&["v1:mtime=0:mode=4516:uid=0:gid=0:type=fifo", "octet-stream 0", OK]);

    session.ask("SIG KEY %25d%25/none", "OK (path_not_found).");
    session.expect(&nothing);
    session.ask("SIG KEY %25d%25/out/inside", "OK (not_found).");
    session.expect(&nothing);
    session.ask("SIG KEY %25d%25/no/parent", "Parent dir missing.");
    session.ask("SIG KEY %25d%25/f/below", "Not a directory");
}

fn questions_are_answered(cast: Cast) {
    let cluster = two_nodes(cast);
    cluster["beta"].put(&tree! { "f" => file("hello\n").mtime(-1), "g" => file("some bytes").mtime(1_234_567_890) });
    let mut session = greeted(&cluster);
    for (request, answer) in [
        ("GETSZ KEY %25d%25/f", "6"),
        ("GETTM KEY %25d%25/g", "1234567890"),
        ("GETTM KEY %25d%25/f", "-1"),
        ("GETSZ KEY %25d%25/none", "-1"),
        ("GETTM KEY %25d%25/no/parent", "-1"),
    ] {
        session.ask(request, "OK (data_follows).");
        session.expect(&[answer]);
    }
    session.ask("TYPE KEY %25d%25/g", "OK (data_follows).");
    assert_eq!(session.rest(), "some bytes\n", "the content, then the end");
    let mut session = greeted(&cluster);
    session.ask("TYPE KEY %25d%25/none", "OK (data_follows).");
    assert_eq!(session.rest(), "");
}

fn the_list_is_in_order(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    beta.put(&tree! { "z" => "last", "a b" => "blank", "a-b" => "minus", "B" => "upper", "ä" => "umlaut" });
    beta.csync2(["-cIr", "/"]).success();
    let mut session = greeted(&cluster);
    let list = |session: &mut Session, request: &str| {
        let mut names = Vec::new();
        let mut line = session.answer(&cluster.fill_in(request));
        while line != OK {
            let (checktxt, name) = line.split_once('\t').expect("two fields");
            assert!(checktxt.starts_with("v1%3Am"), "{line}");
            names.push(name.to_owned());
            line = session.line().expect("an answer");
        }
        names
    };
    let all = ["%25d%25", "%25d%25/B", "%25d%25/a%20b", "%25d%25/a-b", "%25d%25/z", "%25d%25/ä"];
    assert_eq!(list(&mut session, "LIST {beta} - KEY"), all);
    assert_eq!(list(&mut session, "LIST {beta} %25d%25/z KEY"), ["%25d%25/z"]);
    assert!(list(&mut session, "LIST {beta} - otherkey").is_empty());
}

fn files_are_made_and_removed(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = greeted(&cluster);
    for request in [
        "MKDIR KEY %25d%25/d",
        "MKDIR KEY %25d%25/d",
        "SETOWN KEY %25d%25/d 12 34",
        "SETMOD KEY %25d%25/d 17896",
        "MKLINK KEY %25d%25/d/l a%20target",
        "MKFIFO KEY %25d%25/d/p",
        "SETMOD KEY %25d%25/d/p 4480",
        "MKSOCK KEY %25d%25/s",
        "DEL KEY %25d%25/none",
        "MKDIR KEY %25d%25/gone",
        "DEL KEY %25d%25/gone",
    ] {
        session.ask(request, OK);
    }
    let refused = session.answer("MKDIR KEY %25d%25/no/parent");
    assert!(!refused.starts_with("OK ("), "{refused}");
    session.ask("DEL KEY %25d%25/d", "Directory not empty");
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None);
    cluster["beta"].expect(tree! {
        "d" => dir().mode(0o2750).owner(12, 34), "d/l" => link("a target"), "d/p" => fifo().mode(0o600),
    });
    // What came from a peer is known and not dirty.
    cluster["beta"].csync2(["-cr", "/"]).success();
    let rows = cluster["beta"].rows(Table::Dirty);
    assert!(rows.iter().all(|row| !row.contains("/d")), "{rows:?}");
}

/// A delta that makes `content` out of nothing (literals of up to 64 bytes).
fn literal_delta(content: &str) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    assert!((1..=64).contains(&length), "{length}");
    [&b"rs\x026"[..], &[length], content.as_bytes(), b"\0"].concat()
}

fn octets(content: &[u8]) -> Vec<u8> {
    [format!("octet-stream {}\n", content.len()).as_bytes(), content].concat()
}

fn start_patch(session: &mut Session, name: &str, signature: usize) {
    session.ask(&format!("PATCH KEY {name}"), "OK (send_data).");
    session.expect(&[&format!("octet-stream {signature}")]);
    session.bytes(signature);
}

fn a_patch_replaces_the_file(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    let mut session = greeted(&cluster);
    start_patch(&mut session, "%25d%25/f", 12);
    session.send(&octets(&literal_delta("first content")));
    session.expect(&[OK]);
    if cast.server == Program::Reference {
        beta.expect(tree! { "f" => file("first content").mode(0o600) });
    } else {
        // Ours puts it in place when it is complete.
        beta.expect(tree! {});
    }
    session.ask("SETMOD KEY %25d%25/f 33261", OK);
    session.ask("SETOWN KEY %25d%25/f 7 8", OK);
    session.ask("SETIME KEY %25d%25/f 1000000007", OK);
    beta.expect(tree! { "f" => file("first content").mode(0o755).owner(7, 8).mtime(1_000_000_007) });
    start_patch(&mut session, "%25d%25/f", 32);
    session.send(&octets(&literal_delta("second")));
    session.expect(&[OK]);
    // Owner and mode are taken over from the old file. Any other command ends what PATCH began.
    session.ask("MARK KEY %25d%25/other", OK);
    beta.expect(tree! { "f" => file("second").mode(0o755).owner(7, 8).mtime(beta_mtime(&cluster)) });
}

fn beta_mtime(cluster: &Cluster) -> i64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(cluster["beta"].path("f")).expect("stat").mtime()
}

fn a_patch_can_be_given_up(cast: Cast) {
    let cluster = two_nodes(cast);
    cluster["beta"].put(&tree! { "f" => "stays" });
    cluster["beta"].csync2(["-cIr", "/"]).success();
    let mut session = greeted(&cluster);
    for end in ["octet-stream -1", "ERROR"] {
        start_patch(&mut session, "%25d%25/f", 32);
        session.ask(end, "Input/output error");
    }
    session.ask("MARK KEY %25d%25/f", OK);
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None);
    assert_eq!(cluster["beta"].read("f"), "stays");
}

fn a_client_that_vanishes_changes_nothing(cast: Cast) {
    let cluster = two_nodes(cast);
    cluster["beta"].put(&tree! { "f" => "stays as it is" });
    cluster["beta"].csync2(["-cIr", "/"]).success();
    let mut session = greeted(&cluster);
    start_patch(&mut session, "%25d%25/f", 32);
    session.send(b"octet-stream 100000\nrs\x026\x05hello");
    session.finish();
    session.rest();
    assert_eq!(cluster["beta"].read("f"), "stays as it is");
    cluster["beta"].csync2(["-cr", "/"]).success();
    let rows = cluster["beta"].rows(Table::Dirty);
    assert!(rows.iter().all(|row| !row.contains("/f")), "{rows:?}");
}

fn a_local_change_is_a_conflict(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    beta.put(&tree! { "f" => "known" });
    beta.csync2(["-cIr", "/"]).success();
    beta.put(&tree! { "f" => "changed since", "new" => "never seen" });
    let mut session = greeted(&cluster);
    let conflict = "File is also marked dirty here!";
    session.ask("PATCH KEY %25d%25/f", conflict);
    session.ask("DEL KEY %25d%25/new", conflict);
    session.ask("SETMOD KEY %25d%25/f 33188", conflict);
    let row = |name: &str| cluster.fill_in(&format!("%25d%25/{name}\t0\t{{beta}}\t{{alpha}}"));
    assert_eq!(beta.rows(Table::Dirty), [row("f"), row("new")]);
    session.ask("FLUSH KEY %25d%25/f", OK);
    session.ask("DEL KEY %25d%25/f", OK);
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None);
    assert_eq!(beta.rows(Table::Dirty), [row("new")]);
    beta.expect(tree! { "new" => "never seen" });
}

fn requests_may_be_pipelined(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut session = Session::open(&cluster["alpha"], &cluster["beta"]);
    let mut requests = cluster.fill_in("CONFIG \nATOMICPATCH\nHELLO {alpha}\n");
    for number in 0..300 {
        writeln!(requests, "MKDIR {KEY} %25d%25/{number}\nGETSZ {KEY} %25d%25/none").expect("write to a string");
    }
    requests += "BYE\n";
    session.send(requests.as_bytes());
    session.expect(&[OK]);
    let dialect = session.line().expect("an answer");
    assert!(!dialect.starts_with("OK ("), "{dialect}");
    session.expect(&[OK]);
    for _ in 0..300 {
        session.expect(&[OK, "OK (data_follows).", "-1"]);
    }
    session.expect(&["OK (cu_later)."]);
    assert_eq!(session.line(), None);
    assert_eq!(cluster["beta"].tree().len(), 301);
}

fn sessions_run_side_by_side(cast: Cast) {
    let cluster = two_nodes(cast);
    let mut sessions: Vec<Session> = (0..10).map(|_| greeted(&cluster)).collect();
    for (number, session) in sessions.iter_mut().enumerate().rev() {
        session.ask(&format!("GETSZ KEY %25d%25/{number}"), "OK (data_follows).");
    }
    for session in &mut sessions {
        session.expect(&["-1"]);
        session.ask("BYE", "OK (cu_later).");
    }
}

fn a_pipe_is_served(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let requests = cluster.fill_in(&format!(
        "CONFIG \nHELLO {{alpha}}\nMKDIR {KEY} %25d%25/d\nHELLO {{beta}}\nMKDIR {KEY} %25d%25/e\nBYE\n"
    ));
    let answers = cluster.fill_in(
        "OK (cmd_finished).\nOK (cmd_finished).\nOK (cmd_finished).\nIdentification failed!\n\
         Dear {alpha}, please identify first.\nOK (cu_later).\n",
    );
    beta.csync2_for_pipe(&["-i"], alpha, requests.as_bytes()).success().prints(&answers);
    beta.expect(tree! { "d" => dir() });
}

fn an_inherited_socket_is_served(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let (mut session, socket) = Session::accepted(alpha, beta);
    let socket = OwnedFd::from(socket);
    let mut command = beta.command(beta.program, ["-i"]);
    command.stdin(Stdio::from(socket.try_clone().expect("dup"))).stdout(Stdio::from(socket)).stderr(Stdio::null());
    let mut server = command.spawn().expect("start the server");
    // The command holds copies of the socket.
    drop(command);
    session.ask("CONFIG ", OK);
    session.ask(&format!("HELLO {}", alpha.host), OK);
    session.ask("MKDIR KEY %25d%25/d", OK);
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None);
    assert_eq!(server.wait().expect("wait for the server").code(), Some(0));
    beta.expect(tree! { "d" => dir() });
}

fn three_i_serve_once(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    cluster["beta"].serve_with(&["-iii", "-v"]);
    let mut session = greeted(&cluster);
    session.ask("MKDIR KEY %25d%25/d", OK);
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None);
    assert_eq!(cluster["beta"].take_daemon().wait(), Some(0));
}

scenarios! { tls:
    a_plain_session_needs_permission
}

fn a_plain_session_needs_permission(cast: Cast) {
    if cast.client != cast.server {
        return;
    }
    let cluster = two_nodes(cast);
    let mut session = Session::open(&cluster["alpha"], &cluster["beta"]);
    session.ask("CONFIG ", OK);
    session.ask(&format!("HELLO {}", cluster["alpha"].host), "SSL encrypted connection expected!");
    session.ask("SIG KEY %25d%25", &cluster.fill_in("Dear {alpha}, please identify first."));
}

scenarios! { ours:
    every_group_of_the_list_counts
    recorded_sessions_of_the_fork
    nanoseconds_for_those_who_speak_them
    names_that_escape_are_refused
    links_are_not_followed
    a_broken_delta_leaves_nothing_behind
    impossible_lengths_and_lines_end_one_session
}

/// Plays one recording after the other on the state that the fork's server had.
fn recorded_sessions_of_the_fork(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    let play = |name: &str| {
        let mut session = Session::open(&cluster["alpha"], beta);
        Recording::load(&format!("fork/{name}.txt"), &cluster["alpha"].host).play(&mut session);
        assert_eq!(session.line(), None);
    };
    let known = || drop(beta.csync2(["-cIr", "/"]).success());
    known();
    play("fork-new-file");
    beta.expect(tree! { "new file" => file("hello\n").mode(0o644).owner(0, 0).mtime(1_600_000_000) });
    play("fork-changed-file");
    beta.expect(tree! { "new file" => file("hello world\n").mtime(1_600_000_100) });
    play("fork-delete");
    beta.expect(tree! {});
    play("fork-directory");
    beta.expect(tree! {
        "sub" => dir().mode(0o750), "sub/a" => file("x").mode(0o644).mtime(1_600_000_000), "sub/fifo" => fifo(),
        "sub/link" => link("a"),
    });
    assert!(beta.rows(Table::Dirty).iter().all(|row| !row.contains("sub")), "{:?}", beta.rows(Table::Dirty));

    beta.put(&tree! { "sub/a" => file("theirs").mtime(1_600_000_400) });
    play("fork-conflict");
    play("fork-conflict-younger");
    assert_eq!(beta.read("sub/a"), "theirs");
    play("fork-forced");
    assert_eq!(beta.read("sub/a"), "ours is longer");

    beta.put(&tree! { "same" => file("equal\n").mtime(1_500_000_000) });
    known();
    play("fork-already-equal");
    assert!(format!("{:?}", beta.tree().get("same")).contains("mtime 1600000000"));
}

fn nanoseconds_for_those_who_speak_them(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    beta.put(&tree! { "f" => file("x").mtime(1_600_000_000) });
    beta.csync2(["-cIr", "/"]).success();
    let mut session = Session::open(&cluster["alpha"], beta);
    session.ask("CONFIG ", OK);
    session.ask("ATOMICPATCH", &cluster.fill_in("Dear {alpha}, please identify first."));
    session.ask(&cluster.fill_in("HELLO {alpha}"), OK);
    session.ask("GETTM KEY %25d%25/f", "OK (data_follows).");
    session.expect(&["1600000000000000000"]);
    for (sent, seconds) in [(1_000_000_000, 1), (0, 0), (-1_000_000_000, -1)] {
        session.ask(&format!("SETIME KEY %25d%25/f {sent}"), OK);
        beta.expect(tree! { "f" => file("x").mtime(seconds) });
    }
    // Who never said so speaks seconds, unless the number can be none.
    let mut session = greeted(&cluster);
    for (sent, seconds) in [(1, 1), (0, 0), (-1, -1), (1_600_000_000_000_000_000_i64, 1_600_000_000)] {
        session.ask(&format!("SETIME KEY %25d%25/f {sent}"), OK);
        beta.expect(tree! { "f" => file("x").mtime(seconds) });
    }
}

fn names_that_escape_are_refused(cast: Cast) {
    let cluster = two_nodes(cast);
    let outside = cluster["beta"].base().join("outside");
    std::fs::write(&outside, "untouched").expect("write a file");
    let mut session = greeted(&cluster);
    for name in
        ["%25d%25/../outside", "%25d%25/a/../../outside", "%25d%25/./f", "%25d%25//f", "%25d%25/..", "%25d%25/f%00"]
    {
        for request in ["DEL KEY ", "PATCH KEY ", "MKDIR KEY ", "SETMOD KEY ", "SIG KEY ", "TYPE KEY "] {
            let answer = session.answer(&format!("{request}{name}"));
            assert!(!answer.starts_with("OK ("), "{request}{name}: {answer}");
        }
    }
    assert_eq!(std::fs::read_to_string(outside).expect("read"), "untouched");
    assert_eq!(cluster["beta"].tree().len(), 1, "nothing was made");
}

fn links_are_not_followed(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    let outside = beta.base().join("outside");
    tree! { "f" => "untouched" }.write(&outside);
    beta.put(&tree! { "out" => link(outside.to_str().expect("UTF-8")), "to f" => link("../outside/f") });
    beta.csync2(["-cIr", "/"]).success();
    let mut session = greeted(&cluster);
    for request in
        ["DEL KEY %25d%25/out/f", "MKDIR KEY %25d%25/out/d", "PATCH KEY %25d%25/out/f", "SETMOD KEY %25d%25/out/f 0"]
    {
        let answer = session.answer(request);
        assert!(!answer.starts_with("OK ("), "{request}: {answer}");
    }
    // A link in the last component is the file itself: replaced, not followed.
    start_patch(&mut session, "%25d%25/to%20f", 12);
    session.send(&octets(&literal_delta("a file now")));
    session.expect(&[OK]);
    session.ask("MARK KEY %25d%25/other", OK);
    beta.expect(tree! { "out" => link(outside.to_str().expect("UTF-8")), "to f" => "a file now" });
    crate::support::assert_same(&tree! { "f" => "untouched" }, &crate::support::Tree::of(&outside).without_root());
}

fn a_broken_delta_leaves_nothing_behind(cast: Cast) {
    let cluster = two_nodes(cast);
    let beta = &cluster["beta"];
    beta.put(&tree! { "f" => "stays" });
    beta.csync2(["-cIr", "/"]).success();
    let mut session = greeted(&cluster);
    for (name, signature) in [("%25d%25/f", 32), ("%25d%25/new", 12)] {
        for delta in
            [&b"xyz"[..], b"", b"rs\x026", b"rs\x026\x40too short", b"rs\x026\x46\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            start_patch(&mut session, name, signature);
            session.send(&octets(delta));
            let answer = session.line().expect("an answer");
            assert!(!answer.starts_with("OK ("), "{answer}");
        }
    }
    session.ask("BYE", "OK (cu_later).");
    beta.expect(tree! { "f" => "stays" });
}

fn impossible_lengths_and_lines_end_one_session(cast: Cast) {
    let cluster = two_nodes(cast);
    cluster["beta"].put(&tree! { "f" => "stays" });
    cluster["beta"].csync2(["-cIr", "/"]).success();
    let mut neighbour = greeted(&cluster);
    for header in ["octet-stream 99999999999999999999", "octet-stream x", "octet-stream", "whatever"] {
        let mut session = greeted(&cluster);
        start_patch(&mut session, "%25d%25/f", 32);
        session.send(format!("{header}\n").as_bytes());
        session.finish();
        assert!(!session.rest().contains("OK ("), "after `{header}`");
    }
    let mut session = greeted(&cluster);
    // The server may close before it has read everything.
    session.send_some(&vec![b'x'; 1_000_000]);
    assert!(!session.rest().contains("OK ("));
    neighbour.ask("GETSZ KEY %25d%25/f", "OK (data_follows).");
    neighbour.expect(&["5"]);
    assert_eq!(cluster["beta"].read("f"), "stays");
    assert_eq!(cast.server, Program::Ours);
}
