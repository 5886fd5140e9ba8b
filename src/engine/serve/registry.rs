//! The configurations that a serving process knows, by the name that peers give in CONFIG.
//!
//! A configuration is read when it is first asked for and again when one of its files changed. Its database is opened
//! only when a peer has passed HELLO's address check; configurations that name the same database share its handle.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, OnceCell};

use crate::config::Config;
use crate::engine::open::{NodeSettings, OpenError};
use crate::engine::{EngineError, Node, recover};
use crate::store::{Location, Store};

/// Reads configurations and opens their databases on demand.
#[derive(Debug)]
pub struct Registry {
    settings: NodeSettings,
    known: Mutex<HashMap<String, Arc<Known>>>,
    /// Opened by whoever needs it first, while others wait for that one only.
    databases: Mutex<Vec<(Location, Arc<OnceCell<Store>>)>>,
    sessions: AtomicU64,
}

/// One configuration, and what serves it once that is needed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: Arc<Config>,
    /// Of all files it was read from; `None`: the file was not there.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    served: OnceCell<Arc<Node>>,
}

/// Changes whenever a file is replaced or written: device, inode, size, ctime in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Registry {
    #[must_use]
    pub fn new(settings: NodeSettings) -> Self {
        Self { settings, known: Mutex::default(), databases: Mutex::default(), sessions: AtomicU64::new(0) }
    }

    /// Names a session among all sessions of all processes: what it leaves unfinished can be told from the others'.
    pub(super) fn holder(&self) -> String {
        format!("{} {}", recover::holder(), self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The configuration of that name; empty: the one given to `-C`.
    pub(super) async fn config(&self, name: &str) -> Result<Arc<Known>, OpenError> {
        let name = self.full_name(name);
        let mut known = self.known.lock().await;
        if let Some(entry) = known.get(name)
            && entry.stamps.iter().all(|(path, before)| stamp(path) == *before)
        {
            return Ok(Arc::clone(entry));
        }
        let config = self.settings.load(name).await?;
        let mut files = config.files.clone();
        files.extend(["csync2_ssl_cert.pem", "csync2_ssl_key.pem"].map(|file| self.settings.system_dir.join(file)));
        let stamps = files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        let entry = Arc::new(Known { config: Arc::new(config), stamps, served: OnceCell::new() });
        known.insert(name.to_owned(), Arc::clone(&entry));
        Ok(entry)
    }

    /// The node of a configuration, its database open and what a crash left behind put in order.
    pub(super) async fn serve(&self, name: &str, known: &Known) -> Result<Arc<Node>, OpenError> {
        let open = || async {
            let name = self.full_name(name);
            let store = self.database(name, &known.config).await?;
            self.settings.warn(&known.config, name, &store).await?;
            let node = Arc::new(self.settings.node(Arc::clone(&known.config), name, store));
            match recover::recover(&node).await {
                Ok(()) => Ok(node),
                Err(EngineError::Store(error)) => Err(OpenError::Store(error)),
                Err(error) => Err(OpenError::Engine(error)),
            }
        };
        known.served.get_or_try_init(open).await.cloned()
    }

    async fn database(&self, name: &str, config: &Config) -> Result<Store, OpenError> {
        let location = self.settings.location(config, name)?;
        let cell = {
            let mut databases = self.databases.lock().await;
            let known = databases.iter().find(|(known, _)| *known == location).map(|(_, cell)| Arc::clone(cell));
            known.unwrap_or_else(|| {
                let cell = Arc::default();
                databases.push((location.clone(), Arc::clone(&cell)));
                cell
            })
        };
        cell.get_or_try_init(|| self.settings.open_store(&location, config)).await.cloned()
    }

    fn full_name<'n>(&'n self, name: &'n str) -> &'n str {
        if name.is_empty() { &self.settings.config_name } else { name }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}
