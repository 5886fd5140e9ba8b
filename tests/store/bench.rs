//! What the stories need: a fresh database of either engine, and short ways to make rows.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use csync2::model::{
    Checktxt, DirtyEntry, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark, ScheduledAction, Scope, SyncPath,
};
use csync2::store::{Change, DirtyFilter, Location, Store, StoreOptions};

use crate::support::Postgres;

/// A database that goes when this is dropped.
pub(crate) struct Bench {
    pub(crate) url: String,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) cluster: Option<Arc<Postgres>>,
}

/// The cluster of all tests that run at the moment; the last of them stops it.
static CLUSTER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

pub(crate) fn cluster() -> Arc<Postgres> {
    let mut shared = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Postgres::start());
        *shared = Arc::downgrade(&started);
        started
    })
}

/// A name for a database that no other test of this process has.
pub(crate) fn database_name() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("db{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

impl Bench {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite3://{}/state.db3", directory.path().display());
        Self { url, directory, cluster: None }
    }

    /// A database with the given options of CREATE DATABASE; without: one that the store has to make itself.
    pub(crate) fn postgres(options: Option<&str>) -> Self {
        let cluster = cluster();
        let name = database_name();
        let url = match options {
            Some(options) => cluster.database(&name, options),
            None => cluster.url(&name),
        };
        Self { url, directory: tempfile::tempdir().unwrap(), cluster: Some(cluster) }
    }

    pub(crate) fn location(&self) -> Location {
        Location::resolve(Some(&self.url), "1.csync2.test", "").unwrap()
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.location(), &options()).await.unwrap()
    }

    /// The name of the PostgreSQL database.
    pub(crate) fn database(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// Runs SQL past the store, as the C program or an administrator would; rows as `a|b` lines.
    pub(crate) fn sql(&self, statements: &str) -> String {
        if let Some(cluster) = &self.cluster {
            return cluster.sql(self.database(), statements);
        }
        let path = self.url.strip_prefix("sqlite3://").unwrap();
        let output = std::process::Command::new("sqlite3").arg(path).arg(statements).output().expect("sqlite3");
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions { lock_timeout: Duration::from_secs(20), max_connections: 4, ..StoreOptions::default() }
}

pub(crate) fn path(name: impl AsRef<[u8]>) -> SyncPath {
    SyncPath::parse(name.as_ref()).unwrap()
}

pub(crate) fn checktxt(text: &str) -> Checktxt {
    Checktxt::from_text(text.as_bytes())
}

pub(crate) fn record(name: impl AsRef<[u8]>, text: &str) -> FileRecord {
    FileRecord {
        path: path(name),
        checktxt: checktxt(text),
        mtime_ns: None,
        ctime_ns: None,
        device: None,
        digest: None,
    }
}

pub(crate) fn mark(name: impl AsRef<[u8]>, peer: &str) -> Mark {
    Mark { path: path(name), my_name: "me".into(), peer: peer.into(), forced: false }
}

pub(crate) fn action(name: impl AsRef<[u8]>, command: &str) -> ScheduledAction {
    ScheduledAction { path: path(name), command: command.into(), logfile: b"/dev/null".to_vec() }
}

/// What is scheduled: command and name, in the order in which it would run.
pub(crate) async fn scheduled(store: &Store) -> Vec<(String, SyncPath)> {
    let mut scheduled = Vec::new();
    for (job, file) in job_files(store).await {
        scheduled.push((job.shown().into_owned(), file.path));
    }
    scheduled
}

/// The same with the rows' versions.
pub(crate) async fn job_files(store: &Store) -> Vec<(Job, JobFile)> {
    let mut rows = Vec::new();
    for job in store.jobs().await.unwrap() {
        rows.extend(store.job_files(&job).await.unwrap().into_iter().map(|file| (job.clone(), file)));
    }
    rows
}

/// Removes everything that is scheduled.
pub(crate) async fn remove_all_actions(store: &Store) -> u64 {
    let versions: Vec<_> = job_files(store).await.into_iter().map(|(_, file)| file.version).collect();
    store.remove_actions(&versions).await.unwrap()
}

/// A change from one checktxt (`None`: no row) to another, without marks.
pub(crate) fn change(name: impl AsRef<[u8]>, from: Option<&str>, to: Option<&str>) -> Change {
    Change {
        path: path(&name),
        expected: from.map(checktxt),
        record: to.map(|text| record(&name, text)),
        marks: Vec::new(),
        actions: Vec::new(),
    }
}

/// Everything in the file table, or in a part of it. Whoever asks for the same rows in another way gets the same.
pub(crate) async fn files(store: &Store, scopes: Vec<Scope>) -> Vec<FileRecord> {
    let mut chunks = store.files(scopes.clone());
    let mut records = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        records.extend(chunk.unwrap());
    }
    let fingerprinter = Fingerprinter::random();
    let mut chunks = store.fingerprints(scopes, fingerprinter.clone());
    let mut found = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        found.extend(chunk.unwrap());
    }
    let mut expected: Vec<Fingerprint> = records.iter().map(|record| fingerprinter.of(record)).collect();
    for prints in [&mut found, &mut expected] {
        prints.sort_by_key(|print| (print.name, print.state));
    }
    assert_eq!(found, expected, "{records:?}");
    let paths: Vec<SyncPath> = records.iter().map(|record| record.path.clone()).collect();
    let mut looked_up = store.records(&paths).await.unwrap();
    looked_up.sort_by(|one, other| one.path.cmp(&other.path));
    assert_eq!(looked_up, records);
    records
}

pub(crate) async fn names(store: &Store, scopes: Vec<Scope>) -> Vec<SyncPath> {
    files(store, scopes).await.into_iter().map(|record| record.path).collect()
}

pub(crate) async fn dirty(store: &Store) -> Vec<DirtyEntry> {
    store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::All] }).await.unwrap()
}
