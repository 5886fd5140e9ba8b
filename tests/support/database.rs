//! The state database of a node, read and changed behind the program's back.

use std::path::PathBuf;

use rusqlite::Connection;

use super::postgres::Postgres;

/// Where a node's state is.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    /// The directory given by `-D` and the file that the program makes in it.
    Sqlite { directory: PathBuf, file: PathBuf },
    /// A database of the server that the test process shares.
    Postgres { name: String },
}

/// The tables of the C program, with the columns that it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    File,
    Dirty,
    Hint,
    Action,
    Certificate,
}

impl Table {
    fn select(self) -> &'static str {
        match self {
            Table::File => "SELECT filename, checktxt FROM file",
            Table::Dirty => "SELECT filename, forced, myname, peername FROM dirty",
            Table::Hint => "SELECT filename, recursive FROM hint",
            Table::Action => "SELECT filename, command, logfile FROM action",
            Table::Certificate => "SELECT peername, certdata FROM x509_cert",
        }
    }
}

impl Database {
    /// The value for `-D`.
    pub(crate) fn option(&self) -> String {
        match self {
            Database::Sqlite { directory, .. } => directory.to_str().expect("UTF-8").to_owned(),
            Database::Postgres { name } => Postgres::shared().user_url(name),
        }
    }

    /// All rows, fields joined by tabs, sorted by bytes.
    #[track_caller]
    pub(crate) fn rows(&self, table: Table) -> Vec<String> {
        let mut rows = match self {
            Database::Sqlite { .. } => self.sqlite_rows(table.select()),
            Database::Postgres { name } => Postgres::shared().rows(name, table.select()),
        };
        rows.sort();
        rows
    }

    /// Runs statements that return nothing.
    #[track_caller]
    pub(crate) fn execute(&self, statements: &str) {
        match self {
            Database::Sqlite { .. } => self.open().execute_batch(statements).expect(statements),
            Database::Postgres { name } => drop(Postgres::shared().sql(name, statements)),
        }
    }

    /// The SQLite file; panics for PostgreSQL.
    pub(crate) fn file(&self) -> &PathBuf {
        match self {
            Database::Sqlite { file, .. } => file,
            Database::Postgres { name } => panic!("{name} is no file"),
        }
    }

    fn open(&self) -> Connection {
        Connection::open(self.file()).expect("open the state database")
    }

    fn sqlite_rows(&self, select: &str) -> Vec<String> {
        let connection = self.open();
        let mut statement = connection.prepare(select).expect(select);
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let fields = (0..columns).map(|column| Ok(text(row.get_ref(column)?)));
            Ok(fields.collect::<rusqlite::Result<Vec<_>>>()?.join("\t"))
        });
        rows.and_then(Iterator::collect).expect(select)
    }
}

fn text(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
