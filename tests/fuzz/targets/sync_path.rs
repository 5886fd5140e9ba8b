//! Names of files as peers send them: what is accepted has no component that leads elsewhere, and its parts fit together.
#![no_main]

use csync2::model::{Scope, SyncPath, encoding};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &[u8]| {
    let Ok(path) = SyncPath::parse(name) else { return };
    assert_eq!(path.as_bytes(), name);
    assert!(!name.contains(&0));
    assert!(!name.split(|&byte| byte == b'/').any(|component| component == b"." || component == b".."));
    assert_eq!(SyncPath::parse(&encoding::decode(path.encoded().as_bytes())).as_ref(), Ok(&path));
    if let Some((prefix, below)) = path.split_prefix() {
        assert!(!prefix.is_empty() && !below.starts_with(b"/"));
    }
    assert!(Scope::Tree(path.clone()).contains(&path) && !path.is_below(&path));
    if let Some(parent) = path.parent() {
        assert!(path.is_below(&parent) && Scope::Tree(parent.clone()).contains(&path));
        assert_eq!(path.depth(), parent.depth() + 1);
        assert_eq!(parent.join(path.file_name()), Ok(path));
    }
});
