//! The statements that read.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::pin::pin;

use deadpool_postgres::{GenericClient, Object, Transaction};
use futures_util::TryStreamExt;
use tokio::sync::mpsc::Sender;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{IsolationLevel, Row, RowStream};

use super::super::error::Result;
use super::super::spelling::{HostNames, Range, Spelling, key, read_host, read_path};
use super::super::{CHUNK, Hint, HintVersion, Intent, IntentId, Known};
use super::Answer;
use super::together;
use super::values::{KEY_LENGTH, NameDigest, Text, optional_text, text, truncated};
use crate::model::{
    ActionVersion, Checktxt, DirtyEntry, DirtyVersion, FileRecord, Fingerprint, Fingerprinter, Job, JobFile,
    ScheduledAction, SyncPath, encoding,
};

pub(super) const RECORD_COLUMNS: &str = "filename, checktxt, mtime_ns, ctime_ns, device, digest";

/// `None`: the name is malformed.
pub(super) fn record(row: &Row) -> Answer<Option<FileRecord>> {
    let Some(path) = read_path(text(row, 0)?) else { return Ok(None) };
    Ok(Some(FileRecord {
        path,
        checktxt: Checktxt::from_text(&encoding::decode(text(row, 1)?)),
        mtime_ns: row.try_get(2)?,
        ctime_ns: row.try_get(3)?,
        device: row.try_get(4)?,
        digest: row.try_get::<_, Option<&[u8]>>(5)?.and_then(|digest| digest.try_into().ok()),
    }))
}

/// A stretch of names as the tables can find it: by the first bytes of the keys.
struct Bounds {
    low: Vec<u8>,
    /// Not in it; `None`: no end.
    high: Option<Vec<u8>>,
}

impl Bounds {
    fn of(range: &Range) -> Self {
        // The first key behind all that begin like this one.
        let behind = |key: &[u8]| Some([&truncated(key.to_vec())[..], b"\0"].concat());
        let (low, high) = match range {
            Range::All => (&[][..], None),
            Range::One(key) => (&key[..], behind(key)),
            Range::Between(low, high) if high.len() <= KEY_LENGTH => (&low[..], Some(high.clone())),
            Range::Between(low, high) => (&low[..], behind(high)),
        };
        Self { low: truncated(low.to_vec()), high }
    }
}

/// Whether a name that lies within the bounds is in the range itself: where keys are cut off they say less.
fn is_within(range: &Range, name: &[u8]) -> bool {
    match range {
        Range::All => true,
        Range::One(one) => one.len() < KEY_LENGTH || key(name) == *one,
        Range::Between(_, high) if high.len() <= KEY_LENGTH => true,
        Range::Between(low, high) => {
            let key = key(name);
            *low <= key && key < *high
        }
    }
}

/// The rows within a range, or a few more, as they come: see [`is_within`].
async fn rows(client: &impl GenericClient, columns: &str, range: &Range, order: &str) -> Answer<RowStream> {
    let Bounds { low, high } = Bounds::of(range);
    let condition = match (range, &high) {
        (Range::All, _) => "",
        (_, None) => " WHERE name_key >= $1",
        (_, Some(_)) => " WHERE name_key >= $1 AND name_key < $2",
    };
    let statement = client.prepare_cached(&format!("SELECT {columns} FROM file{condition}{order}")).await?;
    let keys = std::iter::once(&low).chain(&high).map(|key| key as &(dyn ToSql + Sync));
    client.query_raw(&statement, keys.take(statement.params().len()).collect::<Vec<_>>()).await
}

/// A transaction in which all rows are as of one moment. It has nothing to commit.
pub(super) async fn snapshot(client: &mut Object) -> Answer<Transaction<'_>> {
    client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await
}

/// Sends the records within the ranges, in order, as of one moment. Sets `begun` before it sends a part of them.
pub(super) async fn files(
    client: &mut Object,
    ranges: &[Range],
    sink: &Sender<Result<Vec<FileRecord>>>,
    begun: &mut bool,
) -> Answer<()> {
    let snapshot = snapshot(client).await?;
    let mut chunk = Chunk { sink, begun, ready: Vec::with_capacity(CHUNK), alike: Vec::new() };
    for range in ranges {
        let mut rows = pin!(rows(&snapshot, RECORD_COLUMNS, range, " ORDER BY name_key").await?);
        while let Some(row) = rows.try_next().await? {
            if let Some(record) = record(&row)?
                && is_within(range, record.path.as_bytes())
                && chunk.push(record).await.is_err()
            {
                return Ok(());
            }
        }
    }
    // Whoever has gone needs nothing more.
    let _ = chunk.finish().await;
    Ok(())
}

