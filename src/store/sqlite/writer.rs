//! The one connection that writes: one transaction after the other.

use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};

use super::connection::Opener;

/// For who writes a few thousand rows at a time, in KiB: negative.
const SMALL_CACHE: i32 = -4_096;

/// And in pages. While the log grows a flush takes longer, since its length goes to the disk, too.
const SMALL_LOG: i32 = 1_000;

/// Whoever has the lock writes.
#[derive(Debug)]
pub(super) struct Writer {
    state: Mutex<State>,
    /// A transaction that need not be durable may be flushed later, together with the next one that must be.
    may_relax: bool,
}

#[derive(Debug)]
struct State {
    connection: Writing,
    /// What the connection is set to.
    is_durable: bool,
}

#[derive(Debug)]
enum Writing {
    /// Nothing has been written yet.
    Later(Opener),
    Open(Connection),
    Stopped,
}

impl Writer {
    pub(super) fn new(connection: Connection, may_relax: bool) -> Self {
        Self { state: Mutex::new(State { connection: Writing::Open(connection), is_durable: true }), may_relax }
    }

    /// One that makes its connection when there is something to write.
    pub(super) fn later(opener: Opener, may_relax: bool) -> Self {
        Self { state: Mutex::new(State { connection: Writing::Later(opener), is_durable: true }), may_relax }
    }

    /// Runs `work` as a transaction; an error undoes all of it. `None`: stopped. Blocks.
    pub(super) fn run<T>(
        &self,
        durable: bool,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Option<rusqlite::Result<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { connection, is_durable } = &mut *state;
        if let Writing::Later(opener) = connection {
            match opener.writer() {
                Ok(opened) => *connection = Writing::Open(opened),
                Err(error) => return Some(Err(error)),
            }
        }
        let Writing::Open(connection) = connection else { return None };
        if self.may_relax && durable != *is_durable {
            let level = if durable { "FULL" } else { "NORMAL" };
            if let Err(error) = connection.pragma_update(None, "synchronous", level) {
                return Some(Err(error));
            }
            *is_durable = durable;
        }
        Some(transaction(connection, work))
    }

    /// Lets go of the pages in memory, and keeps fewer from here on. Blocks until the transaction under way has ended.
    pub(super) fn shrink(&self) {
        if let Writing::Open(connection) = &self.state.lock().unwrap_or_else(PoisonError::into_inner).connection {
            // That pages stay is no harm.
            _ = connection.pragma_update(None, "cache_size", SMALL_CACHE);
            _ = connection.pragma_update(None, "wal_autocheckpoint", SMALL_LOG);
            _ = connection.release_memory();
        }
    }

    /// Closes the connection. Blocks until the transaction under way has ended.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).connection = Writing::Stopped;
    }
}

/// Runs `work` with the write lock held from the start: a transaction that begins by reading and then wants to write
/// fails at once when another process wrote in between, without the busy timeout.
pub(super) fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}
