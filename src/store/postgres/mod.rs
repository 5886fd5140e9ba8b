//! PostgreSQL: a pool of connections, made once for each [`super::Store`].
//!
//! Every operation is one transaction or one statement, sends its rows as arrays, and holds one connection until it has
//! its answer. Streams of rows have a bound of their own on top of that, half of the pool, so that operations always
//! find a connection whatever is being read. Waits for a connection and for locks end after the lock timeout.

mod connect;
mod migrate;
mod read;
mod tls;
mod trouble;
mod values;
mod write;

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Transaction};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;

use self::connect::Connector;
use self::trouble::{Trouble, is_conflict, is_lost};
use super::backend::Backend;
use super::error::{Result, StoreError};
use super::spelling::{Spelling, ranges};
use super::url::PostgresUrl;
use super::{Change, Claim, DirtyFilter, Hint, Intent, IntentId, Known, Receipt, StoreOptions};
use crate::model::{
    ActionVersion, DirtyEntry, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark, ScheduledAction, Scope,
    SyncPath,
};

/// How often a transaction is tried that the server gave up for another's sake.
const ATTEMPTS: u32 = 6;

/// The pause before the second attempt; it grows with each.
const PAUSE: Duration = Duration::from_millis(10);

/// What a statement or a sequence of them gives.
type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// A sequence of statements under way.
type Work<'w, T> = BoxFuture<'w, Answer<T>>;

/// An open PostgreSQL database.
#[derive(Debug)]
pub(super) struct Postgres {
    pool: Pool,
    streams: Semaphore,
    /// The name in messages.
    database: String,
    spelling: Spelling,
    /// What a person should know about the connection.
    remark: Option<String>,
}

impl Postgres {
    pub(super) async fn open(url: &PostgresUrl, options: &StoreOptions) -> Result<Self> {
        let database = url.to_string();
        let (connector, config) = Connector::new(url, options).map_err(|trouble| trouble.while_opening(&database))?;
        let remark = connector.remark().map(str::to_owned);
        let failed = |trouble: Trouble| {
            // It may be the reason.
            if let Some(remark) = &remark {
                tracing::warn!("WARNING: {remark}");
            }
            trouble.while_opening(&database)
        };
        let spelling = connector.spelling();
        let connections = options.max_connections.max(1);
        let manager = Manager::from_connect(
            config.clone(),
            connector.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(2 * connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.lock_timeout))
            .create_timeout(Some(connector.patience()))
            .build()
            .map_err(|error| failed(Trouble::other(error)))?;
        let mut client = match pool.get().await.map_err(Trouble::from) {
            Err(trouble) if trouble.is_missing_database() => {
                connector.create_database(&config).await.map_err(failed)?;
                pool.get().await.map_err(|error| failed(error.into()))?
            }
            result => result.map_err(failed)?,
        };
        migrate::migrate(&mut client, &database).await?;
        drop(client);
        let spelling = *spelling.get().unwrap_or(&Spelling::Utf8);
        Ok(Self { pool, streams: Semaphore::new(connections), database, spelling, remark })
    }

    async fn client(&self, operation: &'static str) -> Result<Object> {
        self.pool.get().await.map_err(|error| Trouble::from(error).during(operation, &self.database))
    }

    fn failed(&self, operation: &'static str) -> impl Fn(tokio_postgres::Error) -> StoreError {
        move |error| Trouble::from(error).during(operation, &self.database)
    }

    /// Runs statements that are a transaction each, or make one themselves. They do no harm when they are run twice: they are, when the server had
    /// to choose between them and others, or the connection had been idle in the pool and turns out to be broken.
    async fn run<D: Sync + ?Sized, T>(
        &self,
        operation: &'static str,
        data: &D,
        work: for<'w> fn(&'w Object, Spelling, &'w D) -> Work<'w, T>,
    ) -> Result<T> {
        let mut client = self.client(operation).await?;
        let mut attempt = 1;
        loop {
            match work(&client, self.spelling, data).await {
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {
                    give_way(operation, &error, &mut attempt).await;
                }
                Err(error) if is_lost(&error) && discard(client) => client = self.client(operation).await?,
                result => return result.map_err(self.failed(operation)),
            }
        }
    }

