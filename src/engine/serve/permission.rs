//! What a peer may do to a file, and what happens when it may not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::peer::Peer;
use crate::config::LocalPath;
use crate::engine::EngineError;
use crate::engine::check::{self, CheckOptions};
use crate::engine::mark;
use crate::engine::membership::{self, DeniedBecause, Permission, Purpose};
use crate::model::path::shown;
use crate::model::{Mark, Scope, SyncPath};
use crate::store::DirtyFilter;
use crate::wire::Reply;

/// A file that the peer may work on.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) path: SyncPath,
    pub(super) place: LocalPath,
}

/// Checks name, group, membership and key. The inner error is the answer to the peer. `changes`: the command may change the
/// file, which is not for a slave.
pub(super) async fn admit(
    peer: &Peer,
    key: &str,
    file: &[u8],
    purpose: Purpose,
    changes: bool,
) -> Result<Result<Admitted, Reply>, EngineError> {
    let (name, node) = (&peer.name, &peer.node);
    let shown = shown(file);
    let path = match SyncPath::parse(file) {
        Ok(path) => path,
        Err(error) => {
            tracing::warn!("{name} asked for {shown}: refused, {error}.");
            return Ok(Err(Reply::PermissionDenied));
        }
    };
    match membership::permission(&node.config, &path, name, key, purpose) {
        Permission::Allowed => {}
        Permission::Slave if !changes => {}
        Permission::Slave => {
            mark_for_groups_of(peer, &path).await?;
            return Ok(Err(Reply::PermissionDeniedSlave));
        }
        Permission::Denied(because) => {
            let reason = match because {
                DeniedBecause::NoGroupCovers => "no group covers the file",
                DeniedBecause::NotAMember => "it is in no group that covers the file",
                DeniedBecause::WrongKey => "its key is not that of the group; compare the key files",
            };
            tracing::warn!("{name} asked for {shown}: refused, {reason}.");
            return Ok(Err(denied(peer, key, because)));
        }
    }
    match node.config.local(&path) {
        Ok(place) => Ok(Ok(Admitted { path, place })),
        Err(error) => {
            tracing::warn!("{name} asked for {shown}: {error}");
            Ok(Err(Reply::PermissionDenied))
        }
    }
}

/// The refusal, with the reason for those that read on. What our groups cover is nothing for a peer without a key of one.
fn denied(peer: &Peer, key: &str, because: DeniedBecause) -> Reply {
    if !peer.reads_on {
        return Reply::PermissionDenied;
    }
    Reply::PermissionDenied.because(match because {
        _ if !membership::has_key(&peer.node.config, &peer.name, key) => {
            "The key is that of no group here that has you in it."
        }
        DeniedBecause::NoGroupCovers => "No group here covers the file.",
        DeniedBecause::NotAMember => "The groups here that cover the file do not have you in them.",
        DeniedBecause::WrongKey => "The group here that covers the file has another key.",
    })
}

/// The answer where our own state of the file cannot be told: nothing is changed then.
const NOT_CHECKED: &str = "The file cannot be checked here, see the log of this host";

/// Looks at the file on disk as `-c FILE` would. If it is dirty then, it is marked for everybody in the groups that
/// hold the peer, and the peer is told.
pub(super) async fn dirty_check(peer: &Peer, path: &SyncPath) -> Result<Option<Reply>, EngineError> {
    Ok(dirty_checks(peer, vec![path.clone()]).await?.remove(path))
}

/// The same for many files: those that the peer may not change, each with its answer.
pub(super) async fn dirty_checks(peer: &Peer, paths: Vec<SyncPath>) -> Result<HashMap<SyncPath, Reply>, EngineError> {
    let node = &peer.node;
    let examined = check::examine(node, paths.clone(), CheckOptions::default()).await?;
    let unchecked = examined.undecided.into_iter().map(|path| (path, Reply::Text(NOT_CHECKED.to_owned())));
    let mut refused: HashMap<SyncPath, Reply> = unchecked.collect();
    // As the check has left it.
    let known = node.store.known(paths.clone()).await?;
    for (path, known) in paths.into_iter().zip(known) {
        if let Entry::Vacant(free) = refused.entry(path)
            && !known.marks.is_empty()
        {
            mark_for_groups_of(peer, free.key()).await?;
            free.insert(Reply::AlsoDirty);
        }
    }
    Ok(refused)
}

/// The answer where the file is as its row says, and not what it was: another session brought it, or it was only touched.
/// The sender's next run sees what came of it.
const TOUCHED: &str = "Something else touched the file at the same time; it goes with the next run";

/// The answer where the file is not what it was when the peer asked for it. If somebody here changed it, it is dirty now.
pub(super) async fn changed_meanwhile(peer: &Peer, path: &SyncPath) -> Result<Reply, EngineError> {
    Ok(dirty_check(peer, path).await?.unwrap_or_else(|| Reply::Text(TOUCHED.to_owned())))
}

/// Marks a file for all hosts of the groups that hold the peer. What is marked already stays as it is: the C program
/// loses `forced` here, and schedules actions.
pub(super) async fn mark_for_groups_of(peer: &Peer, path: &SyncPath) -> Result<(), EngineError> {
    let node = &peer.node;
    mark::announce(path);
    let marked = node.store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::File(path.clone())] }).await?;
    let mut marks: Vec<Mark> = Vec::new();
    for group in membership::groups_of(&node.config, path, Purpose::Sync) {
        if !group.hosts.iter().any(|host| host.name == peer.name) {
            continue;
        }
        for host in &group.hosts {
            let is_marked =
                marked.iter().any(|entry| *entry.peer == *host.name) || marks.iter().any(|mark| mark.peer == host.name);
            if !is_marked {
                let (my_name, peer) = (group.my_name.clone(), host.name.clone());
                marks.push(Mark { path: path.clone(), my_name, peer, forced: false });
            }
        }
    }
    if !marks.is_empty() {
        node.store.mark(marks, Vec::new()).await?;
    }
    Ok(())
}
