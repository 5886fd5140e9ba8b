//! What stayed where it was, in the batch dialect: found, and sent, while the sums of the old version are still being made, so
//! that both ends are at work at the same time. What changed a little in its place is new then. Once all sums are there, or
//! when more has changed, [`Matcher`] looks for it in all of the old version.

use std::io::{self, Read};

use super::blocks::{KEY, LONGEST, Matcher, Piece, Run, SUM, block_is};
use super::fill;

/// Bytes before the sums: the block length, and the key.
pub const HEAD: usize = 4 + KEY;

/// Bytes that may have changed in one place before all sums are waited for. At least one block may have.
const GAP: usize = 128 * 1024;

/// Block length and key, as they stand before the sums.
#[must_use]
pub fn head(block_length: u32, key: &[u8; KEY]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&block_length.to_be_bytes());
    head[4..].copy_from_slice(key);
    head
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// The next sums are needed.
    NeedsSums,
    /// All was handed out.
    Done,
}

/// Compares a new version with the old one, whose sums come meanwhile.
#[derive(Debug, Default)]
pub struct Follower {
    /// Block length, key and sums, as far as they came.
    described: Vec<u8>,
    /// That was all of them.
    is_complete: bool,
    /// The block to compare next.
    block: usize,
    /// What changed behind the last block that stayed.
    gap: Vec<u8>,
    /// Room for a block.
    buffer: Vec<u8>,
    run: Run,
    search: Option<Search>,
}

/// When all sums are there.
#[derive(Debug)]
enum Search {
    Matcher(Box<Matcher>),
    /// The sums make no sense.
    Nothing,
}

impl Follower {
    /// Takes the next bytes of block length, key and sums, cut anywhere.
    pub fn add(&mut self, bytes: &[u8]) {
        self.described.extend_from_slice(bytes);
    }

