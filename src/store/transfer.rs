//! Moving a whole state from one database into another: what is moved, and how it is told that nothing was lost.
//!
//! The source is read as one snapshot and never written. What arrives is compared, as the rows stand in the tables again,
//! before the one transaction that it is written in ends.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::backend::Backend;
use super::error::{Result, StoreError};
use super::{Engine, Hint, Location, Store, StoreOptions, postgres, sqlite, streamed};
use crate::model::{FileRecord, Mark, ScheduledAction};

/// A row of one of the C program's tables, whatever its spelling.
#[derive(Debug)]
pub(super) enum Row {
    File(FileRecord),
    Dirty(Mark),
    Hint(Hint),
    Action(ScheduledAction),
    /// Peer and DER.
    Certificate(String, Vec<u8>),
    /// One that no operation reports: its name, which stands here as it is, is none, or its certificate is no hexadecimal text.
    Malformed(String),
    /// A file that was being received.
    UnderWay,
}

/// A state that is read as a whole and left as it is, of whatever program and version.
#[derive(Debug, Clone)]
pub struct Source {
    engine: Engine,
}

impl Source {
    /// Opens a database that is there. Nothing is made or changed in it.
    ///
    /// # Errors
    /// It cannot be read, or holds no tables of csync2, or those of a newer one.
    pub async fn open(location: &Location, options: &StoreOptions) -> Result<Self> {
        let engine = match location {
            Location::Postgres(url) => Engine::Postgres(Arc::new(postgres::Postgres::look_at(url, options).await?)),
            Location::Sqlite(path) => Engine::Sqlite(Arc::new(sqlite::Sqlite::look_at(path, options).await?)),
        };
        Ok(Self { engine })
    }

    /// What two rows of one table stand for, in two spellings.
    async fn twice(&self) -> Option<String> {
        let (mut seen, mut rows) = (HashSet::new(), self.rows());
        while let Some(Ok(chunk)) = rows.recv().await {
            for row in chunk {
                let (table, name, of) = match &row {
                    Row::File(record) => (0, record.path.as_bytes(), &b""[..]),
                    Row::Dirty(mark) => (1, mark.path.as_bytes(), mark.peer.as_bytes()),
                    Row::Hint(hint) => (2, &hint.path[..], &[u8::from(hint.recursive)][..]),
                    Row::Action(action) => (3, action.path.as_bytes(), &action.command[..]),
                    Row::Certificate(peer, _) => (4, peer.as_bytes(), &b""[..]),
                    Row::Malformed(_) | Row::UnderWay => continue,
                };
                if !seen.insert((table, digest(&[Some(name), Some(of)]))) {
                    return Some(format!("{} in the table {}", String::from_utf8_lossy(name), TABLES[table]));
                }
            }
        }
        None
    }

    /// All rows, as one snapshot. An error is the last thing sent.
    fn rows(&self) -> Receiver<Result<Vec<Row>>> {
        let source = self.clone();
        streamed(|sink| async move { on!(source, backend => backend.snapshot(sink).await) })
    }
}

impl Store {
    /// Takes a whole state in, in one transaction, and compares what is there then with what came. A store that holds
    /// the same already is left as it is.
    ///
    /// # Errors
    /// The store holds something else; or what the databases say. Nothing has been changed then.
    pub async fn import(&self, source: &Source) -> Result<Imported> {
        let imported = on!(self, backend => backend.import(source.rows()).await);
        match imported {
            Err(StoreError::Unfaithful { database, offered, written, .. }) => {
                Err(StoreError::Unfaithful { database, offered, written, twice: source.twice().await })
            }
            imported => imported,
        }
    }
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    pub contents: Contents,
    /// The store held all of it before.
    pub was_there: bool,
    /// Rows that were left out, since nothing could ever be done with them.
    pub malformed: Option<Malformed>,
    /// Files that were being received, which an import knows nothing of.
    pub under_way: u64,
}

/// Rows that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub count: u64,
    /// The name in the first of them, as it stands there.
    pub first: String,
}

/// How many rows there are in each table, and what stands in them: two of these are equal when the rows are, whatever their
/// order and spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents([Tally; 5]);

const TABLES: [&str; 5] = ["file", "dirty", "hint", "action", "x509_cert"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    rows: u64,
    /// Of the digests of all rows.
    sum: u128,
}

impl Contents {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|tally| tally.rows == 0)
    }

    /// Rows of the tables `file`, `dirty`, `hint`, `action` and `x509_cert`.
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        self.0.map(|tally| tally.rows)
    }

    fn add(&mut self, row: &Row) {
        let number = |number: Option<i64>| number.map(i64::to_le_bytes);
        let (table, digest) = match row {
            Row::File(FileRecord { path, checktxt, mtime_ns, ctime_ns, device, digest: content }) => {
                let [mtime, ctime, device] = [mtime_ns, ctime_ns, device].map(|column| number(*column));
                let of = |column: &Option<[u8; 8]>| column.map(Vec::from);
                let (mtime, ctime, device) = (of(&mtime), of(&ctime), of(&device));
                let columns = [
                    Some(path.as_bytes()),
                    Some(checktxt.as_bytes()),
                    mtime.as_deref(),
                    ctime.as_deref(),
                    device.as_deref(),
                    content.as_ref().map(<[u8; 32]>::as_slice),
                ];
                (0, digest(&columns))
            }
            Row::Dirty(Mark { path, my_name, peer, forced }) => {
                let columns = [path.as_bytes(), my_name.as_bytes(), peer.as_bytes(), &[u8::from(*forced)]];
                (1, digest(&columns.map(Some)))
            }
            Row::Hint(Hint { path, recursive }) => (2, digest(&[path, &[u8::from(*recursive)][..]].map(Some))),
            Row::Action(ScheduledAction { path, command, logfile }) => {
                (3, digest(&[path.as_bytes(), command, logfile].map(Some)))
            }
            Row::Certificate(peer, der) => (4, digest(&[peer.as_bytes(), der].map(Some))),
            Row::Malformed(_) | Row::UnderWay => return,
        };
        let tally = &mut self.0[table];
        tally.rows += 1;
        tally.sum = tally.sum.wrapping_add(digest);
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            TABLES.iter().zip(self.counts()).map(|(table, rows)| format!("{table} {rows}")).collect();
        formatter.write_str(&counts.join(", "))
    }
}