/// The same for fingerprints, in any order.
pub(super) async fn fingerprints(
    client: &mut Object,
    ranges: &[Range],
    fingerprinter: &Fingerprinter,
    sink: &Sender<Result<Vec<Fingerprint>>>,
    begun: &mut bool,
) -> Answer<()> {
    let snapshot = snapshot(client).await?;
    let (mut chunk, mut buffer) = (Vec::with_capacity(CHUNK), Vec::new());
    for range in ranges {
        let columns = "filename, checktxt, mtime_ns, ctime_ns, device";
        let mut rows = pin!(rows(&snapshot, columns, range, "").await?);
        while let Some(row) = rows.try_next().await? {
            chunk.extend(fingerprint(&row, range, fingerprinter, &mut buffer)?);
            if chunk.len() == CHUNK {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
                *begun = true;
                if sink.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    let _ = sink.send(Ok(chunk)).await;
    Ok(())
}

/// `None`: the name is malformed, or not in the range.
fn fingerprint(
    row: &Row,
    range: &Range,
    fingerprinter: &Fingerprinter,
    buffer: &mut Vec<u8>,
) -> Answer<Option<Fingerprint>> {
    let name = encoding::decode_in(text(row, 0)?, buffer);
    if SyncPath::check(name).is_err() || !is_within(range, name) {
        return Ok(None);
    }
    let name = fingerprinter.name(name);
    let checktxt = encoding::decode_in(text(row, 1)?, buffer);
    let state = fingerprinter.state(checktxt, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    Ok(Some(Fingerprint { name, state }))
}

/// Records on their way, put in order where the tables' keys say too little.
struct Chunk<'s> {
    sink: &'s Sender<Result<Vec<FileRecord>>>,
    /// Set before anything is sent that does not complete the rows.
    begun: &'s mut bool,
    ready: Vec<FileRecord>,
    /// Those whose keys are cut off and alike.
    alike: Vec<FileRecord>,
}

/// The reader of the stream wants no more.
struct Gone;

impl Chunk<'_> {
    async fn push(&mut self, record: FileRecord) -> std::result::Result<(), Gone> {
        let cut = |record: &FileRecord| truncated(key(record.path.as_bytes()));
        if self.alike.first().is_some_and(|first| cut(first) != cut(&record)) {
            self.settle();
        }
        // Most names are far too short to be looked at closely.
        if record.path.as_bytes().len() >= KEY_LENGTH / 3 && cut(&record).len() == KEY_LENGTH {
            self.alike.push(record);
        } else {
            self.ready.push(record);
        }
        if self.ready.len() < CHUNK {
            return Ok(());
        }
        *self.begun = true;
        self.sink.send(Ok(std::mem::replace(&mut self.ready, Vec::with_capacity(CHUNK)))).await.map_err(|_| Gone)
    }

    fn settle(&mut self) {
        self.alike.sort_by(|one, other| one.path.cmp(&other.path));
        self.ready.append(&mut self.alike);
    }

    async fn finish(mut self) -> std::result::Result<(), Gone> {
        self.settle();
        if self.ready.is_empty() {
            return Ok(());
        }
        self.sink.send(Ok(self.ready)).await.map_err(|_| Gone)
    }
}

pub(super) async fn records(client: &Object, paths: &[SyncPath]) -> Answer<Vec<FileRecord>> {
    let digests: Vec<NameDigest> = paths.iter().map(|path| NameDigest::of(path.as_bytes())).collect();
    let sql = format!("SELECT {RECORD_COLUMNS} FROM file WHERE name_digest = ANY ($1::bytea[])");
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&digests]).await?;
    rows.iter().filter_map(|row| record(row).transpose()).collect()
}

pub(super) async fn file(client: &Object, path: &SyncPath) -> Answer<Option<FileRecord>> {
    let sql = format!("SELECT {RECORD_COLUMNS} FROM file WHERE name_digest = $1");
    let statement = client.prepare_cached(&sql).await?;
    let row = client.query_opt(&statement, &[&NameDigest::of(path.as_bytes())]).await?;
    row.map_or(Ok(None), |row| record(&row))
}

