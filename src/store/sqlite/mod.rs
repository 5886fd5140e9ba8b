//! The embedded database: one file, one writer, readers that it never stops.
//!
//! SQLite's work is done on threads of tokio's blocking pool, or at once for who has a thread to itself. Writes queue
//! for the one connection that writes, each a transaction that begins with the write lock, so that none fails half-way for
//! want of it. Readers have connections of their own. In WAL mode neither waits for the other; where WAL cannot work, a
//! stream of rows is read into memory first, since an open read would then stop the writer.

mod connection;
mod history;
mod migrate;
mod read;
mod transfer;
mod values;
mod write;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task;

use self::connection::{FileId, Opened, Opener, operation_error};
use self::writer::Writer;
use super::backend::Backend;
use super::error::{ErrorKind, Result, StoreError};
use super::history::{Moments, Record};
use super::spelling::ranges;
use super::transfer::{Imported, Row};
use super::{
    CHUNK, Change, Claim, DirtyFilter, Durability, Hint, HintVersion, Intent, IntentId, Known, Receipt, StoreOptions,
};
use crate::model::{
    ActionVersion, DirtyEntry, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark, ScheduledAction, Scope,
    Standing, SyncPath,
};

/// An open SQLite file.
#[derive(Debug)]
pub(super) struct Sqlite {
    readers: Arc<Readers>,
    /// What had the file's name when it was opened.
    file: Option<FileId>,
    /// `None`: nothing may be written.
    writer: Option<Arc<Writer>>,
    /// Whether reading and writing go on side by side.
    wal: bool,
    /// Whether the columns of ours are there; not in a file of the C program that may only be read.
    extended: bool,
    /// Whether a power cut may cost what was received.
    relaxed_receives: bool,
    /// What a person should know about the file.
    remark: Option<String>,
}

impl Sqlite {
    pub(super) async fn open(path: &Path, options: &StoreOptions) -> Result<Self> {
        let (opener, read_only) = (Opener::new(path, options), options.read_only);
        if options.must_exist && opener.file().is_none() {
            let (database, source) = (opener.database().to_owned(), "it is not there; the first run makes it".into());
            return Err(StoreError::Open { database, kind: ErrorKind::Unreachable, source });
        }
        let (opener, first) = step(move || opener.open(read_only).map(|first| (opener, first))).await?;
        Ok(Self::with(opener, first, options.max_connections.max(1), read_only))
    }

    /// Opens a file that is there as it is, for reading it as a whole.
    pub(super) async fn look_at(path: &Path, options: &StoreOptions) -> Result<Self> {
        let opener = Opener::new(path, options);
        let (opener, first) = step(move || opener.look_at().map(|first| (opener, first))).await?;
        Ok(Self::with(opener, first, options.max_connections.max(1), true))
    }

    /// With the connection that was opened first. Whoever only looks, most likely, keeps it for that.
    fn with(opener: Opener, first: Opened, connections: usize, looks: bool) -> Self {
        let file = opener.file();
        let Opened { connection, wal, remark, extended, writable } = first;
        let may_relax = wal && opener.durability() != Durability::Nothing;
        let relaxed_receives = opener.durability() == Durability::AllButReceives;
        let (idle, writer) = match (writable, looks) {
            (true, false) => (None, Some(Writer::new(connection, may_relax))),
            (true, true) => (Some(connection), Some(Writer::later(opener.clone(), may_relax))),
            (false, _) => (Some(connection), None),
        };
        let (idle, writer) = (idle.into_iter().collect(), writer.map(Arc::new));
        let readers = Readers {
            opener,
            idle: Mutex::new(idle),
            operations: Semaphore::new(connections),
            streams: Semaphore::new(connections),
        };
        Self { readers: Arc::new(readers), file, writer, wal, relaxed_receives, remark, extended }
    }

