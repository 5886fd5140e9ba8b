//! What is known in the scope of a check, at some forty bytes a file whatever its name: the fingerprints of the rows, and
//! which of the files have been seen.
//!
//! A table of our own: the hashes are as good as random, so that they are their own places, and those who walk the disk
//! share it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Checktxt, FileRecord, Fingerprint, Fingerprinter, Ignore, Metadata, MtimeUnit, SyncPath};

/// The fingerprints of rows, by name.
#[derive(Debug)]
pub(super) struct Known {
    fingerprinter: Fingerprinter,
    /// By the place that the name's hash stands for, or behind it, where that is taken.
    slots: Vec<Fingerprint>,
    /// A bit for each slot.
    seen: Vec<AtomicU64>,
    count: usize,
}

/// What the rows say of a file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// There is no row.
    Unknown,
    /// Its row describes it as it is, and needs no change.
    Same,
    /// There is a row that says something else, or says it in another way.
    Different,
}

/// Stands in slots that are free, and for the state of a file of which several rows say something.
const NONE: u128 = 0;

impl Known {
    pub(super) fn new() -> Self {
        let mut known = Self { fingerprinter: Fingerprinter::random(), slots: Vec::new(), seen: Vec::new(), count: 0 };
        known.resize(64);
        known
    }

    /// What the fingerprints are to be made with.
    pub(super) fn fingerprinter(&self) -> &Fingerprinter {
        &self.fingerprinter
    }

