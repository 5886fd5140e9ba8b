//! Who takes part.

use std::fmt;

use crate::support::Program;
use crate::support::cast::{Backend, Cast};

/// A program with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Csync2(Csync2),
    Rsync {
        fsync: bool,
        in_place: bool,
    },
    Find,
    /// A process that does nothing.
    Bare,
}

/// The programs on both ends, their databases, and what stands in their configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Csync2 {
    pub(super) client: Program,
    pub(super) server: Program,
    pub(super) backend: Backend,
    pub(super) tls: bool,
    manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As it is without a word about it.
    Usual,
    Classic,
    NotDurable,
}

use Backend::{Postgres, Sqlite};
use Program::{Ours, Reference};

const fn csync2(client: Program, server: Program, backend: Backend) -> Contender {
    Contender::Csync2(Csync2 { client, server, backend, tls: false, manner: Manner::Usual })
}

pub(super) const OURS: Contender = csync2(Ours, Ours, Sqlite);
pub(super) const OURS_POSTGRES: Contender = csync2(Ours, Ours, Postgres);
pub(super) const C: Contender = csync2(Reference, Reference, Sqlite);
pub(super) const C_POSTGRES: Contender = csync2(Reference, Reference, Postgres);
pub(super) const TO_C: Contender = csync2(Ours, Reference, Sqlite);
pub(super) const FROM_C: Contender = csync2(Reference, Ours, Sqlite);
pub(super) const RSYNC: Contender = Contender::Rsync { fsync: false, in_place: false };
pub(super) const RSYNC_FSYNC: Contender = Contender::Rsync { fsync: true, in_place: false };
pub(super) const RSYNC_IN_PLACE: Contender = Contender::Rsync { fsync: false, in_place: true };
pub(super) const RSYNC_IN_PLACE_FSYNC: Contender = Contender::Rsync { fsync: true, in_place: true };

impl Contender {
    /// The same over TLS.
    pub(super) const fn tls(self) -> Contender {
        match self {
            Contender::Csync2(csync2) => Contender::Csync2(Csync2 { tls: true, ..csync2 }),
            other => other,
        }
    }

    /// The same in the classic dialect.
    pub(super) const fn classic(self) -> Contender {
        self.told(Manner::Classic)
    }

    /// The same without flushes of what is received.
    pub(super) const fn not_durable(self) -> Contender {
        self.told(Manner::NotDurable)
    }

    const fn told(self, manner: Manner) -> Contender {
        match self {
            Contender::Csync2(csync2) => Contender::Csync2(Csync2 { manner, ..csync2 }),
            other => other,
        }
    }
}

impl Csync2 {
    pub(super) fn cast(self) -> Cast {
        Cast { client: self.client, server: self.server, tls: self.tls, backend: self.backend }
    }

    /// What stands at the top of the configuration of every node with our program.
    pub(super) fn configuration(self) -> &'static str {
        match self.manner {
            Manner::Usual => "",
            Manner::Classic => "batches no;",
            Manner::NotDurable => "durability none;",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contender::Csync2(csync2) => csync2.fmt(f),
            Contender::Rsync { fsync, in_place } => {
                f.write_str("rsync")?;
                f.write_str(if *in_place { " --inplace" } else { "" })?;
                f.write_str(if *fsync { " --fsync" } else { "" })
            }
            Contender::Find => f.write_str("find"),
            Contender::Bare => f.write_str("true"),
        }
    }
}

impl fmt::Display for Csync2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.client, self.server) {
            (Ours, Ours) => "ours",
            (Ours, Reference) => "ours to C",
            (Reference, Ours) => "C to ours",
            (Reference, Reference) => "C",
        })?;
        f.write_str(match self.manner {
            Manner::Usual => "",
            Manner::Classic => ", classic",
            Manner::NotDurable => ", durability none",
        })?;
        f.write_str(if self.tls { ", TLS" } else { "" })?;
        f.write_str(if self.backend == Postgres { ", PostgreSQL" } else { ", SQLite" })
    }
}