/// Both tables are asked at the same time.
pub(super) async fn known(client: &Object, paths: &[SyncPath]) -> Answer<Vec<Known>> {
    let digests: Vec<NameDigest> = paths.iter().map(|path| NameDigest::of(path.as_bytes())).collect();
    let ask = async |sql: &str| {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, &[&digests]).await
    };
    let files = format!("SELECT {RECORD_COLUMNS} FROM file WHERE name_digest = ANY ($1::bytea[])");
    let marks = format!("SELECT {MARK_COLUMNS} FROM dirty WHERE name_digest = ANY ($1::bytea[])");
    let (files, marks) = together::both(ask(&files), ask(&marks)).await?;
    let mut known: HashMap<SyncPath, Known> = HashMap::new();
    for row in &files {
        if let Some(record) = record(row)? {
            let path = record.path.clone();
            known.entry(path).or_default().record = Some(record);
        }
    }
    let mut names = HostNames::default();
    for row in &marks {
        if let Some(mark) = mark(row, &mut names)? {
            let path = mark.path.clone();
            known.entry(path).or_default().marks.push(mark);
        }
    }
    for known in known.values_mut() {
        known.marks.sort_by(|one, other| one.peer.cmp(&other.peer));
    }
    Ok(paths.iter().map(|path| known.get(path).cloned().unwrap_or_default()).collect())
}

const MARK_COLUMNS: &str = "filename, forced, myname, peername, version";

/// `None`: the name is malformed.
pub(super) fn mark(row: &Row, names: &mut HostNames) -> Answer<Option<DirtyEntry>> {
    let Some(path) = read_path(text(row, 0)?) else { return Ok(None) };
    Ok(Some(DirtyEntry {
        path,
        forced: row.try_get::<_, i32>(1)? != 0,
        my_name: names.read(text(row, 2)?),
        peer: names.read(text(row, 3)?),
        version: DirtyVersion(row.try_get(4)?),
    }))
}

pub(super) async fn dirty(
    client: &impl tokio_postgres::GenericClient,
    spelling: Spelling,
    peer: Option<&str>,
    ranges: &[Range],
) -> Answer<Vec<DirtyEntry>> {
    let (mut entries, mut names) = (Vec::new(), HostNames::default());
    for range in ranges {
        let mut rows = pin!(marked(client, spelling, peer, range).await?);
        while let Some(row) = rows.try_next().await? {
            entries.extend(mark(&row, &mut names)?.filter(|mark| is_within(range, mark.path.as_bytes())));
        }
    }
    Ok(entries)
}

