//! The statements. Each function is one operation, run by the caller within one transaction (writing) or on a reader.
//!
//! Text goes in and out as bytes: the C program's rows may hold bytes that are no UTF-8. A name is looked up under its
//! spelling here first, and where that is another one, as `%XX` too.

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Statement, ToSql, Transaction, params};

use super::super::spelling::{self, HostNames, Range, Spelling, read_host, read_path};
use super::super::{Change, Claim, Hint, HintVersion, Intent, IntentId, Known, Receipt};
use crate::model::{
    ActionVersion, Checktxt, DirtyEntry, DirtyVersion, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark,
    ScheduledAction, SyncPath, encoding,
};

/// A text that need not be UTF-8.
pub(super) struct Text<'t>(pub(super) &'t [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// A column's bytes, whatever its type: the C program's columns have none.
pub(super) fn bytes(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<u8>> {
    borrowed(row, index).map(Cow::into_owned)
}

fn borrowed<'r>(row: &'r Row<'_>, index: usize) -> rusqlite::Result<Cow<'r, [u8]>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.into(),
        ValueRef::Integer(number) => number.to_string().into_bytes().into(),
        ValueRef::Real(number) => number.to_string().into_bytes().into(),
        ValueRef::Null => Cow::default(),
    })
}

/// A column of the C program that holds a number.
fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<i64> {
    Ok(std::str::from_utf8(&bytes(row, index)?).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

fn write(raw: &[u8]) -> Vec<u8> {
    Spelling::Bytes.write(raw)
}

/// The texts under which a name's rows may stand, ours first.
fn spellings(raw: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::once(write(raw)).chain(Spelling::Bytes.other(raw))
}

/// Removes every row with this name, under any spelling. `sql` has the name as its first parameter.
fn remove_named(connection: &Connection, sql: &str, raw: &[u8], more: &[&dyn ToSql]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut removed = 0;
    for name in spellings(raw) {
        let name = Text(&name);
        let parameters: Vec<&dyn ToSql> = std::iter::once(&name as &dyn ToSql).chain(more.iter().copied()).collect();
        removed += statement.execute(parameters.as_slice())?;
    }
    Ok(removed as u64)
}

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
fn over_range(select: &str, range: &Range, condition: &str) -> String {
    let within = match range {
        Range::All => "1",
        Range::One(_) => "filename IN (?1, ?2)",
        Range::Between(..) => "filename >= ?1 AND filename < ?2",
    };
    format!("{select} WHERE {within}{condition}")
}

/// What stands for ?1 and ?2 there.
fn range_parameters(range: &Range) -> Vec<Vec<u8>> {
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
        let mut marks = marks_within(&snapshot, None, &[name], extended)?;
        marks.sort_by(|one, other| one.peer.cmp(&other.peer));
        Ok(Known { record: file(&snapshot, path, extended)?, marks })
    };
    paths.iter().map(one).collect()
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

/// Adds rows where there are none.
pub(super) fn add_files(connection: &Connection, records: &[FileRecord]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("INSERT OR IGNORE {FILE_ROW}"))?;
    records.iter().try_for_each(|record| execute_file(&mut statement, record).map(drop))
}

/// Makes the row of a file what `record` says.
fn set_file(connection: &Connection, path: &SyncPath, record: Option<&FileRecord>) -> rusqlite::Result<()> {
    let Some(record) = record else {
        return remove_file(connection, path).map(drop);
    };
    if Spelling::Bytes.other(path.as_bytes()).is_some() {
        remove_file(connection, path)?;
    }
    let mut statement = connection.prepare_cached(&format!("INSERT OR REPLACE {FILE_ROW}"))?;
    execute_file(&mut statement, record).map(drop)
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

// The dirty table.

/// Versions for the rows about to be written.
struct Versions(i64);

impl Versions {
    /// Takes `count` of them from the counter.
    fn reserve(connection: &Connection, count: usize) -> rusqlite::Result<Self> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let sql = "UPDATE csync2_version SET value = value + ?1 RETURNING value";
        let last: i64 = connection.prepare_cached(sql)?.query_row([count], |row| row.get(0))?;
        Ok(Self(last - count))
    }

    fn next(&mut self) -> i64 {
        self.0 += 1;
        self.0
    }
}

const SET_MARK: &str =
    "INSERT OR REPLACE INTO dirty (filename, forced, myname, peername, version) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Writes a row; `statement` is [`SET_MARK`].
fn set_mark(
    connection: &Connection,
    statement: &mut Statement<'_>,
    mark: &Mark,
    versions: &mut Versions,
) -> rusqlite::Result<()> {
    let peer = write(mark.peer.as_bytes());
    if Spelling::Bytes.other(mark.path.as_bytes()).is_some() {
        remove_mark(connection, &mark.path, &mark.peer)?;
    }
    let (name, my_name) = (write(mark.path.as_bytes()), write(mark.my_name.as_bytes()));
    statement.execute(params![Text(&name), i64::from(mark.forced), Text(&my_name), Text(&peer), versions.next()])?;
    Ok(())
}

fn remove_mark(connection: &Connection, path: &SyncPath, peer: &str) -> rusqlite::Result<u64> {
    let peer = write(peer.as_bytes());
    let sql = "DELETE FROM dirty WHERE filename = ?1 AND peername = ?2";
    remove_named(connection, sql, path.as_bytes(), &[&Text(&peer)])
}

pub(super) fn mark(connection: &Connection, marks: &[Mark], actions: &[ScheduledAction]) -> rusqlite::Result<()> {
    let mut versions = Versions::reserve(connection, marks.len())?;
    let mut statement = connection.prepare_cached(SET_MARK)?;
    for mark in marks {
        set_mark(connection, &mut statement, mark, &mut versions)?;
    }
    schedule(connection, actions)
}

pub(super) fn dirty(
    connection: &Connection,
    peer: Option<&str>,
    ranges: &[Range],
    extended: bool,
) -> rusqlite::Result<Vec<DirtyEntry>> {
    marks_within(&connection.unchecked_transaction()?, peer, ranges, extended)
}

fn marks_within(
    snapshot: &Transaction<'_>,
    peer: Option<&str>,
    ranges: &[Range],
    extended: bool,
) -> rusqlite::Result<Vec<DirtyEntry>> {
    let version = if extended { "version" } else { "0" };
    let select = format!("SELECT filename, forced, myname, peername, {version} FROM dirty");
    let peer = peer.map(|peer| write(peer.as_bytes()));
    let (mut entries, mut names) = (Vec::new(), HostNames::default());
    for range in ranges {
        let mut parameters = range_parameters(range);
        let mut condition = String::new();
        if let Some(peer) = &peer {
            parameters.push(peer.clone());
            condition = format!(" AND peername = ?{}", parameters.len());
        }
        let mut statement = snapshot.prepare_cached(&over_range(&select, range, &condition))?;
        let mut rows = statement.query(rusqlite::params_from_iter(parameters.iter().map(|text| Text(text))))?;
        while let Some(row) = rows.next()? {
            entries.extend(dirty_entry(row, &mut names)?);
        }
    }
    Ok(entries)
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

pub(super) fn clear(connection: &Connection, entries: &[DirtyEntry]) -> rusqlite::Result<u64> {
    let sql = "DELETE FROM dirty WHERE filename = ?1 AND peername = ?2 AND version = ?3";
    let remove = |entry: &DirtyEntry| {
        let peer = write(entry.peer.as_bytes());
        remove_named(connection, sql, entry.path.as_bytes(), &[&Text(&peer), &entry.version.0])
    };
    entries.iter().map(remove).sum()
}

pub(super) fn flush(connection: &Connection, path: &SyncPath) -> rusqlite::Result<()> {
    remove_named(connection, "DELETE FROM dirty WHERE filename = ?1", path.as_bytes(), &[]).map(drop)
}

pub(super) fn force(connection: &Connection, ranges: &[Range]) -> rusqlite::Result<u64> {
    let mut forced = 0;
    for range in ranges {
        let mut statement = connection.prepare_cached(&over_range("UPDATE dirty SET forced = 1", range, ""))?;
        let parameters = range_parameters(range);
        forced += statement.execute(rusqlite::params_from_iter(parameters.iter().map(|text| Text(text))))? as u64;
    }
    Ok(forced)
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

pub(super) fn add_hints(connection: &Connection, hints: &[Hint]) -> rusqlite::Result<()> {
    // A trigger replaces the row that is there.
    let mut statement = connection.prepare_cached("INSERT INTO hint (filename, recursive) VALUES (?1, ?2)")?;
    for hint in hints {
        statement.execute(params![Text(&write(&hint.path)), i64::from(hint.recursive)])?;
    }
    Ok(())
}

pub(super) fn remove_hints(connection: &Connection, versions: &[HintVersion]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("DELETE FROM hint WHERE version = ?1")?;
    let removed: rusqlite::Result<usize> = versions.iter().map(|version| statement.execute([version.0])).sum();
    Ok(removed? as u64)
}

fn schedule(connection: &Connection, actions: &[ScheduledAction]) -> rusqlite::Result<()> {
    // A trigger replaces the row that is there.
    let sql = "INSERT INTO action (filename, command, logfile) VALUES (?1, ?2, ?3)";
    let mut statement = connection.prepare_cached(sql)?;
    for action in actions {
        let [name, command, logfile] = [action.path.as_bytes(), &action.command, &action.logfile].map(write);
        statement.execute([Text(&name), Text(&command), Text(&logfile)])?;
    }
    Ok(())
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

pub(super) fn remove_actions(connection: &Connection, versions: &[ActionVersion]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("DELETE FROM action WHERE version = ?1")?;
    versions.iter().map(|version| statement.execute([version.0]).map(|removed| removed as u64)).sum()
}

pub(super) fn certificates(connection: &Connection, peer: Option<&str>) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let peer = peer.map(|peer| write(peer.as_bytes()));
    let sql = "SELECT peername, certdata FROM x509_cert WHERE ?1 IS NULL OR peername = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map([peer.as_deref().map(Text)], certificate)?.collect()
}

/// Peer and DER; that is empty where the text is no certificate.
pub(super) fn certificate(row: &Row<'_>) -> rusqlite::Result<(String, Vec<u8>)> {
    Ok((read_host(&bytes(row, 0)?), hex::decode(bytes(row, 1)?).unwrap_or_default()))
}

pub(super) fn pin(connection: &Connection, peer: &str, der: &[u8]) -> rusqlite::Result<Vec<u8>> {
    let name = write(peer.as_bytes());
    let sql = "INSERT OR IGNORE INTO x509_cert (peername, certdata) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![Text(&name), hex::encode_upper(der)])?;
    let pinned = certificates(connection, Some(peer))?;
    Ok(pinned.into_iter().next().map(|(_, der)| der).unwrap_or_default())
}

pub(super) fn unpin(connection: &Connection, peer: &str) -> rusqlite::Result<bool> {
    let name = write(peer.as_bytes());
    Ok(connection.execute("DELETE FROM x509_cert WHERE peername = ?1", [Text(&name)])? > 0)
}

// Receiving.

pub(super) fn next_receives(
    connection: &Connection,
    receipts: &[(Option<IntentId>, Receipt)],
    intents: &[Intent],
) -> rusqlite::Result<Vec<IntentId>> {
    for (id, receipt) in receipts {
        set_file(connection, &receipt.path, receipt.record.as_ref())?;
        remove_mark(connection, &receipt.path, &receipt.sender)?;
        schedule(connection, &receipt.actions)?;
        remove_intents(connection, id.as_slice())?;
    }
    intents.iter().map(|intent| add_intent(connection, intent)).collect()
}

fn add_intent(connection: &Connection, intent: &Intent) -> rusqlite::Result<IntentId> {
    let sql = "INSERT INTO csync2_intent (filename, peername, temp_name, target, holder) VALUES (?1, ?2, ?3, ?4, ?5)";
    let [name, peer, temp_name, holder] =
        [intent.path.as_bytes(), intent.peer.as_bytes(), &intent.temp_name, intent.holder.as_bytes()].map(write);
    let target = intent.target.as_ref().map(|target| write(target.as_bytes()));
    let target = target.as_deref().map(Text);
    let parameters = params![Text(&name), Text(&peer), Text(&temp_name), target, Text(&holder)];
    connection.prepare_cached(sql)?.execute(parameters)?;
    Ok(IntentId(connection.last_insert_rowid()))
}

pub(super) fn remove_intents(connection: &Connection, ids: &[IntentId]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM csync2_intent WHERE id = ?1")?;
    ids.iter().try_for_each(|id| statement.execute([id.0]).map(drop))
}

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

// Claims.

pub(super) fn claim(connection: &Connection, claim: &Claim) -> rusqlite::Result<String> {
    let [subject, holder] = [&claim.subject, &claim.holder].map(|text| write(text.as_bytes()));
    let take = "INSERT INTO csync2_claim (peername, holder, expires) VALUES (?1, ?2, ?3) \
                ON CONFLICT (peername) DO UPDATE SET holder = excluded.holder, expires = excluded.expires \
                WHERE csync2_claim.holder = excluded.holder OR csync2_claim.expires < ?4";
    connection.prepare_cached(take)?.execute(params![Text(&subject), Text(&holder), claim.expires, claim.now])?;
    let mut statement = connection.prepare_cached("SELECT holder FROM csync2_claim WHERE peername = ?1")?;
    statement.query_row([Text(&subject)], |row| Ok(read_host(&bytes(row, 0)?)))
}

pub(super) fn release(connection: &Connection, subject: &str, holder: &str) -> rusqlite::Result<()> {
    let [subject, holder] = [subject, holder].map(|text| write(text.as_bytes()));
    let mut statement = connection.prepare_cached("DELETE FROM csync2_claim WHERE peername = ?1 AND holder = ?2")?;
    statement.execute(params![Text(&subject), Text(&holder)]).map(drop)
}

// Notices.

pub(super) fn remembered(connection: &Connection, about: &str) -> rusqlite::Result<String> {
    let mut statement = connection.prepare_cached("SELECT facts FROM csync2_notice WHERE about = ?1")?;
    let facts = statement.query_row([Text(&write(about.as_bytes()))], |row| row.get(0)).optional()?;
    Ok(facts.unwrap_or_default())
}

pub(super) fn remember(connection: &Connection, about: &str, facts: &str) -> rusqlite::Result<String> {
    let before = remembered(connection, about)?;
    let sql = "INSERT OR REPLACE INTO csync2_notice (about, facts) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![Text(&write(about.as_bytes())), facts])?;
    Ok(before)
}
