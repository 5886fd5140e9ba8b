//! The lines of a peer's list: a line with a tab is a file, every other one ends the list; what is read as a name is one.
#![no_main]

use csync2::engine::in_sync::listing::{Line, Listed};
use csync2::model::{SyncPath, encoding};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    match Line::parse(line) {
        Line::End(_) => assert!(!line.contains(&b'\t')),
        Line::Strange(name) => assert!(SyncPath::parse(&name).is_err()),
        Line::File(Listed { path, checktxt }) => {
            assert_eq!(SyncPath::parse(path.as_bytes()).as_ref(), Ok(&path));
            // What our server would list reads the same.
            let again = format!("{}\t{}", encoding::encode(checktxt.as_bytes()), path.encoded());
            assert_eq!(Line::parse(again.as_bytes()), Line::File(Listed { path, checktxt }));
        }
    }
});
