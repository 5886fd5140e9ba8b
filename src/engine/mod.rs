//! Everything that csync2 decides, and the only place where configuration, state, wire and disk meet.
//!
//! [`Node`] is this host in one configuration: built once, passed on explicitly. What went wrong on the way is counted
//! in a [`Report`], which every operation returns.

pub mod action;
mod certificates;
pub mod check;
mod claim;
pub mod conflict;
mod contact;
pub mod content;
mod coverage;
pub mod directories;
pub mod explain;
pub mod find;
pub mod identify;
pub mod in_sync;
pub mod mark;
pub mod membership;
mod notice;
pub mod open;
pub mod pitfalls;
pub mod reach;
pub mod recover;
pub mod selection;
pub mod serve;
pub mod status;
pub mod stop;
pub mod tally;
pub mod update;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::config::{Config, Tls};
use crate::model::errors::chain;
use crate::model::{FileRecord, Metadata, MtimeUnit, SyncPath, checktxt::Checktxt};
use crate::store::{Store, StoreError};
use crate::wire::{Authority, Identity, TlsError};

/// This host in one configuration: what it is called, what it keeps in step, and where its state is.
#[derive(Debug, Clone)]
pub struct Node {
    pub config: Arc<Config>,
    pub store: Store,
    /// Where the configuration, the keys, the certificate and its key are.
    pub system_dir: PathBuf,
    /// The name given to `-C`, empty without one; peers are told it.
    pub config_name: String,
    /// The groups given to `-G`; peers are told them.
    pub groups: Option<Vec<String>>,
    /// The local address to connect from: the name given to `-N`.
    pub bind: Option<String>,
    pub port: u16,
    identity: Arc<OnceCell<Arc<Identity>>>,
    authority: Arc<OnceCell<Arc<Authority>>>,
}

/// Why an operation as a whole could not go on. What concerns one file or one peer is counted in a [`Report`] instead.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a worker thread of {operation} ended early")]
    Worker {
        operation: &'static str,
        #[source]
        source: tokio::task::JoinError,
    },
    /// An intent is kept for it.
    #[error("what was received is in place, but cannot be made durable; it is recorded as soon as that works")]
    Unsettled {
        #[source]
        source: std::io::Error,
    },
}

/// What came of an operation: how many errors were logged on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub errors: usize,
    /// The first of them, in words.
    pub first: Option<String>,
    /// It was stopped before its end: something is left for another one.
    pub unfinished: bool,
}

impl Report {
    /// Logs an error at level 0, once, and counts it.
    pub fn error(&mut self, text: impl std::fmt::Display) {
        let text = text.to_string();
        tracing::warn!("{text}");
        self.errors += 1;
        self.first.get_or_insert_with(|| text.strip_prefix("ERROR: ").unwrap_or(&text).to_owned());
    }

    pub fn merge(&mut self, other: Self) {
        self.errors += other.errors;
        self.first = self.first.take().or(other.first);
        self.unfinished |= other.unfinished;
    }

    /// Logs how a run or a session ended.
    pub fn conclude(&self) {
        tracing::info!("Connection closed.");
        match self.errors {
            0 => tracing::info!("Finished with 0 errors."),
            errors => tracing::warn!("Finished with {errors} errors."),
        }
    }
}

impl Node {
    #[must_use]
    pub fn new(config: Arc<Config>, store: Store, place: Place) -> Self {
        let Place { system_dir, config_name, groups, bind, port } = place;
        let (identity, authority) = (Arc::default(), Arc::default());
        Self { config, store, system_dir, config_name, groups, bind, port, identity, authority }
    }

    /// The same host, in a selection of its configuration.
    #[must_use]
    pub fn with_config(&self, config: Config) -> Self {
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The certificate and key of this host, read when TLS is first needed; with a warning if they are weak.
    ///
    /// # Errors
    /// When they cannot be read; asked again, they are read again.
    pub async fn identity(&self) -> Result<Arc<Identity>, Arc<TlsError>> {
        let load = || async {
            let Tls { certificate, key, legacy, .. } = &self.config.tls;
            let identity = Identity::load(certificate, key, *legacy).map_err(Arc::new)?;
            if let Err(error) = notice::warn(&self.store, "our certificate", identity.weaknesses()).await {
                tracing::warn!("WARNING: {}", chain(&error));
            }
            Ok(Arc::new(identity))
        };
        self.identity.get_or_try_init(load).await.cloned()
    }

    /// The authority that vouches for peers (`tls-ca`), read when it is first needed.
    ///
    /// # Errors
    /// When it cannot be read; asked again, it is read again.
    async fn authority(&self) -> Result<Arc<Authority>, TlsError> {
        let file = self.config.tls.authority.as_deref().unwrap_or(Path::new(""));
        self.authority.get_or_try_init(|| async { Authority::load(file).map(Arc::new) }).await.cloned()
    }

    /// How csync2 is called for this node, for messages that name the next step. The database, which may hold a password, is
    /// left to the reader.
    #[must_use]
    pub fn command_line(&self, arguments: &str) -> String {
        let config_name = match self.config_name.as_str() {
            "" => String::new(),
            name => format!(" -C {name}"),
        };
        let name = self.bind.as_ref().map(|name| format!(" -N {name}")).unwrap_or_default();
        format!("csync2{config_name}{name} {arguments}")
    }

    /// The row that describes a file as it is on disk now.
    #[must_use]
    pub fn record(&self, path: SyncPath, metadata: &Metadata, digest: Option<[u8; 32]>) -> FileRecord {
        FileRecord {
            path,
            checktxt: Checktxt::of(metadata, self.config.ignore, MtimeUnit::Seconds),
            mtime_ns: Some(metadata.mtime.as_nanoseconds()),
            ctime_ns: Some(metadata.ctime.as_nanoseconds()),
            device: Some(metadata.device.cast_signed()),
            digest,
        }
    }
}

/// Where a [`Node`] stands: see its fields of the same names.
#[derive(Debug, Clone)]
pub struct Place {
    pub system_dir: PathBuf,
    pub config_name: String,
    pub groups: Option<Vec<String>>,
    pub bind: Option<String>,
    pub port: u16,
}

/// Runs a unit of synchronous disk or librsync work without holding up the tasks of other peers and sessions.
///
/// # Errors
/// Only when the work panicked or the runtime is going down.
pub async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    // Its messages belong to the same session.
    let span = tracing::Span::current();
    let work = move || span.in_scope(work);
    tokio::task::spawn_blocking(work).await.map_err(|source| EngineError::Worker { operation, source })
}

/// Runs a step of a session, which waits for nothing but the disk: at once where the session has a thread of its own, since a
/// change of threads costs more than most steps; as [`blocking`] where it is a task among others.
///
/// # Errors
/// As [`blocking`].
pub async fn step<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::try_id() {
        None => Ok(work()),
        Some(_) => blocking(operation, work).await,
    }
}