    /// Files, not rows.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, row: Fingerprint) {
        // A quarter stays free: else the ways from a taken slot to a free one become long.
        if self.count >= self.slots.len() / 4 * 3 {
            self.resize(self.slots.len() * 2);
        }
        let slot = self.slot(row.name);
        match &mut self.slots[slot] {
            free if free.name == NONE => {
                *free = row;
                self.count += 1;
            }
            // In two spellings, perhaps: whoever looks it up decides.
            known => known.state = NONE,
        }
    }

    /// Compares a file on disk with its row, and notes that it was seen. `text` is a buffer.
    pub(super) fn meet(&self, name: &[u8], metadata: &Metadata, ignore: Ignore, text: &mut Vec<u8>) -> Acquaintance {
        let slot = self.slot(self.fingerprinter.name(name));
        let row = &self.slots[slot];
        if row.name == NONE {
            return Acquaintance::Unknown;
        }
        self.note_seen(slot);
        text.clear();
        Checktxt::write(text, metadata, ignore, MtimeUnit::Seconds);
        match self.fingerprinter.state_on_disk(text, metadata) {
            state if state == row.state => Acquaintance::Same,
            _ => Acquaintance::Different,
        }
    }

    /// Notes that a file was seen, of which there is a row.
    pub(super) fn see(&self, path: &SyncPath) {
        self.note_seen(self.slot(self.fingerprinter.name(path.as_bytes())));
    }

    fn note_seen(&self, slot: usize) {
        self.seen[slot / 64].fetch_or(1 << (slot % 64), Ordering::Relaxed);
    }

    /// How many files have not been seen.
    pub(super) fn unseen(&self) -> usize {
        let seen = self.seen.iter().map(|bits| bits.load(Ordering::Relaxed).count_ones() as usize);
        self.count - seen.sum::<usize>()
    }

    /// Whether there is a row of the file.
    pub(super) fn contains(&self, path: &SyncPath) -> bool {
        self.slots[self.slot(self.fingerprinter.name(path.as_bytes()))].name != NONE
    }

    /// Whether a row is the one that there is of its file, and the only one.
    pub(super) fn agrees_with(&self, record: &FileRecord) -> bool {
        let row = self.fingerprinter.of(record);
        let known = &self.slots[self.slot(row.name)];
        known.name == row.name && known.state == row.state
    }

    /// Whether there is a row of the file, and it has been seen.
    pub(super) fn has_seen(&self, path: &SyncPath) -> bool {
        let slot = self.slot(self.fingerprinter.name(path.as_bytes()));
        self.seen[slot / 64].load(Ordering::Relaxed) & (1 << (slot % 64)) != 0
    }

    /// Where a name is, or is to be put.
    fn slot(&self, name: u128) -> usize {
        let capacity = self.slots.len();
        let scaled = ((name >> 64) * capacity as u128) >> 64;
        let mut slot = usize::try_from(scaled).unwrap_or_default();
        while self.slots[slot].name != NONE && self.slots[slot].name != name {
            slot = if slot + 1 == capacity { 0 } else { slot + 1 };
        }
        slot
    }

    fn resize(&mut self, capacity: usize) {
        let free = Fingerprint { name: NONE, state: NONE };
        let before = std::mem::replace(&mut self.slots, vec![free; capacity]);
        self.seen = (0..capacity.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        for row in before.into_iter().filter(|row| row.name != NONE) {
            let slot = self.slot(row.name);
            self.slots[slot] = row;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::compare::{Comparison, compare};
    use super::*;
    use crate::model::{FileKind, Timestamp};
    use proptest::prelude::*;

    fn path(number: u32) -> SyncPath {
        SyncPath::parse(format!("/d{}/f{number}", number % 7).as_bytes()).unwrap()
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        (0i64..2, 0u32..2).prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds })
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let kind = prop_oneof![
            (0u64..3).prop_map(|size| FileKind::Regular { size }),
            Just(FileKind::Directory),
            Just(FileKind::Fifo),
            "[xy ]".prop_map(|target| FileKind::Symlink { target: target.into_bytes() }),
        ];
        (kind, time(), time(), 0u64..2).prop_map(|(kind, mtime, ctime, device)| Metadata {
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime,
            ctime,
            device,
            inode: 1,
            links: 1,
        })
    }

    fn record(path: SyncPath, of: &Metadata, is_of_c: bool) -> FileRecord {
        let column = |value| (!is_of_c).then_some(value);
        FileRecord {
            path,
            checktxt: Checktxt::of(of, Ignore::default(), MtimeUnit::Seconds),
            mtime_ns: column(of.mtime.as_nanoseconds()),
            ctime_ns: column(of.ctime.as_nanoseconds()),
            device: column(of.device.cast_signed()),
            digest: None,
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_notes_what_was_seen(
            rows in prop::collection::hash_map(0u32..3_000, metadata(), 0..1_500),
            disk in prop::collection::hash_map(0u32..3_000, metadata(), 0..1_500),
        ) {
            let mut known = Known::new();
            for (number, metadata) in &rows {
                known.insert(known.fingerprinter().of(&record(path(*number), metadata, false)));
            }
            prop_assert_eq!(known.len(), rows.len());
            let mut text = Vec::new();
            for (number, metadata) in &disk {
                let met = known.meet(path(*number).as_bytes(), metadata, Ignore::default(), &mut text);
                prop_assert_eq!(met == Acquaintance::Unknown, !rows.contains_key(number));
            }
            let unseen: HashMap<_, _> = rows.iter().filter(|(number, _)| !disk.contains_key(number)).collect();
            prop_assert_eq!(known.unseen(), unseen.len());
            for number in 0..3_000 {
                prop_assert_eq!(known.contains(&path(number)), rows.contains_key(&number));
                let seen = rows.contains_key(&number) && disk.contains_key(&number);
                prop_assert_eq!(known.has_seen(&path(number)), seen);
            }
            for (number, metadata) in rows.iter().chain(&disk) {
                let of = |metadata: &Metadata| record(path(*number), metadata, false);
                let is_row = rows.get(number).is_some_and(|row| {
                    known.fingerprinter().of(&of(row)) == known.fingerprinter().of(&of(metadata))
                });
                prop_assert_eq!(known.agrees_with(&of(metadata)), is_row);
            }
        }

        #[test]
        fn what_it_takes_for_the_same_is_the_same(row in metadata(), is_of_c: bool, disk in metadata()) {
            let row = record(path(1), &row, is_of_c);
            let mut known = Known::new();
            known.insert(known.fingerprinter().of(&row));
            let met = known.meet(path(1).as_bytes(), &disk, Ignore::default(), &mut Vec::new());
            let compared = compare(Some(&row), &disk, Ignore::default(), || Ok([0; 32]));
            prop_assert_eq!(met == Acquaintance::Same, compared == Comparison::Same);
        }
    }

    #[test]
    fn a_file_with_two_rows_is_never_taken_for_the_same() {
        let disk = Metadata {
            kind: FileKind::Directory,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            device: 1,
            inode: 1,
            links: 1,
        };
        let mut known = Known::new();
        let row = known.fingerprinter().of(&record(path(1), &disk, false));
        known.insert(row);
        let meet = |known: &Known| known.meet(path(1).as_bytes(), &disk, Ignore::default(), &mut Vec::new());
        assert_eq!(meet(&known), Acquaintance::Same);
        known.insert(row);
        assert_eq!((meet(&known), known.len(), known.unseen()), (Acquaintance::Different, 1, 0));
    }
}
