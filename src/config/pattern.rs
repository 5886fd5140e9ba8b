//! Patterns of the configuration, prepared for many comparisons (docs/manual.md, "Patterns"). What a match means is
//! the engine's business.

use std::ffi::CString;

use super::fnmatch::{Flags, fnmatch};
use crate::model::SyncPath;

/// A shell pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: CString,
    kind: PatternKind,
    /// For a path pattern: itself cut at each of its slashes, the longest first.
    shortenings: Vec<CString>,
}

/// What a pattern is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternKind {
    /// The whole name. Stars cross slashes when the pattern holds `**` anywhere.
    Path { stars_cross_slashes: bool },
    /// The last component.
    Basename,
}

/// What a path pattern says of all names below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// It matches every one of them.
    All,
    /// It matches none of them.
    None,
    /// Each is to be compared.
    Some,
}

/// The name of a file, ready to be compared with many patterns.
#[derive(Debug, Clone)]
pub struct Subject {
    name: CString,
    basename: usize,
}

impl Subject {
    #[must_use]
    pub fn of(path: &SyncPath) -> Self {
        Self::of_bytes(path.as_bytes())
    }

    /// Of a [`SyncPath`], by its bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let basename = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        Self { name: c_string(bytes), basename }
    }

    fn basename(&self) -> &[u8] {
        &self.name.as_bytes()[self.basename..]
    }
}

impl Pattern {
    /// As it stands behind `include`, `exclude`, `compare`: trailing slashes are dropped, but for that of `/` itself; a
    /// path pattern begins with `/` or `%`, any other is for the basename.
    #[must_use]
    pub fn rule(text: &[u8]) -> Self {
        let last = text.iter().rposition(|&byte| byte != b'/').unwrap_or(0);
        let text = text.get(..=last).unwrap_or_default();
        match text.first() {
            Some(b'/' | b'%') => Self::path(text),
            _ => Self { text: c_string(text), kind: PatternKind::Basename, shortenings: Vec::new() },
        }
    }

    /// As it stands behind `pattern` in an action: always for the whole name, nothing dropped.
    #[must_use]
    pub fn path(text: &[u8]) -> Self {
        let slashes = text.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(index, _)| index);
        let mut shortenings: Vec<_> =
            slashes.filter(|&index| index > 0).map(|index| c_string(&text[..index])).collect();
        shortenings.reverse();
        let stars_cross_slashes = text.windows(2).any(|pair| pair == b"**");
        Self { text: c_string(text), kind: PatternKind::Path { stars_cross_slashes }, shortenings }
    }

    /// A pattern of host names.
    #[must_use]
    pub fn name(text: &[u8]) -> Self {
        Self { text: c_string(text), kind: PatternKind::Basename, shortenings: Vec::new() }
    }

    #[must_use]
    pub fn kind(&self) -> PatternKind {
        self.kind
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether a file is meant. A path pattern also matches what lies below a directory that it matches.
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        match self.kind {
            PatternKind::Path { stars_cross_slashes } => {
                fnmatch(&self.text, &subject.name, Flags { pathname: !stars_cross_slashes, leading_dir: true })
            }
            PatternKind::Basename => self.matches_basename(subject.basename()),
        }
    }

    /// Whether the name may be a directory above files that a path pattern matches: a pattern cut at one of its
    /// slashes matches it exactly.
    #[must_use]
    pub fn may_match_below(&self, subject: &Subject) -> bool {
        let PatternKind::Path { stars_cross_slashes } = self.kind else { return false };
        let flags = Flags { pathname: !stars_cross_slashes, leading_dir: false };
        self.shortenings.iter().any(|shortening| fnmatch(shortening, &subject.name, flags))
    }

    /// What a path pattern says of everything below `directory`, so that the files there need not be compared one by one.
    #[must_use]
    pub fn below(&self, directory: &SyncPath) -> Below {
        let PatternKind::Path { stars_cross_slashes } = self.kind else { return Below::Some };
        let subject = Subject::of(directory);
        // A match of a leading directory is a match; but below `/` no name begins with `//`.
        if directory.as_bytes() != b"/" && self.matches(&subject) {
            return Below::All;
        }
        let (pattern, directory) = (self.as_bytes(), directory.as_bytes());
        let literal = pattern.iter().copied().position(is_wild).unwrap_or(pattern.len());
        let begins_alike = pattern[..literal].iter().zip(directory).all(|(one, other)| one == other);
        let is_deeper = match directory {
            b"/" => literal > 1,
            _ if literal > directory.len() => pattern[directory.len()] == b'/',
            _ => false,
        };
        if !begins_alike || (literal > directory.len() && !is_deeper) || (literal == pattern.len() && !is_deeper) {
            return Below::None;
        }
        // Component by component: what matches below has a beginning that matches here. (In brackets and behind a
        // backslash, a slash may be none that ends a component.)
        let is_plain = !stars_cross_slashes && !pattern.iter().any(|byte| b"[\\".contains(byte));
        if is_plain && directory != b"/" && !self.may_match_below(&subject) { Below::None } else { Below::Some }
    }

    /// Whether a basename pattern means a file, told by its last component. Most of these patterns need no fnmatch.
    #[must_use]
    pub fn matches_basename(&self, basename: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match text {
            [b'*', rest @ ..] if !rest.iter().copied().any(is_wild) => basename.ends_with(rest),
            [rest @ .., b'*'] if !rest.iter().copied().any(is_wild) => basename.starts_with(rest),
            _ if !text.iter().copied().any(is_wild) => basename == text,
            _ => fnmatch(&self.text, &c_string(basename), Flags::default()),
        }
    }

    /// Whether a host name is meant. Case counts.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        fnmatch(&self.text, &c_string(name.as_bytes()), Flags::default())
    }
}

