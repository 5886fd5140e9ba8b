//! Whether a row of ours and what a peer lists describe the same state. Rows alone: the disk is not looked at.

use crate::engine::contact::Dialect;
use crate::model::checktxt::mtime_of_unknown_unit;
use crate::model::{Checktxt, FileRecord, Timestamp};

/// Everything in the checktxts must agree. Times agree within the second when either side keeps whole seconds, as the C
/// program does: it cuts the times that it sets, and what it has received would differ for ever. An empty link target is
/// one that its writer did not record.
pub(super) fn agree(ours: &FileRecord, theirs: &Checktxt, dialect: Dialect) -> bool {
    if ours.checktxt == *theirs {
        return true;
    }
    if !ours.checktxt.equal_but_for_mtime(theirs) {
        return false;
    }
    let our_time = ours.mtime_ns.map(Timestamp::from_nanoseconds).or_else(|| ours.checktxt.mtime());
    match (ours.checktxt.mtime_field(), our_time, theirs.mtime_field()) {
        (None, _, None) => true,
        (Some(_), Some(our_time), Some(number)) => {
            let of_dialect = match dialect {
                Dialect::Upstream => None,
                Dialect::Atomic | Dialect::Batch { .. } => Some(Timestamp::from_nanoseconds(number)),
            };
            // The second dialect's tables may hold rows that the C program wrote, in seconds.
            let readings = [of_dialect, Some(mtime_of_unknown_unit(number))];
            readings.into_iter().flatten().any(|their_time| same_time(our_time, their_time))
        }
        _ => false,
    }
}

fn same_time(one: Timestamp, other: Timestamp) -> bool {
    one.seconds == other.seconds
        && (one.nanoseconds == other.nanoseconds || one.nanoseconds == 0 || other.nanoseconds == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SyncPath;

    fn row(checktxt: &str, mtime_ns: Option<i64>) -> FileRecord {
        FileRecord {
            path: SyncPath::parse(b"/f").unwrap(),
            checktxt: Checktxt::from_text(checktxt.as_bytes()),
            mtime_ns,
            ctime_ns: None,
            device: None,
            digest: None,
        }
    }

    #[test]
    fn times_agree_as_far_as_both_sides_know_them() {
        use Dialect::{Atomic, Upstream};
        let precise = Some(1_600_000_000_123_456_789);
        for (ours, ours_ns, theirs, dialect, expected) in [
            ("1600000000", None, "1600000000", Upstream, true),
            ("1600000000", precise, "1600000000", Upstream, true),
            ("1600000000", precise, "1600000001", Upstream, false),
            ("1600000000", precise, "1600000000123456789", Atomic, true),
            ("1600000000", precise, "1600000000123456788", Atomic, false),
            ("1600000000", precise, "1600000000000000000", Atomic, true),
            ("1600000000", None, "1600000000123456789", Atomic, true),
            ("1600000000", None, "1600000000123456789", Upstream, true),
            ("1600000000", precise, "1600000000", Atomic, true),
            // Around 1970 a number alone does not say what it counts.
            ("1", Some(1_000_000_000), "1000000000", Atomic, true),
            ("1", Some(1_000_000_000), "1000000000", Upstream, false),
            ("-1", Some(-1_000_000_000), "-1000000000", Atomic, true),
            ("-1", Some(-1), "-1", Atomic, true),
            ("0", Some(0), "0", Atomic, true),
            ("0", Some(0), "1", Upstream, false),
        ] {
            let text = |mtime: &str| format!("v1:mtime={mtime}:mode=33188:uid=0:gid=0:type=reg:size=6");
            let theirs_text = Checktxt::from_text(text(theirs).as_bytes());
            assert_eq!(agree(&row(&text(ours), ours_ns), &theirs_text, dialect), expected, "{ours} {theirs}");
        }
    }

    #[test]
    fn everything_else_is_compared_exactly() {
        for (ours, theirs, expected) in [
            ("v1:mode=1:type=lnk:target=a", "v1:mode=1:type=lnk:target=", true),
            ("v1:mode=1:type=lnk:target=", "v1:mode=1:type=lnk:target=a", true),
            ("v1:mode=1:type=lnk:target=a", "v1:mode=1:type=lnk:target=ab", false),
            ("v1:mtime=1:type=reg:size=1", "v1:mtime=1:type=reg:size=10", false),
            ("v1:mtime=1:mode=1:type=fifo", "v1:mode=1:type=fifo", false),
            ("v1:mode=1:type=dir", "v1:mode=2:type=dir", false),
        ] {
            let theirs_text = Checktxt::from_text(theirs.as_bytes());
            assert_eq!(agree(&row(ours, None), &theirs_text, Dialect::Upstream), expected, "{ours} {theirs}");
        }
    }
}