    /// Runs a transaction that sends what it reads, on one of the connections for streams; again when the connection turns
    /// out to be broken before it has begun.
    async fn stream<D: Sync + ?Sized>(
        &self,
        data: &D,
        work: for<'w> fn(&'w mut Object, &'w D, &'w mut bool) -> Work<'w, ()>,
    ) -> Result<()> {
        let operation = "read the known files";
        // Never closed: there is always a permit, sooner or later.
        let _permit = self.streams.acquire().await;
        let mut client = self.client(operation).await?;
        loop {
            let mut begun = false;
            match work(&mut client, data, &mut begun).await {
                Err(error) if is_lost(&error) => {
                    if !discard(client) || begun {
                        return Err(self.failed(operation)(error));
                    }
                    client = self.client(operation).await?;
                }
                result => return result.map_err(self.failed(operation)),
            }
        }
    }

    /// Runs a transaction; again when the server had to choose between it and another, or was gone before it began.
    async fn transaction<D: Sync + ?Sized, T>(
        &self,
        operation: &'static str,
        data: &D,
        work: for<'w> fn(&'w Transaction<'w>, Spelling, &'w D) -> Work<'w, T>,
    ) -> Result<T> {
        let mut client = self.client(operation).await?;
        let mut attempt = 1;
        loop {
            let mut begun = false;
            match attempt_transaction(&mut client, self.spelling, data, work, &mut begun).await {
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {
                    give_way(operation, &error, &mut attempt).await;
                }
                Err(error) if is_lost(&error) => {
                    if !discard(client) || begun {
                        return Err(self.failed(operation)(error));
                    }
                    client = self.client(operation).await?;
                }
                result => return result.map_err(self.failed(operation)),
            }
        }
    }
}

/// Waits a little before the next attempt.
async fn give_way(operation: &'static str, error: &tokio_postgres::Error, attempt: &mut u32) {
    tracing::debug!("{operation}: attempt {attempt} gave way to another transaction: {error}");
    tokio::time::sleep(PAUSE * *attempt).await;
    *attempt += 1;
}

/// Takes a broken connection out of the pool. Returns whether it had been idle there, so that what failed on it may do
/// better on another.
fn discard(client: Object) -> bool {
    let was_idle = Object::metrics(&client).recycle_count > 0;
    drop(Object::take(client));
    was_idle
}

async fn attempt_transaction<D: Sync + ?Sized, T>(
    client: &mut Object,
    spelling: Spelling,
    data: &D,
    work: for<'w> fn(&'w Transaction<'w>, Spelling, &'w D) -> Work<'w, T>,
    begun: &mut bool,
) -> Answer<T> {
    let transaction = client.transaction().await?;
    *begun = true;
    let result = work(&transaction, spelling, data).await?;
    transaction.commit().await?;
    Ok(result)
}

impl Backend for Postgres {
    async fn files(&self, scopes: Vec<Scope>, sink: Sender<Result<Vec<FileRecord>>>) -> Result<()> {
        self.stream(&(ranges(&scopes), sink), |client, (ranges, sink), begun| {
            Box::pin(read::files(client, ranges, sink, begun))
        })
        .await
    }

    async fn fingerprints(
        &self,
        scopes: Vec<Scope>,
        fingerprinter: Fingerprinter,
        sink: Sender<Result<Vec<Fingerprint>>>,
    ) -> Result<()> {
        self.stream(&(ranges(&scopes), fingerprinter, sink), |client, (ranges, fingerprinter, sink), begun| {
            Box::pin(read::fingerprints(client, ranges, fingerprinter, sink, begun))
        })
        .await
    }

    async fn records(&self, paths: Vec<SyncPath>) -> Result<Vec<FileRecord>> {
        self.run("look up files", &paths, |client, _, paths| Box::pin(read::records(client, paths))).await
    }

    async fn file(&self, path: SyncPath) -> Result<Option<FileRecord>> {
        self.run("look up a file", &path, |client, _, path| Box::pin(read::file(client, path))).await
    }

    async fn known(&self, paths: Vec<SyncPath>) -> Result<Vec<Known>> {
        self.run("look up files", &paths, |client, _, paths| Box::pin(read::known(client, paths))).await
    }

    async fn apply(&self, mut changes: Vec<Change>) -> Result<Vec<SyncPath>> {
        // One order for everybody: two of us never wait for each other's rows.
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        self.transaction("record changed files", &changes, |transaction, spelling, changes| {
            Box::pin(write::apply(transaction, spelling, changes))
        })
        .await
    }

    async fn remove_files(&self, paths: Vec<SyncPath>) -> Result<u64> {
        self.run("remove files", &paths, |client, _, paths| Box::pin(write::remove_files(client, paths))).await
    }

    async fn remove_malformed(&self) -> Result<u64> {
        self.run("remove malformed names", &(), |client, _, ()| Box::pin(write::remove_malformed(client))).await
    }

    async fn dirty(&self, filter: DirtyFilter) -> Result<Vec<DirtyEntry>> {
        let data = (filter.peer, ranges(&filter.scopes));
        self.run("read the dirty files", &data, |client, spelling, (peer, ranges)| {
            Box::pin(read::dirty(client, spelling, peer.as_deref(), ranges))
        })
        .await
    }

    async fn dirty_peers(&self) -> Result<Vec<(String, String)>> {
        self.run("read whom files are dirty for", &(), |client, _, ()| Box::pin(read::dirty_peers(client))).await
    }

    async fn mark(&self, marks: Vec<Mark>, actions: Vec<ScheduledAction>) -> Result<()> {
        self.transaction("mark files as dirty", &(marks, actions), |transaction, spelling, (marks, actions)| {
            Box::pin(write::mark(transaction, spelling, marks, actions))
        })
        .await
    }

