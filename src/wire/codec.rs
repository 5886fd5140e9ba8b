//! Lines and octet streams in a stream of bytes. No sockets here: `connection` feeds it.

/// The longest line, without its line end, in bytes.
pub const MAX_LINE: usize = 16_383;

/// What stands before binary data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OctetHeader {
    /// So many bytes follow.
    Length(u64),
    /// The sender could not make the data: a negative length, or `ERROR`.
    Failed,
}
