//! The tables: the C program's, and what we add to them (why: see the parent module's documentation).
//!
//! Everything happens in one transaction, so that a crash leaves the old tables. Whoever comes first holds the row of
//! `csync2_schema`; the others wait for it and find the work done. No lock functions are needed for that.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::error::{Result, StoreError};
use super::retry::Retry;
use super::trouble::{Remedy, Trouble};

/// The version of the tables that this program makes and understands.
pub(super) const SCHEMA_VERSION: i64 = 4;

/// The C program's tables, as it makes them, but for the constraints: an index on text holds no long name.
const C_TABLES: &str = "
CREATE TABLE IF NOT EXISTS action (filename TEXT NOT NULL, command TEXT NOT NULL, logfile TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dirty
    (filename TEXT NOT NULL, forced INTEGER NOT NULL, myname TEXT NOT NULL, peername TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS file (filename TEXT NOT NULL, checktxt TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS hint (filename TEXT NOT NULL, recursive INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS x509_cert (peername TEXT NOT NULL, certdata TEXT NOT NULL, UNIQUE (peername));
";

/// Columns of older set-ups that are too short.
const NARROW_COLUMNS: &str = "
SELECT 'ALTER TABLE ' || quote_ident(table_name) || ' ALTER COLUMN ' || quote_ident(column_name) || ' TYPE text'
FROM information_schema.columns
WHERE table_schema = current_schema() AND data_type IN ('character varying', 'character')
  AND table_name IN ('file', 'dirty', 'hint', 'action', 'x509_cert')";

/// The constraints and unique indexes on names, which make long names fail.
const NAME_CONSTRAINTS: &str = "
SELECT 'ALTER TABLE ' || quote_ident(t.relname) || ' DROP CONSTRAINT ' || quote_ident(c.conname)
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
WHERE t.oid IN ('file'::regclass, 'dirty'::regclass, 'action'::regclass, 'hint'::regclass) AND c.contype IN ('u', 'p')";

const NAME_INDEXES: &str = "
SELECT 'DROP INDEX ' || quote_ident(x.relname)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid IN ('file'::regclass, 'dirty'::regclass, 'action'::regclass, 'hint'::regclass) AND i.indisunique";

/// What version 1 adds. The hash indexes serve the C program's look-ups by name, of any length.
const VERSION_1: &str = r"
CREATE FUNCTION csync2_classic(name text) RETURNS bytea LANGUAGE plpgsql AS $body$
-- The name as the C program spells it: bytes that stand as %XX above %7F are bytes again.
BEGIN
    IF name !~ '%[89A-Fa-f][0-9A-Fa-f]' THEN
        RETURN convert_to(name, getdatabaseencoding());
    END IF;
    RETURN (
        SELECT string_agg(
            CASE WHEN part ~ '^%[89A-Fa-f][0-9A-Fa-f]$' THEN decode(substr(part, 2), 'hex')
                 ELSE convert_to(part, getdatabaseencoding()) END,
            ''::bytea ORDER BY place)
        FROM (SELECT m.parts[1] AS part, m.place
              FROM regexp_matches(name, '(%[89A-Fa-f][0-9A-Fa-f]|%|[^%]+)', 'g') WITH ORDINALITY AS m (parts, place)
             ) AS pieces
    );
END $body$;

CREATE SEQUENCE csync2_dirty_version;
-- The C program may come as another role.
GRANT USAGE ON SEQUENCE csync2_dirty_version TO PUBLIC;

ALTER TABLE file ADD COLUMN name_key bytea, ADD COLUMN name_digest bytea, ADD COLUMN mtime_ns bigint,
    ADD COLUMN ctime_ns bigint, ADD COLUMN device bigint, ADD COLUMN digest bytea;
ALTER TABLE dirty ADD COLUMN name_key bytea, ADD COLUMN name_digest bytea,
    ADD COLUMN version bigint NOT NULL DEFAULT nextval('csync2_dirty_version');
UPDATE file SET name_key = substring(csync2_classic(filename) from 1 for 1000),
    name_digest = sha256(csync2_classic(filename));
UPDATE dirty SET name_key = substring(csync2_classic(filename) from 1 for 1000),
    name_digest = sha256(csync2_classic(filename));
DELETE FROM file a USING file b WHERE a.name_digest = b.name_digest AND a.ctid < b.ctid;
DELETE FROM dirty a USING dirty b
    WHERE a.name_digest = b.name_digest AND a.peername = b.peername AND a.version < b.version;

CREATE UNIQUE INDEX csync2_file_name ON file (name_digest);
CREATE UNIQUE INDEX csync2_dirty_name ON dirty (name_digest, peername);
CREATE INDEX csync2_file_order ON file (name_key);
CREATE INDEX csync2_dirty_order ON dirty (name_key);
CREATE INDEX csync2_file_filename ON file USING hash (filename);
CREATE INDEX csync2_dirty_filename ON dirty USING hash (filename);
CREATE INDEX csync2_action_filename ON action USING hash (filename);

-- For rows of the C program, which knows none of these columns. It has removed the old row by its own spelling; one
-- under the other spelling goes here.
CREATE FUNCTION csync2_file_row() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE name bytea := csync2_classic(NEW.filename);
BEGIN
    NEW.name_key := substring(name from 1 for 1000);
    NEW.name_digest := sha256(name);
    DELETE FROM file WHERE name_digest = NEW.name_digest AND filename <> NEW.filename;
    RETURN NEW;
END $body$;
CREATE FUNCTION csync2_dirty_row() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE name bytea := csync2_classic(NEW.filename);
BEGIN
    NEW.name_key := substring(name from 1 for 1000);
    NEW.name_digest := sha256(name);
    DELETE FROM dirty
    WHERE name_digest = NEW.name_digest AND peername = NEW.peername AND filename <> NEW.filename;
    RETURN NEW;
END $body$;
CREATE TRIGGER csync2_file_row BEFORE INSERT ON file
    FOR EACH ROW WHEN (NEW.name_digest IS NULL) EXECUTE PROCEDURE csync2_file_row();
CREATE TRIGGER csync2_dirty_row BEFORE INSERT ON dirty
    FOR EACH ROW WHEN (NEW.name_digest IS NULL) EXECUTE PROCEDURE csync2_dirty_row();

-- The C program takes a repeated action for a fatal error where a constraint forbids it, and twice the same for two.
CREATE FUNCTION csync2_action_row() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF EXISTS (SELECT 1 FROM action WHERE filename = NEW.filename AND command = NEW.command) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $body$;
CREATE TRIGGER csync2_action_row BEFORE INSERT ON action FOR EACH ROW EXECUTE PROCEDURE csync2_action_row();

CREATE SEQUENCE csync2_intent_id;
CREATE TABLE csync2_intent (
    id bigint PRIMARY KEY DEFAULT nextval('csync2_intent_id'),
    filename text NOT NULL, peername text NOT NULL, temp_name text NOT NULL, target text, holder text NOT NULL
);
CREATE TABLE csync2_claim (peername text PRIMARY KEY, holder text NOT NULL, expires bigint NOT NULL);
UPDATE csync2_schema SET version = 1;
";

/// What version 2 adds: versions of scheduled actions. A row that is scheduled again is replaced.
const VERSION_2: &str = r"
CREATE SEQUENCE csync2_action_version;
GRANT USAGE ON SEQUENCE csync2_action_version TO PUBLIC;
ALTER TABLE action ADD COLUMN version bigint NOT NULL DEFAULT nextval('csync2_action_version');
CREATE INDEX csync2_action_by_version ON action (version);
CREATE OR REPLACE FUNCTION csync2_action_row() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM action WHERE filename = NEW.filename AND command = NEW.command;
    RETURN NEW;
END $body$;
UPDATE csync2_schema SET version = 2;
";

/// What version 3 adds: the standing facts that were warned about.
const VERSION_3: &str = "
CREATE TABLE csync2_notice (about text PRIMARY KEY, facts text NOT NULL);
UPDATE csync2_schema SET version = 3;
";

/// What version 4 adds: versions of hints. One that is given again is replaced.
const VERSION_4: &str = r"
CREATE SEQUENCE csync2_hint_version;
GRANT USAGE ON SEQUENCE csync2_hint_version TO PUBLIC;
ALTER TABLE hint ADD COLUMN version bigint NOT NULL DEFAULT nextval('csync2_hint_version');
CREATE FUNCTION csync2_hint_row() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM hint WHERE filename = NEW.filename AND recursive = NEW.recursive;
    RETURN NEW;
END $body$;
CREATE TRIGGER csync2_hint_row BEFORE INSERT ON hint FOR EACH ROW EXECUTE PROCEDURE csync2_hint_row();
UPDATE csync2_schema SET version = 4;
";

/// Brings the tables of the database up to date. `seen`: their version as far as it is known.
pub(super) async fn migrate(client: &mut Object, database: &str, patience: Duration, seen: Option<i64>) -> Result<()> {
    if seen == Some(SCHEMA_VERSION) {
        return Ok(());
    }
    let mut retry = Retry::new("bring the tables up to date", patience);
    loop {
        let result = match version(client).await {
            Ok(Some(SCHEMA_VERSION)) => return Ok(()),
            Ok(Some(found)) if found > SCHEMA_VERSION => {
                return Err(StoreError::NewerSchema { database: database.to_owned(), found, known: SCHEMA_VERSION });
            }
            Ok(_) => upgrade(client).await,
            Err(error) => Err(error),
        };
        match result {
            // Now look again.
            Ok(()) => {}
            Err(error) => {
                let may_pass = is_race(&error);
                let trouble = Trouble::from(error);
                let again = (may_pass || trouble.remedy() == Remedy::Repeat) && !trouble.is_lost();
                if !(again && retry.once_more(&trouble).await) {
                    return Err(trouble.while_opening(database));
                }
            }
        }
    }
}

/// The version of the tables; `None`: the C program's, or none at all.
pub(super) async fn version(client: &Client) -> std::result::Result<Option<i64>, tokio_postgres::Error> {
    // Not prepared, as nothing is that a connection asks once: that is two round trips more.
    match client.query_typed("SELECT version FROM csync2_schema", &[]).await {
        Ok(rows) => rows.first().map(|row| row.try_get(0)).transpose(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Two that make the same table at once: one of them fails even with IF NOT EXISTS.
pub(super) fn is_race(error: &tokio_postgres::Error) -> bool {
    let raced = [&SqlState::UNIQUE_VIOLATION, &SqlState::DUPLICATE_TABLE, &SqlState::DUPLICATE_OBJECT];
    error.code().is_some_and(|code| raced.contains(&code))
}

async fn upgrade(client: &mut Object) -> std::result::Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS csync2_schema (only_row integer PRIMARY KEY, version bigint NOT NULL); \
             INSERT INTO csync2_schema VALUES (1, 0) ON CONFLICT DO NOTHING;",
        )
        .await?;
    let row = transaction.query_one("SELECT version FROM csync2_schema WHERE only_row = 1 FOR UPDATE", &[]).await?;
    let found: i64 = row.try_get(0)?;
    if found < 1 {
        // Rows that another process writes meanwhile would be without keys.
        transaction.batch_execute(C_TABLES).await?;
        transaction.batch_execute("LOCK TABLE file, dirty, hint, action, x509_cert IN ACCESS EXCLUSIVE MODE").await?;
        for changes in [NARROW_COLUMNS, NAME_CONSTRAINTS, NAME_INDEXES] {
            for row in transaction.query(changes, &[]).await? {
                transaction.batch_execute(row.try_get(0)?).await?;
            }
        }
        transaction.batch_execute(VERSION_1).await?;
    }
    if found < 2 {
        transaction.batch_execute(VERSION_2).await?;
    }
    if found < 3 {
        transaction.batch_execute(VERSION_3).await?;
    }
    if found < 4 {
        transaction.batch_execute(VERSION_4).await?;
    }
    transaction.commit().await
}
