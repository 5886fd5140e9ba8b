//! Comparing (`-T`): what this host and its peers know of the files they share, database against database; on demand the
//! differences are marked as dirty, or shown as diffs of the files themselves.
//!
//! Each pair of names is a task of its own; what they find comes out in the order of the pairs. A peer's list is put in
//! order ([`sorter`]) before it is merged with ours ([`merge`]), since peers sort by collations of their own; neither is
//! ever in memory as a whole, nor is what is found ([`differences`]).

mod agreement;
mod diff;
mod differences;
mod fetch;
mod inquiry;
mod kind;
pub mod listing;
mod merge;
mod sorter;
mod task;

use std::io::{self, Seek};
use std::sync::Arc;

use tempfile::SpooledTempFile;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

pub use self::differences::{Difference, Differences, Side};
pub use self::fetch::{Fetched, Willingness, examine, fetch};
use super::contact::{self, SessionError};
use super::membership::{self, Purpose};
use super::{EngineError, Node, Report};
use crate::config::{Group, UnknownPrefix};
use crate::model::errors::{chain, strerror};
use crate::model::{Scope, SyncPath};
use crate::store::StoreError;
use crate::wire::WireError;

/// The names under which this host and a peer know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub my_name: String,
    pub peer: String,
}

impl Pair {
    /// All pairs of the configuration, in the order of the C program.
    #[must_use]
    pub fn all(node: &Node) -> Vec<Self> {
        membership::pairs(&node.config).into_iter().map(|(my_name, peer)| Self { my_name, peer }).collect()
    }

    /// The pairs that share a file, each peer once, `compare` patterns included; the group that decides comes first.
    #[must_use]
    pub fn sharing(node: &Node, path: &SyncPath) -> Vec<Self> {
        let peers = membership::peers_of(&node.config, path, Purpose::Compare).into_iter();
        peers.map(|name| Self { my_name: name.my_name.to_owned(), peer: name.peer.to_owned() }).collect()
    }

    fn is_in(&self, group: &Group) -> bool {
        group.my_name == self.my_name && group.hosts.iter().any(|host| host.name == self.peer)
    }

    /// The first group that holds the file and both names.
    fn group<'n>(&self, node: &'n Node, path: &SyncPath, purpose: Purpose) -> Option<&'n Group> {
        node.config.groups.iter().find(|group| self.is_in(group) && membership::covers(group, path, purpose))
    }
}

/// What becomes of differences besides being found.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-I`: mark them as dirty.
    pub marking: Option<Marking>,
    /// `-TT`: show the diffs.
    pub diffs: bool,
    /// Say at level 1 which pair's turn it is.
    pub announce: bool,
}

/// How differences are marked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marking {
    /// `-X`: also what exists only on the peer, so that it is removed there.
    pub removals: bool,
    /// `-U`: for the compared peer only.
    pub one_peer: bool,
    /// `-F`.
    pub forced: bool,
}

/// What was found of one pair.
#[derive(Debug)]
pub struct Findings {
    pub pair: Pair,
    pub found: Found,
    /// Files that both have alike.
    pub equal: usize,
    pub report: Report,
}

/// The findings in the form that was asked for.
#[derive(Debug)]
pub enum Found {
    /// Nothing: in sync, or not compared.
    Nothing,
    Differences(Differences),
    /// What diff(1) prints, to be read from its start.
    Diffs(SpooledTempFile),
}

impl Found {
    fn diffs(mut text: SpooledTempFile) -> Result<Self, Trouble> {
        text.rewind()?;
        Ok(Self::Diffs(text))
    }
}

