//! When an operation is tried again, and when it is given up.
//!
//! Every operation has the same effect when it is carried out twice in a row: marks and rows are replaced, what is removed is
//! named by its version, a change names the row that it expects. So one whose answer was lost is simply tried again, whether
//! the server had come to its end or not. The exceptions know it themselves: [`super::receives::next_receives`] looks whether
//! it was carried out, and a stream of rows that has begun to arrive ends with an error.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::trouble::{Remedy, Trouble};

/// How often an operation is tried that the server gave up for another's sake, or whose connection broke.
const ATTEMPTS: u32 = 10;

/// The longest pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The attempts at one operation.
#[derive(Debug)]
pub(super) struct Retry {
    operation: &'static str,
    attempts: u32,
    pauses: u32,
    /// How long a server that lets nobody in is waited for.
    patience: Duration,
    until: Option<Instant>,
}

impl Retry {
    pub(super) fn new(operation: &'static str, patience: Duration) -> Self {
        Self { operation, attempts: 1, pauses: 0, patience, until: None }
    }

    pub(super) fn operation(&self) -> &'static str {
        self.operation
    }

    /// Waits before the next attempt. `false`: there is none, another one would fare no better.
    pub(super) async fn after(&mut self, trouble: &Trouble) -> bool {
        match trouble.remedy() {
            Remedy::None => false,
            Remedy::Repeat => self.once_more(trouble).await,
            Remedy::WaitForServer | Remedy::WaitForPlace => {
                let until = *self.until.get_or_insert_with(|| Instant::now() + self.patience);
                let is_early = Instant::now() < until;
                if is_early {
                    self.pause(trouble).await;
                }
                is_early
            }
        }
    }

    /// Waits before the next attempt, unless there were enough.
    pub(super) async fn once_more(&mut self, trouble: &Trouble) -> bool {
        let is_left = self.attempts < ATTEMPTS;
        if is_left {
            self.attempts += 1;
            self.pause(trouble).await;
        }
        is_left
    }

    /// Two that are in each other's way do not come back at the same moment.
    async fn pause(&mut self, trouble: &Trouble) {
        tracing::debug!("{}: another attempt follows: {trouble}", self.operation);
        let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(self.pauses.min(10)));
        self.pauses += 1;
        let share = getrandom::u32().unwrap_or(u32::MAX);
        sleep(longest.mul_f64(0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErrorKind;

    async fn attempts(trouble: &Trouble, patience: Duration) -> u32 {
        let mut retry = Retry::new("look", patience);
        let mut attempts = 1;
        while retry.after(trouble).await {
            attempts += 1;
        }
        attempts
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_and_patience_have_an_end() {
        let patience = Duration::from_secs(12);
        assert_eq!(attempts(&Trouble::other("no such table"), patience).await, 1);
        assert_eq!(attempts(&Trouble::new(ErrorKind::ConnectionLost, "gone"), patience).await, ATTEMPTS);
        let before = Instant::now();
        assert!(attempts(&Trouble::new(ErrorKind::Unreachable, "nobody listens"), patience).await > 20);
        assert!((12..14).contains(&before.elapsed().as_secs()));
    }
}
