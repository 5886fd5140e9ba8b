//! What is recorded of runs and sessions, and how the state stands: see [`super::super::history`].

use std::collections::HashMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::history::{Moments, Record, SET_PEER, SET_RUN, THIN_MARKINGS, add, nothing_for, size_in};
use super::super::spelling::read_host;
use super::transfer::has_table;
use super::values::{Text, bytes, spelled};
use crate::model::{End, Figures, Past, PastRun, Pending, Session, Standing};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS csync2_peer (
    peername TEXT PRIMARY KEY, ended INTEGER NOT NULL, succeeded INTEGER, failed INTEGER, error TEXT, dialect TEXT,
    address TEXT, milliseconds INTEGER NOT NULL, sent INTEGER NOT NULL, removed INTEGER NOT NULL, equal INTEGER NOT NULL,
    refused INTEGER NOT NULL, bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS csync2_run (
    mode TEXT PRIMARY KEY, ended INTEGER NOT NULL, milliseconds INTEGER NOT NULL, errors INTEGER NOT NULL,
    checked INTEGER NOT NULL, marked INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS csync2_marking (minute INTEGER PRIMARY KEY, at INTEGER NOT NULL, version INTEGER NOT NULL);
";

pub(super) fn record(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    if !has_table(connection, "csync2_marking")? {
        connection.execute_batch(TABLES)?;
    }
    match record {
        Record::Session(session) => record_session(connection, session),
        Record::Run(run) => record_run(connection, run),
        Record::Marking(now) => record_marking(connection, *now),
    }
}

fn record_session(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    let Session { peer, at, milliseconds, end, dialect, address, figures } = session;
    let Figures { sent, removed, equal, refused, bytes } = *figures;
    let write = |text: &str| spelled(text.as_bytes());
    let (peer, error) = (write(peer), if let End::Badly(error) = end { Some(write(error)) } else { None });
    let [dialect, address] = [dialect, address].map(|text| text.as_deref().map(write));
    connection.prepare_cached(SET_PEER)?.execute(params![
        Text(&peer),
        at,
        (*end == End::Well).then_some(at),
        error.is_some().then_some(at),
        error.as_deref().map(Text),
        dialect.as_deref().map(Text),
        address.as_deref().map(Text),
        milliseconds.cast_signed(),
        sent.cast_signed(),
        removed.cast_signed(),
        equal.cast_signed(),
        refused.cast_signed(),
        bytes.cast_signed(),
    ])?;
    Ok(())
}

fn record_run(connection: &Connection, run: &PastRun) -> rusqlite::Result<()> {
    let PastRun { mode, at, milliseconds, errors, checked, marked } = run;
    let numbers = [*milliseconds, *errors, *checked, *marked].map(u64::cast_signed);
    connection.prepare_cached(SET_RUN)?.execute(params![mode, at, numbers[0], numbers[1], numbers[2], numbers[3]])?;
    Ok(())
}

fn record_marking(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO csync2_marking SELECT ?1 / 60, ?1, value FROM csync2_version WHERE true \
         ON CONFLICT (minute) DO UPDATE SET version = max(version, excluded.version)";
    connection.prepare_cached(sql)?.execute([now])?;
    connection.prepare_cached(THIN_MARKINGS)?.execute([now])?;
    Ok(())
}

/// How the state stands, as one snapshot. `extended`: whether the tables have columns of ours.
pub(super) fn standing(connection: &Connection, extended: bool) -> rusqlite::Result<(Standing, Moments)> {
    let snapshot = connection.unchecked_transaction()?;
    let count = |table: &str| {
        if !has_table(&snapshot, table)? {
            return Ok(0);
        }
        snapshot
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
    };
    let mut standing = Standing {
        pending: pending(&snapshot, extended)?,
        hints: count("hint")?,
        actions: count("action")?,
        ..Standing::default()
    };
    if extended {
        let mut holders = snapshot.prepare("SELECT holder FROM csync2_intent")?;
        standing.intents = holders.query_map([], |row| Ok(read_host(&bytes(row, 0)?)))?.collect::<Result<_, _>>()?;
    }
    let mut moments = Moments::default();
    if has_table(&snapshot, "csync2_marking")? {
        let mut peers = snapshot.prepare("SELECT * FROM csync2_peer")?;
        standing.past = peers.query_map([], past)?.collect::<Result<_, _>>()?;
        let mut runs = snapshot.prepare("SELECT * FROM csync2_run")?;
        standing.runs = runs.query_map([], run)?.collect::<Result<_, _>>()?;
        let mut markings = snapshot.prepare("SELECT version, at FROM csync2_marking ORDER BY version")?;
        moments.0 = markings.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    }
    Ok((standing, moments))
}

/// One pass over the dirty table as it lies on the disk. Marks of one file for several peers are written together: its size
/// is looked up once for them.
fn pending(connection: &Connection, extended: bool) -> rusqlite::Result<Vec<Pending>> {
    if !has_table(connection, "dirty")? {
        return Ok(Vec::new());
    }
    let version = if extended { "version" } else { "0" };
    let mut marks =
        connection.prepare(&format!("SELECT filename, peername, forced, {version} FROM dirty NOT INDEXED"))?;
    let mut file = connection.prepare("SELECT checktxt FROM file WHERE filename = ?1")?;
    let (mut name, mut size) = (None, 0);
    let mut pending: HashMap<Vec<u8>, Pending> = HashMap::new();
    let mut rows = marks.query([])?;
    while let Some(row) = rows.next()? {
        let (marked, peer) = (row.get_ref(0)?, row.get_ref(1)?);
        let (marked, peer) = (text(&marked), text(&peer));
        if name.as_deref() != Some(marked) {
            let found = file.query_row([Text(marked)], |row| Ok(size_in(text(&row.get_ref(0)?)))).optional()?;
            (name, size) = (Some(marked.to_owned()), found.unwrap_or(0));
        }
        let forced = !matches!(row.get_ref(2)?, ValueRef::Integer(0) | ValueRef::Text(b"0"));
        let version: Option<i64> = row.get(3)?;
        let pending = match pending.get_mut(peer) {
            Some(pending) => pending,
            None => pending.entry(peer.to_owned()).or_insert_with(|| nothing_for(read_host(peer))),
        };
        add(pending, version.unwrap_or(0), forced, size);
    }
    Ok(pending.into_values().collect())
}

fn text<'r>(value: &ValueRef<'r>) -> &'r [u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => b"",
    }
}

fn past(row: &Row<'_>) -> rusqlite::Result<Past> {
    let words = |index| {
        let is_null = matches!(row.get_ref(index)?, ValueRef::Null);
        Ok::<_, rusqlite::Error>(if is_null { None } else { Some(read_host(&bytes(row, index)?)) })
    };
    let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
    Ok(Past {
        peer: read_host(&bytes(row, 0)?),
        ended: row.get(1)?,
        succeeded: row.get(2)?,
        failed: row.get(3)?,
        error: words(4)?,
        dialect: words(5)?,
        address: words(6)?,
        milliseconds: number(7)?,
        figures: Figures {
            sent: number(8)?,
            removed: number(9)?,
            equal: number(10)?,
            refused: number(11)?,
            bytes: number(12)?,
        },
    })
}

fn run(row: &Row<'_>) -> rusqlite::Result<PastRun> {
    let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
    Ok(PastRun {
        mode: row.get(0)?,
        at: row.get(1)?,
        milliseconds: number(2)?,
        errors: number(3)?,
        checked: number(4)?,
        marked: number(5)?,
    })
}
