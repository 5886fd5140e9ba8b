//! The statements that write. Rows travel as one array for each column, whatever their number.
//!
//! Statements that do not depend on each other's results are sent together.

use std::collections::HashSet;
use std::pin::pin;

use deadpool_postgres::{GenericClient, Object, Transaction};
use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::super::spelling::{Range, Spelling, read_host, read_path};
use super::super::{Change, Claim, Hint, HintVersion};
use super::Answer;
use super::read;
use super::together;
use super::values::{NameDigest, Text, name_key, text};
use crate::model::{ActionVersion, DirtyEntry, FileRecord, Mark, ScheduledAction, SyncPath};

pub(super) type Parameters<'p> = [&'p (dyn ToSql + Sync)];

pub(super) async fn execute(client: &impl GenericClient, sql: &str, parameters: &Parameters<'_>) -> Answer<u64> {
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, parameters).await
}

/// Runs a statement that returns digests.
async fn digests(client: &impl GenericClient, sql: &str, parameters: &Parameters<'_>) -> Answer<Vec<NameDigest>> {
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, parameters).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

// The file table.

/// Rows of the file table, column by column.
#[derive(Default)]
pub(super) struct FileRows<'r> {
    names: Vec<Text>,
    checktxts: Vec<Text>,
    keys: Vec<Vec<u8>>,
    pub(super) digests: Vec<NameDigest>,
    mtimes: Vec<Option<i64>>,
    ctimes: Vec<Option<i64>>,
    devices: Vec<Option<i64>>,
    contents: Vec<Option<&'r [u8]>>,
    /// What the old rows must say, in either spelling.
    expected: Vec<Text>,
    expected_otherwise: Vec<Text>,
}

impl<'r> FileRows<'r> {
    pub(super) fn push(&mut self, spelling: Spelling, path: &SyncPath, record: &'r FileRecord, digest: NameDigest) {
        self.names.push(Text(spelling.write(path.as_bytes())));
        self.checktxts.push(Text(spelling.write(record.checktxt.as_bytes())));
        self.keys.push(name_key(path.as_bytes()));
        self.digests.push(digest);
        self.mtimes.push(record.mtime_ns);
        self.ctimes.push(record.ctime_ns);
        self.devices.push(record.device);
        self.contents.push(record.digest.as_ref().map(<[u8; 32]>::as_slice));
    }

    fn expect(&mut self, spelling: Spelling, checktxt: &[u8]) {
        let text = spelling.write(checktxt);
        self.expected_otherwise.push(Text(spelling.other(checktxt).unwrap_or_else(|| text.clone())));
        self.expected.push(Text(text));
    }

    /// The columns, in the order of [`INSERT_FILES`].
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 8] {
        let Self { names, checktxts, keys, digests, mtimes, ctimes, devices, contents, .. } = self;
        [names, checktxts, keys, digests, mtimes, ctimes, devices, contents]
    }
}

pub(super) const INSERT_FILES: &str = "INSERT INTO file (filename, checktxt, name_key, name_digest, mtime_ns, ctime_ns, device, digest) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::bytea[]) ON CONFLICT (name_digest)";

const UPDATE_FILES: &str = "UPDATE file SET filename = n.filename, checktxt = n.checktxt, mtime_ns = n.mtime_ns, \
     ctime_ns = n.ctime_ns, device = n.device, digest = n.digest \
     FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::bytea[], $9::text[], $10::text[]) AS n (filename, checktxt, name_key, name_digest, mtime_ns, ctime_ns, device, \
     digest, expected, expected_otherwise) \
     WHERE file.name_digest = n.name_digest AND file.checktxt IN (n.expected, n.expected_otherwise) \
     RETURNING file.name_digest";

const DELETE_FILES: &str = "DELETE FROM file USING unnest($1::bytea[], $2::text[], $3::text[]) \
     AS n (name_digest, expected, expected_otherwise) \
     WHERE file.name_digest = n.name_digest AND file.checktxt IN (n.expected, n.expected_otherwise) \
     RETURNING file.name_digest";

