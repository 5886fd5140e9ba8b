//! One conversation with a peer.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Identity, OctetHeader, WireError};

/// How long a peer may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For each address of a peer, and for looking its name up.
    pub connect: Duration,
    /// For the whole TLS handshake.
    pub handshake: Duration,
    /// For the next line, and for each piece of data read or written.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), handshake: seconds(30), idle: seconds(300) }
    }
}

/// A connection to a peer, buffered both ways: plain TCP, TLS, or an inherited pipe or socket.
#[derive(Debug)]
pub struct Connection;

/// The receiving half.
#[derive(Debug)]
pub struct Reader;

/// The sending half. What was written leaves with [`Writer::flush`].
#[derive(Debug)]
pub struct Writer;

impl Connection {
    /// Talks over any stream. `peer` is the other side's address, where there is one.
    pub fn new(
        _stream: impl AsyncRead + AsyncWrite + Send + 'static,
        _peer: Option<IpAddr>,
        _timeouts: Timeouts,
    ) -> Self {
        todo!()
    }
    /// Talks over stdin and stdout (`-i`). Without a socket there, the peer's address is the first word of `ssh_client`.
    pub fn inherited(_ssh_client: Option<&str>, _timeouts: Timeouts) -> Result<Self, WireError> {
        todo!()
    }
    pub async fn read_line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        todo!()
    }
    pub fn has_buffered_input(&self) -> bool {
        todo!()
    }
    /// `line` comes without its line end or with it.
    pub async fn write_line(&mut self, _line: &[u8]) -> Result<(), WireError> {
        todo!()
    }
    pub async fn write(&mut self, _bytes: &[u8]) -> Result<(), WireError> {
        todo!()
    }
    pub async fn flush(&mut self) -> Result<(), WireError> {
        todo!()
    }
    pub async fn read_octet_header(&mut self) -> Result<OctetHeader, WireError> {
        todo!()
    }
    /// Inner error: the sink's; the body has been read to its end all the same.
    pub async fn read_body(
        &mut self,
        _length: u64,
        _sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<io::Result<()>, WireError> {
        todo!()
    }
    /// What the peer sends until it closes.
    pub async fn read_rest(
        &mut self,
        _sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<io::Result<()>, WireError> {
        todo!()
    }
    pub async fn write_octet_stream(
        &mut self,
        _length: u64,
        _source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<(), WireError> {
        todo!()
    }
    pub fn peer_address(&self) -> Option<IpAddr> {
        todo!()
    }
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        todo!()
    }
    pub fn is_tls(&self) -> bool {
        todo!()
    }
    pub async fn start_tls_server(self, _identity: &Identity) -> Result<Self, WireError> {
        todo!()
    }
    pub async fn start_tls_client(self, _identity: &Identity) -> Result<Self, WireError> {
        todo!()
    }
    pub async fn shutdown(self) {
        todo!()
    }
    /// Client: as `shutdown`, then waits until the peer has closed too: it has then run its actions.
    pub async fn finish(self) {
        todo!()
    }
    pub fn split(self) -> (Reader, Writer) {
        todo!()
    }
    /// The two halves of one connection again.
    pub fn unite(_reader: Reader, _writer: Writer) -> Self {
        todo!()
    }
}

impl Reader {
    pub async fn read_line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        todo!()
    }
    pub async fn read_octet_header(&mut self) -> Result<OctetHeader, WireError> {
        todo!()
    }
    pub async fn read_body(
        &mut self,
        _length: u64,
        _sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<io::Result<()>, WireError> {
        todo!()
    }
}

impl Writer {
    pub async fn write_line(&mut self, _line: &[u8]) -> Result<(), WireError> {
        todo!()
    }
    pub async fn write(&mut self, _bytes: &[u8]) -> Result<(), WireError> {
        todo!()
    }
    pub async fn write_octet_stream(
        &mut self,
        _length: u64,
        _source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<(), WireError> {
        todo!()
    }
    pub async fn flush(&mut self) -> Result<(), WireError> {
        todo!()
    }
}
