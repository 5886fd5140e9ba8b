//! Puts a peer's list in name order within a fixed amount of memory. What does not fit waits in unnamed temporary files:
//! runs, each in order, which are merged as they are read.
//!
//! A list that is in order already makes a single run, whatever its length: it costs no more than being written and read
//! once. A peer whose database sorts by its own collation makes several.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::vec;

use super::listing::Listed;
use crate::model::{Checktxt, SyncPath};

/// How much of a list is in memory at once, in bytes.
const MEMORY: usize = 4 << 20;

/// What a listed file takes besides its texts, roughly.
const OVERHEAD: usize = 64;

/// More runs than this are merged into one, so that few files are open.
const MOST_RUNS: usize = 32;

/// Takes a list in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    batch: Vec<Listed>,
    /// What `batch` takes, in bytes.
    size: usize,
    limit: usize,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    file: BufWriter<File>,
    last: SyncPath,
}

impl Sorter {
    pub(super) fn new() -> Self {
        Self::with_limit(MEMORY)
    }

    fn with_limit(limit: usize) -> Self {
        Self { batch: Vec::new(), size: 0, limit, runs: Vec::new() }
    }

    /// Takes one file. `true`: there is no room for more before [`Sorter::spill`].
    pub(super) fn push(&mut self, listed: Listed) -> bool {
        self.size += listed.path.as_bytes().len() + listed.checktxt.as_bytes().len() + OVERHEAD;
        self.batch.push(listed);
        self.size >= self.limit
    }

    /// Writes what is in memory to a run that it continues, or to a new one. Blocks.
    ///
    /// # Errors
    /// Those of temporary files.
    pub(super) fn spill(&mut self) -> io::Result<()> {
        let batch = self.sorted_batch();
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let last = last.path.clone();
        let index = match self.runs.iter().position(|run| run.last <= first.path) {
            Some(index) => index,
            None => self.add_run(last.clone())?,
        };
        let run = &mut self.runs[index];
        for listed in &batch {
            write(&mut run.file, listed)?;
        }
        run.last = last;
        Ok(())
    }

    /// Everything, in name order, each name once. Blocks.
    ///
    /// # Errors
    /// Those of temporary files.
    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        let batch = self.sorted_batch();
        let memory = Source::Memory(batch.into_iter());
        let files = self.runs.into_iter().map(Run::into_source).collect::<io::Result<Vec<_>>>()?;
        Sorted::of(files.into_iter().chain([memory]).collect())
    }

    fn sorted_batch(&mut self) -> Vec<Listed> {
        self.size = 0;
        let mut batch = std::mem::take(&mut self.batch);
        batch.sort_by(|one, other| one.path.cmp(&other.path));
        batch
    }

    fn add_run(&mut self, last: SyncPath) -> io::Result<usize> {
        if self.runs.len() >= MOST_RUNS {
            self.merge_runs()?;
        }
        self.runs.push(Run { file: BufWriter::new(tempfile::tempfile()?), last });
        Ok(self.runs.len() - 1)
    }

    fn merge_runs(&mut self) -> io::Result<()> {
        let runs = std::mem::take(&mut self.runs);
        let sources = runs.into_iter().map(Run::into_source).collect::<io::Result<_>>()?;
        let mut file = BufWriter::new(tempfile::tempfile()?);
        let mut last = None;
        for listed in Sorted::of(sources)? {
            let listed = listed?;
            write(&mut file, &listed)?;
            last = Some(listed.path);
        }
        self.runs.extend(last.map(|last| Run { file, last }));
        Ok(())
    }
}

impl Run {
    fn into_source(self) -> io::Result<Source> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Source::Disk(BufReader::new(file)))
    }
}

/// A list in name order, each name once.
#[derive(Debug)]
pub(super) struct Sorted {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<Head>>,
}

#[derive(Debug)]
enum Source {
    Memory(vec::IntoIter<Listed>),
    Disk(BufReader<File>),
}

