//! The csync2 protocol (docs/protocol.md): what the lines mean, how they travel, and who is at the other end.
//!
//! Pure values first: [`request`] and [`reply`] are the lines, [`codec`] finds them in a stream of bytes; [`mod@batch`] is
//! the messages of the batch dialect, [`frame`] what they travel in, [`pack`] what makes contents in them smaller. A
//! [`Connection`] carries them over TCP, TLS or an inherited socket or pipe; [`dial()`] and [`Listener`] make one; [`tls`]
//! upgrades it with our [`Identity`]; [`trust`] compares certificates, an [`Authority`] vouches for them, [`certificate`]
//! describes and makes them. What an answer means for a file is the engine's to say.

pub mod authority;
pub mod batch;
pub mod certificate;
pub mod codec;
pub mod connection;
pub mod dial;
pub mod error;
pub mod frame;
mod half;
pub mod identity;
pub mod listen;
pub mod pack;
mod pipe;
pub mod reply;
pub mod request;
mod socket;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod trust;

pub use authority::Authority;
pub use codec::OctetHeader;
pub use connection::{Connection, Timeouts};
pub use dial::dial;
pub use error::{TlsError, WireError};
pub use half::{Reader, Sink, Writer};
pub use identity::Identity;
pub use listen::Listener;
pub use reply::Reply;
pub use request::{Attributes, Request, RequestError};
pub use trust::Trust;
