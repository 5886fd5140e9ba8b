//! How names and other strings stand in the tables, and which stretches of the order of names a scope takes in.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::{Scope, SyncPath, encoding};

/// Which bytes a database takes in its text columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Any but NUL: the C program's spelling is ours.
    Bytes,
    /// Only valid UTF-8: other bytes become `%XX`.
    Utf8,
}

impl Spelling {
    /// The text that we write for a string.
    pub(super) fn write(self, raw: &[u8]) -> Vec<u8> {
        match self {
            Self::Bytes => key(raw),
            Self::Utf8 => encoding::encode(raw).into_bytes(),
        }
    }

    /// The other text under which a row may say the same; `None` where there is but one.
    pub(super) fn other(self, raw: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Bytes if std::str::from_utf8(raw).is_err() => Some(encoding::encode(raw).into_bytes()),
            // The C program's spelling is none that the database could hold.
            _ => None,
        }
    }
}

/// The C program's spelling: what defines the order of names.
pub(super) fn key(raw: &[u8]) -> Vec<u8> {
    encoding::classic(raw)
}

/// Reads a name from a table. `None`: malformed.
pub(super) fn read_path(text: &[u8]) -> Option<SyncPath> {
    SyncPath::parse(&encoding::decode(text)).ok()
}

/// Reads a host name from a table.
pub(super) fn read_host(text: &[u8]) -> String {
    String::from_utf8_lossy(&encoding::decode(text)).into_owned()
}

/// Host names from a table in which the rows have few of them: each is kept once.
#[derive(Debug, Default)]
pub(super) struct HostNames(HashSet<Arc<str>>);

impl HostNames {
    pub(super) fn read(&mut self, text: &[u8]) -> Arc<str> {
        let name = read_host(text);
        if let Some(known) = self.0.get(name.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// A stretch of the order of names, by their keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Range {
    /// One name.
    One(Vec<u8>),
    /// From the first, which is in it, up to the second, which is not; all that lies below a directory.
    Between(Vec<u8>, Vec<u8>),
    All,
}

impl Range {
    /// The keys between which it lies: from the first on, and before the second.
    pub(super) fn bounds(&self) -> (&[u8], Option<&[u8]>) {
        match self {
            Self::One(key) => (key, None),
            Self::Between(low, high) => (low, Some(high)),
            Self::All => (b"", None),
        }
    }
}

/// The stretches that the scopes take in: in order, none overlapping another.
pub(super) fn ranges(scopes: &[Scope]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(scopes.len());
    for scope in scopes {
        match scope {
            Scope::All => return vec![Range::All],
            Scope::File(path) => ranges.push(Range::One(key(path.as_bytes()))),
            Scope::Tree(top) => {
                let top = key(top.as_bytes());
                let directory = if top == b"/" { Vec::new() } else { top.clone() };
                ranges.push(Range::One(top));
                // `0` follows `/`. Between a directory and what is below it stand others: `/a`, `/a.d`, `/a/x`.
                ranges.push(Range::Between([&directory[..], b"/"].concat(), [&directory[..], b"0"].concat()));
            }
        }
    }
    ranges.sort_by(|one, other| one.bounds().cmp(&other.bounds()));
    let mut disjoint: Vec<Range> = Vec::with_capacity(ranges.len());
    // A tree lies within another or apart from it; whatever begins below the end of the last stretch is within it. The
    // root itself, `/`, is the one name that begins its own stretch.
    let mut end: Option<Vec<u8>> = None;
    for range in ranges {
        let low = range.bounds().0;
        if end.as_deref().is_some_and(|end| low < end) || disjoint.last() == Some(&range) {
            continue;
        }
        match range {
            Range::Between(low, high) => {
                if disjoint.last() == Some(&Range::One(low.clone())) {
                    disjoint.pop();
                }
                end = Some(high.clone());
                disjoint.push(Range::Between(low, high));
            }
            one => disjoint.push(one),
        }
    }
    disjoint
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(name: &str) -> SyncPath {
        SyncPath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_has_a_second_spelling_only_where_it_is_no_utf8() {
        assert_eq!(Spelling::Bytes.write(b"/gr\xfcn :"), b"/gr\xfcn%20%3A");
        assert_eq!(Spelling::Bytes.other(b"/gr\xfcn"), Some(b"/gr%FCn".to_vec()));
        assert_eq!(Spelling::Utf8.write(b"/gr\xfcn"), b"/gr%FCn");
        assert_eq!(Spelling::Utf8.other(b"/gr\xfcn"), None);
        assert_eq!(Spelling::Bytes.other("/grün".as_bytes()), None);
    }

    #[test]
    fn trees_swallow_what_lies_in_them() {
        let scopes =
            [Scope::File(path("/a/b")), Scope::Tree(path("/a")), Scope::Tree(path("/a/c")), Scope::File(path("/a"))];
        assert_eq!(ranges(&scopes), [Range::One(b"/a".to_vec()), Range::Between(b"/a/".to_vec(), b"/a0".to_vec())]);
        assert_eq!(ranges(&[Scope::Tree(path("/"))]), [Range::Between(b"/".to_vec(), b"0".to_vec())]);
        assert_eq!(ranges(&[Scope::File(path("/x")), Scope::All]), [Range::All]);
        assert_eq!(ranges(&[]), []);
    }

    fn name() -> impl Strategy<Value = SyncPath> {
        prop::collection::vec("[ab.0 é]{1,2}", 0..4).prop_map(|components| {
            let components: Vec<_> = components.into_iter().map(|name| name.replace('.', "-.")).collect();
            SyncPath::parse(format!("/{}", components.join("/")).as_bytes()).unwrap()
        })
    }

    fn in_range(range: &Range, path: &SyncPath) -> bool {
        let key = key(path.as_bytes());
        match range {
            Range::All => true,
            Range::One(one) => *one == key,
            Range::Between(low, high) => *low <= key && key < *high,
        }
    }

    proptest! {
        #[test]
        fn every_name_is_in_as_many_ranges_as_it_should(
            files in prop::collection::vec(name(), 0..3),
            trees in prop::collection::vec(name(), 0..3),
            probe in name(),
        ) {
            let scopes: Vec<_> = files.into_iter().map(Scope::File).chain(trees.into_iter().map(Scope::Tree)).collect();
            let expected = usize::from(scopes.iter().any(|scope| scope.contains(&probe)));
            let found = ranges(&scopes).iter().filter(|range| in_range(range, &probe)).count();
            prop_assert_eq!(found, expected, "{:?} {:?}", scopes, probe);
        }
    }
}
