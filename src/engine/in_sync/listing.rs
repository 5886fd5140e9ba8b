//! One line of the answer to LIST: a file as the peer knows it, or the end. Which order the lines come in is for `sorter`.

use crate::model::{Checktxt, SyncPath, encoding};
use crate::wire::Reply;

/// A file of a peer's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub path: SyncPath,
    pub checktxt: Checktxt,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    File(Listed),
    /// A name that cannot be one of ours, as it was sent.
    Strange(Vec<u8>),
    /// Nothing follows: a success, or why there is no list.
    End(Reply),
}

impl Line {
    /// Reads one line, without its line end. Both fields are encoded, so that a tab between them tells a file from an
    /// answer, whatever the texts are.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        let Some(tab) = line.iter().position(|&byte| byte == b'\t') else { return Self::End(Reply::parse(line)) };
        let (checktxt, name) = (encoding::decode(&line[..tab]), encoding::decode(&line[tab + 1..]));
        match SyncPath::parse(&name) {
            Ok(path) => Self::File(Listed { path, checktxt: Checktxt::from_text(&checktxt) }),
            Err(_) => Self::Strange(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tab_tells_files_from_answers() {
        let listed = |path: &str, checktxt: &str| {
            let path = SyncPath::parse(path.as_bytes()).unwrap();
            Line::File(Listed { path, checktxt: Checktxt::from_text(checktxt.as_bytes()) })
        };
        for (line, expected) in [
            ("v1%3Atype=dir\t%25d%25/a%20b", listed("%d%/a b", "v1:type=dir")),
            ("\t/x", listed("/x", "")),
            ("v1%3Atype=dir\t/a/../b", Line::Strange(b"/a/../b".to_vec())),
            ("v1%3Atype=dir\t", Line::Strange(Vec::new())),
            ("OK (cmd_finished).", Line::End(Reply::CmdFinished)),
            ("Permission denied!", Line::End(Reply::PermissionDenied)),
            ("", Line::End(Reply::Text(String::new()))),
        ] {
            assert_eq!(Line::parse(line.as_bytes()), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_listed_comes_back(
            name in prop::collection::vec(1u8.., 1..60),
            checktxt in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let name = [b"/".to_vec(), name].concat();
            // (A NUL is never part of a checktxt, and no encoder escapes it; it passes all the same.)
            let classic = |bytes: &[u8]| encoding::classic(bytes);
            let lines = [
                [classic(&checktxt), classic(&name)].join(&b'\t'),
                format!("{}\t{}", encoding::encode(&checktxt), encoding::encode(&name)).into_bytes(),
            ];
            for line in lines {
                match (Line::parse(&line), SyncPath::parse(&name)) {
                    (Line::File(listed), Ok(path)) => {
                        prop_assert_eq!(listed.path, path);
                        prop_assert_eq!(listed.checktxt.as_bytes(), &checktxt);
                    }
                    (Line::Strange(strange), Err(_)) => prop_assert_eq!(strange, name.clone()),
                    (line, path) => prop_assert!(false, "{:?} {:?}", line, path),
                }
            }
        }

        #[test]
        fn any_line_is_a_file_or_the_end(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let is_end = matches!(Line::parse(&line), Line::End(_));
            prop_assert_eq!(is_end, !line.contains(&b'\t'));
        }
    }
}
