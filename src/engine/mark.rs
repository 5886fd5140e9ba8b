//! Marking: which peers must be told of a file, and which local commands follow from its change.

use super::Node;
use super::membership::{self, Event, Purpose};
use crate::config::Config;
use crate::model::{Mark, ScheduledAction, Scope, SyncPath};
use crate::store::StoreError;

/// The dirty rows of a change: one a peer, in every group that covers the file.
#[must_use]
pub fn marks(config: &Config, path: &SyncPath, forced: bool) -> Vec<Mark> {
    membership::peers_of(config, path, Purpose::Sync)
        .into_iter()
        .map(|name| Mark { path: path.clone(), my_name: name.my_name.to_owned(), peer: name.peer.to_owned(), forced })
        .collect()
}

/// The commands that a local change of the file calls for.
#[must_use]
pub fn local_actions(config: &Config, path: &SyncPath) -> Vec<ScheduledAction> {
    membership::actions_for(config, path, Event::Local)
}

/// Says that a file becomes dirty, in the words that scripts look for.
pub fn announce(path: &SyncPath) {
    tracing::info!("Marking file as dirty: {path}");
}

/// `-m`: marks covered names, known or not; of a whole tree also what the file table knows below.
///
/// # Errors
/// Those of the store.
pub async fn mark(node: &Node, scopes: Vec<Scope>, forced: bool) -> Result<(), StoreError> {
    let mut paths: Vec<SyncPath> = Vec::new();
    for scope in &scopes {
        if let Scope::File(path) | Scope::Tree(path) = scope {
            paths.push(path.clone());
        }
    }
    let trees: Vec<Scope> = scopes.into_iter().filter(|scope| !matches!(scope, Scope::File(_))).collect();
    if !trees.is_empty() {
        let mut known = node.store.files(trees);
        while let Some(chunk) = known.recv().await {
            paths.extend(chunk?.into_iter().map(|record| record.path));
        }
    }
    paths.sort();
    paths.dedup();
    paths.retain(|path| membership::is_covered(&node.config, path, Purpose::Sync));
    for chunk in paths.chunks(CHUNK) {
        mark_paths(node, chunk, forced, None).await?;
    }
    Ok(())
}

/// Marks files in one transaction, for all peers that share them or for one alone, and schedules the commands that follow
/// from a local change. What no group shares is left alone.
///
/// # Errors
/// Those of the store.
pub async fn mark_paths(node: &Node, paths: &[SyncPath], forced: bool, only: Option<&str>) -> Result<(), StoreError> {
    let (mut rows, mut actions) = (Vec::new(), Vec::new());
    for path in paths {
        let marks = marks(&node.config, path, forced).into_iter();
        let before = rows.len();
        rows.extend(marks.filter(|mark| only.is_none_or(|peer| mark.peer == peer)));
        if rows.len() > before {
            announce(path);
            actions.extend(local_actions(&node.config, path));
        }
    }
    node.store.mark(rows, actions).await
}

/// How many files go into one transaction.
const CHUNK: usize = 2_000;
