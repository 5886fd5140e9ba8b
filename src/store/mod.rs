//! The state database: which files are known, what is dirty for whom, hints, actions, pinned certificates, receives
//! under way.
//!
//! [`Store`] is the only handle; SQL stays in this module. PostgreSQL and SQLite are two implementations of one private
//! trait, tested by one suite. What the rows mean, and when to write them, is decided by the engine.
//!
//! # How the tables of the C program are kept usable
//! Its five tables stay as they are, with nullable or defaulted columns of ours beside its own, so that both programs
//! work on one database in turns, each seeing what the other wrote:
//!
//! * **Spelling.** Where the database stores any byte (SQLite, PostgreSQL in an encoding other than UTF-8), names are
//!   written as the C program spells them: it looks rows up by that text, and would neither find nor ever clear a row
//!   under another. A UTF-8 database refuses bytes that are no UTF-8, so there they are written as `%XX`. Read, replaced
//!   and removed are both spellings ([`spelling`]).
//! * **Order** is that of the bytes of the C program's spelling. SQLite compares text like that already. PostgreSQL has
//!   a column `name_key` with the first 1,000 bytes of it (an index entry holds 2,700 at most), and `name_digest` for
//!   uniqueness. We fill both in; for rows that the C program inserts a trigger does.
//! * **Version of a dirty row**: from a sequence (PostgreSQL) or a counter table (SQLite: a rowid is used again after
//!   its row has gone), through a default or a trigger, so that a C process's marking gets a new one as well. Rows of
//!   the action and hint tables have one in the same way: whoever writes one again replaces it, also by the C program's
//!   INSERT.
//! * **mtime, ctime, device, digest** are nullable columns. The C program replaces a row by DELETE and INSERT, which
//!   leaves them empty: they never describe a state that it recorded.

/// Runs an operation on whichever engine there is.
macro_rules! on {
    ($store:expr, $backend:ident => $call:expr) => {
        match &$store.engine {
            Engine::Postgres($backend) => $call,
            Engine::Sqlite($backend) => $call,
        }
    };
}

mod backend;
mod error;
mod history;
mod pgpass;
mod postgres;
mod spelling;
mod sqlite;
mod transfer;
mod url;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::model::{
    ActionVersion, Checktxt, DirtyEntry, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark, ScheduledAction,
    Scope, SyncPath,
};
use backend::Backend;
use error::Result;
pub use error::{ErrorKind, StoreError};
pub use transfer::{Contents, Imported, Malformed, Source};
pub use url::{Location, PostgresUrl, SslMode};

/// How far a reading stream may be ahead of its consumer, in chunks of [`CHUNK`] records.
const CHUNKS_AHEAD: usize = 4;

/// What is in one message of a stream, at most.
const CHUNK: usize = 1000;

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long an operation may wait for others' locks, for a connection, and for the connection to be made.
    pub lock_timeout: Duration,
    pub durability: Durability,
    /// For listings: an existing database is opened even if nothing may be written.
    pub read_only: bool,
    /// For who asks how things are: a database that is not there is not made.
    pub must_exist: bool,
    /// Operations that run at once; as many streams of [`Store::files`] may run besides.
    pub max_connections: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(12),
            durability: Durability::All,
            read_only: false,
            must_exist: false,
            max_connections: 16,
        }
    }
}

/// What is on disk when an operation ends. A power cut may cost the last transactions of the rest, never more than those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    All,
    /// `durability none`: not what is said of received files, which are not on disk either. SQLite only.
    AllButReceives,
    /// `-A`.
    Nothing,
}

/// An open state database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
}

#[derive(Debug, Clone)]
enum Engine {
    Postgres(Arc<postgres::Postgres>),
    Sqlite(Arc<sqlite::Sqlite>),
}

/// One file's part of a check: its row, with the marks and actions that follow from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: SyncPath,
    /// The row's checktxt when it was read; `None`: there was no row.
    pub expected: Option<Checktxt>,
    /// The new row; `None`: there shall be none.
    pub record: Option<FileRecord>,
    pub marks: Vec<Mark>,
    pub actions: Vec<ScheduledAction>,
}

/// What the tables say about one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Its row.
    pub record: Option<FileRecord>,
    /// For whom it is dirty, by peer.
    pub marks: Vec<DirtyEntry>,
}

/// Which dirty rows to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirtyFilter {
    /// Only those for this peer.
    pub peer: Option<String>,
    /// Only those of these files. Empty: none.
    pub scopes: Vec<Scope>,
}

/// A path that is to be checked. Real path, never prefixed, raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hint {
    pub path: Vec<u8>,
    /// With everything below it.
    pub recursive: bool,
}

/// Changes whenever the hint is given again, by whatever program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HintVersion(pub i64);

