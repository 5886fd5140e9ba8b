//! Work that passes from those who have more than enough of it to those who have none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where shares of the work change hands. It is over when nobody works any more.
#[derive(Debug)]
pub(super) struct Exchange<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// How many wait for a share that nobody has offered yet: asked at every step, without the lock.
    wanted: AtomicUsize,
}

#[derive(Debug)]
struct State<T> {
    offers: Vec<T>,
    working: usize,
    waiting: usize,
}

impl<T> Default for Exchange<T> {
    fn default() -> Self {
        let state = State { offers: Vec::new(), working: 0, waiting: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), wanted: AtomicUsize::new(0) }
    }
}

/// Somebody is at work, and may still offer a share. Ends when dropped, also by a panic: nobody waits for ever.
#[derive(Debug)]
pub(super) struct Working<'e, T>(&'e Exchange<T>);

impl<T> Exchange<T> {
    pub(super) fn begin(&self) -> Working<'_, T> {
        self.lock().working += 1;
        Working(self)
    }

    /// Whether a share would be taken at once.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    pub(super) fn offer(&self, share: T) {
        let mut state = self.lock();
        state.offers.push(share);
        self.count(&state);
        self.changed.notify_one();
    }

    /// Waits for a share; `None`: there will be none any more. Whoever asks is not at work.
    pub(super) fn wait(&self) -> Option<(T, Working<'_, T>)> {
        let mut state = self.lock();
        loop {
            if let Some(share) = state.offers.pop() {
                state.working += 1;
                self.count(&state);
                return Some((share, Working(self)));
            }
            if state.working == 0 {
                return None;
            }
            state.waiting += 1;
            self.count(&state);
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn count(&self, state: &State<T>) {
        self.wanted.store(state.waiting.saturating_sub(state.offers.len()), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Working<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.working -= 1;
        if state.working == 0 {
            self.0.changed.notify_all();
        }
    }
}