/// Adds rows where there are none.
pub(super) async fn add_files(transaction: &Transaction<'_>, spelling: Spelling, records: &[FileRecord]) -> Answer<()> {
    let mut rows = FileRows::default();
    for record in records {
        rows.push(spelling, &record.path, record, NameDigest::of(record.path.as_bytes()));
    }
    execute(transaction, &format!("{INSERT_FILES} DO NOTHING"), &rows.parameters()).await.map(drop)
}

pub(super) async fn apply(
    transaction: &Transaction<'_>,
    spelling: Spelling,
    changes: &[Change],
) -> Answer<Vec<SyncPath>> {
    let (mut new, mut replaced, mut gone) = (FileRows::default(), FileRows::default(), FileRows::default());
    let mut absent = Vec::new();
    let receiving = receiving(transaction).await?;
    let (busy, changes): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| receiving.contains(&change.path));
    let named: Vec<(NameDigest, &Change)> =
        changes.into_iter().map(|change| (NameDigest::of(change.path.as_bytes()), change)).collect();
    for &(digest, change) in &named {
        match (&change.expected, &change.record) {
            (None, None) => absent.push(digest),
            (None, Some(record)) => new.push(spelling, &change.path, record, digest),
            (Some(expected), Some(record)) => {
                replaced.push(spelling, &change.path, record, digest);
                replaced.expect(spelling, expected.as_bytes());
            }
            (Some(expected), None) => {
                gone.digests.push(digest);
                gone.expect(spelling, expected.as_bytes());
            }
        }
    }
    let insert = format!("{INSERT_FILES} DO NOTHING RETURNING name_digest");
    let new_parameters = new.parameters();
    let mut replaced_parameters = replaced.parameters().to_vec();
    replaced_parameters.extend([&replaced.expected as &(dyn ToSql + Sync), &replaced.expected_otherwise]);
    let gone_parameters: [&(dyn ToSql + Sync); 3] = [&gone.digests, &gone.expected, &gone.expected_otherwise];
    let absent_parameters: [&(dyn ToSql + Sync); 1] = [&absent];
    let some = |count: usize, sql, parameters| async move {
        if count == 0 { Ok(Vec::new()) } else { digests(transaction, sql, parameters).await }
    };
    let writing = [
        some(new.digests.len(), insert.as_str(), &new_parameters[..]),
        some(replaced.digests.len(), UPDATE_FILES, &replaced_parameters[..]),
        some(gone.digests.len(), DELETE_FILES, &gone_parameters[..]),
    ];
    let (written, present) = together::both(
        together::all(writing.into_iter()),
        some(
            absent.len(),
            "SELECT name_digest FROM file WHERE name_digest = ANY ($1::bytea[])",
            &absent_parameters[..],
        ),
    )
    .await?;
    let written: HashSet<NameDigest> = written.into_iter().flatten().collect();
    let present: HashSet<NameDigest> = present.into_iter().collect();
    let as_expected = |&&(digest, change): &&(NameDigest, &Change)| {
        let unknown = change.expected.is_none() && change.record.is_none();
        if unknown { !present.contains(&digest) } else { written.contains(&digest) }
    };
    let (done, stale): (Vec<_>, Vec<_>) = named.iter().partition(as_expected);
    let marks = done.iter().flat_map(|(_, change)| &change.marks);
    let actions = done.iter().flat_map(|(_, change)| &change.actions);
    together::both(set_marks(transaction, spelling, marks), schedule(transaction, spelling, actions)).await?;
    let stale = stale.into_iter().map(|(_, change)| change.path.clone());
    Ok(stale.chain(busy.into_iter().map(|change| change.path.clone())).collect())
}

/// Files that sessions are receiving: what is on disk and what their rows say may differ for a moment.
async fn receiving(transaction: &Transaction<'_>) -> Answer<HashSet<SyncPath>> {
    let statement = transaction.prepare_cached("SELECT filename FROM csync2_intent").await?;
    let rows = transaction.query(&statement, &[]).await?;
    let paths = rows.iter().map(|row| Ok(read_path(text(row, 0)?)));
    paths.filter_map(Result::transpose).collect()
}

