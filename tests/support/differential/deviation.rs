//! Where a cluster may differ from one of the C program, and why (docs/migration.md, 'What differs').

use std::cell::Cell;

use super::record::Part;

/// Lines that only one side has. In the pattern `*` stands for any text.
#[derive(Clone, Debug)]
pub(crate) struct Deviation {
    why: &'static str,
    /// Only the truth has it; else only the other cluster.
    missing: bool,
    node: Option<&'static str>,
    part: Part,
    pattern: String,
    /// Granted in any story, where it shows or not.
    general: bool,
    seen: Cell<bool>,
}

impl Deviation {
    /// Lines that the C program alone has.
    pub(crate) fn missing(part: Part, pattern: &str, why: &'static str) -> Self {
        Deviation {
            why,
            missing: true,
            node: None,
            part,
            pattern: pattern.into(),
            general: false,
            seen: Cell::new(false),
        }
    }

    /// Lines that clusters with our program alone have.
    pub(crate) fn extra(part: Part, pattern: &str, why: &'static str) -> Self {
        Deviation { missing: false, ..Self::missing(part, pattern, why) }
    }

    /// Only on this node.
    pub(crate) fn on(mut self, node: &'static str) -> Self {
        self.node = Some(node);
        self
    }

    pub(super) fn grants(&self, missing: bool, node: &str, part: Part, text: &str) -> bool {
        let granted = self.missing == missing
            && self.part == part
            && self.node.is_none_or(|own| own == node)
            && matches(&self.pattern, text);
        self.seen.set(self.seen.get() || granted);
        granted
    }

    /// What it grants and why, if it has granted nothing so far.
    pub(super) fn stale(&self) -> Option<String> {
        (!self.general && !self.seen.get()).then(|| format!("{:?} `{}`: {}", self.part, self.pattern, self.why))
    }
}

/// What holds in every story.
pub(super) fn everywhere() -> Vec<Deviation> {
    let database = "each program makes its database in words of its own, and the truth is on SQLite";
    let certificate = "each program has words of its own for certificates, and most truths have no TLS";
    let lines = [
        ("created the database *", database),
        ("Database * not found, trying to create it ...*", database),
        ("LINE 1: SELECT count(*) from file", database),
        ("                             ^", database),
        ("Adding peer x509 certificate to db: *", certificate),
        ("There was a non-CA certificate in the trusted list: *", certificate),
    ];
    let both = lines
        .into_iter()
        .flat_map(|(line, why)| [Deviation::extra(Part::Log, line, why), Deviation::missing(Part::Log, line, why)]);
    both.map(|deviation| Deviation { general: true, ..deviation }).collect()
}

/// `*` matches any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
