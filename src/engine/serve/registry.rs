//! The configurations that a serving process knows, by the name that peers give in CONFIG.
//!
//! A configuration is read when it is first asked for and again when one of its files changed. Its database is opened
//! only when a peer has passed HELLO's address check, and again when it was removed meanwhile; configurations that name
//! the same database, and want as much of it durable, share its handle.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, Semaphore};

use crate::config::{Config, Tls};
use crate::engine::open::{NodeSettings, OpenError};
use crate::engine::{EngineError, Node, recover};
use crate::store::{Durability, Location, Store};
use crate::wire::{Identity, TlsError};

/// Names that no configuration has and that are looked up at the same time, for peers that claim to have them.
const UNKNOWN_NAMES: usize = 8;

/// Reads configurations and opens their databases on demand.
#[derive(Debug)]
pub struct Registry {
    settings: NodeSettings,
    known: Mutex<HashMap<String, Arc<Known>>>,
    /// Opened by whoever needs it first, while others wait for that one only.
    databases: Mutex<Vec<(Database, Arc<Opened>)>>,
    identity: Mutex<Option<Presented>>,
    unknown_names: Semaphore,
    sessions: AtomicU64,
}

/// One configuration, and what serves it once that is needed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: Arc<Config>,
    /// Of all files it was read from.
    stamps: Stamps,
    served: Mutex<Option<Arc<Node>>>,
}

/// What every client of TLS is shown, and of which files it was made.
#[derive(Debug)]
struct Presented {
    tls: Tls,
    stamps: Stamps,
    identity: Identity,
}

/// Where a database is, and what of it is to be durable.
type Database = (Location, Durability);

/// The same once it was opened.
type Opened = Mutex<Option<Store>>;

/// Changes whenever a file is replaced or written: device, inode, size, ctime in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// `None`: the file was not there.
type Stamps = Vec<(PathBuf, Option<Stamp>)>;

impl Registry {
    #[must_use]
    pub fn new(settings: NodeSettings) -> Self {
        Self {
            settings,
            known: Mutex::default(),
            databases: Mutex::default(),
            identity: Mutex::default(),
            unknown_names: Semaphore::new(UNKNOWN_NAMES),
            sessions: AtomicU64::new(0),
        }
    }

    /// Names a session among all sessions of all processes: what it leaves unfinished can be told from the others'.
    pub(super) fn holder(&self) -> String {
        format!("{} {}", recover::holder(), self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// Turns at looking up names that the configuration does not have.
    pub(super) fn unknown_names(&self) -> &Semaphore {
        &self.unknown_names
    }

    /// The configuration of that name; empty: the one given to `-C`.
    pub(super) async fn config(&self, name: &str) -> Result<Arc<Known>, OpenError> {
        let name = self.full_name(name);
        let mut known = self.known.lock().await;
        if let Some(entry) = known.get(name)
            && are_current(&entry.stamps)
        {
            return Ok(Arc::clone(entry));
        }
        let config = self.settings.load(name).await?;
        let mut files = config.files.clone();
        files.extend(config.tls.files().cloned());
        let stamps = stamps(files);
        let entry = Arc::new(Known { config: Arc::new(config), stamps, served: Mutex::default() });
        known.insert(name.to_owned(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Our certificate and key: those of our own configuration, since a client names its one only behind the handshake.
    pub(super) async fn identity(&self) -> Result<Identity, TlsError> {
        let tls = match self.config("").await {
            Ok(known) => known.config.tls.clone(),
            // The client learns it when it asks for that configuration, and it may ask for another.
            Err(_) => Tls::in_directory(&self.settings.system_dir),
        };
        let mut presented = self.identity.lock().await;
        if let Some(presented) = &*presented
            && presented.tls == tls
            && are_current(&presented.stamps)
        {
            return Ok(presented.identity.clone());
        }
        let stamps = stamps(tls.files().cloned());
        let identity = Identity::load(&tls.certificate, &tls.key, tls.legacy)?;
        Ok(presented.insert(Presented { tls, stamps, identity }).identity.clone())
    }

    /// The node of a configuration, its database open and what a crash left behind put in order.
    pub(super) async fn serve(&self, name: &str, known: &Known) -> Result<Arc<Node>, OpenError> {
        let mut served = known.served.lock().await;
        if let Some(node) = &*served
            && node.store.exists().await
        {
            return Ok(Arc::clone(node));
        }
        let name = self.full_name(name);
        let store = self.database(name, &known.config).await?;
        self.settings.warn(&known.config, name, &store).await?;
        let node = Arc::new(self.settings.node(Arc::clone(&known.config), name, store));
        match recover::recover(&node).await {
            Ok(()) => Ok(Arc::clone(served.insert(node))),
            Err(EngineError::Store(error)) => Err(OpenError::Store(error)),
            Err(error) => Err(OpenError::Engine(error)),
        }
    }

    async fn database(&self, name: &str, config: &Config) -> Result<Store, OpenError> {
        let location = self.settings.location(config, name)?;
        let database = (location.clone(), self.settings.durability(&location, config));
        let cell = {
            let mut databases = self.databases.lock().await;
            let known = databases.iter().find(|(known, _)| *known == database).map(|(_, cell)| Arc::clone(cell));
            known.unwrap_or_else(|| {
                let cell = Arc::default();
                databases.push((database, Arc::clone(&cell)));
                cell
            })
        };
        let mut opened = cell.lock().await;
        if let Some(store) = &*opened
            && store.exists().await
        {
            return Ok(store.clone());
        }
        let store = self.settings.open_store(&location, config).await?;
        // Peers have a few rows written at a time.
        store.shrink().await;
        Ok(opened.insert(store).clone())
    }

    fn full_name<'n>(&'n self, name: &'n str) -> &'n str {
        if name.is_empty() { &self.settings.config_name } else { name }
    }
}

fn stamps(files: impl IntoIterator<Item = PathBuf>) -> Stamps {
    files.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

fn are_current(stamps: &Stamps) -> bool {
    stamps.iter().all(|(path, before)| stamp(path) == *before)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}
