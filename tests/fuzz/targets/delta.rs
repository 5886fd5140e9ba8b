//! A peer's signature: whatever it holds, a delta is made or the signature is refused. With one of ours, the delta makes
//! the new file from the old one.
#![no_main]

use std::io::Write;

use csync2::delta::{Bounds, check_signature_header, delta, patch, signature};
use libfuzzer_sys::fuzz_target;

/// Sums as a peer sends them, after a header that is right as far as the magic goes.
fn hostile_signature(block_length: u32, strong_length: u32, sums: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x72, 0x73, 0x01, 0x36];
    bytes.extend(block_length.to_be_bytes());
    bytes.extend(strong_length.to_be_bytes());
    bytes.extend(sums);
    bytes
}

fuzz_target!(|input: (Vec<u8>, u16, u8, Vec<u8>, Vec<u8>)| {
    let (raw, block_length, strong_length, sums, new) = input;
    let bounds = Bounds { blocks: 1 << 12 };
    let hostile = hostile_signature(u32::from(block_length), u32::from(strong_length), &sums);
    for bytes in [&raw, &hostile] {
        let mut output = Vec::new();
        let made = delta(&mut &*new, bytes, &mut output, bounds).is_ok();
        assert!(!made || check_signature_header(bytes).is_ok());
        assert!(made || output.is_empty(), "a refused signature has no delta");
        assert!(output.len() <= 2 * new.len() + 64 + 64 * (sums.len() + 1), "a delta is about as long as the file");
    }

    let (mut ours, mut change, mut result) = (Vec::new(), Vec::new(), Vec::new());
    signature(&mut &*sums, &mut ours).unwrap();
    delta(&mut &*new, &ours, &mut change, bounds).unwrap();
    let mut basis = tempfile::tempfile().unwrap();
    basis.write_all(&sums).unwrap();
    patch(&basis, &mut &*change, &mut result, new.len() as u64).unwrap();
    assert_eq!(result, new);
});
