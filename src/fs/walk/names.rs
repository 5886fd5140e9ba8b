//! The names in a directory.

use std::cmp::Reverse;
use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir};

use super::KindHint;

/// What is still to be looked at in a directory, in the order of the bytes. The bytes lie in one piece: a name of its own
/// for each of a million files would cost more than looking at them.
pub(super) struct Names {
    text: Arc<[u8]>,
    /// The next one last.
    entries: Vec<(Range<usize>, KindHint)>,
}

/// A share of fewer plain files is not worth the trouble.
const SHARE: usize = 64;

impl Names {
    /// Reads an open directory. What was read before an error is kept.
    pub(super) fn read(directory: BorrowedFd<'_>) -> (Self, io::Result<()>) {
        let (mut text, mut entries) = (Vec::new(), Vec::new());
        let result = read_names(directory, |name, kind_hint| {
            let start = text.len();
            text.extend_from_slice(name.to_bytes_with_nul());
            entries.push((start..text.len(), kind_hint));
        });
        entries.sort_unstable_by_key(|(place, _)| Reverse(&text[place.clone()]));
        (Self { text: text.into(), entries }, result)
    }

    /// Puts the next name, with its NUL, in the place of what is in `name`.
    pub(super) fn next(&mut self, name: &mut Vec<u8>) -> Option<KindHint> {
        let (place, kind_hint) = self.entries.pop()?;
        name.clear();
        name.extend_from_slice(&self.text[place]);
        Some(kind_hint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes away the later half, if that is a share worth having.
    pub(super) fn split(&mut self) -> Option<Self> {
        let count = self.entries.len();
        let may_hold_more = |(_, kind_hint): &(_, KindHint)| *kind_hint != KindHint::Other;
        if count < 2 || (count < SHARE && !self.entries.iter().any(may_hold_more)) {
            return None;
        }
        let sooner = self.entries.split_off(count / 2);
        let entries = std::mem::replace(&mut self.entries, sooner);
        Some(Self { text: Arc::clone(&self.text), entries })
    }
}

/// Calls `found` for every name in an open directory but `.` and `..`, in the file system's order.
pub(in super::super) fn read_names(
    directory: BorrowedFd<'_>,
    mut found: impl FnMut(&CStr, KindHint),
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            let kind_hint = match entry.file_type() {
                FileType::Directory => KindHint::Directory,
                FileType::Unknown => KindHint::Unknown,
                _ => KindHint::Other,
            };
            found(entry.file_name(), kind_hint);
        }
    }
    Ok(())
}
