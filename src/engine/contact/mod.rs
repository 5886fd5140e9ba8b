//! Getting a peer to listen: connect, TLS and its pinned certificate, CONFIG, GROUP, which dialect it speaks. Everything
//! before the first HELLO, for whoever has something to say behind it; and why it failed, with advice.

pub(super) mod advice;
mod dialect;

use std::sync::Arc;

pub(super) use self::dialect::Dialect;
use super::certificates::{self, First, Rejection};
use super::{EngineError, Node, Report};
use crate::model::errors::chain;
use crate::store::StoreError;
use crate::wire::authority::Role;
use crate::wire::batch::VERSIONS;
use crate::wire::{Connection, Reply, Request, Timeouts, TlsError, WireError, dial};

/// Why a session with a peer as a whole failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Identity(#[from] Arc<TlsError>),
    #[error("the peer answered {request} with `{answer}`.{advice}")]
    Refused { request: &'static str, answer: String, advice: String },
    #[error(transparent)]
    Certificate(#[from] Rejection),
}

/// Says why there is no connection, and what follows from that.
pub(super) fn report_failure(report: &mut Report, peer: &str, error: &SessionError, consequence: &str) {
    // The words that scripts look for (the misspelling is the C program's) are a line to themselves.
    if let SessionError::Certificate(Rejection::Changed { .. }) = error {
        tracing::warn!("Peer did provide a wrong SSL X509 cetrificate.");
    } else {
        tracing::warn!("ERROR: Connection to remote host `{peer}' failed.");
    }
    let reason = chain(error);
    let stop = if reason.ends_with(['.', '?']) { "" } else { "." };
    let advice = match error {
        SessionError::Wire(WireError::Tls(TlsError::Handshake { .. })) => advice::on_handshake(peer),
        _ => String::new(),
    };
    report.error(format_args!("{peer}: {reason}{stop}{advice} {consequence}"));
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Files are pushed, in batches where both can.
    Push,
    /// A push that changes nothing: no certificate is pinned either.
    DryRun,
    Compare,
}

/// Everything before the first HELLO.
pub(super) async fn connect(
    node: &Node,
    peer: &str,
    plain: bool,
    purpose: Purpose,
) -> Result<(Connection, Dialect), SessionError> {
    let config = &node.config;
    let timeouts =
        Timeouts { connect: config.connect_timeout, handshake: config.handshake_timeout, idle: config.idle_timeout };
    let mut connection = dial(peer, node.port, node.bind.as_deref(), &timeouts).await?;
    if !plain {
        let identity = node.identity().await?;
        connection.write_line(&Request::Ssl.encode()).await?;
        expect_ok(&mut connection, "SSL", advice::on_ssl).await?;
        connection = connection.start_tls_client(&identity).await?;
        let first = if purpose == Purpose::DryRun { First::Pass } else { First::Pin };
        certificates::judge(node, peer, Role::Server, connection.peer_chain(), first).await??;
    }
    let mut requests = vec![Request::Config { name: node.config_name.clone().into_bytes() }];
    requests.extend(node.groups.clone().map(|names| Request::Group { names }));
    requests.push(Request::AtomicDialect);
    let batches = config.batches && purpose == Purpose::Push;
    if batches {
        requests.push(Request::BatchDialect { lowest: VERSIONS.0, highest: VERSIONS.1 });
    }
    for request in &requests {
        connection.write_line(&request.encode()).await?;
    }
    expect_ok(&mut connection, "CONFIG", || advice::on_config(peer, &node.config_name)).await?;
    if node.groups.is_some() {
        expect_ok(&mut connection, "GROUP", String::new).await?;
    }
    // A peer that knows the command asks us to identify first.
    let mut dialect = match Reply::parse(&line(&mut connection).await?) {
        Reply::IdentifyFirst { .. } => Dialect::Atomic,
        _ => Dialect::Upstream,
    };
    // One that knows this one says which version.
    if batches && let Reply::Batch { version } = Reply::parse(&line(&mut connection).await?) {
        dialect = Dialect::Batch { version };
    }
    tracing::debug!("{peer} speaks the dialect {dialect:?}.");
    Ok((connection, dialect))
}

async fn line(connection: &mut Connection) -> Result<Vec<u8>, WireError> {
    connection.read_line().await?.ok_or(WireError::Closed)
}

async fn expect_ok(
    connection: &mut Connection,
    request: &'static str,
    advice: impl FnOnce() -> String,
) -> Result<(), SessionError> {
    let line = connection.read_line().await?;
    if line.as_deref().is_some_and(|line| Reply::parse(line).is_ok()) {
        return Ok(());
    }
    let answer = line.map_or_else(|| "(connection closed)".into(), |line| String::from_utf8_lossy(&line).into_owned());
    Err(SessionError::Refused { request, answer, advice: advice() })
}
