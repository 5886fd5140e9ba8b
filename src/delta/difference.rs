//! Finding out what is new in a file.
//!
//! Behind a block that was found comes most likely the block that follows it in the basis: as long as that is so, many
//! blocks are hashed side by side and compared. Where it ends, a window moves byte by byte, and every position is looked up
//! among all blocks, until one is found.
//!
//! The work is bounded by the length of the file, whatever sums the peer sent: looking closer at a position costs credit,
//! and every byte that is passed brings some. Without credit a position counts as new.

use std::io::{Read, Write};

use super::commands::{Command, MAGIC};
use super::index::Index;
use super::literal::{self, LITERAL, write_literal};
use super::sums::{Rolling, Sums};
use super::{Bounds, DeltaError, READ_NEW, WRITE_DELTA, fill, write};

/// Blocks hashed at a time: where nothing is known, and where blocks have followed each other for a while.
const BATCH: (usize, usize) = (8, 64);

/// Bytes of the new file that are at hand. More than a full batch of blocks and a literal.
const WINDOW: usize = 512 * 1024;

/// What a byte brings, what a look into the index costs, and a strong sum, which is some thousand times as much.
const CREDIT: u64 = 4;
const LOOK: u64 = 16;
const STRONG: u64 = 1024;

/// Writes what turns the file that the peer's `signature` describes into `new`. For a signature without blocks, or one that
/// is too large, that is the whole of `new`.
///
/// # Errors
/// [`DeltaError::BadSignature`], before anything is written; [`DeltaError::Io`].
pub fn delta(new: &mut dyn Read, signature: &[u8], output: &mut dyn Write, bounds: Bounds) -> Result<(), DeltaError> {
    let sums = Sums::parse(signature)?;
    if sums.are_useless(bounds) {
        return literal::delta_of_all(new, output);
    }
    write(output, WRITE_DELTA, &MAGIC)?;
    let script = Script { output, copy: None };
    Difference {
        sums,
        index: Index::new(&sums),
        window: Window { new, data: vec![0; WINDOW], literal: 0, at: 0, end: 0, base: 0, is_last: false },
        script,
        batch: BATCH.0,
        anchor: (0, 0),
        credit: 1 << 20,
    }
    .run()
}

struct Difference<'a> {
    sums: Sums<&'a [u8]>,
    index: Index,
    window: Window<'a>,
    script: Script<'a>,
    /// Blocks to hash next.
    batch: usize,
    /// A block of the basis, and the position where it would be if nothing was inserted or removed since the last match.
    anchor: (usize, u64),
    credit: u64,
}

