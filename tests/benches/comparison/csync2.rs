//! How either csync2 goes about a workload.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use super::Run;
use super::contender::Csync2;
use super::link::Server;
use super::measure::{Client, Measurement, measure};
use super::workload::{Kind, Task};
use crate::support::Program;
use crate::support::cluster::Cluster;

pub(super) fn run(run: Run<'_>, cast: Csync2) -> Vec<(Task, Measurement)> {
    match run.workload.kind {
        Kind::Check | Kind::Huge => check(run, cast),
        Kind::Compare => vec![(Task::Compare, compare(run, cast))],
        Kind::Start => vec![(Task::Start, start(run, cast))],
        Kind::Status => vec![(Task::Status, status(run, cast))],
        _ => vec![(run.workload.tasks()[0], push(run, cast))],
    }
}

/// With a state that knows of nothing; then once more, with what it knows now.
fn check(run: Run<'_>, cast: Csync2) -> Vec<(Task, Measurement)> {
    let mut measurements = Vec::new();
    for &task in run.workload.tasks().iter().filter(|task| **task != Task::Unchanged) {
        let cluster = cluster(run, cast);
        let mode = if task == Task::Marking { "-cr" } else { "-cIr" };
        measurements.push((task, run.measure(&[command(&cluster, &[mode, "/"]).into()], &[])));
        if task == Task::FirstCheck {
            let again = run.measure(&[command(&cluster, &["-cr", "/"]).into()], &[]);
            measurements.push((Task::Unchanged, again));
        }
        run.leave(cluster);
    }
    measurements
}

fn push(run: Run<'_>, cast: Csync2) -> Measurement {
    let cluster = cluster(run, cast);
    let node = &cluster.nodes()[0];
    let mode = match run.workload.kind {
        Kind::Equal => {
            node.csync2(["-cIr", "/"]).success();
            node.csync2(["-mr", "/"]).success();
            "-u"
        }
        Kind::Removals => {
            run.source.as_before(|| drop(node.csync2(["-cIr", "/"]).success()));
            "-x"
        }
        _ => "-x",
    };
    let servers = servers(run, &cluster);
    let measurement = run.measure(&[command(&cluster, &[mode]).into()], &servers);
    for peer in &cluster.nodes()[1..] {
        run.source.assert_arrived(peer.tree_dir());
    }
    node.expect_clean();
    run.leave(cluster);
    measurement
}

fn compare(run: Run<'_>, cast: Csync2) -> Measurement {
    let cluster = cluster(run, cast);
    cluster.nodes()[0].csync2(["-cIr", "/"]).success();
    // In sync: 2.
    let client = Client { command: command(&cluster, &["-T"]), exit: 2 };
    let measurement = run.measure(&[client], &servers(run, &cluster));
    run.leave(cluster);
    measurement
}

fn start(run: Run<'_>, cast: Csync2) -> Measurement {
    let cluster = cluster(run, cast);
    // Nothing is listed: 2.
    let list = || measure(&[Client { command: command(&cluster, &["-M"]), exit: 2 }], &[]);
    Measurement::mean((0..run.workload.size).map(|_| list()))
}

/// Peers of the dirty rows of [`Kind::Status`].
const STATUS_PEERS: usize = 50;

/// Files of 1,000 bytes and more, each dirty for all peers.
fn status(run: Run<'_>, cast: Csync2) -> Measurement {
    let cluster = cluster(run, cast);
    let node = &cluster.nodes()[0];
    let files = run.workload.size.div_ceil(STATUS_PEERS);
    let numbers = |to: usize| {
        format!("WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {}) ", to.saturating_sub(1))
    };
    let name = |number: &str| format!("'/srv/data/' || ({number} / 100) || '/file-' || {number}");
    node.database.execute(&format!(
        "{} INSERT INTO file (filename, checktxt) SELECT {}, \
         'v1%3Amtime=1700000000%3Amode=33188%3Auid=0%3Agid=0%3Atype=reg%3Asize=' || (1000 + i) FROM n",
        numbers(files),
        name("i")
    ));
    node.database.execute(&format!(
        "{} INSERT INTO dirty (filename, forced, myname, peername) SELECT {}, 0, '{}', 'peer' || (i % {STATUS_PEERS}) FROM n",
        numbers(run.workload.size),
        name(&format!("(i / {STATUS_PEERS})")),
        node.host
    ));
    // Peers that are in no group: a warning.
    let client = Client { command: command(&cluster, &["--status"]), exit: 1 };
    let measurement = run.measure(&[client], &[]);
    run.leave(cluster);
    measurement
}

/// A node with the source as its tree, and peers with what they have at first; their databases are there, and know the
/// peers' files.
fn cluster(run: Run<'_>, cast: Csync2) -> Cluster {
    let names: Vec<String> = (0..=run.workload.peers).map(|number| format!("node{number}")).collect();
    let on = |name: &String| format!("on {{{name}}}: {{{name}.tree}};");
    let config = format!(
        "prefix d {{ on {{node0}}: {}; {} }}\ngroup g {{ host {}; key demo.key; include %d%; }}\n",
        run.source.tree().display(),
        names[1..].iter().map(on).collect::<String>(),
        names.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(" "),
    );
    let cluster = cast.cast().cluster(names.iter().map(String::as_str)).config(&config).build();
    // The C program does not know the words.
    for node in cluster.nodes().iter().filter(|node| node.program == Program::Ours) {
        let path = node.system_dir().join("csync2.cfg");
        let text = fs::read_to_string(&path).expect("read the configuration");
        fs::write(&path, format!("{}\n{text}", cast.configuration())).expect("write the configuration");
    }
    cluster.nodes()[0].csync2(["-c"]).success();
    for peer in &cluster.nodes()[1..] {
        run.source.prepare(peer.tree_dir());
        let check: &[&str] = if run.source.is_known() { &["-cIr", "/"] } else { &["-c"] };
        peer.csync2(check).success();
    }
    cluster
}

/// One for each peer, at the distance of the workload.
fn servers(run: Run<'_>, cluster: &Cluster) -> Vec<Server> {
    let server = |node: &crate::support::cluster::Node| Server {
        listener: TcpListener::bind((node.host.as_str(), node.port)).expect("listen"),
        command: node.command(node.program, ["-i"]),
        delay: run.delay(),
    };
    cluster.nodes()[1..].iter().map(server).collect()
}

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let node = &cluster.nodes()[0];
    node.command(node.program, arguments)
}
