//! The one-line description of a file's state that the database keeps and peers compare (docs/protocol.md).
//!
//! `v1:mtime=…:mode=…:uid=…:gid=…:type=reg:size=…`. The fork writes mtime in nanoseconds; a number above 10^14 is one.

use std::fmt;

use super::{FileKind, Metadata, Timestamp, encoding};

/// Properties that the config word `ignore` takes out of the comparison, and that are never set on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignore {
    pub uid: bool,
    pub gid: bool,
    pub mode: bool,
}

/// The unit in which mtime is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MtimeUnit {
    /// Upstream, and our own tables.
    #[default]
    Seconds,
    /// The fork's dialect.
    Nanoseconds,
    /// A SIG answer: the time is no part of the comparison.
    Zero,
}

/// A checktxt as it was written. Keeps the text, so that a format we do not know survives being copied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checktxt(Box<[u8]>);

/// Above this absolute value, an mtime of unknown unit is in nanoseconds: 10^14 s is three million years from now,
/// 10^14 ns is the second of January 1970.
const NANOSECONDS_ABOVE: u64 = 100_000_000_000_000;

impl Checktxt {
    /// Describes what is on disk.
    #[must_use]
    pub fn of(metadata: &Metadata, ignore: Ignore, unit: MtimeUnit) -> Self {
        let mut text = Vec::with_capacity(96);
        Self::write(&mut text, metadata, ignore, unit);
        Self(text.into())
    }

    /// Puts the same text at the end of a buffer.
    pub fn write(text: &mut Vec<u8>, metadata: &Metadata, ignore: Ignore, unit: MtimeUnit) {
        let timed = !matches!(metadata.kind, FileKind::Directory | FileKind::Symlink { .. });
        text.extend_from_slice(b"v1");
        if timed {
            push_field(text, b":mtime=", mtime_number(metadata.mtime, unit));
        }
        if !ignore.mode {
            push_field(text, b":mode=", metadata.mode.into());
        }
        // The C program prints them as int: 4294967294 is -2.
        if !ignore.uid {
            push_field(text, b":uid=", metadata.uid.cast_signed().into());
        }
        if !ignore.gid {
            push_field(text, b":gid=", metadata.gid.cast_signed().into());
        }
        let device_number = |device: u64| u32::try_from(device & 0xffff_ffff).unwrap_or_default().cast_signed().into();
        match &metadata.kind {
            FileKind::Regular { size } => {
                push_field(text, b":type=reg:size=", i64::try_from(*size).unwrap_or(i64::MAX));
            }
            FileKind::Directory => text.extend_from_slice(b":type=dir"),
            FileKind::CharDevice { device } => push_field(text, b":type=chr:dev=", device_number(*device)),
            FileKind::BlockDevice { device } => push_field(text, b":type=blk:dev=", device_number(*device)),
            FileKind::Fifo => text.extend_from_slice(b":type=fifo"),
            FileKind::Symlink { target } => {
                text.extend_from_slice(b":type=lnk:target=");
                text.extend_from_slice(encoding::encode(target).as_bytes());
            }
            FileKind::Socket => text.extend_from_slice(b":type=sock"),
        }
    }

    /// Takes a text as a peer or a row gave it.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The mtime field as a time: a number above 10^14 is nanoseconds. `None` where there is none.
    #[must_use]
    pub fn mtime(&self) -> Option<Timestamp> {
        self.mtime_field().map(mtime_of_unknown_unit)
    }

    /// The number in the mtime field, in whatever unit its writer uses.
    #[must_use]
    pub fn mtime_field(&self) -> Option<i64> {
        let (_, value) = self.fields().find(|(name, _)| *name == b"mtime")?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// The word for what the file is: `reg`, `dir`, `lnk`, ….
    #[must_use]
    pub fn file_type(&self) -> Option<&[u8]> {
        self.fields().find(|(name, _)| *name == b"type").map(|(_, word)| word)
    }

    /// Whether it describes a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.file_type() == Some(b"dir")
    }

    /// Whether it describes a socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.fields().any(|field| field == (b"type", b"sock"))
    }

    /// Whether both describe the same state, mtime left out: what a push asks after SIG. An empty link target matches
    /// any (the C program records none below a prefix).
    #[must_use]
    pub fn equal_but_for_mtime(&self, other: &Self) -> bool {
        // The usual case, without a look at each field.
        if self.behind_mtime().is_some_and(|rest| other.behind_mtime() == Some(rest)) {
            return true;
        }
        let timeless = |field: &(&[u8], &[u8])| field.0 != b"mtime";
        let (mut ours, mut theirs) = (self.fields().filter(timeless), other.fields().filter(timeless));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some((b"target", ours)), Some((b"target", theirs))) if same_target(ours, theirs) => {}
                (Some(ours), Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
    }

    /// Whether a row with this text still describes the file whose state on disk is `now` (in seconds) with the
    /// mtime `mtime`. A row in nanoseconds must agree in nanoseconds.
    #[must_use]
    pub fn describes(&self, now: &Self, mtime: Timestamp) -> bool {
        if self == now {
            return true;
        }
        self.equal_but_for_mtime(now)
            && match (self.mtime(), now.mtime()) {
                (None, None) => true,
                (Some(row), Some(disk)) => row == mtime || row == disk,
                _ => false,
            }
    }

    /// What follows the mtime, where it stands first, as everybody writes it.
    fn behind_mtime(&self) -> Option<&[u8]> {
        let text = self.0.strip_prefix(b"v1:mtime=")?;
        Some(&text[text.iter().position(|&byte| byte == b':')?..])
    }

    /// The `name=value` fields behind the version, in order; the version itself is a name without a value.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|&byte| byte == b':').map(|field| match field.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&field[..equals], &field[equals + 1..]),
            None => (field, &[][..]),
        })
    }
}