/// Sends the dirty rows in chunks, in any order. Sets `begun` before it sends a part of them.
pub(super) async fn marks(
    client: &impl tokio_postgres::GenericClient,
    spelling: Spelling,
    peer: Option<&str>,
    ranges: &[Range],
    sink: &Sender<Result<Vec<DirtyEntry>>>,
    begun: &mut bool,
) -> Answer<()> {
    let (mut chunk, mut names) = (Vec::with_capacity(CHUNK), HostNames::default());
    for range in ranges {
        let mut rows = pin!(marked(client, spelling, peer, range).await?);
        while let Some(row) = rows.try_next().await? {
            chunk.extend(mark(&row, &mut names)?.filter(|mark| is_within(range, mark.path.as_bytes())));
            if chunk.len() == CHUNK {
                *begun = true;
                if sink.send(Ok(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    // Whoever has gone needs nothing more.
    let _ = sink.send(Ok(chunk)).await;
    Ok(())
}

/// The dirty rows within a range, or a few more, as they come: see [`is_within`].
async fn marked(
    client: &impl tokio_postgres::GenericClient,
    spelling: Spelling,
    peer: Option<&str>,
    range: &Range,
) -> Answer<RowStream> {
    let peer = peer.map(|peer| Text(spelling.write(peer.as_bytes())));
    let Bounds { low, high } = Bounds::of(range);
    let mut sql = format!("SELECT {MARK_COLUMNS} FROM dirty WHERE true");
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::new();
    let mut must = |condition: &str, parameter, kind| {
        parameters.push((parameter, kind));
        let _ = write!(sql, " AND {condition} ${}", parameters.len());
    };
    if !matches!(range, Range::All) {
        must("name_key >=", &low, Type::BYTEA);
    }
    if let Some(high) = &high {
        must("name_key <", high, Type::BYTEA);
    }
    if let Some(peer) = &peer {
        must("peername =", peer, Type::TEXT);
    }
    // Most runs ask once: a statement that is prepared first takes a round trip more.
    client.query_typed_raw(&sql, parameters).await
}

pub(super) async fn dirty_peers(client: &Object) -> Answer<Vec<(String, String)>> {
    let rows = client.query_typed("SELECT DISTINCT myname, peername FROM dirty", &[]).await?;
    rows.iter().map(|row| Ok((read_host(text(row, 0)?), read_host(text(row, 1)?)))).collect()
}

pub(super) async fn hints(client: &Object) -> Answer<Vec<Hint>> {
    let rows = client.query_typed("SELECT filename, recursive FROM hint", &[]).await?;
    rows.iter().map(hint).collect()
}

pub(super) fn hint(row: &Row) -> Answer<Hint> {
    Ok(Hint { path: encoding::decode(text(row, 0)?), recursive: row.try_get::<_, i32>(1)? != 0 })
}

pub(super) async fn hint_versions(client: &Object, spelling: Spelling, hint: &Hint) -> Answer<Vec<HintVersion>> {
    let names = spellings(spelling, &hint.path);
    let sql = "SELECT version FROM hint WHERE filename = ANY ($1::text[]) AND recursive = $2";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&names, &i32::from(hint.recursive)]).await?;
    rows.iter().map(|row| Ok(HintVersion(row.try_get(0)?))).collect()
}

/// `None`: the name is malformed.
pub(super) fn action(row: &Row) -> Answer<Option<ScheduledAction>> {
    let Some(path) = read_path(text(row, 0)?) else { return Ok(None) };
    let [command, logfile] = [text(row, 1)?, text(row, 2)?].map(encoding::decode);
    Ok(Some(ScheduledAction { path, command, logfile }))
}

pub(super) async fn jobs(client: &Object) -> Answer<Vec<Job>> {
    // Every run asks, and most find none: that is found out in half of the time.
    if client.query_typed_opt("SELECT command FROM action LIMIT 1", &[]).await?.is_none() {
        return Ok(Vec::new());
    }
    let rows = client.query_typed("SELECT DISTINCT command, logfile FROM action", &[]).await?;
    let job =
        |row: &Row| Ok(Job { command: encoding::decode(text(row, 0)?), logfile: encoding::decode(text(row, 1)?) });
    rows.iter().map(job).collect()
}

pub(super) async fn job_files(client: &Object, spelling: Spelling, job: &Job) -> Answer<Vec<JobFile>> {
    let (commands, logfiles) = (spellings(spelling, &job.command), spellings(spelling, &job.logfile));
    let sql = "SELECT filename, version FROM action WHERE command = ANY ($1::text[]) AND logfile = ANY ($2::text[])";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&commands, &logfiles]).await?;
    let file = |row: &Row| {
        let Some(path) = read_path(text(row, 0)?) else { return Ok(None) };
        Ok(Some(JobFile { path, version: ActionVersion(row.try_get(1)?) }))
    };
    rows.iter().filter_map(|row| file(row).transpose()).collect()
}

/// The texts under which a name's rows may stand.
fn spellings(spelling: Spelling, raw: &[u8]) -> Vec<Text> {
    std::iter::once(spelling.write(raw)).chain(spelling.other(raw)).map(Text).collect()
}

pub(super) async fn certificates(
    client: &impl GenericClient,
    spelling: Spelling,
    peer: Option<&str>,
) -> Answer<Vec<(String, Vec<u8>)>> {
    let peer = peer.map(|peer| Text(spelling.write(peer.as_bytes())));
    let sql = "SELECT peername, certdata FROM x509_cert WHERE $1::text IS NULL OR peername = $1";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&peer]).await?;
    rows.iter().map(certificate).collect()
}

/// Peer and DER; that is empty where the text is no certificate.
pub(super) fn certificate(row: &Row) -> Answer<(String, Vec<u8>)> {
    Ok((read_host(text(row, 0)?), hex::decode(text(row, 1)?).unwrap_or_default()))
}

pub(super) async fn intents(client: &Object) -> Answer<Vec<(IntentId, Intent)>> {
    let sql = "SELECT id, filename, peername, temp_name, target, holder FROM csync2_intent";
    let intent = |row: &Row| {
        let Some(path) = read_path(text(row, 1)?) else { return Ok(None) };
        let intent = Intent {
            path,
            peer: read_host(text(row, 2)?),
            temp_name: encoding::decode(text(row, 3)?),
            target: optional_text(row, 4)?.map(|target| Checktxt::from_text(&encoding::decode(target))),
            holder: read_host(text(row, 5)?),
        };
        Ok(Some((IntentId(row.try_get(0)?), intent)))
    };
    client.query_typed(sql, &[]).await?.iter().filter_map(|row| intent(row).transpose()).collect()
}
