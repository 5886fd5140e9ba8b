//! Who takes part.

use std::fmt;

use crate::support::Program;
use crate::support::cast::Backend;

/// A program with its state database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Csync2(Program, Backend),
    Rsync,
    Find,
}

use Contender::{Csync2, Find, Rsync};

/// Those that all others are compared with.
pub(super) const OURS: [Contender; 2] =
    [Csync2(Program::Ours, Backend::Sqlite), Csync2(Program::Ours, Backend::Postgres)];

/// All of them, in the order of the tables.
pub(super) const ALL: [Contender; 6] = [
    OURS[0],
    OURS[1],
    Csync2(Program::Reference, Backend::Sqlite),
    Csync2(Program::Reference, Backend::Postgres),
    Rsync,
    Find,
];

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, backend) = match self {
            Csync2(program, backend) => (program, backend),
            Rsync => return f.write_str("rsync"),
            Find => return f.write_str("find"),
        };
        let program = match program {
            Program::Ours => "csync2",
            Program::Reference => "C program",
        };
        let backend = match backend {
            Backend::Sqlite => "SQLite",
            Backend::Postgres => "PostgreSQL",
        };
        write!(f, "{program}, {backend}")
    }
}
