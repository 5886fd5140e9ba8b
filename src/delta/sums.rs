//! The sums of blocks: those in a peer's signature, and those of our own data to compare with them.

use fast_rsync::{Signature, SignatureOptions};

use super::{Bounds, DeltaError, HEADER, MAX_BLOCK_LENGTH, SIGNATURE_MAGIC, STRONG_LENGTH, WEAK_LENGTH};

/// A peer's signature, its header checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums<'s> {
    /// Bytes of a block; the last may be shorter.
    pub(super) block_length: usize,
    strong_length: usize,
    blocks: &'s [u8],
}

impl<'s> Sums<'s> {
    pub(super) fn parse(signature: &'s [u8]) -> Result<Self, DeltaError> {
        let (block_length, strong_length) = lengths(signature)?;
        let blocks = &signature[HEADER..];
        if !blocks.len().is_multiple_of(WEAK_LENGTH + strong_length) {
            return Err(DeltaError::BadSignature("ends within a block's sums"));
        }
        Ok(Self { block_length, strong_length, blocks })
    }

    /// There is nothing to compare with, or too much.
    pub(super) fn are_useless(&self, bounds: Bounds) -> bool {
        self.count() == 0 || self.count() > bounds.blocks || u32::try_from(self.count()).is_err()
    }

    /// Bytes that the sums of a block take: the weak sum, then the strong one.
    pub(super) fn width(&self) -> usize {
        WEAK_LENGTH + self.strong_length
    }

    pub(super) fn count(&self) -> usize {
        self.blocks.len() / self.width()
    }

    /// The sums of `count` blocks from `first` on.
    pub(super) fn of_blocks(&self, first: usize, count: usize) -> &'s [u8] {
        &self.blocks[first * self.width()..][..count * self.width()]
    }

    pub(super) fn weak(&self, block: usize) -> u32 {
        weak_of(self.of_blocks(block, 1))
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

impl Rolling {
    pub(super) fn of(window: &[u8]) -> Self {
        let (mut first, mut second, mut length) = (0_u32, 0_u32, 0_u32);
        for &byte in window {
            first = first.wrapping_add(u32::from(byte) + OFFSET);
            second = second.wrapping_add(first);
            length += 1;
        }
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

    pub(super) fn sum(&self) -> u32 {
        self.second << 16 | self.first & 0xffff
    }
}
