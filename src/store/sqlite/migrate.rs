//! The tables: the C program's, and what we add to them.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::spelling::key;
use super::values::{Text, bytes};
use crate::model::encoding;

/// The version of the tables that this program makes and understands.
pub(super) const SCHEMA_VERSION: i64 = 4;

/// The C program's own text, so that a database looks alike whoever made it. IF NOT EXISTS: killed while it made
/// them, the C program leaves some out.
const C_TABLES: &str = "
CREATE TABLE IF NOT EXISTS file (\tfilename, checktxt,\tUNIQUE ( filename ) ON CONFLICT REPLACE);
CREATE TABLE IF NOT EXISTS dirty (\tfilename, forced, myname, peername,\tUNIQUE ( filename, peername ) ON CONFLICT IGNORE);
CREATE TABLE IF NOT EXISTS hint (\tfilename, recursive,\tUNIQUE ( filename, recursive ) ON CONFLICT IGNORE);
CREATE TABLE IF NOT EXISTS action (\tfilename, command, logfile,\tUNIQUE ( filename, command ) ON CONFLICT IGNORE);
CREATE TABLE IF NOT EXISTS x509_cert (\tpeername, certdata,\tUNIQUE ( peername ) ON CONFLICT IGNORE);
";

/// What version 1 adds. The trigger gives the C program's markings a version; ours come with one.
const VERSION_1: &str = "
ALTER TABLE file ADD COLUMN mtime_ns INTEGER;
ALTER TABLE file ADD COLUMN ctime_ns INTEGER;
ALTER TABLE file ADD COLUMN device INTEGER;
ALTER TABLE file ADD COLUMN digest BLOB;
ALTER TABLE dirty ADD COLUMN version INTEGER;
CREATE TABLE csync2_version (value INTEGER NOT NULL);
INSERT INTO csync2_version SELECT coalesce(max(rowid), 0) FROM dirty;
UPDATE dirty SET version = rowid;
CREATE TRIGGER csync2_dirty_version AFTER INSERT ON dirty WHEN new.version IS NULL BEGIN
    UPDATE csync2_version SET value = value + 1;
    UPDATE dirty SET version = (SELECT value FROM csync2_version) WHERE rowid = new.rowid;
END;
CREATE TABLE csync2_intent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL, peername TEXT NOT NULL, temp_name TEXT NOT NULL, target TEXT, holder TEXT NOT NULL
);
CREATE TABLE csync2_claim (peername TEXT PRIMARY KEY, holder TEXT NOT NULL, expires INTEGER NOT NULL);
CREATE TABLE csync2_schema (version INTEGER NOT NULL);
INSERT INTO csync2_schema VALUES (1);
";

/// What version 2 adds: versions of scheduled actions, from the same counter. A row that is scheduled again is replaced,
/// before the C program's constraint drops the new one.
const VERSION_2: &str = "
ALTER TABLE action ADD COLUMN version INTEGER;
UPDATE action SET version = rowid;
UPDATE csync2_version SET value = max(value, (SELECT coalesce(max(rowid), 0) FROM action));
CREATE INDEX csync2_action_by_version ON action (version);
CREATE TRIGGER csync2_action_again BEFORE INSERT ON action BEGIN
    DELETE FROM action WHERE filename = new.filename AND command = new.command;
END;
CREATE TRIGGER csync2_action_version AFTER INSERT ON action BEGIN
    UPDATE csync2_version SET value = value + 1;
    UPDATE action SET version = (SELECT value FROM csync2_version) WHERE rowid = new.rowid;
END;
UPDATE csync2_schema SET version = 2;
";

/// What version 3 adds: the standing facts that were warned about.
const VERSION_3: &str = "
CREATE TABLE csync2_notice (about TEXT PRIMARY KEY, facts TEXT NOT NULL);
UPDATE csync2_schema SET version = 3;
";

/// What version 4 adds: versions of hints, as those of actions.
const VERSION_4: &str = "
ALTER TABLE hint ADD COLUMN version INTEGER;
UPDATE hint SET version = rowid;
UPDATE csync2_version SET value = max(value, (SELECT coalesce(max(rowid), 0) FROM hint));
CREATE TRIGGER csync2_hint_again BEFORE INSERT ON hint BEGIN
    DELETE FROM hint WHERE filename = new.filename AND recursive = new.recursive;
END;
CREATE TRIGGER csync2_hint_version AFTER INSERT ON hint BEGIN
    UPDATE csync2_version SET value = value + 1;
    UPDATE hint SET version = (SELECT value FROM csync2_version) WHERE rowid = new.rowid;
END;
UPDATE csync2_schema SET version = 4;
";

/// The version of the tables; 0: the C program's, or none.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let ours = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'csync2_schema'";
    if connection.query_row(ours, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(0);
    }
    let version = connection.query_row("SELECT version FROM csync2_schema", [], |row| row.get(0)).optional()?;
    Ok(version.unwrap_or(0))
}

/// Brings the tables up to date. The caller holds the write lock.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let found = version(connection)?;
    if found < 1 {
        connection.execute_batch(C_TABLES)?;
        respell(connection)?;
        connection.execute_batch(VERSION_1)?;
    }
    if found < 2 {
        connection.execute_batch(VERSION_2)?;
    }
    if found < 3 {
        connection.execute_batch(VERSION_3)?;
    }
    if found < 4 {
        connection.execute_batch(VERSION_4)?;
    }
    Ok(())
}

/// Gives names that were brought here from a UTF-8 database of PostgreSQL the spelling that all names have here.
fn respell(connection: &Connection) -> rusqlite::Result<()> {
    for table in ["file", "dirty", "action"] {
        let find = format!("SELECT rowid, filename FROM {table} WHERE filename GLOB '*%[89A-Fa-f][0-9A-Fa-f]*'");
        let mut statement = connection.prepare(&find)?;
        let found = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, bytes(row, 1)?)))?;
        for (rowid, name) in found.collect::<rusqlite::Result<Vec<_>>>()? {
            let name = key(&encoding::decode(&name));
            let change = format!("UPDATE OR REPLACE {table} SET filename = ?2 WHERE rowid = ?1");
            connection.execute(&change, params![rowid, Text(&name)])?;
        }
    }
    Ok(())
}
