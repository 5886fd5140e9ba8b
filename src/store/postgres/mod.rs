//! PostgreSQL: a pool of connections, made once for each [`super::Store`].
//!
//! Every operation is one transaction or one statement, sends its rows as arrays, and holds one connection until it has
//! its answer. Streams of rows have a bound of their own on top of that, half of the pool, so that operations always
//! find a connection whatever is being read. Waits for a connection and for locks end after the lock timeout.

mod connect;
mod history;
mod migrate;
mod read;
mod receives;
pub(super) mod remedy;
mod retry;
mod tls;
mod together;
mod transfer;
mod trouble;
mod values;
mod write;

use std::ops::ControlFlow;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Transaction};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender};

use self::connect::Connector;
use self::retry::Retry;
use self::trouble::{Remedy, Trouble};
use super::backend::Backend;
use super::error::{ErrorKind, Result, StoreError};
use super::history::{Moments, Record};
use super::spelling::{Spelling, ranges};
use super::transfer::{Imported, Row};
use super::url::PostgresUrl;
use super::{Change, Claim, DirtyFilter, Hint, HintVersion, Intent, IntentId, Known, Receipt, StoreOptions};
use crate::model::{
    ActionVersion, DirtyEntry, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark, ScheduledAction, Scope,
    Standing, SyncPath,
};

/// What a statement or a sequence of them gives.
type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// A sequence of statements under way.
type Work<'w, T> = BoxFuture<'w, Answer<T>>;

/// An open PostgreSQL database.
#[derive(Debug)]
pub(super) struct Postgres {
    pool: Pool,
    streams: Semaphore,
    /// How long a server is waited for that was there before.
    patience: Duration,
    /// The name in messages.
    database: String,
    spelling: Spelling,
    /// What a person should know about the connection.
    remark: Option<String>,
}

impl Postgres {
    pub(super) async fn open(url: &PostgresUrl, options: &StoreOptions) -> Result<Self> {
        let (opened, mut client, version) = Self::connect(url, options, !options.must_exist).await?;
        migrate::migrate(&mut client, &opened.database, opened.patience, version).await?;
        Ok(opened)
    }

    /// Opens a database that is there as it is, for reading it as a whole.
    pub(super) async fn look_at(url: &PostgresUrl, options: &StoreOptions) -> Result<Self> {
        let (opened, client, _) = Self::connect(url, options, false).await?;
        let database = opened.database.as_str();
        let failed = |error| Trouble::from(error).while_opening(database);
        match migrate::version(&client).await.map_err(failed)? {
            Some(found) if found > migrate::SCHEMA_VERSION => {
                let known = migrate::SCHEMA_VERSION;
                return Err(StoreError::NewerSchema { database: database.to_owned(), found, known });
            }
            _ => {}
        }
        if !transfer::tables(&client).await.map_err(failed)?.iter().any(|table| table == "file") {
            let (database, source) = (database.to_owned(), "it holds no tables of csync2".into());
            return Err(StoreError::Open { database, kind: ErrorKind::Other, source });
        }
        drop(client);
        Ok(opened)
    }

    /// Makes the pool and its first connection, which may have seen the version of the tables; with `may_create` the
    /// database, too.
    async fn connect(
        url: &PostgresUrl,
        options: &StoreOptions,
        may_create: bool,
    ) -> Result<(Self, Object, Option<i64>)> {
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
        let patience = options.lock_timeout;
        let mut retry = Retry::new("open the database", patience);
        let client = loop {
            match pool.get().await.map_err(Trouble::from) {
                Ok(client) => break client,
                Err(trouble) if trouble.is_missing_database() && may_create => {
                    connector.create_database(&config).await.map_err(failed)?;
                    break pool.get().await.map_err(|error| failed(error.into()))?;
                }
                // One where nobody listens may never have been there.
                Err(trouble) if trouble.remedy() != Remedy::WaitForPlace || !retry.after(&trouble).await => {
                    return Err(failed(trouble));
                }
                Err(_) => {}
            }
        };
        let first = connector.first_sight();
        let spelling = first.map_or(Spelling::Utf8, |first| first.spelling);
        let streams = Semaphore::new(connections);
        let opened = Self { pool, streams, patience, database, spelling, remark };
        Ok((opened, client, first.and_then(|first| first.version)))
    }

    /// Runs an operation that is one statement, or makes its transaction itself.
    async fn run<D: Sync + ?Sized, T>(
        &self,
        operation: &'static str,
        data: &D,
        work: for<'w> fn(&'w Object, Spelling, &'w D) -> Work<'w, T>,
    ) -> Result<T> {
        let mut retry = self.retry(operation);
        loop {
            let (client, answer) = match self.pool.get().await {
                Ok(client) => {
                    let answer = work(&client, self.spelling, data).await.map_err(Trouble::from);
                    (Some(client), answer)
                }
                Err(error) => (None, Err(error.into())),
            };
            if let ControlFlow::Break(result) = self.judge(&mut retry, client, answer).await {
                return result;
            }
        }
    }

