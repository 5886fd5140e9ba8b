//! What is to be reached: ratios of times and bytes taken round by round, memory, milliseconds above a bare process.

use super::contender::{C, Contender, FROM_C, OURS, OURS_POSTGRES, RSYNC, RSYNC_FSYNC, TO_C};
use super::measure::Measurement;
use super::report::{Spread, mebibytes, seconds};
use super::workload::Task;

#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) task: Task,
    pub(super) size: usize,
    pub(super) peers: usize,
    pub(super) contender: Contender,
    pub(super) measure: Measure,
    pub(super) limit: f64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    /// Times the other's wall-clock time.
    Time(Contender),
    /// Times the other's bytes on the wire.
    Bytes(Contender),
    /// Milliseconds more than the other.
    Above(Contender),
    /// MiB of the larger end.
    Memory,
    Seconds,
}

impl Measure {
    pub(super) fn other(self) -> Option<Contender> {
        match self {
            Measure::Time(other) | Measure::Bytes(other) | Measure::Above(other) => Some(other),
            Measure::Memory | Measure::Seconds => None,
        }
    }
}

const fn one(task: Task, size: usize, contender: Contender, measure: Measure, limit: f64) -> Goal {
    Goal { task, size, peers: 1, contender, measure, limit }
}

const fn peers(peers: usize, goal: Goal) -> Goal {
    Goal { peers, ..goal }
}

use Contender::{Bare, Find};
use Measure::{Above, Bytes, Memory, Time};

pub(super) const GOALS: [Goal; 39] = [
    one(Task::Unchanged, 200_000, OURS, Time(Find), 1.0),
    one(Task::Unchanged, 200_000, OURS_POSTGRES, Time(Find), 1.3),
    one(Task::FirstCheck, 200_000, OURS, Time(Find), 3.0),
    one(Task::FirstCheck, 200_000, OURS_POSTGRES, Time(Find), 4.0),
    one(Task::Marking, 200_000, OURS, Time(Find), 4.0),
    one(Task::Marking, 200_000, OURS_POSTGRES, Time(Find), 8.0),
    one(Task::FirstCheck, 1_000_000, OURS, Memory, 200.0),
    one(Task::FirstCheck, 1_000_000, OURS_POSTGRES, Memory, 200.0),
    one(Task::Unchanged, 1_000_000, OURS, Memory, 200.0),
    one(Task::Unchanged, 1_000_000, OURS_POSTGRES, Memory, 200.0),
    one(Task::Push, 2000, TO_C, Time(C), 0.7),
    one(Task::Push, 2000, FROM_C, Time(C), 0.5),
    one(Task::Push, 10_000, OURS, Time(RSYNC_FSYNC), 1.5),
    one(Task::Push, 10_000, OURS.not_durable(), Time(RSYNC), 1.5),
    one(Task::Push, 10_000, OURS, Memory, 64.0),
    peers(8, one(Task::Push, 10_000, OURS, Time(RSYNC_FSYNC), 1.5)),
    peers(8, one(Task::Push, 10_000, OURS.not_durable(), Time(RSYNC), 1.5)),
    peers(8, one(Task::Push, 10_000, OURS, Memory, 64.0)),
    one(Task::Equal, 10_000, OURS, Time(RSYNC), 2.0),
    one(Task::Far, 500, TO_C, Time(C), 0.2),
    one(Task::Far, 500, OURS, Time(RSYNC), 1.5),
    one(Task::New, 1024, OURS, Time(RSYNC_FSYNC), 1.2),
    one(Task::New, 1024, OURS.tls(), Time(RSYNC_FSYNC), 2.0),
    one(Task::New, 1024, OURS, Memory, 64.0),
    one(Task::New, 1024, OURS.classic(), Memory, 64.0),
    one(Task::Changed, 1024, OURS.classic(), Time(RSYNC_FSYNC), 1.0),
    one(Task::Changed, 1024, OURS.classic(), Memory, 64.0),
    one(Task::Changed, 1024, OURS, Time(RSYNC_FSYNC), 1.0),
    one(Task::Changed, 1024, OURS, Bytes(RSYNC_FSYNC), 1.0),
    one(Task::Changed, 1024, OURS.tls(), Time(OURS), 1.5),
    one(Task::Changed, 1024, OURS, Memory, 64.0),
    one(Task::Changed, 1024, OURS.tls(), Memory, 64.0),
    one(Task::Removals, 100_000, OURS, Time(RSYNC), 2.0),
    one(Task::Removals, 100_000, OURS, Memory, 64.0),
    one(Task::Compare, 50_000, OURS, Time(C), 1.0),
    one(Task::Start, 50, OURS, Above(Bare), 4.0),
    one(Task::Start, 50, OURS_POSTGRES, Above(Bare), 10.0),
    one(Task::Status, 1_000_000, OURS, Measure::Seconds, 1.0),
    one(Task::Status, 1_000_000, OURS_POSTGRES, Measure::Seconds, 1.0),
];

impl Goal {
    /// From measurements of the same rounds; `None`: the other was not measured.
    pub(super) fn judge(&self, ours: &[Measurement], other: Option<&[Measurement]>) -> Option<Spread> {
        let pairs = |compare: fn(&Measurement, &Measurement) -> f64| {
            Some(Spread::of(ours.iter().zip(other?).map(|(ours, other)| compare(ours, other))))
        };
        match self.measure {
            Measure::Time(_) => pairs(|ours, other| seconds(ours) / seconds(other)),
            Measure::Bytes(_) => pairs(|ours, other| mebibytes(ours.bytes) / mebibytes(other.bytes)),
            Measure::Above(_) => pairs(|ours, other| (seconds(ours) - seconds(other)) * 1000.0),
            Measure::Seconds => Some(Spread::of(ours.iter().map(seconds))),
            Measure::Memory => {
                let memory = |one: &Measurement| mebibytes(one.client.memory.max(one.servers.memory));
                Some(Spread::of(ours.iter().map(memory)))
            }
        }
    }

    /// A value in the words of the goal.
    pub(super) fn unit(&self, value: f64) -> String {
        match self.measure {
            Measure::Time(other) => format!("{value:.2} × {other}"),
            Measure::Bytes(other) => format!("{value:.2} × bytes of {other}"),
            Measure::Above(other) => format!("{value:.2} ms above {other}"),
            Measure::Memory => format!("{value:.0} MiB"),
            Measure::Seconds => format!("{value:.2} s"),
        }
    }

    pub(super) fn name(&self) -> String {
        let Goal { size, peers, contender, .. } = self;
        let what = match self.task {
            Task::FirstCheck => format!("first check of {size}"),
            Task::Marking => format!("first check of {size}, marked for one peer"),
            Task::Unchanged => format!("check of {size}, unchanged"),
            Task::Push if *peers > 1 => format!("push of {size} to {peers} peers"),
            Task::Push => format!("push of {size}"),
            Task::Equal => format!("{size} marked but equal"),
            Task::Far => format!("{size} at 10 ms"),
            Task::New => format!("{size} MiB, new"),
            Task::Changed => format!("{size} MiB, 1 % changed"),
            Task::Removals => format!("{size} removals"),
            Task::Compare => format!("compare {size}"),
            Task::Start => "start".into(),
            Task::Status => format!("status of {size} dirty rows"),
        };
        format!("{what}: {contender}")
    }
}
