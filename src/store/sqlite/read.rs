//! The statements that read. Each function is one operation, run by the caller on a reader.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::spelling::{self, HostNames, Range, Spelling, read_host, read_path};
use super::super::{CHUNK, Hint, HintVersion, Intent, IntentId, Known};
use super::values::{Text, borrowed, bytes, number, spelled, spellings};
use crate::model::{
    ActionVersion, Checktxt, DirtyEntry, DirtyVersion, FileRecord, Fingerprint, Fingerprinter, Job, JobFile,
    ScheduledAction, SyncPath, encoding,
};

// The file table.

/// The columns of a record; a table without those of ours has NULL in their place.
pub(super) fn record_columns(extended: bool) -> &'static str {
    if extended {
        "filename, checktxt, mtime_ns, ctime_ns, device, digest"
    } else {
        "filename, checktxt, NULL, NULL, NULL, NULL"
    }
}

/// `None`: the name is malformed.
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Option<FileRecord>> {
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

/// A query over one stretch of names, in order.
pub(super) fn over_range(select: &str, range: &Range, condition: &str) -> String {
    let within = match range {
        Range::All => "1",
        Range::One(_) => "filename IN (?1, ?2)",
        Range::Between(..) => "filename >= ?1 AND filename < ?2",
    };
    format!("{select} WHERE {within}{condition}")
}

/// What stands for ?1 and ?2 there.
pub(super) fn range_parameters(range: &Range) -> Vec<Vec<u8>> {
    match range {
        Range::All => Vec::new(),
        Range::One(name) => {
            let raw = encoding::decode(name);
            vec![name.clone(), Spelling::Bytes.other(&raw).unwrap_or_else(|| name.clone())]
        }
        Range::Between(low, high) => vec![low.clone(), high.clone()],
    }
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

pub(super) fn known(connection: &Connection, paths: &[SyncPath], extended: bool) -> rusqlite::Result<Vec<Known>> {
    let snapshot = connection.unchecked_transaction()?;
    let one = |path: &SyncPath| {
        let name = Range::One(spelling::key(path.as_bytes()));
        let mut marks = dirty(&snapshot, None, &[name], extended)?;
        marks.sort_by(|one, other| one.peer.cmp(&other.peer));
        Ok(Known { record: file(&snapshot, path, extended)?, marks })
    };
    paths.iter().map(one).collect()
}

// The dirty table.

/// Of several ranges as of one moment only if there is a transaction.
pub(super) fn dirty(
    connection: &Connection,
    peer: Option<&str>,
    ranges: &[Range],
    extended: bool,
) -> rusqlite::Result<Vec<DirtyEntry>> {
    let mut entries = Vec::new();
    marks(connection, peer, ranges, extended, CHUNK, &mut |chunk| {
        entries.extend(chunk);
        true
    })?;
    Ok(entries)
}

/// Hands the dirty rows on in chunks, in any order, until no more are wanted.
pub(super) fn marks(
    connection: &Connection,
    peer: Option<&str>,
    ranges: &[Range],
    extended: bool,
    chunk_size: usize,
    take: &mut dyn FnMut(Vec<DirtyEntry>) -> bool,
) -> rusqlite::Result<()> {
    let version = if extended { "version" } else { "0" };
    let select = format!("SELECT filename, forced, myname, peername, {version} FROM dirty");
    let peer = peer.map(|peer| spelled(peer.as_bytes()));
    let (mut chunk, mut names) = (Vec::new(), HostNames::default());
    for range in ranges {
        let mut parameters = range_parameters(range);
        let mut condition = String::new();
        if let Some(peer) = &peer {
            parameters.push(peer.clone());
            condition = format!(" AND peername = ?{}", parameters.len());
        }
        let mut statement = connection.prepare_cached(&over_range(&select, range, &condition))?;
        let mut rows = statement.query(rusqlite::params_from_iter(parameters.iter().map(|text| Text(text))))?;
        while let Some(row) = rows.next()? {
            chunk.extend(dirty_entry(row, &mut names)?);
            if chunk.len() == chunk_size && !take(std::mem::take(&mut chunk)) {
                return Ok(());
            }
        }
    }
    if !chunk.is_empty() {
        take(chunk);
    }
    Ok(())
}

/// `None`: the name is malformed.
pub(super) fn dirty_entry(row: &Row<'_>, names: &mut HostNames) -> rusqlite::Result<Option<DirtyEntry>> {
    let Some(path) = read_path(&bytes(row, 0)?) else { return Ok(None) };
    Ok(Some(DirtyEntry {
        path,
        forced: number(row, 1)? != 0,
        my_name: names.read(&bytes(row, 2)?),
        peer: names.read(&bytes(row, 3)?),
        version: DirtyVersion(number(row, 4)?),
    }))
}

pub(super) fn dirty_peers(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT myname, peername FROM dirty")?;
    statement.query_map([], |row| Ok((read_host(&bytes(row, 0)?), read_host(&bytes(row, 1)?))))?.collect()
}

// Hints, actions, certificates.

pub(super) fn hints(connection: &Connection) -> rusqlite::Result<Vec<Hint>> {
    let mut statement = connection.prepare_cached("SELECT filename, recursive FROM hint")?;
    statement.query_map([], hint)?.collect()
}

pub(super) fn hint(row: &Row<'_>) -> rusqlite::Result<Hint> {
    Ok(Hint { path: encoding::decode(&bytes(row, 0)?), recursive: number(row, 1)? != 0 })
}

pub(super) fn hint_versions(connection: &Connection, hint: &Hint) -> rusqlite::Result<Vec<HintVersion>> {
    let sql = "SELECT version FROM hint WHERE filename = ?1 AND recursive = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut versions = Vec::new();
    for name in spellings(&hint.path) {
        let mut rows = statement.query(params![Text(&name), i64::from(hint.recursive)])?;
        while let Some(row) = rows.next()? {
            versions.push(HintVersion(row.get(0)?));
        }
    }
    Ok(versions)
}

/// `None`: the name is malformed.
pub(super) fn action(row: &Row<'_>) -> rusqlite::Result<Option<ScheduledAction>> {
    let Some(path) = read_path(&bytes(row, 0)?) else { return Ok(None) };
    let [command, logfile] = [bytes(row, 1)?, bytes(row, 2)?].map(|text| encoding::decode(&text));
    Ok(Some(ScheduledAction { path, command, logfile }))
}

pub(super) fn jobs(connection: &Connection) -> rusqlite::Result<Vec<Job>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT command, logfile FROM action")?;
    let job = |row: &Row<'_>| {
        let [command, logfile] = [bytes(row, 0)?, bytes(row, 1)?].map(|text| encoding::decode(&text));
        Ok(Job { command, logfile })
    };
    statement.query_map([], job)?.collect()
}

