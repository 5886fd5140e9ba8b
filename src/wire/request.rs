//! The commands a client sends, as values: parsing and encoding of one line. No sockets, no meaning.
//!
//! A line is lenient where the C program is (blanks and tabs in any number, case of the command, what is beyond thirty
//! fields) and strict where a guess could do harm: a number that is none is refused.

use crate::model::{Timestamp, encoding};

/// At most so many fields after the command count.
const MAX_FIELDS: usize = 30;

/// One command. `key` is the group's pre-shared key; `file` is decoded but not checked in any way: whether it is a
/// proper name is for the server to say, with an answer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The TLS handshake follows.
    Ssl,
    /// Name of the configuration; empty: the server's own.
    Config {
        name: Vec<u8>,
    },
    /// Only these groups exist for the session.
    Group {
        names: Vec<String>,
    },
    /// The name under which the client acts.
    Hello {
        name: String,
    },
    /// `ATOMICPATCH` with nothing behind it: asks which dialect the server speaks.
    AtomicDialect,
    Sig {
        key: String,
        file: Vec<u8>,
    },
    Mark {
        key: String,
        file: Vec<u8>,
    },
    Type {
        key: String,
        file: Vec<u8>,
    },
    GetTm {
        key: String,
        file: Vec<u8>,
    },
    GetSz {
        key: String,
        file: Vec<u8>,
    },
    Flush {
        key: String,
        file: Vec<u8>,
    },
    Del {
        key: String,
        file: Vec<u8>,
    },
    Patch {
        key: String,
        file: Vec<u8>,
    },
    AtomicPatch {
        key: String,
        file: Vec<u8>,
        attributes: Attributes,
    },
    /// The attributes stand there in the second dialect only.
    MkDir {
        key: String,
        file: Vec<u8>,
        attributes: Option<Attributes>,
    },
    /// `device` is the `st_rdev`; the C program sends none.
    MkChr {
        key: String,
        file: Vec<u8>,
        device: Option<u64>,
    },
    MkBlk {
        key: String,
        file: Vec<u8>,
        device: Option<u64>,
    },
    MkFifo {
        key: String,
        file: Vec<u8>,
    },
    MkLink {
        key: String,
        file: Vec<u8>,
        target: Vec<u8>,
    },
    MkSock {
        key: String,
        file: Vec<u8>,
    },
    SetOwn {
        key: String,
        file: Vec<u8>,
        uid: u32,
        gid: u32,
    },
    /// `mode` is the whole `st_mode`.
    SetMod {
        key: String,
        file: Vec<u8>,
        mode: u32,
    },
    /// `mtime` is in the unit of the session's dialect: seconds or nanoseconds since 1970.
    SeTime {
        key: String,
        file: Vec<u8>,
        mtime: i64,
    },
    /// `server` is the server's own name; no file: all of them.
    List {
        server: String,
        file: Option<Vec<u8>>,
        keys: Vec<String>,
    },
    Bye,
}

/// What the second dialect sends along with a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    /// The whole `st_mode`.
    pub mode: u32,
    /// Nanoseconds since 1970 on the wire.
    pub mtime: Timestamp,
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("unknown command")]
    Unknown,
    #[error("malformed command: {0}")]
    Malformed(&'static str),
}

impl Request {
    /// Reads one line, without its line end.
    pub fn parse(_line: &[u8]) -> Result<Self, RequestError> {
        todo!()
    }

    /// The line, with its `\n`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let _ = (MAX_FIELDS, encoding::encode(b""));
        todo!()
    }
}