    /// Takes note that all bytes came.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Reads some more of `new` and hands out what is certain.
    ///
    /// # Errors
    /// Those of reading.
    pub fn step(&mut self, new: &mut dyn Read, take: &mut dyn FnMut(Piece<'_>)) -> io::Result<Progress> {
        if self.search.is_none() {
            if !self.is_complete {
                let progress = self.follow(new, take)?;
                if progress == Progress::NeedsSums {
                    // What is certain need not wait.
                    self.run.end(take);
                }
                return Ok(progress);
            }
            self.begin_search();
        }
        let is_more = match &mut self.search {
            Some(Search::Matcher(matcher)) => matcher.step(new, take)?,
            _ => self.all_else(new, take)?,
        };
        Ok(if is_more { Progress::More } else { Progress::Done })
    }

    fn follow(&mut self, new: &mut dyn Read, take: &mut dyn FnMut(Piece<'_>)) -> io::Result<Progress> {
        let Some((block_length, key)) = head_of(&self.described) else { return Ok(Progress::NeedsSums) };
        let (sums, _) = self.described[HEAD..].as_chunks::<SUM>();
        let length = block_length as usize;
        let (Some(sum), 1..=LONGEST) = (sums.get(self.block), block_length) else { return Ok(Progress::NeedsSums) };
        if self.gap.len() > GAP.max(length) {
            return Ok(Progress::NeedsSums);
        }
        self.buffer.resize(length, 0);
        let filled = fill(new, &mut self.buffer)?;
        let block = &self.buffer[..filled];
        if filled > 0 && block_is(sum, &key, block) {
            self.run.literal(&self.gap, take);
            self.gap.clear();
            self.run.copy((self.block * length) as u64, filled as u64, take);
        } else {
            self.gap.extend_from_slice(block);
        }
        self.block += 1;
        if filled == length {
            return Ok(Progress::More);
        }
        self.run.literal(&self.gap, take);
        self.run.end(take);
        Ok(Progress::Done)
    }

    fn begin_search(&mut self) {
        let described = std::mem::take(&mut self.described);
        let matcher = head_of(&described).and_then(|(block_length, _)| {
            let length = block_length as usize;
            let first = self.block - self.gap.len() / length.max(1);
            Matcher::new(block_length, &described[4..])
                .map(|matcher| matcher.behind(first, std::mem::take(&mut self.gap), self.run))
        });
        self.search = Some(matcher.map_or(Search::Nothing, |matcher| Search::Matcher(Box::new(matcher))));
    }

    /// Everything that is left is new.
    fn all_else(&mut self, new: &mut dyn Read, take: &mut dyn FnMut(Piece<'_>)) -> io::Result<bool> {
        self.run.literal(&self.gap, take);
        self.gap.clear();
        self.buffer.resize(GAP, 0);
        let filled = fill(new, &mut self.buffer)?;
        self.run.literal(&self.buffer[..filled], take);
        self.run.end(take);
        Ok(filled == self.buffer.len())
    }
}

fn head_of(described: &[u8]) -> Option<(u32, [u8; KEY])> {
    let (length, rest) = described.split_first_chunk()?;
    Some((u32::from_be_bytes(*length), *rest.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::blocks::{self, tests::put};
    use super::*;

    fn described(old: &[u8], block_length: u32) -> Vec<u8> {
        let mut all = head(block_length, &[7; KEY]).to_vec();
        blocks::sums(&mut &*old, block_length, &[7; KEY], &mut |sum| all.extend(sum)).unwrap();
        all
    }

    /// The new version put together again, with its literal bytes, where the sums come in pieces of this length; and its bytes
    /// that were handed out before the last of them.
    fn rebuilt(old: &[u8], new: &[u8], described: &[u8], piece: usize) -> (Vec<u8>, usize, usize) {
        let (mut follower, mut rest) = (Follower::default(), new);
        let (mut built, mut literal, mut early) = (Vec::new(), 0, 0);
        let mut sums = described.chunks(piece.max(1));
        loop {
            let mut take = |piece: Piece<'_>| put(old, piece, &mut built, &mut literal);
            match follower.step(&mut rest, &mut take).unwrap() {
                Progress::More => {}
                Progress::NeedsSums => {
                    early = built.len();
                    match sums.next() {
                        Some(bytes) => follower.add(bytes),
                        None => follower.complete(),
                    }
                }
                Progress::Done => return (built, literal, early),
            }
        }
    }

    #[test]
    fn what_stayed_is_sent_before_the_last_sum_and_what_moved_is_found() {
        let mut old = vec![0; 2_000_000];
        getrandom::fill(&mut old).unwrap();
        let described = described(&old, 1_024);
        let mut changed = old.clone();
        changed[500_000..500_010].fill(0);
        changed[1_999_900] ^= 1;
        let (built, literal, early) = rebuilt(&old, &changed, &described, 2_000);
        assert!(built == changed && literal <= 2_100 && early > 1_700_000, "{literal} {early}");
        for (new, most) in [
            (old.clone(), 0),
            ([&old[..], b"more"].concat(), 1_028),
            ([b"moved", &old[..]].concat(), 3_200),
            ([&old[1_000_000..], &old[..1_000_000]].concat(), 6_000),
            (old[..1_999_000].to_vec(), 1_024),
            (Vec::new(), 0),
        ] {
            let (built, literal, _) = rebuilt(&old, &new, &described, 2_000);
            assert!(built == new);
            assert!(literal <= most, "{literal} of {}", new.len());
        }
    }

    #[test]
    fn against_sums_that_make_no_sense_all_is_sent() {
        let new = vec![5; 500_000];
        let good = described(&new, 1_024);
        for bad in [&good[..3], &good[..HEAD], &[&[0; 4], &good[4..]].concat(), &[&[255; 4], &good[4..]].concat()] {
            let (built, literal, _) = rebuilt(&new, &new, bad, 50);
            assert!(built == new && literal == new.len());
        }
        // Those before the one that is cut may be of use.
        assert!(rebuilt(&new, &new, &good[..good.len() - 1], 50).0 == new);
    }

    proptest! {
        #[test]
        fn any_two_versions_are_bridged(
            old in prop::collection::vec(0..3_u8, 1..300),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..6),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..60_usize), 0..4),
            block_length in 1..20_u32, piece in 1..60_usize,
        ) {
            let mut new = old.clone();
            for (at, byte) in changes {
                let at = at.index(new.len());
                new[at] = byte;
            }
            for (at, length) in cuts {
                let at = at.index(old.len());
                new.extend_from_slice(&old[at..old.len().min(at + length)]);
            }
            let described = described(&old, block_length);
            prop_assert_eq!(rebuilt(&old, &new, &described, piece).0, new);
        }

        #[test]
        fn whatever_a_peer_sends_makes_nothing_panic(
            described in prop::collection::vec(any::<u8>(), 0..200), short in 0..20_u8,
            new in prop::collection::vec(any::<u8>(), 0..100), piece in 1..60_usize,
        ) {
            let mut described = described;
            if let Some(head) = described.first_chunk_mut() {
                *head = [0, 0, 0, short];
            }
            let (mut follower, mut rest) = (Follower::default(), &new[..]);
            let mut sums = described.chunks(piece);
            loop {
                match follower.step(&mut rest, &mut |_| ()).unwrap() {
                    Progress::More => {}
                    Progress::NeedsSums => match sums.next() {
                        Some(bytes) => follower.add(bytes),
                        None => follower.complete(),
                    },
                    Progress::Done => break,
                }
            }
        }
    }
}
