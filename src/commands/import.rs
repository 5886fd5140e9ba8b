//! `--import-db`: copies the state that another database holds into ours. Runs none of the actions that come with it: while the
//! other database is still in use, they are that one's.

use std::path::Path;

use anyhow::bail;

use super::node_settings;
use crate::cli::{Printer, Settings, Status};
use crate::model::errors::chain;
use crate::store::{Location, Malformed, Source, StoreError, StoreOptions};

/// The way for a database that we do not read. Every string in the tables is encoded, so that none holds a tab, a quote or a
/// newline.
const BY_WAY_OF_A_DUMP: &str = r#"is not read directly. By way of a dump (put the arguments of mysql right):
    sqlite3 state.db3 'CREATE TABLE file (filename, checktxt);
        CREATE TABLE dirty (filename, forced, myname, peername);
        CREATE TABLE hint (filename, recursive);
        CREATE TABLE action (filename, command, logfile);
        CREATE TABLE x509_cert (peername, certdata);'
    for table in file dirty hint action x509_cert; do
        columns=$(sqlite3 state.db3 "SELECT group_concat(name) FROM pragma_table_info('$table')")
        mysql -h HOST -u USER -p DATABASE -NB -e "SELECT $columns FROM $table" > $table.tsv
        sqlite3 state.db3 ".mode tabs" ".import $table.tsv $table"
    done
    csync2 --import-db state.db3"#;

/// Prints how many rows each table has got.
///
/// # Errors
/// What kept the state from being copied: then nothing of it is there.
pub(super) async fn run(settings: &Settings, from: &str, printer: &Printer) -> anyhow::Result<Status> {
    let settings = node_settings(settings, false);
    let config = settings.load(&settings.config_name).await?;
    let from = match Location::resolve(Some(from), &config.my_name, &settings.config_name) {
        Err(StoreError::Unsupported { url, product }) => bail!("{url}: {product} {BY_WAY_OF_A_DUMP}"),
        // Unlike `-D`, which makes files, this may name one that is there.
        _ if Path::new(from).is_file() => Location::Sqlite(from.into()),
        location => location?,
    };
    let to = settings.location(&config, &settings.config_name)?;
    if is_same(&from, &to) {
        bail!("{from} is to be imported into itself: name the new database with -D.");
    }
    let options = StoreOptions { lock_timeout: config.lock_timeout, read_only: true, ..StoreOptions::default() };
    let source = Source::open(&from, &options).await?;
    let store = match settings.open_store(&to, &config).await {
        Ok(store) => store,
        Err(error) => {
            let lines = [vec![chain(&error)], super::remedy(&to, &error)].concat();
            bail!("{}", lines.join("\n"));
        }
    };
    let imported = store.import(&source).await?;
    if let Some(Malformed { count, first }) = imported.malformed {
        tracing::warn!(
            "WARNING: {from}: {count} rows are malformed, and were left out: no csync2 could use them. The first: {first:?}"
        );
    }
    if imported.under_way > 0 {
        let count = imported.under_way;
        tracing::warn!(
            "WARNING: {from}: {count} files were being received. What came of them is not known here: `csync2 -c` with the old \
             database ends what was interrupted."
        );
    }
    let text = if imported.was_there { "the same is there already" } else { "imported" };
    printer.line(&[format!("{from} -> {to}: {text}: {}", imported.contents).as_bytes()])?;
    printer.flush()?;
    store.close().await;
    Ok(Status::Success)
}

fn is_same(one: &Location, other: &Location) -> bool {
    match (one, other) {
        (Location::Sqlite(one), Location::Sqlite(other)) => {
            one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
        }
        _ => one == other,
    }
}
