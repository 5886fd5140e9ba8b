//! Which of the dialects a peer speaks, and how it tells times.

use std::fmt;

use crate::model::{MtimeUnit, Timestamp, checktxt};

/// Which dialect the peer speaks (protocol.md, 'The second dialect').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Dialect {
    /// Times in seconds, attributes in commands of their own.
    Upstream,
    /// Times in nanoseconds, ATOMICPATCH.
    Atomic,
    /// One of ours: frames may follow a HELLO (protocol.md, 'The batch dialect'); else as the second one.
    Batch { version: u32 },
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => formatter.write_str("classic"),
            Self::Atomic => formatter.write_str("atomic"),
            Self::Batch { version } => write!(formatter, "batch {version}"),
        }
    }
}

impl Dialect {
    fn unit(self) -> MtimeUnit {
        match self {
            Self::Upstream => MtimeUnit::Seconds,
            Self::Atomic | Self::Batch { .. } => MtimeUnit::Nanoseconds,
        }
    }

    /// The number that stands for a time in SETIME.
    pub(in crate::engine) fn mtime_number(self, mtime: Timestamp) -> i64 {
        checktxt::mtime_number(mtime, self.unit())
    }

    /// A time as far as the peer knows times: what both sides can be compared by.
    pub(in crate::engine) fn comparable(self, mtime: Timestamp) -> Timestamp {
        match self {
            Self::Upstream => Timestamp::from_seconds(mtime.seconds),
            Self::Atomic | Self::Batch { .. } => mtime,
        }
    }

    /// What a number in the answer to GETTM stands for.
    pub(in crate::engine) fn mtime(self, number: i64) -> Timestamp {
        match self {
            Self::Upstream => self.comparable(checktxt::mtime_of_unknown_unit(number)),
            Self::Atomic | Self::Batch { .. } => Timestamp::from_nanoseconds(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_and_compared_as_the_peer_knows_them() {
        let at = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        for (time, seconds, nanoseconds) in [
            (at(-1, 0), -1, -1_000_000_000),
            (at(-1, 500_000_000), -1, -500_000_000),
            (at(0, 0), 0, 0),
            (at(0, 1), 0, 1),
            (at(1, 0), 1, 1_000_000_000),
            (at(-2_147_483_649, 7), -2_147_483_649, -2_147_483_648_999_999_993),
            (at(8_600_000_000, 5), 8_600_000_000, 8_600_000_000_000_000_005),
        ] {
            let (upstream, atomic) = (Dialect::Upstream, Dialect::Atomic);
            assert_eq!((upstream.mtime_number(time), atomic.mtime_number(time)), (seconds, nanoseconds));
            // What comes back is what the peer was told, and compares as equal.
            assert_eq!(upstream.mtime(seconds), upstream.comparable(time));
            assert_eq!(atomic.mtime(nanoseconds), atomic.comparable(time));
        }
        // A server of the fork is known by its answer; any other may still give nanoseconds.
        assert_eq!(Dialect::Upstream.mtime(1_600_000_000_123_456_789), at(1_600_000_000, 0));
    }
}
