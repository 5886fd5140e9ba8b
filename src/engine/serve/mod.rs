//! Serving: accepts sessions within a limit and runs each to its end, whatever becomes of the others.

mod apply;
mod batch;
mod commands;
mod lobby;
mod peer;
mod permission;
mod query;
mod receive;
mod registry;
mod session;
mod spool;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

pub use self::lobby::Limits;
use self::lobby::Lobby;
pub use self::registry::Registry;
use super::Report;
use crate::wire::{Connection, Listener, Timeouts, WireError};

/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves one session on a connection that is there already (`-i`).
pub async fn serve_one(registry: &Arc<Registry>, connection: Connection) -> Report {
    let report = session::run(Arc::clone(registry), connection, None).await;
    report.conclude();
    report
}

/// Listens, then serves sessions until the process ends (`-ii`), or one session (`-iii`). `listening` is told the
/// address once connections are accepted.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve(
    registry: &Arc<Registry>,
    timeouts: Timeouts,
    limits: Limits,
    once: bool,
    listening: impl FnOnce(std::net::SocketAddr),
) -> Result<Report, WireError> {
    let settings = registry.settings();
    let listener = Listener::bind(settings.bind.as_deref(), settings.port, timeouts).await?;
    let address = listener.local_address();
    tracing::info!("Listening on {}:{} as {}.", address.ip(), address.port(), settings.my_name);
    listening(address);
    let lobby = Lobby::new(limits);
    for number in 1_u64.. {
        let (connection, peer) = match listener.accept().await {
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
        let session = async move {
            tracing::info!("New connection from {}:{}.", peer.ip(), peer.port());
            let report = session::run(registry, connection, Some(visitor)).await;
            report.conclude();
            report
        };
        if once {
            return Ok(session.instrument(span).await);
        }
        tokio::spawn(session.instrument(span));
    }
    Ok(Report::default())
}
