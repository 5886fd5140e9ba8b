//! The statements of the file table; see [`super::rows`].

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::super::Change;
use super::super::spelling::{Range, Spelling, read_path};
use super::rows::{
    SET_MARK, Text, Versions, borrowed, bytes, intents, over_range, range_parameters, remove_named, schedule, set_mark,
    spellings, write,
};
use crate::model::{Checktxt, FileRecord, Fingerprint, Fingerprinter, SyncPath, encoding};

/// The columns of a record; a table without those of ours has NULL in their place.
fn record_columns(extended: bool) -> &'static str {
    if extended {
        "filename, checktxt, mtime_ns, ctime_ns, device, digest"
    } else {
        "filename, checktxt, NULL, NULL, NULL, NULL"
    }
}

/// `None`: the name is malformed.
fn record(row: &Row<'_>) -> rusqlite::Result<Option<FileRecord>> {
    let Some(path) = read_path(&bytes(row, 0)?) else { return Ok(None) };
    let digest: Option<Vec<u8>> = row.get(5)?;
    Ok(Some(FileRecord {
        path,
        checktxt: Checktxt::from_text(&encoding::decode(&bytes(row, 1)?)),
        mtime_ns: row.get(2)?,
        ctime_ns: row.get(3)?,
        device: row.get(4)?,
        digest: digest.and_then(|digest| digest.try_into().ok()),
    }))
}

/// Hands the records within the ranges to `take`, in order and in chunks, until it says that it wants no more.
pub(super) fn files(
    connection: &Connection,
    ranges: &[Range],
    extended: bool,
    chunk_size: usize,
    take: &mut dyn FnMut(Vec<FileRecord>) -> bool,
) -> rusqlite::Result<()> {
    stream(connection, ranges, extended, " ORDER BY filename", record, chunk_size, take)
}

/// The same for fingerprints, in any order.
pub(super) fn fingerprints(
    connection: &Connection,
    ranges: &[Range],
    extended: bool,
    fingerprinter: &Fingerprinter,
    chunk_size: usize,
    take: &mut dyn FnMut(Vec<Fingerprint>) -> bool,
) -> rusqlite::Result<()> {
    let mut buffer = Vec::new();
    let fingerprint = |row: &Row<'_>| {
        let (name, checktxt) = (borrowed(row, 0)?, borrowed(row, 1)?);
        let name = encoding::decode_in(&name, &mut buffer);
        if SyncPath::check(name).is_err() {
            return Ok(None);
        }
        let name = fingerprinter.name(name);
        let checktxt = encoding::decode_in(&checktxt, &mut buffer);
        Ok(Some(Fingerprint { name, state: fingerprinter.state(checktxt, row.get(2)?, row.get(3)?, row.get(4)?) }))
    };
    stream(connection, ranges, extended, "", fingerprint, chunk_size, take)
}

fn stream<T>(
    connection: &Connection,
    ranges: &[Range],
    extended: bool,
    order: &str,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
    chunk_size: usize,
    take: &mut dyn FnMut(Vec<T>) -> bool,
) -> rusqlite::Result<()> {
    // One snapshot for all ranges.
    let snapshot = connection.unchecked_transaction()?;
    let mut chunk = Vec::with_capacity(chunk_size);
    for range in ranges {
        let select = format!("SELECT {} FROM file", record_columns(extended));
        let mut statement = snapshot.prepare_cached(&over_range(&select, range, order))?;
        let parameters = range_parameters(range);
        let mut rows = statement.query(rusqlite::params_from_iter(parameters.iter().map(|text| Text(text))))?;
        while let Some(row) = rows.next()? {
            chunk.extend(read(row)?);
            if chunk.len() == chunk_size && !take(std::mem::replace(&mut chunk, Vec::with_capacity(chunk_size))) {
                return Ok(());
            }
        }
    }
    if !chunk.is_empty() {
        take(chunk);
    }
    Ok(())
}

pub(super) fn file(connection: &Connection, path: &SyncPath, extended: bool) -> rusqlite::Result<Option<FileRecord>> {
    let sql = format!("SELECT {} FROM file WHERE filename = ?1", record_columns(extended));
    let mut statement = connection.prepare_cached(&sql)?;
    for name in spellings(path.as_bytes()) {
        if let Some(found) = statement.query_row([Text(&name)], record).optional()? {
            return Ok(found);
        }
    }
    Ok(None)
}