/// Names a receive under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntentId(pub i64);

/// Written before a received change is made on disk: what a crash may leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub path: SyncPath,
    /// Who sends.
    pub peer: String,
    /// Name of the temporary file beside the target; empty: none.
    pub temp_name: Vec<u8>,
    /// The state after it; `None`: a removal.
    pub target: Option<Checktxt>,
    /// The process that does it: "boot-id pid starttime".
    pub holder: String,
}

/// The wish to be the only one at some work: pushing to a peer, running a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed; one work has one text.
    pub subject: String,
    /// The process that wants it: "boot-id pid starttime".
    pub holder: String,
    /// Now, in seconds since 1970.
    pub now: i64,
    /// When it ends by itself, in seconds since 1970.
    pub expires: i64,
}

/// What is recorded once a received change is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub path: SyncPath,
    /// Its mark on our side is void now: we have what it has.
    pub sender: String,
    /// The new row; `None`: the file is gone.
    pub record: Option<FileRecord>,
    pub actions: Vec<ScheduledAction>,
}

/// What `work` sends; its error is sent last.
fn streamed<T, W>(work: impl FnOnce(Sender<Result<T>>) -> W) -> Receiver<Result<T>>
where
    T: Send + 'static,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let (sink, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let working = work(sink.clone());
    tokio::spawn(async move {
        if let Err(error) = working.await {
            // Nobody is left to tell when the receiver has gone.
            let _ = sink.send(Err(error)).await;
        }
    });
    receiver
}

impl Store {
    /// Opens a database; creates it where it is missing, and brings its tables up to date, once, whoever comes first.
    pub async fn open(location: &Location, options: &StoreOptions) -> Result<Self> {
        let engine = match location {
            Location::Postgres(url) => Engine::Postgres(Arc::new(postgres::Postgres::open(url, options).await?)),
            Location::Sqlite(path) => Engine::Sqlite(Arc::new(sqlite::Sqlite::open(path, options).await?)),
        };
        Ok(Self { engine })
    }

    /// Whether the database is still there: the one that was opened, not removed and perhaps made anew since then. One that
    /// cannot be asked counts as there.
    pub async fn exists(&self) -> bool {
        on!(self, backend => backend.exists().await)
    }

    /// Lets go of what is kept in memory of what was read and written, and keeps less from here on, for writes of a few rows:
    /// a check has ended, or none will come.
    pub async fn shrink(&self) {
        on!(self, backend => backend.shrink().await);
    }

    /// Ends all connections, when what is under way has ended. Other clones are closed with it.
    pub async fn close(self) {
        on!(self, backend => backend.close().await);
    }

    /// The known files within the scopes, in name order, each once, as one snapshot, in chunks of about a thousand. An
    /// error is the last thing sent. Rows whose name is no [`SyncPath`] are left out.
    ///
    /// The stream has a connection of its own, apart from those for all other operations: its reader may call any of
    /// these meanwhile. It must not wait for a second stream that it starts itself.
    pub fn files(&self, scopes: Vec<Scope>) -> Receiver<Result<Vec<FileRecord>>> {
        let store = self.clone();
        streamed(|sink| async move { on!(store, backend => backend.files(scopes, sink).await) })
    }

    /// The fingerprints of the known files within the scopes, as one snapshot, in any order. Nothing else is said of
    /// [`Store::files`] that would not be true of this stream.
    pub fn fingerprints(&self, scopes: Vec<Scope>, fingerprinter: Fingerprinter) -> Receiver<Result<Vec<Fingerprint>>> {
        let store = self.clone();
        streamed(|sink| async move { on!(store, backend => backend.fingerprints(scopes, fingerprinter, sink).await) })
    }

