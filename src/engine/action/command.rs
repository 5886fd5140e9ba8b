//! The text of a command: where the names of files go, and how many fit.

use crate::model::ActionVersion;

/// Bytes that the system allows for a command line, which is one argument of the shell (MAX_ARG_STRLEN without the NUL).
const LONGEST: usize = 128 * 1024 - 1;

/// One run of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) line: Vec<u8>,
    /// The rows that it answers.
    pub(super) versions: Vec<ActionVersion>,
}

/// Puts quoted names in place of the first `%%`, as many in each line as fit. A command without `%%` is one line; one
/// that is too long for a single name is left for the system to refuse. Equal names in a row count once.
pub(super) fn batches(command: &[u8], names: Vec<(Vec<u8>, ActionVersion)>) -> Vec<Batch> {
    let Some(at) = command.windows(2).position(|pair| pair == b"%%") else {
        let versions: Vec<_> = names.into_iter().map(|(_, version)| version).collect();
        return if versions.is_empty() { Vec::new() } else { vec![Batch { line: command.to_vec(), versions }] };
    };
    let (before, after) = (&command[..at], &command[at + 2..]);
    let mut batches: Vec<Batch> = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    for (name, version) in names {
        match batches.last_mut() {
            Some(batch) if last.as_ref() == Some(&name) => batch.versions.push(version),
            Some(batch) if batch.line.len() + 1 + name.len() + after.len() <= LONGEST => {
                batch.line.push(b' ');
                batch.line.extend_from_slice(&name);
                batch.versions.push(version);
            }
            _ => batches.push(Batch { line: [before, &name].concat(), versions: vec![version] }),
        }
        last = Some(name);
    }
    for batch in &mut batches {
        batch.line.extend_from_slice(after);
    }
    batches
}

/// Quotes a name for the shell where it needs it.
pub(super) fn quote(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(byte);
    if !name.is_empty() && name.iter().all(is_plain) {
        return name.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in name {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<(Vec<u8>, ActionVersion)> {
        names.iter().zip(1..).map(|(name, version)| (name.as_bytes().to_vec(), ActionVersion(version))).collect()
    }

    fn lines(command: &str, names: &[&str]) -> Vec<(String, Vec<i64>)> {
        let text = |batch: Batch| {
            (String::from_utf8(batch.line).unwrap(), batch.versions.into_iter().map(|version| version.0).collect())
        };
        batches(command.as_bytes(), named(names)).into_iter().map(text).collect()
    }

    #[test]
    fn names_are_quoted_where_the_shell_would_read_more_than_a_name() {
        assert_eq!(quote(b"/etc/motd"), b"/etc/motd");
        assert_eq!(quote(b"/a b;`id`"), b"'/a b;`id`'");
        assert_eq!(quote(b"/it's"), b"'/it'\\''s'");
    }

    #[test]
    fn the_names_take_the_place_of_the_first_two_percent_signs() {
        assert_eq!(lines("make %% %%", &["/a", "/b"]), [("make /a /b %%".to_owned(), vec![1, 2])]);
        assert_eq!(lines("make %", &["/a", "/b"]), [("make %".to_owned(), vec![1, 2])]);
        assert_eq!(lines("%%", &["/a", "/a", "/b"]), [("/a /b".to_owned(), vec![1, 2, 3])]);
        assert_eq!((lines("make %%", &[]), lines("make", &[])), (vec![], vec![]));
    }

    #[test]
    fn a_long_list_is_cut_where_the_system_would_refuse_it() {
        let name = |length: usize| "n".repeat(length);
        let (half, rest) = (name(60_000), name(LONGEST - 60_000 - "make ".len() - " all".len() - 1));
        let whole = lines("make %% all", &[&half, &rest]);
        assert_eq!((whole.len(), whole[0].0.len()), (1, LONGEST));
        let cut = lines("make %% all", &[&half, &format!("{rest}n"), "/c"]);
        let versions: Vec<_> = cut.iter().map(|(_, versions)| versions.clone()).collect();
        assert_eq!(versions, [vec![1], vec![2, 3]]);
        assert!(cut.iter().all(|(line, _)| line.starts_with("make n") && line.ends_with(" all")));
        assert_eq!(lines("make %%", &[&name(LONGEST), "/b"]).len(), 2, "what fits nowhere is a line of its own");
    }
}
