//! SIGTERM and SIGINT: the first one asks for an end after what is in hand, the second one is the end.

use std::fs;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token when a signal comes, and ends the process when another one does, with the status that shells give to
/// who is killed by it. A signal that our caller has us ignore, as a shell does for what runs in the background, stays
/// ignored.
pub fn stop_on_the_first(stop: &CancellationToken) {
    let ignored = ignored();
    let mut terminate = listen(SignalKind::terminate(), ignored);
    let mut interrupt = listen(SignalKind::interrupt(), ignored);
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            let (name, number) = tokio::select! {
                () = came(&mut terminate) => ("SIGTERM", libc::SIGTERM),
                () = came(&mut interrupt) => ("SIGINT", libc::SIGINT),
            };
            if stop.is_cancelled() {
                process::exit(128 + number);
            }
            tracing::info!("{name}: ending after what is in hand; once more ends at once.");
            stop.cancel();
        }
    });
}

/// `None`: it is ignored, or cannot be waited for and does what it does by itself.
fn listen(kind: SignalKind, ignored: u64) -> Option<Signal> {
    let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
    if is_ignored { None } else { signal(kind).ok() }
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this process ignores, the first one in the lowest bit.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