/// Whether a byte of a pattern may stand for another one.
fn is_wild(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// Up to the first NUL, where the C program's strings end.
fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn subject(name: &str) -> Subject {
        Subject::of(&SyncPath::parse(name.as_bytes()).unwrap())
    }

    #[test]
    fn a_pattern_is_for_paths_or_for_basenames() {
        for (pattern, name, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b/", "/a/b/c", true),
            ("/a/b//", "/a/b", true),
            ("/", "/", true),
            ("//", "/", true),
            ("/", "/a", false),
            ("b//", "/a/b", true),
            ("/a/b", "/a/bc", false),
            ("/a/*.c", "/a/.c", true),
            ("/a/*.c", "/a/b/x.c", false),
            ("/a/**.c", "/a/b/x.c", true),
            ("/a/*/x**", "/a/b/c/x", true),
            ("%p%/a", "%p%/a/b", true),
            ("*.c", "/a/b.c", true),
            ("a", "/a/b", false),
            ("[ab]", "/x/b", true),
            ("\\*", "/x/*", true),
        ] {
            assert_eq!(Pattern::rule(pattern.as_bytes()).matches(&subject(name)), expected, "{pattern} {name}");
        }
        assert!(!Pattern::path(b"b.c").matches(&subject("/a/b.c")), "actions know no basenames");
        assert!(!Pattern::path(b"/a/").matches(&subject("/a")), "actions keep the slash");
    }

    #[test]
    fn a_directory_is_above_when_a_shortened_pattern_matches_it() {
        for (pattern, name, expected) in [
            ("/a/*/c", "/a/b", true),
            ("/a/*/c", "/a", true),
            ("/a/*/c", "/a/b/x", false),
            ("/a/**.txt", "/a", true),
            ("/a/**.txt", "/a/b", false),
            ("/a/**/*.txt", "/a/b/c", true),
            ("/a/*/x**y/z", "/a/b/c", true),
            ("%p%/a/b", "%p%/a", true),
            ("%p%/a/b", "%p%", true),
            ("*.c", "/a", false),
        ] {
            assert_eq!(Pattern::rule(pattern.as_bytes()).may_match_below(&subject(name)), expected, "{pattern} {name}");
        }
    }

    /// Patterns and names of few different pieces, so that they meet often.
    const PATTERN: &str = r"[/%]((a|b|ab|\*|\*\*|\?|\[ab\]|\[!a\]|\\a|\.|%|/){0,7})";

    fn directory() -> impl Strategy<Value = SyncPath> {
        let names = prop::collection::vec("(a|b|ab|\\.b|a%)", 0..4);
        (names, any::<bool>()).prop_map(|(names, prefixed)| {
            let below = names.iter().fold(String::new(), |below, name| below + "/" + name);
            let name = if prefixed {
                format!("%a%{below}")
            } else if below.is_empty() {
                "/".to_owned()
            } else {
                below
            };
            SyncPath::parse(name.as_bytes()).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_said_of_all_names_below_is_true_of_each(
            pattern in PATTERN,
            directory in directory(),
            below in prop::collection::vec("(a|b|ab|\\.b|a%)", 1..4),
        ) {
            let pattern = Pattern::rule(pattern.as_bytes());
            let name = below.iter().fold(directory.clone(), |name, entry| name.join(entry.as_bytes()).unwrap());
            let matches = pattern.matches(&Subject::of(&name));
            match pattern.below(&directory) {
                Below::All => prop_assert!(matches, "{pattern:?} {name}"),
                Below::None => prop_assert!(!matches, "{pattern:?} {name}"),
                Below::Some => {}
            }
        }

        #[test]
        fn basenames_match_as_fnmatch_says(pattern in r"(a|b|\*|\?|\[ab\]|\\a|\.|~){0,4}", name in "[ab.~*]{1,5}") {
            let pattern = Pattern::rule(pattern.as_bytes());
            let expected = fnmatch(&pattern.text, &c_string(name.as_bytes()), Flags::default());
            prop_assert_eq!(pattern.matches_basename(name.as_bytes()), expected);
        }
    }

    #[test]
    fn the_common_patterns_are_decided_once_a_directory() {
        for (pattern, directory, expected) in [
            ("/a", "/a", Below::All),
            ("/a", "/a/b", Below::All),
            ("/a", "/", Below::Some),
            ("/", "/", Below::None),
            ("/a/b/c", "/a/b", Below::Some),
            ("/a/b/c", "/a", Below::Some),
            ("/a/b/c", "/a/x", Below::None),
            ("/a", "/ab", Below::None),
            ("/ab", "/a", Below::None),
            ("/a/*.c", "/a", Below::Some),
            ("/a/*.c", "/a/b", Below::None),
            ("/a/*", "/a/b", Below::All),
            ("/a/**.c", "/a/b", Below::Some),
            ("/a/**.c", "/b", Below::None),
            ("%p%", "%p%", Below::All),
            ("%p%", "/p", Below::None),
        ] {
            let directory_path = SyncPath::parse(directory.as_bytes()).unwrap();
            assert_eq!(Pattern::rule(pattern.as_bytes()).below(&directory_path), expected, "{pattern} {directory}");
        }
    }
}
