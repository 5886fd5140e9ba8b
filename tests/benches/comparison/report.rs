//! The measurements as tables in Markdown.

use std::fmt;

use super::contender::{Contender, OURS, OURS_POSTGRES};
use super::goals::{GOALS, Goal};
use super::measure::{Measurement, Usage};
use super::workload::{Task, Workload};

const MIB: u64 = 1024 * 1024;

/// Tables in the order in which they were begun, their rows in the order of the contenders.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Table>);

#[derive(Debug)]
struct Table {
    workload: Workload,
    task: Task,
    rows: Vec<(Contender, Vec<Measurement>)>,
}

impl Report {
    pub(super) fn add(&mut self, workload: Workload, task: Task, contender: Contender, measurement: Measurement) {
        let place = self.0.iter().position(|table| (table.workload, table.task) == (workload, task));
        let place = place.unwrap_or_else(|| {
            self.0.push(Table { workload, task, rows: Vec::new() });
            self.0.len() - 1
        });
        let rows = &mut self.0[place].rows;
        match rows.iter_mut().find(|row| row.0 == contender) {
            Some(row) => row.1.push(measurement),
            None => rows.push((contender, vec![measurement])),
        }
    }

    /// With the tables of another report behind its own.
    pub(crate) fn append(&mut self, mut other: Report) {
        self.0.append(&mut other.0);
    }

    /// What a goal says of this report, a row for each goal; those that were not measured are left out.
    pub(crate) fn goals(&self) -> String {
        let rows: Vec<String> = GOALS.iter().filter_map(|goal| self.verdict(goal)).collect();
        if rows.is_empty() {
            return String::new();
        }
        format!("### Goals\n\n| | goal | measured | |\n| --- | ---: | ---: | --- |\n{}\n", rows.concat())
    }

    fn verdict(&self, goal: &Goal) -> Option<String> {
        let tables = self.0.iter().filter(|table| (table.task, table.workload.peers) == (goal.task, goal.peers));
        // The size that the goal is for, or else the nearest.
        let table = tables.min_by_key(|table| table.workload.size.abs_diff(goal.size))?;
        let spread = goal.judge(table.of(goal.contender)?, goal.measure.other().and_then(|other| table.of(other)))?;
        let met = if spread.median <= goal.limit { "met" } else { "**missed**" };
        let size =
            if table.workload.size == goal.size { String::new() } else { format!(" (of {})", table.workload.size) };
        let (limit, measured) = (goal.unit(goal.limit), goal.unit(spread.median));
        let extremes = format!("({:.2}–{:.2})", spread.min, spread.max);
        Some(format!("| {}{size} | ≤ {limit} | {measured} {extremes} | {met} |\n", goal.name()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let references = [OURS, OURS_POSTGRES].into_iter().filter(|ours| self.of(*ours).is_some());
        let references: Vec<Contender> = references.collect();
        writeln!(f, "### {}\n", self.workload.title(self.task))?;
        write!(f, "| | seconds |")?;
        references.iter().try_for_each(|ours| write!(f, " to {ours} |"))?;
        writeln!(f, " client: CPU s, MiB | servers: CPU s, MiB | wire: MiB |")?;
        writeln!(f, "| --- |{}", " ---: |".repeat(references.len() + 4))?;
        for contender in self.workload.contenders(true) {
            let Some(measurements) = self.of(contender) else { continue };
            let wall = Spread::of(measurements.iter().map(seconds));
            let digits = if wall.median < 0.1 { 4 } else { 2 };
            write!(f, "| {contender} | {:.digits$} ({:.digits$}–{:.digits$}) |", wall.median, wall.min, wall.max)?;
            for ours in references.iter().filter_map(|ours| self.of(*ours)) {
                // Round by round, since the machine's speed changes.
                let ratio = Spread::of(measurements.iter().zip(ours).map(|(one, ours)| seconds(one) / seconds(ours)));
                write!(f, " {:.2} ({:.2}–{:.2}) |", ratio.median, ratio.min, ratio.max)?;
            }
            let (client, servers) = (usage(measurements, |one| one.client), usage(measurements, |one| one.servers));
            writeln!(f, " {client} | {servers} | {} |", wire(measurements))?;
        }
        writeln!(f)
    }
}

impl Table {
    /// The contender's measurements, one for each round; some take part in the first round alone.
    fn of(&self, contender: Contender) -> Option<&[Measurement]> {
        self.rows.iter().find(|row| row.0 == contender).map(|row| row.1.as_slice())
    }
}

pub(super) fn seconds(measurement: &Measurement) -> f64 {
    measurement.wall.as_secs_f64()
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// Median time, and the most memory; nothing where nobody ran.
fn usage(measurements: &[Measurement], end: fn(&Measurement) -> Usage) -> String {
    let memory = measurements.iter().map(|one| end(one).memory).max().unwrap_or(0);
    if memory == 0 {
        return String::new();
    }
    let cpu = Spread::of(measurements.iter().map(|one| end(one).cpu.as_secs_f64()));
    format!("{:.2}, {}", cpu.median, memory.div_ceil(MIB))
}

fn wire(measurements: &[Measurement]) -> String {
    let bytes = Spread::of(measurements.iter().map(|one| mebibytes(one.bytes))).median;
    if bytes > 0.0 { format!("{bytes:.2}") } else { String::new() }
}

pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one value; of an even number of them the median is the upper of the two in the middle.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}
