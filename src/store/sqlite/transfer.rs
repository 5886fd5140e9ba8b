//! A whole state, read and taken in.

use rusqlite::{Connection, OptionalExtension, Row as TableRow};
use tokio::sync::mpsc::Receiver;

use super::super::CHUNK;
use super::super::error::Result;
use super::super::spelling::HostNames;
use super::super::transfer::{Batch, Contents, Outcome, Row, Seen};
use super::values::bytes;
use super::{read, write};

/// Whether a table is there. Killed while it made them, the C program leaves some out.
pub(super) fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
    Ok(connection.query_row(sql, [table], |_| Ok(())).optional()?.is_some())
}

/// Hands all rows to `take`, in chunks and as one snapshot, until it says that it wants no more. `extended`: whether the
/// tables have columns of ours.
pub(super) fn read(
    connection: &Connection,
    extended: bool,
    take: &mut dyn FnMut(Vec<Row>) -> bool,
) -> rusqlite::Result<()> {
    read_within(&*connection.unchecked_transaction()?, extended, take)
}

/// Takes a state in, or compares it with what is there. The caller holds the write lock, and commits whatever this leaves.
pub(super) fn import(connection: &Connection, mut source: Receiver<Result<Vec<Row>>>) -> rusqlite::Result<Outcome> {
    let found = contents(connection)?;
    connection.execute_batch("SAVEPOINT import")?;
    let outcome = take_in(connection, found, &mut source)?;
    let end = if outcome.is_kept() { "RELEASE import" } else { "ROLLBACK TO import; RELEASE import" };
    connection.execute_batch(end)?;
    Ok(outcome)
}

fn take_in(
    connection: &Connection,
    found: Contents,
    source: &mut Receiver<Result<Vec<Row>>>,
) -> rusqlite::Result<Outcome> {
    let mut offered = Seen::default();
    while let Some(chunk) = source.blocking_recv() {
        match chunk {
            Ok(rows) => {
                offered.add(&rows);
                if found.is_empty() {
                    write_rows(connection, rows.into())?;
                }
            }
            Err(error) => return Ok(Outcome::Broken(error)),
        }
    }
    Ok(if found.is_empty() {
        Outcome::Written { offered, written: contents(connection)? }
    } else {
        Outcome::Compared { offered, found }
    })
}

fn write_rows(connection: &Connection, batch: Batch) -> rusqlite::Result<()> {
    let Batch { files, marks, hints, actions, certificates } = batch;
    write::add_files(connection, &files)?;
    write::mark(connection, &marks, &actions)?;
    write::add_hints(connection, &hints)?;
    certificates.iter().try_for_each(|(peer, der)| write::pin(connection, peer, der).map(drop))
}

type RowOf = fn(&TableRow<'_>) -> rusqlite::Result<Row>;

/// A row with the name that stands in it, where it is none that can be understood.
fn known_or_malformed(row: &TableRow<'_>, known: Option<Row>) -> rusqlite::Result<Row> {
    let name = || Ok(String::from_utf8_lossy(&bytes(row, 0)?).into_owned());
    known.map_or_else(|| name().map(Row::Malformed), Ok)
}

fn read_within(
    connection: &Connection,
    extended: bool,
    take: &mut dyn FnMut(Vec<Row>) -> bool,
) -> rusqlite::Result<()> {
    let file_columns = read::record_columns(extended);
    let tables: [(&str, &str, RowOf); 6] = [
        ("file", file_columns, |row| known_or_malformed(row, read::record(row)?.map(Row::File))),
        ("dirty", "filename, forced, myname, peername, 0", |row| {
            let entry = read::dirty_entry(row, &mut HostNames::default())?;
            known_or_malformed(row, entry.map(|entry| Row::Dirty(entry.into())))
        }),
        ("hint", "DISTINCT filename, recursive", |row| Ok(Row::Hint(read::hint(row)?))),
        ("action", "filename, command, logfile", |row| known_or_malformed(row, read::action(row)?.map(Row::Action))),
        ("x509_cert", "peername, certdata", |row| {
            let (peer, der) = read::certificate(row)?;
            known_or_malformed(row, (!der.is_empty()).then_some(Row::Certificate(peer, der)))
        }),
        ("csync2_intent", "1", |_| Ok(Row::UnderWay)),
    ];
    let mut chunk = Vec::with_capacity(CHUNK);
    for (table, columns, row_of) in tables {
        if !has_table(connection, table)? {
            continue;
        }
        let mut statement = connection.prepare(&format!("SELECT {columns} FROM {table}"))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            chunk.push(row_of(row)?);
            if chunk.len() == CHUNK && !take(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))) {
                return Ok(());
            }
        }
    }
    take(chunk);
    Ok(())
}

fn contents(connection: &Connection) -> rusqlite::Result<Contents> {
    let mut seen = Seen::default();
    read_within(connection, true, &mut |rows| {
        seen.add(&rows);
        true
    })?;
    Ok(seen.contents)
}
