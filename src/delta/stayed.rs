//! What stayed where it was, in the batch dialect: found while the sums of the old version are still being made, so that both
//! ends are at work at the same time. Where something changed, [`Matcher`] looks for it in all of the old version, once its
//! sums are complete.

use std::io::{self, Read};
use std::ops::Range;

use super::blocks::{KEY, LONGEST, MAX_BLOCKS, Matcher, Piece, SUM, strong};
use super::fill;
use super::sums::Rolling;

/// Bytes before the sums: the block length, and the key.
pub const HEAD: usize = 4 + KEY;

/// Bytes compared at a time.
const READ: usize = 256 * 1024;

/// A copied piece that is handed on at once, in bytes.
const LONG_COPY: u64 = 8 << 20;

/// Block length and key, as they stand before the sums.
#[must_use]
pub fn head(block_length: u32, key: &[u8; KEY]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&block_length.to_be_bytes());
    head[4..].copy_from_slice(key);
    head
}

/// Block length, key and sums, as far as they came.
#[derive(Debug, Default)]
pub struct Described(Vec<u8>);

impl Described {
    /// Takes the next bytes, cut anywhere.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes that came.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the old version's blocks, once all their sums came. `None`: see [`Matcher::new`].
    #[must_use]
    pub fn matcher(mut self) -> Option<Matcher> {
        let (block_length, _) = self.head()?;
        Matcher::new(block_length, &self.0.split_off(4))
    }

    fn head(&self) -> Option<(u32, [u8; KEY])> {
        let (length, rest) = self.0.split_first_chunk()?;
        Some((u32::from_be_bytes(*length), *rest.first_chunk()?))
    }

    /// The complete sums from block `first` on.
    fn sums(&self, first: usize) -> &[[u8; SUM]] {
        let (sums, _) = self.0[HEAD..].as_chunks();
        sums.get(first..).unwrap_or_default()
    }
}

/// Compares a new version with the sums of the old one as they come.
#[derive(Debug, Default)]
pub struct Stayed {
    sums: Described,
    /// Blocks that are compared.
    compared: usize,
    /// Bytes of the new version that were read.
    read: u64,
    /// Where nothing changed, in bytes and in order.
    ranges: Vec<Range<u64>>,
    buffer: Vec<u8>,
}

impl Stayed {
    /// Takes the next bytes of block length, key and sums.
    pub fn add(&mut self, bytes: &[u8]) {
        self.sums.add(bytes);
    }

    /// Reads on in `new`, and compares it, as far as there are sums. `false`: that was all for now.
    ///
    /// # Errors
    /// Those of reading; an impossible block length, or more blocks than there can be.
    pub fn step(&mut self, new: &mut dyn Read) -> io::Result<bool> {
        let Some((block_length, key)) = self.sums.head() else { return Ok(false) };
        let sums = self.sums.sums(self.compared);
        if !(1..=LONGEST).contains(&block_length) || (self.compared + sums.len()) as u64 > MAX_BLOCKS {
            return Err(unusable());
        }
        let length = block_length as usize;
        let count = sums.len().min((READ / length).max(1));
        if count == 0 {
            return Ok(false);
        }
        self.buffer.resize(count * length, 0);
        let filled = fill(new, &mut self.buffer)?;
        for (block, sum) in self.buffer[..filled].chunks(length).zip(sums) {
            let is_same = sum[..4] == Rolling::of(block).mixed().to_be_bytes() && sum[4..] == strong(&key, block);
            let end = self.read + block.len() as u64;
            match self.ranges.last_mut() {
                Some(last) if is_same && last.end == self.read => last.end = end,
                _ if is_same => self.ranges.push(self.read..end),
                _ => {}
            }
            self.read = end;
        }
        self.compared += count;
        Ok(filled == self.buffer.len())
    }

    /// Reads what is behind the last sum, when all sums came.
    ///
    /// # Errors
    /// Those of reading; sums that are cut short, or none.
    pub fn finish(mut self, new: &mut dyn Read) -> io::Result<Bridge> {
        while self.step(new)? {}
        self.buffer.resize(READ, 0);
        loop {
            let length = fill(new, &mut self.buffer)?;
            self.read += length as u64;
            if length < self.buffer.len() {
                break;
            }
        }
        let matcher = self.sums.matcher().ok_or_else(unusable)?;
        Ok(Bridge { matcher, stayed: self.ranges.into_iter(), next: None, at: 0, end: self.read })
    }
}

fn unusable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the peer's sums make no sense")
}

/// The way from the old version to the new one: what stayed, and between it what is still to be found out.
#[derive(Debug)]
pub struct Bridge {
    matcher: Matcher,
    stayed: std::vec::IntoIter<Range<u64>>,
    /// What stayed next.
    next: Option<Range<u64>>,
    /// So far everything was handed out or is in the matcher.
    at: u64,
    /// The length of the new version.
    end: u64,
}

