//! The `%XX` encoding: both spellings of any name decode to it, and neither holds a byte that would end a field.
#![no_main]

use csync2::model::encoding::{classic, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &[u8]| {
    let ours = encode(name);
    let theirs = classic(name);
    for spelling in [ours.as_bytes(), &theirs] {
        assert_eq!(decode(spelling), name);
        assert!(!spelling.iter().any(|byte| b" \t\r\n:'\"$|\\".contains(byte)));
    }
    let decoded = decode(name);
    assert!(decoded.len() <= name.len());
    assert_eq!(decode(encode(&decoded).as_bytes()), decoded);
});
