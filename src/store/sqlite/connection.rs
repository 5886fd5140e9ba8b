//! Opening the file: for writing in WAL mode if it can be had, else for reading alone.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::super::error::{ErrorKind, Result, StoreError};
use super::super::{Durability, Location, StoreOptions};
use super::migrate::{self, SCHEMA_VERSION};
use super::transfer;
use crate::model::errors::strerror;

/// A file under whatever name: device and inode.
pub(super) type FileId = (u64, u64);

/// How connections to one file are made.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    path: PathBuf,
    /// The name in messages.
    database: String,
    lock_timeout: Duration,
    durability: Durability,
    /// Whoever only looks does not pay for what others have written, when it closes the last connection.
    leaves_log: bool,
    /// What SQLite reaches the file through; `None`: the system's usual way.
    vfs: Option<&'static str>,
}

/// The first connection, and what was found out with it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) wal: bool,
    /// What a person should know about the file.
    pub(super) remark: Option<String>,
    pub(super) extended: bool,
    pub(super) writable: bool,
}

impl Opener {
    pub(super) fn new(path: &Path, options: &StoreOptions) -> Self {
        Self {
            // A relative `:memory:` has a meaning of its own otherwise.
            path: if path.is_relative() { Path::new(".").join(path) } else { path.to_owned() },
            database: Location::Sqlite(path.to_owned()).to_string(),
            lock_timeout: options.lock_timeout,
            durability: options.durability,
            leaves_log: options.read_only,
            vfs: None,
        }
    }

    /// Opens as on a file system that SQLite's shared memory does not work on.
    #[cfg(test)]
    pub(super) fn without_shared_memory(path: &Path) -> Self {
        Self { vfs: Some("unix-dotfile"), ..Self::new(path, &StoreOptions::default()) }
    }

    /// What has the file's name now.
    pub(super) fn file(&self) -> Option<FileId> {
        let found = fs::metadata(&self.path).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// The name in messages.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// What a power cut may undo.
    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    /// Opens the file, creating and upgrading it. With `may_be_read_only` an existing file that cannot be written is
    /// opened as it is.
    pub(super) fn open(&self, may_be_read_only: bool) -> Result<Opened> {
        match self.open_writable() {
            Err(error) if may_be_read_only && error.kind() != ErrorKind::NewerSchema && self.path.exists() => {
                self.open_read_only().map_err(|_| error)
            }
            result => result,
        }
    }

    /// A connection that writes.
    pub(super) fn writer(&self) -> rusqlite::Result<Connection> {
        self.connect(&self.path, OpenFlags::SQLITE_OPEN_CREATE)
    }

    fn open_writable(&self) -> Result<Opened> {
        let failed = |error| self.open_error(error);
        let mut connection = self.writer().map_err(failed)?;
        let (wal, remark) = self.switch_to_wal(&connection).map_err(failed)?;
        if self.check_version(&connection)? < SCHEMA_VERSION {
            // Somebody else may have done it meanwhile: the version is read again with the write lock held.
            super::writer::transaction(&mut connection, migrate::migrate).map_err(failed)?;
            self.check_version(&connection)?;
        }
        Ok(Opened { connection, wal, remark, extended: true, writable: true })
    }

    fn open_read_only(&self) -> Result<Opened> {
        let connection = self.reader().map_err(|error| self.open_error(error))?;
        let extended = self.check_version(&connection)? > 0;
        // Nobody waits for this reader, as far as we can know.
        Ok(Opened { connection, wal: true, remark: None, extended, writable: false })
    }

    /// Opens a file of any csync2 as it is. Unlike [`Opener::reader`] never without looking at a journal or a log beside it:
    /// what is there may be half of a transaction.
    pub(super) fn look_at(&self) -> Result<Opened> {
        if let Err(error) = fs::metadata(&self.path) {
            let (database, source) = (self.database.clone(), strerror(&error).into());
            return Err(StoreError::Open { database, kind: ErrorKind::Unreachable, source });
        }
        let failed = |error| self.open_error(error);
        let looked = self.connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed);
        let looked = looked.and_then(|connection| Ok((self.check_version(&connection)? > 0, connection)));
        let (extended, connection) = looked.map_err(|error| match error {
            StoreError::Open { database, kind: ErrorKind::ReadOnly, .. } => {
                let source = "an interrupted run has left a journal beside it; let csync2 -M of the program that wrote it \
                              open it first";
                StoreError::Open { database, kind: ErrorKind::ReadOnly, source: source.into() }
            }
            error => error,
        })?;
        if !transfer::has_table(&connection, "file").map_err(failed)? {
            let (database, source) = (self.database.clone(), "it holds no tables of csync2".into());
            return Err(StoreError::Open { database, kind: ErrorKind::Other, source });
        }
        Ok(Opened { connection, wal: true, remark: None, extended, writable: false })
    }

