//! Reaching a peer by name.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Connection, Timeouts, WireError};
use crate::model::errors::strerror;

/// Connects to the first address of `peer` that answers. `bind` is our own name: its address becomes the local end, by
/// which the peer knows us; where that does not work, the system chooses.
///
/// # Errors
/// [`WireError::Unreachable`]: the name has no address, or none of them answers within the time for connecting. The
/// error is that of the last address.
pub async fn dial(peer: &str, port: u16, bind: Option<&str>, timeouts: &Timeouts) -> Result<Connection, WireError> {
    let unreachable = |source: io::Error| {
        let hint = hint(&source);
        WireError::Unreachable { peer: peer.to_owned(), port, source, hint }
    };
    let addresses = match timeout(timeouts.connect, lookup_host((peer, port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(source)) => {
            return Err(WireError::Unreachable { peer: peer.to_owned(), port, source, hint: UNKNOWN_NAME });
        }
        Err(_) => return Err(WireError::TimedOut { what: "looking up the peer's name" }),
    };
    let local = match bind {
        Some(name) => {
            timeout(timeouts.connect, lookup_host((name, 0))).await.map_or_else(|_| Vec::new(), own_addresses)
        }
        None => Vec::new(),
    };
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let connected = timeout(timeouts.connect, connect(address, &local, bind.unwrap_or_default())).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let own = stream.local_addr().ok().map(|own| own.ip());
                tracing::info!("Connect to {}:{port} ({peer}).", address.ip());
                return Ok(Connection::new(stream, Some(address.ip()), *timeouts).named(peer, own));
            }
            Err(error) => {
                tracing::info!("Can't create socket: {}", strerror(&error));
                failure = error;
            }
        }
    }
    Err(unreachable(failure))
}

const UNKNOWN_NAME: &str = " (is the name in the DNS or /etc/hosts?)";

/// What is most likely wrong.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => " (does csync2 listen there?)",
        io::ErrorKind::TimedOut => " (is the host down, or a firewall in between?)",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => " (is the host or the network down?)",
        _ => "",
    }
}

fn own_addresses(found: io::Result<impl Iterator<Item = SocketAddr>>) -> Vec<SocketAddr> {
    found.map(Iterator::collect).unwrap_or_default()
}

/// `name` is what `local` are the addresses of.
async fn connect(address: SocketAddr, local: &[SocketAddr], name: &str) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Requests and answers are small and wait for each other.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Some(own) = local.iter().find(|own| own.is_ipv4() == address.is_ipv4()) {
        // Our name may be that of another interface or of an address translated on the way.
        if socket.bind(*own).is_ok() {
            tracing::info!("Bound to {}:0 as {name}.", own.ip());
        } else {
            tracing::info!("Local socket bind() to {name} failed; ignored.");
        }
    }
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Listener;

    #[tokio::test]
    async fn the_local_end_is_our_own_address_where_that_works() {
        let listener = Listener::bind(Some("127.0.0.1"), 0, Timeouts::default()).await.unwrap();
        let port = listener.local_address().port();
        let timeouts = Timeouts::default();
        for (own, expected) in
            [("127.0.0.2", "127.0.0.2"), ("192.0.2.1", "127.0.0.1"), ("no.such.host.invalid", "127.0.0.1")]
        {
            let (dialed, accepted) = tokio::join!(dial("127.0.0.1", port, Some(own), &timeouts), listener.accept());
            let (accepted, address) = accepted.unwrap();
            assert_eq!(address.ip().to_string(), expected);
            assert_eq!(accepted.peer_address(), Some(address.ip()));
            assert_eq!(dialed.unwrap().peer_name(), "127.0.0.1");
        }
    }

    #[tokio::test]
    async fn a_failure_names_the_peer_and_the_likely_cause() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = dial("127.0.0.1", unused, None, &Timeouts::default()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("connect to 127.0.0.1 port {unused}: Connection refused")), "{error}");
        assert!(error.ends_with("(does csync2 listen there?)"), "{error}");
        let error = dial("no.such.host.invalid", 1, None, &Timeouts::default()).await.unwrap_err().to_string();
        assert!(error.ends_with("(is the name in the DNS or /etc/hosts?)"), "{error}");
    }
}
