//! The same story told by several clusters, step by step, and what came of it compared: the C program in every role is
//! the truth, and with ours in any role everything must be the same but for the [`Deviation`]s that the test lists.
//!
//! Compared after each run of a program: the trees of all nodes, the tables, the exit code, stdout, and the lines of the
//! log, the servers' included. Log lines are sorted, since our peers are served side by side. Names of hosts,
//! directories and ports are replaced by what they stand for. What the lines look like is for `record`, which
//! differences are granted for `deviation`.

mod deviation;
mod record;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Deref;

pub(crate) use deviation::Deviation;
pub(crate) use record::Part;
use record::Step;

use super::cast::{Backend, Cast, Program};
use super::cluster::{Builder, Cluster, Node};

/// A story yet to be told.
pub(crate) struct Differential<'a> {
    nodes: Vec<&'a str>,
    builder: Box<dyn Fn(Builder) -> Builder + 'a>,
    deviations: Vec<Deviation>,
    mixed: Vec<Vec<Program>>,
    c_on_postgres: bool,
    tls_only: bool,
}

impl<'a> Differential<'a> {
    /// A cluster with these nodes, the first one being the client; all serve.
    pub(crate) fn of(nodes: impl IntoIterator<Item = &'a str>) -> Self {
        Differential {
            nodes: nodes.into_iter().collect(),
            builder: Box::new(|builder| builder),
            deviations: deviation::everywhere(),
            mixed: Vec::new(),
            c_on_postgres: true,
            tls_only: false,
        }
    }

    /// What the cluster is like.
    pub(crate) fn with(mut self, builder: impl Fn(Builder) -> Builder + 'a) -> Self {
        self.builder = Box::new(builder);
        self
    }

    /// Grants a difference in this story.
    pub(crate) fn but(mut self, deviation: Deviation) -> Self {
        self.deviations.push(deviation);
        self
    }

    /// Instead of the roles of client and server: these clusters, where each node has a program of its own.
    pub(crate) fn mixed(mut self, programs: impl IntoIterator<Item = Vec<Program>>) -> Self {
        self.mixed = programs.into_iter().collect();
        self
    }

    /// Leaves out the clusters in which the C program has a PostgreSQL, which refuses what it is given.
    pub(crate) fn without_c_on_postgres(mut self) -> Self {
        self.c_on_postgres = false;
        self
    }

    /// The truth has TLS as well, and so has everybody.
    pub(crate) fn over_tls(mut self) -> Self {
        self.tls_only = true;
        self
    }

    /// Has each cluster tell the story. Panics with every difference of the first step that has one, for each cluster;
    /// also where a deviation listed for this story never shows, since it is no longer needed.
    #[track_caller]
    pub(crate) fn tell(self, story: impl Fn(&mut Story)) {
        let c = Program::Reference;
        let cast = Cast { tls: self.tls_only, ..Cast::plain(c, c) };
        let truth = self.record(cast, &vec![c; self.nodes.len()], &[], &story);
        let mut failures = String::new();
        for (cast, programs, no_batches) in self.casts() {
            let told = self.record(cast, &programs, no_batches, &story);
            let differences = self.first_differences(&truth, &told);
            if !differences.is_empty() {
                let transport = if cast.tls { "TLS" } else { "plain" };
                let heading = format!("{programs:?}, without batches: {no_batches:?}, {transport}, {:?}", cast.backend);
                write!(failures, "\n=== {heading}\n{differences}").expect("to a string");
            }
        }
        for deviation in self.deviations.iter().filter_map(Deviation::stale) {
            write!(failures, "\nnever seen, so not to be granted: {deviation}").expect("to a string");
        }
        assert!(
            failures.is_empty(),
            "told otherwise than by the C program (-: it alone, +: this cluster alone){failures}"
        );
    }

