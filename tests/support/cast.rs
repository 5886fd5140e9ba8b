//! Which program plays which role, over which transport and database.

use std::path::Path;

use super::cluster::Builder;

/// The two programs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The C program, as Debian packages it: what it does is the truth, but for its known defects.
    Reference,
    /// The binary of this crate.
    Ours,
}

impl Program {
    pub(crate) fn path(self) -> &'static Path {
        match self {
            Program::Reference => {
                let path = Path::new("/usr/sbin/csync2");
                assert!(path.exists(), "the C program is missing: apt-get install csync2 (tests/run does it)");
                path
            }
            Program::Ours => Path::new(env!("CARGO_BIN_EXE_csync2")),
        }
    }
}

/// The kind of state database that every node of a cluster gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// One line of the list of role combinations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    /// Runs on the first node of a cluster.
    pub(crate) client: Program,
    /// Runs on all other nodes.
    pub(crate) server: Program,
    pub(crate) tls: bool,
    pub(crate) backend: Backend,
}

impl Cast {
    /// `client` against `server` in the simplest surroundings: no TLS, SQLite.
    pub(crate) const fn plain(client: Program, server: Program) -> Self {
        Cast { client, server, tls: false, backend: Backend::Sqlite }
    }

    /// One program on all nodes, with SQLite; the test itself talks to it.
    pub(crate) const fn sqlite(program: Program) -> Self {
        Cast::plain(program, program)
    }

    /// As [`Self::sqlite`], with PostgreSQL.
    pub(crate) const fn postgres(program: Program) -> Self {
        Cast { client: program, server: program, tls: false, backend: Backend::Postgres }
    }

    /// `client` against `server` as clusters run in earnest: TLS, PostgreSQL.
    pub(crate) const fn full(client: Program, server: Program) -> Self {
        Cast { client, server, tls: true, backend: Backend::Postgres }
    }

    /// A cluster with these nodes, the first one being the client.
    pub(crate) fn cluster<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Builder {
        Builder::new(self, names)
    }

    /// True when only our program takes part, so that what the C program gets wrong must be right.
    pub(crate) fn all_ours(self) -> bool {
        self.client == Program::Ours && self.server == Program::Ours
    }
}

/// Makes of each scenario (a function that takes a [`Cast`]) a module with one test for each cast of a list: all
/// combinations of roles; `tls:` those over TLS; `one program:` where a single program is looked at; `joining:` where ours meets either in both surroundings; `ours as client:` for
/// what our client says of either; `ours:` where only our program is right.
macro_rules! scenarios {
    (@cast $scenario:ident $($test:ident $make:ident $program:ident $($server:ident)?;)*) => {
        mod $scenario {
            use crate::support::{Cast, Program};
            $(#[test]
            fn $test() {
                super::$scenario(Cast::$make(Program::$program $(, Program::$server)?));
            })*
        }
    };
    (tls: $($scenario:ident)*) => { $(crate::support::scenarios! { @cast $scenario
        c_to_c full Reference Reference;
        c_to_ours full Reference Ours;
        ours_to_c full Ours Reference;
        ours_to_ours full Ours Ours;
    })* };
    (one program: $($scenario:ident)*) => { $(crate::support::scenarios! { @cast $scenario
        c_on_sqlite sqlite Reference;
        c_on_postgres postgres Reference;
        ours_on_sqlite sqlite Ours;
        ours_on_postgres postgres Ours;
    })* };
    (joining: $($scenario:ident)*) => { $(crate::support::scenarios! { @cast $scenario
        to_c plain Ours Reference;
        to_c_tls_postgres full Ours Reference;
        to_ours plain Ours Ours;
        to_ours_tls_postgres full Ours Ours;
    })* };
    (ours as client: $($scenario:ident)*) => { $(crate::support::scenarios! { @cast $scenario
        to_c plain Ours Reference;
        to_ours plain Ours Ours;
    })* };
    (ours: $($scenario:ident)*) => { $(crate::support::scenarios! { @cast $scenario
        ours_on_sqlite sqlite Ours;
        ours_on_postgres postgres Ours;
    })* };
    ($($scenario:ident)*) => { $(crate::support::scenarios! { @cast $scenario
        c_to_c plain Reference Reference;
        c_to_c_tls_postgres full Reference Reference;
        c_to_ours plain Reference Ours;
        c_to_ours_tls_postgres full Reference Ours;
        ours_to_c plain Ours Reference;
        ours_to_c_tls_postgres full Ours Reference;
        ours_to_ours plain Ours Ours;
        ours_to_ours_tls_postgres full Ours Ours;
    })* };
}
pub(crate) use scenarios;
