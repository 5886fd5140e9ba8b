//! Whether the certificate that a peer shows is good enough, on both sides of a session: strong enough, and either the one
//! that was pinned when the peer was first met, or vouched for by the authority that the configuration names.

use rustls_pki_types::CertificateDer;

use super::{Node, notice};
use crate::model::errors::chain as causes;
use crate::store::StoreError;
use crate::wire::authority::Role;
use crate::wire::trust::{self, Trust};

/// Why a certificate is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    #[error(
        "its certificate changed: pinned is {pinned}, presented was {presented}. Compare the latter with the peer's own \
         file. If the change was intended, forget the old one with: {command}"
    )]
    Changed { pinned: String, presented: String, command: String },
    #[error("its certificate {weakness}, and --no-legacy-tls or `legacy-tls no` forbids that here. {remedy}")]
    Weak { weakness: String, remedy: String },
    #[error("its certificate {presented} is not accepted: {problem}")]
    NotVouchedFor { presented: String, problem: String },
}

/// What becomes of the first certificate of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// It is remembered, and none other accepted from then on.
    Pin,
    /// It passes; nothing is remembered.
    Pass,
}

/// Judges what `peer` shows in the role that it has in the session. What is weak, but accepted, is warned about once.
///
/// # Errors
/// Those of the store. The inner error is the reason to refuse the peer.
pub(super) async fn judge(
    node: &Node,
    peer: &str,
    role: Role,
    shown: &[CertificateDer<'static>],
    first: First,
) -> Result<Result<(), Rejection>, StoreError> {
    let presented = shown.first().map(AsRef::as_ref).unwrap_or_default();
    let weakness = trust::weakness(presented);
    if let (Some(weakness), false) = (&weakness, node.config.tls.legacy) {
        let (weakness, remedy) = (weakness.clone(), remedy(node, peer));
        return Ok(Err(Rejection::Weak { weakness, remedy }));
    }
    let rejection = match &node.config.tls.authority {
        Some(_) => not_vouched_for(node, peer, role, shown).await,
        None => changed(node, peer, presented, first).await?,
    };
    if let Some(rejection) = rejection {
        return Ok(Err(rejection));
    }
    if first == First::Pin {
        let fact = weakness.map(|weakness| format!("the certificate of {peer} {weakness}. {}", remedy(node, peer)));
        notice::warn(&node.store, &format!("certificate of {peer}"), fact.as_slice()).await?;
    }
    Ok(Ok(()))
}

async fn not_vouched_for(node: &Node, peer: &str, role: Role, shown: &[CertificateDer<'static>]) -> Option<Rejection> {
    let problem = match node.authority().await {
        Ok(authority) => authority.vouches_for(peer, role, shown).err()?,
        Err(error) => causes(&error),
    };
    let presented = shown.first().map(|certificate| trust::fingerprint(certificate)).unwrap_or_default();
    Some(Rejection::NotVouchedFor { presented, problem })
}

/// Trust on first use: the first certificate a peer shows is the one it must show from then on.
async fn changed(node: &Node, peer: &str, presented: &[u8], first: First) -> Result<Option<Rejection>, StoreError> {
    let pinned = match node.store.certificate(peer).await? {
        None if first == First::Pin => Some(node.store.pin(peer, presented).await?),
        pinned => pinned,
    };
    Ok(match (trust::judge(pinned.as_deref(), presented), pinned) {
        (Trust::Different, Some(pinned)) => Some(Rejection::Changed {
            pinned: trust::fingerprint(&pinned),
            presented: trust::fingerprint(presented),
            command: node.command_line(&format!("--rm-ssl-cert {peer}")),
        }),
        _ => None,
    })
}

/// How a peer, which may be a C program, gets a better certificate. Each host remembers the old one.
fn remedy(node: &Node, peer: &str) -> String {
    let config = if node.config_name.is_empty() { String::new() } else { format!(" -C {}", node.config_name) };
    format!(
        "For a better one, on {peer}: move /etc/csync2_ssl_key.pem and /etc/csync2_ssl_cert.pem away, then openssl req -x509 -newkey ec \
         -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN={peer} -keyout /etc/csync2_ssl_key.pem -out \
         /etc/csync2_ssl_cert.pem; then here: {}, and on each other host: csync2{config} --rm-ssl-cert {peer}",
        node.command_line(&format!("--rm-ssl-cert {peer}"))
    )
}
