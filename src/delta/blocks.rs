//! What changed between two versions of a file, in the batch dialect: sums of the blocks of the old one, and the new one as
//! pieces of the old one and bytes between them. Whether the outcome is right is for a digest of the whole to say.
//!
//! A block's sums are a weak one that can be moved on byte by byte, and 16 bytes of BLAKE3. Blocks grow with the file: as
//! long as the square root of its size, so that sums and what one changed byte costs grow alike.

use std::io::{self, Read};

/// Bytes that a block's sums take.
pub const SUM: usize = 4 + STRONG;

const STRONG: usize = 16;

/// Blocks of one file, at most: it bounds the memory that sums take.
pub const MAX_BLOCKS: u64 = 1 << 18;

const SHORTEST: u64 = 1 << 10;

/// The longest block that is taken from a peer, in bytes: that of a file of 16 TiB.
pub const LONGEST: u32 = 1 << 26;

/// Literal bytes that are handed on together.
const LITERAL: usize = 64 * 1024;

/// A copied piece that is handed on at once, in bytes.
const LONG_COPY: u64 = 8 << 20;

/// Bytes read at a time.
const READ: usize = 256 * 1024;

/// Strong sums that led to nothing may cost so many bytes more than the file has: an enemy's weak sums can match anywhere.
const WASTE: u64 = 64 << 20;

/// The multiplier of the weak sum: any odd number with bits everywhere.
const MULTIPLIER: u32 = 0x0810_4225;

/// The block length for a file of this size.
#[must_use]
pub fn block_length(size: u64) -> u32 {
    let length = size.isqrt().max(size.div_ceil(MAX_BLOCKS)).max(SHORTEST);
    // Whole cache lines.
    u32::try_from(length.next_multiple_of(64)).unwrap_or(LONGEST).min(LONGEST)
}

/// Hands out the sums of each block of `input`, in order.
///
/// # Errors
/// Those of reading.
pub fn sums(input: &mut dyn Read, block_length: u32, take: &mut dyn FnMut([u8; SUM])) -> io::Result<()> {
    let mut block = vec![0; block_length as usize];
    loop {
        let length = fill(input, &mut block)?;
        if length == 0 {
            return Ok(());
        }
        let mut sum = [0; SUM];
        sum[..4].copy_from_slice(&weak(&block[..length]).to_be_bytes());
        sum[4..].copy_from_slice(&strong(&block[..length]));
        take(sum);
        if length < block.len() {
            return Ok(());
        }
    }
}

fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn strong(block: &[u8]) -> [u8; STRONG] {
    let mut sum = [0; STRONG];
    sum.copy_from_slice(&blake3::hash(block).as_bytes()[..STRONG]);
    sum
}

/// The sum over bytes b of b · MULTIPLIER^(bytes behind it), modulo 2³².
fn weak(block: &[u8]) -> u32 {
    const M1: u32 = MULTIPLIER;
    const M2: u32 = M1.wrapping_mul(M1);
    const M3: u32 = M2.wrapping_mul(M1);
    const M4: u32 = M2.wrapping_mul(M2);
    let mut sum = 0_u32;
    let (fours, rest) = block.as_chunks::<4>();
    // Four at a time: each multiplication of the sum waits for the one before.
    for &[one, two, three, four] in fours {
        let next = u32::from(one).wrapping_mul(M3).wrapping_add(u32::from(two).wrapping_mul(M2));
        let next = next.wrapping_add(u32::from(three).wrapping_mul(M1)).wrapping_add(u32::from(four));
        sum = sum.wrapping_mul(M4).wrapping_add(next);
    }
    rest.iter().fold(sum, |sum, &byte| sum.wrapping_mul(M1).wrapping_add(byte.into()))
}

/// A piece of the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    Literal(&'a [u8]),
    /// A piece of the old version.
    Copy {
        offset: u64,
        length: u64,
    },
}

