//! What can go wrong with the database: which database, during what, and of which kind.
//!
//! No error ever holds a password: databases are named by [`super::Location`]'s display form.

use std::error::Error;

use super::transfer::Contents;
use super::{Location, postgres};

/// A failed operation of the state database. The cause, where there is one, is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `-D` or the config names a scheme that nobody knows. The C program's wording.
    #[error("Unknown database scheme: {url}")]
    UnknownScheme { url: String },
    /// A database that the C program could use and we do not.
    #[error(
        "Can't open database: {url}: {product} is not supported; use an SQLite file or PostgreSQL. The state need not be \
         moved: with an empty database, `csync2 -cIr /` on every host records the files as they are (push what is still \
         dirty with the old program first); to keep it, dump it into an SQLite file, and take that in: `csync2 --import-db \
         {url}` says how"
    )]
    Unsupported { url: String, product: &'static str },
    /// The URL cannot be understood.
    #[error("Can't open database: {url}: {reason}")]
    BadUrl { url: String, reason: String },
    /// The database could not be opened, created or upgraded.
    #[error("Can't open database: {database}")]
    Open { database: String, kind: ErrorKind, source: Box<dyn Error + Send + Sync> },
    /// A later csync2 has upgraded the tables.
    #[error(
        "Can't open database: {database}: its tables have version {found}, this csync2 knows versions up to {known}; \
         use the csync2 that upgraded them, or a newer one"
    )]
    NewerSchema { database: String, found: i64, known: i64 },
    /// An import found something else in its place.
    #[error(
        "Can't import into database {database}: it holds another state ({found}) than the one to be imported ({offered}). \
         Nothing has been changed. Import into an empty database: drop this one, or name another with -D"
    )]
    Occupied { database: String, found: Box<Contents>, offered: Box<Contents> },
    /// What an import wrote is not what it read, when it is read again.
    #[error(
        "Can't import into database {database}: of {offered}, {written} arrived. Nothing has been changed. {}",
        twice.as_ref().map_or_else(
            || "The server changes what it stores".to_owned(),
            |twice| format!("The source has two rows, in two spellings, of {twice}: remove one")
        )
    )]
    Unfaithful { database: String, offered: Box<Contents>, written: Box<Contents>, twice: Option<String> },
    /// An operation on the open database failed. Nothing of it has been kept.
    #[error("{operation} in database {database}: {}", .kind.meaning())]
    Operation { database: String, operation: &'static str, kind: ErrorKind, source: Box<dyn Error + Send + Sync> },
}

/// Why an operation failed, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No server answered there, or the file's directory does not exist.
    Unreachable,
    /// The server refused the user, the password, the encryption or the permission.
    Refused,
    /// The connection broke off. The next operation makes a new one.
    ConnectionLost,
    /// Disk full, or a quota is used up.
    Full,
    /// Others held their locks or all connections for longer than we may wait.
    TooBusy,
    /// A later csync2 has upgraded the tables.
    NewerSchema,
    /// A database that may only be read.
    ReadOnly,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// The kind in words, for a message.
    fn meaning(self) -> &'static str {
        match self {
            Self::Unreachable => "cannot be reached",
            Self::Refused => "refused",
            Self::ConnectionLost => "connection lost",
            Self::Full => "no space left",
            Self::TooBusy => "exceedingly busy, gave up waiting",
            Self::NewerSchema => "made by a newer csync2",
            Self::ReadOnly => "may only be read",
            Self::Other => "failed",
        }
    }
}

impl Location {
    /// Statements for the server's superuser, after which it does not refuse us again; none where none help.
    #[must_use]
    pub fn remedy(&self, error: &(dyn Error + 'static)) -> Vec<String> {
        match self {
            Self::Postgres(url) => postgres::remedy::remedy(url, error),
            Self::Sqlite(_) => Vec::new(),
        }
    }
}

impl StoreError {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open { kind, .. } | Self::Operation { kind, .. } => *kind,
            Self::NewerSchema { .. } => ErrorKind::NewerSchema,
            Self::UnknownScheme { .. }
            | Self::Unsupported { .. }
            | Self::BadUrl { .. }
            | Self::Occupied { .. }
            | Self::Unfaithful { .. } => ErrorKind::Other,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;
