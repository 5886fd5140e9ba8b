//! What is measured: the names, sizes and titles of the workloads, and who does them.

use super::contender::{
    C, C_POSTGRES, Contender, FROM_C, OURS, OURS_POSTGRES, RSYNC, RSYNC_FSYNC, RSYNC_IN_PLACE, RSYNC_IN_PLACE_FSYNC,
    TO_C,
};

/// One line of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(super) kind: Kind,
    /// Files, but MiB of large files and repetitions of a start.
    pub(super) size: usize,
    pub(super) peers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Check,
    Huge,
    Push,
    Equal,
    Far,
    New,
    Changed,
    Removals,
    Compare,
    Start,
    Status,
}

impl Kind {
    /// Whether it is one large file.
    pub(super) fn is_large(self) -> bool {
        matches!(self, Self::New | Self::Changed)
    }
}

/// What has a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    FirstCheck,
    Marking,
    Unchanged,
    Push,
    Equal,
    Far,
    New,
    Changed,
    Removals,
    Compare,
    Start,
    Status,
}

/// Name, kind, usual size, and what happens.
const KINDS: [(&str, Kind, usize, &str); 11] = [
    ("check", Kind::Check, 200_000, "files checked: first time, with marks for one peer, unchanged"),
    ("huge", Kind::Huge, 1_000_000, "the same with many files, for the memory"),
    ("push", Kind::Push, 10_000, "new files of 1 to 4 KiB, to one peer or more"),
    ("equal", Kind::Equal, 10_000, "marked files that the peer has already"),
    ("far", Kind::Far, 500, "new files to a peer at 10 ms round trip"),
    ("new", Kind::New, 1024, "MiB of one new file"),
    ("changed", Kind::Changed, 1024, "MiB of one file of which 1 % changed"),
    ("removals", Kind::Removals, 100_000, "files removed"),
    ("compare", Kind::Compare, 50_000, "files compared with a peer's (-T)"),
    ("start", Kind::Start, 50, "starts with nothing to do (-M)"),
    ("status", Kind::Status, 1_000_000, "dirty rows for 50 peers whose state is told (--status)"),
];

