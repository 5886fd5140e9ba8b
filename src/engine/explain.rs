//! Why a file is kept in step or not: which pattern of which group decides, with whom it is shared, what runs when it changes,
//! and whether a check finds it by itself. Pure, over the configuration and a name; `membership` has the rules.

use super::membership::{self, Purpose};
use crate::config::pattern::{Pattern, PatternKind, Subject};
use crate::config::{Action, Config, Group, Rule};
use crate::model::SyncPath;

/// What one group makes of a name: the last rule of each kind that fits.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'c> {
    pub group: &'c Group,
    pub by_path: Option<&'c Rule>,
    pub by_basename: Option<&'c Rule>,
    purpose: Purpose,
}

impl<'c> Verdict<'c> {
    #[must_use]
    pub fn of(group: &'c Group, path: &SyncPath, purpose: Purpose) -> Self {
        let subject = Subject::of(path);
        let last = |basename: bool| {
            group.rules.iter().rev().find(|rule| {
                membership::effect(rule.kind, purpose).is_some()
                    && (rule.pattern.kind() == PatternKind::Basename) == basename
                    && rule.pattern.matches(&subject)
            })
        };
        Self { group, by_path: last(false), by_basename: last(true), purpose }
    }

    /// Whether the group holds the name.
    #[must_use]
    pub fn covers(&self) -> bool {
        self.by_path.is_some_and(|rule| self.includes(rule)) && self.by_basename.is_none_or(|rule| self.includes(rule))
    }

    /// The rules on which it rests, the one that decides first; of a name that is left out, that which leaves it out. None:
    /// no path fits.
    #[must_use]
    pub fn decisive(&self) -> Vec<&'c Rule> {
        match (self.by_path, self.by_basename) {
            (None, _) => Vec::new(),
            (Some(path), Some(name)) if self.includes(path) && !self.includes(name) => vec![name],
            (Some(path), Some(name)) if self.includes(path) => vec![path, name],
            (Some(path), _) => vec![path],
        }
    }

    fn includes(&self, rule: &Rule) -> bool {
        membership::effect(rule.kind, self.purpose) == Some(true)
    }
}

/// The actions of a group that have something to run for a name, each with the pattern that fits it; without one it has
/// none, and is for every file.
pub fn actions<'c>(
    group: &'c Group,
    path: &SyncPath,
) -> impl Iterator<Item = (&'c Action, Option<&'c Pattern>)> + use<'c> {
    let subject = Subject::of(path);
    group.actions.iter().filter(|action| !action.commands.is_empty()).filter_map(move |action| {
        let fitting = action.patterns.iter().find(|pattern| pattern.matches(&subject));
        (action.patterns.is_empty() || fitting.is_some()).then_some((action, fitting))
    })
}

/// The first directory on the way to a name that a check of everything does not enter.
#[must_use]
pub fn barrier(config: &Config, path: &SyncPath) -> Option<SyncPath> {
    let mut above: Vec<SyncPath> = std::iter::successors(path.parent(), SyncPath::parent).collect();
    above.reverse();
    above.into_iter().find(|directory| {
        let leads_to_prefix =
            directory.split_prefix().is_none() && membership::above_prefix(config, directory.as_bytes());
        !leads_to_prefix && !membership::descend(config, directory, Purpose::Sync)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::Scratch;
    use crate::config::{Selection, Source};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// The configuration of host `h` with a line for each statement of its only group, from the second line on.
    fn config(statements: &[&str]) -> Config {
        let scratch = Scratch::new();
        let top = "prefix p { on *: /srv/p; } group { host h q; key k;";
        scratch.write("csync2.cfg", format!("{top}\n{}\n}}", statements.join("\n")));
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        Config::load(&source, &Selection { my_name: "h".into(), groups: None }).unwrap()
    }

    fn path(name: &str) -> SyncPath {
        SyncPath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn the_rule_that_decides_is_named() {
        let config = config(&["include /a;", "exclude *.c;", "exclude /a/b;", "include keep.c;", "compare /l;"]);
        for (name, purpose, covered, lines) in [
            ("/a/x", Purpose::Sync, true, "line 2"),
            ("/a/x.c", Purpose::Sync, false, "line 3"),
            ("/a/b/x.c", Purpose::Sync, false, "line 4"),
            ("/a/keep.c", Purpose::Sync, true, "line 2, line 5"),
            ("/x.c", Purpose::Sync, false, ""),
            ("/l", Purpose::Sync, false, ""),
            ("/l", Purpose::Compare, true, "line 6"),
        ] {
            let path = path(name);
            let verdict = Verdict::of(&config.groups[0], &path, purpose);
            let decisive: Vec<String> = verdict.decisive().iter().map(|rule| config.line(rule.span)).collect();
            assert_eq!((verdict.covers(), decisive.join(", ").as_str()), (covered, lines), "{name}");
        }
    }

    #[test]
    fn the_directory_that_is_not_entered_is_named() {
        let config = config(&["include /a %p%;", "exclude *.d /a/no;", "include /a/**.conf;", "include /b/*/c;"]);
        for (name, expected) in [
            ("/a/x.d/f.conf/g", Some("/a/x.d")),
            ("/a/no/f.conf", Some("/a/no")),
            ("/a/x/y", None),
            ("/b/1/c", None),
            ("/b/1/x/c", Some("/b/1/x")),
            ("%p%/x.d/f", Some("%p%/x.d")),
            ("/srv/p/x", Some("/srv/p")),
        ] {
            assert_eq!(barrier(&config, &path(name)).map(|path| path.to_string()).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn actions_come_with_the_pattern_that_fits() {
        let config =
            config(&["include /a; action { exec all; } action { pattern /b /a/*; exec one; } action { do-local; }"]);
        let of = |name: &str| -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
            let path = path(name);
            actions(&config.groups[0], &path)
                .map(|(action, pattern)| {
                    (action.commands[0].clone(), pattern.map(|pattern| pattern.as_bytes().to_vec()))
                })
                .collect()
        };
        assert_eq!(of("/a"), [(b"all".to_vec(), None)]);
        assert_eq!(of("/a/x"), [(b"one".to_vec(), Some(b"/a/*".to_vec())), (b"all".to_vec(), None)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_says_what_the_membership_says(
            rules in prop::collection::vec(r"(include|exclude|compare) (/a|/b|%p%|\*\.c|b|/a/\*|/a/\*\*c|b\.c);", 1..6),
            name in r"(/a|/b|%p%)(/(a|b|c|b\.c)){0,2}",
        ) {
            let config = config(&rules.iter().map(String::as_str).collect::<Vec<_>>());
            for purpose in [Purpose::Sync, Purpose::Compare] {
                let verdict = Verdict::of(&config.groups[0], &path(&name), purpose).covers();
                prop_assert_eq!(verdict, membership::covers(&config.groups[0], &path(&name), purpose));
            }
        }
    }
}
