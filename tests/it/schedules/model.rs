//! What a cluster must look like in the end, whatever happened on the way.
//!
//! A file that one node alone has changed is on all nodes as that node left it, and no conflict is ever told of it. Of a file
//! that several have changed since all agreed, csync2 promises less: each node has it as somebody wrote it, whole.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::NAMES;

/// `None`: there is no such file.
type Content = Option<String>;

#[derive(Default)]
pub(super) struct Model {
    /// What each node did last to a file, by its name.
    last: BTreeMap<&'static str, BTreeMap<usize, Content>>,
    all: BTreeMap<&'static str, BTreeSet<Content>>,
    /// Who has made or removed the directory.
    directory: BTreeSet<usize>,
}

impl Model {
    /// Begins with these files everywhere.
    pub(super) fn with(contents: &BTreeMap<&'static str, String>) -> Self {
        let mut model = Self::default();
        for name in NAMES {
            model.all.entry(name).or_default().insert(contents.get(name).cloned());
        }
        model
    }

    pub(super) fn changes(&mut self, node: usize, name: &'static str, content: Content) {
        self.last.entry(name).or_default().insert(node, content.clone());
        self.all.entry(name).or_default().insert(content);
    }

    pub(super) fn makes_or_removes_directory(&mut self, node: usize) {
        self.directory.insert(node);
    }

    fn writers(&self, name: &str) -> BTreeSet<usize> {
        let of = |name: &str| self.last.get(name).into_iter().flat_map(BTreeMap::keys).copied();
        let mut writers: BTreeSet<usize> = of(name).collect();
        if name.starts_with("d/") && !self.directory.is_empty() {
            // Who lacks the directory is sent all that is in it.
            writers.extend(self.directory.iter().copied());
            writers.extend(NAMES.iter().filter(|name| name.starts_with("d/")).flat_map(|name| of(name)));
        }
        writers
    }

    /// Whether it was changed by several nodes.
    pub(super) fn is_disputed(&self, name: &str) -> bool {
        self.writers(name).len() > 1
    }

    /// Whether any file is.
    pub(super) fn has_disputes(&self) -> bool {
        NAMES.iter().any(|name| self.is_disputed(name)) || self.directory.len() > 1
    }

    /// What a file may be in the end.
    pub(super) fn outcomes(&self, name: &'static str) -> BTreeSet<Content> {
        match self.last.get(name) {
            Some(last) if !self.is_disputed(name) => last.values().cloned().collect(),
            _ => self.all[name].clone(),
        }
    }

    /// Whether the nodes must agree about it, and no conflict may be told of it.
    pub(super) fn must_agree(&self, name: &str) -> bool {
        !self.is_disputed(name)
    }
}
