//! Patterns of the configuration, prepared for many comparisons (spec: config.md, "patterns"). What a match means is
//! the engine's business.

use std::ffi::{CStr, CString};

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

/// The name of a file, ready to be compared with many patterns.
#[derive(Debug, Clone)]
pub struct Subject {
    name: CString,
    basename: usize,
}

impl Subject {
    #[must_use]
    pub fn of(path: &SyncPath) -> Self {
        let bytes = path.as_bytes();
        let basename = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        Self { name: c_string(bytes), basename }
    }

    fn basename(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.name.as_bytes_with_nul()[self.basename..]).unwrap_or_default()
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
            PatternKind::Basename => fnmatch(&self.text, subject.basename(), Flags::default()),
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

    /// Whether a host name is meant. Case counts.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        fnmatch(&self.text, &c_string(name.as_bytes()), Flags::default())
    }
}

/// Up to the first NUL, where the C program's strings end.
fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
