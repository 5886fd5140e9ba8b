//! Who may be here at the same time.
//!
//! A connection that has not said yet who it is has a place in the lobby, which is cheap. There are as many as configured, and an
//! eighth of them for each address; whoever comes when they are taken gets the place of the one that has waited longest. An
//! address from which a peer has identified itself before keeps its places against all others. So a flood drives out itself.
//!
//! Whoever has identified itself gets a seat for its session, or waits for one outside of the lobby.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Of the places in the lobby, one address has this part.
const SHARE_OF_AN_ADDRESS: usize = 8;

/// A flood is told at most as often.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// How many may be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions (`max-sessions`).
    pub sessions: usize,
    /// Sessions of one peer, those that wait for a seat included (`max-sessions-per-peer`).
    pub of_one_peer: usize,
    /// Connections that have not identified themselves (`max-strangers`).
    pub strangers: usize,
}

impl Limits {
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            sessions: config.max_sessions,
            of_one_peer: config.max_sessions_per_peer,
            strangers: config.max_strangers,
        }
    }
}

/// The places of a daemon.
#[derive(Debug)]
pub(super) struct Lobby {
    limits: Limits,
    seats: Arc<Semaphore>,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    /// In the order in which they came.
    strangers: BTreeMap<u64, (IpAddr, CancellationToken)>,
    /// Where peers have identified themselves from: as few as the configurations have hosts.
    known: HashSet<IpAddr>,
    /// Sessions by peer.
    peers: HashMap<String, usize>,
    arrivals: u64,
    /// When the last warning was.
    warned: Option<Instant>,
}

impl Present {
    /// Says that strangers are driven out, once in a while.
    fn warn_of_flood(&mut self, address: IpAddr) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= BETWEEN_WARNINGS) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                "WARNING: more connections than max-strangers allows do not say who they are, now from {address}: those that \
                 have waited longest are closed."
            );
        }
    }
}

impl Lobby {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(limits.sessions.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { limits, seats, present: Mutex::default() })
    }

    /// Takes a new connection in.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Visitor {
        let mut present = self.present();
        let share = (self.limits.strangers / SHARE_OF_AN_ADDRESS).max(1);
        let of_address: Vec<u64> =
            present.strangers.iter().filter(|(_, (other, _))| *other == address).map(|(number, _)| *number).collect();
        let driven_out = if of_address.len() >= share {
            of_address.first().copied()
        } else if present.strangers.len() >= self.limits.strangers.max(1) {
            let unknown = present.strangers.iter().find(|(_, (other, _))| !present.known.contains(other));
            unknown.or(present.strangers.iter().next()).map(|(number, _)| *number)
        } else {
            None
        };
        if let Some((_, dismissed)) = driven_out.and_then(|number| present.strangers.remove(&number)) {
            dismissed.cancel();
            present.warn_of_flood(address);
        }
        present.arrivals += 1;
        let (number, dismissed) = (present.arrivals, CancellationToken::new());
        present.strangers.insert(number, (address, dismissed.clone()));
        Visitor { lobby: Arc::clone(self), address, at: At::Door { number, dismissed } }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, as far as it takes up room. Dropping it makes room.
#[derive(Debug)]
pub(super) struct Visitor {
    lobby: Arc<Lobby>,
    address: IpAddr,
    at: At,
}

#[derive(Debug)]
enum At {
    /// It has not identified itself.
    Door { number: u64, dismissed: CancellationToken },
    /// It has, and waits for a seat or has one.
    Seat { peer: String, seat: Option<OwnedSemaphorePermit> },
}

/// The peer has as many sessions as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Visitor {
    /// Waits until somebody else gets this place; for ever, once it has identified itself.
    pub(super) async fn dismissed(&self) {
        match &self.at {
            At::Door { dismissed, .. } => dismissed.cancelled().await,
            At::Seat { .. } => std::future::pending().await,
        }
    }

    /// It has proved to be `peer`: waits for a seat, unless it has one.
    ///
    /// # Errors
    /// [`TooMany`]: it stays where it is.
    pub(super) async fn be_seated(&mut self, peer: &str) -> Result<(), TooMany> {
        if self.at.peer() != Some(peer) {
            let mut present = self.lobby.present();
            let sessions = present.peers.entry(peer.to_owned()).or_default();
            if *sessions >= self.lobby.limits.of_one_peer.max(1) {
                return Err(TooMany);
            }
            *sessions += 1;
            present.known.insert(self.address);
            self.at.leave(&mut present);
            let seat = self.at.take_seat();
            self.at = At::Seat { peer: peer.to_owned(), seat };
        }
        if let At::Seat { seat: seat @ None, .. } = &mut self.at {
            // The semaphore is never closed.
            *seat = Arc::clone(&self.lobby.seats).acquire_owned().await.ok();
        }
        Ok(())
    }
}