/// The old version's blocks, to be found by their sums.
#[derive(Debug)]
struct Blocks {
    block_length: usize,
    sums: Vec<u8>,
    /// Numbers of blocks, plus one, by weak sum: open addressing, 0 is free.
    table: Vec<u32>,
}

/// Blocks of one weak sum that are looked at.
const ALIKE: usize = 8;

impl Blocks {
    fn new(block_length: u32, sums: Vec<u8>) -> Self {
        let count = sums.len() / SUM;
        let mut blocks =
            Self { block_length: block_length as usize, sums, table: vec![0; (2 * count).next_power_of_two().max(2)] };
        for block in 0..count {
            let mut slot = blocks.slot(blocks.weak_of(block));
            let mut alike = 0;
            while blocks.table[slot] != 0 && alike < ALIKE {
                let other = blocks.table[slot] as usize - 1;
                alike += usize::from(blocks.weak_of(other) == blocks.weak_of(block));
                slot = (slot + 1) & (blocks.table.len() - 1);
            }
            if alike < ALIKE {
                blocks.table[slot] = u32::try_from(block + 1).unwrap_or_default();
            }
        }
        blocks
    }

    fn count(&self) -> usize {
        self.sums.len() / SUM
    }

    fn weak_of(&self, block: usize) -> u32 {
        let sum = &self.sums[block * SUM..];
        u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])
    }

    fn strong_of(&self, block: usize) -> &[u8] {
        &self.sums[block * SUM + 4..(block + 1) * SUM]
    }

    fn slot(&self, weak: u32) -> usize {
        // The low bits of the sum say little.
        let mixed = weak.wrapping_mul(0x9e37_79b1);
        (mixed >> 7) as usize & (self.table.len() - 1)
    }

    /// The block with these bytes; `wanted` is the likeliest. The flag: a strong sum was made for nothing.
    fn find(&self, weak: u32, bytes: &[u8], wanted: usize) -> (Option<usize>, bool) {
        let mut known: Option<[u8; STRONG]> = None;
        let mut is_it = |block: usize| {
            self.weak_of(block) == weak && self.strong_of(block) == known.get_or_insert_with(|| strong(bytes))
        };
        if wanted < self.count() && is_it(wanted) {
            return (Some(wanted), false);
        }
        let mut slot = self.slot(weak);
        while self.table[slot] != 0 {
            let block = self.table[slot] as usize - 1;
            if is_it(block) {
                return (Some(block), false);
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
        (None, known.is_some())
    }
}

/// Finds pieces of the old version in the new one, as it is read.
#[derive(Debug)]
pub struct Matcher {
    blocks: Blocks,
    /// MULTIPLIER^(`block_length` − 1).
    factor: u32,
    buffer: Vec<u8>,
    /// The first byte of the buffer that was not handed out.
    start: usize,
    /// The first byte of the window.
    at: usize,
    /// The window's weak sum, if it is a whole block that was moved on by a byte.
    sum: Option<u32>,
    ended: bool,
    /// A copy that may go on: where it begins and how long it is.
    copy: Option<(u64, u64)>,
    wanted: usize,
    read: u64,
    wasted: u64,
}

impl Matcher {
    /// `None` for sums that cannot be used: of no block, of blocks of an impossible length, or cut short.
    #[must_use]
    pub fn new(block_length: u32, sums: Vec<u8>) -> Option<Self> {
        let is_usable = (1..=LONGEST).contains(&block_length) && !sums.is_empty() && sums.len().is_multiple_of(SUM);
        if !is_usable || sums.len() / SUM > usize::try_from(MAX_BLOCKS).unwrap_or(usize::MAX) {
            return None;
        }
        Some(Self {
            factor: MULTIPLIER.wrapping_pow(block_length - 1),
            blocks: Blocks::new(block_length, sums),
            buffer: Vec::new(),
            start: 0,
            at: 0,
            sum: None,
            ended: false,
            copy: None,
            wanted: 0,
            read: 0,
            wasted: 0,
        })
    }

    /// Reads some more of `new` and hands out what is certain. `false`: that was all.
    ///
    /// # Errors
    /// Those of reading.
    pub fn step(&mut self, new: &mut dyn Read, take: &mut dyn FnMut(Piece<'_>)) -> io::Result<bool> {
        self.refill(new)?;
        let length = self.blocks.block_length;
        loop {
            let left = self.buffer.len() - self.at;
            if left == 0 && self.ended {
                self.hand_out(take);
                self.end_copy(take);
                return Ok(false);
            }
            if left < length && !self.ended {
                return Ok(true);
            }
            if self.at - self.start >= LITERAL {
                self.hand_out(take);
            }
            let window = left.min(length);
            let sum = self.sum.unwrap_or_else(|| weak(&self.buffer[self.at..self.at + window]));
            if let Some(block) = self.find(sum, window) {
                self.hand_out(take);
                self.add_copy(block as u64 * length as u64, window as u64, take);
                self.wanted = block + 1;
                self.at += window;
                self.start = self.at;
                self.sum = None;
            } else {
                self.sum = self.moved_on(sum, window);
                self.at += 1;
            }
        }
    }

    fn find(&mut self, sum: u32, window: usize) -> Option<usize> {
        if self.wasted > WASTE + self.read {
            return None;
        }
        // Of a window at the end that is shorter than a block, only the last block can have the length.
        let bytes = &self.buffer[self.at..self.at + window];
        let (found, for_nothing) = self.blocks.find(sum, bytes, self.wanted);
        if for_nothing {
            self.wasted += window as u64;
        }
        found.filter(|&block| window == self.blocks.block_length || block + 1 == self.blocks.count())
    }

    /// The sum of the window that begins a byte later.
    fn moved_on(&self, sum: u32, window: usize) -> Option<u32> {
        if window < self.blocks.block_length {
            // It gets shorter by its first byte.
            let factor = MULTIPLIER.wrapping_pow(u32::try_from(window - 1).ok()?);
            return (window > 1).then(|| sum.wrapping_sub(u32::from(self.buffer[self.at]).wrapping_mul(factor)));
        }
        let without_first = sum.wrapping_sub(u32::from(self.buffer[self.at]).wrapping_mul(self.factor));
        match self.buffer.get(self.at + window) {
            Some(&next) => Some(without_first.wrapping_mul(MULTIPLIER).wrapping_add(next.into())),
            None if self.ended => (window > 1).then_some(without_first),
            None => None,
        }
    }

    fn refill(&mut self, new: &mut dyn Read) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
        let length = self.buffer.len();
        // A byte more than a block, so that the sum can be moved on.
        let room = READ.max(2 * self.blocks.block_length);
        self.buffer.resize(length + room, 0);
        let read = fill(new, &mut self.buffer[length..])?;
        self.buffer.truncate(length + read);
        self.ended = read < room;
        self.read += read as u64;
        Ok(())
    }

    fn hand_out(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        if self.start < self.at {
            self.end_copy(take);
            take(Piece::Literal(&self.buffer[self.start..self.at]));
            self.start = self.at;
        }
    }

    fn add_copy(&mut self, offset: u64, length: u64, take: &mut dyn FnMut(Piece<'_>)) {
        match &mut self.copy {
            Some((begin, so_far)) if *begin + *so_far == offset && *so_far < LONG_COPY => *so_far += length,
            _ => {
                self.end_copy(take);
                self.copy = Some((offset, length));
            }
        }
    }

    fn end_copy(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        if let Some((offset, length)) = self.copy.take() {
            take(Piece::Copy { offset, length });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The new version put together from the pieces, and how many of its bytes were literal.
    fn rebuilt(old: &[u8], new: &[u8], block_length: u32) -> (Vec<u8>, usize) {
        let mut all = Vec::new();
        sums(&mut &*old, block_length, &mut |sum| all.extend(sum)).unwrap();
        assert_eq!(all.len() / SUM, old.len().div_ceil(block_length as usize));
        let (mut built, mut literal) = (Vec::new(), 0);
        let Some(mut matcher) = Matcher::new(block_length, all) else { return (new.to_vec(), new.len()) };
        let mut rest = new;
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Literal(bytes) => {
                literal += bytes.len();
                built.extend_from_slice(bytes);
            }
            Piece::Copy { offset, length } => {
                let (offset, length) = (usize::try_from(offset).unwrap(), usize::try_from(length).unwrap());
                built.extend_from_slice(&old[offset..offset + length]);
            }
        };
        while matcher.step(&mut rest, &mut take).unwrap() {}
        (built, literal)
    }

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_stayed_is_copied_wherever_it_went() {
        let old = noise(3_000_000, 1);
        let new = [&old[..700_000], b"put in", &old[700_000..2_000_000], &old[2_500_000..], &old[..100]].concat();
        let length = block_length(old.len() as u64);
        let (built, literal) = rebuilt(&old, &new, length);
        assert!(built == new);
        assert!(literal < 5 * length as usize, "{literal} of {}", new.len());
        // The end as well, though it is no whole block.
        assert_eq!(rebuilt(&old, &old, length), (old.clone(), 0));
    }

    #[test]
    fn the_block_length_grows_with_the_file_and_the_sums_stay_bounded() {
        assert_eq!(block_length(0), 1_024);
        assert_eq!(block_length(1 << 30), 32_768);
        for size in [1_u64 << 40, 1 << 44] {
            assert!(size.div_ceil(block_length(size).into()) <= MAX_BLOCKS);
        }
    }

    #[test]
    fn sums_that_match_everywhere_cost_a_bounded_time() {
        let zeros = vec![0; 2_000_000];
        // The weak sum of zeros is 0, and the strong one is wrong.
        let mut matcher = Matcher::new(1 << 16, [vec![0; 4], vec![1; STRONG]].concat().repeat(1_000)).unwrap();
        let mut rest = &zeros[..];
        let mut literal = 0;
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Literal(bytes) => literal += bytes.len(),
            Piece::Copy { .. } => panic!("nothing is to be copied"),
        };
        while matcher.step(&mut rest, &mut take).unwrap() {}
        assert_eq!(literal, zeros.len());
        assert!(matcher.wasted <= WASTE + matcher.read + (1 << 16));
    }

    proptest! {
        #[test]
        fn any_two_versions_are_bridged(
            old in prop::collection::vec(0..3_u8, 0..300),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..60_usize, prop::collection::vec(0..3_u8, 0..9)), 0..6),
            block_length in 1..20_u32,
        ) {
            let mut new = Vec::new();
            for (at, length, between) in cuts {
                let at = at.index(old.len() + 1);
                new.extend_from_slice(&old[at..old.len().min(at + length)]);
                new.extend(between);
            }
            prop_assert_eq!(rebuilt(&old, &new, block_length).0, new);
        }

        #[test]
        fn the_sum_that_is_moved_on_is_the_sum_of_the_window(bytes in prop::collection::vec(any::<u8>(), 2..50)) {
            let window = bytes.len() / 2;
            let mut matcher = Matcher::new(u32::try_from(window).unwrap(), vec![0; SUM]).unwrap();
            matcher.buffer = bytes.clone();
            let mut sum = weak(&bytes[..window]);
            for at in 0..bytes.len() - window {
                matcher.at = at;
                sum = matcher.moved_on(sum, window).unwrap();
                prop_assert_eq!(sum, weak(&bytes[at + 1..at + 1 + window]));
            }
        }

        #[test]
        fn whatever_a_peer_sends_makes_nothing_panic(
            sums in prop::collection::vec(any::<u8>(), 0..100), block_length in any::<u32>(), new in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Some(mut matcher) = Matcher::new(block_length % 50, sums) {
                let mut rest = &new[..];
                while matcher.step(&mut rest, &mut |_| ()).unwrap() {}
            }
        }
    }
}
