//! What is measured: for each workload the files, and how each contender goes about it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::contender::{ALL, Contender};
use super::measure::{Measurement, Server, measure};
use crate::support::cluster::Cluster;
use crate::support::process::run;
use crate::support::{Cast, Tree};

/// Files in one directory of a source.
const IN_ONE_DIRECTORY: usize = 100;

#[derive(Clone, Copy, Debug)]
pub(super) enum Workload {
    /// The files are looked at, first by someone who knows nothing of them, then once more.
    Check { files: usize },
    /// New files of 1 to 4 KiB are found and brought to all peers.
    Push { files: usize, peers: usize },
}

/// The files of a workload.
pub(super) struct Source {
    directory: TempDir,
}

impl Source {
    pub(super) fn make(workload: Workload) -> Source {
        let directory = tempfile::Builder::new().prefix("csync2-source-").tempdir().expect("make a directory");
        let (files, sizes) = match workload {
            Workload::Check { files } => (files, 16..=16),
            Workload::Push { files, .. } => (files, 1024..=4096),
        };
        // Pseudo-random: no two blocks are alike, and the same in every run.
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for first in (0..files).step_by(IN_ONE_DIRECTORY) {
            let mut tree = Tree::new();
            for number in first..files.min(first + IN_ONE_DIRECTORY) {
                let size = sizes.start() + random() % (sizes.end() - sizes.start() + 1);
                let content: Vec<u8> = (0..size).map(|_| random().to_le_bytes()[1]).collect();
                tree = tree.with(format!("{:04}/{number:06}", first / IN_ONE_DIRECTORY), content);
            }
            tree.write(directory.path());
        }
        Source { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Workload {
    pub(super) fn contenders(self) -> Vec<Contender> {
        let can = |contender: &Contender| match self {
            Workload::Check { .. } => true,
            Workload::Push { .. } => *contender != Contender::Find,
        };
        ALL.into_iter().filter(can).collect()
    }

    /// Lets one contender do it; a measurement for each table that it belongs to.
    pub(super) fn run(self, contender: Contender, source: &Source) -> Vec<(String, Measurement)> {
        let measurements = match (self, contender) {
            (Workload::Check { .. }, Contender::Csync2(program, backend)) => {
                let cluster = cluster(Cast { backend, ..Cast::sqlite(program) }, 1, source);
                ["-cIr", "-cr"].map(|mode| measure(vec![csync2(&cluster, &[mode, "/"])], Vec::new())).to_vec()
            }
            (Workload::Check { .. }, Contender::Rsync) => check_by_rsync(source),
            (Workload::Check { .. }, Contender::Find) => {
                let find = || {
                    let mut find = Command::new("find");
                    find.arg(source.path()).args(["-printf", "%p %y %s %T@ %m %U %G\\n"]);
                    measure(vec![find], Vec::new())
                };
                vec![find(), find()]
            }
            (Workload::Push { peers, .. }, Contender::Csync2(program, backend)) => {
                let cluster = cluster(Cast { backend, ..Cast::sqlite(program) }, peers, source);
                let servers = cluster.nodes()[1..].iter().map(|node| Server {
                    listener: TcpListener::bind((node.host.as_str(), node.port)).expect("listen"),
                    command: node.command(node.program, ["-i"]),
                });
                let measurement = measure(vec![csync2(&cluster, &["-x"])], servers.collect());
                for node in &cluster.nodes()[1..] {
                    assert_arrived(source, node.tree_dir());
                }
                vec![measurement]
            }
            (Workload::Push { peers, .. }, Contender::Rsync) => vec![push_by_rsync(peers, source)],
            (Workload::Push { .. }, Contender::Find) => unreachable!("find pushes nothing"),
        };
        self.titles().into_iter().zip(measurements).collect()
    }

    fn titles(self) -> Vec<String> {
        match self {
            Workload::Check { files } => vec![
                format!("First check of {files} files (`csync2 -cIr /`, `rsync -an` to nothing, `find -printf`)"),
                format!(
                    "Check of {files} files without a change (`csync2 -cr /`, `rsync -an` to a copy, `find -printf`)"
                ),
            ],
            Workload::Push { files, peers } => {
                let to = if peers == 1 { "one peer".into() } else { format!("{peers} peers") };
                vec![format!("Check and push of {files} new files to {to} (`csync2 -x`, `rsync -a` to a daemon each)")]
            }
        }
    }
}

/// A node with the source as its tree, and peers with nothing; their databases are there and empty.
fn cluster(cast: Cast, peers: usize, source: &Source) -> Cluster {
    let names: Vec<String> = (0..=peers).map(|number| format!("node{number}")).collect();
    let on = |name: &String| format!("on {{{name}}}: {{{name}.tree}};");
    let config = format!(
        "prefix d {{ on {{node0}}: {}; {} }}\ngroup g {{ host {}; key demo.key; include %d%; }}\n",
        source.path().display(),
        names[1..].iter().map(on).collect::<String>(),
        names.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(" "),
    );
    let cluster = cast.cluster(names.iter().map(String::as_str)).config(&config).build();
    for node in cluster.nodes() {
        node.csync2(["-c"]).success();
    }
    cluster
}

fn csync2(cluster: &Cluster, arguments: &[&str]) -> Command {
    let node = &cluster.nodes()[0];
    node.command(node.program, arguments)
}

fn rsync(options: &[&str], source: &Source, target: &str) -> Command {
    let mut command = Command::new("rsync");
    command.args(options).arg(format!("{}/", source.path().display())).arg(target);
    command
}

/// A dry run to an empty directory, then one to a copy.
fn check_by_rsync(source: &Source) -> Vec<Measurement> {
    let target = tempfile::tempdir().expect("make a directory");
    let target = target.path().to_str().expect("UTF-8");
    let dry_run = || measure(vec![rsync(&["-an"], source, target)], Vec::new());
    let first = dry_run();
    run(rsync(&["-a"], source, target)).success();
    vec![first, dry_run()]
}

fn push_by_rsync(peers: usize, source: &Source) -> Measurement {
    let directory = tempfile::tempdir().expect("make a directory");
    let targets: Vec<PathBuf> = (0..peers).map(|number| directory.path().join(number.to_string())).collect();
    let started = targets.iter().map(|target| {
        fs::create_dir(target).expect("make a directory");
        let config = target.with_extension("conf");
        let module =
            format!("[tree]\npath = {}\nuse chroot = no\nread only = no\nuid = root\ngid = root\n", target.display());
        fs::write(&config, module).expect("write a config");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let url = format!("rsync://{}/tree/", listener.local_addr().expect("an address"));
        let mut command = Command::new("rsync");
        command.arg("--daemon").arg(format!("--config={}", config.display()));
        (rsync(&["-a"], source, &url), Server { listener, command })
    });
    let (clients, servers) = started.unzip();
    let measurement = measure(clients, servers);
    for target in &targets {
        assert_arrived(source, target);
    }
    measurement
}

/// Names, sizes, modes and times of all files agree.
fn assert_arrived(source: &Source, target: &Path) {
    let list = |directory: &Path| {
        let mut find = Command::new("find");
        find.arg(directory).args(["-type", "f", "-printf", "%P %s %m %Ts\\n"]);
        let text = run(find).success().stdout_text();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(list(source.path()) == list(target), "{} is no copy of the source", target.display());
}
