//! A peer's signature: whatever it holds, a delta is made or the signature is refused. With one of ours, the delta makes
//! the new file from the old one, as librsync sees it, too.
#![no_main]

use std::io::{Cursor, Read, Write};

use csync2::delta::{Bounds, check_signature_header, delta, literal_delta, literal_length, patch, signature, signature_length};
use libfuzzer_sys::fuzz_target;

/// Sums as a peer sends them, after a header that is right as far as the magic goes.
fn hostile_signature(block_length: u32, strong_length: u32, sums: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x72, 0x73, 0x01, 0x36];
    bytes.extend(block_length.to_be_bytes());
    bytes.extend(strong_length.to_be_bytes());
    bytes.extend(sums);
    bytes
}

fn librsync_signature(content: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut job = librsync::Signature::with_options(content, 2048, 16, librsync::SignatureType::MD4).unwrap();
    job.read_to_end(&mut output).unwrap();
    output
}

fn librsync_patched(basis: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    librsync::Patch::new(Cursor::new(basis), delta).ok()?.read_to_end(&mut output).ok()?;
    Some(output)
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
    assert_eq!(ours.len() as u64, signature_length(sums.len() as u64));
    assert_eq!(ours, librsync_signature(&sums));
    delta(&mut &*new, &ours, &mut change, bounds).unwrap();
    let mut basis = tempfile::tempfile().unwrap();
    basis.write_all(&sums).unwrap();
    patch(&basis, &mut &*change, &mut result, new.len() as u64).unwrap();
    assert_eq!(result, new);
    assert_eq!(librsync_patched(&sums, &change), Some(new.clone()));

    // A file that is announced with another length than it turns out to have.
    let announced = u64::from(block_length);
    let mut whole = Vec::new();
    let made = literal_delta(&mut &*new, announced, &mut whole).is_ok();
    assert_eq!(whole.len() as u64, literal_length(announced));
    assert_eq!(made, new.len() as u64 >= announced);
    let expected = made.then(|| new[..usize::from(block_length)].to_vec());
    assert_eq!(librsync_patched(&[], &whole), expected, "what is too short is refused");
});