/// What prevents a comparison, of a pair or of a file.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The peer cannot be reached, or is not who it was.
    #[error(transparent)]
    Connection(SessionError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Prefix(#[from] UnknownPrefix),
    #[error("temporary file: {}", strerror(.0))]
    Spool(#[from] io::Error),
    #[error("our file: {}", strerror(.0))]
    Ours(#[source] io::Error),
    #[error("the program diff cannot be used: {}. Is it installed (package diffutils)?", strerror(.source))]
    Diff { source: io::Error },
    #[error("the program diff failed ({status}): {complaint}")]
    DiffFailed { status: String, complaint: String },
    /// The peer's configuration covers more than ours.
    #[error("no group of ours has it with this peer")]
    NotShared,
}

impl Trouble {
    /// Whether it would befall the pair's other files, too.
    fn concerns_all(&self) -> bool {
        match self {
            // A peer that has stopped answering would be waited for once for each file.
            Self::Wire(WireError::TimedOut { .. })
            | Self::Connection(_)
            | Self::Store(_)
            | Self::Engine(_)
            | Self::Spool(_)
            | Self::Diff { .. } => true,
            Self::Session(_)
            | Self::Wire(_)
            | Self::Prefix(_)
            | Self::Ours(_)
            | Self::DiffFailed { .. }
            | Self::NotShared => false,
        }
    }

    /// Logs it, once, and counts it. `what` is what was not compared.
    fn report(&self, pair: &Pair, what: &str, report: &mut Report) {
        let peer = &pair.peer;
        match self {
            Self::Connection(error) => {
                return contact::report_failure(report, peer, error, &format!("Not compared: {what}."));
            }
            // The C program's words.
            Self::NotShared => {
                return report.error(format_args!(
                    "Host pair + file not found in configuration. {peer} lists {what}; no group of ours has it with this peer."
                ));
            }
            _ => {}
        }
        report.error(format_args!("ERROR: {peer}: {what} cannot be compared: {}", self.sentence()));
    }

    /// What is wrong, with a full stop.
    fn sentence(&self) -> String {
        let reason = chain(self);
        let stop = if reason.ends_with(['.', '?', '!']) { "" } else { "." };
        reason + stop
    }
}

/// Compares the rows of each pair within `scope`, which is all files or a single one. `take` gets the findings in the
/// order of the pairs.
///
/// # Errors
/// Those of `take`, which end the comparison. Everything that concerns one pair is counted in its report.
pub async fn compare<E>(
    node: &Arc<Node>,
    pairs: Vec<Pair>,
    scope: &Scope,
    options: &Options,
    take: impl FnMut(Findings) -> Result<(), E>,
) -> Result<(), E> {
    let work = |node: Arc<Node>, pair: Pair| {
        let (scope, options) = (scope.clone(), options.clone());
        async move { task::compare(&node, pair, scope, &options).await }
    };
    side_by_side(node, pairs, work, take).await
}

/// Shows the diffs of one file, whatever the databases say.
///
/// # Errors
/// As [`compare`].
pub async fn diffs<E>(
    node: &Arc<Node>,
    pairs: Vec<Pair>,
    path: &SyncPath,
    take: impl FnMut(Findings) -> Result<(), E>,
) -> Result<(), E> {
    let work = |node: Arc<Node>, pair: Pair| {
        let path = path.clone();
        async move { task::diff_file(&node, pair, &path).await }
    };
    side_by_side(node, pairs, work, take).await
}

/// One task for each pair, as many at once as the configuration allows.
async fn side_by_side<E, W>(
    node: &Arc<Node>,
    pairs: Vec<Pair>,
    work: impl Fn(Arc<Node>, Pair) -> W,
    mut take: impl FnMut(Findings) -> Result<(), E>,
) -> Result<(), E>
where
    W: Future<Output = Findings> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(node.config.max_parallel_peers.max(1)));
    let start = |pair: Pair| {
        let (places, work) = (Arc::clone(&places), work(Arc::clone(node), pair.clone()));
        let task = tokio::spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await.ok();
            work.await
        });
        (pair, AbortOnDropHandle::new(task))
    };
    let tasks: Vec<_> = pairs.into_iter().map(start).collect();
    for (pair, task) in tasks {
        let findings = task.await.unwrap_or_else(|error| {
            let mut report = Report::default();
            report.error(format_args!("ERROR: {}: the comparison ended early: {error}", pair.peer));
            Findings { pair, found: Found::Nothing, equal: 0, report }
        });
        take(findings)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_stalls_is_waited_for_once_and_one_that_hangs_up_may_do_so_over_a_single_file() {
        assert!(Trouble::Wire(WireError::TimedOut { what: "waiting for data" }).concerns_all());
        assert!(!Trouble::Wire(WireError::Closed).concerns_all());
    }
}
