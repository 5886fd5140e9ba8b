//! Which files of one directory are in a group: what [`membership`] says of each, made cheap for all.
//!
//! Of most patterns it is clear at a directory what they say of everything below it. What is left is compared with each
//! name, which for the usual configuration is nothing.

use super::membership::{self, Purpose};
use crate::config::pattern::{Below, Pattern, PatternKind, Subject};
use crate::config::{Config, Group};
use crate::model::{NameBuffer, SyncPath};

/// The groups that may hold files below a directory.
#[derive(Debug, Clone)]
pub(super) struct Coverage<'c> {
    groups: Vec<Rules<'c>>,
}

/// What is still to be asked about one group.
#[derive(Debug, Clone)]
struct Rules<'c> {
    by_path: Decision<'c>,
    by_basename: Decision<'c>,
}

/// Patterns of one kind, the last one of the configuration first: the first that matches decides.
#[derive(Debug, Clone)]
struct Decision<'c> {
    patterns: Vec<(&'c Pattern, bool)>,
    /// When none matches.
    otherwise: bool,
}

impl<'c> Coverage<'c> {
    /// Of all names.
    pub(super) fn of(config: &'c Config, purpose: Purpose) -> Self {
        Self { groups: config.groups.iter().map(|group| Rules::of(group, purpose)).collect() }
    }

    /// Of the names below a directory that this coverage is of.
    pub(super) fn below(&self, directory: &SyncPath) -> Self {
        let narrowed = self.groups.iter().map(|rules| rules.below(directory));
        let mut groups: Vec<Rules> = narrowed.filter(|rules| !rules.by_path.is_always(false)).collect();
        if let Some(whole) = groups.iter().position(Rules::hold_everything) {
            groups = vec![groups.swap_remove(whole)];
        }
        Self { groups }
    }

    /// Whether any group holds the file.
    pub(super) fn covers(&self, name: &NameBuffer) -> bool {
        self.groups.iter().any(|rules| rules.hold(name))
    }
}

impl<'c> Rules<'c> {
    fn of(group: &'c Group, purpose: Purpose) -> Self {
        let is_basename = |pattern: &Pattern| pattern.kind() == PatternKind::Basename;
        let rules = group.rules.iter().rev();
        let effects = rules.filter_map(|rule| Some((&rule.pattern, membership::effect(rule.kind, purpose)?)));
        let (by_basename, by_path) = effects.partition(|(pattern, _)| is_basename(pattern));
        Self {
            by_path: Decision { patterns: by_path, otherwise: false },
            by_basename: Decision { patterns: by_basename, otherwise: true },
        }
    }

    fn below(&self, directory: &SyncPath) -> Self {
        let mut by_path = Decision { patterns: Vec::new(), otherwise: self.by_path.otherwise };
        for &(pattern, included) in &self.by_path.patterns {
            match pattern.below(directory) {
                Below::None => {}
                Below::Some => by_path.patterns.push((pattern, included)),
                Below::All => {
                    by_path.otherwise = included;
                    break;
                }
            }
        }
        Self { by_path, by_basename: self.by_basename.clone() }
    }

    fn hold_everything(&self) -> bool {
        self.by_path.is_always(true) && self.by_basename.is_always(true)
    }

    fn hold(&self, name: &NameBuffer) -> bool {
        self.by_basename.decide(|pattern| pattern.matches_basename(name.file_name())) && self.by_path.decide_path(name)
    }
}

impl Decision<'_> {
    /// Whether the answer is this one for every name.
    fn is_always(&self, answer: bool) -> bool {
        self.otherwise == answer && self.patterns.iter().all(|&(_, included)| included == answer)
    }

    fn decide_path(&self, name: &NameBuffer) -> bool {
        if self.patterns.is_empty() {
            return self.otherwise;
        }
        let subject = Subject::of_bytes(name.as_bytes());
        self.decide(|pattern| pattern.matches(&subject))
    }

    fn decide(&self, matches: impl Fn(&Pattern) -> bool) -> bool {
        let decisive = self.patterns.iter().find(|(pattern, _)| matches(pattern));
        decisive.map_or(self.otherwise, |&(_, included)| included)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::Scratch;
    use crate::config::{Selection, Source};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// The configuration as host `h` sees it: each list of rules a group.
    fn config(groups: &[Vec<String>]) -> Config {
        let scratch = Scratch::new();
        let group = |rules: &Vec<String>| format!("group {{ host h p; key k; {} }}\n", rules.join(" "));
        scratch.write("csync2.cfg", groups.iter().map(group).collect::<Vec<_>>().concat());
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        Config::load(&source, &Selection { my_name: "h".into(), groups: None }).unwrap()
    }

    #[test]
    fn the_usual_configuration_leaves_nothing_to_ask() {
        let config = config(&[vec!["include %p%;".into()], vec!["include /a; exclude /b;".into()]]);
        let path = |name: &str| SyncPath::parse(name.as_bytes()).unwrap();
        let at = |directory: &str| Coverage::of(&config, Purpose::Sync).below(&path(directory));
        for directory in ["%p%", "/a"] {
            assert!(at(directory).groups.iter().all(Rules::hold_everything) && !at(directory).groups.is_empty());
        }
        assert!(at("/b").groups.is_empty());
    }

    fn rule() -> impl Strategy<Value = String> {
        ("(include|exclude|compare)", r"(/|/a|/b|%p%|%p%/a)?(/?(a|b|\*|\*\*|\?|\[ab\]|\.c)){0,3}").prop_map(
            |(kind, pattern)| {
                let pattern = if pattern.is_empty() { "*.c" } else { &pattern };
                format!("{kind} {pattern};")
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_says_what_the_membership_of_each_file_says(
            groups in prop::collection::vec(prop::collection::vec(rule(), 1..4), 1..3),
            top in prop::sample::select(vec!["/", "/a", "%p%"]),
            entries in prop::collection::vec(r"(a|b|ab|a\.c|\.c)", 1..5),
        ) {
            let config = config(&groups);
            for purpose in [Purpose::Sync, Purpose::Compare] {
                let mut directory = SyncPath::parse(top.as_bytes()).unwrap();
                let mut coverage = Coverage::of(&config, purpose);
                let mut name = NameBuffer::default();
                name.copy(&directory);
                prop_assert_eq!(coverage.covers(&name), membership::is_covered(&config, &directory, purpose));
                for entry in &entries {
                    coverage = coverage.below(&directory);
                    name.join(&directory, entry.as_bytes());
                    directory = name.to_path();
                    let expected = membership::is_covered(&config, &directory, purpose);
                    prop_assert_eq!(coverage.covers(&name), expected, "{:?} {}", groups, directory);
                }
            }
        }
    }
}
