//! Signatures, deltas and sums of blocks. librsync is asked for its opinion.

use std::io::{Cursor, Read, Write};

use csync2::delta::blocks::{Matcher, Piece};
use csync2::delta::following::{Follower, Progress};
use csync2::delta::{
    Bounds, check_signature_header, delta as make, literal_delta, literal_length, patch as apply, signature,
    signature_length,
};

use super::Parts;

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

/// A peer's signature: whatever it holds, a delta is made or the signature is refused. With one of ours, the delta makes the
/// new file from the old one, as librsync sees it, too. The input: a signature; block length, length of the strong sums and
/// sums of another one, which are the old file as well; the new file.
pub fn delta(input: &[u8]) {
    let mut parts = Parts(input);
    let (raw, block_length, strong_length, sums) = (parts.counted(), parts.short(), parts.byte(), parts.counted());
    let mut new = parts.rest();
    let bounds = Bounds { blocks: 1 << 12 };
    let hostile = hostile_signature(u32::from(block_length), u32::from(strong_length), sums);
    for bytes in [raw, &hostile] {
        let mut output = Vec::new();
        let made = make(&mut &*new, bytes, &mut output, bounds).is_ok();
        assert!(!made || check_signature_header(bytes).is_ok());
        assert!(made || output.is_empty(), "a refused signature has no delta");
        assert!(output.len() <= 2 * new.len() + 64 + 64 * (sums.len() + 1), "a delta is about as long as the file");
    }

    let (mut ours, mut change, mut result) = (Vec::new(), Vec::new(), Vec::new());
    signature(&mut &*sums, &mut ours).unwrap();
    assert_eq!(ours.len() as u64, signature_length(sums.len() as u64));
    assert_eq!(ours, librsync_signature(sums));
    make(&mut &*new, &ours, &mut change, bounds).unwrap();
    let mut basis = tempfile::tempfile().unwrap();
    basis.write_all(sums).unwrap();
    apply(&basis, &mut &*change, &mut result, new.len() as u64).unwrap();
    assert_eq!(result, new);
    assert_eq!(librsync_patched(sums, &change).as_deref(), Some(new));

    // A file that is announced with another length than it turns out to have.
    let announced = u64::from(block_length);
    let expected = new.get(..usize::from(block_length));
    let mut whole = Vec::new();
    let made = literal_delta(&mut new, announced, &mut whole).is_ok();
    assert_eq!(whole.len() as u64, literal_length(announced));
    assert_eq!(made, expected.is_some());
    assert_eq!(librsync_patched(&[], &whole).as_deref(), expected, "what is too short is refused");
}

/// A peer's delta: it is applied or refused, and never makes more than the limit. The input: the limit; whether the magic is
/// put before the commands; the old file; the commands.
pub fn patch(input: &[u8]) {
    let mut parts = Parts(input);
    let (limit, with_magic, basis) = (u64::from(parts.short()), parts.byte() % 2 == 1, parts.counted());
    let magic: &[u8] = if with_magic { &[0x72, 0x73, 0x02, 0x36] } else { &[] };
    let delta = [magic, parts.rest()].concat();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(basis).unwrap();
    let mut output = Vec::new();
    let result = apply(&file, &mut &*delta, &mut output, limit);
    assert!(output.len() as u64 <= limit);
    if let Ok(written) = result {
        assert_eq!(written, output.len() as u64);
        let mut expected = Vec::new();
        let mut job = librsync::Patch::new(Cursor::new(basis), &*delta).unwrap();
        job.read_to_end(&mut expected).expect("what we take, librsync takes");
        assert_eq!(output, expected);
    }
}

/// Sums of blocks as an enemy may send them: the pieces that are found make up the new file as far as they are its bytes, and
/// what is copied is as long as what it stands for; whether the sums are complete at once or come meanwhile. The input: in how
/// long pieces they come, the length of blocks, the key and the sums, the new file.
pub fn blocks(input: &[u8]) {
    let mut parts = Parts(input);
    let (piece, block_length) = (usize::from(parts.byte()).max(1), u32::from(parts.byte()));
    let (sums, new) = (parts.counted(), parts.rest());

    if let Some(mut matcher) = Matcher::new(block_length, sums) {
        let (mut rest, mut found) = (new, 0);
        while matcher.step(&mut rest, &mut |piece| found += covered(piece)).unwrap() {}
        assert_eq!(found, new.len() as u64);
    }

    let described = [&block_length.to_be_bytes(), sums].concat();
    let (mut follower, mut rest, mut found) = (Follower::default(), new, 0);
    let mut coming = described.chunks(piece);
    loop {
        match follower.step(&mut rest, &mut |piece| found += covered(piece)).unwrap() {
            Progress::More => {}
            Progress::NeedsSums => match coming.next() {
                Some(bytes) => follower.add(bytes),
                None => follower.complete(),
            },
            Progress::Done => break,
        }
    }
    assert_eq!(found, new.len() as u64);
}

/// The bytes that a piece stands for.
fn covered(piece: Piece<'_>) -> u64 {
    match piece {
        Piece::Literal(bytes) => bytes.len() as u64,
        Piece::Copy { length, .. } => length,
    }
}
