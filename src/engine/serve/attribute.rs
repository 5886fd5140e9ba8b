//! Owner, mode and time of a received file, one by one, as the commands of a peer set them.

use crate::model::{FileKind, Ignore, Metadata, Timestamp};
use crate::wire::Attributes;

/// One attribute to be set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute {
    Owner {
        uid: u32,
        gid: u32,
    },
    /// The whole `st_mode`; the type bits say nothing here.
    Mode(u32),
    Time(Timestamp),
}

impl Attribute {
    /// Those that this kind of file has, as the other dialects set them.
    pub(super) fn of_kind(kind: &FileKind, attributes: &Attributes) -> Vec<Self> {
        let [owner, mode, time] = Self::all(attributes);
        match kind {
            FileKind::Symlink { .. } => vec![owner],
            FileKind::Socket => Vec::new(),
            _ => vec![owner, mode, time],
        }
    }

    /// What the second dialect sends along, in the order in which it must be set: a new owner clears setuid bits.
    pub(super) fn all(attributes: &Attributes) -> [Self; 3] {
        let Attributes { uid, gid, mode, mtime } = *attributes;
        [Self::Owner { uid, gid }, Self::Mode(mode), Self::Time(mtime)]
    }

    /// The state after it.
    pub(super) fn applied_to(self, before: &Metadata, ignore: Ignore) -> Metadata {
        let mut after = before.clone();
        match self {
            Self::Owner { uid, gid } => {
                after.uid = if ignore.uid { after.uid } else { uid };
                after.gid = if ignore.gid { after.gid } else { gid };
            }
            Self::Mode(_) if ignore.mode => {}
            Self::Mode(mode) => after.mode = after.mode & !0o7777 | mode & 0o7777,
            Self::Time(mtime) => after.mtime = mtime,
        }
        after
    }

    /// Whether there is nothing to be done.
    pub(super) fn is_set_on(self, metadata: &Metadata, ignore: Ignore) -> bool {
        match self {
            Self::Owner { uid, gid } => (ignore.uid || uid == metadata.uid) && (ignore.gid || gid == metadata.gid),
            Self::Mode(mode) => ignore.mode || mode & 0o7777 == metadata.mode & 0o7777,
            Self::Time(mtime) => mtime == metadata.mtime,
        }
    }
}
