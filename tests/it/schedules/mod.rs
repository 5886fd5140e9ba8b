//! Random schedules of changes, runs and faults, against a model of the cluster: real processes are killed at random moments,
//! connections are cut, databases fail. After recovery and one more run of each node all have converged, every change is
//! there, and conflicts were told only of what several nodes had changed.
//!
//! Every schedule has a number, from which it is made again: `CSYNC2_SCHEDULES=17..18`. When exactly a process dies is not
//! in the number, so that a failure may need some attempts to be seen again.

mod model;
mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use self::model::Model;
use self::plan::{NAMES, Random, Step, Surroundings, steps};
use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::cutting::Line;
use crate::support::postgres_proxy::{PostgresProxy, RAISE};
use crate::support::process::run;
use crate::support::{Cast, Postgres, Program, Tree, dir};

/// How many schedules an ordinary run looks at.
const SCHEDULES: u64 = 30;

const KINDS: u64 = 6;

fn schedules() -> Range<u64> {
    let Ok(wanted) = std::env::var("CSYNC2_SCHEDULES") else { return 0..SCHEDULES };
    let parsed = wanted.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed
        .or_else(|| Some(0..wanted.parse().ok()?))
        .expect("CSYNC2_SCHEDULES is a number of schedules or a range: 60..500")
}

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

/// What stands between the nodes of a cluster, and between them and their databases.
struct Stage {
    cluster: Cluster,
    lines: Vec<Line>,
    /// Where the daemons listen, behind the lines.
    ports: Vec<u16>,
    databases: Vec<Option<PostgresProxy>>,
    faults: bool,
}

impl Stage {
    fn new(backends: &[Backend], words: &str, with_c: bool) -> Self {
        let mut builder = Cast::sqlite(Program::Ours).cluster(NODES[..backends.len()].iter().copied()).top(words);
        for (index, (name, backend)) in NODES.iter().zip(backends).enumerate() {
            let program = if with_c && index == 2 { Program::Reference } else { Program::Ours };
            builder = builder.role(name, program, *backend);
        }
        let cluster = builder.build();
        let databases = cluster.nodes().iter().map(|node| {
            // It makes the tables.
            node.csync2(["-cIr", "/"]).success();
            let name = node.database_name()?;
            let server = Postgres::shared();
            server.sql(name, RAISE);
            let proxy = PostgresProxy::start(server.port());
            let direct = format!(":{}/", server.port());
            node.reach_database_at(&server.user_url(name).replace(&direct, &format!(":{}/", proxy.port())));
            Some(proxy)
        });
        let databases = databases.collect();
        let at = |node: &Node, port| SocketAddr::new(node.host.parse().expect("an address"), port);
        let free = |node: &Node| {
            TcpListener::bind(at(node, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
        };
        let ports: Vec<u16> = cluster.nodes().iter().map(free).collect();
        let lines =
            cluster.nodes().iter().zip(&ports).map(|(node, &port)| Line::between(at(node, node.port), at(node, port)));
        let lines = lines.collect();
        let stage = Self { cluster, lines, ports, databases, faults: !with_c };
        (0..backends.len()).for_each(|node| stage.serve(node));
        stage
    }

    fn node(&self, number: usize) -> &Node {
        &self.cluster.nodes()[number]
    }

    fn serve(&self, node: usize) {
        self.node(node).serve_with(&["-ii", "-p", &self.ports[node].to_string()]);
    }

    /// The same files on all nodes, known and not dirty.
    fn reset(&self, contents: &BTreeMap<&'static str, String>) {
        let files = contents.iter().fold(Tree::new(), |tree, (name, content)| {
            tree.with(name, crate::support::tree::file(content).mtime(1_500_000_000))
        });
        for node in self.cluster.nodes() {
            node.clear();
            node.put(&files.clone().with("d", dir()));
            let ours =
                if node.program == Program::Ours { "DELETE FROM csync2_intent; DELETE FROM csync2_claim;" } else { "" };
            node.database.execute(&format!("DELETE FROM file; DELETE FROM dirty; DELETE FROM hint; {ours}"));
            node.csync2(["-cIr", "/"]).success();
        }
    }
}

/// One schedule at work.
struct Schedule<'s> {
    stage: &'s Stage,
    model: Model,
    written: usize,
    /// What all runs have logged.
    log: String,
}

impl Schedule<'_> {
    fn play(&mut self, step: &Step) {
        match *step {
            Step::Write { node, name, length } => self.write(node, name, length),
            Step::Remove { node, name } => {
                if fs::remove_file(self.stage.node(node).path(name)).is_ok() {
                    self.model.changes(node, name, None);
                }
            }
            Step::RemoveDirectory { node } => {
                if fs::remove_dir_all(self.stage.node(node).path("d")).is_ok() {
                    self.model.makes_or_removes_directory(node);
                    for name in NAMES.into_iter().filter(|name| name.starts_with("d/")) {
                        self.model.changes(node, name, None);
                    }
                }
            }
            Step::Check { node } => {
                let output = self.stage.node(node).csync2(["-cr", "/"]);
                self.log.push_str(&output.stderr_text());
            }
            Step::Run { ref nodes } => {
                let runs: Vec<Child> = nodes.iter().map(|&node| self.begin(node)).collect();
                for run in runs {
                    self.end(run);
                }
            }
            Step::Meanwhile { node, name, after, length } => {
                let run = self.begin(node);
                thread::sleep(Duration::from_micros(after));
                self.write(node, name, length);
                self.end(run);
            }
            Step::Killed { node, after } => self.signalled(node, after, Signal::KILL),
            Step::Stopped { node, after } => self.signalled(node, after, Signal::TERM),
            Step::PeerKilled { node, peer, after } => {
                let run = self.begin(node);
                thread::sleep(Duration::from_micros(after));
                self.stage.node(peer).stop();
                self.end(run);
                self.stage.serve(peer);
            }
            Step::Cut { node, peer, cut } => {
                self.stage.lines[peer].cut_next(Some(cut));
                let run = self.begin(node);
                self.end(run);
                self.stage.lines[peer].cut_next(None);
            }
            Step::DatabaseFails { node, at, fault, before } => {
                let run = self.begin(node);
                if let Some(proxy) = &self.stage.databases[at] {
                    proxy.arm(fault, before);
                }
                self.end(run);
                if let Some(proxy) = &self.stage.databases[at] {
                    proxy.disarm();
                }
            }
            Step::DatabaseCut { node, at, after } => {
                let run = self.begin(node);
                thread::sleep(Duration::from_micros(after));
                if let Some(proxy) = &self.stage.databases[at] {
                    proxy.cut_all();
                }
                self.end(run);
            }
        }
    }