    /// Runs a query on a reader's connection.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.readers.operations.acquire().await;
        let readers = Arc::clone(&self.readers);
        let result = step(move || readers.with(operation, query)).await;
        drop(permit);
        result
    }

    /// Sends what a query gives on a connection for streams, in chunks: the query hands them on until it is told that no
    /// more is wanted.
    async fn stream<T: Send + 'static>(
        &self,
        operation: &'static str,
        sink: Sender<Result<Vec<T>>>,
        query: impl FnOnce(&Connection, &mut dyn FnMut(Vec<T>) -> bool) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<()> {
        let permit = self.readers.streams.acquire().await;
        let (readers, wal) = (Arc::clone(&self.readers), self.wal);
        let result = blocking(move || {
            let mut held = Vec::new();
            readers.with(operation, |connection| {
                query(connection, &mut |chunk| {
                    if wal {
                        sink.blocking_send(Ok(chunk)).is_ok()
                    } else {
                        held.push(chunk);
                        !sink.is_closed()
                    }
                })
            })?;
            for chunk in held {
                if sink.blocking_send(Ok(chunk)).is_err() {
                    break;
                }
            }
            Ok(())
        })
        .await;
        drop(permit);
        result
    }

    /// Runs a transaction; it is durable then.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write_durably(true, operation, work).await
    }

    /// The same, perhaps one that a power cut may undo.
    async fn write_durably<T: Send + 'static>(
        &self,
        durable: bool,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let writer = self.writer(operation)?;
        let result = step(move || writer.run(durable, work)).await;
        self.written(operation, result)
    }

    fn writer(&self, operation: &'static str) -> Result<Arc<Writer>> {
        let refused = || {
            let source = "nothing may be written to it, or to its directory".into();
            let database = self.readers.opener.database().to_owned();
            StoreError::Operation { database, operation, kind: ErrorKind::ReadOnly, source }
        };
        self.writer.clone().ok_or_else(refused)
    }

    /// What came of a transaction; `None`: there was no one to do it any more.
    fn written<T>(&self, operation: &'static str, result: Option<rusqlite::Result<T>>) -> Result<T> {
        let database = self.readers.opener.database();
        let Some(result) = result else {
            let (database, source) = (database.to_owned(), "the database was closed".into());
            return Err(StoreError::Operation { database, operation, kind: ErrorKind::ConnectionLost, source });
        };
        result.map_err(|error| operation_error(database, operation, error))
    }
}

/// Runs work that blocks apart from the async threads; a panic in it is one here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Runs work that waits for the disk and for others' locks alone: at once where no task is held up by that, so that nobody
/// pays for a change of threads.
async fn step<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match task::try_id() {
        None => work(),
        Some(_) => blocking(work).await,
    }
}

/// Connections that only read.
#[derive(Debug)]
struct Readers {
    opener: Opener,
    idle: Mutex<Vec<Connection>>,
    operations: Semaphore,
    /// Apart from the operations: whoever reads a stream may run operations meanwhile.
    streams: Semaphore,
}

impl Readers {
    /// Runs a query on an idle connection, or a new one. Blocks.
    fn with<T>(&self, operation: &'static str, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let failed = |error| operation_error(self.opener.database(), operation, error);
        let connection = match idle {
            Some(connection) => connection,
            None => self.opener.reader().map_err(failed)?,
        };
        let result = query(&connection).map_err(failed);
        // A connection that made trouble is not used again.
        if result.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }
}

impl Backend for Sqlite {
    async fn files(&self, scopes: Vec<Scope>, sink: Sender<Result<Vec<FileRecord>>>) -> Result<()> {
        let extended = self.extended;
        self.stream("read the known files", sink, move |connection, take| {
            read::files(connection, &ranges(&scopes), extended, CHUNK, take)
        })
        .await
    }

    async fn fingerprints(
        &self,
        scopes: Vec<Scope>,
        fingerprinter: Fingerprinter,
        sink: Sender<Result<Vec<Fingerprint>>>,
    ) -> Result<()> {
        let extended = self.extended;
        self.stream("read the known files", sink, move |connection, take| {
            read::fingerprints(connection, &ranges(&scopes), extended, &fingerprinter, CHUNK, take)
        })
        .await
    }

    async fn records(&self, paths: Vec<SyncPath>) -> Result<Vec<FileRecord>> {
        let extended = self.extended;
        self.read("look up files", move |connection| {
            let rows = paths.iter().map(|path| read::file(connection, path, extended));
            rows.filter_map(rusqlite::Result::transpose).collect()
        })
        .await
    }

    async fn file(&self, path: SyncPath) -> Result<Option<FileRecord>> {
        let extended = self.extended;
        self.read("look up a file", move |connection| read::file(connection, &path, extended)).await
    }

