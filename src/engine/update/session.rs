//! One peer from the first byte to the last: the contact, a HELLO for each of our names, BYE.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exchange::Exchange;
use super::pipeline::{Pair, Pipeline, Worked};
use super::plan::{Candidate, Dirty};
use super::{Common, Outcome};
use crate::engine::contact::{self, SessionError, advice};
use crate::engine::membership;
use crate::model::errors::chain;
use crate::wire::{Reply, Request};

/// Brings one peer up to date. Never fails as a whole: the report says what went wrong.
pub(super) async fn serve_peer(run: &Arc<Common>, peer: &str, dirty: Dirty, outcome: &mut Outcome) {
    let node = &run.node;
    // With `-G`, peers of the other groups are none of this run's business.
    if node.groups.is_none() && !membership::pairs(&node.config).iter().any(|(_, other)| other == peer) {
        outcome.report.error(format_args!(
            "ERROR: {peer} is in no group of this configuration: {} entries stay dirty. `csync2 -R` removes them.",
            dirty.count
        ));
        return;
    }
    let names = dirty.names;
    if names.is_empty() {
        return;
    }
    let plain = names.keys().all(|my_name| node.config.plain_allowed(my_name, peer));
    let tally = run.tally.peer(peer);
    outcome.tally = Some(Arc::clone(&tally));
    tracing::info!("Connecting to host {peer} ({}) ...", if plain { "PLAIN" } else { "SSL" });
    let left: usize = names.values().map(Vec::len).sum();
    let purpose = if run.dry_run { contact::Purpose::DryRun } else { contact::Purpose::Push };
    let Some(contact) = run.stop.run_until_cancelled(contact::connect(node, peer, plain, purpose)).await else {
        outcome.report.unfinished = true;
        return;
    };
    match contact {
        Ok((connection, dialect)) => {
            let address = connection.peer_address().map(|address| address.to_canonical().to_string());
            outcome.reached = (Some(dialect.to_string()), address);
            let exchange = Exchange::start(connection, dialect, tally);
            converse(run, peer, exchange, names, outcome).await;
        }
        Err(error) => {
            let consequence = format!("{left} entries stay dirty; csync2 -u sends them.");
            contact::report_failure(&mut outcome.report, peer, &error, &consequence);
            tracing::info!("Host stays in dirty state. Try again later...");
        }
    }
}

/// Everything from the first HELLO on.
pub(super) async fn converse(
    run: &Arc<Common>,
    peer: &str,
    mut exchange: Exchange,
    names: BTreeMap<Arc<str>, Vec<Candidate>>,
    outcome: &mut Outcome,
) {
    let mut left: usize = names.values().map(Vec::len).sum();
    let mut broken = None;
    for (my_name, candidates) in names {
        if run.stop.is_cancelled() {
            outcome.report.unfinished = true;
            break;
        }
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
        let worked = Pipeline::new(run, pair, &mut exchange).run(candidates).await;
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