pub(super) async fn remove_files(client: &Object, paths: &[SyncPath]) -> Answer<u64> {
    let digests: Vec<NameDigest> = paths.iter().map(|path| NameDigest::of(path.as_bytes())).collect();
    execute(client, "DELETE FROM file WHERE name_digest = ANY ($1::bytea[])", &[&digests]).await
}

pub(super) async fn remove_malformed(client: &Object) -> Answer<u64> {
    let mut removed = 0;
    for table in ["file", "dirty"] {
        let mut malformed: Vec<NameDigest> = Vec::new();
        let none: [&(dyn ToSql + Sync); 0] = [];
        let sql = format!("SELECT filename, name_digest FROM {table}");
        let mut rows = pin!(client.query_raw(&sql, none).await?);
        while let Some(row) = rows.try_next().await? {
            if read_path(text(&row, 0)?).is_none() {
                malformed.push(row.try_get(1)?);
            }
        }
        let sql = format!("DELETE FROM {table} WHERE name_digest = ANY ($1::bytea[])");
        removed += execute(client, &sql, &[&malformed]).await?;
    }
    Ok(removed)
}

// The dirty table. Statements that touch many rows lock them in the order of names and peers, the order in which marks
// are written: two of them never wait for each other.

const REPLACE_MARKS: &str = "INSERT INTO dirty (filename, forced, myname, peername, name_key, name_digest) \
     SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::bytea[], $6::bytea[]) \
     ON CONFLICT (name_digest, peername) DO UPDATE SET filename = excluded.filename, forced = excluded.forced, \
     myname = excluded.myname, version = excluded.version";

async fn set_marks(
    transaction: &Transaction<'_>,
    spelling: Spelling,
    marks: impl Iterator<Item = &Mark>,
) -> Answer<()> {
    let mut rows: Vec<&Mark> = marks.collect();
    if rows.is_empty() {
        return Ok(());
    }
    // One order for everybody: two of us never wait for each other's rows.
    rows.sort_by(|one, other| one.path.cmp(&other.path).then_with(|| one.peer.cmp(&other.peer)));
    // A statement may replace a row but once: the last mark counts.
    rows.reverse();
    rows.dedup_by(|one, other| one.path == other.path && one.peer == other.peer);
    rows.reverse();
    let write = |text: &[u8]| Text(spelling.write(text));
    let names: Vec<Text> = rows.iter().map(|mark| write(mark.path.as_bytes())).collect();
    let forced: Vec<i32> = rows.iter().map(|mark| i32::from(mark.forced)).collect();
    let my_names: Vec<Text> = rows.iter().map(|mark| write(mark.my_name.as_bytes())).collect();
    let peers: Vec<Text> = rows.iter().map(|mark| write(mark.peer.as_bytes())).collect();
    let keys: Vec<Vec<u8>> = rows.iter().map(|mark| name_key(mark.path.as_bytes())).collect();
    let digests: Vec<NameDigest> = rows.iter().map(|mark| NameDigest::of(mark.path.as_bytes())).collect();
    execute(transaction, REPLACE_MARKS, &[&names, &forced, &my_names, &peers, &keys, &digests]).await.map(drop)
}

pub(super) async fn mark(
    transaction: &Transaction<'_>,
    spelling: Spelling,
    marks: &[Mark],
    actions: &[ScheduledAction],
) -> Answer<()> {
    let marking = set_marks(transaction, spelling, marks.iter());
    together::both(marking, schedule(transaction, spelling, actions.iter())).await.map(drop)
}

