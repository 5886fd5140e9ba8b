//! Waiting for peers. How many are served at a time is for the engine to say.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, lookup_host};

use super::{Connection, Timeouts, WireError};

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 128;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    timeouts: Timeouts,
}

impl Listener {
    /// Listens on the address of `name`, or on all addresses (IPv6 and IPv4, where the system has both). Port 0: any
    /// free one. `timeouts` hold for the connections that come in.
    ///
    /// # Errors
    /// [`WireError::Listen`], which displays as the text to put behind `Server error: `.
    pub async fn bind(name: Option<&str>, port: u16, timeouts: Timeouts) -> Result<Self, WireError> {
        let failed = |source| WireError::Listen { address: format!("{}:{port}", name.unwrap_or("*")), source };
        let addresses = match name {
            Some(name) => lookup_host((name, port)).await.map_err(failed)?.collect(),
            None => vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()],
        };
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match listen(address).and_then(|socket| Ok((socket.local_addr()?, socket))) {
                Ok((address, socket)) => return Ok(Self { socket, address, timeouts }),
                Err(error) => failure = error,
            }
        }
        Err(failed(failure))
    }

    /// Takes over a socket that listens already: of a service manager.
    ///
    /// # Errors
    /// [`WireError::Listen`] when it is no TCP socket.
    pub fn inherited(socket: std::net::TcpListener, timeouts: Timeouts) -> Result<Self, WireError> {
        let take = || {
            let address = socket.local_addr()?;
            socket.set_nonblocking(true)?;
            Ok((TcpListener::from_std(socket)?, address))
        };
        let (socket, address) =
            take().map_err(|source| WireError::Listen { address: "the inherited socket".to_owned(), source })?;
        Ok(Self { socket, address, timeouts })
    }

    /// The next peer. Connections that broke before they were accepted are passed over.
    ///
    /// # Errors
    /// [`WireError::Io`], such as too many open files: it may be over in a moment, so wait a little before trying again.
    pub async fn accept(&self) -> Result<(Connection, SocketAddr), WireError> {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    // Neither is needed for the session to work, and the peer may be gone already.
                    let _ = stream.set_nodelay(true);
                    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
                    return Ok((Connection::new(stream, Some(address.ip()), self.timeouts), address));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(source) => {
                    let peer = format!("a peer on {}", self.address);
                    return Err(WireError::Io { operation: "accept", peer, source });
                }
            }
        }
    }

    /// Where it listens; with the port that the system chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Linux passes errors of the new connection through accept.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | NetworkDown | NetworkUnreachable | HostUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dial;

    #[tokio::test]
    async fn without_a_name_every_address_is_listened_on() {
        let timeouts = Timeouts::default();
        let listener = Listener::bind(None, 0, timeouts).await.unwrap();
        let port = listener.local_address().port();
        let (dialed, accepted) = tokio::join!(dial("127.0.0.1", port, None, &timeouts), listener.accept());
        let (_, address) = accepted.unwrap();
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST, "IPv4 within IPv6 counts as IPv4");
        dialed.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_reported_in_the_words_of_the_system() {
        let first = Listener::bind(Some("127.0.0.1"), 0, Timeouts::default()).await.unwrap();
        let port = first.local_address().port();
        let error = Listener::bind(Some("127.0.0.1"), port, Timeouts::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "Address already in use");
        let error = Listener::bind(Some("192.0.2.1"), 0, Timeouts::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "Cannot assign requested address");
    }
}
