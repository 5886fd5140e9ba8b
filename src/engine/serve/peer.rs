//! Who is at the other end: the name it proved to have, and the node that serves it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::CertificateDer;

use crate::engine::certificates::{self, First, Rejection};
use crate::engine::{EngineError, Node, membership};
use crate::model::errors::chain;
use crate::model::path::shown;
use crate::model::{Job, ScheduledAction};
use crate::wire::authority::Role;

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

/// The certificate of the session against what we expect of the name. The first one is pinned, for names that the
/// configuration knows. The inner error is the reason for a peer that reads on.
pub(super) async fn check_certificate(
    node: &Node,
    name: &str,
    shown: &[CertificateDer<'static>],
) -> Result<Result<(), String>, EngineError> {
    let is_member = membership::pairs(&node.config).iter().any(|(_, peer)| peer == name);
    let first = if is_member { First::Pin } else { First::Pass };
    let Err(rejection) = certificates::judge(node, name, Role::Client, shown, first).await? else { return Ok(Ok(())) };
    let reason = match &rejection {
        Rejection::Changed { .. } => {
            tracing::warn!("{name}: Peer did provide a wrong SSL X509 cetrificate.");
            format!("Another certificate is pinned here for {name}.")
        }
        Rejection::Weak { weakness, .. } => format!("Your certificate {weakness}, which is not accepted here."),
        Rejection::NotVouchedFor { problem, .. } => format!("Your certificate is not accepted here: {problem}."),
    };
    tracing::warn!("{name}: Identification failed! {}", chain(&rejection));
    Ok(Err(reason))
}
