//! What is recorded of runs and sessions, and how the state stands.
//!
//! The tables for it are apart from the versions of the others: an older program of ours works on them without knowing them,
//! and would refuse a higher version. Whoever has something to record makes them where they are missing; who reads takes
//! missing ones for empty ones.
//!
//! Rows of the dirty table bear no time. Their versions grow, whoever writes them; so it is enough to know at a few
//! moments how far they had come: `csync2_marking` has a row for each minute in which a run has marked files, of those
//! older than a day one an hour, and none older than a year.

use super::backend::Backend;
use super::error::Result;
use super::{Engine, Store};
use crate::model::{DirtyVersion, PastRun, Pending, Session, Standing};

/// Something to be remembered.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Session(Session),
    Run(PastRun),
    /// Files were marked up to this moment, in seconds since 1970.
    Marking(i64),
}

// Statements that both engines take as they are. (SQLite takes `$1` for a name, and numbers names in the order in which they
// come.)

/// Writes what came of a session: `peername, ended, succeeded, failed, error, dialect, address, milliseconds, sent, removed,
/// equal, refused, bytes`. Where it has NULL, what was known stays.
pub(super) const SET_PEER: &str = "INSERT INTO csync2_peer \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (peername) DO UPDATE SET \
     ended = excluded.ended, succeeded = coalesce(excluded.succeeded, csync2_peer.succeeded), \
     failed = coalesce(excluded.failed, csync2_peer.failed), error = coalesce(excluded.error, csync2_peer.error), \
     dialect = coalesce(excluded.dialect, csync2_peer.dialect), \
     address = coalesce(excluded.address, csync2_peer.address), milliseconds = excluded.milliseconds, \
     sent = excluded.sent, removed = excluded.removed, equal = excluded.equal, refused = excluded.refused, \
     bytes = excluded.bytes";

/// Writes what came of a run, unless nothing did: `mode, ended, milliseconds, errors, checked, marked`.
pub(super) const SET_RUN: &str = "INSERT INTO csync2_run VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (mode) DO UPDATE SET \
     ended = excluded.ended, milliseconds = excluded.milliseconds, errors = excluded.errors, \
     checked = excluded.checked, marked = excluded.marked \
     WHERE excluded.errors + excluded.checked > 0 OR csync2_run.errors > 0 OR excluded.ended >= csync2_run.ended + 60";

/// Forgets the markings before a year, and of the hour that became a day old all but the last one. $1: now.
pub(super) const THIN_MARKINGS: &str = "DELETE FROM csync2_marking WHERE minute < CAST($1 AS bigint) / 60 - 527040 \
     OR (minute BETWEEN $1 / 60 - 1560 AND $1 / 60 - 1440 \
     AND EXISTS (SELECT 1 FROM csync2_marking AS later WHERE later.minute > csync2_marking.minute \
     AND later.minute < (csync2_marking.minute / 60 + 1) * 60))";

impl Store {
    /// Remembers how the session with a peer ended. A power cut may undo it.
    pub async fn record_session(&self, session: Session) -> Result<()> {
        on!(self, backend => backend.record(Record::Session(session)).await)
    }

    /// Remembers a run. One that found nothing to do is not written down when there is one of the same mode that ended less
    /// than a minute before.
    pub async fn record_run(&self, run: PastRun) -> Result<()> {
        on!(self, backend => backend.record(Record::Run(run)).await)
    }

    /// Remembers that all that is dirty now was marked before this moment, in seconds since 1970.
    pub async fn record_marking(&self, now: i64) -> Result<()> {
        on!(self, backend => backend.record(Record::Marking(now)).await)
    }

    /// How the state stands. Nobody waits for it; it reads the dirty table once.
    pub async fn standing(&self) -> Result<Standing> {
        let (mut standing, moments) = on!(self, backend => backend.standing().await)?;
        for pending in &mut standing.pending {
            pending.since = moments.since(pending.first);
        }
        standing.pending.sort_by(|one, other| one.peer.cmp(&other.peer));
        standing.past.sort_by(|one, other| one.peer.cmp(&other.peer));
        standing.runs.sort_by(|one, other| one.mode.cmp(&other.mode));
        Ok(standing)
    }
}

/// How far the versions of dirty rows had come, and when: by version.
#[derive(Debug, Default)]
pub(super) struct Moments(pub(super) Vec<(i64, i64)>);

impl Moments {
    /// The first moment at which the marking was there.
    fn since(&self, version: DirtyVersion) -> Option<i64> {
        self.0.iter().filter(|(reached, _)| *reached >= version.0).map(|(_, at)| *at).min()
    }
}

/// Adds up what waits for each peer, row by row.
pub(super) fn add(pending: &mut Pending, version: i64, forced: bool, size: u64) {
    pending.files += 1;
    pending.forced += u64::from(forced);
    pending.bytes = pending.bytes.saturating_add(size);
    pending.first.0 = pending.first.0.min(version);
}

pub(super) fn nothing_for(peer: String) -> Pending {
    Pending { peer, files: 0, forced: 0, bytes: 0, first: DirtyVersion(i64::MAX), since: None }
}

/// The size that a row of the file table tells, in either spelling; 0 of what is no regular file.
pub(super) fn size_in(checktxt: &[u8]) -> u64 {
    const SIZE: &[u8] = b"size=";
    let Some(at) = checktxt.windows(SIZE.len()).rposition(|window| window == SIZE) else { return 0 };
    let (before, digits) = (&checktxt[..at], &checktxt[at + SIZE.len()..]);
    if !before.ends_with(b"type=reg%3A") && !before.ends_with(b"type=reg:") {
        return 0;
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_of_regular_files_only() {
        for (text, size) in [
            ("v1%3Amtime=1%3Amode=33188%3Auid=0%3Agid=0%3Atype=reg%3Asize=4711", 4711),
            ("v1:mtime=1:type=reg:size=3", 3),
            ("v1%3Atype=lnk%3Atarget=type=reg%2525size=9", 0),
            ("v1%3Atype=lnk%3Atarget=size=9", 0),
            ("v1%3Atype=dir", 0),
            ("v1%3Atype=reg%3Asize=", 0),
            ("v1%3Atype=reg%3Asize=99999999999999999999999", 0),
            ("", 0),
        ] {
            assert_eq!(size_in(text.as_bytes()), size, "{text}");
        }
    }

    #[test]
    fn a_marking_is_as_old_as_the_first_moment_that_knows_it() {
        let moments = Moments(vec![(10, 100), (20, 200), (30, 300)]);
        let since = |version| moments.since(DirtyVersion(version));
        assert_eq!([1, 10, 11, 30].map(since), [Some(100), Some(100), Some(200), Some(300)]);
        assert_eq!(since(31), None);
    }
}