    /// All combinations but the truth's, each in plain surroundings and in those of a cluster in earnest; and one in which all
    /// dialects meet. The numbers are those of nodes that speak the fork's instead of batches.
    fn casts(&self) -> Vec<(Cast, Vec<Program>, &'static [usize])> {
        let (c, ours) = (Program::Reference, Program::Ours);
        let roles = |client, server| {
            let mut programs = vec![server; self.nodes.len()];
            programs[0] = client;
            programs
        };
        let mut all = self.mixed.clone();
        if all.is_empty() {
            all = vec![roles(ours, c), roles(c, ours), roles(ours, ours)];
        }
        let make = |programs: Vec<Program>| {
            let (client, server) = (programs[0], programs[1]);
            let simple = Cast { tls: self.tls_only, ..Cast::plain(client, server) };
            [simple, Cast::full(client, server)].map(|cast| (cast, programs.clone(), &[][..]))
        };
        let possible = |(cast, programs, _): &(Cast, Vec<Program>, _)| {
            self.c_on_postgres || cast.backend == Backend::Sqlite || !programs.contains(&c)
        };
        let mut casts: Vec<(Cast, Vec<Program>, &'static [usize])> =
            all.into_iter().flat_map(make).filter(possible).collect();
        let programs = [ours, ours, c, ours, ours];
        let cast = Cast { tls: self.tls_only, ..Cast::plain(ours, ours) };
        casts.push((cast, programs[..self.nodes.len()].to_vec(), &[0, 3]));
        casts
    }

    fn record(&self, cast: Cast, programs: &[Program], no_batches: &[usize], story: &impl Fn(&mut Story)) -> Vec<Step> {
        let mut builder = (self.builder)(cast.cluster(self.nodes.iter().copied()));
        for (name, program) in self.nodes.iter().zip(programs) {
            builder = builder.role(name, *program, cast.backend);
        }
        let cluster = builder.build();
        let truth = !programs.contains(&Program::Ours) && cast.backend == Backend::Sqlite;
        let mut story_told = Story { cluster, truth, steps: Vec::new(), heard: RefCell::default() };
        for (number, node) in story_told.cluster.nodes().iter().enumerate() {
            if no_batches.contains(&number) {
                node.use_no_batches();
            }
            node.serve();
        }
        story(&mut story_told);
        story_told.steps
    }

    fn first_differences(&self, truth: &[Step], told: &[Step]) -> String {
        assert_eq!(truth.len(), told.len(), "a story has the same steps for everyone");
        for (number, (truth, told)) in (1..).zip(truth.iter().zip(told)) {
            let differences = truth.differences(told, &self.deviations);
            if !differences.is_empty() {
                return format!("step {number}, {}\n{}", told.title, differences.join("\n"));
            }
        }
        String::new()
    }
}

/// A cluster that tells its story. What happens to its nodes' trees happens through the [`Cluster`] that it stands for.
pub(crate) struct Story {
    cluster: Cluster,
    truth: bool,
    steps: Vec<Step>,
    /// For each node that serves: how many sessions it was asked for, and how many lines of its log were recorded.
    heard: RefCell<BTreeMap<String, Heard>>,
}

#[derive(Default)]
struct Heard {
    sessions: usize,
    lines: usize,
}

impl Deref for Story {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Story {
    /// Runs the program of a node to its end and records what came of it. The arguments may hold `{NAME}` and the like.
    #[track_caller]
    pub(crate) fn run<'b>(&mut self, name: &str, arguments: impl IntoIterator<Item = &'b str>) {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let filled: Vec<String> = arguments.iter().map(|argument| self.cluster.fill_in(argument)).collect();
        let output = self.cluster[name].csync2(&filled);
        let log = output.stderr_text();
        let mut step = Step::new(format!("{name}: csync2 {}", arguments.join(" ")));
        step.add(name, Part::Exit, &output.code.map_or("a signal".into(), |code| code.to_string()));
        step.print(name, &record::neutral(&self.cluster, &output.stdout_text()));
        for line in log.lines() {
            step.add(name, Part::Log, &record::neutral(&self.cluster, line));
        }
        for node in self.cluster.nodes() {
            let names = [node.host.clone(), node.iface()];
            let asked = names.iter().map(|name| log.matches(&format!("Connecting to host {name} ")).count()).sum();
            self.hear(node, asked, &mut step);
        }
        self.cluster.nodes().iter().for_each(|node| step.observe(&self.cluster, node));
        self.steps.push(step);
    }

    /// Waits until the sessions that a node was asked for are over, actions included, and records what it said.
    fn hear(&self, node: &Node, sessions: usize, step: &mut Step) {
        if !node.serves() {
            self.heard.borrow_mut().remove(node.name());
            return;
        }
        let mut heard = self.heard.borrow_mut();
        let heard = heard.entry(node.name().to_owned()).or_default();
        heard.sessions += sessions;
        let lines = node.daemon().wait_for_all("Finished with ", heard.sessions);
        for line in &lines[heard.lines..] {
            step.add(node.name(), Part::Log, &record::session_line(&self.cluster, line));
        }
        heard.lines = lines.len();
    }

    /// Removes the state of a node, as when somebody deletes its directory while nothing runs.
    pub(crate) fn forget(&self, name: &str) {
        self.stop(name);
        self.cluster[name].database.remove();
        self.cluster[name].serve();
    }

    /// Stops the daemon of a node.
    pub(crate) fn stop(&self, name: &str) {
        self.heard.borrow_mut().remove(name);
        self.cluster[name].stop();
    }

    /// The other program takes over the state of a node, but for the truth, where the C program stays.
    pub(crate) fn hand_over(&mut self, name: &str) {
        let truth = self.truth;
        let node = self.cluster.node_mut(name);
        if !truth {
            node.program = if node.program == Program::Ours { Program::Reference } else { Program::Ours };
        }
        self.stop(name);
        self.cluster[name].serve();
    }
}