    /// The rows of these files, in any order: those that there are. The caller cuts long lists into chunks.
    pub async fn records(&self, paths: &[SyncPath]) -> Result<Vec<FileRecord>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        on!(self, backend => backend.records(paths.to_vec()).await)
    }

    /// The row of one file.
    pub async fn file(&self, path: &SyncPath) -> Result<Option<FileRecord>> {
        on!(self, backend => backend.file(path.clone()).await)
    }

    /// Writes the rows of files together with their dirty rows and actions, in one transaction. A change whose row is
    /// no longer as expected is skipped with all its marks and actions; the paths of those are returned. At most one
    /// change for each path; the caller cuts long lists into chunks.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<Vec<SyncPath>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        on!(self, backend => backend.apply(changes).await)
    }

    /// Removes the rows of files, whatever they say. Returns how many there were.
    pub async fn remove_files(&self, paths: &[SyncPath]) -> Result<u64> {
        on!(self, backend => backend.remove_files(paths.to_vec()).await)
    }

    /// Removes the rows of the file and dirty tables whose name is no [`SyncPath`], which no other operation reports.
    /// Returns how many there were.
    pub async fn remove_malformed(&self) -> Result<u64> {
        on!(self, backend => backend.remove_malformed().await)
    }

    /// What is still to be sent, in name order, then by peer.
    pub async fn dirty(&self, filter: DirtyFilter) -> Result<Vec<DirtyEntry>> {
        let mut entries = on!(self, backend => backend.dirty(filter).await)?;
        entries.sort_by(|one, other| one.path.cmp(&other.path).then_with(|| one.peer.cmp(&other.peer)));
        Ok(entries)
    }

    /// The same in chunks, in any order. What is said of [`Store::files`] is true of this stream, except that it is no snapshot:
    /// several scopes are read one after the other.
    pub fn marks(&self, filter: DirtyFilter) -> Receiver<Result<Vec<DirtyEntry>>> {
        let store = self.clone();
        streamed(|sink| async move { on!(store, backend => backend.marks(filter, sink).await) })
    }

    /// The (our name, peer) pairs that have dirty rows, each once, in order.
    pub async fn dirty_peers(&self) -> Result<Vec<(String, String)>> {
        let mut pairs = on!(self, backend => backend.dirty_peers().await)?;
        pairs.sort();
        pairs.dedup();
        Ok(pairs)
    }

    /// Writes dirty rows and schedules actions, in one transaction. A row of the same file and peer is replaced and has
    /// a new version.
    pub async fn mark(&self, marks: Vec<Mark>, actions: Vec<ScheduledAction>) -> Result<()> {
        if marks.is_empty() && actions.is_empty() {
            return Ok(());
        }
        on!(self, backend => backend.mark(marks, actions).await)
    }

    /// Removes exactly these markings; a file that was marked again since stays dirty. Returns how many were removed.
    pub async fn clear(&self, entries: &[DirtyEntry]) -> Result<u64> {
        if entries.is_empty() {
            return Ok(0);
        }
        on!(self, backend => backend.clear(entries.to_vec()).await)
    }

    /// Removes all dirty rows of a file.
    pub async fn flush(&self, path: &SyncPath) -> Result<()> {
        on!(self, backend => backend.flush(path.clone()).await)
    }

    /// Sets `forced` on the dirty rows of these files. Returns how many rows there are.
    pub async fn force(&self, scopes: &[Scope]) -> Result<u64> {
        on!(self, backend => backend.force(scopes.to_vec()).await)
    }

    /// All hints, each once, in name order.
    pub async fn hints(&self) -> Result<Vec<Hint>> {
        let mut hints = on!(self, backend => backend.hints().await)?;
        hints.sort_by_cached_key(|hint| (spelling::key(&hint.path), hint.recursive));
        hints.dedup();
        Ok(hints)
    }

    /// The versions of a hint's rows, of which the tables of the C program may hold several.
    pub async fn hint_versions(&self, hint: &Hint) -> Result<Vec<HintVersion>> {
        on!(self, backend => backend.hint_versions(hint.clone()).await)
    }

    /// Adds hints; those that exist are replaced and have a new version.
    pub async fn add_hints(&self, hints: &[Hint]) -> Result<()> {
        on!(self, backend => backend.add_hints(hints.to_vec()).await)
    }

    /// Removes exactly these rows: a hint that was given again since stays. Returns how many went.
    pub async fn remove_hints(&self, versions: &[HintVersion]) -> Result<u64> {
        on!(self, backend => backend.remove_hints(versions.to_vec()).await)
    }

    /// Schedules commands. One that is scheduled for the same file already is replaced and has a new version.
    pub async fn schedule(&self, actions: Vec<ScheduledAction>) -> Result<()> {
        self.mark(Vec::new(), actions).await
    }

    /// What is scheduled, each job once, in the order in which the C program runs them: the last one by name first.
    pub async fn jobs(&self) -> Result<Vec<Job>> {
        let mut jobs = on!(self, backend => backend.jobs().await)?;
        jobs.sort_by_cached_key(|job| Reverse((spelling::key(&job.command), spelling::key(&job.logfile))));
        jobs.dedup();
        Ok(jobs)
    }

    /// The files that a job is to be run for, in name order.
    pub async fn job_files(&self, job: &Job) -> Result<Vec<JobFile>> {
        let mut files = on!(self, backend => backend.job_files(job.clone()).await)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    /// Removes exactly these rows: what was scheduled again since stays. Returns how many went.
    pub async fn remove_actions(&self, versions: &[ActionVersion]) -> Result<u64> {
        on!(self, backend => backend.remove_actions(versions.to_vec()).await)
    }

    /// The certificate that is pinned for a peer, DER.
    pub async fn certificate(&self, peer: &str) -> Result<Option<Vec<u8>>> {
        let found = on!(self, backend => backend.certificates(Some(peer.to_owned())).await)?;
        Ok(found.into_iter().next().map(|(_, der)| der))
    }

    /// Pins a peer's certificate (DER) unless it has one: the first wins. Returns the one that is pinned now.
    pub async fn pin(&self, peer: &str, der: &[u8]) -> Result<Vec<u8>> {
        on!(self, backend => backend.pin(peer.to_owned(), der.to_vec()).await)
    }

    /// Forgets a peer's certificate. Returns whether there was one.
    pub async fn unpin(&self, peer: &str) -> Result<bool> {
        on!(self, backend => backend.unpin(peer.to_owned()).await)
    }

    /// All pinned certificates: peer and DER, by peer.
    pub async fn certificates(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = on!(self, backend => backend.certificates(None).await)?;
        found.sort();
        Ok(found)
    }

    /// What the tables say about these files, in the order of the paths.
    pub async fn known(&self, paths: Vec<SyncPath>) -> Result<Vec<Known>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        on!(self, backend => backend.known(paths).await)
    }

    /// Records that received changes are about to be made on disk. Durable when it returns, as far as [`Durability`] goes; the
    /// names are in the order of the intents.
    pub async fn begin_receives(&self, intents: Vec<Intent>) -> Result<Vec<IntentId>> {
        self.next_receives(Vec::new(), intents).await
    }

    /// Records received changes that are on disk now, in one transaction: the files' rows, the end of the sender's dirty
    /// rows, the actions, and the end of the intents. Of two receipts for one file the later counts.
    ///
    /// Where each has an intent this need not be durable yet when it returns: a power cut that undoes it brings back the
    /// intents, of which the same record is made again.
    pub async fn finish_receives(&self, receipts: Vec<(Option<IntentId>, Receipt)>) -> Result<()> {
        self.next_receives(receipts, Vec::new()).await.map(drop)
    }

    /// Both in one transaction: [`Store::finish_receives`] of what is on disk now, [`Store::begin_receives`] of what is
    /// next.
    pub async fn next_receives(
        &self,
        receipts: Vec<(Option<IntentId>, Receipt)>,
        intents: Vec<Intent>,
    ) -> Result<Vec<IntentId>> {
        if receipts.is_empty() && intents.is_empty() {
            return Ok(Vec::new());
        }
        on!(self, backend => backend.next_receives(receipts, intents).await)
    }

    /// Forgets intents whose changes were not made, or were undone.
    pub async fn abandon_receives(&self, ids: Vec<IntentId>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        on!(self, backend => backend.abandon_receives(ids).await)
    }

    /// Takes or renews the right to do some work, which one holder has at a time, unless another one has it and its time
    /// has not run out. Returns who has it now.
    pub async fn claim(&self, claim: Claim) -> Result<String> {
        on!(self, backend => backend.claim(claim).await)
    }

    /// Gives a claim back. Somebody else's is left alone.
    pub async fn release(&self, subject: &str, holder: &str) -> Result<()> {
        on!(self, backend => backend.release(subject.to_owned(), holder.to_owned()).await)
    }

    /// Of the standing facts about something, those that are news: they were not among the facts that were last told
    /// here. All of them are remembered, and nothing else about it.
    pub async fn news(&self, about: &str, facts: &[String]) -> Result<Vec<String>> {
        let digests: Vec<String> = facts.iter().map(|fact| notice_digest(fact)).collect();
        let told = digests.join(" ");
        let mut before = on!(self, backend => backend.remembered(about.to_owned()).await)?;
        if before == told {
            return Ok(Vec::new());
        }
        before = on!(self, backend => backend.remember(about.to_owned(), told).await)?;
        let is_news = |digest: &str| before.split(' ').all(|known| known != digest);
        Ok(facts.iter().zip(digests).filter(|(_, digest)| is_news(digest)).map(|(fact, _)| fact.clone()).collect())
    }

    /// Standing facts about the database itself that a person should know: readers that wait for writers, a password
    /// file that is not used.
    pub fn remarks(&self) -> Vec<String> {
        on!(self, backend => backend.remarks())
    }

    /// All intents, those that began together in their order: after a crash, those whose holder is no more.
    pub async fn intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        let mut intents = on!(self, backend => backend.intents().await)?;
        intents.sort_by_key(|(id, _)| *id);
        Ok(intents)
    }
}

/// What stands for a fact in the table: enough to tell it from another, and free of any character that an encoding may
/// lack.
fn notice_digest(fact: &str) -> String {
    hex::encode(&Sha256::digest(fact)[..8])
}
