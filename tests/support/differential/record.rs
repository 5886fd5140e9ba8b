//! What is looked at after a step, as lines of text in which nothing depends on the place, the transport or the order of
//! peers.

use std::collections::{BTreeMap, BTreeSet};

use super::deviation::Deviation;
use crate::support::Table;
use crate::support::cluster::{Cluster, Node};

/// What a line was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Exit,
    Stdout,
    /// stderr of the run, and what a daemon printed in the sessions that it caused.
    Log,
    Tree,
    File,
    Dirty,
    Hint,
    Action,
}

/// Everything that was seen after one run: how often each line was there, by node and part.
pub(super) struct Step {
    pub(super) title: String,
    lines: BTreeMap<(String, Part, String), usize>,
    stdout: Vec<String>,
}

impl Step {
    pub(super) fn new(title: String) -> Self {
        Step { title, lines: BTreeMap::new(), stdout: Vec::new() }
    }

    pub(super) fn add(&mut self, node: &str, part: Part, text: &str) {
        *self.lines.entry((node.into(), part, without_target(text))).or_default() += 1;
    }

    /// The stdout of a run, where the order of lines counts.
    pub(super) fn print(&mut self, node: &str, text: &str) {
        for line in text.lines() {
            self.add(node, Part::Stdout, line);
            self.stdout.push(line.into());
        }
    }

    /// A node's tree and tables.
    pub(super) fn observe(&mut self, cluster: &Cluster, node: &Node) {
        for line in node.tree().lines() {
            self.add(node.name(), Part::Tree, &neutral(cluster, &line));
        }
        let tables = [Table::File, Table::Dirty, Table::Hint, Table::Action];
        let parts = [Part::File, Part::Dirty, Part::Hint, Part::Action];
        for (part, rows) in parts.into_iter().zip(node.database.rows_if_any(tables).unwrap_or_default()) {
            for row in rows {
                self.add(node.name(), part, &neutral(cluster, &row));
            }
        }
    }

    /// One line for each that only one side has, without those that a deviation grants.
    pub(super) fn differences(&self, other: &Step, deviations: &[Deviation]) -> Vec<String> {
        let keys: BTreeSet<_> = self.lines.keys().chain(other.lines.keys()).collect();
        let mut differences = Vec::new();
        for key in keys {
            let [here, there] = [self, other].map(|step| step.lines.get(key).copied().unwrap_or(0));
            let (node, part, text) = key;
            let granted = |missing| deviations.iter().any(|deviation| deviation.grants(missing, node, *part, text));
            if here != there && !granted(here > there) {
                let sign = if here > there { '-' } else { '+' };
                differences.push(format!("{sign} {node} {part:?}: {}", cut(text)));
            }
        }
        // Rows are listed by name; in which order those of one name come is up to the database.
        let both = |lines: &[String], others: &[String]| -> Vec<String> {
            let common = lines.iter().filter(|line| others.contains(line));
            common.filter_map(|line| Some(line.rsplit('\t').next()?.to_owned())).collect()
        };
        if both(&self.stdout, &other.stdout) != both(&other.stdout, &self.stdout) && differences.is_empty() {
            differences.push(format!("the order of stdout:\n{:#?}\n{:#?}", self.stdout, other.stdout));
        }
        differences
    }
}

/// The start of a long text, for messages.
fn cut(text: &str) -> String {
    if text.len() <= 500 { text.into() } else { text.chars().take(500).chain(['…']).collect() }
}

/// `text` with `{alpha}` for the address of alpha, and so on.
pub(super) fn neutral(cluster: &Cluster, text: &str) -> String {
    let mut text = text.replace("(SSL)", "(PLAIN)");
    for node in cluster.nodes() {
        let directory = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        text = text.replace(&directory(node.tree_dir()), &format!("{{{}.tree}}", node.name()));
        // A dry run pads the names of peers.
        text = text.replace(&format!("{:<15} ", node.host), &format!("{{{}}} ", node.name()));
        text = text.replace(&node.host, &format!("{{{}}}", node.name()));
        text = text.replace(&node.iface(), &format!("{{{}.iface}}", node.name()));
    }
    text = text.replace(&format!(":{}", cluster.nodes()[0].port), ":{port}");
    text.replace(cluster.directory().to_str().expect("UTF-8"), "{dir}")
}

/// A file row, or a line of `-L`, without the target of a link below a prefix: the C program records none (defects.md).
fn without_target(row: &str) -> String {
    let (name, checktxt) = match row.split_once('\t') {
        Some((name, checktxt)) if checktxt.starts_with("v1") => (name, checktxt),
        Some((checktxt, name)) if checktxt.starts_with("v1") => (name, checktxt),
        _ => return row.into(),
    };
    let target =
        ["type=lnk:target=", "type=lnk%3Atarget="].iter().find_map(|word| Some(checktxt.find(word)? + word.len()));
    match target {
        Some(end) if name.starts_with('%') => row.replace(checktxt, &checktxt[..end]),
        _ => row.into(),
    }
}

/// A line of a daemon, without the session's number and the client's port.
pub(super) fn session_line(cluster: &Cluster, line: &str) -> String {
    // The C program writes a line in pieces: sessions get between each other.
    let mut text = line;
    while let Some((_, rest)) = text.split_once("> ").filter(|(id, _)| id.starts_with('<')) {
        text = rest;
    }
    let text = neutral(cluster, text);
    match text.strip_prefix("New connection from ").and_then(|rest| rest.split_once(':')) {
        Some((client, _port)) => format!("New connection from {client}."),
        None => text,
    }
}