    /// Of a length that no other content has, where the C program has to see the change.
    fn write(&mut self, node: usize, name: &'static str, length: usize) {
        self.written += 1;
        let unique = if self.stage.faults { length } else { 100 + self.written };
        let content = format!("{:04}{}", self.written, "x".repeat(unique));
        let path = self.stage.node(node).path(name);
        let directory = path.parent().expect("a directory");
        if !directory.exists() {
            self.model.makes_or_removes_directory(node);
            // A session may be making it.
            drop(fs::create_dir(directory));
        }
        // Nobody finds half of it.
        let new = self.stage.node(node).base().join("new");
        fs::write(&new, &content).expect("write a file");
        if fs::rename(&new, &path).is_ok() {
            self.model.changes(node, name, Some(content));
        }
    }

    fn begin(&self, node: usize) -> Child {
        let node = self.stage.node(node);
        let mut command: Command = node.command(node.program, ["-x"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("start a run")
    }

    fn end(&mut self, run: Child) {
        let output = run.wait_with_output().expect("wait for a run");
        self.log.push_str(&String::from_utf8_lossy(&output.stderr));
    }

    fn signalled(&mut self, node: usize, after: u64, signal: Signal) {
        let run = self.begin(node);
        thread::sleep(Duration::from_micros(after));
        // It may have ended.
        let _ = kill_process(Pid::from_child(&run), signal);
        self.end(run);
    }

    /// What must be true in the end.
    fn judge(&mut self) {
        for node in self.stage.cluster.nodes() {
            let output = run(node.command(node.program, ["-x"]));
            self.log.push_str(&output.stderr_text());
            if !self.model.has_disputes() {
                output.success();
            }
        }
        for name in NAMES {
            let outcomes = self.model.outcomes(name);
            let contents = self.stage.cluster.nodes().iter().map(|node| fs::read_to_string(node.path(name)).ok());
            let contents: Vec<Option<String>> = contents.collect();
            for (content, node) in contents.iter().zip(NODES) {
                assert!(
                    outcomes.contains(content),
                    "{name} on {node} is {}, not {}",
                    short(content.as_ref()),
                    all(&outcomes)
                );
            }
            if self.model.must_agree(name) {
                assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {}", all(&contents));
            }
        }
        for line in self.log.lines().filter(|line| line.contains("also marked dirty") || line.contains("auto-resolve"))
        {
            let name = NAMES.into_iter().find(|name| line.contains(&format!("%d%/{name}")));
            let is_explained = match name {
                Some(name) => self.model.is_disputed(name),
                None => self.model.has_disputes(),
            };
            assert!(is_explained, "a conflict that is none: {line}");
        }
        for node in self.stage.cluster.nodes() {
            for (name, _) in node.tree().iter() {
                let is_known = name == b"." || name == b"d" || NAMES.iter().any(|known| known.as_bytes() == name);
                assert!(is_known, "{} on {}", name.escape_ascii(), node.name());
            }
            // What each node has on disk is what its tables say.
            node.csync2(["-crv", "/"]).logs_no("Marking");
            let dirty = node.csync2(["-M"]).stdout_text();
            let undisputed = |line: &&str| {
                !NAMES.iter().any(|name| line.ends_with(&format!("/{name}")) && self.model.is_disputed(name))
            };
            let unexplained: Vec<&str> =
                dirty.lines().filter(undisputed).filter(|_| !self.model.has_disputes()).collect();
            assert_eq!(unexplained, Vec::<&str>::new(), "dirty on {}", node.name());
        }
    }
}

fn short(content: Option<&String>) -> String {
    content.map_or("gone".to_owned(), |content| format!("{}… ({})", &content[..4.min(content.len())], content.len()))
}

fn all<'c>(contents: impl IntoIterator<Item = &'c Option<String>>) -> String {
    contents.into_iter().map(|content| short(content.as_ref())).collect::<Vec<_>>().join(", ")
}

fn play(kind: u64, backends: &[Backend], words: &str, with_c: bool) {
    let numbers: Vec<u64> = schedules().filter(|number| number % KINDS == kind).collect();
    if numbers.is_empty() {
        return;
    }
    let stage = Stage::new(backends, words, with_c);
    let surroundings = Surroundings { nodes: backends.len(), faults: stage.faults };
    for number in numbers {
        let mut random = Random::from(number);
        let steps = steps(&mut random, surroundings);
        let contents: BTreeMap<&str, String> = NAMES[1..].iter().map(|&name| (name, format!("old {name}"))).collect();
        stage.reset(&contents);
        let mut schedule = Schedule { stage: &stage, model: Model::with(&contents), written: 0, log: String::new() };
        let told = std::panic::AssertUnwindSafe(|| {
            for step in &steps {
                schedule.play(step);
            }
            schedule.judge();
        });
        if let Err(panic) = std::panic::catch_unwind(told) {
            eprintln!("schedule {number}: {steps:#?}\n{}", schedule.log);
            std::panic::resume_unwind(panic);
        }
    }
}

use Backend::{Postgres as P, Sqlite as S};

#[test]
fn two_nodes_on_sqlite_converge() {
    play(0, &[S, S], "", false);
}

#[test]
fn two_nodes_on_postgres_converge() {
    play(1, &[P, P], "", false);
}

#[test]
fn three_nodes_converge() {
    play(2, &[P, S, P], "", false);
}

#[test]
fn three_nodes_without_batches_converge() {
    play(3, &[S, P, S], "batches no;", false);
}

#[test]
fn two_nodes_without_batches_converge() {
    play(4, &[P, P], "batches no;", false);
}

/// No faults here: what the C program makes of them is not ours to promise.
#[test]
fn two_nodes_and_the_c_program_converge() {
    play(5, &[P, S, S], "", true);
}