pub(super) fn job_files(connection: &Connection, job: &Job) -> rusqlite::Result<Vec<JobFile>> {
    let sql = "SELECT filename, version FROM action WHERE command = ?1 AND logfile = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut files = Vec::new();
    for command in spellings(&job.command) {
        for logfile in spellings(&job.logfile) {
            let mut rows = statement.query([Text(&command), Text(&logfile)])?;
            while let Some(row) = rows.next()? {
                let Some(path) = read_path(&bytes(row, 0)?) else { continue };
                files.push(JobFile { path, version: ActionVersion(row.get(1)?) });
            }
        }
    }
    Ok(files)
}

pub(super) fn certificates(connection: &Connection, peer: Option<&str>) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let peer = peer.map(|peer| spelled(peer.as_bytes()));
    let sql = "SELECT peername, certdata FROM x509_cert WHERE ?1 IS NULL OR peername = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map([peer.as_deref().map(Text)], certificate)?.collect()
}

/// Peer and DER; that is empty where the text is no certificate.
pub(super) fn certificate(row: &Row<'_>) -> rusqlite::Result<(String, Vec<u8>)> {
    Ok((read_host(&bytes(row, 0)?), hex::decode(bytes(row, 1)?).unwrap_or_default()))
}

// Intents, notices.

pub(super) fn intents(connection: &Connection, extended: bool) -> rusqlite::Result<Vec<(IntentId, Intent)>> {
    let mut intents = Vec::new();
    if !extended {
        return Ok(intents);
    }
    let sql = "SELECT id, filename, peername, temp_name, target, holder FROM csync2_intent";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(path) = read_path(&bytes(row, 1)?) else { continue };
        let has_target = !matches!(row.get_ref(4)?, ValueRef::Null);
        let target = bytes(row, 4)?;
        let intent = Intent {
            path,
            peer: read_host(&bytes(row, 2)?),
            temp_name: encoding::decode(&bytes(row, 3)?),
            target: has_target.then(|| Checktxt::from_text(&encoding::decode(&target))),
            holder: read_host(&bytes(row, 5)?),
        };
        intents.push((IntentId(row.get(0)?), intent));
    }
    Ok(intents)
}

pub(super) fn remembered(connection: &Connection, about: &str) -> rusqlite::Result<String> {
    let mut statement = connection.prepare_cached("SELECT facts FROM csync2_notice WHERE about = ?1")?;
    let facts = statement.query_row([Text(&spelled(about.as_bytes()))], |row| row.get(0)).optional()?;
    Ok(facts.unwrap_or_default())
}
