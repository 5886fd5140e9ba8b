//! From settings to a [`Node`]: reads the configuration, checks that this host is in it, opens the database.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::membership::{self, Purpose};
use super::{EngineError, Node, Place};
use crate::config::{Config, ConfigError, Selection, Source};
use crate::store::{Location, Store, StoreError, StoreOptions};

/// What was given on the command line and in the environment, as far as it says where a node stands.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub system_dir: PathBuf,
    /// `-C`; empty without one.
    pub config_name: String,
    /// This host's name, in lower case.
    pub my_name: String,
    /// `-N` as it was given: the address to bind.
    pub bind: Option<String>,
    pub port: u16,
    /// `-G`.
    pub groups: Option<Vec<String>>,
    /// `-D`.
    pub database: Option<String>,
    /// `-A`.
    pub asynchronous: bool,
    /// For listings: a database that may not be written is opened all the same.
    pub read_only: bool,
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("This host ({my_name}) is not a member of any configured group.{}", others(.hosts))]
    NotAMember { my_name: String, hosts: Vec<String> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn others(hosts: &[String]) -> String {
    let names: BTreeSet<&str> = hosts.iter().map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!("\nThe configuration names these hosts: {}. Choose one with -N NAME.", names.join(" "))
}

/// Copies that peers get would be backed up there, and come back as more copies.
fn warn_of_shared_backups(config: &Config) {
    for backup in config.groups.iter().filter_map(|group| group.backup.as_ref()) {
        let names = config.names_of(backup.directory.as_os_str().as_encoded_bytes());
        if names.iter().any(|name| membership::is_covered(config, name, Purpose::Sync)) {
            tracing::info!(
                "WARNING: the backup-directory {} lies among the files that are kept in step: its copies are sent to \
                 the peers. An `exclude' keeps them here.",
                backup.directory.display()
            );
        }
    }
}

impl NodeSettings {
    /// Reads a configuration in which this host is a member of a group.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(&self, config_name: &str) -> Result<Config, OpenError> {
        let source = Source { system_dir: self.system_dir.clone(), config_name: config_name.to_owned() };
        let selection = Selection { my_name: self.my_name.clone(), groups: self.groups.clone() };
        let config = Config::load(&source, &selection)?;
        for warning in &config.warnings {
            tracing::info!("WARNING: {warning}");
        }
        warn_of_shared_backups(&config);
        if config.groups.is_empty() {
            return Err(OpenError::NotAMember { my_name: self.my_name.clone(), hosts: config.all_host_names });
        }
        Ok(config)
    }

    /// Which database a configuration uses: `-D`, its own word, or the default.
    ///
    /// # Errors
    /// A URL that cannot be understood.
    pub fn location(&self, config: &Config, config_name: &str) -> Result<Location, OpenError> {
        let database = self.database.as_deref().or(config.database.as_deref());
        Ok(Location::resolve(database, &self.my_name, config_name)?)
    }

    /// Opens a database.
    ///
    /// # Errors
    /// Which one, and why not.
    pub async fn open_store(&self, location: &Location, config: &Config) -> Result<Store, OpenError> {
        tracing::debug!("Database: {location}");
        let options = StoreOptions {
            lock_timeout: config.lock_timeout,
            asynchronous: self.asynchronous,
            read_only: self.read_only,
            ..StoreOptions::default()
        };
        Ok(Store::open(location, &options).await?)
    }

    /// Puts a node together.
    #[must_use]
    pub fn node(&self, config: Arc<Config>, config_name: &str, store: Store) -> Node {
        let place = Place {
            system_dir: self.system_dir.clone(),
            config_name: config_name.to_owned(),
            groups: self.groups.clone(),
            bind: self.bind.clone(),
            port: self.port,
        };
        Node::new(config, store, place)
    }

    /// All of it, for one run.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub async fn open(&self) -> Result<Arc<Node>, OpenError> {
        let config = self.load(&self.config_name)?;
        let location = self.location(&config, &self.config_name)?;
        let store = self.open_store(&location, &config).await?;
        Ok(Arc::new(self.node(Arc::new(config), &self.config_name, store)))
    }
}
