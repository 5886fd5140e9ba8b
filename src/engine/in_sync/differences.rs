//! The differences of one pair, in the order in which they were found. Many of them wait in an unnamed temporary file.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use tempfile::{SpooledTempFile, spooled_tempfile};

use super::kind::Kind;
use crate::model::SyncPath;

/// What is kept in memory, in bytes.
pub(super) const IN_MEMORY: usize = 1 << 20;

/// On which side a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    LocalOnly,
    RemoteOnly,
    /// On both, in different states.
    Different,
}

/// A file that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub side: Side,
    pub path: SyncPath,
    /// What it is on the peer, where the peer has it.
    pub(super) theirs: Option<Kind>,
}

/// Differences, to be read from either end.
#[derive(Debug)]
pub struct Differences {
    records: SpooledTempFile,
    count: usize,
}

impl Differences {
    pub(super) fn new() -> Self {
        Self { records: spooled_tempfile(IN_MEMORY), count: 0 }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Side, kind, name; the name's length at both ends.
    pub(super) fn push(&mut self, difference: &Difference) -> io::Result<()> {
        let name = difference.path.as_bytes();
        let length = u32::try_from(name.len()).map_err(io::Error::other)?.to_le_bytes();
        let side = match difference.side {
            Side::LocalOnly => b'L',
            Side::RemoteOnly => b'R',
            Side::Different => b'X',
        };
        let record = [&length[..], &[side, Kind::to_byte(difference.theirs)], name, &length[..]].concat();
        self.records.write_all(&record)?;
        self.count += 1;
        Ok(())
    }

    /// From the first to the last.
    ///
    /// # Errors
    /// Those of seeking in a temporary file; of reading it, in the place of a difference.
    pub fn forwards(mut self) -> io::Result<impl Iterator<Item = io::Result<Difference>>> {
        self.records.rewind()?;
        let mut records = BufReader::new(self.records);
        Ok((0..self.count).map(move |_| read(&mut records)))
    }

    /// From the last to the first, which is the order of the C program's diffs.
    ///
    /// # Errors
    /// As [`Differences::forwards`].
    pub(super) fn backwards(mut self) -> io::Result<impl Iterator<Item = io::Result<Difference>>> {
        let mut end = self.records.seek(SeekFrom::End(0))?;
        let mut before = move || {
            self.records.seek(SeekFrom::Start(end - LENGTH))?;
            end -= u64::from(read_length(&mut self.records)?) + FRAME;
            self.records.seek(SeekFrom::Start(end))?;
            read(&mut self.records)
        };
        Ok((0..self.count).map(move |_| before()))
    }
}

/// The bytes of a length.
const LENGTH: u64 = 4;

/// The bytes of a record besides its name.
const FRAME: u64 = 2 * LENGTH + 2;

fn read(records: &mut impl Read) -> io::Result<Difference> {
    let length = usize::try_from(read_length(records)?).map_err(io::Error::other)?;
    let mut record = vec![0; length + 2];
    records.read_exact(&mut record)?;
    read_length(records)?;
    let side = match record[0] {
        b'L' => Side::LocalOnly,
        b'R' => Side::RemoteOnly,
        _ => Side::Different,
    };
    let path = SyncPath::parse(&record[2..]).map_err(io::Error::other)?;
    Ok(Difference { side, path, theirs: Kind::from_byte(record[1]) })
}

fn read_length(records: &mut impl Read) -> io::Result<u32> {
    let mut length = [0; 4];
    records.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn differences_come_back_from_either_end(found in prop::collection::vec((0_usize..3, 0_u8..8, "/[a-z\n\u{e9}]{1,9}"), 0..9)) {
            let found: Vec<Difference> = found
                .into_iter()
                .map(|(side, kind, name)| Difference {
                    side: [Side::LocalOnly, Side::RemoteOnly, Side::Different][side],
                    path: SyncPath::parse(name.as_bytes()).unwrap(),
                    theirs: Kind::from_byte(kind),
                })
                .collect();
            let spooled = || {
                let mut differences = Differences::new();
                for difference in &found {
                    differences.push(difference).unwrap();
                }
                differences
            };
            prop_assert_eq!(spooled().is_empty(), found.is_empty());
            let forwards: Vec<_> = spooled().forwards().unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(&forwards, &found);
            let mut backwards: Vec<_> = spooled().backwards().unwrap().map(Result::unwrap).collect();
            backwards.reverse();
            prop_assert_eq!(backwards, found);
        }
    }
}
