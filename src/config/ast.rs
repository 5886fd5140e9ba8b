//! What stands in the file, as it stands there: no defaults, no host, no disk. `resolve` gives it a meaning.

use super::RuleKind;
use super::diagnostics::{SourceText, Span};

/// A whole configuration with everything it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The file itself, then the included ones in the order in which they were met.
    pub sources: Vec<SourceText>,
    pub blocks: Vec<Block>,
}

/// A string of the file, up to a NUL byte if it holds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: Vec<u8>,
    pub span: Span,
}

impl Word {
    /// For names and messages; bytes that are no UTF-8 become U+FFFD.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// Something at the top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    Group(GroupBlock),
    Prefix {
        name: Word,
        /// Pattern of host names, path.
        lines: Vec<(Word, Word)>,
    },
    NoSsl {
        from: Word,
        to: Word,
    },
    Database(Word),
    Tempdir(Word),
    Ignore(Vec<Word>),
    LockTimeout(Word),
    NoCygwinLowercase(Span),
    /// A word that the C program does not know.
    Setting(Setting, Word),
}

/// Words of ours. They are keywords only where a statement begins at the top level, which in a file of the C program
/// is an error anyway: everywhere else they stay ordinary strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    ParallelPeers,
    MaxSessions,
    MaxSessionsPerPeer,
    MaxStrangers,
    MaxFileSize,
    ConnectTimeout,
    HandshakeTimeout,
    IdleTimeout,
    MaxRemovals,
    AutoName,
    ActionTimeout,
    Batches,
    Durability,
    Compression,
    TlsCertificate,
    TlsKey,
    TlsCa,
    LegacyTls,
}

impl Setting {
    pub const ALL: [(&'static str, Self); 18] = [
        ("parallel-peers", Self::ParallelPeers),
        ("max-sessions", Self::MaxSessions),
        ("max-sessions-per-peer", Self::MaxSessionsPerPeer),
        ("max-strangers", Self::MaxStrangers),
        ("max-file-size", Self::MaxFileSize),
        ("connect-timeout", Self::ConnectTimeout),
        ("handshake-timeout", Self::HandshakeTimeout),
        ("idle-timeout", Self::IdleTimeout),
        ("max-removals", Self::MaxRemovals),
        ("auto-name", Self::AutoName),
        ("action-timeout", Self::ActionTimeout),
        ("batches", Self::Batches),
        ("durability", Self::Durability),
        ("compression", Self::Compression),
        ("tls-certificate", Self::TlsCertificate),
        ("tls-key", Self::TlsKey),
        ("tls-ca", Self::TlsCa),
        ("legacy-tls", Self::LegacyTls),
    ];

    pub fn from_word(word: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| name.as_bytes() == word).map(|&(_, setting)| setting)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|&&(_, setting)| setting == self).map_or("", |&(name, _)| name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBlock {
    /// The word `group`.
    pub keyword: Span,
    pub name: Option<Word>,
    pub statements: Vec<Statement>,
}

/// Something in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Hosts(Vec<HostEntry>),
    Patterns(RuleKind, Vec<Word>),
    Key(Word),
    Auto(Word),
    BackupDirectory(Word),
    BackupGenerations(Word),
    /// The word `action`, and what stands in its block.
    Action(Span, Vec<ActionStatement>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    pub name: Word,
    /// What stands behind the `@`.
    pub interface: Option<Word>,
    /// Whether it stands in parentheses.
    pub slave: bool,
}

/// Something in an action block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionStatement {
    Pattern(Vec<Word>),
    Exec(Vec<Word>),
    Logfile(Word),
    DoLocal,
    DoLocalOnly,
}
