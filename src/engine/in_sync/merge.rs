//! Two lists in name order, ours and a peer's, side by side. Neither is ever in memory as a whole.

use std::cmp::Ordering;
use std::vec;

use tokio::sync::mpsc::Receiver;

use super::Trouble;
use super::listing::Listed;
use crate::model::{FileRecord, SyncPath};

/// What there is under one name; at least one of the two.
pub(super) type Both = (Option<FileRecord>, Option<Listed>);

/// Goes through the names of both lists in their order.
pub(super) struct Merge<E, F> {
    ours: Ascending<FileRecord, E>,
    theirs: Ascending<Listed, F>,
}

impl<E: Into<Trouble>, F: Into<Trouble>> Merge<E, F> {
    pub(super) fn of(ours: Receiver<Result<Vec<FileRecord>, E>>, theirs: Receiver<Result<Vec<Listed>, F>>) -> Self {
        Self { ours: Ascending::of(ours), theirs: Ascending::of(theirs) }
    }

    /// The next name that is in either list.
    pub(super) async fn next(&mut self) -> Result<Option<Both>, Trouble> {
        let ours = self.ours.head().await.map_err(Into::into)?.map(|record| &record.path);
        let theirs = self.theirs.head().await.map_err(Into::into)?.map(|listed| &listed.path);
        Ok(match order(ours, theirs) {
            None => None,
            Some(Ordering::Less) => Some((self.ours.take(), None)),
            Some(Ordering::Equal) => Some((self.ours.take(), self.theirs.take())),
            Some(Ordering::Greater) => Some((None, self.theirs.take())),
        })
    }
}

/// Which of two heads comes first; a list that has ended comes after everything.
fn order(ours: Option<&SyncPath>, theirs: Option<&SyncPath>) -> Option<Ordering> {
    match (ours, theirs) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(ours), Some(theirs)) => Some(ours.cmp(theirs)),
    }
}

/// A list that arrives in chunks.
struct Ascending<T, E> {
    chunks: Receiver<Result<Vec<T>, E>>,
    chunk: vec::IntoIter<T>,
    head: Option<T>,
}

impl<T, E> Ascending<T, E> {
    fn of(chunks: Receiver<Result<Vec<T>, E>>) -> Self {
        Self { chunks, chunk: Vec::new().into_iter(), head: None }
    }

    /// What comes next, without taking it; `None` at the end.
    async fn head(&mut self) -> Result<Option<&T>, E> {
        while self.head.is_none() {
            self.head = self.chunk.next();
            if self.head.is_none() {
                let Some(chunk) = self.chunks.recv().await else { break };
                self.chunk = chunk?.into_iter();
            }
        }
        Ok(self.head.as_ref())
    }

    fn take(&mut self) -> Option<T> {
        self.head.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Checktxt;
    use crate::store::StoreError;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::io;
    use tokio::sync::mpsc;

    fn path(name: &str) -> SyncPath {
        SyncPath::parse(format!("/{name}").as_bytes()).unwrap()
    }

    fn record(name: &str) -> FileRecord {
        let checktxt = Checktxt::from_text(b"");
        FileRecord { path: path(name), checktxt, mtime_ns: None, ctime_ns: None, device: None, digest: None }
    }

    fn listed(name: &str) -> Listed {
        Listed { path: path(name), checktxt: Checktxt::from_text(b"") }
    }

    /// Chunks of the given size, some of them empty.
    fn send<T, E>(items: Vec<T>, size: usize) -> Receiver<Result<Vec<T>, E>> {
        let (sender, receiver) = mpsc::channel(1_000);
        let mut chunk = Vec::new();
        for item in items {
            if chunk.len() >= size {
                sender.try_send(Ok(std::mem::take(&mut chunk))).unwrap_or_else(|_| panic!("too many"));
                sender.try_send(Ok(Vec::new())).unwrap_or_else(|_| panic!("too many"));
            }
            chunk.push(item);
        }
        sender.try_send(Ok(chunk)).unwrap_or_else(|_| panic!("too many"));
        receiver
    }

    proptest! {
        #[test]
        fn every_name_comes_once_in_order_with_what_both_sides_have(
            ours in prop::collection::vec("[ab#& ]{1,3}", 0..40),
            theirs in prop::collection::vec("[ab#& ]{1,3}", 0..40),
            size in 1_usize..9,
        ) {
            let ascending = |names: &[String]| names.iter().map(|name| path(name)).collect::<BTreeSet<_>>();
            let (mine, other) = (ascending(&ours), ascending(&theirs));
            let name = |path: &SyncPath| String::from_utf8(path.as_bytes()[1..].to_vec()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(async {
                let ours = send::<_, StoreError>(mine.iter().map(|path| record(&name(path))).collect(), size);
                let theirs = send::<_, io::Error>(other.iter().map(|path| listed(&name(path))).collect(), size + 1);
                let (mut merge, mut found) = (Merge::of(ours, theirs), Vec::new());
                while let Some((ours, theirs)) = merge.next().await.unwrap() {
                    found.push((ours.map(|record| record.path), theirs.map(|listed| listed.path)));
                }
                found
            });
            let here = |set: &BTreeSet<SyncPath>, path: &SyncPath| set.get(path).cloned();
            let expected: Vec<_> = mine.union(&other).map(|path| (here(&mine, path), here(&other, path))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
