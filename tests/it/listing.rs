//! Parity: on the same state our program prints what the C program prints, exits with the same code and leaves the
//! same rows and files behind.

use std::process::Command;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::run;
use crate::support::tree::file;
use crate::support::{Cast, Postgres, Program, Table, Tree, assert_same, link, tree};

/// A copy of a cluster's trees and SQLite databases, to begin again from.
struct Snapshot<'c> {
    cluster: &'c Cluster,
}

impl<'c> Snapshot<'c> {
    fn take(cluster: &'c Cluster) -> Self {
        shell(&format!(
            "cd '{}' && rm -rf saved && mkdir saved && cp -a alpha beta saved",
            cluster.directory().display()
        ));
        copy_schema(cluster, "public", "saved");
        Snapshot { cluster }
    }

    fn restore(&self) {
        let copy = "for n in alpha beta; do rm -rf $n/tree $n/db; cp -a saved/$n/tree saved/$n/db $n; done";
        shell(&format!("cd '{}' && {copy}", self.cluster.directory().display()));
        copy_schema(self.cluster, "saved", "public");
    }
}

/// In each node's PostgreSQL database: drops `to` and makes it anew from the tables of `from`.
fn copy_schema(cluster: &Cluster, from: &str, to: &str) {
    let statements = format!(
        "SET client_min_messages = warning; SET ROLE node; DROP SCHEMA IF EXISTS {to} CASCADE; CREATE SCHEMA {to};
        DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{from}' LOOP
                EXECUTE format('CREATE TABLE {to}.%I (LIKE {from}.%I INCLUDING ALL)', name, name);
                EXECUTE format('INSERT INTO {to}.%I SELECT * FROM {from}.%I', name, name);
            END LOOP;
        END $$"
    );
    for name in cluster.nodes().iter().filter_map(Node::database_name) {
        Postgres::shared().sql(name, &statements);
    }
}

fn shell(script: &str) {
    let mut command = Command::new("bash");
    command.args(["-ec", script]);
    run(command).success();
}

/// What a run leaves: its output, the rows of both nodes, the peer's tree.
#[derive(Debug, PartialEq)]
struct Outcome {
    stdout: String,
    code: Option<i32>,
    log: Vec<String>,
    rows: Vec<String>,
}

/// The lines of stderr that scripts grep, in an order that does not depend on which peer comes first.
fn known_lines(log: &str) -> Vec<String> {
    let known = [
        "Marking file as dirty: ",
        "Connecting to host ",
        "Updating ",
        "Deleting ",
        "File is already up to date on peer.",
        "File stays in dirty state. Try again later...",
        "WARNING: Parameter will be ignored: ",
        "ERROR: Connection to remote host ",
        "Connection closed.",
        "Finished with ",
    ];
    let mut lines: Vec<String> =
        log.lines().filter(|line| known.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn outcome(cluster: &Cluster, program: Program, arguments: &[String]) -> (Outcome, Tree) {
    let output = cluster["alpha"].csync2_by(program, arguments);
    // (Reading the rows waits until the peer has committed them.)
    let mut rows = Vec::new();
    for node in cluster.nodes() {
        for table in [Table::File, Table::Dirty, Table::Hint] {
            // The C program records no target for links below a prefix; ours does.
            let without_target = |row: &str| row.split_once("target=").map_or(row, |(before, _)| before).to_owned();
            let shown = |row: String| format!("{} {table:?}: {}", node.host, without_target(&row));
            rows.extend(node.rows(table).into_iter().map(shown));
        }
    }
    let outcome =
        Outcome { stdout: output.stdout_text(), code: output.code, log: known_lines(&output.stderr_text()), rows };
    (outcome, cluster["beta"].tree())
}

/// Runs each command line with the C program, then with ours, each time on the state as it is now.
fn compare(cluster: &Cluster, commands: &[&str]) {
    let snapshot = Snapshot::take(cluster);
    for command in commands {
        let arguments: Vec<String> = command.split(' ').map(|argument| cluster.fill_in(argument)).collect();
        let (expected, expected_tree) = outcome(cluster, Program::Reference, &arguments);
        snapshot.restore();
        let (ours, our_tree) = outcome(cluster, Program::Ours, &arguments);
        snapshot.restore();
        assert_eq!(ours, expected, "`{command}`: left ours, right the C program's");
        assert_same(&expected_tree, &our_tree);
    }
}

const LISTINGS: [&str; 12] = [
    "-L",
    "-M",
    "-H",
    "-Lv",
    "-Mv",
    "-S {alpha} {beta}",
    "-S {beta} {alpha}",
    "-S {ALPHA} {beta}",
    "-S nobody {beta}",
    "-L -G demo",
    "-M -P {beta}",
    "-R",
];

const RUNS: [&str; 20] = [
    "-x",
    "-xv",
    "-xd",
    "-xdv",
    "-c",
    "-cv",
    "-cr /",
    "-crv /",
    "-cv {alpha.tree}/changed",
    "-crv {alpha.tree}/d",
    "-cIr /",
    "-crF /",
    "-u",
    "-uv",
    "-ud",
    "-udv",
    "-cu",
    "-cuv",
    "-xv -P nobody",
    "-c {alpha.tree}/nothing",
];

/// Runs both lists in a fresh cluster, after a push, and with changes of every kind waiting.
fn compare_in_all_states(backend: Backend) {
    let cast = Cast { client: Program::Reference, server: Program::Reference, tls: false, backend };
    // Restoring a server's databases takes its time: there each command line runs once, without `-v`.
    let is_run = |command: &&str| backend == Backend::Sqlite || !command.contains('v');
    let runs: Vec<&str> = RUNS.into_iter().filter(is_run).collect();
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "changed" => "before", "gone" => "soon", "d/a" => "1", "d/b b" => "22", "z" => link("d"), "ü%" => "333" });
    cluster["beta"].csync2(["-cr", "/"]).success();
    alpha.csync2(["-L"]).exits(2);
    compare(&cluster, &LISTINGS);

    alpha.csync2(["-x"]).success();
    compare(&cluster, &[&LISTINGS[..], &runs].concat());

    alpha.put(
        &tree! { "changed" => "afterwards", "d/new" => "n", "d/a" => file("1").mode(0o600), "conflict" => "alpha" },
    );
    cluster["beta"].put(&tree! { "conflict" => "of beta" });
    alpha.remove("gone");
    alpha.csync2(["-h".as_ref(), alpha.path("changed").as_os_str()]).success();
    compare(&cluster, &runs);

    alpha.csync2(["-cr", "/"]).success();
    alpha.csync2(["-f".as_ref(), alpha.path("changed").as_os_str()]).success();
    compare(&cluster, &LISTINGS);
    compare(&cluster, &["-u", "-uv", "-ud", "-u -P {beta}", "-m {alpha.tree}/z", "-fr /", "-f {alpha.tree}/gone"]);

    cluster["beta"].stop();
    compare(&cluster, &["-u", "-uv", "-ud", "-x"]);
}

#[test]
fn same_output_and_effect_on_sqlite() {
    compare_in_all_states(Backend::Sqlite);
}

#[test]
fn same_output_and_effect_on_postgres() {
    compare_in_all_states(Backend::Postgres);
}
