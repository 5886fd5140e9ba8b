//! Work that one process or session does at a time: pushing to a peer, running a command.
//!
//! A claim is a row with an end. Its holder renews it; one whose holder is gone (or of another boot or machine) is taken over
//! at once, and one whose holder is there but no longer renews it, when its time has run out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::recover;
use crate::store::{Claim, Store, StoreError};

/// A claim ends this many seconds after its last renewal.
const LEASE: i64 = 60;

const RENEW_EVERY: Duration = Duration::from_secs(20);

/// How soon who waits looks again: at first, and when it takes long.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The right to do some work. Ends with [`Claimed::release`], or by itself a while after this is dropped.
#[derive(Debug)]
pub(super) struct Claimed {
    store: Store,
    subject: String,
    holder: String,
    renewal: JoinHandle<()>,
}

/// Waits until nobody else does the work; `waiting` is called once if that is not now.
pub(super) async fn claim(
    store: &Store,
    subject: &str,
    holder: &str,
    waiting: impl FnOnce(),
) -> Result<Claimed, StoreError> {
    let (mut waiting, mut pause) = (Some(waiting), LOOK_AGAIN.0);
    loop {
        if let Some(claimed) = try_claim(store, subject, holder).await? {
            return Ok(claimed);
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f32(1.25).min(LOOK_AGAIN.1);
    }
}

/// Claims the work unless somebody else is at it.
pub(super) async fn try_claim(store: &Store, subject: &str, holder: &str) -> Result<Option<Claimed>, StoreError> {
    loop {
        let has_it = store.claim(wish(subject, holder)).await?;
        if has_it == holder {
            break;
        }
        if !has_it.is_empty() {
            if recover::is_alive(&has_it) {
                return Ok(None);
            }
            store.release(subject, &has_it).await?;
        }
    }
    let (store, subject, holder) = (store.clone(), subject.to_owned(), holder.to_owned());
    let renewal = tokio::spawn(renew(store.clone(), subject.clone(), holder.clone()));
    Ok(Some(Claimed { store, subject, holder, renewal }))
}

impl Claimed {
    pub(super) async fn release(self) -> Result<(), StoreError> {
        self.renewal.abort();
        self.store.release(&self.subject, &self.holder).await
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew(store: Store, subject: String, holder: String) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        // A failure is tried again; the work itself reports a database that stays away.
        if let Err(error) = store.claim(wish(&subject, &holder)).await {
            tracing::debug!("renew the claim on {subject}: {error}");
        }
    }
}

fn wish(subject: &str, holder: &str) -> Claim {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Claim { subject: subject.to_owned(), holder: holder.to_owned(), now, expires: now.saturating_add(LEASE) }
}
