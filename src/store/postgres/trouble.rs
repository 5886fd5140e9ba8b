//! What the driver's, the pool's and the server's errors mean.

use std::error::Error;
use std::fmt;
use std::io;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use super::super::error::{ErrorKind, StoreError};

/// An error with its meaning, before it is known which operation failed.
#[derive(Debug)]
pub(super) struct Trouble {
    kind: ErrorKind,
    is_missing_database: bool,
    remedy: Remedy,
    source: Box<dyn Error + Send + Sync>,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing that is in our power.
    None,
    /// To do the same again: the server chose between this transaction and another, or the connection broke.
    Repeat,
    /// To wait: nobody listens there, as while a server is being restarted.
    WaitForServer,
    /// To wait: the server says that it is starting, or has as many connections as it may.
    WaitForPlace,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        self.source.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// A missing database that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("there is no database {database:?}, and it cannot be created")]
pub(super) struct CannotCreate {
    database: String,
    source: Box<dyn Error + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
enum Waited {
    #[error("all connections were in use for too long")]
    ForConnection,
    #[error("the server did not complete the connection in time")]
    ForServer,
    #[error("the database was closed")]
    Closed,
}

impl Trouble {
    pub(super) fn new(kind: ErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let remedy = match kind {
            ErrorKind::ConnectionLost => Remedy::Repeat,
            ErrorKind::Unreachable => Remedy::WaitForServer,
            _ => Remedy::None,
        };
        Self { kind, is_missing_database: false, remedy, source: source.into() }
    }

    pub(super) fn other(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Other, source)
    }

    /// The server did not finish connecting in time.
    pub(super) fn no_answer() -> Self {
        // It was waited for.
        Self { remedy: Remedy::None, ..Self::new(ErrorKind::Unreachable, Waited::ForServer) }
    }

    /// The database had to be made, and could not.
    pub(super) fn while_creating(self, database: &str) -> Self {
        Self::new(self.kind, CannotCreate { database: database.to_owned(), source: self.source })
    }

    pub(super) fn is_missing_database(&self) -> bool {
        self.is_missing_database
    }

    pub(super) fn remedy(&self) -> Remedy {
        self.remedy
    }

    /// The same, where nothing may be repeated.
    pub(super) fn for_good(self) -> Self {
        Self { remedy: Remedy::None, ..self }
    }

    /// Whether the connection is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        self.kind == ErrorKind::ConnectionLost
    }

    pub(super) fn while_opening(self, database: &str) -> StoreError {
        let kind = match self.kind {
            // There was none before.
            ErrorKind::ConnectionLost => ErrorKind::Unreachable,
            kind => kind,
        };
        StoreError::Open { database: database.to_owned(), kind, source: self.source }
    }

    pub(super) fn during(self, operation: &'static str, database: &str) -> StoreError {
        StoreError::Operation { database: database.to_owned(), operation, kind: self.kind, source: self.source }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let kind = kind_of(&error);
        let remedy = match error.code().map(SqlState::code) {
            Some("40001" | "40P01") => Remedy::Repeat,
            Some("57P03" | "53300") => Remedy::WaitForPlace,
            _ if kind == ErrorKind::ConnectionLost => Remedy::Repeat,
            _ => Remedy::None,
        };
        let is_missing_database = error.code() == Some(&SqlState::UNDEFINED_DATABASE);
        Self { kind, is_missing_database, remedy, source: Box::new(error) }
    }
}

impl From<PoolError> for Trouble {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => {
                let said = error.code().is_some();
                let trouble = Self::from(error);
                match trouble.kind {
                    // No connection could be made; one that existed cannot have been lost.
                    ErrorKind::ConnectionLost => {
                        Self { kind: ErrorKind::Unreachable, remedy: Remedy::WaitForServer, ..trouble }
                    }
                    // We and the server do not agree on TLS, or there is no password for it.
                    ErrorKind::Other if !said => Self { kind: ErrorKind::Refused, ..trouble },
                    _ => trouble,
                }
            }
            PoolError::Timeout(TimeoutType::Wait) => Self::new(ErrorKind::TooBusy, Waited::ForConnection),
            PoolError::Timeout(_) => Self::no_answer(),
            PoolError::Closed => Self { remedy: Remedy::None, ..Self::new(ErrorKind::ConnectionLost, Waited::Closed) },
            other => Self::other(other),
        }
    }
}

/// The server's own codes first: it says more than the broken connection that follows.
fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = error.code() else {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                // TLS says that it does not like the peer in this form.
                let refused = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
                return if refused { ErrorKind::Refused } else { ErrorKind::ConnectionLost };
            }
            source = cause.source();
        }
        return if error.is_closed() { ErrorKind::ConnectionLost } else { ErrorKind::Other };
    };
    match code.code() {
        "53100" => ErrorKind::Full,
        "53300" | "55P03" | "57014" | "40001" | "40P01" => ErrorKind::TooBusy,
        "25006" => ErrorKind::ReadOnly,
        "3D000" | "57P03" => ErrorKind::Unreachable,
        "57P01" | "57P02" => ErrorKind::ConnectionLost,
        "42501" => ErrorKind::Refused,
        class if class.starts_with("28") => ErrorKind::Refused,
        class if class.starts_with("08") => ErrorKind::ConnectionLost,
        _ => ErrorKind::Other,
    }
}