fn digest(columns: &[Option<&[u8]>]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for column in columns {
        let length = column.map_or(u64::MAX, |column| column.len() as u64);
        hasher.update(&length.to_le_bytes()).update(column.unwrap_or_default());
    }
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    u128::from_le_bytes(first)
}

/// What was seen of a stream of rows.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) contents: Contents,
    malformed: Option<Malformed>,
    under_way: u64,
}

impl Seen {
    pub(super) fn add(&mut self, rows: &[Row]) {
        for row in rows {
            self.contents.add(row);
            if let Row::Malformed(name) = row {
                let new = || Malformed { count: 0, first: name.clone() };
                self.malformed.get_or_insert_with(new).count += 1;
            }
            self.under_way += u64::from(matches!(row, Row::UnderWay));
        }
    }
}

/// How an import ends, before the transaction does.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The store was empty: what came, and what stands there now.
    Written { offered: Seen, written: Contents },
    /// It was not, and nothing was written: what came, and what stands there.
    Compared { offered: Seen, found: Contents },
    /// The source ended early.
    Broken(StoreError),
}

impl Outcome {
    /// Whether the transaction is to be committed.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Written { offered, written } if offered.contents == *written)
    }

    /// # Errors
    /// Why nothing was kept in the database of this name.
    pub(super) fn into_result(self, database: &str) -> Result<Imported> {
        let is_kept = self.is_kept();
        let database = database.to_owned();
        match self {
            Self::Written { offered, .. } if is_kept => Ok(offered.imported(false)),
            Self::Written { offered, written } => {
                let (offered, written) = (offered.contents.into(), written.into());
                Err(StoreError::Unfaithful { database, offered, written, twice: None })
            }
            Self::Compared { offered, found } if offered.contents == found => Ok(offered.imported(true)),
            Self::Compared { offered, found } => {
                let (offered, found) = (offered.contents.into(), found.into());
                Err(StoreError::Occupied { database, found, offered })
            }
            Self::Broken(error) => Err(error),
        }
    }
}

impl Seen {
    fn imported(self, was_there: bool) -> Imported {
        let Self { contents, malformed, under_way } = self;
        Imported { contents, was_there, malformed, under_way }
    }
}

/// Rows that came together, by table.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) files: Vec<FileRecord>,
    pub(super) marks: Vec<Mark>,
    pub(super) hints: Vec<Hint>,
    pub(super) actions: Vec<ScheduledAction>,
    pub(super) certificates: Vec<(String, Vec<u8>)>,
}

impl From<Vec<Row>> for Batch {
    fn from(rows: Vec<Row>) -> Self {
        let mut batch = Self::default();
        for row in rows {
            match row {
                Row::File(record) => batch.files.push(record),
                Row::Dirty(mark) => batch.marks.push(mark),
                Row::Hint(hint) => batch.hints.push(hint),
                Row::Action(action) => batch.actions.push(action),
                Row::Certificate(peer, der) => batch.certificates.push((peer, der)),
                Row::Malformed(_) | Row::UnderWay => {}
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Checktxt, SyncPath};

    fn contents(rows: &[Row]) -> Contents {
        let mut seen = Seen::default();
        seen.add(rows);
        seen.contents
    }

    fn file(name: &str, mtime_ns: Option<i64>) -> Row {
        Row::File(FileRecord {
            path: SyncPath::parse(name.as_bytes()).unwrap(),
            checktxt: Checktxt::from_text(b"v1"),
            mtime_ns,
            ctime_ns: None,
            device: None,
            digest: None,
        })
    }

    #[test]
    fn contents_are_equal_whatever_the_order_and_differ_in_every_column() {
        let hint = |path: &str, recursive| Row::Hint(Hint { path: path.into(), recursive });
        let one = contents(&[file("/a", None), file("/b", Some(1)), hint("/a", true)]);
        assert_eq!(
            one,
            contents(&[hint("/a", true), file("/b", Some(1)), Row::Malformed(String::new()), file("/a", None)])
        );
        assert_eq!(one.to_string(), "file 2, dirty 0, hint 1, action 0, x509_cert 0");
        for other in [
            [file("/a", None), file("/b", None), hint("/a", true)],
            [file("/a", Some(1)), file("/b", None), hint("/a", true)],
            [file("/a", None), file("/b", Some(1)), hint("/a", false)],
            [file("/a", None), file("/a", None), hint("/a", true)],
        ] {
            assert_ne!(one, contents(&other), "{other:?}");
        }
        let certificate = |peer: &str, der: &[u8]| contents(&[Row::Certificate(peer.into(), der.into())]);
        assert_ne!(certificate("ab", b"c"), certificate("a", b"bc"));
    }
}
