//! Names of files and the text of their states.

use csync2::model::encoding::{classic, decode, encode};
use csync2::model::{Checktxt, FileKind, Ignore, Metadata, MtimeUnit, Scope, SyncPath, Timestamp, checktxt as text};

use super::Parts;

/// The `%XX` encoding: both spellings of any name decode to it, and neither holds a byte that would end a field.
pub fn encoding(name: &[u8]) {
    let ours = encode(name);
    let theirs = classic(name);
    for spelling in [ours.as_bytes(), &theirs] {
        assert_eq!(decode(spelling), name);
        assert!(!spelling.iter().any(|byte| b" \t\r\n:'\"$|\\".contains(byte)));
    }
    let decoded = decode(name);
    assert!(decoded.len() <= name.len());
    assert_eq!(decode(encode(&decoded).as_bytes()), decoded);
}

/// Names of files as peers send them: what is accepted has no component that leads elsewhere, and its parts fit together.
pub fn sync_path(name: &[u8]) {
    let Ok(path) = SyncPath::parse(name) else { return };
    assert_eq!(path.as_bytes(), name);
    assert!(!name.contains(&0));
    assert!(!name.split(|&byte| byte == b'/').any(|component| component == b"." || component == b".."));
    assert_eq!(SyncPath::parse(&decode(path.encoded().as_bytes())).as_ref(), Ok(&path));
    if let Some((prefix, below)) = path.split_prefix() {
        assert!(!prefix.is_empty() && !below.starts_with(b"/"));
    }
    assert!(Scope::Tree(path.clone()).contains(&path) && !path.is_below(&path));
    if let Some(parent) = path.parent() {
        assert!(path.is_below(&parent) && Scope::Tree(parent.clone()).contains(&path));
        assert_eq!(path.depth(), parent.depth() + 1);
        assert_eq!(parent.join(path.file_name()), Ok(path));
    }
}

/// Checktxts as rows and peers give them: any bytes can be compared, and a comparison has no preferred side. The input: two
/// texts that end in zeros; then the numbers of a state, and the target of a link unless it is empty.
pub fn checktxt(input: &[u8]) {
    let mut parts = Parts(input);
    let (left, right) = (Checktxt::from_text(parts.text()), Checktxt::from_text(parts.text()));
    assert!(left.equal_but_for_mtime(&left));
    assert_eq!(left.equal_but_for_mtime(&right), right.equal_but_for_mtime(&left));
    let number = i64::from_be_bytes(parts.number());
    let _ = (left.mtime(), text::mtime_of_unknown_unit(number).as_nanoseconds());

    let [mode, uid, gid, nanoseconds] = [(); 4].map(|()| u32::from_be_bytes(parts.number()));
    let seconds = i64::from_be_bytes(parts.number());
    let mtime = Timestamp { seconds, nanoseconds: nanoseconds % 1_000_000_000 };
    let kind = match parts.rest() {
        [] => FileKind::Regular { size: u64::from(mode) },
        target => FileKind::Symlink { target: target.to_vec() },
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
}