pub(super) async fn clear(client: &Object, spelling: Spelling, entries: &[DirtyEntry]) -> Answer<u64> {
    let digests: Vec<NameDigest> = entries.iter().map(|entry| NameDigest::of(entry.path.as_bytes())).collect();
    let peers: Vec<Text> = entries.iter().map(|entry| Text(spelling.write(entry.peer.as_bytes()))).collect();
    let versions: Vec<i64> = entries.iter().map(|entry| entry.version.0).collect();
    let sql = "WITH held AS (SELECT d.name_digest, d.peername, d.version FROM dirty d \
               JOIN unnest($1::bytea[], $2::text[], $3::bigint[]) AS n (name_digest, peername, version) \
               ON d.name_digest = n.name_digest AND d.peername = n.peername AND d.version = n.version \
               ORDER BY d.name_key, d.peername COLLATE \"C\" FOR UPDATE OF d) \
               DELETE FROM dirty USING held \
               WHERE dirty.name_digest = held.name_digest AND dirty.peername = held.peername \
               AND dirty.version = held.version";
    execute(client, sql, &[&digests, &peers, &versions]).await
}

pub(super) async fn flush(client: &Object, path: &SyncPath) -> Answer<()> {
    let sql = "DELETE FROM dirty WHERE name_digest = $1";
    execute(client, sql, &[&NameDigest::of(path.as_bytes())]).await.map(drop)
}

pub(super) async fn force(transaction: &Transaction<'_>, spelling: Spelling, ranges: &[Range]) -> Answer<u64> {
    let entries = read::dirty(&**transaction, spelling, None, ranges).await?;
    let digests: Vec<NameDigest> = entries.iter().map(|entry| NameDigest::of(entry.path.as_bytes())).collect();
    let sql = "WITH held AS (SELECT name_digest, peername FROM dirty WHERE name_digest = ANY ($1::bytea[]) \
               ORDER BY name_key, peername COLLATE \"C\" FOR UPDATE) \
               UPDATE dirty SET forced = 1 FROM held \
               WHERE dirty.name_digest = held.name_digest AND dirty.peername = held.peername";
    execute(transaction, sql, &[&digests]).await
}

// Hints, actions, certificates.

pub(super) async fn add_hints(client: &impl GenericClient, spelling: Spelling, hints: &[Hint]) -> Answer<()> {
    let (names, recursive): (Vec<Text>, Vec<i32>) =
        hints.iter().map(|hint| (Text(spelling.write(&hint.path)), i32::from(hint.recursive))).unzip();
    // A trigger replaces those that are there, in one order for everybody.
    let sql = "INSERT INTO hint (filename, recursive) \
               SELECT DISTINCT * FROM unnest($1::text[], $2::integer[]) AS n (filename, recursive) ORDER BY 1, 2";
    execute(client, sql, &[&names, &recursive]).await.map(drop)
}

pub(super) async fn remove_hints(client: &Object, versions: &[HintVersion]) -> Answer<u64> {
    let versions: Vec<i64> = versions.iter().map(|version| version.0).collect();
    execute(client, "DELETE FROM hint WHERE version = ANY ($1::bigint[])", &[&versions]).await
}

/// A trigger replaces those that are there.
pub(super) const ADD_ACTIONS: &str = "INSERT INTO action (filename, command, logfile) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[])";

/// Rows of the action table, column by column.
pub(super) struct ActionRows {
    pub(super) names: Vec<Text>,
    commands: Vec<Text>,
    logfiles: Vec<Text>,
}

impl ActionRows {
    pub(super) fn of<'a>(spelling: Spelling, actions: impl Iterator<Item = &'a ScheduledAction>) -> Self {
        let mut actions: Vec<&ScheduledAction> = actions.collect();
        // One order for everybody, as for marks.
        actions.sort_by(|one, other| (&one.path, &one.command).cmp(&(&other.path, &other.command)));
        let write = |raw: &[u8]| Text(spelling.write(raw));
        Self {
            names: actions.iter().map(|action| write(action.path.as_bytes())).collect(),
            commands: actions.iter().map(|action| write(&action.command)).collect(),
            logfiles: actions.iter().map(|action| write(&action.logfile)).collect(),
        }
    }

    /// The columns, in the order of [`ADD_ACTIONS`].
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.names, &self.commands, &self.logfiles]
    }
}

