//! The comparison: every workload by everyone who can do it, in the same run, several times over.
//!
//! Each measurement begins with fresh targets and an empty state; the source is the same for all and in the page cache.
//! The order changes from round to round, so that nobody profits from its place in it.

mod contender;
mod measure;
mod report;
mod workload;

use report::Report;
use workload::{Source, Workload};

/// What is measured, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Files to check.
    pub(crate) files: usize,
    /// Files to push.
    pub(crate) pushed: usize,
    /// Numbers of peers to push to.
    pub(crate) peers: Vec<usize>,
    pub(crate) rounds: usize,
    /// Before each measurement everything is written out, so that what others have written is not at this one's cost.
    pub(crate) settled: bool,
}

impl Plan {
    fn workloads(&self) -> Vec<Workload> {
        let checks = (self.files > 0).then_some(Workload::Check { files: self.files });
        let peers = self.peers.iter().filter(|_| self.pushed > 0);
        let pushes = peers.map(|&peers| Workload::Push { files: self.pushed, peers });
        checks.into_iter().chain(pushes).collect()
    }
}

/// Measures everything of the plan, a report for each workload as soon as it is done. Progress goes to stderr; a program
/// that fails is a panic.
pub(crate) fn compare(plan: &Plan) -> impl Iterator<Item = Report> {
    plan.workloads().into_iter().map(|workload| measure(workload, plan))
}

fn measure(workload: Workload, plan: &Plan) -> Report {
    let mut report = Report::default();
    let source = Source::make(workload);
    for round in 0..plan.rounds {
        let mut contenders = workload.contenders();
        let first = round % contenders.len();
        contenders.rotate_left(first);
        for contender in contenders {
            if plan.settled {
                rustix::fs::sync();
            }
            for (title, measurement) in workload.run(contender, &source) {
                eprintln!("round {}: {title}: {contender}: {measurement}", round + 1);
                report.add(&title, contender, measurement);
            }
        }
    }
    report
}