impl Bridge {
    /// Hands out what comes next; `read_at` reads from the new version. `false`: that was all.
    ///
    /// # Errors
    /// Those of reading.
    pub fn step(
        &mut self,
        read_at: &mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
        take: &mut dyn FnMut(Piece<'_>),
    ) -> io::Result<bool> {
        if self.next.is_none() {
            self.next = self.stayed.next();
        }
        let gap = self.next.as_ref().map_or(self.end, |next| next.start);
        let mut changed = Changed { read_at, at: &mut self.at, end: gap };
        if self.matcher.step(&mut changed, take)? {
            return Ok(true);
        }
        let Some(Range { mut start, end }) = self.next.take() else { return Ok(false) };
        while start < end {
            let length = (end - start).min(LONG_COPY);
            take(Piece::Copy { offset: start, length });
            start += length;
        }
        self.at = end;
        self.matcher.restart();
        Ok(true)
    }
}

/// What changed between two ranges that stayed.
struct Changed<'a> {
    read_at: &'a mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
    at: &'a mut u64,
    end: u64,
}

impl Read for Changed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - *self.at).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        if room == 0 {
            return Ok(0);
        }
        let length = (self.read_at)(&mut buffer[..room], *self.at)?;
        *self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::blocks;
    use super::*;

    fn described(old: &[u8], block_length: u32) -> Vec<u8> {
        let mut all = head(block_length, &[7; KEY]).to_vec();
        blocks::sums(&mut &*old, block_length, &[7; KEY], &mut |sum| all.extend(sum)).unwrap();
        all
    }

    /// The new version put together again, with its literal bytes, where the sums come in pieces of this length.
    fn rebuilt(old: &[u8], new: &[u8], described: &[u8], piece: usize) -> io::Result<(Vec<u8>, usize)> {
        let (mut stayed, mut rest) = (Stayed::default(), new);
        for bytes in described.chunks(piece) {
            stayed.add(bytes);
            while stayed.step(&mut rest)? {}
        }
        let mut bridge = stayed.finish(&mut rest)?;
        let (mut built, mut literal) = (Vec::new(), 0);
        let mut read_at = |buffer: &mut [u8], at: u64| (&new[usize::try_from(at).unwrap()..]).read(buffer);
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
        while bridge.step(&mut read_at, &mut take)? {}
        Ok((built, literal))
    }

    #[test]
    fn what_changed_in_place_and_what_moved_are_both_found() {
        let mut old = vec![0; 2_000_000];
        getrandom::fill(&mut old).unwrap();
        let described = described(&old, 1_024);
        let mut new = old.clone();
        new[500_000..500_010].fill(0);
        for (new, most) in [
            (new.clone(), 1_100),
            ([&new[..], b"more"].concat(), 2_000),
            ([b"moved", &new[..]].concat(), 3_200),
            ([&new[1_000_000..], &new[..1_000_000]].concat(), 6_000),
            (new[..1_999_000].to_vec(), 3_200),
        ] {
            let (built, literal) = rebuilt(&old, &new, &described, 8_000).unwrap();
            assert!(built == new);
            assert!(literal <= most, "{literal}");
        }
    }

    #[test]
    fn sums_that_make_no_sense_are_refused() {
        let new = [5; 5_000];
        let good = described(&new, 1_024);
        let cut = &good[..good.len() - 1];
        for bad in [&good[..3], &good[..HEAD], cut, &[&[0; 4], &good[4..]].concat(), &[&[255; 4], &good[4..]].concat()]
        {
            assert_eq!(rebuilt(&new, &new, bad, 50).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
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
            prop_assert_eq!(rebuilt(&old, &new, &described, piece).unwrap().0, new);
        }

        #[test]
        fn whatever_a_peer_sends_makes_nothing_panic(
            described in prop::collection::vec(any::<u8>(), 0..200), short in 1..20_u8,
            new in prop::collection::vec(any::<u8>(), 0..100), piece in 1..60_usize,
        ) {
            let mut described = described;
            if let Some(head) = described.first_chunk_mut() {
                *head = [0, 0, 0, short];
            }
            let mut stayed = Stayed::default();
            let mut rest = &new[..];
            for bytes in described.chunks(piece) {
                stayed.add(bytes);
                while stayed.step(&mut rest).unwrap() {}
            }
            if let Ok(mut bridge) = stayed.finish(&mut rest) {
                let mut read_at = |buffer: &mut [u8], at: u64| (&new[usize::try_from(at).unwrap()..]).read(buffer);
                while bridge.step(&mut read_at, &mut |_| ()).unwrap() {}
            }
        }
    }
}