impl Workload {
    /// Reads `NAME[:SIZE[xPEERS]]`.
    pub(crate) fn parse(text: &str) -> Result<Workload, String> {
        let (name, numbers) = text.split_once(':').map_or((text, None), |(name, numbers)| (name, Some(numbers)));
        let Some(&(_, kind, usual, _)) = KINDS.iter().find(|known| known.0 == name) else {
            return Err(format!("there is no workload `{name}`"));
        };
        let (size, peers) = numbers.map_or((None, None), |numbers| match numbers.split_once('x') {
            Some((size, peers)) => (Some(size), Some(peers)),
            None => (Some(numbers), None),
        });
        let number = |text: Option<&str>, usual: usize| {
            let number = text.map_or(Ok(usual), str::parse).ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("`{text:?}` is no number of something"))
        };
        let workload = Workload { kind, size: number(size, usual)?, peers: number(peers, 1)? };
        if workload.peers > 1 && kind != Kind::Push {
            return Err(format!("`{name}` has one peer"));
        }
        Ok(workload)
    }

    /// A line for each workload.
    pub(crate) fn help() -> String {
        KINDS.map(|(name, _, size, what)| format!("  {:<15} {what}\n", format!("{name}:{size}"))).concat()
    }

    /// What is measured, in this order.
    pub(super) fn tasks(self) -> &'static [Task] {
        match self.kind {
            Kind::Check => &[Task::FirstCheck, Task::Marking, Task::Unchanged],
            Kind::Huge => &[Task::FirstCheck, Task::Unchanged],
            Kind::Push => &[Task::Push],
            Kind::Equal => &[Task::Equal],
            Kind::Far => &[Task::Far],
            Kind::New => &[Task::New],
            Kind::Changed => &[Task::Changed],
            Kind::Removals => &[Task::Removals],
            Kind::Compare => &[Task::Compare],
            Kind::Start => &[Task::Start],
            Kind::Status => &[Task::Status],
        }
    }

    /// Who does it, in the order of the tables. What takes minutes is done in the first round alone, or by nobody.
    pub(super) fn contenders(self, first_round: bool) -> Vec<Contender> {
        let ours = [OURS, OURS_POSTGRES];
        let classic = ours.map(Contender::classic);
        let work = self.size * self.peers;
        let mut contenders = Vec::new();
        match self.kind {
            Kind::Check => {
                contenders.extend([OURS, OURS_POSTGRES, C]);
                contenders.extend(first_round.then_some(C_POSTGRES));
                contenders.extend([RSYNC, Contender::Find]);
            }
            Kind::Huge => contenders.extend([OURS, OURS_POSTGRES, Contender::Find]),
            Kind::Push => {
                contenders.extend(ours);
                contenders.push(OURS.not_durable());
                contenders.extend(classic);
                let mixed = [TO_C, FROM_C, FROM_C.not_durable()];
                contenders.extend((work <= 10_000).then_some(mixed).into_iter().flatten());
                contenders.extend((work <= 10_000 || first_round).then_some(C));
                contenders.extend((work <= 8_000 && first_round).then_some(C_POSTGRES));
                contenders.extend([RSYNC, RSYNC_FSYNC]);
            }
            Kind::Equal | Kind::Far => {
                contenders.extend(ours.into_iter().chain(classic));
                contenders.extend([TO_C, FROM_C, C, RSYNC]);
            }
            Kind::New | Kind::Changed => {
                contenders.extend([OURS, OURS_POSTGRES, OURS.tls(), OURS.not_durable()]);
                contenders.extend([OURS.classic(), OURS.classic().tls(), TO_C, FROM_C, C, C.tls()]);
                contenders.extend([RSYNC, RSYNC_FSYNC, RSYNC_IN_PLACE, RSYNC_IN_PLACE_FSYNC]);
            }
            Kind::Removals => {
                contenders.extend(ours.into_iter().chain(classic));
                contenders.extend(first_round.then_some(C));
                contenders.push(RSYNC);
            }
            Kind::Compare => contenders.extend([OURS, OURS_POSTGRES, TO_C, FROM_C, C, C_POSTGRES, RSYNC]),
            Kind::Start => contenders.extend([OURS, OURS_POSTGRES, C, C_POSTGRES, Contender::Bare]),
            Kind::Status => contenders.extend(ours),
        }
        // While ours has one dialect only, some are the same.
        let mut distinct = Vec::new();
        for contender in contenders {
            if !distinct.contains(&contender) {
                distinct.push(contender);
            }
        }
        distinct
    }

    pub(super) fn title(self, task: Task) -> String {
        let Workload { size, peers, .. } = self;
        match task {
            Task::FirstCheck => {
                format!("First check of {size} files (`csync2 -cIr /`; `rsync -an` to nothing; `find -printf`)")
            }
            Task::Marking => {
                format!("First check of {size} files, marked for one peer (`csync2 -cr /`; the others as before)")
            }
            Task::Unchanged => {
                format!("Check of {size} files, unchanged (`csync2 -cr /`; `rsync -an` to a copy; `find -printf`)")
            }
            Task::Push => {
                let to = if peers == 1 { "one peer".into() } else { format!("{peers} peers") };
                format!("Push of {size} new files to {to} (`csync2 -x`; `rsync -a` to a daemon each)")
            }
            Task::Equal => format!("{size} marked files that are already equal (`csync2 -u`; `rsync -ac`)"),
            Task::Far => format!("{size} new files at 10 ms round trip (`csync2 -x`; `rsync -a`)"),
            Task::New => format!("One new file of {size} MiB (`csync2 -x`; `rsync -a`)"),
            Task::Changed => format!("One file of {size} MiB, 1 % changed (`csync2 -x`; `rsync -a`)"),
            Task::Removals => format!("{size} files removed (`csync2 -x`; `rsync -a --delete`)"),
            Task::Compare => format!("{size} files compared with a peer's (`csync2 -T`; `rsync -an`)"),
            Task::Start => "Start with an empty database (`csync2 -M`; `true`)".into(),
            Task::Status => format!("Status with {size} dirty rows for 50 peers (`csync2 --status`)"),
        }
    }
}
