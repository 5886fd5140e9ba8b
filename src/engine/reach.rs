//! Whether a csync2 can be reached: this host's own, or a peer's.

use crate::config::Config;
use crate::wire::{Listener, Reply, Request, Timeouts, WireError, dial};

/// Who answers on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// A csync2.
    Csync2,
    /// Something else, or a csync2 that has no such configuration.
    Somebody,
    Nobody,
}

/// Who listens at `host`. Begins a session and says nothing in it that needs a name.
pub async fn listening(config: &Config, host: &str, port: u16) -> Listening {
    let Ok(mut connection) = dial(host, port, None, &timeouts(config)).await else {
        return Listening::Nobody;
    };
    // Anything but SSL and CONFIG is answered with what is expected: by a csync2 of any kind, whatever its configurations.
    let asked = async {
        connection.write_line(&Request::Bye.encode()).await?;
        Ok::<_, WireError>(connection.read_line().await?.map(|line| Reply::parse(&line)))
    };
    match asked.await {
        Ok(Some(Reply::ExpectingConfig)) => Listening::Csync2,
        _ => Listening::Somebody,
    }
}

/// Whether a server could listen, on the address of `name` (`-N`) or on all.
///
/// # Errors
/// What is in the way.
pub async fn may_listen(config: &Config, name: Option<&str>, port: u16) -> Result<(), WireError> {
    Listener::bind(name, port, timeouts(config)).await.map(drop)
}

/// Who is silent for as long as a handshake may take does not answer.
fn timeouts(config: &Config) -> Timeouts {
    let (connect, handshake, idle) = (config.connect_timeout, config.handshake_timeout, config.handshake_timeout);
    Timeouts { connect, handshake, idle }
}
