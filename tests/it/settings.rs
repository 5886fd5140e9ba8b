//! Words of the configuration that no other story needs: where the state and received files are, what is included, and
//! the limits.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use crate::support::cluster::{Cluster, Node};
use crate::support::database::Database;
use crate::support::process::run;
use crate::support::session::Session;
use crate::support::tree::device;
use crate::support::{Cast, Program, Table, scenarios, tree};

scenarios! { one program:
    the_database_of_the_configuration_is_used
    a_file_is_included_where_it_is_named
    received_files_arrive_with_and_without_their_tempdir
    devices_are_made
    a_prefix_without_a_directory_here_is_an_error_where_files_are_known_below_it
}

scenarios! { ours:
    as_many_peers_at_a_time_as_configured
    as_many_sessions_at_a_time_as_configured
    a_peer_has_as_many_sessions_as_configured
    strangers_make_room_for_others
    a_file_larger_than_configured_is_refused
    a_peer_that_does_not_answer_is_given_up
    a_peer_that_does_not_speak_is_left
    more_removals_than_configured_are_doubted
}

const OK: &str = "OK (cmd_finished).";

/// alpha and beta with more statements at the top of their configuration; beta serves.
fn two_nodes(cast: Cast, top: &str) -> Cluster {
    cast.cluster(["alpha", "beta"]).top(top).start()
}

fn the_database_of_the_configuration_is_used(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let config = fs::read_to_string(alpha.system_dir().join("csync2.cfg")).expect("read the config");
    let database = alpha.database.option();
    cluster.configure(&format!("{config}\ndatabase \"{database}\"; database \"/no/such/directory\";"));
    alpha.put(&tree! { "f" => "1" });
    let csync2 = |arguments: &[&str]| {
        let mut command = alpha.bare_command(alpha.program);
        command.args(["-N", &alpha.host]).args(arguments);
        run(command)
    };
    csync2(&["-cr", "/"]).success().silent();
    assert_eq!(alpha.rows(Table::File).len(), 2);
    // The command line has the last word.
    let other = cluster.directory().to_str().expect("UTF-8");
    csync2(&["-M", "-D", other]).exits(2).prints("");
    csync2(&["-M"]).success();
}

fn a_file_is_included_where_it_is_named(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    for (name, text) in [("patterns", "include %d%/kept;\nconfig {dir}/more;"), ("more", "exclude *.o;")] {
        fs::write(cluster.directory().join(name), cluster.fill_in(text)).expect("write a file");
    }
    cluster.configure(
        "prefix d { on {alpha}: {alpha.tree}; }\n\
         group demo { host {alpha} {beta}; key demo.key; config {dir}/patterns; }\n",
    );
    alpha.put(&tree! { "kept/f" => "1", "kept/f.o" => "22", "elsewhere" => "333" });
    alpha.csync2(["-cr", "/"]).success().silent();
    let names: Vec<String> = alpha.csync2(["-M"]).success().stdout_text().lines().map(str::to_owned).collect();
    assert!(names.len() == 2 && names[1].ends_with("%d%/kept/f"), "{names:?}");
}

fn a_prefix_without_a_directory_here_is_an_error_where_files_are_known_below_it(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    cluster.configure(
        "prefix d { on elsewhere: /nowhere; }\n\
         group demo { host {alpha} {beta}; key demo.key; include %d% {alpha.tree}; }\n",
    );
    alpha.put(&tree! { "f" => "1", "g" => "22" });
    alpha.csync2(["-cr", "/"]).success().silent();
    let row = "INSERT INTO file (filename, checktxt) VALUES ('%25d%25/f', 'v1%3Atype=reg%3Asize=1')";
    alpha.database.execute(row);
    let error = cluster.fill_in("Prefix 'd' is not defined for host '{alpha}'.");
    alpha.csync2(["-hr", "/"]).success().silent();
    for mode in [&["-cr", "/"][..], &["-c"], &["-xP", "nobody"]] {
        alpha.csync2(mode).exits(1).logs(&error);
    }
    alpha.csync2(["-H"]).success().prints("1\t/\n");
    assert!(alpha.rows(Table::File).iter().any(|row| row.starts_with("%25d%25/f\t")));
    alpha.csync2(["-cr", alpha.tree_dir().to_str().expect("UTF-8")]).success().silent();
}

