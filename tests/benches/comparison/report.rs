//! The measurements as tables in Markdown.

use std::fmt;

use super::contender::{ALL, Contender, OURS};
use super::measure::{Measurement, Usage};

/// Tables in the order in which they were begun, their rows in the order of the contenders.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Table>);

#[derive(Debug)]
struct Table {
    title: String,
    rows: Vec<(Contender, Vec<Measurement>)>,
}

impl Report {
    pub(super) fn add(&mut self, title: &str, contender: Contender, measurement: Measurement) {
        if self.0.iter().all(|table| table.title != title) {
            self.0.push(Table { title: title.to_owned(), rows: Vec::new() });
        }
        let rows = self.0.iter_mut().filter(|table| table.title == title).map(|table| &mut table.rows);
        for rows in rows {
            match rows.iter_mut().find(|row| row.0 == contender) {
                Some(row) => row.1.push(measurement),
                None => rows.push((contender, vec![measurement])),
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        write!(f, "| | seconds |")?;
        OURS.iter().try_for_each(|ours| write!(f, " to {ours} |"))?;
        writeln!(f, " client: CPU s, MiB | servers: CPU s, MiB |")?;
        writeln!(f, "| --- |{}", " ---: |".repeat(OURS.len() + 3))?;
        for contender in ALL {
            let Some(measurements) = self.of(contender) else { continue };
            let wall = Spread::of(measurements.iter().map(seconds));
            write!(f, "| {contender} | {:.2} ({:.2}–{:.2}) |", wall.median, wall.min, wall.max)?;
            for ours in OURS.iter().filter_map(|ours| self.of(*ours)) {
                // Round by round, since the machine's speed changes.
                let ratio = Spread::of(measurements.iter().zip(ours).map(|(one, ours)| seconds(one) / seconds(ours)));
                write!(f, " {:.2} ({:.2}–{:.2}) |", ratio.median, ratio.min, ratio.max)?;
            }
            writeln!(f, " {} | {} |", usage(measurements, |one| one.client), usage(measurements, |one| one.servers))?;
        }
        writeln!(f)
    }
}

impl Table {
    /// The contender's measurements, one for each round.
    fn of(&self, contender: Contender) -> Option<&[Measurement]> {
        self.rows.iter().find(|row| row.0 == contender).map(|row| row.1.as_slice())
    }
}

fn seconds(measurement: &Measurement) -> f64 {
    measurement.wall.as_secs_f64()
}

/// Median time, and the most memory; nothing where nobody ran.
fn usage(measurements: &[Measurement], end: fn(&Measurement) -> Usage) -> String {
    let memory = measurements.iter().map(|one| end(one).memory).max().unwrap_or(0);
    if memory == 0 {
        return String::new();
    }
    let cpu = Spread::of(measurements.iter().map(|one| end(one).cpu.as_secs_f64()));
    format!("{:.2}, {}", cpu.median, memory.div_ceil(1024 * 1024))
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value; of an even number of them the median is the upper of the two in the middle.
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}