    /// Runs what sends what it reads, on one of the connections for streams; again, as long as nothing was
    /// sent.
    async fn stream<D: Sync + ?Sized>(
        &self,
        operation: &'static str,
        data: &D,
        work: for<'w> fn(&'w mut Object, &'w D, &'w mut bool) -> Work<'w, ()>,
    ) -> Result<()> {
        // Never closed: there is always a permit, sooner or later.
        let _permit = self.streams.acquire().await;
        let mut retry = self.retry(operation);
        loop {
            let mut begun = false;
            let (client, answer) = match self.pool.get().await {
                Ok(mut client) => {
                    let answer = work(&mut client, data, &mut begun).await.map_err(Trouble::from);
                    (Some(client), answer.map_err(|trouble| if begun { trouble.for_good() } else { trouble }))
                }
                Err(error) => (None, Err(error.into())),
            };
            if let ControlFlow::Break(result) = self.judge(&mut retry, client, answer).await {
                return result;
            }
        }
    }

    /// Runs a transaction.
    async fn transaction<D: Sync + ?Sized, T>(
        &self,
        operation: &'static str,
        data: &D,
        work: for<'w> fn(&'w Transaction<'w>, Spelling, &'w D) -> Work<'w, T>,
    ) -> Result<T> {
        let mut retry = self.retry(operation);
        loop {
            let (client, answer) = match self.pool.get().await {
                Ok(mut client) => {
                    let answer = attempt(&mut client, self.spelling, data, work).await.map_err(Trouble::from);
                    (Some(client), answer)
                }
                Err(error) => (None, Err(error.into())),
            };
            if let ControlFlow::Break(result) = self.judge(&mut retry, client, answer).await {
                return result;
            }
        }
    }

    fn retry(&self, operation: &'static str) -> Retry {
        Retry::new(operation, self.patience)
    }

    /// The end of an attempt: of the whole operation, unless another attempt may do better. `client` is what it was made
    /// with: one that is broken is taken out of the pool.
    async fn judge<T>(
        &self,
        retry: &mut Retry,
        client: Option<Object>,
        answer: std::result::Result<T, Trouble>,
    ) -> ControlFlow<Result<T>> {
        let trouble = match answer {
            Ok(answer) => return ControlFlow::Break(Ok(answer)),
            Err(trouble) => trouble,
        };
        if trouble.is_lost() {
            drop(client.map(Object::take));
        } else {
            drop(client);
        }
        if retry.after(&trouble).await {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Err(trouble.during(retry.operation(), &self.database)))
    }
}

async fn attempt<D: Sync + ?Sized, T>(
    client: &mut Object,
    spelling: Spelling,
    data: &D,
    work: for<'w> fn(&'w Transaction<'w>, Spelling, &'w D) -> Work<'w, T>,
) -> Answer<T> {
    let transaction = client.transaction().await?;
    let result = work(&transaction, spelling, data).await?;
    transaction.commit().await?;
    Ok(result)
}

impl Backend for Postgres {
    async fn files(&self, scopes: Vec<Scope>, sink: Sender<Result<Vec<FileRecord>>>) -> Result<()> {
        self.stream("read the known files", &(ranges(&scopes), sink), |client, (ranges, sink), begun| {
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
        self.stream(
            "read the known files",
            &(ranges(&scopes), fingerprinter, sink),
            |client, (ranges, fingerprinter, sink), begun| {
                Box::pin(read::fingerprints(client, ranges, fingerprinter, sink, begun))
            },
        )
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
            Box::pin(read::dirty(&***client, spelling, peer.as_deref(), ranges))
        })
        .await
    }

    async fn marks(&self, filter: DirtyFilter, sink: Sender<Result<Vec<DirtyEntry>>>) -> Result<()> {
        let data = (self.spelling, filter.peer, ranges(&filter.scopes), sink);
        self.stream("read the dirty files", &data, |client, (spelling, peer, ranges, sink), begun| {
            Box::pin(read::marks(&***client, *spelling, peer.as_deref(), ranges, sink, begun))
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

    async fn hint_versions(&self, hint: Hint) -> Result<Vec<HintVersion>> {
        self.run("read a hint", &hint, |client, spelling, hint| Box::pin(read::hint_versions(client, spelling, hint)))
            .await
    }

    async fn remove_hints(&self, versions: Vec<HintVersion>) -> Result<u64> {
        self.run("remove hints", &versions, |client, _, versions| Box::pin(write::remove_hints(client, versions))).await
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
        let step = receives::Step::new(receipts, intents);
        self.run(operation, &step, |client, spelling, step| Box::pin(receives::next_receives(client, spelling, step)))
            .await?;
        Ok(step.begun())
    }

    async fn abandon_receives(&self, ids: Vec<IntentId>) -> Result<()> {
        self.run("abandon receives", &ids, |client, _, ids| Box::pin(receives::abandon_receives(client, ids))).await
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

    async fn record(&self, record: Record) -> Result<()> {
        self.run("record how it went", &record, |client, spelling, record| {
            Box::pin(history::record(client, spelling, record))
        })
        .await
    }

    async fn standing(&self) -> Result<(Standing, Moments)> {
        self.run("read how things are", &(), |client, _, ()| Box::pin(history::standing(client))).await
    }

    async fn snapshot(&self, sink: Sender<Result<Vec<Row>>>) -> Result<()> {
        self.stream("read the tables", &sink, |client, sink, begun| Box::pin(transfer::read(client, sink, begun))).await
    }

    async fn import(&self, mut source: Receiver<Result<Vec<Row>>>) -> Result<Imported> {
        let failed = |trouble: Trouble| trouble.during("import a state", &self.database);
        // Once: what has been read from the source is not read again.
        let mut client = self.pool.get().await.map_err(|error| failed(error.into()))?;
        let outcome = transfer::import(&mut client, self.spelling, &mut source).await;
        outcome.map_err(|error| failed(error.into()))?.into_result(&self.database)
    }

    fn remarks(&self) -> Vec<String> {
        self.remark.iter().cloned().collect()
    }

    /// The server keeps it.
    async fn shrink(&self) {}

    async fn exists(&self) -> bool {
        // A database can be dropped only after its connections have ended, so that the pool makes a new one.
        let client = self.pool.get().await.map_err(Trouble::from);
        !client.is_err_and(|trouble| trouble.is_missing_database())
    }

    async fn close(&self) {
        self.pool.close();
    }
}