    async fn known(&self, paths: Vec<SyncPath>) -> Result<Vec<Known>> {
        let extended = self.extended;
        self.read("look up files", move |connection| read::known(connection, &paths, extended)).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<SyncPath>> {
        self.write("record changed files", move |connection| write::apply(connection, &changes)).await
    }

    async fn remove_files(&self, paths: Vec<SyncPath>) -> Result<u64> {
        self.write("remove files", move |connection| write::remove_files(connection, &paths)).await
    }

    async fn remove_malformed(&self) -> Result<u64> {
        self.write("remove malformed names", write::remove_malformed).await
    }

    async fn dirty(&self, filter: DirtyFilter) -> Result<Vec<DirtyEntry>> {
        let extended = self.extended;
        self.read("read the dirty files", move |connection| {
            let snapshot = connection.unchecked_transaction()?;
            read::dirty(&snapshot, filter.peer.as_deref(), &ranges(&filter.scopes), extended)
        })
        .await
    }

    async fn marks(&self, filter: DirtyFilter, sink: Sender<Result<Vec<DirtyEntry>>>) -> Result<()> {
        let extended = self.extended;
        self.stream("read the dirty files", sink, move |connection, take| {
            read::marks(connection, filter.peer.as_deref(), &ranges(&filter.scopes), extended, CHUNK, take)
        })
        .await
    }

    async fn dirty_peers(&self) -> Result<Vec<(String, String)>> {
        self.read("read whom files are dirty for", read::dirty_peers).await
    }

    async fn mark(&self, marks: Vec<Mark>, actions: Vec<ScheduledAction>) -> Result<()> {
        self.write("mark files as dirty", move |connection| write::mark(connection, &marks, &actions)).await
    }

    async fn clear(&self, entries: Vec<DirtyEntry>) -> Result<u64> {
        self.write("clear dirty files", move |connection| write::clear(connection, &entries)).await
    }

    async fn flush(&self, path: SyncPath) -> Result<()> {
        self.write("forget a dirty file", move |connection| write::flush(connection, &path)).await
    }

    async fn force(&self, scopes: Vec<Scope>) -> Result<u64> {
        self.write("force dirty files", move |connection| write::force(connection, &ranges(&scopes))).await
    }

    async fn hints(&self) -> Result<Vec<Hint>> {
        self.read("read the hints", read::hints).await
    }

    async fn add_hints(&self, hints: Vec<Hint>) -> Result<()> {
        self.write("add hints", move |connection| write::add_hints(connection, &hints)).await
    }

    async fn hint_versions(&self, hint: Hint) -> Result<Vec<HintVersion>> {
        self.read("read a hint", move |connection| read::hint_versions(connection, &hint)).await
    }

    async fn remove_hints(&self, versions: Vec<HintVersion>) -> Result<u64> {
        self.write("remove hints", move |connection| write::remove_hints(connection, &versions)).await
    }

    async fn jobs(&self) -> Result<Vec<Job>> {
        self.read("read the scheduled actions", read::jobs).await
    }

    async fn job_files(&self, job: Job) -> Result<Vec<JobFile>> {
        self.read("read the files of an action", move |connection| read::job_files(connection, &job)).await
    }

    async fn remove_actions(&self, versions: Vec<ActionVersion>) -> Result<u64> {
        self.write("remove scheduled actions", move |connection| write::remove_actions(connection, &versions)).await
    }

    async fn certificates(&self, peer: Option<String>) -> Result<Vec<(String, Vec<u8>)>> {
        self.read("read pinned certificates", move |connection| read::certificates(connection, peer.as_deref())).await
    }

    async fn pin(&self, peer: String, der: Vec<u8>) -> Result<Vec<u8>> {
        self.write("pin a certificate", move |connection| write::pin(connection, &peer, &der)).await
    }

    async fn unpin(&self, peer: String) -> Result<bool> {
        self.write("unpin a certificate", move |connection| write::unpin(connection, &peer)).await
    }

    async fn next_receives(
        &self,
        receipts: Vec<(Option<IntentId>, Receipt)>,
        intents: Vec<Intent>,
    ) -> Result<Vec<IntentId>> {
        // Of what only ends intents the same is made again, should a power cut undo it.
        let may_be_undone = intents.is_empty() && receipts.iter().all(|(id, _)| id.is_some());
        let durable = !may_be_undone && !self.relaxed_receives;
        let operation = if intents.is_empty() { "record received files" } else { "begin to receive files" };
        let work = move |connection: &Connection| write::next_receives(connection, &receipts, &intents);
        self.write_durably(durable, operation, work).await
    }

    async fn abandon_receives(&self, ids: Vec<IntentId>) -> Result<()> {
        self.write("abandon receives", move |connection| write::remove_intents(connection, &ids)).await
    }

    async fn intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        let extended = self.extended;
        self.read("read the receives under way", move |connection| read::intents(connection, extended)).await
    }

    async fn claim(&self, claim: Claim) -> Result<String> {
        self.write("claim some work", move |connection| write::claim(connection, &claim)).await
    }

    async fn release(&self, subject: String, holder: String) -> Result<()> {
        self.write("end a claim", move |connection| write::release(connection, &subject, &holder)).await
    }