/// The next file of a source.
#[derive(Debug)]
struct Head {
    listed: Listed,
    source: usize,
}

impl Sorted {
    fn of(sources: Vec<Source>) -> io::Result<Self> {
        let mut sorted = Self { heads: BinaryHeap::with_capacity(sources.len()), sources };
        for source in 0..sorted.sources.len() {
            sorted.refill(source)?;
        }
        Ok(sorted)
    }

    fn refill(&mut self, source: usize) -> io::Result<()> {
        let next = match &mut self.sources[source] {
            Source::Memory(files) => files.next(),
            Source::Disk(file) => read(file)?,
        };
        self.heads.extend(next.map(|listed| Reverse(Head { listed, source })));
        Ok(())
    }

    fn advance(&mut self) -> io::Result<Option<Listed>> {
        let Some(Reverse(Head { listed, source })) = self.heads.pop() else { return Ok(None) };
        self.refill(source)?;
        while let Some(Reverse(same)) = self.heads.peek()
            && same.listed.path == listed.path
        {
            let source = same.source;
            self.heads.pop();
            self.refill(source)?;
        }
        Ok(Some(listed))
    }
}

impl Iterator for Sorted {
    type Item = io::Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// By name. Of equal names any may come first: a peer lists a name twice when two keys share it.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.listed.path.cmp(&other.listed.path).then(self.source.cmp(&other.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// Each text with its length before it.
fn write(file: &mut impl Write, listed: &Listed) -> io::Result<()> {
    for text in [listed.path.as_bytes(), listed.checktxt.as_bytes()] {
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(text)?;
    }
    Ok(())
}

fn read(file: &mut BufReader<File>) -> io::Result<Option<Listed>> {
    use std::io::BufRead;
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut text = || {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let mut text = vec![0; usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?];
        file.read_exact(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    let path = SyncPath::parse(&text()?).map_err(io::Error::other)?;
    Ok(Some(Listed { path, checktxt: Checktxt::from_text(&text()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(name: &[u8]) -> Listed {
        let path = SyncPath::parse(&[b"/", name].concat()).unwrap();
        Listed { path, checktxt: Checktxt::from_text(name) }
    }

    fn names(numbers: impl Iterator<Item = u32>) -> Vec<Listed> {
        numbers.map(|number| listed(format!("{number:06}").as_bytes())).collect()
    }

    /// How many runs a list makes, and what comes out.
    fn sort(limit: usize, files: Vec<Listed>) -> (usize, Vec<Listed>) {
        let mut sorter = Sorter::with_limit(limit);
        for file in files {
            if sorter.push(file) {
                sorter.spill().unwrap();
            }
        }
        let runs = sorter.runs.len();
        (runs, sorter.finish().unwrap().map(Result::unwrap).collect())
    }

    #[test]
    fn a_list_in_order_is_one_run() {
        let expected = names(0..1_000);
        assert_eq!(sort(usize::MAX, expected.clone()), (0, expected.clone()));
        assert_eq!(sort(500, expected.clone()), (1, expected));
    }

    #[test]
    fn however_a_list_is_turned_few_files_are_open() {
        let (runs, sorted) = sort(500, names((0..3_000).rev()));
        assert!(runs > 1 && runs <= MOST_RUNS, "{runs}");
        assert_eq!(sorted, names(0..3_000));
    }

    proptest! {
        #[test]
        fn any_order_becomes_that_of_the_encoded_names(
            names in prop::collection::vec("[ab#& %\u{e9}]{1,4}", 0..60),
            limit in 1_usize..600,
        ) {
            let mut expected: Vec<Listed> = names.iter().map(|name| listed(name.as_bytes())).collect();
            let (_, sorted) = sort(limit, expected.clone());
            expected.sort_by(|one, other| one.path.cmp(&other.path));
            expected.dedup();
            prop_assert_eq!(sorted, expected);
        }
    }
}
