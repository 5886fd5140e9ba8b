//! One process pushes to a peer at a time: a second run waits for the first and finds its work done.
//!
//! A claim is a row with an end. Its holder renews it; one whose holder is gone is taken over at once, and one whose
//! holder cannot be seen from here when its time has run out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::engine::{Node, recover};
use crate::store::{Claim, Store, StoreError};

/// A claim ends this many seconds after its last renewal.
const LEASE: i64 = 60;

const RENEW_EVERY: Duration = Duration::from_secs(20);

/// How often a waiting run looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The right to push to a peer. Ends with [`Claimed::release`], or by itself after a while.
#[derive(Debug)]
pub(super) struct Claimed {
    store: Store,
    peer: String,
    holder: String,
    renewal: JoinHandle<()>,
}

/// Waits until no other process pushes to the peer.
pub(super) async fn claim(node: &Node, peer: &str) -> Result<Claimed, StoreError> {
    let holder = recover::holder();
    let mut waiting = false;
    loop {
        let has_it = node.store.claim(wish(peer, &holder)).await?;
        if has_it == holder {
            break;
        }
        if !has_it.is_empty() && !recover::is_alive(&has_it) {
            node.store.release(peer, &has_it).await?;
            continue;
        }
        if !std::mem::replace(&mut waiting, true) {
            tracing::info!("Waiting for another csync2 that is updating {peer} ...");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let renewal = tokio::spawn(renew(node.store.clone(), peer.to_owned(), holder.clone()));
    Ok(Claimed { store: node.store.clone(), peer: peer.to_owned(), holder, renewal })
}

impl Claimed {
    pub(super) async fn release(self) -> Result<(), StoreError> {
        self.renewal.abort();
        self.store.release(&self.peer, &self.holder).await
    }
}

async fn renew(store: Store, peer: String, holder: String) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        // A failure is tried again; the session itself reports a database that stays away.
        if let Err(error) = store.claim(wish(&peer, &holder)).await {
            tracing::debug!("renew the claim on {peer}: {error}");
        }
    }
}

fn wish(peer: &str, holder: &str) -> Claim {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Claim { peer: peer.to_owned(), holder: holder.to_owned(), now, expires: now.saturating_add(LEASE) }
}
