//! Who is at the other end: the name it proved to have, and the node that serves it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{EngineError, Node};
use crate::engine::{membership, notice};
use crate::model::path::shown;
use crate::model::{Job, ScheduledAction};
use crate::wire::Reply;
use crate::wire::trust::{self, Trust};

/// A peer that has identified itself.
#[derive(Debug)]
pub(super) struct Peer {
    /// In lower case.
    pub(super) name: String,
    /// Restricted to the groups that the session asked for.
    pub(super) node: Arc<Node>,
    /// It is one of ours, and reads on where the known text of an answer ends.
    pub(super) reads_on: bool,
    /// Whose intents these are: the session's.
    pub(super) holder: String,
    /// What the session has called for so far.
    pub(super) jobs: Arc<Jobs>,
}

/// The jobs that a session called for, under whatever name it spoke.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<BTreeSet<Job>>);

impl Jobs {
    pub(super) fn add(&self, actions: &[ScheduledAction]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(actions.iter().map(ScheduledAction::job));
    }

    pub(super) fn take(&self) -> BTreeSet<Job> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a connection from `address` may speak under `name`: it must come from one of the name's addresses.
pub(super) async fn resolves_to(name: &str, address: Option<IpAddr>) -> bool {
    // Anybody may claim to be anybody.
    let claimed = shown(name.as_bytes());
    let Some(address) = address.map(|address| address.to_canonical()) else {
        tracing::warn!("{claimed}: Identification failed! The peer's address is not known (SSH_CLIENT is not set).");
        return false;
    };
    let resolved = tokio::net::lookup_host((name, 0)).await;
    let addresses: Vec<IpAddr> =
        resolved.map(|found| found.map(|found| found.ip().to_canonical()).collect()).unwrap_or_default();
    if addresses.contains(&address) {
        return true;
    }
    let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    tracing::warn!(
        "{claimed}: Identification failed! It connects from {address}, and its name resolves here to: {}.",
        if list.is_empty() { "nothing" } else { &list }
    );
    false
}

/// The certificate of the session against the one that is pinned for the name. The first one is pinned, for names that
/// the configuration knows. The inner error is the answer to the peer.
pub(super) async fn check_certificate(
    node: &Node,
    name: &str,
    presented: &[u8],
) -> Result<Result<(), Reply>, EngineError> {
    let pinned = match node.store.certificate(name).await? {
        Some(pinned) => pinned,
        None if membership::pairs(&node.config).iter().any(|(_, peer)| peer == name) => {
            node.store.pin(name, presented).await?
        }
        None => return Ok(Ok(())),
    };
    if trust::judge(Some(&pinned), presented) == Trust::Different {
        tracing::warn!(
            "{name}: Peer did provide a wrong SSL X509 cetrificate. Pinned is {}, presented was {}. If the change was \
             intended, remove its row from the table x509_cert.",
            trust::fingerprint(&pinned),
            trust::fingerprint(presented)
        );
        return Ok(Err(Reply::IdentificationFailed));
    }
    notice::warn_of_certificate(&node.store, name, presented).await?;
    Ok(Ok(()))
}
