//! `-i`, `-ii`, `-iii`: serves peers.

use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::{node_settings, systemd};
use crate::cli::{Printer, ServeMode, Settings, Status};
use crate::config::Config;
use crate::engine::serve::{self, Limits, Registry};
use crate::model::errors::chain;
use crate::wire::{Connection, Listener, Timeouts, WireError};

pub(super) async fn serve(
    mode: ServeMode,
    settings: &Settings,
    printer: &Printer,
    stop: &CancellationToken,
) -> anyhow::Result<Status> {
    allow_open_files();
    let mut settings = node_settings(settings, false);
    // The peer chooses the configuration: one that is missing or wrong is its session's problem, not the daemon's.
    let config = match settings.load(&settings.config_name).await {
        Ok(config) => {
            if config.my_name != settings.my_name {
                // As `-N` would have said.
                settings.bind = Some(config.my_name.clone());
                settings.my_name.clone_from(&config.my_name);
            }
            config
        }
        Err(error) => {
            // The session of `-i` says it itself.
            if mode != ServeMode::Inherited {
                tracing::warn!("WARNING: {}", chain(&error));
            }
            Config::silent(&settings.my_name, &settings.system_dir)
        }
    };
    let (connect, handshake, idle) = (config.connect_timeout, config.handshake_timeout, config.idle_timeout);
    let (timeouts, limits) = (Timeouts { connect, handshake, idle }, Limits::of(&config));
    let (bind, port) = (settings.bind.clone(), settings.port);
    let registry = Arc::new(Registry::new(settings));
    let report = match mode {
        ServeMode::Inherited => {
            let client = std::env::var("SSH_CLIENT").ok();
            let connection = Connection::inherited(client.as_deref(), timeouts)?;
            serve::serve_one(&registry, connection, stop).await
        }
        ServeMode::Daemon | ServeMode::Once => {
            let listener = match systemd::passed_socket().context("Server error")? {
                Some(socket) => Listener::inherited(socket, timeouts)
                    .map_err(|error| anyhow!("Server error: {error}. The socket of LISTEN_FDS is none of TCP."))?,
                None => Listener::bind(bind.as_deref(), port, timeouts)
                    .await
                    .map_err(|error| anyhow!("Server error: {error}{}", advice(&error)))?,
            };
            let listening = || {
                // Who reads this line waits for it: it must not stay in a buffer. A closed stdout is no reason to stop.
                let _ = printer.line(&[b"Csync2 daemon running. Waiting for connections."]);
                let _ = printer.flush();
                systemd::ready();
            };
            let asked_to_stop = stop.clone();
            let telling = tokio::spawn({
                let asked_to_stop = asked_to_stop.clone();
                async move {
                    asked_to_stop.cancelled().await;
                    systemd::stopping();
                }
            });
            let report = serve::serve(&registry, listener, limits, mode == ServeMode::Once, listening, stop).await;
            // Without sessions to wait for, it would be over before that is said.
            if asked_to_stop.is_cancelled() {
                _ = telling.await;
            }
            report
        }
    };
    Ok(Status::of_errors(u64::try_from(report.errors).unwrap_or(u64::MAX)))
}

/// Open files that many sessions may have need of: a batch keeps hundreds of new files open until they are in place.
const OPEN_FILES: u64 = 65_536;

/// Raises the soft limit, which is low for the sake of programs that use select(2), as far as the hard one goes.
fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        // Else the files that are one too many are refused, and stay dirty where they come from.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// What to do where nobody can be served.
fn advice(error: &WireError) -> String {
    let WireError::Listen { address, source } = error else { return String::new() };
    match source.kind() {
        ErrorKind::AddrInUse => {
            format!(
                ". Something listens on {address} already, most likely another csync2; -p PORT chooses another port."
            )
        }
        ErrorKind::AddrNotAvailable => {
            format!(". {address} is no address of this machine: -N NAME must resolve to one of its own.")
        }
        _ => format!(". The address was {address}: see -N NAME and -p PORT."),
    }
}
