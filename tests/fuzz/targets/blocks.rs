//! Sums of blocks as an enemy may send them: the pieces that are found make up the new file as far as they are its bytes, and
//! what is copied is as long as what it stands for.
#![no_main]

use csync2::delta::blocks::{Matcher, Piece};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<u8>, Vec<u8>)| {
    let (block_length, sums, new) = input;
    let Some(mut matcher) = Matcher::new(u32::from(block_length), &sums) else { return };
    let (mut rest, mut length) = (&new[..], 0);
    let mut take = |piece: Piece<'_>| {
        length += match piece {
            Piece::Literal(bytes) => bytes.len() as u64,
            Piece::Copy { length, .. } => length,
        };
    };
    while matcher.step(&mut rest, &mut take).unwrap() {}
    assert_eq!(length, new.len() as u64);
});
