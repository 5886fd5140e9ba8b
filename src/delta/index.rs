//! The blocks of a signature by their weak sums. Sums chosen by an enemy cost no more than others: a place is looked for
//! in few steps only, and a block that gets none is not found again, which makes a delta longer and not wrong.

use super::sums::{Sums, weak_of};

/// Slots that are tried for a block. With two thirds of them taken, hardly a block in a million is left without one.
const STEPS: usize = 32;

/// Different blocks with one weak sum that are kept.
const EQUAL: usize = 8;

/// An empty slot.
const EMPTY: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<u32>,
    /// Two bits of a word for each hash, some four blocks to a word: all but a few look-ups end here, without a step through
    /// memory that no cache holds.
    filter: Vec<u64>,
}

impl Index {
    /// `sums` are fewer than [`EMPTY`].
    pub(super) fn new<B: AsRef<[u8]>>(sums: &Sums<B>) -> Self {
        let count = sums.count();
        let slots = vec![EMPTY; count + count / 2 + 1];
        let filter = vec![0; (count / 4).next_power_of_two()];
        let mut index = Self { slots, filter };
        for block in 0..count {
            index.insert(sums, block);
        }
        index
    }

    fn insert<B: AsRef<[u8]>>(&mut self, sums: &Sums<B>, block: usize) {
        let own = sums.of_blocks(block, 1);
        let hash = hash(weak_of(own));
        let mut equal = 0;
        for slot in self.probes(hash) {
            match self.slots[slot] {
                EMPTY => {
                    // It was checked that all blocks can be numbered.
                    #[allow(clippy::cast_possible_truncation)]
                    let number = block as u32;
                    self.slots[slot] = number;
                    let (word, bits) = self.bits(hash);
                    self.filter[word] |= bits;
                    return;
                }
                other => {
                    let others = sums.of_blocks(other as usize, 1);
                    equal += usize::from(weak_of(others) == weak_of(own));
                    if others == own || equal == EQUAL {
                        return;
                    }
                }
            }
        }
    }

    /// Whether a block with this weak sum is there, or perhaps not.
    pub(super) fn may_have(&self, weak: u32) -> bool {
        let (word, bits) = self.bits(hash(weak));
        self.filter[word] & bits == bits
    }

    /// The blocks with this weak sum, of the sums that the index was made of.
    pub(super) fn with_sum<B: AsRef<[u8]>>(&self, sums: &Sums<B>, weak: u32) -> impl Iterator<Item = usize> {
        let slots = self.probes(hash(weak)).map(|slot| self.slots[slot]);
        slots
            .take_while(|&slot| slot != EMPTY)
            .map(|block| block as usize)
            .filter(move |&block| sums.weak(block) == weak)
    }

    fn probes(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let size = self.slots.len();
        // The hash as a fraction of the table.
        #[allow(clippy::cast_possible_truncation)]
        let start = ((u64::from(hash) * size as u64) >> 32) as usize;
        // Steps that grow keep what begins nearby apart.
        (0..STEPS).map(move |step| (start + step * (step + 1) / 2) % size)
    }

    fn bits(&self, hash: u32) -> (usize, u64) {
        (hash as usize & (self.filter.len() - 1), 1 << (hash >> 26) | 1 << (hash >> 20 & 63))
    }
}

/// Weak sums of like blocks are alike, hashes are not: the finalizer of Murmur 3.
fn hash(weak: u32) -> u32 {
    let mut hash = weak;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature with strong sums of 4 bytes.
    fn signature(blocks: impl Iterator<Item = (u32, u32)>) -> Vec<u8> {
        let mut signature = super::super::sums::header(2048, 4);
        signature.extend(blocks.flat_map(|(weak, strong)| [weak, strong].map(u32::to_be_bytes).concat()));
        signature
    }

    fn found(signature: &[u8], weak: u32) -> Vec<usize> {
        let sums = Sums::parse(signature).unwrap();
        let index = Index::new(&sums);
        if index.may_have(weak) { index.with_sum(&sums, weak).collect() } else { Vec::new() }
    }

    #[test]
    fn nearly_every_block_of_an_honest_file_is_found() {
        for spread in [1, 2_654_435_761_u32] {
            let signature = signature((0..200_000_u32).map(|block| (block.wrapping_mul(spread), block)));
            let sums = Sums::parse(&signature).unwrap();
            let index = Index::new(&sums);
            let is_found = |&block: &u32| {
                let weak = block.wrapping_mul(spread);
                index.may_have(weak) && index.with_sum(&sums, weak).eq([block as usize])
            };
            assert!((0..200_000_u32).filter(is_found).count() > 199_900);
            let chance = (200_000..400_000_u32).filter(|block| index.may_have(block.wrapping_mul(spread))).count();
            assert!(chance < 10_000, "{chance} of 200,000 are taken for a block by the filter");
        }
    }

    #[test]
    fn of_equal_blocks_the_first_is_kept_and_of_many_with_one_sum_a_few() {
        let same = signature((0..1000).map(|_| (7, 7)));
        assert_eq!(found(&same, 7), [0]);
        let alike = signature((0..1000).map(|block| (7, block)));
        let few = found(&alike, 7);
        assert_eq!(few, (0..EQUAL - 1).chain([EQUAL - 1]).take(few.len()).collect::<Vec<_>>());
        assert!((EQUAL - 1..=EQUAL).contains(&few.len()));
        assert!(found(&alike, 8).is_empty());
    }
}
