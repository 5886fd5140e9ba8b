//! Checktxts as rows and peers give them: any bytes can be compared, and a comparison has no preferred side.
#![no_main]

use csync2::model::{Checktxt, FileKind, Ignore, Metadata, MtimeUnit, Timestamp, checktxt};
use libfuzzer_sys::fuzz_target;

/// Mode, owner, group, seconds, nanoseconds, link target (none: a regular file).
type State = (u32, u32, u32, i64, u32, Option<Vec<u8>>);

fuzz_target!(|input: (Vec<u8>, Vec<u8>, i64, State)| {
    let (left, right, number, (mode, uid, gid, seconds, nanoseconds, target)) = input;
    let (left, right) = (Checktxt::from_text(&left), Checktxt::from_text(&right));
    assert!(left.equal_but_for_mtime(&left));
    assert_eq!(left.equal_but_for_mtime(&right), right.equal_but_for_mtime(&left));
    let _ = (left.mtime(), checktxt::mtime_of_unknown_unit(number).as_nanoseconds());

    let mtime = Timestamp { seconds, nanoseconds: nanoseconds % 1_000_000_000 };
    let kind = match target {
        Some(target) => FileKind::Symlink { target },
        None => FileKind::Regular { size: u64::from(mode) },
    };
    let metadata = Metadata { kind, mode, uid, gid, mtime, ctime: mtime, device: 1, inode: 1, links: 1 };
    let now = Checktxt::of(&metadata, Ignore::default(), MtimeUnit::Seconds);
    assert!(now.describes(&now, mtime));
    assert!(now.equal_but_for_mtime(&Checktxt::of(&metadata, Ignore::default(), MtimeUnit::Zero)));
    let _ = (left.describes(&now, mtime), left.equal_but_for_mtime(&now));
    // From 1980 to 2262 a number of nanoseconds cannot be taken for one of seconds.
    if (315_532_800..9_000_000_000).contains(&seconds) {
        assert!(Checktxt::of(&metadata, Ignore::default(), MtimeUnit::Nanoseconds).describes(&now, mtime));
    }
});