impl At {
    fn peer(&self) -> Option<&str> {
        match self {
            Self::Door { .. } => None,
            Self::Seat { peer, .. } => Some(peer),
        }
    }

    fn take_seat(&mut self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Door { .. } => None,
            Self::Seat { seat, .. } => seat.take(),
        }
    }

    fn leave(&self, present: &mut Present) {
        match self {
            Self::Door { number, .. } => {
                present.strangers.remove(number);
            }
            Self::Seat { peer, .. } => {
                if let Some(sessions) = present.peers.get_mut(peer) {
                    *sessions -= 1;
                    if *sessions == 0 {
                        present.peers.remove(peer);
                    }
                }
            }
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.at.leave(&mut self.lobby.present());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn lobby(sessions: usize, of_one_peer: usize, strangers: usize) -> Arc<Lobby> {
        Lobby::new(Limits { sessions, of_one_peer, strangers })
    }

    fn from(number: u8) -> IpAddr {
        [127, 0, 0, number].into()
    }

    fn is_dismissed(visitor: &Visitor) -> bool {
        visitor.dismissed().now_or_never().is_some()
    }

    #[test]
    fn a_flood_drives_out_itself() {
        let lobby = lobby(1, 1, 16);
        let quiet = lobby.enter(from(1));
        let flood: Vec<Visitor> = (0..50).map(|_| lobby.enter(from(2))).collect();
        assert!(!is_dismissed(&quiet));
        let left: Vec<usize> = (0..50).filter(|&number| !is_dismissed(&flood[number])).collect();
        assert_eq!(left, [48, 49], "an eighth, the last ones");
        // From many addresses: whoever came first has had the most time.
        let crowd: Vec<Visitor> = (10..26).map(|number| lobby.enter(from(number))).collect();
        assert!(is_dismissed(&quiet));
        assert!(!crowd.iter().any(is_dismissed));
        drop((flood, crowd));
        assert!(lobby.present().strangers.is_empty());
    }

    #[test]
    fn who_is_known_is_driven_out_by_nobody() {
        let lobby = lobby(2, 2, 8);
        let mut known = lobby.enter(from(1));
        known.be_seated("alpha").now_or_never().unwrap().unwrap();
        let _flood: Vec<Visitor> = (0..50).map(|_| lobby.enter(from(1))).collect();
        assert!(!is_dismissed(&known));
        // Nor is the next connection from there, while it has not said its name yet.
        let next = lobby.enter(from(1));
        let _crowd: Vec<Visitor> = (10..60).map(|number| lobby.enter(from(number))).collect();
        assert!(!is_dismissed(&next));
    }

    #[test]
    fn seats_are_waited_for_and_a_peer_has_its_share() {
        let lobby = lobby(2, 2, 8);
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| lobby.enter(from(1)));
        first.be_seated("alpha").now_or_never().unwrap().unwrap();
        first.be_seated("alpha").now_or_never().unwrap().unwrap();
        second.be_seated("alpha").now_or_never().unwrap().unwrap();
        assert_eq!(third.be_seated("alpha").now_or_never(), Some(Err(TooMany)));
        // Another peer waits for a seat, and gets the first that is free.
        assert_eq!(fourth.be_seated("beta").now_or_never(), None);
        // A session that goes on under another name keeps its seat, and leaves the other's share.
        first.be_seated("gamma").now_or_never().unwrap().unwrap();
        assert_eq!(third.be_seated("alpha").now_or_never(), None);
        drop(second);
        fourth.be_seated("beta").now_or_never().unwrap().unwrap();
        drop((first, third, fourth));
        assert!(lobby.present().peers.is_empty());
        assert_eq!(lobby.seats.available_permits(), 2);
    }
}