/// Puts a name and a number at the end: what `write!` does, in a fifth of the time; a check does it for every file.
fn push_field(text: &mut Vec<u8>, name: &[u8], value: i64) {
    text.extend_from_slice(name);
    if value < 0 {
        text.push(b'-');
    }
    let mut digits = [b'0'; 20];
    let (mut rest, mut start) = (value.unsigned_abs(), digits.len());
    loop {
        start -= 1;
        digits[start] += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[start..]);
}

fn same_target(ours: &[u8], theirs: &[u8]) -> bool {
    ours.is_empty() || theirs.is_empty() || encoding::decode(ours) == encoding::decode(theirs)
}

/// The number that stands for a time in a line of the given unit.
#[must_use]
pub fn mtime_number(mtime: Timestamp, unit: MtimeUnit) -> i64 {
    match unit {
        MtimeUnit::Seconds => mtime.seconds,
        MtimeUnit::Nanoseconds => mtime.as_nanoseconds(),
        MtimeUnit::Zero => 0,
    }
}

/// Reads a number of unknown unit: nanoseconds above 10^14 in absolute value, seconds otherwise.
#[must_use]
pub fn mtime_of_unknown_unit(number: i64) -> Timestamp {
    if number.unsigned_abs() > NANOSECONDS_ABOVE {
        Timestamp::from_nanoseconds(number)
    } else {
        Timestamp::from_seconds(number)
    }
}

impl fmt::Display for Checktxt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regular(seconds: i64, nanoseconds: u32) -> Metadata {
        Metadata {
            kind: FileKind::Regular { size: 6 },
            mode: 0o100_644,
            uid: 0,
            gid: u32::MAX - 1,
            mtime: Timestamp { seconds, nanoseconds },
            ctime: Timestamp::default(),
            device: 1,
            inode: 2,
            links: 1,
        }
    }

    fn seconds(metadata: &Metadata) -> Checktxt {
        Checktxt::of(metadata, Ignore::default(), MtimeUnit::Seconds)
    }

    #[test]
    fn fields_stand_in_the_order_of_the_c_program() {
        assert_eq!(
            seconds(&regular(1_600_000_000, 5)).to_string(),
            "v1:mtime=1600000000:mode=33188:uid=0:gid=-2:type=reg:size=6"
        );
        let link = Metadata { kind: FileKind::Symlink { target: b"a b".to_vec() }, mode: 0o120_777, ..regular(1, 0) };
        assert_eq!(seconds(&link).to_string(), "v1:mode=41471:uid=0:gid=-2:type=lnk:target=a%20b");
        let ignore = Ignore { uid: true, gid: true, mode: true };
        let device = Metadata { kind: FileKind::CharDevice { device: 0x0103 }, ..regular(1, 0) };
        assert_eq!(Checktxt::of(&device, ignore, MtimeUnit::Zero).to_string(), "v1:mtime=0:type=chr:dev=259");
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 7, -1, 10, 1_600_000_000, i64::MAX, i64::MIN] {
            let mut text = Vec::new();
            push_field(&mut text, b":n=", value);
            assert_eq!(String::from_utf8(text).unwrap(), format!(":n={value}"));
        }
    }

    #[test]
    fn a_row_of_the_fork_means_the_same_time() {
        let metadata = regular(1_600_000_000, 123_456_789);
        let fork = Checktxt::of(&metadata, Ignore::default(), MtimeUnit::Nanoseconds);
        assert!(fork.describes(&seconds(&metadata), metadata.mtime));
        let later = regular(1_600_000_000, 123_456_790);
        assert!(!fork.describes(&seconds(&later), later.mtime), "nanoseconds must agree");
        assert!(seconds(&metadata).describes(&seconds(&later), later.mtime), "seconds are all that a C row has");
    }

    #[test]
    fn times_around_zero_are_seconds_when_the_unit_is_unknown() {
        for number in [-1, 0, 1] {
            assert_eq!(mtime_of_unknown_unit(number), Timestamp::from_seconds(number));
        }
        assert_eq!(mtime_of_unknown_unit(-1_600_000_000_000_000_001).seconds, -1_600_000_001);
        assert_eq!(mtime_of_unknown_unit(-1_600_000_000_000_000_001).nanoseconds, 999_999_999);
    }

    #[test]
    fn comparison_is_exact_and_an_empty_target_matches_any() {
        let text = |text: &str| Checktxt::from_text(text.as_bytes());
        assert!(!text("v1:type=reg:size=1").equal_but_for_mtime(&text("v1:type=reg:size=12")));
        assert!(text("v1:mtime=0:type=reg").equal_but_for_mtime(&text("v1:mtime=7:type=reg")));
        assert!(text("v1:type=lnk:target=").equal_but_for_mtime(&text("v1:type=lnk:target=x")));
        assert!(!text("v1:type=lnk:target=y").equal_but_for_mtime(&text("v1:type=lnk:target=x")));
        assert!(!text("---").equal_but_for_mtime(&text("v1:type=dir")));
    }
}
