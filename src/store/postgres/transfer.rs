//! A whole state, read and taken in.

use std::pin::pin;

use deadpool_postgres::{GenericClient, Object, Transaction};
use futures_util::{TryStreamExt, future};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_postgres::Row as TableRow;
use tokio_postgres::types::ToSql;

use super::super::CHUNK;
use super::super::error::Result;
use super::super::spelling::{HostNames, Spelling};
use super::super::transfer::{Batch, Contents, Outcome, Row, Seen};
use super::values::text;
use super::{Answer, read, write};

/// Which tables are there. Killed while it made them, the C program leaves some out.
pub(super) async fn tables(client: &impl GenericClient) -> Answer<Vec<String>> {
    let all = "VALUES ('file'), ('dirty'), ('hint'), ('action'), ('x509_cert'), ('csync2_intent'), ('csync2_schema')";
    let sql = format!("SELECT name FROM ({all}) AS t (name) WHERE to_regclass(name) IS NOT NULL");
    let statement = client.prepare_cached(&sql).await?;
    client.query(&statement, &[]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Sends all rows, in chunks and as one snapshot. Sets `begun` before it sends a part of them.
pub(super) async fn read(client: &mut Object, sink: &Sender<Result<Vec<Row>>>, begun: &mut bool) -> Answer<()> {
    let snapshot = read::snapshot(client).await?;
    *begun = true;
    send(&snapshot, sink).await
}

/// Takes a state in, or compares it with what is there.
pub(super) async fn import(
    client: &mut Object,
    spelling: Spelling,
    source: &mut Receiver<Result<Vec<Row>>>,
) -> Answer<Outcome> {
    let transaction = client.transaction().await?;
    // Nobody else writes until the end, and no other import begins.
    let lock = "LOCK TABLE file, dirty, hint, action, x509_cert IN SHARE ROW EXCLUSIVE MODE";
    transaction.batch_execute(lock).await?;
    let found = contents(&transaction).await?;
    let mut offered = Seen::default();
    while let Some(chunk) = source.recv().await {
        match chunk {
            Ok(rows) => {
                offered.add(&rows);
                if found.is_empty() {
                    write_rows(&transaction, spelling, rows.into()).await?;
                }
            }
            Err(error) => return Ok(Outcome::Broken(error)),
        }
    }
    if !found.is_empty() {
        return Ok(Outcome::Compared { offered, found });
    }
    let outcome = Outcome::Written { offered, written: contents(&transaction).await? };
    if outcome.is_kept() {
        transaction.commit().await?;
    }
    Ok(outcome)
}

async fn write_rows(transaction: &Transaction<'_>, spelling: Spelling, batch: Batch) -> Answer<()> {
    let Batch { files, marks, hints, actions, certificates } = batch;
    if !files.is_empty() {
        write::add_files(transaction, spelling, &files).await?;
    }
    write::mark(transaction, spelling, &marks, &actions).await?;
    if !hints.is_empty() {
        write::add_hints(transaction, spelling, &hints).await?;
    }
    for (peer, der) in &certificates {
        write::pin(transaction, spelling, peer, der).await?;
    }
    Ok(())
}

/// What stands in the tables now.
async fn contents(transaction: &Transaction<'_>) -> Answer<Contents> {
    let (sink, mut rows) = mpsc::channel::<Result<Vec<Row>>>(1);
    let counting = async move {
        let mut seen = Seen::default();
        while let Some(chunk) = rows.recv().await {
            seen.add(&chunk.unwrap_or_default());
        }
        seen.contents
    };
    let sending = async move {
        let sink = sink;
        send(transaction, &sink).await
    };
    let (sent, contents) = future::join(sending, counting).await;
    sent.map(|()| contents)
}

type RowOf = fn(&TableRow) -> Answer<Row>;

/// A row with the name that stands in it, where it is none that can be understood.
fn known_or_malformed(row: &TableRow, known: Option<Row>) -> Answer<Row> {
    let name = || Ok(String::from_utf8_lossy(text(row, 0)?).into_owned());
    known.map_or_else(|| name().map(Row::Malformed), Ok)
}

async fn send(transaction: &Transaction<'_>, sink: &Sender<Result<Vec<Row>>>) -> Answer<()> {
    // The C program's tables have no columns of ours.
    let present = tables(transaction).await?;
    let is_there = |table: &str| present.iter().any(|name| name == table);
    let record_columns = if is_there("csync2_schema") {
        read::RECORD_COLUMNS
    } else {
        "filename, checktxt, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bytea"
    };
    let columns: [(&str, &str, RowOf); 6] = [
        ("file", record_columns, |row| known_or_malformed(row, read::record(row)?.map(Row::File))),
        ("dirty", "filename, forced, myname, peername, 0::bigint", |row| {
            let entry = read::mark(row, &mut HostNames::default())?;
            known_or_malformed(row, entry.map(|entry| Row::Dirty(entry.into())))
        }),
        ("hint", "DISTINCT filename, recursive", |row| Ok(Row::Hint(read::hint(row)?))),
        ("action", "filename, command, logfile", |row| known_or_malformed(row, read::action(row)?.map(Row::Action))),
        ("x509_cert", "peername, certdata", |row| {
            let (peer, der) = read::certificate(row)?;
            known_or_malformed(row, (!der.is_empty()).then_some(Row::Certificate(peer, der)))
        }),
        ("csync2_intent", "1", |_| Ok(Row::UnderWay)),
    ];
    let mut chunk = Vec::with_capacity(CHUNK);
    for (table, columns, row_of) in columns {
        if !is_there(table) {
            continue;
        }
        let statement = transaction.prepare_cached(&format!("SELECT {columns} FROM {table}")).await?;
        let none: [&(dyn ToSql + Sync); 0] = [];
        let mut rows = pin!(transaction.query_raw(&statement, none).await?);
        while let Some(row) = rows.try_next().await? {
            chunk.push(row_of(&row)?);
            if chunk.len() == CHUNK {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
                if sink.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    // Whoever has gone needs nothing more.
    let _ = sink.send(Ok(chunk)).await;
    Ok(())
}