impl Difference<'_> {
    fn run(mut self) -> Result<(), DeltaError> {
        let mut expected = Some(0);
        loop {
            self.window.advance()?;
            if self.window.rest().is_empty() {
                break;
            }
            expected = match expected {
                Some(block) => self.follow(block)?,
                None => self.search()?,
            };
        }
        self.flush()?;
        self.script.end()
    }

    /// Compares with the blocks from `block` on. Returns the next one as long as they agree.
    fn follow(&mut self, block: usize) -> Result<Option<usize>, DeltaError> {
        let length = self.sums.block_length;
        let rest = self.window.rest();
        let left = self.sums.count() - block;
        let count = self.batch.min(left).min(rest.len() / length);
        if count == 0 && left > 0 {
            // The last block may be a short one: then the file ends with it.
            if left == 1 && self.sums.of_data(rest) == self.sums.of_blocks(block, 1) {
                let rest = rest.len();
                self.found(block, rest)?;
                return Ok(Some(block + 1));
            }
        }
        let ours = self.sums.of_data(&rest[..count * length]);
        let theirs = self.sums.of_blocks(block, count);
        let width = self.sums.width();
        let alike = ours
            .chunks_exact(width)
            .zip(theirs.chunks_exact(width))
            .take_while(|(ours, theirs)| ours == theirs)
            .count();
        if alike > 0 {
            self.found(block, alike * length)?;
        }
        if alike == count && count > 0 {
            self.batch = (2 * self.batch).min(BATCH.1);
            return Ok(Some(block + count));
        }
        self.batch = BATCH.0;
        self.anchor = (block + alike, self.window.position());
        Ok(None)
    }

    /// Moves on to the next position where any block begins, and takes it. Returns the block behind it; none when there was
    /// no block in what is at hand.
    fn search(&mut self) -> Result<Option<usize>, DeltaError> {
        let length = self.sums.block_length;
        if self.window.rest().len() < length {
            return self.search_the_end();
        }
        let mut rolling = Rolling::of(&self.window.rest()[..length]);
        // It fits: a remainder of the block length.
        #[allow(clippy::cast_possible_truncation)]
        let into_block = ((self.window.position() - self.anchor.1) % length as u64) as usize;
        let mut until_aligned = if into_block == 0 { 0 } else { length - into_block };
        loop {
            self.credit += CREDIT;
            let weak = rolling.sum();
            let aligned = until_aligned == 0;
            if (aligned || self.index.may_have(weak))
                && let Some(block) = self.block_here(weak, aligned)
            {
                self.found(block, length)?;
                return Ok(Some(block + 1));
            }
            until_aligned = if aligned { length } else { until_aligned } - 1;
            let rest = self.window.rest();
            let Some(&into) = rest.get(length) else { break };
            rolling.rotate(rest[0], into);
            self.step()?;
        }
        if self.window.is_last {
            return self.search_the_end();
        }
        // The same position again, with more behind it.
        Ok(None)
    }

    /// The last bytes, fewer than a block: they may be the basis' last block, which may be short.
    fn search_the_end(&mut self) -> Result<Option<usize>, DeltaError> {
        let last = self.sums.count() - 1;
        let mut rolling = Rolling::of(self.window.rest());
        while let Some(&out) = self.window.rest().first() {
            self.credit += CREDIT;
            if rolling.sum() == self.sums.weak(last) && self.pay(STRONG) {
                let rest = self.window.rest();
                if self.sums.block_length >= rest.len() && self.sums.of_data(rest) == self.sums.of_blocks(last, 1) {
                    let rest = rest.len();
                    self.found(last, rest)?;
                    break;
                }
            }
            rolling.shrink(out);
            self.step()?;
        }
        Ok(None)
    }

    /// The block that begins here: rather the one that is due than another with the same content.
    fn block_here(&mut self, weak: u32, aligned: bool) -> Option<usize> {
        let length = self.sums.block_length as u64;
        let due = usize::try_from((self.window.position() - self.anchor.1) / length).ok()? + self.anchor.0;
        let due = Some(due).filter(|&due| aligned && due < self.sums.count() && self.sums.weak(due) == weak);
        if due.is_none() && (!self.index.may_have(weak) || !self.pay(LOOK)) {
            return None;
        }
        let found = due.or_else(|| self.index.with_sum(&self.sums, weak).next());
        if found.is_none() || !self.pay(STRONG) {
            return None;
        }
        let ours = self.sums.of_data(&self.window.rest()[..self.sums.block_length]);
        let is_it = |&block: &usize| self.sums.of_blocks(block, 1) == ours;
        due.filter(is_it).or_else(|| self.index.with_sum(&self.sums, weak).find(is_it))
    }

    fn pay(&mut self, cost: u64) -> bool {
        let Some(left) = self.credit.checked_sub(cost) else { return false };
        self.credit = left;
        true
    }

    /// The next `length` bytes are those of the basis from `block` on.
    fn found(&mut self, block: usize, length: usize) -> Result<(), DeltaError> {
        self.flush()?;
        self.script.copy((block * self.sums.block_length) as u64, length as u64)?;
        self.window.at += length;
        self.window.literal = self.window.at;
        self.credit += CREDIT * length as u64;
        Ok(())
    }

    /// The next byte is new.
    fn step(&mut self) -> Result<(), DeltaError> {
        self.window.at += 1;
        if self.window.at - self.window.literal == LITERAL { self.flush() } else { Ok(()) }
    }

    /// Writes the bytes that are known to be new.
    fn flush(&mut self) -> Result<(), DeltaError> {
        let Window { data, literal, at, .. } = &self.window;
        self.script.literal(&data[*literal..*at])?;
        self.window.literal = self.window.at;
        Ok(())
    }
}

/// A part of the new file.
struct Window<'a> {
    new: &'a mut dyn Read,
    data: Vec<u8>,
    /// From here to `at`: new, and not written yet.
    literal: usize,
    at: usize,
    /// The end of what was read.
    end: usize,
    /// The position of `data` in the file.
    base: u64,
    /// The file ends with `end`.
    is_last: bool,
}

impl Window<'_> {
    /// What is at hand from here on.
    fn rest(&self) -> &[u8] {
        &self.data[self.at..self.end]
    }

    /// Where we are in the file.
    fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Has at least a full batch of blocks at hand, or the end of the file.
    fn advance(&mut self) -> Result<(), DeltaError> {
        // A batch of the longest blocks is larger: then only as many are hashed as are here.
        if self.is_last || self.end - self.at >= WINDOW / 4 {
            return Ok(());
        }
        self.data.copy_within(self.literal..self.end, 0);
        self.base += self.literal as u64;
        self.at -= self.literal;
        self.end -= self.literal;
        self.literal = 0;
        let read = fill(self.new, &mut self.data[self.end..]);
        let read = read.map_err(|source| DeltaError::Io { operation: READ_NEW, source })?;
        self.end += read;
        self.is_last = self.end < self.data.len();
        Ok(())
    }
}

/// The delta as it is written.
struct Script<'a> {
    output: &'a mut dyn Write,
    /// Position and length of what is to be copied next: it may go on.
    copy: Option<(u64, u64)>,
}

impl Script<'_> {
    fn literal(&mut self, data: &[u8]) -> Result<(), DeltaError> {
        if data.is_empty() {
            return Ok(());
        }
        self.write_copy()?;
        write_literal(self.output, data)
    }

    fn copy(&mut self, position: u64, length: u64) -> Result<(), DeltaError> {
        if let Some((start, so_far)) = &mut self.copy
            && *start + *so_far == position
        {
            *so_far += length;
            return Ok(());
        }
        self.write_copy()?;
        self.copy = Some((position, length));
        Ok(())
    }

    fn write_copy(&mut self) -> Result<(), DeltaError> {
        match self.copy.take() {
            Some((position, length)) => write(self.output, WRITE_DELTA, &Command::Copy { position, length }.encode()),
            None => Ok(()),
        }
    }

    fn end(mut self) -> Result<(), DeltaError> {
        self.write_copy()?;
        write(self.output, WRITE_DELTA, &Command::End.encode())
    }
}
