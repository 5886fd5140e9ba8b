//! What can go wrong between two hosts. Every text names the operation; the peer is in it where the connection knows it.

use std::io;
use std::path::PathBuf;

use crate::model::errors::strerror;

/// Why a connection failed. After any of these the connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer closed the connection in the middle of a line, of a body or of an answer.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing moved for as long as the time limit allows.
    #[error("timed out: {what}")]
    TimedOut { what: &'static str },
    /// A line of more than [`super::codec::MAX_LINE`] bytes, received or about to be sent.
    #[error("a protocol line is longer than {} bytes", super::codec::MAX_LINE)]
    LineTooLong,
    /// The peer sent something else than the protocol allows here.
    #[error("protocol error: {0}")]
    Protocol(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A failure of the socket itself.
    #[error("{operation} {peer}: {}", strerror(.source))]
    Io { operation: &'static str, peer: String, source: io::Error },
    /// No address of the peer could be reached, or its name has none.
    #[error("connect to {peer} port {port}: {}{hint}", strerror(.source))]
    Unreachable { peer: String, port: u16, source: io::Error, hint: &'static str },
    /// The listening socket could not be made. Displays as the bare system text, which scripts know as
    /// `Server error: TEXT`.
    #[error("{}", strerror(.source))]
    Listen { address: String, source: io::Error },
}

/// Why there is no TLS: a certificate or key that cannot be used, or a handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing or unreadable, or holds nothing usable.
    #[error("cannot use {}: {problem}; {advice}", path.display())]
    File { path: PathBuf, problem: String, advice: String },
    /// Certificate and key do not belong together.
    #[error("{} and {} do not belong together: {advice}", certificate.display(), key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, advice: String },
    /// Bytes arrived in the clear behind the `SSL` line or its answer: they must not count as part of the TLS session.
    #[error("the peer sent data in the clear where the TLS handshake was due")]
    PlaintextBeforeHandshake,
    /// The peer and we did not agree.
    #[error("TLS handshake with {peer} failed: {}", strerror(.source))]
    Handshake { peer: String, source: io::Error },
    /// The TLS library refused our own settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}
