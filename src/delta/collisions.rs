//! Whether a signature was made to keep librsync busy: a foresight of its hash table.
//!
//! librsync looks a block's weak sum up in an open hash table for every byte of the new file. Sums chosen by an enemy
//! make these look-ups as long as the table, and building it quadratic. Here the same table is filled with a limit on
//! the work: a signature that breaks the limit is not used at all. Honest files stay far below it.

/// Steps that a look-up may take. At librsync's load factor of 0.8, chance gives less than 100 even in the largest table.
const MAX_STEPS: usize = 256;

/// Different blocks with one weak sum: each costs a comparison of strong sums somewhere in memory.
const MAX_EQUAL: usize = 32;

/// An empty slot.
const EMPTY: u32 = u32::MAX;

/// Whether look-ups would cost too much. `sums` are the blocks of a signature, `length` bytes each, the weak sum first.
pub(super) fn are_costly(sums: &[u8], length: usize) -> bool {
    let Ok(count) = u32::try_from(sums.len() / length) else { return true };
    let size = (1 + count as usize * 10 / 8).next_power_of_two();
    let mut table = Table { slots: vec![EMPTY; size], sums, length };
    (0..count).any(|block| table.insert(block).is_none()) || (0..table.slots.len()).any(|start| table.is_long(start))
}

struct Table<'s> {
    /// A number of a block each.
    slots: Vec<u32>,
    sums: &'s [u8],
    length: usize,
}

impl Table<'_> {
    /// Puts a block where librsync would; one whose sums are there already is left out. `None`: that is too much work.
    fn insert(&mut self, block: u32) -> Option<()> {
        let sums = self.sums(block);
        let hash = hash(sums);
        let mut equal = 0;
        for slot in probes(hash as usize, self.slots.len()).take(MAX_STEPS) {
            let other = self.slots[slot];
            if other == EMPTY {
                self.slots[slot] = block;
                return Some(());
            }
            let others = self.sums(other);
            if others == sums {
                return Some(());
            }
            equal += usize::from(self::hash(others) == hash);
            if equal == MAX_EQUAL {
                return None;
            }
        }
        None
    }

    /// Whether a look-up that starts here and finds nothing takes too long.
    fn is_long(&self, start: usize) -> bool {
        probes(start, self.slots.len()).take(MAX_STEPS).all(|slot| self.slots[slot] != EMPTY)
    }

    fn sums(&self, block: u32) -> &[u8] {
        &self.sums[block as usize * self.length..][..self.length]
    }
}

/// The slots that are tried one after the other.
fn probes(start: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..).scan(start, move |position, step| {
        *position += step;
        Some(*position & (size - 1))
    })
}

/// librsync's key for a block: its weak sum through the finalizer of Murmur 3; 0 marks empty slots there.
fn hash(sums: &[u8]) -> u32 {
    let mut key = sums[..4].iter().fold(0, |key, &byte| key << 8 | u32::from(byte));
    key ^= key >> 16;
    key = key.wrapping_mul(0x85eb_ca6b);
    key ^= key >> 13;
    key = key.wrapping_mul(0xc2b2_ae35);
    key ^= key >> 16;
    if key == 0 { u32::MAX } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block's sums with strong sums of 4 bytes.
    fn sums(weak: u32, strong: u32) -> Vec<u8> {
        [weak, strong].map(u32::to_be_bytes).concat()
    }

    /// The weak sum whose key is `key`: Murmur 3's finalizer backwards.
    fn weak_sum_for(key: u32) -> u32 {
        let mut sum = key;
        sum ^= sum >> 16;
        sum = sum.wrapping_mul(0x7ed1_b41d);
        sum ^= sum >> 13 ^ sum >> 26;
        sum = sum.wrapping_mul(0xa5cb_9243);
        sum ^ sum >> 16
    }

    #[test]
    fn honest_files_are_fine() {
        let varied: Vec<u8> =
            (0..200_000u32).flat_map(|block| sums(block.wrapping_mul(2_654_435_761), block)).collect();
        assert!(!are_costly(&varied, 8));
        let counted: Vec<u8> = (0..200_000u32).flat_map(|block| sums(block, block)).collect();
        assert!(!are_costly(&counted, 8));
        let same: Vec<u8> = (0..200_000).flat_map(|_| sums(7, 7)).collect();
        assert!(!are_costly(&same, 8), "blocks of zeroes are found at once");
        assert!(!are_costly(&[], 8));
        assert!(!are_costly(&sums(0, 0), 8));
    }

    #[test]
    fn many_blocks_with_one_weak_sum_are_costly() {
        let equal = |count: u32| (0..count).flat_map(|block| sums(7, block)).collect::<Vec<u8>>();
        assert!(!are_costly(&equal(32), 8));
        assert!(are_costly(&equal(34), 8));
    }

    #[test]
    fn weak_sums_that_meet_in_the_table_are_costly() {
        assert_eq!(hash(&sums(weak_sum_for(0x1234_5678), 0)), 0x1234_5678);
        // Different keys, one slot: no two weak sums are equal.
        let meeting: Vec<u8> = (1..2000u32).flat_map(|block| sums(weak_sum_for(block << 16), block)).collect();
        assert!(are_costly(&meeting, 8));
        // Each in its own slot, but together they fill all that a look-up from slot 0 tries.
        let path = probes(0, 4096).take(2000).map(|slot| u32::try_from(slot).unwrap());
        let waylaid: Vec<u8> = path.flat_map(|slot| sums(weak_sum_for(slot | 1 << 20), slot)).collect();
        assert!(are_costly(&waylaid, 8));
    }
}
