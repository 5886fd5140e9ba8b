//! What changed between two versions of a file, in the batch dialect: sums of the blocks of the old one, and the new one as
//! pieces of the old one and bytes between them. Whether the outcome is right is for a digest of the whole to say.
//!
//! A block's sums are a weak one that can be moved on byte by byte, and 6 bytes of BLAKE3 with a key that is made for the
//! file: whoever writes a file cannot know which blocks will have the same sums. Blocks grow with the file: as long as the
//! square root of its size, so that sums and what one changed byte costs grow alike.

use std::io::{self, Read};

use super::fill;
use super::index::Index;
use super::sums::{Rolling, Sums};

/// Bytes of the key that stands before the sums.
pub const KEY: usize = 32;

/// Bytes that a block's sums take.
pub const SUM: usize = 4 + STRONG;

const STRONG: usize = 6;

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

/// The block length for a file of this size.
#[must_use]
pub fn block_length(size: u64) -> u32 {
    let length = size.isqrt().max(size.div_ceil(MAX_BLOCKS)).max(SHORTEST);
    // Whole cache lines.
    u32::try_from(length.next_multiple_of(64)).unwrap_or(LONGEST).min(LONGEST)
}

/// Hands out the sums of each block of `input`, in order, made with this key.
///
/// # Errors
/// Those of reading.
pub fn sums(
    input: &mut dyn Read,
    block_length: u32,
    key: &[u8; KEY],
    take: &mut dyn FnMut([u8; SUM]),
) -> io::Result<()> {
    let mut block = vec![0; block_length as usize];
    loop {
        let length = fill(input, &mut block)?;
        if length == 0 {
            return Ok(());
        }
        let mut sum = [0; SUM];
        sum[..4].copy_from_slice(&Rolling::of(&block[..length]).mixed().to_be_bytes());
        sum[4..].copy_from_slice(&strong(key, &block[..length]));
        take(sum);
        if length < block.len() {
            return Ok(());
        }
    }
}

/// Whether a block has this sum. The weak one would tell nothing more.
pub(super) fn block_is(sum: &[u8; SUM], key: &[u8; KEY], block: &[u8]) -> bool {
    sum[4..] == strong(key, block)
}

fn strong(key: &[u8; KEY], block: &[u8]) -> [u8; STRONG] {
    let mut sum = [0; STRONG];
    sum.copy_from_slice(&blake3::keyed_hash(key, block).as_bytes()[..STRONG]);
    sum
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
    key: [u8; KEY],
    sums: Sums<Vec<u8>>,
    index: Index,
}

impl Blocks {
    /// Whether this block has these bytes.
    fn is(&self, block: usize, bytes: &[u8]) -> bool {
        block < self.sums.count() && self.sums.strong(block) == strong(&self.key, bytes)
    }

    /// The block with these bytes. The flag: a strong sum was made for nothing.
    fn find(&self, weak: u32, bytes: &[u8]) -> (Option<usize>, bool) {
        if !self.index.may_have(weak) {
            return (None, false);
        }
        let mut known = None;
        let mut is_it =
            |&block: &usize| self.sums.strong(block) == *known.get_or_insert_with(|| strong(&self.key, bytes));
        let found = self.index.with_sum(&self.sums, weak).find(&mut is_it);
        (found, found.is_none() && known.is_some())
    }
}

/// Finds pieces of the old version in the new one, as it is read.
#[derive(Debug)]
pub struct Matcher {
    blocks: Blocks,
    buffer: Vec<u8>,
    /// The bytes of the buffer that are filled.
    filled: usize,
    /// The first byte of the buffer that was not handed out.
    start: usize,
    /// The first byte of the window.
    at: usize,
    /// The window's weak sum, if it was moved on.
    sum: Option<Rolling>,
    ended: bool,
    run: Run,
    /// The block behind the last one that was found.
    wanted: usize,
    read: u64,
    wasted: u64,
}