fn received_files_arrive_with_and_without_their_tempdir(cast: Cast) {
    let cluster = two_nodes(cast, "tempdir {dir}/temp;");
    let temp = cluster.directory().join("temp");
    for content in ["without the directory", "with it"] {
        cluster["alpha"].put(&tree! { "d/f" => content });
        cluster["alpha"].csync2(["-x"]).success();
        cluster.expect_agreement();
        fs::create_dir_all(&temp).expect("make a directory");
    }
    assert_eq!(fs::read_dir(&temp).expect("list a directory").count(), 0, "something was left in the tempdir");
}

#[test]
fn a_busy_database_is_waited_for_as_long_as_configured() {
    for program in [Program::Reference, Program::Ours] {
        let cluster = Cast::sqlite(program).cluster(["alpha", "beta"]).top("lock-timeout 1;").build();
        let alpha = &cluster["alpha"];
        alpha.put(&tree! { "f" => "1" });
        alpha.csync2(["-cr", "/"]).success();
        let Database::Sqlite { file, .. } = &alpha.database else { unreachable!("it is SQLite") };
        let holder = Connection::open(file).expect("open the state database");
        holder.execute_batch("BEGIN EXCLUSIVE").expect("lock the database");
        alpha.put(&tree! { "f" => "changed" });
        let start = Instant::now();
        alpha.csync2(["-cr", "/"]).exits(1).logs("exceedingly busy");
        // The default is twelve seconds.
        assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
        drop(holder);
        alpha.csync2(["-crv", "/"]).success().logs("Marking file as dirty: %d%/f");
    }
}

fn devices_are_made(cast: Cast) {
    let cluster = two_nodes(cast, "");
    let mut session = Session::greeted(&cluster["alpha"], &cluster["beta"]);
    for (request, made) in
        [("MKCHR KEY %25d%25/f 259", device(1, 3, false)), ("MKBLK KEY %25d%25/f 1792", device(7, 0, true))]
    {
        session.ask(request, OK);
        session.ask("SETMOD KEY %25d%25/f 384", OK);
        cluster["beta"].expect(tree! { "f" => made.mode(0o600) });
    }
}

/// A peer that accepts connections and does no more; the test reads what it is told.
fn listen_for(node: &Node) -> TcpListener {
    TcpListener::bind((node.host.as_str(), node.port)).expect("listen")
}

fn as_many_peers_at_a_time_as_configured(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).top("parallel-peers 1;").build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "1" });
    let peers = ["beta", "gamma"].map(|name| listen_for(&cluster[name]));
    for peer in &peers {
        peer.set_nonblocking(true).expect("set a flag");
    }
    let push = alpha.command(alpha.program, ["-x"]);
    let push = thread::spawn(move || run(push));
    let connection = |peer: &TcpListener| peer.accept().ok().map(|(connection, _)| connection);
    let first_of = |peers: &[TcpListener]| loop {
        if let Some(found) = peers.iter().enumerate().find_map(|(index, peer)| Some((index, connection(peer)?))) {
            return found;
        }
        assert!(!push.is_finished(), "the push ended without a connection");
        thread::yield_now();
    };
    let (first, mut stream) = first_of(&peers);
    let other = &peers[1 - first];
    stream.set_nonblocking(false).expect("set a flag");
    stream.read_exact(&mut [0; 7]).expect("the first words");
    assert!(connection(other).is_none(), "both peers are served at once");
    drop(stream);
    drop(first_of(std::slice::from_ref(other)));
    push.join().expect("the push").exits(1);
}

fn as_many_sessions_at_a_time_as_configured(cast: Cast) {
    let cluster = two_nodes(cast, "max-sessions 1;");
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut first = Session::greeted(alpha, beta);
    let mut second = Session::open(alpha, beta);
    second.ask("CONFIG ", OK);
    second.send(format!("HELLO {}\n", alpha.host).as_bytes());
    for _ in 0..20 {
        first.ask("MARK KEY %25d%25/f", OK);
    }
    assert!(!second.has_answer(), "two sessions at once");
    first.ask("BYE", "OK (cu_later).");
    second.expect(&[OK]);
}

