//! A peer's delta: it is applied or refused, and never makes more than the limit.
#![no_main]

use std::io::{Cursor, Read, Write};

use csync2::delta::patch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, bool, Vec<u8>, Vec<u8>)| {
    let (limit, with_magic, basis, commands) = input;
    let limit = u64::from(limit);
    let mut delta = if with_magic { vec![0x72, 0x73, 0x02, 0x36] } else { Vec::new() };
    delta.extend(commands);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&basis).unwrap();
    let mut output = Vec::new();
    let result = patch(&file, &mut &*delta, &mut output, limit);
    assert!(output.len() as u64 <= limit);
    if let Ok(written) = result {
        assert_eq!(written, output.len() as u64);
        let mut expected = Vec::new();
        let mut job = librsync::Patch::new(Cursor::new(&basis), &*delta).unwrap();
        job.read_to_end(&mut expected).expect("what we take, librsync takes");
        assert_eq!(output, expected);
    }
});