async fn schedule(
    transaction: &Transaction<'_>,
    spelling: Spelling,
    actions: impl Iterator<Item = &ScheduledAction>,
) -> Answer<()> {
    let rows = ActionRows::of(spelling, actions);
    if rows.names.is_empty() {
        return Ok(());
    }
    execute(transaction, ADD_ACTIONS, &rows.parameters()).await.map(drop)
}

pub(super) async fn remove_actions(client: &Object, versions: &[ActionVersion]) -> Answer<u64> {
    let versions: Vec<i64> = versions.iter().map(|version| version.0).collect();
    execute(client, "DELETE FROM action WHERE version = ANY ($1::bigint[])", &[&versions]).await
}

pub(super) async fn pin(transaction: &Transaction<'_>, spelling: Spelling, peer: &str, der: &[u8]) -> Answer<Vec<u8>> {
    // Upper case, as the C program compares it.
    let (name, certificate) = (Text(spelling.write(peer.as_bytes())), Text(hex::encode_upper(der).into_bytes()));
    let sql = "INSERT INTO x509_cert (peername, certdata) SELECT $1, $2 \
               WHERE NOT EXISTS (SELECT 1 FROM x509_cert WHERE peername = $1) ON CONFLICT DO NOTHING";
    execute(transaction, sql, &[&name, &certificate]).await?;
    let pinned = read::certificates(transaction, spelling, Some(peer)).await?;
    Ok(pinned.into_iter().next().map(|(_, der)| der).unwrap_or_default())
}

pub(super) async fn unpin(client: &Object, spelling: Spelling, peer: &str) -> Answer<bool> {
    let name = Text(spelling.write(peer.as_bytes()));
    Ok(execute(client, "DELETE FROM x509_cert WHERE peername = $1", &[&name]).await? > 0)
}

// Claims.

pub(super) async fn claim(client: &Object, spelling: Spelling, claim: &Claim) -> Answer<String> {
    let write = |raw: &str| Text(spelling.write(raw.as_bytes()));
    let (subject, holder) = (write(&claim.subject), write(&claim.holder));
    let take = "INSERT INTO csync2_claim (peername, holder, expires) VALUES ($1, $2, $3) \
                ON CONFLICT (peername) DO UPDATE SET holder = excluded.holder, expires = excluded.expires \
                WHERE csync2_claim.holder = excluded.holder OR csync2_claim.expires < $4";
    execute(client, take, &[&subject, &holder, &claim.expires, &claim.now]).await?;
    let statement = client.prepare_cached("SELECT holder FROM csync2_claim WHERE peername = $1").await?;
    match client.query_opt(&statement, &[&subject]).await? {
        Some(row) => Ok(read_host(text(&row, 0)?)),
        // Released at this moment: whoever asks again may have it.
        None => Ok(String::new()),
    }
}

pub(super) async fn release(client: &Object, spelling: Spelling, subject: &str, holder: &str) -> Answer<()> {
    let write = |raw: &str| Text(spelling.write(raw.as_bytes()));
    let sql = "DELETE FROM csync2_claim WHERE peername = $1 AND holder = $2";
    execute(client, sql, &[&write(subject), &write(holder)]).await.map(drop)
}

// Notices.

pub(super) async fn remembered(client: &impl GenericClient, spelling: Spelling, about: &str) -> Answer<String> {
    let statement = client.prepare_cached("SELECT facts FROM csync2_notice WHERE about = $1").await?;
    let row = client.query_opt(&statement, &[&Text(spelling.write(about.as_bytes()))]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}

pub(super) async fn remember(
    transaction: &Transaction<'_>,
    spelling: Spelling,
    about: &str,
    facts: &str,
) -> Answer<String> {
    // One at a time, so that only the first of them finds news.
    execute(transaction, "LOCK TABLE csync2_notice IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
    let before = remembered(transaction, spelling, about).await?;
    let sql = "INSERT INTO csync2_notice (about, facts) VALUES ($1, $2) \
               ON CONFLICT (about) DO UPDATE SET facts = excluded.facts";
    execute(transaction, sql, &[&Text(spelling.write(about.as_bytes())), &facts]).await?;
    Ok(before)
}
