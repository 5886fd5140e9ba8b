//! Both programs in one cluster: many files to several peers at once, certificates, and one state used in turns.

use std::fs;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, Tree, certs, dir, fifo, link, scenarios, tree};

scenarios! { tls:
    certificates_are_pinned_on_first_use
    a_changed_server_certificate_is_refused
    a_changed_client_certificate_is_refused
    certificates_by_the_manual_are_good
}

/// Stops the daemon of a node and starts it again.
fn restart(node: &Node) {
    node.stop();
    node.serve();
}

fn certificates_are_pinned_on_first_use(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-xv"]).success().logs(&cluster.fill_in("Connecting to host {beta} (SSL) ..."));
    for (node, peer) in [(alpha, beta), (beta, alpha)] {
        let pem = fs::read_to_string(peer.system_dir().join("csync2_ssl_cert.pem")).expect("read a certificate");
        assert_eq!(node.rows(Table::Certificate), [format!("{}\t{}", peer.host, hex_of_pem(&pem))]);
    }
}

fn hex_of_pem(pem: &str) -> String {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    hex::encode_upper(CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate"))
}

fn a_changed_server_certificate_is_refused(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content", "d/g" => "other" });
    alpha.csync2(["-x"]).success();
    certs::write_new(beta.system_dir(), "another");
    restart(beta);
    alpha.put(&tree! { "f" => "for all who are who they were", "new" => "22" });
    alpha.csync2(["-x"]).exits(1).logs("Peer did provide a wrong SSL X509 cetrificate.");
    if cast.client == Program::Ours {
        // The C program gives up all peers.
        assert_eq!(cluster["gamma"].read("f"), "for all who are who they were");
    }
    assert_eq!(beta.read("f"), "content");
    let waiting = alpha.rows(Table::Dirty).into_iter().filter(|row| row.ends_with(&beta.host)).count();
    assert!(waiting >= 2, "{:?}", alpha.rows(Table::Dirty));
    alpha.database.execute(&cluster.fill_in("DELETE FROM x509_cert WHERE peername = '{beta}'"));
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

fn a_changed_client_certificate_is_refused(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-x"]).success();
    certs::write_new(alpha.system_dir(), "another");
    alpha.put(&tree! { "f" => "from somebody else?" });
    alpha.csync2(["-xvvv"]).exits(1).logs("Identification failed!");
    assert_eq!(beta.read("f"), "content");
    beta.database.execute("DELETE FROM x509_cert");
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

fn certificates_by_the_manual_are_good(cast: Cast) {
    for bits in [1024, 2048] {
        let cluster = cast.cluster(["alpha", "beta"]).build();
        for node in cluster.nodes() {
            certs::write_by_the_manual(node.system_dir(), bits);
        }
        cluster["beta"].serve();
        cluster["alpha"].put(&tree! { "f" => "content" });
        cluster["alpha"].csync2(["-x"]).success();
        cluster.expect_agreement();
    }
}

/// A tree like that of a real host: many small files, a few large ones, links, deep directories.
fn real_tree(files: usize) -> Tree {
    let mut tree = Tree::new();
    for number in 0..files {
        let directory = format!("usr/share/package{}/part {}", number % 97, number % 7);
        let mode = if number % 50 == 0 { 0o755 } else { 0o644 };
        let content = format!("line of file {number}\n").repeat(number % 40);
        let entry = file(&content).mode(mode).mtime(1_400_000_000 + i64::try_from(number).expect("small"));
        tree = tree.with(format!("{directory}/file-{number}.txt"), entry);
        if number % 20 == 0 {
            tree = tree.with(format!("{directory}/link-{number}"), link(format!("file-{number}.txt")));
        }
    }
    tree.with("usr/share/large", "0123456789abcdef".repeat(100_000)).with("usr/empty", dir().mode(0o700))
}

/// Pushes a tree to three peers at once, then a change, a removal and a renamed directory.
fn push_to_three(cluster: &Cluster) {
    let alpha = &cluster["alpha"];
    // More than go into one chunk of rows; tests/big has as many as a real host.
    alpha.put(&real_tree(1000));
    alpha.csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    alpha.expect_clean();
    alpha.csync2(["-xv"]).success().logs_no("Connecting");

    alpha.put(&tree! { "usr/share/package1/part 1/file-1.txt" => "changed, and longer than it was before" });
    alpha.remove("usr/share/package2/part 2/file-2.txt");
    alpha.rename("usr/share/package3", "usr/share/renamed package");
    alpha.csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    alpha.expect_clean();
}

fn three_peers(client: Program, backend: Backend, tls: bool) -> Cluster {
    let cast = Cast { client, server: Program::Ours, tls, backend };
    let builder = cast.cluster(["alpha", "beta", "gamma", "delta"]);
    let builder = builder.role("beta", Program::Ours, Backend::Postgres).role("gamma", Program::Ours, Backend::Sqlite);
    builder.role("delta", Program::Reference, Backend::Sqlite).start()
}

#[test]
fn ours_serves_three_peers_at_once_on_postgres() {
    push_to_three(&three_peers(Program::Ours, Backend::Postgres, true));
}

#[test]
fn ours_serves_three_peers_at_once_on_sqlite() {
    push_to_three(&three_peers(Program::Ours, Backend::Sqlite, false));
}

#[test]
fn the_c_program_serves_three_peers() {
    push_to_three(&three_peers(Program::Reference, Backend::Sqlite, true));
}

/// One node's state in the hands of both programs, one after the other.
fn state_in_turns(backend: Backend) {
    let cast = Cast { client: Program::Reference, server: Program::Reference, tls: true, backend };
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    // (No links: the C program records none of their targets below a prefix, and marks them again when we have.)
    alpha.put(&tree! { "f" => "first", "d/with blank" => "1", "p" => fifo(), "ümläut" => "22" });
    let mut turns = [Program::Reference, Program::Ours].into_iter().cycle().take(7).zip(1..);
    let (first, _) = turns.next().expect("a turn");
    alpha.csync2_by(first, ["-x"]).success();
    for (program, turn) in turns {
        // What the other program knows is known: nothing is sent again.
        alpha.csync2_by(program, ["-xv"]).success().logs_no("Marking").logs_no("Connecting");
        alpha.put(&tree! { "f" => "x".repeat(turn), format!("new {turn}") => "y" });
        if turn > 3 {
            alpha.remove(format!("new {}", turn - 2));
        }
        alpha.csync2_by(program, ["-cr", "/"]).success();
        let other = if program == Program::Ours { Program::Reference } else { Program::Ours };
        let waiting = alpha.csync2_by(program, ["-M"]).success().stdout_text();
        alpha.csync2_by(other, ["-M"]).success().prints(&waiting);
        alpha.csync2_by(other, ["-u"]).success();
        cluster.expect_agreement();
        alpha.csync2_by(program, ["-M"]).exits(2).silent();
    }
}

#[test]
fn the_state_is_used_in_turns_on_sqlite() {
    state_in_turns(Backend::Sqlite);
}

#[test]
fn the_state_is_used_in_turns_on_postgres() {
    state_in_turns(Backend::Postgres);
}

#[test]
fn a_served_state_is_used_in_turns() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let cast = Cast { client: Program::Reference, server: Program::Ours, tls: false, backend };
        let cluster = cast.cluster(["alpha", "beta"]).start();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        alpha.put(&tree! { "f" => "first", "d/g" => "1" });
        alpha.csync2(["-x"]).success();
        // What our server wrote is what the C program would have written.
        beta.csync2_by(Program::Reference, ["-cr", "/"]).success();
        beta.csync2_by(Program::Reference, ["-M"]).exits(2).silent();
        let listed = alpha.csync2(["-L"]).success().stdout_text();
        beta.csync2_by(Program::Reference, ["-L"]).success().prints(&listed);
        beta.csync2_by(Program::Ours, ["-L"]).success().prints(&listed);
    }
}

/// The fork keeps nanoseconds in checktxt.
#[test]
fn the_database_of_the_fork_is_used_as_it_is() {
    let cast = Cast::plain(Program::Ours, Program::Ours);
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => file("hello\n").mtime(1_600_000_000) });
    let script = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fork/fork-database.sql"));
    let script = script.expect("read the script").replace("1600000000123456789", "1600000000000000000");
    alpha
        .database
        .execute(&script.replace("1.csync2.test", &alpha.host).replace("2.csync2.test", &cluster["beta"].host));
    alpha.csync2(["-crv", "/"]).success().logs_no("Marking");
    alpha.put(&tree! { "f" => file("hello\n").mtime(1_600_000_001) });
    alpha.csync2(["-crv", "/"]).success().logs("Marking file as dirty: %d%/f");
    cluster["beta"].serve();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}