    async fn remembered(&self, about: String) -> Result<String> {
        self.read("read what was warned about", move |connection| read::remembered(connection, &about)).await
    }

    async fn remember(&self, about: String, facts: String) -> Result<String> {
        self.write("remember a warning", move |connection| write::remember(connection, &about, &facts)).await
    }

    async fn record(&self, record: Record) -> Result<()> {
        let work = move |connection: &Connection| history::record(connection, &record);
        self.write_durably(false, "record how it went", work).await
    }

    async fn standing(&self) -> Result<(Standing, Moments)> {
        let extended = self.extended;
        self.read("read how things are", move |connection| history::standing(connection, extended)).await
    }

    async fn snapshot(&self, sink: Sender<Result<Vec<Row>>>) -> Result<()> {
        let extended = self.extended;
        self.stream("read the tables", sink, move |connection, take| transfer::read(connection, extended, take)).await
    }

    async fn import(&self, source: Receiver<Result<Vec<Row>>>) -> Result<Imported> {
        let operation = "import a state";
        let writer = self.writer(operation)?;
        // It waits for what the source sends, so it never runs at once.
        let result = blocking(move || writer.run(true, move |connection| transfer::import(connection, source))).await;
        self.written(operation, result)?.into_result(self.readers.opener.database())
    }

    fn remarks(&self) -> Vec<String> {
        self.remark.iter().cloned().collect()
    }

    async fn exists(&self) -> bool {
        self.file.is_some() && self.readers.opener.file() == self.file
    }

    async fn shrink(&self) {
        if let Some(writer) = self.writer.clone() {
            step(move || writer.shrink()).await;
        }
        let idle = std::mem::take(&mut *self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner));
        step(move || drop(idle)).await;
    }

    async fn close(&self) {
        if let Some(writer) = self.writer.clone() {
            step(move || writer.stop()).await;
        }
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Checktxt;
    use tokio::sync::mpsc;

    fn new_files(count: usize) -> Vec<Change> {
        let change = |number| {
            let path = SyncPath::parse(format!("/{number:05}/{}", "long".repeat(50)).as_bytes()).unwrap();
            let checktxt = Checktxt::from_text(b"v1:type=dir");
            let record =
                FileRecord { path: path.clone(), checktxt, mtime_ns: None, ctime_ns: None, device: None, digest: None };
            Change { path, expected: None, record: Some(record), marks: Vec::new(), actions: Vec::new() }
        };
        (0..count).map(change).collect()
    }

    async fn count(sqlite: &Sqlite) -> usize {
        let (sink, mut chunks) = mpsc::channel(1000);
        sqlite.files(vec![Scope::All], sink).await.unwrap();
        let mut count = 0;
        while let Some(chunk) = chunks.recv().await {
            count += chunk.unwrap().len();
        }
        count
    }

    #[tokio::test]
    async fn a_full_disk_is_told_as_such_and_keeps_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&directory.path().join("x.db3"), &StoreOptions::default()).await.unwrap();
        let limit = |pages: i64| {
            move |connection: &Connection| {
                connection.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
            }
        };
        sqlite.write("limit the file", limit(40)).await.unwrap();
        let error = sqlite.apply(new_files(5000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().ends_with("x.db3: no space left"), "{error}");
        assert_eq!(count(&sqlite).await, 0);
        sqlite.write("let the file grow", limit(1_000_000)).await.unwrap();
        assert_eq!(sqlite.apply(new_files(5000)).await.unwrap(), []);
        assert_eq!(count(&sqlite).await, 5000);
    }

    #[tokio::test]
    async fn without_shared_memory_readers_still_do_not_stop_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let opener = Opener::without_shared_memory(&directory.path().join("x.db3"));
        let first = opener.open(false).unwrap();
        assert!(!first.wal);
        let sqlite = Sqlite::with(opener, first, 2, false);
        assert_eq!(sqlite.apply(new_files(5000)).await.unwrap(), []);
        let (sink, mut chunks) = mpsc::channel(1);
        let reading = async { sqlite.files(vec![Scope::All], sink).await.unwrap() };
        let writing = async {
            let mut seen = 0;
            while let Some(chunk) = chunks.recv().await {
                let paths: Vec<_> = chunk.unwrap().into_iter().map(|record| record.path).collect();
                seen += paths.len();
                assert_eq!(sqlite.remove_files(paths).await.unwrap(), 1000);
            }
            seen
        };
        let ((), seen) = tokio::join!(reading, writing);
        assert_eq!((seen, count(&sqlite).await), (5000, 0));
    }
}
