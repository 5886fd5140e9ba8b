//! The configurations that a serving process knows, by the name that peers give in CONFIG.
//!
//! A configuration is read when it is first asked for and again when one of its files changed. Its database is opened
//! only when a peer has passed HELLO's address check; configurations that name the same database share its handle.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Mutex, OnceCell};

use crate::config::Config;
use crate::engine::open::{NodeSettings, OpenError};
use crate::engine::{EngineError, Node, recover};
use crate::store::Store;

/// Reads configurations and opens their databases on demand.
#[derive(Debug)]
pub struct Registry {
    settings: NodeSettings,
    known: Mutex<HashMap<String, Arc<Known>>>,
    /// By the database's name.
    stores: Mutex<HashMap<String, Store>>,
}

/// One configuration, and its node once that is needed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: Arc<Config>,
    stamps: Vec<(PathBuf, Option<SystemTime>)>,
    node: OnceCell<Arc<Node>>,
}

impl Registry {
    #[must_use]
    pub fn new(settings: NodeSettings) -> Self {
        Self { settings, known: Mutex::default(), stores: Mutex::default() }
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The configuration of that name; empty: the one given to `-C`.
    pub(super) async fn config(&self, name: &str) -> Result<Arc<Known>, OpenError> {
        let name = if name.is_empty() { self.settings.config_name.as_str() } else { name };
        let mut known = self.known.lock().await;
        if let Some(entry) = known.get(name)
            && entry.stamps.iter().all(|(path, stamp)| modified(path) == *stamp)
        {
            return Ok(Arc::clone(entry));
        }
        let config = self.settings.load(name)?;
        let mut files = config.files.clone();
        files.extend(["csync2_ssl_cert.pem", "csync2_ssl_key.pem"].map(|file| self.settings.system_dir.join(file)));
        let stamps = files.into_iter().map(|path| (path.clone(), modified(&path))).collect();
        let entry = Arc::new(Known { config: Arc::new(config), stamps, node: OnceCell::new() });
        known.insert(name.to_owned(), Arc::clone(&entry));
        Ok(entry)
    }

    /// The node of a configuration, its database open and what a crash left behind put in order.
    pub(super) async fn node(&self, name: &str, known: &Known) -> Result<Arc<Node>, OpenError> {
        let name = if name.is_empty() { self.settings.config_name.as_str() } else { name };
        let open = || async {
            let location = self.settings.location(&known.config, name)?;
            let mut stores = self.stores.lock().await;
            let store = if let Some(store) = stores.get(&location.to_string()) {
                store.clone()
            } else {
                let store = self.settings.open_store(&location, &known.config).await?;
                stores.insert(location.to_string(), store.clone());
                store
            };
            drop(stores);
            let node = Arc::new(self.settings.node(Arc::clone(&known.config), name, store));
            match recover::recover(&node).await {
                Ok(()) => Ok(node),
                Err(EngineError::Store(error)) => Err(OpenError::Store(error)),
                Err(error) => Err(OpenError::Engine(error)),
            }
        };
        known.node.get_or_try_init(open).await.cloned()
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