fn a_peer_has_as_many_sessions_as_configured(cast: Cast) {
    let cluster = two_nodes(cast, "max-sessions-per-peer 2;");
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut sessions = [Session::greeted(alpha, beta), Session::greeted(alpha, beta)];
    let mut third = Session::open(alpha, beta);
    third.ask("CONFIG ", OK);
    third.ask(&format!("HELLO {}", alpha.host), "Too many sessions at once, try again later.");
    assert_eq!(third.rest(), "");
    sessions[0].ask("BYE", "OK (cu_later).");
    assert_eq!(sessions[0].rest(), "");
    let _fourth = Session::greeted(alpha, beta);
}

fn strangers_make_room_for_others(cast: Cast) {
    let cluster = two_nodes(cast, "max-strangers 8;");
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut known = Session::greeted(alpha, beta);
    // One place for each address: whoever was first has had the most time.
    let mut first = Session::open(alpha, beta);
    first.ask("CONFIG ", OK);
    let mut second = Session::open(alpha, beta);
    assert_eq!(first.rest(), "");
    second.ask("CONFIG ", OK);
    beta.daemon().wait_for("the peer did not identify itself, and made room for others that came (max-strangers)");
    beta.daemon().wait_for("WARNING: more connections than max-strangers allows");
    known.ask("MARK KEY %25d%25/f", OK);
}

fn a_file_larger_than_configured_is_refused(cast: Cast) {
    let cluster = two_nodes(cast, "max-file-size 1K;");
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "small" => "x".repeat(1024), "large" => "y".repeat(1025) });
    for options in [&["-x"][..], &["-u", "--no-batches"]] {
        alpha.csync2(options).exits(1).logs("large: File too large: max-file-size allows 1024 bytes here");
    }
    beta.expect(tree! { "small" => "x".repeat(1024) });
}

/// The kernel takes no more connections for it: nothing answers the client's.
fn a_peer_that_does_not_answer_is_given_up(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).top("connect-timeout 1;").build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let address = SocketAddr::new(beta.host.parse().expect("an address"), beta.port);
    let deaf = socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
    bind(&deaf, &address).expect("bind");
    listen(&deaf, 0).expect("listen");
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(connection);
        assert!(waiting.len() < 100, "the queue is never full");
    }
    alpha.put(&tree! { "f" => "1" });
    let start = Instant::now();
    let failed = format!("ERROR: Connection to remote host `{}' failed.", beta.host);
    alpha.csync2(["-x"]).exits(1).logs(&failed);
    // The default is ten seconds.
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
}

fn a_peer_that_does_not_speak_is_left(cast: Cast) {
    let cluster = two_nodes(cast, "handshake-timeout 1; idle-timeout 1;");
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut stranger = Session::open(alpha, beta);
    stranger.ask("CONFIG ", OK);
    let mut known = Session::greeted(alpha, beta);
    assert_eq!((stranger.line(), known.line()), (None, None));
}

fn more_removals_than_configured_are_doubted(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).top("max-removals 2;").build();
    let alpha = &cluster["alpha"];
    alpha.put(&(0..5).fold(tree! { "stays" => "" }, |tree, number| tree.with(format!("{number}"), "x")));
    alpha.csync2(["-cIr", "/"]).success();
    for number in 0..3 {
        alpha.remove(format!("{number}"));
    }
    alpha.csync2(["-cr", "/"]).exits(1).logs("ERROR: 3 of 7 known files are gone, more than max-removals allows (2)");
    let marked = || alpha.csync2(["-M"]).stdout_text().lines().filter(|line| !line.ends_with("%d%")).count();
    assert_eq!(marked(), 0);
    alpha.csync2(["-cr", "/", "--allow-mass-removal"]).success();
    assert_eq!(marked(), 3);
    for number in 3..5 {
        alpha.remove(format!("{number}"));
    }
    alpha.csync2(["-cr", "/"]).success();
    assert_eq!(marked(), 5);
}
