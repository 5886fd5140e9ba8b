//! The comparison of one pair, from the peer's list to marks and diffs.

use std::io;
use std::sync::Arc;

use tempfile::spooled_tempfile;
use tokio::sync::mpsc::{self, Receiver};

use super::diff::{self, Theirs};
use super::differences::{Difference, Differences, IN_MEMORY, Side};
use super::kind::Kind;
use super::listing::Listed;
use super::merge::{Both, Merge};
use super::sorter::Sorted;
use super::{Findings, Found, Marking, Options, Pair, Trouble, agreement, inquiry};
use crate::engine::contact::Dialect;
use crate::engine::membership::Purpose;
use crate::engine::{Node, Report, mark};
use crate::model::{Scope, SyncPath};

/// Files in one transaction, and in one message.
const CHUNK: usize = 1_000;

/// What differs between the databases.
pub(super) async fn compare(node: &Arc<Node>, pair: Pair, scope: Scope, options: &Options) -> Findings {
    if options.announce {
        tracing::info!("Running in-sync check for {} <-> {}.", pair.my_name, pair.peer);
    }
    let mut report = Report::default();
    let found = match find(node, &pair, &scope, options.marking).await {
        Ok((equal, differences)) if differences.is_empty() => Ok((equal, Found::Nothing)),
        Ok((equal, differences)) if options.diffs => {
            show(node, &pair, differences, &mut report).await.map(|shown| (equal, shown))
        }
        Ok((equal, differences)) => Ok((equal, Found::Differences(differences))),
        Err(trouble) => Err(trouble),
    };
    let (equal, found) = found.unwrap_or_else(|trouble| {
        trouble.report(&pair, "the databases", &mut report);
        (0, Found::Nothing)
    });
    Findings { pair, found, equal, report }
}

/// How many files are alike, and those that are not.
async fn find(
    node: &Node,
    pair: &Pair,
    scope: &Scope,
    marking: Option<Marking>,
) -> Result<(usize, Differences), Trouble> {
    // The first of them are read while the peer makes its list.
    let ours = node.store.files(vec![scope.clone()]);
    let (theirs, dialect) = inquiry::list(node, pair, scope).await?;
    let mut merge = Merge::of(ours, in_chunks(theirs));
    let (mut equal, mut differences, mut marks) = (0, Differences::new(), Vec::new());
    while let Some(both) = merge.next().await? {
        let is_on_both = both.0.is_some() && both.1.is_some();
        let Some(difference) = judge(node, pair, dialect, both) else {
            equal += usize::from(is_on_both);
            continue;
        };
        differences.push(&difference)?;
        let Some(marking) = marking else { continue };
        if difference.side != Side::RemoteOnly || marking.removals {
            marks.push(difference.path);
        }
        if marks.len() >= CHUNK {
            write_marks(node, pair, marking, std::mem::take(&mut marks)).await?;
        }
    }
    if let Some(marking) = marking {
        write_marks(node, pair, marking, marks).await?;
    }
    Ok((equal, differences))
}

/// What one name of the lists comes to. The peer restricts its list to what the pair shares, by its own configuration: what
/// ours does not cover is a difference, too. But with `-G` the C program lists files of other groups that have the same key.
fn judge(node: &Node, pair: &Pair, dialect: Dialect, both: Both) -> Option<Difference> {
    let is_shared = |path: &SyncPath| pair.group(node, path, Purpose::Sync).is_some();
    let kind = |listed: &Listed| Kind::of_checktxt(&listed.checktxt);
    match both {
        (Some(ours), Some(theirs)) => {
            let same = agreement::agree(&ours, &theirs.checktxt, dialect) || !is_shared(&ours.path);
            (!same).then(|| Difference { side: Side::Different, path: ours.path, theirs: kind(&theirs) })
        }
        (Some(ours), None) => {
            is_shared(&ours.path).then_some(Difference { side: Side::LocalOnly, path: ours.path, theirs: None })
        }
        (None, Some(theirs)) => {
            let counts = node.groups.is_none() || is_shared(&theirs.path);
            let kind = kind(&theirs);
            counts.then_some(Difference { side: Side::RemoteOnly, path: theirs.path, theirs: kind })
        }
        (None, None) => None,
    }
}

/// Hands the list on as it is read from temporary files.
fn in_chunks(mut sorted: Sorted) -> Receiver<Result<Vec<Listed>, io::Error>> {
    let (sink, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        loop {
            let chunk: io::Result<Vec<Listed>> = sorted.by_ref().take(CHUNK).collect();
            let is_last = chunk.as_ref().map_or(true, Vec::is_empty);
            // Nobody is left to be served when the receiver has gone.
            if sink.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

async fn write_marks(node: &Node, pair: &Pair, marking: Marking, paths: Vec<SyncPath>) -> Result<(), Trouble> {
    let only = marking.one_peer.then_some(pair.peer.as_str());
    Ok(mark::mark_paths(node, &paths, marking.forced, only).await?)
}

/// The diffs of all differences. The last name comes first, as in the C program.
async fn show(node: &Node, pair: &Pair, differences: Differences, report: &mut Report) -> Result<Found, Trouble> {
    let mut text = spooled_tempfile(IN_MEMORY);
    for difference in differences.backwards()? {
        let Difference { side, path, theirs } = difference?;
        let theirs = match (side, theirs) {
            (Side::LocalOnly, _) => Theirs::Missing,
            (_, Some(kind)) => Theirs::Known(kind),
            (_, None) => Theirs::Unknown,
        };
        let shown = match pair.group(node, &path, Purpose::Sync) {
            Some(group) => diff::diff(node, pair, &group.key, &path, theirs, &mut text).await,
            None => Err(Trouble::NotShared),
        };
        if let Err(trouble) = shown {
            trouble.report(pair, &path.to_string(), report);
            if trouble.concerns_all() {
                break;
            }
        }
    }
    Found::diffs(text)
}

/// The diff of one file that need not be in any database.
pub(super) async fn diff_file(node: &Node, pair: Pair, path: &SyncPath) -> Findings {
    let mut report = Report::default();
    let mut text = spooled_tempfile(IN_MEMORY);
    let shown = match pair.group(node, path, Purpose::Compare) {
        Some(group) => diff::diff(node, &pair, &group.key, path, Theirs::Unknown, &mut text).await,
        None => Err(Trouble::NotShared),
    };
    let found = shown.and_then(|()| Found::diffs(text)).unwrap_or_else(|trouble| {
        trouble.report(&pair, &path.to_string(), &mut report);
        Found::Nothing
    });
    Findings { pair, found, equal: 0, report }
}
