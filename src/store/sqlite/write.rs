//! The statements that write. Each function is one operation, run by the caller within one transaction.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Statement, ToSql, params};

use super::super::spelling::{Range, Spelling, read_host, read_path};
use super::super::{Change, Claim, Hint, HintVersion, Intent, IntentId, Receipt};
use super::read::{certificates, intents, over_range, range_parameters, remembered};
use super::values::{Text, bytes, spelled, spellings};
use crate::model::{ActionVersion, Checktxt, DirtyEntry, FileRecord, Mark, ScheduledAction, SyncPath, encoding};

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
    let [name, checktxt] = [path.as_bytes(), checktxt.as_bytes()].map(spelled);
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
    let peer = spelled(mark.peer.as_bytes());
    if Spelling::Bytes.other(mark.path.as_bytes()).is_some() {
        remove_mark(connection, &mark.path, &mark.peer)?;
    }
    let (name, my_name) = (spelled(mark.path.as_bytes()), spelled(mark.my_name.as_bytes()));
    statement.execute(params![Text(&name), i64::from(mark.forced), Text(&my_name), Text(&peer), versions.next()])?;
    Ok(())
}

fn remove_mark(connection: &Connection, path: &SyncPath, peer: &str) -> rusqlite::Result<u64> {
    let peer = spelled(peer.as_bytes());
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

pub(super) fn clear(connection: &Connection, entries: &[DirtyEntry]) -> rusqlite::Result<u64> {
    let sql = "DELETE FROM dirty WHERE filename = ?1 AND peername = ?2 AND version = ?3";
    let remove = |entry: &DirtyEntry| {
        let peer = spelled(entry.peer.as_bytes());
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

pub(super) fn add_hints(connection: &Connection, hints: &[Hint]) -> rusqlite::Result<()> {
    // A trigger replaces the row that is there.
    let mut statement = connection.prepare_cached("INSERT INTO hint (filename, recursive) VALUES (?1, ?2)")?;
    for hint in hints {
        statement.execute(params![Text(&spelled(&hint.path)), i64::from(hint.recursive)])?;
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
        let [name, command, logfile] = [action.path.as_bytes(), &action.command, &action.logfile].map(spelled);
        statement.execute([Text(&name), Text(&command), Text(&logfile)])?;
    }
    Ok(())
}

pub(super) fn remove_actions(connection: &Connection, versions: &[ActionVersion]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("DELETE FROM action WHERE version = ?1")?;
    versions.iter().map(|version| statement.execute([version.0]).map(|removed| removed as u64)).sum()
}

pub(super) fn pin(connection: &Connection, peer: &str, der: &[u8]) -> rusqlite::Result<Vec<u8>> {
    let name = spelled(peer.as_bytes());
    let sql = "INSERT OR IGNORE INTO x509_cert (peername, certdata) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![Text(&name), hex::encode_upper(der)])?;
    let pinned = certificates(connection, Some(peer))?;
    Ok(pinned.into_iter().next().map(|(_, der)| der).unwrap_or_default())
}

pub(super) fn unpin(connection: &Connection, peer: &str) -> rusqlite::Result<bool> {
    let name = spelled(peer.as_bytes());
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
        [intent.path.as_bytes(), intent.peer.as_bytes(), &intent.temp_name, intent.holder.as_bytes()].map(spelled);
    let target = intent.target.as_ref().map(|target| spelled(target.as_bytes()));
    let target = target.as_deref().map(Text);
    let parameters = params![Text(&name), Text(&peer), Text(&temp_name), target, Text(&holder)];
    connection.prepare_cached(sql)?.execute(parameters)?;
    Ok(IntentId(connection.last_insert_rowid()))
}

pub(super) fn remove_intents(connection: &Connection, ids: &[IntentId]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM csync2_intent WHERE id = ?1")?;
    ids.iter().try_for_each(|id| statement.execute([id.0]).map(drop))
}

// Claims.

pub(super) fn claim(connection: &Connection, claim: &Claim) -> rusqlite::Result<String> {
    let [subject, holder] = [&claim.subject, &claim.holder].map(|text| spelled(text.as_bytes()));
    let take = "INSERT INTO csync2_claim (peername, holder, expires) VALUES (?1, ?2, ?3) \
                ON CONFLICT (peername) DO UPDATE SET holder = excluded.holder, expires = excluded.expires \
                WHERE csync2_claim.holder = excluded.holder OR csync2_claim.expires < ?4";
    connection.prepare_cached(take)?.execute(params![Text(&subject), Text(&holder), claim.expires, claim.now])?;
    let mut statement = connection.prepare_cached("SELECT holder FROM csync2_claim WHERE peername = ?1")?;
    statement.query_row([Text(&subject)], |row| Ok(read_host(&bytes(row, 0)?)))
}

pub(super) fn release(connection: &Connection, subject: &str, holder: &str) -> rusqlite::Result<()> {
    let [subject, holder] = [subject, holder].map(|text| spelled(text.as_bytes()));
    let mut statement = connection.prepare_cached("DELETE FROM csync2_claim WHERE peername = ?1 AND holder = ?2")?;
    statement.execute(params![Text(&subject), Text(&holder)]).map(drop)
}

// Notices.

pub(super) fn remember(connection: &Connection, about: &str, facts: &str) -> rusqlite::Result<String> {
    let before = remembered(connection, about)?;
    let sql = "INSERT OR REPLACE INTO csync2_notice (about, facts) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![Text(&spelled(about.as_bytes())), facts])?;
    Ok(before)
}
