//! The sums of blocks: those in a peer's signature, and those of our own data to compare with them.

use fast_rsync::{Signature, SignatureOptions};

use super::{Bounds, DeltaError, HEADER, MAX_BLOCK_LENGTH, SIGNATURE_MAGIC, STRONG_LENGTH, WEAK_LENGTH};

/// The sums of blocks, one after the other: of each the weak sum, then the strong one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums<B> {
    /// Bytes of a block; the last may be shorter.
    pub(super) block_length: usize,
    strong_length: usize,
    blocks: B,
}

impl<B: AsRef<[u8]>> Sums<B> {
    /// `None`: they end within a block's.
    pub(super) fn new(block_length: usize, strong_length: usize, blocks: B) -> Option<Self> {
        let is_whole = blocks.as_ref().len().is_multiple_of(WEAK_LENGTH + strong_length);
        is_whole.then_some(Self { block_length, strong_length, blocks })
    }

    /// There is nothing to compare with, or too much.
    pub(super) fn are_useless(&self, bounds: Bounds) -> bool {
        self.count() == 0 || self.count() > bounds.blocks || u32::try_from(self.count()).is_err()
    }

    /// Bytes that the sums of a block take.
    pub(super) fn width(&self) -> usize {
        WEAK_LENGTH + self.strong_length
    }

    pub(super) fn count(&self) -> usize {
        self.blocks.as_ref().len() / self.width()
    }

    /// The sums of `count` blocks from `first` on.
    pub(super) fn of_blocks(&self, first: usize, count: usize) -> &[u8] {
        &self.blocks.as_ref()[first * self.width()..][..count * self.width()]
    }

    pub(super) fn weak(&self, block: usize) -> u32 {
        weak_of(self.of_blocks(block, 1))
    }

    pub(super) fn strong(&self, block: usize) -> &[u8] {
        &self.of_blocks(block, 1)[WEAK_LENGTH..]
    }
}

impl<'s> Sums<&'s [u8]> {
    /// Those of a peer's signature.
    pub(super) fn parse(signature: &'s [u8]) -> Result<Self, DeltaError> {
        let (block_length, strong_length) = lengths(signature)?;
        let sums = Self::new(block_length, strong_length, &signature[HEADER..]);
        sums.ok_or(DeltaError::BadSignature("ends within a block's sums"))
    }

    /// The sums that blocks of this content have.
    pub(super) fn of_data(&self, data: &[u8]) -> Vec<u8> {
        of(data, self.block_length, self.strong_length)
    }
}

/// The weak sum that stands first.
pub(super) fn weak_of(sums: &[u8]) -> u32 {
    sums[..WEAK_LENGTH].iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte))
}

/// Block length and length of the strong sums, from a header that is checked whole.
pub(super) fn lengths(signature: &[u8]) -> Result<(usize, usize), DeltaError> {
    let number = |at: usize| {
        let bytes = signature.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let (Some(block_length), Some(strong_length)) = (number(4), number(8)) else {
        return Err(DeltaError::BadSignature("shorter than its header"));
    };
    if !signature.starts_with(&SIGNATURE_MAGIC) {
        return Err(DeltaError::BadSignature("not an MD4 signature of librsync"));
    }
    if !(1..=MAX_BLOCK_LENGTH).contains(&block_length) {
        return Err(DeltaError::BadSignature("impossible block length"));
    }
    if !(1..=STRONG_LENGTH).contains(&strong_length) {
        return Err(DeltaError::BadSignature("impossible length of strong sums"));
    }
    Ok((block_length, strong_length))
}

/// A signature of nothing.
pub(super) fn header(block_length: usize, strong_length: usize) -> Vec<u8> {
    calculate(&[], block_length, strong_length)
}

/// The sums of each block in `data`, the last of which may be shorter.
pub(super) fn of(data: &[u8], block_length: usize, strong_length: usize) -> Vec<u8> {
    calculate(data, block_length, strong_length).split_off(HEADER)
}

fn calculate(data: &[u8], block_length: usize, strong_length: usize) -> Vec<u8> {
    // Both were checked to be small.
    #[allow(clippy::cast_possible_truncation)]
    let options = SignatureOptions { block_size: block_length as u32, crypto_hash_size: strong_length as u32 };
    Signature::calculate(data, options).into_serialized()
}

/// The weak sum of a window that moves over data: librsync's rollsum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rolling {
    /// Bytes in the window. The sums wrap: only 16 bits of each count.
    length: u32,
    first: u32,
    second: u32,
}

/// What is added to each byte.
const OFFSET: u32 = 31;

/// What [`Rolling::mixed`] spreads the second sum with: odd, with bits everywhere.
const MULTIPLIER: u32 = 0x0810_4225;

/// Sums made side by side: a power of two.
const LANES: usize = 16;

impl Rolling {
    pub(super) fn of(window: &[u8]) -> Self {
        // Of every sixteenth byte: the sum, and the sum of the sums up to each.
        let (mut sums, mut sums_of_sums) = ([0_u32; LANES], [0_u32; LANES]);
        let (rows, rest) = window.as_chunks::<LANES>();
        for row in rows {
            // Written so that it becomes vector instructions in every build.
            for lane in 0..LANES {
                sums[lane] = sums[lane].wrapping_add(u32::from(row[lane]) + OFFSET);
                sums_of_sums[lane] = sums_of_sums[lane].wrapping_add(sums[lane]);
            }
        }
        let add = |total: u32, sum: &u32| total.wrapping_add(*sum);
        let behind = (0..).zip(sums).fold(0, |total: u32, (lane, sum)| total.wrapping_add(sum.wrapping_mul(lane)));
        let mut first = sums.iter().fold(0, add);
        let mut second = (sums_of_sums.iter().fold(0, add) << LANES.trailing_zeros()).wrapping_sub(behind);
        for &byte in rest {
            first = first.wrapping_add(u32::from(byte) + OFFSET);
            second = second.wrapping_add(first);
        }
        // As all sums: it wraps.
        #[allow(clippy::cast_possible_truncation)]
        let length = window.len() as u32;
        Self { length, first, second }
    }

    /// Moves the window by a byte.
    pub(super) fn rotate(&mut self, out: u8, into: u8) {
        self.first = self.first.wrapping_add(u32::from(into)).wrapping_sub(u32::from(out));
        let gone = self.length.wrapping_mul(u32::from(out) + OFFSET);
        self.second = self.second.wrapping_add(self.first).wrapping_sub(gone);
    }

    /// Takes the first byte out.
    pub(super) fn shrink(&mut self, out: u8) {
        let out = u32::from(out) + OFFSET;
        self.first = self.first.wrapping_sub(out);
        self.second = self.second.wrapping_sub(self.length.wrapping_mul(out));
        self.length -= 1;
    }

    /// As librsync has it.
    pub(super) fn sum(&self) -> u32 {
        self.second << 16 | self.first & 0xffff
    }

    /// With all bits of both sums: for windows of any length.
    pub(super) fn mixed(&self) -> u32 {
        self.second.wrapping_mul(MULTIPLIER).wrapping_add(self.first)
    }
}