pub(super) fn apply(connection: &Connection, changes: &[Change]) -> rusqlite::Result<Vec<SyncPath>> {
    let mut stale = Vec::new();
    let mut versions = Versions::reserve(connection, changes.iter().map(|change| change.marks.len()).sum())?;
    let receiving: HashSet<SyncPath> = intents(connection, true)?.into_iter().map(|(_, intent)| intent.path).collect();
    let mut add = connection.prepare_cached(&format!("INSERT OR IGNORE {FILE_ROW}"))?;
    let mut add_mark = connection.prepare_cached(SET_MARK)?;
    for change in changes {
        let has_one_spelling = Spelling::Bytes.other(change.path.as_bytes()).is_none();
        // What is on disk and what the row says may differ for a moment while a session receives the file.
        let is_written = !receiving.contains(&change.path)
            && match (&change.expected, &change.record) {
                (None, Some(record)) if has_one_spelling => execute_file(&mut add, record)? == 1,
                (expected, record) => {
                    let is_as_expected = current_checktxt(connection, &change.path)? == *expected;
                    if is_as_expected {
                        set_file(connection, &change.path, record.as_ref())?;
                    }
                    is_as_expected
                }
            };
        if !is_written {
            stale.push(change.path.clone());
            continue;
        }
        for mark in &change.marks {
            set_mark(connection, &mut add_mark, mark, &mut versions)?;
        }
        if !change.actions.is_empty() {
            schedule(connection, &change.actions)?;
        }
    }
    Ok(stale)
}

fn current_checktxt(connection: &Connection, path: &SyncPath) -> rusqlite::Result<Option<Checktxt>> {
    let mut statement = connection.prepare_cached("SELECT checktxt FROM file WHERE filename = ?1")?;
    for name in spellings(path.as_bytes()) {
        if let Some(text) = statement.query_row([Text(&name)], |row| bytes(row, 0)).optional()? {
            return Ok(Some(Checktxt::from_text(&encoding::decode(&text))));
        }
    }
    Ok(None)
}

/// Makes the row of a file what `record` says.
pub(super) fn set_file(connection: &Connection, path: &SyncPath, record: Option<&FileRecord>) -> rusqlite::Result<()> {
    let Some(record) = record else {
        return remove_file(connection, path).map(drop);
    };
    if Spelling::Bytes.other(path.as_bytes()).is_some() {
        remove_file(connection, path)?;
    }
    let mut replace = connection.prepare_cached(&format!("INSERT OR REPLACE {FILE_ROW}"))?;
    execute_file(&mut replace, record).map(drop)
}

/// What follows on INSERT in a statement for [`execute_file`].
const FILE_ROW: &str =
    "INTO file (filename, checktxt, mtime_ns, ctime_ns, device, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Writes a row. Returns how many were written.
fn execute_file(statement: &mut Statement<'_>, record: &FileRecord) -> rusqlite::Result<usize> {
    let FileRecord { path, checktxt, mtime_ns, ctime_ns, device, digest } = record;
    let [name, checktxt] = [path.as_bytes(), checktxt.as_bytes()].map(write);
    let digest = digest.as_ref().map(<[u8; 32]>::as_slice);
    statement.execute(params![Text(&name), Text(&checktxt), mtime_ns, ctime_ns, device, digest])
}

fn remove_file(connection: &Connection, path: &SyncPath) -> rusqlite::Result<u64> {
    remove_named(connection, "DELETE FROM file WHERE filename = ?1", path.as_bytes(), &[])
}

pub(super) fn remove_files(connection: &Connection, paths: &[SyncPath]) -> rusqlite::Result<u64> {
    paths.iter().map(|path| remove_file(connection, path)).sum()
}

pub(super) fn remove_malformed(connection: &Connection) -> rusqlite::Result<u64> {
    let mut removed = 0;
    for table in ["file", "dirty"] {
        let mut malformed = Vec::new();
        let mut statement = connection.prepare(&format!("SELECT rowid, filename FROM {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if read_path(&bytes(row, 1)?).is_none() {
                malformed.push(row.get::<_, i64>(0)?);
            }
        }
        let mut delete = connection.prepare(&format!("DELETE FROM {table} WHERE rowid = ?1"))?;
        for rowid in malformed {
            removed += delete.execute([rowid])? as u64;
        }
    }
    Ok(removed)
}