impl Matcher {
    /// For the key and the sums as they came. `None` where they cannot be used: of no block, of blocks of an impossible length,
    /// or cut short.
    #[must_use]
    pub fn new(block_length: u32, keyed_sums: &[u8]) -> Option<Self> {
        let (key, sums) = keyed_sums.split_first_chunk::<KEY>()?;
        let sums = Sums::new(block_length as usize, STRONG, sums.to_vec())?;
        if !(1..=LONGEST).contains(&block_length) || !(1..=MAX_BLOCKS).contains(&(sums.count() as u64)) {
            return None;
        }
        let index = Index::new(&sums);
        Some(Self {
            blocks: Blocks { key: *key, sums, index },
            buffer: Vec::new(),
            filled: 0,
            start: 0,
            at: 0,
            sum: None,
            ended: false,
            run: Run::default(),
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
        let length = self.blocks.sums.block_length;
        loop {
            let left = self.filled - self.at;
            if left == 0 && self.ended {
                self.hand_out(take);
                self.run.end(take);
                return Ok(false);
            }
            // A byte more than a block, so that the sum can be moved on.
            if left <= length && !self.ended {
                return Ok(true);
            }
            if self.at - self.start >= LITERAL {
                self.hand_out(take);
            }
            let window = left.min(length);
            if let Some(block) = self.find(window) {
                self.hand_out(take);
                self.run.copy(block as u64 * length as u64, window as u64, take);
                self.wanted = block + 1;
                self.at += window;
                self.start = self.at;
                self.sum = None;
            } else {
                self.move_on(window);
            }
        }
    }

    /// The block that the window is.
    fn find(&mut self, window: usize) -> Option<usize> {
        let bytes = &self.buffer[self.at..self.at + window];
        let (found, for_nothing) = if self.wasted > WASTE + self.read {
            (None, false)
        } else if let Some(sum) = self.sum {
            self.blocks.find(sum.mixed(), bytes)
        } else if self.blocks.is(self.wanted, bytes) {
            // Behind a block that was found comes most likely the next one.
            (Some(self.wanted), false)
        } else {
            self.wasted += window as u64;
            self.blocks.find(Rolling::of(bytes).mixed(), bytes)
        };
        if for_nothing {
            self.wasted += window as u64;
        }
        // Of a window at the end that is shorter than a block, only the last block can have the length.
        found.filter(|&block| window == self.blocks.sums.block_length || block + 1 == self.blocks.sums.count())
    }

    /// Moves the window on by a byte. At the end of the file it gets shorter.
    fn move_on(&mut self, window: usize) {
        let bytes = &self.buffer[self.at..self.filled];
        let mut sum = self.sum.unwrap_or_else(|| Rolling::of(&bytes[..window]));
        match bytes.get(window) {
            Some(&next) => sum.rotate(bytes[0], next),
            None => sum.shrink(bytes[0]),
        }
        self.sum = Some(sum);
        self.at += 1;
    }

    /// The same, behind what was found out already: the first of these blocks may come next, these bytes were read, and this
    /// copy may go on.
    pub(super) fn behind(self, wanted: usize, bytes: Vec<u8>, run: Run) -> Self {
        Self { filled: bytes.len(), buffer: bytes, wanted, run, ..self }
    }

    fn refill(&mut self, new: &mut dyn Read) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.at -= self.start;
        self.start = 0;
        let room = READ.max(2 * self.blocks.sums.block_length);
        if self.buffer.len() < self.filled + room {
            self.buffer.resize(self.filled + room, 0);
        }
        let read = fill(new, &mut self.buffer[self.filled..][..room])?;
        self.filled += read;
        self.ended = read < room;
        self.read += read as u64;
        Ok(())
    }

    fn hand_out(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        self.run.literal(&self.buffer[self.start..self.at], take);
        self.start = self.at;
    }
}

/// A copy that may go on: where it begins and how long it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run(Option<(u64, u64)>);

impl Run {
    /// Hands out bytes of the new version.
    pub(super) fn literal(&mut self, bytes: &[u8], take: &mut dyn FnMut(Piece<'_>)) {
        if !bytes.is_empty() {
            self.end(take);
            bytes.chunks(LITERAL).for_each(|piece| take(Piece::Literal(piece)));
        }
    }

    /// Takes a piece of the old version.
    pub(super) fn copy(&mut self, offset: u64, length: u64, take: &mut dyn FnMut(Piece<'_>)) {
        match &mut self.0 {
            Some((begin, so_far)) if *begin + *so_far == offset && *so_far < LONG_COPY => *so_far += length,
            _ => {
                self.end(take);
                self.0 = Some((offset, length));
            }
        }
    }

    /// Hands out what does not go on.
    pub(super) fn end(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        if let Some((offset, length)) = self.0.take() {
            take(Piece::Copy { offset, length });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Appends what a piece stands for, and counts literal bytes.
    pub(in super::super) fn put(old: &[u8], piece: Piece<'_>, built: &mut Vec<u8>, literal: &mut usize) {
        match piece {
            Piece::Literal(bytes) => {
                *literal += bytes.len();
                built.extend_from_slice(bytes);
            }
            Piece::Copy { offset, length } => {
                let (offset, length) = (usize::try_from(offset).unwrap(), usize::try_from(length).unwrap());
                built.extend_from_slice(&old[offset..offset + length]);
            }
        }
    }

    /// The new version put together from the pieces, and how many of its bytes were literal.
    fn rebuilt(old: &[u8], new: &[u8], block_length: u32) -> (Vec<u8>, usize) {
        let mut all = vec![7; KEY];
        sums(&mut &*old, block_length, &[7; KEY], &mut |sum| all.extend(sum)).unwrap();
        assert_eq!((all.len() - KEY) / SUM, old.len().div_ceil(block_length as usize));
        let (mut built, mut literal) = (Vec::new(), 0);
        let Some(mut matcher) = Matcher::new(block_length, &all) else { return (new.to_vec(), new.len()) };
        let mut rest = new;
        let mut take = |piece: Piece<'_>| put(old, piece, &mut built, &mut literal);
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
        // The weak sum is that of zeros, and the strong one is wrong.
        let weak = Rolling::of(&zeros[..1 << 16]).mixed().to_be_bytes().to_vec();
        let sums = [vec![0; KEY], [weak, vec![1; STRONG]].concat().repeat(1_000)].concat();
        let mut matcher = Matcher::new(1 << 16, &sums).unwrap();
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
        fn the_sum_that_is_moved_on_is_the_sum_of_the_window(bytes in prop::collection::vec(any::<u8>(), 2..150)) {
            let window = bytes.len() / 2;
            let mut matcher = Matcher::new(u32::try_from(window).unwrap(), &[0; KEY + SUM]).unwrap();
            (matcher.filled, matcher.buffer) = (bytes.len(), bytes.clone());
            for at in 1..bytes.len() {
                matcher.move_on(window.min(bytes.len() + 1 - at));
                let expected = Rolling::of(&bytes[at..bytes.len().min(at + window)]);
                prop_assert_eq!(matcher.sum.unwrap().mixed(), expected.mixed());
            }
        }

        #[test]
        fn whatever_a_peer_sends_makes_nothing_panic(
            sums in prop::collection::vec(any::<u8>(), 0..100), block_length in any::<u32>(), new in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Some(mut matcher) = Matcher::new(block_length % 50, &sums) {
                let mut rest = &new[..];
                while matcher.step(&mut rest, &mut |_| ()).unwrap() {}
            }
        }
    }
}
