//! What happens in a schedule, made from its number.

use crate::support::cutting::Cut;
use crate::support::postgres_proxy::Fault;

/// The files of a schedule. All lie in the root or in one directory.
pub(super) const NAMES: [&str; 6] = ["a", "b", "c", "d/e", "d/f", "d/g"];

/// Microseconds after the start of a run.
pub(super) type Moment = u64;

/// Nodes are numbered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Write {
        node: usize,
        name: &'static str,
        length: usize,
    },
    Remove {
        node: usize,
        name: &'static str,
    },
    /// `d`, with everything in it.
    RemoveDirectory {
        node: usize,
    },
    /// `-cr /`
    Check {
        node: usize,
    },
    /// Runs at once, each `-x` of a node.
    Run {
        nodes: Vec<usize>,
    },
    /// A file is written while `-x` is at work.
    Meanwhile {
        node: usize,
        name: &'static str,
        after: Moment,
        length: usize,
    },
    /// `-x` is killed.
    Killed {
        node: usize,
        after: Moment,
    },
    /// `-x` gets a SIGTERM.
    Stopped {
        node: usize,
        after: Moment,
    },
    /// The daemon of another node is killed during `-x`.
    PeerKilled {
        node: usize,
        peer: usize,
        after: Moment,
    },
    /// The connection to another node is cut during `-x`.
    Cut {
        node: usize,
        peer: usize,
        cut: Cut,
    },
    /// A statement fails on the way to the database of `at` during `-x`.
    DatabaseFails {
        node: usize,
        at: usize,
        fault: Fault,
        before: usize,
    },
    /// All connections to the database of `at` end during `-x`.
    DatabaseCut {
        node: usize,
        at: usize,
        after: Moment,
    },
}

/// How long a schedule's files may be, and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    pub(super) nodes: usize,
    pub(super) faults: bool,
}

/// Numbers that follow from the first one.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn from(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// Below two to the power of `bits`, every magnitude alike.
    fn magnitude(&mut self, bits: u32) -> usize {
        let bits = self.below(bits as usize) + 1;
        self.below(1 << bits)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The steps of a schedule.
pub(super) fn steps(random: &mut Random, surroundings: Surroundings) -> Vec<Step> {
    let count = 6 + random.below(12);
    (0..count).map(|_| step(random, surroundings)).collect()
}

fn step(random: &mut Random, Surroundings { nodes, faults }: Surroundings) -> Step {
    let node = random.below(nodes);
    let (name, after) = (random.of(&NAMES), random.magnitude(18) as Moment);
    let peer = (node + 1 + random.below(nodes - 1)) % nodes;
    let length = if random.below(4) == 0 { random.magnitude(18) } else { random.below(40) };
    match random.below(if faults { 24 } else { 14 }) {
        0..=5 => Step::Write { node, name, length },
        6..=7 => Step::Remove { node, name },
        8 => Step::RemoveDirectory { node },
        9..=10 => Step::Check { node },
        11..=12 => Step::Run { nodes: vec![node] },
        13 => Step::Run { nodes: vec![node, node, peer] },
        14..=15 => Step::Meanwhile { node, name, after, length },
        16 => Step::Killed { node, after },
        17 => Step::Stopped { node, after },
        18..=19 => Step::PeerKilled { node, peer, after },
        20..=21 => {
            let bytes = random.magnitude(16);
            Step::Cut { node, peer, cut: random.of(&[Cut::OfClient(bytes), Cut::OfServer(bytes)]) }
        }
        22 => {
            let faults = [Fault::Refuse("40001"), Fault::Refuse("40P01"), Fault::CutBefore, Fault::CutAfter];
            let (fault, before) = (random.of(&faults), random.below(40));
            Step::DatabaseFails { node, at: random.of(&[node, peer]), fault, before }
        }
        _ => Step::DatabaseCut { node, at: random.of(&[node, peer]), after },
    }
}
