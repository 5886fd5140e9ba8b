//! What a service and systemd have to say to each other: the socket that it passes, and when we are ready or stopping.
//!
//! Without systemd there are no such variables, and nothing is said.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{anyhow, bail};
use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;

/// The listening socket that `LISTEN_FDS` and `LISTEN_PID` pass to this process. It is taken: to be called once.
///
/// # Errors
/// When what was passed is not one socket that listens.
pub(super) fn passed_socket() -> anyhow::Result<Option<TcpListener>> {
    let mut passed = sd_notify::listen_fds().map_err(|error| anyhow!("take the sockets of LISTEN_FDS: {error}"))?;
    let Some(number) = passed.next() else { return Ok(None) };
    if passed.len() > 0 {
        bail!(
            "{} sockets were passed in LISTEN_FDS, and a daemon has one: leave one ListenStream in its socket unit.",
            passed.len() + 1
        );
    }
    // SAFETY: the variables are for this process, so that the number is a descriptor that is meant for us alone.
    #[allow(unsafe_code)]
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let listens = socket_acceptconn(&socket).map_err(io::Error::from)?;
    if !listens {
        bail!("the socket that was passed in LISTEN_FDS does not listen: use Accept=no, or csync2 -i with Accept=yes.");
    }
    Ok(Some(socket.into()))
}

/// Connections are accepted.
pub(super) fn ready() {
    tell(&NotifyState::Ready);
}

/// No more of them are, and the sessions come to their end.
pub(super) fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!("WARNING: cannot tell NOTIFY_SOCKET how far the start or the stop is: {error}");
    }
}
