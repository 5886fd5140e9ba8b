//! One peer from the first byte to the last: connect, TLS and its pinned certificate, CONFIG, GROUP, the peer's dialect,
//! a HELLO for each of our names, BYE.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exchange::{Dialect, Exchange};
use super::pipeline::{Pair, Pipeline, Worked};
use super::plan::{self, Candidate};
use super::{Outcome, advice};
use crate::engine::{EngineError, Node, Report, membership, notice};
use crate::model::DirtyEntry;
use crate::model::errors::chain;
use crate::store::StoreError;
use crate::wire::trust::{self, Trust};
use crate::wire::{Connection, Reply, Request, Timeouts, TlsError, WireError, dial};

/// Why the session with a peer as a whole failed. Its rows stay.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Identity(#[from] Arc<TlsError>),
    #[error("the peer answered {request} with `{answer}'.{advice}")]
    Refused { request: &'static str, answer: String, advice: String },
    #[error(
        "pinned is {pinned}, presented was {presented}. If the change was intended, remove its row from the table \
         x509_cert, and the next connection pins the new one"
    )]
    WrongCertificate { pinned: String, presented: String },
}

/// Brings one peer up to date. Never fails as a whole: the report says what went wrong.
pub(super) async fn serve_peer(node: &Arc<Node>, peer: &str, entries: Vec<DirtyEntry>, dry_run: bool) -> Outcome {
    let mut outcome = Outcome::default();
    // With `-G`, peers of the other groups are none of this run's business.
    if node.groups.is_none() && !membership::pairs(&node.config).iter().any(|(_, other)| other == peer) {
        outcome.report.error(format_args!(
            "ERROR: {peer} is in no group of this configuration: {} entries stay dirty. `csync2 -R` removes them.",
            entries.len()
        ));
        return outcome;
    }
    let names = plan::by_name(node, entries, &mut outcome.report);
    if names.is_empty() {
        return outcome;
    }
    let plain = names.keys().all(|my_name| node.config.plain_allowed(my_name, peer));
    tracing::info!("Connecting to host {peer} ({}) ...", if plain { "PLAIN" } else { "SSL" });
    let left: usize = names.values().map(Vec::len).sum();
    match connect(node, peer, plain, dry_run).await {
        Ok((connection, dialect)) => {
            let exchange = Exchange::start(connection, dialect);
            converse(node, peer, exchange, names, dry_run, &mut outcome).await;
        }
        Err(error) => {
            let consequence = format!("{left} entries stay dirty; csync2 -u sends them.");
            report_connection(&mut outcome.report, peer, &error, &consequence);
            tracing::info!("Host stays in dirty state. Try again later...");
        }
    }
    outcome
}

