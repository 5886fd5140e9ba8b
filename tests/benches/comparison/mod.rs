//! The comparison: every workload by everyone who can do it, in the same run, several times over.
//!
//! Each measurement begins with fresh targets and a state of its own; the source is the same for all and in the page cache.
//! The order changes from round to round, so that nobody profits from its place in it.

mod contender;
mod csync2;
mod goals;
mod link;
mod measure;
mod report;
mod rsync;
mod source;
mod workload;

use std::any::Any;
use std::cell::RefCell;
use std::time::Duration;

use contender::Contender;
use measure::Measurement;
use source::Source;
use workload::{Kind, Task};

pub(crate) use report::Report;
pub(crate) use workload::Workload;

/// Half a round trip to a peer that is far away.
const FAR: Duration = Duration::from_millis(5);

/// What is measured, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) rounds: u32,
    /// Parts of names; empty: all contenders.
    pub(crate) only: Vec<String>,
    /// Before each measurement everything is written out, so that what others have written is not at this one's cost.
    pub(crate) settled: bool,
}

/// Measures one workload of the plan. Progress goes to stderr; a program that fails is a panic.
pub(crate) fn compare(workload: Workload, plan: &Plan) -> Report {
    let mut report = Report::default();
    let source = Source::make(workload);
    let leftovers = RefCell::default();
    for round in 0..plan.rounds {
        let mut contenders = workload.contenders(round == 0);
        contenders.retain(|one| plan.only.is_empty() || plan.only.iter().any(|part| one.to_string().contains(part)));
        let first = round as usize % contenders.len().max(1);
        contenders.rotate_left(first);
        for contender in contenders {
            let run = Run { workload, contender, source: &source, settled: plan.settled, leftovers: &leftovers };
            for (task, measurement) in run.all() {
                eprintln!("round {}: {}: {contender}: {measurement}", round + 1, workload.title(task));
                report.add(workload, task, contender, measurement);
            }
        }
    }
    report
}

/// One contender's turn.
#[derive(Clone, Copy)]
struct Run<'a> {
    workload: Workload,
    contender: Contender,
    source: &'a Source,
    settled: bool,
    /// What is removed behind the last turn.
    leftovers: &'a RefCell<Vec<Box<dyn Any>>>,
}

impl Run<'_> {
    /// Prepares, does and verifies what belongs to the workload.
    fn all(self) -> Vec<(Task, Measurement)> {
        match self.contender {
            Contender::Csync2(cast) => csync2::run(self, cast),
            Contender::Rsync { fsync, in_place } => rsync::run(self, fsync, in_place),
            Contender::Find => self.workload.tasks().iter().map(|&task| (task, self.find())).collect(),
            Contender::Bare => vec![(Task::Start, self.bare())],
        }
    }

    /// Nothing that was prepared is still to be written; then the time runs.
    fn measure(self, clients: &[measure::Client], servers: &[link::Server]) -> Measurement {
        if self.settled {
            rustix::fs::sync();
        }
        measure::measure(clients, servers)
    }

    /// The turn is over. What is removed keeps the file system busy long afterwards, at the cost of the next turn: thousands
    /// of files stay until nobody has one any more.
    fn leave(self, what: impl Any) {
        if !self.workload.kind.is_large() {
            self.leftovers.borrow_mut().push(Box::new(what));
        }
    }

    /// How long each byte takes from end to end.
    fn delay(self) -> Duration {
        if self.workload.kind == Kind::Far { FAR } else { Duration::ZERO }
    }

    fn find(self) -> Measurement {
        let mut find = std::process::Command::new("find");
        find.arg(self.source.tree()).args(["-printf", "%p %y %s %T@ %m %U %G\\n"]);
        self.measure(&[find.into()], &[])
    }

    fn bare(self) -> Measurement {
        let bare = || measure::measure(&[std::process::Command::new("true").into()], &[]);
        Measurement::mean((0..self.workload.size).map(|_| bare()))
    }
}
