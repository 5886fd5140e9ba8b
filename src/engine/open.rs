//! From settings to a [`Node`]: reads the configuration, checks that this host is in it, opens the database.

use std::path::PathBuf;
use std::sync::Arc;

use super::identify::Names;
use super::membership::{self, Purpose};
use super::{EngineError, Node, Place, notice};
use crate::config::{Config, ConfigError, Selection, Source};
use crate::store::{Durability, Location, Store, StoreError, StoreOptions};

/// What was given on the command line and in the environment, as far as it says where a node stands.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch, and independent")]
pub struct NodeSettings {
    pub system_dir: PathBuf,
    /// `-C`; empty without one.
    pub config_name: String,
    /// This host's name, in lower case.
    pub my_name: String,
    /// `-N` as it was given: the address to bind.
    pub bind: Option<String>,
    /// `--auto-name`: a host whose name is in no group takes the only name of the configuration that can be its own.
    pub auto_name: bool,
    pub port: u16,
    /// `-G`.
    pub groups: Option<Vec<String>>,
    /// `-D`.
    pub database: Option<String>,
    /// `-A`.
    pub asynchronous: bool,
    /// `--no-batches`: as `batches no` in every configuration.
    pub no_batches: bool,
    /// `--no-legacy-tls`: as `legacy-tls no` in every configuration.
    pub no_legacy_tls: bool,
    /// For listings: a database that may not be written is opened all the same.
    pub read_only: bool,
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("This host ({my_name}) is not a member of any configured group.\n{advice}")]
    NotAMember { my_name: String, advice: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How a configuration is read.
type Load = fn(&Source, &Selection) -> Result<Config, ConfigError>;

/// Copies that peers get would be backed up there, and come back as more copies.
pub(super) fn shared_backups(config: &Config) -> impl Iterator<Item = String> {
    let directories = config.groups.iter().filter_map(|group| group.backup.as_ref()).map(|backup| &backup.directory);
    let shared = directories.filter(|directory| {
        let names = config.names_of(directory.as_os_str().as_encoded_bytes());
        names.iter().any(|name| membership::is_covered(config, name, Purpose::Sync))
    });
    shared.map(|directory| {
        format!(
            "the backup-directory {} lies among the files that are kept in step: its copies are sent to the peers. An \
             `exclude` keeps them here.",
            directory.display()
        )
    })
}

impl NodeSettings {
    /// Reads a configuration in which this host is a member of a group: under its name, or, where that was asked for and
    /// `-N` was not given, under the only name that resolves to an address of this machine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn load(&self, config_name: &str) -> Result<Config, OpenError> {
        let mut config = self.load_as_member(config_name, Config::load).await?;
        config.batches &= !self.no_batches;
        config.tls.legacy &= !self.no_legacy_tls;
        Ok(config)
    }

    /// The same for a person who wants to know what is to be said of the configuration (see [`Config::inspect`]), and what
    /// keeps this host from using it all the same.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn inspect(&self) -> Result<(Config, Result<(), OpenError>), OpenError> {
        match self.load_as_member(&self.config_name, Config::inspect).await {
            Ok(config) => {
                let usable = self.location(&config, &self.config_name).map(drop);
                Ok((config, usable))
            }
            Err(error @ OpenError::NotAMember { .. }) => {
                Ok((Config::inspect(&self.source(&self.config_name), &self.selection())?, Err(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn source(&self, config_name: &str) -> Source {
        Source { system_dir: self.system_dir.clone(), config_name: config_name.to_owned() }
    }

    fn selection(&self) -> Selection {
        Selection { my_name: self.my_name.clone(), groups: self.groups.clone() }
    }

    async fn load_as_member(&self, config_name: &str, load: Load) -> Result<Config, OpenError> {
        let (source, mut selection) = (self.source(config_name), self.selection());
        let config = load(&source, &selection)?;
        if !config.groups.is_empty() {
            return Ok(config);
        }
        let refused = |advice| OpenError::NotAMember { my_name: self.my_name.clone(), advice };
        if config.all_host_names.contains(&self.my_name) {
            return Err(refused("It is in a group, but in none of those that were chosen with -G.".to_owned()));
        }
        let auto_name = self.bind.is_none() && (self.auto_name || config.auto_name);
        let names = Names::find(&config.all_host_names).await;
        let Some(name) = names.only().filter(|_| auto_name) else { return Err(refused(names.advice(auto_name))) };
        selection.my_name = name.to_owned();
        let mut config = load(&source, &selection)?;
        if config.groups.is_empty() {
            return Err(refused(format!("{name}, which --auto-name finds, is in none of the groups chosen with -G.")));
        }
        let fact = format!(
            "{} is in no group; this host goes by the name {name}, the only one that resolves to an address of this \
             machine (--auto-name)",
            self.my_name
        );
        config.warnings.push(fact.into());
        Ok(config)
    }

    /// Which database a configuration uses: `-D`, its own word, or the default.
    ///
    /// # Errors
    /// A URL that cannot be understood.
    pub fn location(&self, config: &Config, config_name: &str) -> Result<Location, OpenError> {
        let database = self.database.as_deref().or(config.database.as_deref());
        Ok(Location::resolve(database, &config.my_name, config_name)?)
    }

    /// What of a database is to be durable: of PostgreSQL's all or nothing.
    #[must_use]
    pub fn durability(&self, location: &Location, config: &Config) -> Durability {
        match (self.asynchronous, config.durable, location) {
            (true, ..) => Durability::Nothing,
            (false, true, _) | (false, false, Location::Postgres(_)) => Durability::All,
            (false, false, Location::Sqlite(_)) => Durability::AllButReceives,
        }
    }

    /// Opens a database.
    ///
    /// # Errors
    /// Which one, and why not.
    pub async fn open_store(&self, location: &Location, config: &Config) -> Result<Store, OpenError> {
        tracing::debug!("Database: {location}");
        let options = StoreOptions {
            lock_timeout: config.lock_timeout,
            durability: self.durability(location, config),
            read_only: self.read_only,
            ..StoreOptions::default()
        };
        Ok(Store::open(location, &options).await?)
    }

    /// Warns about what the configuration and the database are, and hardly should be: at level 0 when it is news, for
    /// cron would mail it after every run.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn warn(&self, config: &Config, config_name: &str, store: &Store) -> Result<(), OpenError> {
        let standing = config.warnings.iter().map(ToString::to_string).chain(shared_backups(config));
        let facts: Vec<String> = standing.chain(store.remarks()).collect();
        if self.read_only {
            for fact in facts {
                tracing::info!("WARNING: {fact}");
            }
            return Ok(());
        }
        // Each choice of groups has facts of its own: runs that take turns must not find each other's facts gone.
        let groups = self.groups.as_ref().map(|groups| format!(" -G {}", groups.join(","))).unwrap_or_default();
        Ok(notice::warn(store, &format!("configuration {config_name}{groups}"), &facts).await?)
    }

    /// Puts a node together.
    #[must_use]
    pub fn node(&self, config: Arc<Config>, config_name: &str, store: Store) -> Node {
        let place = Place {
            system_dir: self.system_dir.clone(),
            config_name: config_name.to_owned(),
            groups: self.groups.clone(),
            bind: self.bind.clone().or_else(|| (config.my_name != self.my_name).then(|| config.my_name.clone())),
            port: self.port,
        };
        Node::new(config, store, place)
    }

    /// All of it, for one run.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub async fn open(&self) -> Result<Arc<Node>, OpenError> {
        let config = self.load(&self.config_name).await?;
        let location = self.location(&config, &self.config_name)?;
        let store = self.open_store(&location, &config).await?;
        self.warn(&config, &self.config_name, &store).await?;
        Ok(Arc::new(self.node(Arc::new(config), &self.config_name, store)))
    }
}
