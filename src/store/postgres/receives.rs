//! Receiving: the record of files that have come, and the intents of the next ones. One transaction and one trip, carried
//! out once whatever becomes of its answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::{GenericClient, Object};

use super::super::spelling::Spelling;
use super::super::{Intent, IntentId, Receipt};
use super::values::{NameDigest, Text};
use super::write::{ADD_ACTIONS, ActionRows, FileRows, INSERT_FILES, Parameters, execute};
use super::{Answer, together};
use crate::model::{FileRecord, SyncPath};

/// What becomes of a row that is there already. Its other columns follow from the name.
const REPLACE: &str = "DO UPDATE SET filename = excluded.filename, checktxt = excluded.checktxt, \
     mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, device = excluded.device, digest = excluded.digest";

/// The sender's marks go in the order in which marks are written.
const REMOVE_MARKS: &str = "WITH held AS (SELECT d.name_digest, d.peername FROM dirty d \
     JOIN unnest($1::bytea[], $2::text[]) AS n (name_digest, peername) \
     ON d.name_digest = n.name_digest AND d.peername = n.peername \
     ORDER BY d.name_key, d.peername COLLATE \"C\" FOR UPDATE OF d) \
     DELETE FROM dirty USING held WHERE dirty.name_digest = held.name_digest AND dirty.peername = held.peername";

const REMOVE_INTENTS: &str = "DELETE FROM csync2_intent WHERE id = ANY ($1::bigint[])";

const ADD_INTENTS: &str = "INSERT INTO csync2_intent (id, filename, peername, temp_name, target, holder) \
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
     ON CONFLICT (id) DO NOTHING";

/// The end of some receives and the beginning of the next.
///
/// It must not be carried out twice: by then others may have changed the rows that it replaces. Its intents tell whether it
/// was, so they get their ids here.
#[derive(Debug)]
pub(super) struct Step {
    receipts: Vec<(Option<IntentId>, Receipt)>,
    intents: Vec<Intent>,
    /// Of the intents, in their order.
    ids: Vec<i64>,
    /// The intents that it ends.
    ended: Vec<i64>,
    was_tried: AtomicBool,
}

impl Step {
    pub(super) fn new(receipts: Vec<(Option<IntentId>, Receipt)>, intents: Vec<Intent>) -> Self {
        // Of 62 bits: nobody meets with the ids of another.
        let first = getrandom::u64().unwrap_or_default() >> 2;
        let ids = (first.cast_signed()..).take(intents.len()).collect();
        let ended = receipts.iter().filter_map(|(id, _)| id.map(|id| id.0)).collect();
        Self { receipts, intents, ids, ended, was_tried: AtomicBool::new(false) }
    }

    /// The ids of the intents that begin with it.
    pub(super) fn begun(&self) -> Vec<IntentId> {
        self.ids.iter().copied().map(IntentId).collect()
    }

    /// Whether an attempt whose answer was lost was carried out: its intents are there, or those that it ends are not.
    async fn is_done(&self, client: &Object) -> Answer<bool> {
        let Self { ids, ended, .. } = self;
        let telling = if ids.is_empty() { ended } else { ids };
        let statement = client.prepare_cached("SELECT id FROM csync2_intent WHERE id = ANY ($1::bigint[])").await?;
        let are_there = !client.query(&statement, &[telling]).await?.is_empty();
        Ok(if ids.is_empty() { !ended.is_empty() && !are_there } else { are_there })
    }
}

/// All statements are sent together: one trip for the whole transaction.
pub(super) async fn next_receives(client: &Object, spelling: Spelling, step: &Step) -> Answer<()> {
    if step.was_tried.swap(true, Ordering::Relaxed) && step.is_done(client).await? {
        return Ok(());
    }
    let Step { receipts, intents, ids, ended, .. } = step;
    // A statement may replace a row but once: the last receipt counts. One order for everybody, as for changes.
    let latest: BTreeMap<&SyncPath, Option<&FileRecord>> =
        receipts.iter().map(|(_, receipt)| (&receipt.path, receipt.record.as_ref())).collect();
    let (mut rows, mut gone) = (FileRows::default(), Vec::new());
    for (path, record) in latest {
        let digest = NameDigest::of(path.as_bytes());
        match record {
            Some(record) => rows.push(spelling, path, record, digest),
            None => gone.push(digest),
        }
    }
    let write = |raw: &[u8]| Text(spelling.write(raw));
    let received: Vec<NameDigest> =
        receipts.iter().map(|(_, receipt)| NameDigest::of(receipt.path.as_bytes())).collect();
    let senders: Vec<Text> = receipts.iter().map(|(_, receipt)| write(receipt.sender.as_bytes())).collect();
    let actions = ActionRows::of(spelling, receipts.iter().flat_map(|(_, receipt)| &receipt.actions));
    let names: Vec<Text> = intents.iter().map(|intent| write(intent.path.as_bytes())).collect();
    let peers: Vec<Text> = intents.iter().map(|intent| write(intent.peer.as_bytes())).collect();
    let temp_names: Vec<Text> = intents.iter().map(|intent| write(&intent.temp_name)).collect();
    let holders: Vec<Text> = intents.iter().map(|intent| write(intent.holder.as_bytes())).collect();
    let target = |intent: &Intent| intent.target.as_ref().map(|target| write(target.as_bytes()));
    let targets: Vec<Option<Text>> = intents.iter().map(target).collect();

    let insert_files = format!("{INSERT_FILES} {REPLACE}");
    let statements: [(bool, &str, &Parameters<'_>); 6] = [
        (!rows.digests.is_empty(), &insert_files, &rows.parameters()),
        (!gone.is_empty(), "DELETE FROM file WHERE name_digest = ANY ($1::bytea[])", &[&gone]),
        (!received.is_empty(), REMOVE_MARKS, &[&received, &senders]),
        (!actions.names.is_empty(), ADD_ACTIONS, &actions.parameters()),
        (!ended.is_empty(), REMOVE_INTENTS, &[ended]),
        (!names.is_empty(), ADD_INTENTS, &[ids, &names, &peers, &temp_names, &targets, &holders]),
    ];
    // Durable, also where only what is over is recorded: a server that crashes would bring its intents back, while the session
    // that ends them is gone and its process still there.
    at_once(client, statements.iter().filter(|(is_needed, ..)| *is_needed)).await
}

/// Runs statements as one transaction, sent together with its beginning and its end. When one fails, the server undoes
/// all of them.
async fn at_once<'s>(
    client: &Object,
    statements: impl Iterator<Item = &'s (bool, &'s str, &'s Parameters<'s>)>,
) -> Answer<()> {
    let mut prepared = Vec::new();
    for (_, sql, parameters) in statements {
        // Before the transaction: what is prepared in between would be sent behind its end.
        prepared.push((client.prepare_cached(sql).await?, *parameters));
    }
    let alone = prepared.len() == 1;
    let control = async |sql: &str| if alone { Ok(()) } else { client.batch_execute(sql).await };
    let work = together::all(prepared.iter().map(|(sql, parameters)| client.execute(sql, parameters)));
    together::both(together::both(control("BEGIN"), work), control("COMMIT")).await.map(drop)
}

pub(super) async fn abandon_receives(client: &Object, ids: &[IntentId]) -> Answer<()> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    execute(client, REMOVE_INTENTS, &[&ids]).await.map(drop)
}
