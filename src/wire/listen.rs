//! Waiting for peers.

use std::net::SocketAddr;

use super::{Connection, Timeouts, WireError};

/// A listening socket.
#[derive(Debug)]
pub struct Listener;

impl Listener {
    /// Listens on the address of `name`, or on all.
    pub async fn bind(_name: Option<&str>, _port: u16, _timeouts: Timeouts) -> Result<Self, WireError> {
        todo!()
    }
    pub async fn accept(&self) -> Result<(Connection, SocketAddr), WireError> {
        todo!()
    }
    pub fn local_address(&self) -> SocketAddr {
        todo!()
    }
}
