//! An end before the end: a signal asks a run or a session to come to one. It ends after the file in hand, and what is left
//! stays where it was, dirty or scheduled.
//!
//! The wish is a [`CancellationToken`], which whoever starts the work passes on.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long what is in hand may take from then on.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Does the work. `None`: the end was asked for, and the work did not come to one in time; nothing more is done of it.
pub(super) async fn within_grace<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = overdue => None,
    }
}