    /// A connection that only reads.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connected = self.connect(&self.path, read_only);
        let checked = connected.and_then(|connection| migrate::version(&connection).map(|_| connection));
        checked.or_else(|error| match kind_of(&error) {
            // A file in WAL mode needs its shared memory file beside it. Where that can be neither opened nor made,
            // nobody writes either, and the file alone is the whole database.
            ErrorKind::Unreachable | ErrorKind::ReadOnly => {
                self.connect(&immutable_uri(&self.path), read_only | OpenFlags::SQLITE_OPEN_URI)
            }
            _ => Err(error),
        })
    }

    fn connect(&self, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let write = if flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
            OpenFlags::empty()
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        let flags = flags | write | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
            None => Connection::open_with_flags(path, flags)?,
        };
        connection.busy_timeout(self.lock_timeout)?;
        // FULL: what was committed is on disk, as an intent must be before the file is touched.
        let level = if self.durability == Durability::Nothing { "OFF" } else { "FULL" };
        connection.pragma_update(None, "synchronous", level)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, self.leaves_log)?;
        connection.set_prepared_statement_cache_capacity(64);
        // A big check writes a hundred thousand rows: without these most of its time goes into reading pages again, and
        // into waiting for the disk at every checkpoint. In KiB (when negative) and in pages. There are many readers, and
        // they go through rows in order.
        let cache = if write.is_empty() { -256 } else { -16_384 };
        connection.pragma_update(None, "cache_size", cache)?;
        connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        Ok(connection)
    }

    /// Whether the file is in WAL mode now, and what to say where it cannot be.
    fn switch_to_wal(&self, connection: &Connection) -> rusqlite::Result<(bool, Option<String>)> {
        let is_wal = |mode: String| mode.eq_ignore_ascii_case("wal");
        if connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map(is_wal)? {
            return Ok((true, None));
        }
        let switched = if on_network_file_system(&self.path) {
            Ok(false)
        } else {
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map(is_wal)
        };
        match switched {
            Ok(true) => Ok((true, None)),
            Ok(false) => {
                let remark =
                    "the file system does not allow write-ahead logging: readers and writers wait for each other";
                Ok((false, Some(format!("{}: {remark}", self.database))))
            }
            // Others have it open; another time.
            Err(error) if kind_of(&error) == ErrorKind::TooBusy => Ok((false, None)),
            Err(error) => Err(error),
        }
    }

    /// The version of the tables, 0 for those of the C program or none at all.
    fn check_version(&self, connection: &Connection) -> Result<i64> {
        let found = migrate::version(connection).map_err(|error| self.open_error(error))?;
        if found > SCHEMA_VERSION {
            let database = self.database.clone();
            return Err(StoreError::NewerSchema { database, found, known: SCHEMA_VERSION });
        }
        Ok(found)
    }

    fn open_error(&self, error: rusqlite::Error) -> StoreError {
        let kind = kind_of(&error);
        let source = match (kind, self.obstacle()) {
            (ErrorKind::Unreachable, Some(obstacle)) => obstacle.into(),
            // SQLite says "disk I/O error" of its shared memory.
            (ErrorKind::Full, _) => "the disk is full".into(),
            _ => error.into(),
        };
        StoreError::Open { database: self.database.clone(), kind, source }
    }

    /// Why the file cannot be opened: SQLite only says that it cannot.
    fn obstacle(&self) -> Option<String> {
        let directory = self.path.parent()?;
        let of = |error: &io::Error, path: &Path| format!("{}: {}", path.display(), strerror(error));
        match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(format!("there is no directory {}; make it, or choose another with -D", directory.display()))
            }
            Err(error) => Some(of(&error, directory)),
            // Opening and closing the file here would end the locks that other connections have on it.
            Ok(_) => match accessat(CWD, &self.path, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS) {
                Err(Errno::NOENT) => Some(format!("no file can be made in {}", directory.display())),
                Err(error) => Some(of(&error.into(), &self.path)),
                Ok(()) => None,
            },
        }
    }
}

/// The error of an operation.
pub(super) fn operation_error(database: &str, operation: &'static str, error: rusqlite::Error) -> StoreError {
    StoreError::Operation { database: database.to_owned(), operation, kind: kind_of(&error), source: Box::new(error) }
}

fn kind_of(error: &rusqlite::Error) -> ErrorKind {
    if error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) {
        // The file of its shared memory cannot grow.
        return ErrorKind::Full;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::TooBusy,
        Some(ErrorCode::DiskFull) => ErrorKind::Full,
        Some(ErrorCode::CannotOpen) => ErrorKind::Unreachable,
        Some(ErrorCode::ReadOnly) => ErrorKind::ReadOnly,
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => ErrorKind::Refused,
        _ => ErrorKind::Other,
    }
}

/// The URI that opens a file as one that nobody changes.
fn immutable_uri(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

/// Whether the file lies where SQLite's shared memory cannot be relied upon, although mapping it may seem to work.
fn on_network_file_system(path: &Path) -> bool {
    // NFS, SMB (three numbers), 9P, Ceph, Lustre, AFS: linux/magic.h.
    const TYPES: [u64; 8] =
        [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400, 0x0bd0_0bd0, 0x5346_414f];
    let Ok(status) = rustix::fs::statfs(path) else { return false };
    u64::try_from(status.f_type).is_ok_and(|kind| TYPES.contains(&(kind & 0xffff_ffff)))
}
