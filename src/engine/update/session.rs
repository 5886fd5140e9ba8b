//! One peer from the first byte to the last: connect, TLS and its pinned certificate, CONFIG, GROUP, HELLO, BYE.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outbox::Outbox;
use super::pipeline::Pipeline;
use super::{Forecast, Outcome};
use crate::engine::{EngineError, Node, membership};
use crate::model::DirtyEntry;
use crate::store::StoreError;
use crate::wire::trust::{self, Trust};
use crate::wire::{Connection, Reply, Request, Timeouts, WireError, dial};

/// Why the session with a peer as a whole failed. Its rows stay.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Identity(Arc<crate::wire::TlsError>),
    #[error("the peer answered {request} with: {answer}")]
    Refused { request: &'static str, answer: String, advice: &'static str },
    #[error(
        "its certificate changed: pinned is {pinned}, presented was {presented}. If the change was intended, remove \
         the row of {peer} from the table x509_cert, and the next connection pins the new one"
    )]
    WrongCertificate { peer: String, pinned: String, presented: String },
}

/// Brings one peer up to date. Never fails as a whole: the report says what went wrong.
pub(super) async fn serve_peer(node: &Arc<Node>, peer: &str, entries: Vec<DirtyEntry>, dry_run: bool) -> Outcome {
    let mut outcome = Outcome::default();
    if !membership::pairs(&node.config).iter().any(|(_, other)| other == peer) {
        outcome.report.error(format_args!(
            "ERROR: {peer} is in no group of this configuration: {} entries stay dirty. `csync2 -R` removes them.",
            entries.len()
        ));
        return outcome;
    }
    let mut by_name: BTreeMap<String, Vec<DirtyEntry>> = BTreeMap::new();
    for entry in entries {
        by_name.entry(entry.my_name.clone()).or_default().push(entry);
    }
    let plain = by_name.keys().all(|my_name| node.config.plain_allowed(my_name, peer));
    tracing::info!("Connecting to host {peer} ({}) ...", if plain { "PLAIN" } else { "SSL" });
    let connection = match connect(node, peer, plain).await {
        Ok(connection) => connection,
        Err(error) => {
            report_connection(&mut outcome, peer, &error, by_name.values().map(Vec::len).sum());
            return outcome;
        }
    };
    if let Err(error) = converse(node, peer, connection, by_name, dry_run, &mut outcome).await {
        outcome.report.error(format_args!(
            "ERROR: the session with {peer} broke off: {error}. What was not confirmed stays dirty; csync2 -u sends it."
        ));
    }
    outcome
}

fn report_connection(outcome: &mut Outcome, peer: &str, error: &SessionError, entries: usize) {
    if let SessionError::WrongCertificate { .. } = error {
        // The misspelling is the C program's: scripts look for it.
        tracing::warn!("Peer did provide a wrong SSL X509 cetrificate.");
    }
    tracing::warn!("ERROR: Connection to remote host `{peer}' failed.");
    let advice = if let SessionError::Refused { advice, .. } = error { *advice } else { "" };
    outcome.report.error(format_args!("{peer}: {error}.{advice} {entries} entries stay dirty; csync2 -u sends them."));
    tracing::info!("Host stays in dirty state. Try again later...");
}

async fn connect(node: &Node, peer: &str, plain: bool) -> Result<Connection, SessionError> {
    let config = &node.config;
    let timeouts =
        Timeouts { connect: config.connect_timeout, handshake: config.handshake_timeout, idle: config.idle_timeout };
    let mut connection = dial(peer, node.port, node.bind.as_deref(), &timeouts).await?;
    if !plain {
        let identity = node.identity().await.map_err(SessionError::Identity)?;
        connection.write_line(&Request::Ssl.encode()).await?;
        connection.flush().await?;
        expect_ok(&mut connection, "SSL", " Does it allow TLS, with csync2_ssl_cert.pem in its system directory?")
            .await?;
        connection = connection.start_tls_client(&identity).await?;
        verify(node, peer, connection.peer_certificate().unwrap_or_default()).await?;
    }
    connection.write_line(&Request::Config { name: node.config_name.clone().into_bytes() }.encode()).await?;
    if let Some(groups) = &node.groups {
        connection.write_line(&Request::Group { names: groups.clone() }.encode()).await?;
    }
    connection.flush().await?;
    expect_ok(&mut connection, "CONFIG", " Is there a configuration of that name?").await?;
    if node.groups.is_some() {
        expect_ok(&mut connection, "GROUP", "").await?;
    }
    Ok(connection)
}

/// Trust on first use: the first certificate a peer shows is the one it must show from then on.
async fn verify(node: &Node, peer: &str, presented: &[u8]) -> Result<(), SessionError> {
    let pinned = match node.store.certificate(peer).await? {
        Some(pinned) => pinned,
        None => node.store.pin(peer, presented).await?,
    };
    match trust::judge(Some(&pinned), presented) {
        Trust::Same | Trust::FirstUse => Ok(()),
        Trust::Different => Err(SessionError::WrongCertificate {
            peer: peer.to_owned(),
            pinned: trust::fingerprint(&pinned),
            presented: trust::fingerprint(presented),
        }),
    }
}

async fn expect_ok(
    connection: &mut Connection,
    request: &'static str,
    advice: &'static str,
) -> Result<(), SessionError> {
    let line = connection.read_line().await?.ok_or(WireError::Closed)?;
    let reply = Reply::parse(&line);
    if reply.is_ok() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&line).into_owned();
    Err(SessionError::Refused { request, answer, advice })
}

async fn converse(
    node: &Arc<Node>,
    peer: &str,
    connection: Connection,
    by_name: BTreeMap<String, Vec<DirtyEntry>>,
    dry_run: bool,
    outcome: &mut Outcome,
) -> Result<(), SessionError> {
    let (mut reader, writer) = connection.split();
    let outbox = Outbox::start(writer);
    let mut forecasts: Vec<Forecast> = Vec::new();
    for (my_name, entries) in by_name {
        outbox.send(&Request::Hello { name: my_name.clone() });
        let line = reader.read_line().await?.ok_or(WireError::Closed)?;
        if !Reply::parse(&line).is_ok() {
            outcome.report.error(format_args!(
                "ERROR: {peer} does not accept us as {my_name}: {} Does {my_name} resolve there to the address we \
                 connect from? {} entries stay dirty.",
                String::from_utf8_lossy(&line),
                entries.len()
            ));
            tracing::info!("Host stays in dirty state. Try again later...");
            continue;
        }
        let pipeline = Pipeline::new(node, peer, &mut reader, &outbox, dry_run);
        let (report, lines, result) = pipeline.run(entries).await;
        outcome.report.merge(report);
        forecasts.extend(lines);
        result?;
    }
    outcome.forecasts.extend(forecasts);
    outbox.send(&Request::Bye);
    // The C program's server runs its actions before it closes; scripts count on them when we return.
    let _ = reader.read_line().await?;
    let writer = outbox.finish().await?;
    Connection::unite(reader, writer).finish().await;
    Ok(())
}