    async fn clear(&self, entries: Vec<DirtyEntry>) -> Result<u64> {
        self.run("clear dirty files", &entries, |client, spelling, entries| {
            Box::pin(write::clear(client, spelling, entries))
        })
        .await
    }

    async fn flush(&self, path: SyncPath) -> Result<()> {
        self.run("forget a dirty file", &path, |client, _, path| Box::pin(write::flush(client, path))).await
    }

    async fn force(&self, scopes: Vec<Scope>) -> Result<u64> {
        let ranges = ranges(&scopes);
        self.transaction("force dirty files", &ranges, |transaction, spelling, ranges| {
            Box::pin(write::force(transaction, spelling, ranges))
        })
        .await
    }

    async fn hints(&self) -> Result<Vec<Hint>> {
        self.run("read the hints", &(), |client, _, ()| Box::pin(read::hints(client))).await
    }

    async fn add_hints(&self, hints: Vec<Hint>) -> Result<()> {
        self.run("add hints", &hints, |client, spelling, hints| Box::pin(write::add_hints(client, spelling, hints)))
            .await
    }

    async fn remove_hints(&self, hints: Vec<Hint>) -> Result<u64> {
        self.run("remove hints", &hints, |client, spelling, hints| {
            Box::pin(write::remove_hints(client, spelling, hints))
        })
        .await
    }

    async fn jobs(&self) -> Result<Vec<Job>> {
        self.run("read the scheduled actions", &(), |client, _, ()| Box::pin(read::jobs(client))).await
    }

    async fn job_files(&self, job: Job) -> Result<Vec<JobFile>> {
        self.run("read the files of an action", &job, |client, spelling, job| {
            Box::pin(read::job_files(client, spelling, job))
        })
        .await
    }

    async fn remove_actions(&self, versions: Vec<ActionVersion>) -> Result<u64> {
        self.run("remove scheduled actions", &versions, |client, _, versions| {
            Box::pin(write::remove_actions(client, versions))
        })
        .await
    }

    async fn certificates(&self, peer: Option<String>) -> Result<Vec<(String, Vec<u8>)>> {
        self.run("read pinned certificates", &peer, |client, spelling, peer| {
            Box::pin(read::certificates(client, spelling, peer.as_deref()))
        })
        .await
    }

    async fn pin(&self, peer: String, der: Vec<u8>) -> Result<Vec<u8>> {
        self.transaction("pin a certificate", &(peer, der), |transaction, spelling, (peer, der)| {
            Box::pin(write::pin(transaction, spelling, peer, der))
        })
        .await
    }

    async fn unpin(&self, peer: String) -> Result<bool> {
        self.run("unpin a certificate", &peer, |client, spelling, peer| Box::pin(write::unpin(client, spelling, peer)))
            .await
    }

    async fn next_receives(
        &self,
        receipts: Vec<(Option<IntentId>, Receipt)>,
        intents: Vec<Intent>,
    ) -> Result<Vec<IntentId>> {
        let operation = if intents.is_empty() { "record received files" } else { "begin to receive files" };
        self.run(operation, &(receipts, intents), |client, spelling, (receipts, intents)| {
            Box::pin(write::next_receives(client, spelling, receipts, intents))
        })
        .await
    }

    async fn abandon_receives(&self, ids: Vec<IntentId>) -> Result<()> {
        self.run("abandon receives", &ids, |client, _, ids| Box::pin(write::abandon_receives(client, ids))).await
    }

    async fn intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        self.run("read the receives under way", &(), |client, _, ()| Box::pin(read::intents(client))).await
    }

    async fn claim(&self, claim: Claim) -> Result<String> {
        self.run("claim some work", &claim, |client, spelling, claim| Box::pin(write::claim(client, spelling, claim)))
            .await
    }

    async fn release(&self, subject: String, holder: String) -> Result<()> {
        self.run("end a claim", &(subject, holder), |client, spelling, (subject, holder)| {
            Box::pin(write::release(client, spelling, subject, holder))
        })
        .await
    }

    async fn remembered(&self, about: String) -> Result<String> {
        self.run("read what was warned about", &about, |client, spelling, about| {
            Box::pin(write::remembered(client, spelling, about))
        })
        .await
    }

    async fn remember(&self, about: String, facts: String) -> Result<String> {
        self.transaction("remember a warning", &(about, facts), |transaction, spelling, (about, facts)| {
            Box::pin(write::remember(transaction, spelling, about, facts))
        })
        .await
    }

    fn remarks(&self) -> Vec<String> {
        self.remark.iter().cloned().collect()
    }

    async fn exists(&self) -> bool {
        // A database can be dropped only after its connections have ended, so that the pool makes a new one.
        let client = self.pool.get().await.map_err(Trouble::from);
        !client.is_err_and(|trouble| trouble.is_missing_database())
    }

    async fn close(&self) {
        self.pool.close();
    }
}
