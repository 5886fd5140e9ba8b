//! The state database of a node, read and changed behind the program's back.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::postgres::Postgres;

/// Where a node's state is.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    /// The directory given by `-D` and the file that the program makes in it.
    Sqlite { directory: PathBuf, file: PathBuf },
    /// A database of the server that the test process shares.
    Postgres { name: String },
}

/// The tables of the C program, with the columns that it knows, and one of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    File,
    Dirty,
    Hint,
    Action,
    Certificate,
    /// Receives under way: file and temporary name.
    Intent,
}

impl Table {
    fn select(self) -> &'static str {
        match self {
            Table::File => "SELECT filename, checktxt FROM file",
            Table::Dirty => "SELECT filename, forced, myname, peername FROM dirty",
            Table::Hint => "SELECT filename, recursive FROM hint",
            Table::Action => "SELECT filename, command, logfile FROM action",
            Table::Certificate => "SELECT peername, certdata FROM x509_cert",
            Table::Intent => "SELECT filename, temp_name FROM csync2_intent",
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
    ///
    /// Waits for writers: a server of the C program commits what a session did some time after the client has gone.
    #[track_caller]
    pub(crate) fn rows(&self, table: Table) -> Vec<String> {
        self.rows_if_any([table]).expect("the program has made its tables").remove(0)
    }

    /// The same of several tables; `None`: no program has made them yet.
    #[track_caller]
    pub(crate) fn rows_if_any(&self, tables: impl IntoIterator<Item = Table>) -> Option<Vec<Vec<String>>> {
        let selects = tables.into_iter().map(Table::select);
        let mut all: Vec<Vec<String>> = match self {
            Database::Sqlite { file, .. } if !file.exists() => return None,
            Database::Sqlite { file, .. } => selects.map(|select| sqlite_rows(file, select)).collect(),
            Database::Postgres { name } => {
                let tables = "file, dirty, hint, action, x509_cert";
                let copies: Vec<String> = selects.map(|select| format!("COPY ({select}) TO STDOUT")).collect();
                let copies = copies.join("; COPY (VALUES ('')) TO STDOUT; ");
                let lock = format!("BEGIN; LOCK TABLE {tables} IN SHARE MODE");
                let output = Postgres::shared().psql(name, &format!("{lock}; {copies}; COMMIT"));
                let problem = String::from_utf8_lossy(&output.stderr);
                if problem.contains("does not exist") {
                    return None;
                }
                assert!(output.status.success(), "psql {name}: {problem}");
                let printed = String::from_utf8_lossy(&output.stdout).into_owned();
                let rows: Vec<String> = printed.lines().map(str::to_owned).collect();
                rows.split(String::is_empty).map(<[String]>::to_vec).collect()
            }
        };
        for rows in &mut all {
            rows.sort();
        }
        Some(all)
    }

    /// Removes it.
    #[track_caller]
    pub(crate) fn remove(&self) {
        match self {
            Database::Sqlite { directory, .. } => {
                for entry in std::fs::read_dir(directory).expect("read the state directory") {
                    std::fs::remove_file(entry.expect("an entry").path()).expect("remove the state");
                }
            }
            Database::Postgres { name } => {
                drop(Postgres::shared().sql("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)")));
            }
        }
    }

    /// Runs statements that return nothing.
    #[track_caller]
    pub(crate) fn execute(&self, statements: &str) {
        match self {
            Database::Sqlite { file, .. } => open(file).execute_batch(statements).expect(statements),
            Database::Postgres { name } => drop(Postgres::shared().sql(name, statements)),
        }
    }
}

fn open(file: &Path) -> Connection {
    let connection = Connection::open(file).expect("open the state database");
    connection.busy_timeout(Duration::from_secs(60)).expect("set a timeout");
    connection
}

fn sqlite_rows(file: &Path, select: &str) -> Vec<String> {
    let mut connection = open(file);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).expect("wait for writers");
    let mut statement = transaction.prepare(select).expect(select);
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let fields = (0..columns).map(|column| Ok(text(row.get_ref(column)?)));
        Ok(fields.collect::<rusqlite::Result<Vec<_>>>()?.join("\t"))
    });
    rows.and_then(Iterator::collect).expect(select)
}

fn text(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => as_in_postgres(bytes),
    }
}

/// Bytes that are no UTF-8 as `%XX`, the way our program hands them to PostgreSQL.
pub(super) fn as_in_postgres(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| write!(text, "%{byte:02X}").expect("to a string"));
    }
    text
}
