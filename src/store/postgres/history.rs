//! What is recorded of runs and sessions, and how the state stands: see [`super::super::history`].

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::super::history::{Moments, Record, SET_PEER, SET_RUN, THIN_MARKINGS};
use super::super::spelling::{Spelling, read_host};
use super::migrate::is_race;
use super::values::{Text, optional_text, text};
use super::{Answer, write};
use crate::model::{DirtyVersion, End, Figures, Past, PastRun, Pending, Session, Standing};

/// One transaction.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS csync2_peer (
    peername text PRIMARY KEY, ended bigint NOT NULL, succeeded bigint, failed bigint, error text, dialect text,
    address text, milliseconds bigint NOT NULL, sent bigint NOT NULL, removed bigint NOT NULL, equal bigint NOT NULL,
    refused bigint NOT NULL, bytes bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS csync2_run (
    mode text PRIMARY KEY, ended bigint NOT NULL, milliseconds bigint NOT NULL, errors bigint NOT NULL,
    checked bigint NOT NULL, marked bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS csync2_marking (minute bigint PRIMARY KEY, at bigint NOT NULL, version bigint NOT NULL);
";

pub(super) async fn record(client: &Object, spelling: Spelling, record: &Record) -> Answer<()> {
    match try_record(client, spelling, record).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            match client.batch_execute(TABLES).await {
                // Another one makes them at the same time.
                Err(error) if !is_race(&error) => return Err(error),
                _ => {}
            }
            try_record(client, spelling, record).await
        }
        recorded => recorded,
    }
}

async fn try_record(client: &Object, spelling: Spelling, record: &Record) -> Answer<()> {
    match record {
        Record::Session(session) => record_session(client, spelling, session).await,
        Record::Run(run) => record_run(client, run).await,
        Record::Marking(now) => record_marking(client, *now).await,
    }
}

async fn record_session(client: &Object, spelling: Spelling, session: &Session) -> Answer<()> {
    let Session { peer, at, milliseconds, end, dialect, address, figures } = session;
    let Figures { sent, removed, equal, refused, bytes } = *figures;
    let write = |text: &str| Text(spelling.write(text.as_bytes()));
    let error = if let End::Badly(error) = end { Some(write(error)) } else { None };
    let [dialect, address] = [dialect, address].map(|text| text.as_deref().map(write));
    let (succeeded, failed) = ((*end == End::Well).then_some(at), error.is_some().then_some(at));
    let [milliseconds, sent, removed, equal, refused, bytes] =
        [*milliseconds, sent, removed, equal, refused, bytes].map(u64::cast_signed);
    write::execute(
        client,
        SET_PEER,
        &[
            &write(peer),
            at,
            &succeeded,
            &failed,
            &error,
            &dialect,
            &address,
            &milliseconds,
            &sent,
            &removed,
            &equal,
            &refused,
            &bytes,
        ],
    )
    .await
    .map(drop)
}

async fn record_run(client: &Object, run: &PastRun) -> Answer<()> {
    let PastRun { mode, at, milliseconds, errors, checked, marked } = run;
    let [milliseconds, errors, checked, marked] = [*milliseconds, *errors, *checked, *marked].map(u64::cast_signed);
    write::execute(client, SET_RUN, &[mode, at, &milliseconds, &errors, &checked, &marked]).await.map(drop)
}

async fn record_marking(client: &Object, now: i64) -> Answer<()> {
    let sql = "INSERT INTO csync2_marking SELECT $1::bigint / 60, $1, last_value FROM csync2_dirty_version \
         ON CONFLICT (minute) DO UPDATE SET version = greatest(csync2_marking.version, excluded.version)";
    write::execute(client, sql, &[&now]).await?;
    write::execute(client, THIN_MARKINGS, &[&now]).await.map(drop)
}

/// One pass over both tables. A size is what stands behind the type of a regular file; it is read once a file, however many
/// peers the file is dirty for.
const PENDING: &str = "
SELECT peername, count(*), count(*) FILTER (WHERE forced <> 0), min(version), coalesce(sum(bytes), 0)::bigint
FROM dirty LEFT JOIN (
    SELECT name_digest,
        CASE WHEN size <> '' AND length(size) < 19 AND translate(size, '0123456789', '') = '' THEN size::bigint END AS bytes
    FROM (SELECT name_digest, split_part(checktxt, '%3Atype=reg%3Asize=', 2) AS size FROM file) AS texts
) AS sizes ON sizes.name_digest = dirty.name_digest
GROUP BY peername";

/// How the state stands. Each table is read as of one moment.
pub(super) async fn standing(client: &Object) -> Answer<(Standing, Moments)> {
    let pending = client.query_typed(PENDING, &[]).await?;
    let counts =
        "SELECT (SELECT count(*) FROM hint), (SELECT count(*) FROM action), to_regclass('csync2_marking') IS NOT NULL";
    let counts = client.query_typed(counts, &[]).await?;
    let holders = client.query_typed("SELECT holder FROM csync2_intent", &[]).await?;
    let mut standing = Standing {
        pending: pending.iter().map(pending_of).collect::<Answer<_>>()?,
        intents: holders.iter().map(|row| Ok(read_host(text(row, 0)?))).collect::<Answer<_>>()?,
        ..Standing::default()
    };
    let mut moments = Moments::default();
    let Some(counts) = counts.first() else { return Ok((standing, moments)) };
    (standing.hints, standing.actions) = (number(counts, 0)?, number(counts, 1)?);
    if counts.try_get(2)? {
        let past_of = |row: &Row| past(row);
        standing.past =
            client.query_typed("SELECT * FROM csync2_peer", &[]).await?.iter().map(past_of).collect::<Answer<_>>()?;
        standing.runs =
            client.query_typed("SELECT * FROM csync2_run", &[]).await?.iter().map(run).collect::<Answer<_>>()?;
        let markings = client.query_typed("SELECT version, at FROM csync2_marking ORDER BY version", &[]).await?;
        moments.0 = markings.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Answer<_>>()?;
    }
    Ok((standing, moments))
}

fn number(row: &Row, index: usize) -> Answer<u64> {
    row.try_get::<_, i64>(index).map(i64::cast_unsigned)
}

fn pending_of(row: &Row) -> Answer<Pending> {
    Ok(Pending {
        peer: read_host(text(row, 0)?),
        files: number(row, 1)?,
        forced: number(row, 2)?,
        first: DirtyVersion(row.try_get(3)?),
        bytes: number(row, 4)?,
        since: None,
    })
}

fn past(row: &Row) -> Answer<Past> {
    let words = |index| Ok::<_, tokio_postgres::Error>(optional_text(row, index)?.map(read_host));
    Ok(Past {
        peer: read_host(text(row, 0)?),
        ended: row.try_get(1)?,
        succeeded: row.try_get(2)?,
        failed: row.try_get(3)?,
        error: words(4)?,
        dialect: words(5)?,
        address: words(6)?,
        milliseconds: number(row, 7)?,
        figures: Figures {
            sent: number(row, 8)?,
            removed: number(row, 9)?,
            equal: number(row, 10)?,
            refused: number(row, 11)?,
            bytes: number(row, 12)?,
        },
    })
}

fn run(row: &Row) -> Answer<PastRun> {
    Ok(PastRun {
        mode: row.try_get(0)?,
        at: row.try_get(1)?,
        milliseconds: number(row, 2)?,
        errors: number(row, 3)?,
        checked: number(row, 4)?,
        marked: number(row, 5)?,
    })
}
