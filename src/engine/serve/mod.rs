//! Serving: accepts sessions within a limit and runs each to its end, whatever becomes of the others.

mod apply;
mod attribute;
mod batch;
mod commands;
mod lobby;
mod peer;
mod permission;
mod query;
mod receive;
mod refusal;
mod registry;
mod session;
mod spool;
#[cfg(test)]
mod tests;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use self::lobby::Limits;
use self::lobby::Lobby;
pub use self::registry::Registry;
use super::Report;
use super::stop::{GRACE, within_grace};
use crate::wire::{Connection, Listener};

/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the file in hand may take when sessions are ended.
const LAST_FILE: Duration = Duration::from_secs(15);

/// Serves one session on a connection that is there already (`-i`). When it is stopped, the session ends after the file in
/// hand.
pub async fn serve_one(registry: &Arc<Registry>, connection: Connection, stop: &CancellationToken) -> Report {
    let session = Box::pin(session::run(Arc::clone(registry), connection, None, stop.clone()));
    let report = within_grace(stop, session).await.unwrap_or_else(|| {
        let mut report = Report::default();
        report.error("ERROR: the session was cut off in the middle of a file, which stays as it was.");
        report
    });
    report.conclude();
    report
}

/// Serves sessions until it is stopped (`-ii`), or one session (`-iii`). `listening` is called once that has been said.
///
/// When it is stopped, it listens no more, and waits for the sessions to end; those that take long are ended after the file in
/// hand.
pub async fn serve(
    registry: &Arc<Registry>,
    listener: Listener,
    limits: Limits,
    once: bool,
    listening: impl FnOnce(),
    stop: &CancellationToken,
) -> Report {
    let address = listener.local_address();
    tracing::info!("Listening on {}:{} as {}.", address.ip(), address.port(), registry.settings().my_name);
    listening();
    let lobby = Lobby::new(limits);
    let sessions = Sessions::default();
    for number in 1_u64.. {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("WARNING: {}", crate::model::errors::chain(&error));
                // Too many open files, most likely: that passes when a session ends.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let registry = Arc::clone(registry);
        let visitor = lobby.enter(peer.ip());
        let span = tracing::warn_span!("session", session = number);
        let running = sessions.running.token();
        let ending = if once { stop.clone() } else { sessions.ending.clone() };
        let session = async move {
            tracing::info!("New connection from {}:{}.", peer.ip(), peer.port());
            let report = session::run(registry, connection, Some(visitor), ending).await;
            report.conclude();
            drop(running);
            report
        };
        if once {
            let ended = within_grace(stop, Box::pin(session.instrument(span))).await;
            return ended.unwrap_or(Report { errors: 1, unfinished: true, ..Report::default() });
        }
        tokio::spawn(session.instrument(span));
    }
    drop(listener);
    sessions.end().await
}

/// The sessions of a daemon, and the wish that they end after the file in hand.
#[derive(Debug, Default)]
struct Sessions {
    running: TaskTracker,
    ending: CancellationToken,
}

impl Sessions {
    /// Waits for all of them, but not for ever.
    async fn end(self) -> Report {
        let mut report = Report::default();
        let Self { running, ending } = self;
        running.close();
        if !running.is_empty() {
            tracing::info!("Stopping: waiting for {} sessions to end.", running.len());
        }
        if timeout(GRACE, running.wait()).await.is_err() {
            report.error(format_args!(
                "ERROR: {} sessions are ended after the file in hand. What is left stays dirty where it comes from.",
                running.len()
            ));
            ending.cancel();
            if timeout(LAST_FILE, running.wait()).await.is_err() {
                report.error(format_args!("ERROR: {} sessions are cut off in the middle of a file.", running.len()));
            }
        }
        report
    }
}