/// Says why there is no connection, and what follows from that.
pub(in crate::engine) fn report_connection(report: &mut Report, peer: &str, error: &SessionError, consequence: &str) {
    // The words that scripts look for (the misspelling is the C program's) are a line to themselves.
    if let SessionError::WrongCertificate { .. } = error {
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

/// Everything before the first HELLO.
pub(in crate::engine) async fn connect(
    node: &Node,
    peer: &str,
    plain: bool,
    dry_run: bool,
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
        verify(node, peer, connection.peer_certificate().unwrap_or_default(), dry_run).await?;
    }
    let mut requests = vec![Request::Config { name: node.config_name.clone().into_bytes() }];
    requests.extend(node.groups.clone().map(|names| Request::Group { names }));
    requests.push(Request::AtomicDialect);
    for request in &requests {
        connection.write_line(&request.encode()).await?;
    }
    expect_ok(&mut connection, "CONFIG", || advice::on_config(peer, &node.config_name)).await?;
    if node.groups.is_some() {
        expect_ok(&mut connection, "GROUP", String::new).await?;
    }
    // A peer that knows the command asks us to identify first.
    let line = connection.read_line().await?.ok_or(WireError::Closed)?;
    let dialect = match Reply::parse(&line) {
        Reply::IdentifyFirst { .. } => Dialect::Atomic,
        _ => Dialect::Upstream,
    };
    tracing::debug!("{peer} speaks the dialect {dialect:?}.");
    Ok((connection, dialect))
}

/// Trust on first use: the first certificate a peer shows is the one it must show from then on.
async fn verify(node: &Node, peer: &str, presented: &[u8], dry_run: bool) -> Result<(), SessionError> {
    let pinned = match node.store.certificate(peer).await? {
        None if !dry_run => Some(node.store.pin(peer, presented).await?),
        pinned => pinned,
    };
    match (trust::judge(pinned.as_deref(), presented), pinned) {
        (Trust::Different, Some(pinned)) => Err(SessionError::WrongCertificate {
            pinned: trust::fingerprint(&pinned),
            presented: trust::fingerprint(presented),
        }),
        _ if dry_run => Ok(()),
        _ => Ok(notice::warn_of_certificate(&node.store, peer, presented).await?),
    }
}

/// Reads an answer that must be a success.
pub(in crate::engine) async fn expect_ok(
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

/// Everything from the first HELLO on.
pub(super) async fn converse(
    node: &Arc<Node>,
    peer: &str,
    mut exchange: Exchange,
    names: BTreeMap<String, Vec<Candidate>>,
    dry_run: bool,
    outcome: &mut Outcome,
) {
    let mut left: usize = names.values().map(Vec::len).sum();
    let mut broken = None;
    for (my_name, candidates) in names {
        let count = candidates.len();
        match hello(&mut exchange, peer, &my_name, count, outcome).await {
            Ok(true) => {}
            Ok(false) => {
                left -= count;
                continue;
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
        let pair = Pair { my_name: &my_name, peer };
        let worked = Pipeline::new(node, pair, &mut exchange, dry_run).run(candidates).await;
        left = left - count + worked.left;
        let Worked { report, forecasts, result, .. } = worked;
        outcome.report.merge(report);
        outcome.forecasts.extend(forecasts);
        if let Err(error) = result {
            broken = Some(error);
            break;
        }
    }
    let result = match broken {
        Some(error) => Err(error),
        None => exchange.finish().await.map(|closing| outcome.closing = Some(closing)).map_err(SessionError::from),
    };
    if let Err(error) = result {
        outcome.report.error(format_args!(
            "ERROR: the session with {peer} broke off: {}. {left} entries stay dirty; csync2 -u sends them.",
            chain(&error)
        ));
        tracing::info!("Host stays in dirty state. Try again later...");
    }
}

/// Says under which name we act from here on. `false`: the peer does not accept it, which concerns this name only.
async fn hello(
    exchange: &mut Exchange,
    peer: &str,
    my_name: &str,
    entries: usize,
    outcome: &mut Outcome,
) -> Result<bool, SessionError> {
    let line = exchange.converse(&Request::Hello { name: my_name.to_owned() }).await?;
    let answer = Reply::parse(&line);
    if answer.is_ok() {
        return Ok(true);
    }
    let advice = match answer {
        Reply::IdentificationFailed => {
            let seen = address_seen(exchange).await?;
            advice::on_identification(&line, my_name, seen.as_deref(), exchange.local_address())
        }
        Reply::SslExpected => advice::on_plain(peer, my_name),
        _ => String::new(),
    };
    let answer = String::from_utf8_lossy(&line);
    outcome.report.error(format_args!(
        "ERROR: {peer} does not accept us as {my_name}: {answer}{advice} {entries} entries stay dirty."
    ));
    tracing::info!("Host stays in dirty state. Try again later...");
    Ok(false)
}

/// The address that the peer sees us come from: it says so to whoever asks for anything without a name.
async fn address_seen(exchange: &mut Exchange) -> Result<Option<String>, SessionError> {
    let question = Request::GetSz { key: "-".to_owned(), file: b"/".to_vec() };
    Ok(match Reply::parse(&exchange.converse(&question).await?) {
        Reply::IdentifyFirst { address } => Some(address),
        _ => None,
    })
}
