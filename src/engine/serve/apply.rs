//! What a peer's commands do to the disk: synchronous, one unit of work each, relative to open directories.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;

use super::attribute::Attribute;
use super::refusal::Refusal;
use crate::config::{Backup, LocalPath};
use crate::delta::{self, DeltaError};
use crate::engine::content::{self, Hashing};
use crate::fs::{self, DeviceKind, Locator, Place, TempFile};
use crate::model::errors::{chain, strerror};
use crate::model::{FileKind, Ignore, Metadata};
use crate::wire::Attributes;

/// The mode of a new directory or special file, as the C program leaves it until SETMOD comes.
const UNTIL_SETMOD: u32 = 0o700;

/// What is read within a millisecond or two, in bytes.
const LARGE: u64 = 1 << 20;

/// What a group wants of its files, as far as the disk is concerned.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) ignore: Ignore,
    /// One for each directory.
    pub(super) backups: Vec<Backup>,
    pub(super) tempdir: Option<PathBuf>,
    /// Copies are on disk before the file is changed.
    pub(super) durable: bool,
    /// Bytes of the largest file.
    pub(super) max_file_size: Option<u64>,
}

/// How many bytes a new file may have: as many as are allowed, and as there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    allowed: u64,
    free: u64,
}

impl Room {
    pub(super) fn of(temp: &TempFile, rules: &Rules) -> io::Result<Self> {
        Ok(Self { allowed: rules.max_file_size.unwrap_or(u64::MAX), free: temp.room()? })
    }

    fn bytes(self) -> u64 {
        self.allowed.min(self.free)
    }

    /// Whether a file of that size may be made.
    pub(super) fn check(self, size: u64) -> Result<(), Refusal> {
        if size <= self.bytes() { Ok(()) } else { Err(self.exceeded()) }
    }

    fn exceeded(self) -> Refusal {
        if self.allowed <= self.free { too_large(self.allowed) } else { Refusal::text("No space left on device") }
    }
}

/// Refuses a file that is larger than any may be here, before anything of it has come.
pub(super) fn check_size(size: u64, max_file_size: Option<u64>) -> Result<(), Refusal> {
    match max_file_size {
        Some(most) if size > most => Err(too_large(most)),
        _ => Ok(()),
    }
}

fn too_large(most: u64) -> Refusal {
    Refusal::text(format!("File too large: max-file-size allows {most} bytes here"))
}

/// Copies of what a command is about to change, with their backup directories.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<(PathBuf, fs::Backup)>);

/// The file systems that are known to hide a new file until it takes its place.
#[derive(Debug, Default)]
pub(super) struct Hiding(HashSet<u64>);

impl Hiding {
    /// The name under which others will see new content beside the target while it comes; `None`: they will not. It belongs
    /// in an intent before the file is made: a check would take it for a file of the tree, and a crash would leave it.
    pub(super) fn visible_name(&mut self, target: &Target, rules: &Rules) -> Result<Option<Vec<u8>>, Refusal> {
        let (device, _) = target.place.directory()?;
        if self.0.contains(&device) {
            return Ok(None);
        }
        if target.place.hidden_temp(rules.tempdir.as_deref()).is_ok() {
            self.0.insert(device);
            return Ok(None);
        }
        Ok(Some(target.place.beside()?.file_name().to_vec()))
    }
}

/// What is there before a command, with the directory that holds it.
#[derive(Debug)]
pub(super) struct Target {
    place: Place,
    real: PathBuf,
    pub(super) before: Option<Metadata>,
}

impl Target {
    pub(super) fn find(local: &LocalPath) -> Result<Self, Refusal> {
        Self::at(content::locate(local)?, local)
    }

    /// The same for one of many, in order.
    pub(super) fn find_with(locator: &mut Locator, local: &LocalPath) -> Result<Self, Refusal> {
        Self::at(content::locate_with(locator, local)?, local)
    }

    /// The same, where what is there has been looked at already.
    pub(super) fn known(locator: &mut Locator, local: &LocalPath, before: Option<Metadata>) -> Result<Self, Refusal> {
        Ok(Self { place: content::locate_with(locator, local)?, real: local.absolute(), before })
    }

    fn at(place: Place, local: &LocalPath) -> Result<Self, Refusal> {
        let before = place.metadata()?;
        Ok(Self { place, real: local.absolute(), before })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn now(&self) -> Result<Option<Metadata>, Refusal> {
        Ok(self.place.metadata()?)
    }

    /// Copies what is there to the backup directories, if it is a regular file. The copies take their places in
    /// [`Target::keep`]: what is refused after all costs no older copy.
    pub(super) fn back_up(&self, rules: &Rules) -> Result<Copies, Refusal> {
        let mut copies = Copies::default();
        if !self.before.as_ref().is_some_and(Metadata::is_regular) {
            return Ok(copies);
        }
        for rule in &rules.backups {
            let real = self.real.as_os_str().as_encoded_bytes();
            let copy = fs::Backup::of(&self.place, &rule.directory, real, rule.generations, rules.durable)
                .map_err(|error| self.not_backed_up(&rule.directory, &error))?;
            copies.0.extend(copy.map(|copy| (rule.directory.clone(), copy)));
        }
        Ok(copies)
    }

    /// Puts the copies into their places, right before the file is changed.
    pub(super) fn keep(&self, copies: Copies) -> Result<(), Refusal> {
        let mut copies = copies.0.into_iter();
        copies.try_for_each(|(directory, copy)| copy.keep().map_err(|error| self.not_backed_up(&directory, &error)))
    }

    fn not_backed_up(&self, directory: &Path, error: &io::Error) -> Refusal {
        let (file, directory, reason) = (self.real.display(), directory.display(), strerror(error));
        tracing::warn!(
            "ERROR: cannot back up {file} to {directory}: {reason}. The file is left as it is; make room there, or make \
             the directory writable."
        );
        Refusal::text(format!("Backup failed: {reason}"))
    }

    /// Refuses what a regular file cannot take the place of.
    pub(super) fn can_become_a_file(&self) -> Result<(), Refusal> {
        if self.before.as_ref().is_some_and(Metadata::is_directory) && !self.place.entries()?.is_empty() {
            return Err(Refusal::text("Directory not empty"));
        }
        Ok(())
    }

    /// Removes what is there, with a copy kept.
    pub(super) fn remove(&self, copies: Copies) -> Result<(), Refusal> {
        self.must_be_unchanged()?;
        self.keep(copies)?;
        Ok(self.place.remove()?)
    }

    /// Where something that is no regular file is made before it takes its place in one step; `None` where no rename can do
    /// that: nothing is there, or a directory comes or goes. The name belongs in the intent.
    pub(super) fn beside(&self, kind: &FileKind) -> Result<Option<Place>, Refusal> {
        let replaces = self.before.as_ref().is_some_and(|before| !before.is_directory());
        let can_be_renamed = !matches!(kind, FileKind::Directory | FileKind::Socket);
        Ok(if replaces && can_be_renamed { Some(self.place.beside()?) } else { None })
    }

    /// Makes anything but a regular file in place of what is there, with the attributes that are known by then.
    pub(super) fn put(
        &self,
        copies: Copies,
        kind: &FileKind,
        beside: Option<&Place>,
        attributes: impl IntoIterator<Item = Attribute>,
        ignore: Ignore,
    ) -> Result<Made, Refusal> {
        let make = || {
            self.must_be_unchanged()?;
            self.keep(copies)?;
            let Some(beside) = beside else {
                self.place.clear_the_way();
                make(&self.place, kind)?;
                return attributes.into_iter().try_for_each(|attribute| set(&self.place, attribute, ignore));
            };
            let complete = || {
                make(beside, kind)?;
                attributes.into_iter().try_for_each(|attribute| set(beside, attribute, ignore))?;
                Ok(beside.move_over(&self.place)?)
            };
            complete().inspect_err(|_| beside.clear_the_way())
        };
        let outcome = make();
        let left = self.place.metadata().map_err(Refusal::Unsettled)?;
        Ok(Made { outcome, is_gone: self.before.is_some() && left.is_none(), left })
    }

    /// Sets an attribute of what is there, be it a file under several names. See [`Target::duplicate`].
    pub(super) fn set(&self, attribute: Attribute, ignore: Ignore) -> Result<(), Refusal> {
        set(&self.place, attribute, ignore)
    }

    /// As [`Target::set`], for a file that stays what it is and shall be so after a power cut. What was set and cannot be
    /// flushed is unsettled.
    pub(super) fn set_durably(&self, attribute: Attribute, ignore: Ignore, durable: bool) -> Result<(), Refusal> {
        let is_regular = self.before.as_ref().is_some_and(Metadata::is_regular);
        let file = if durable && is_regular { Some(self.place.open_regular()?) } else { None };
        self.set(attribute, ignore)?;
        file.map_or(Ok(()), |file| file.sync_all()).map_err(Refusal::Unsettled)
    }

    /// Whether a change of attributes would reach other names of the file, which may lie outside the group.
    pub(super) fn has_other_names(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.is_regular() && before.links > 1)
    }

    /// A copy of what is there that may get other attributes, and then its place; under the name that [`Hiding`] told.
    pub(super) fn duplicate(&self, visible: Option<&[u8]>) -> Result<Assembled, Refusal> {
        let digest = content::digest_of(self.place.open_regular()?)?;
        let mut temp = self.temp(visible, &Rules::default())?;
        let lost = temp.copy_from(&self.place.open_regular()?)?;
        Ok(Assembled { temp, digest, lost })
    }

    /// Makes what was done at this place durable.
    pub(super) fn sync(&self) -> Result<(), Refusal> {
        self.place.sync_directory().map_err(Refusal::Unsettled)
    }

    /// Opens what is there as the basis of a delta; `None` when nothing is, or nothing that could be one.
    pub(super) fn basis(&self) -> Result<Option<File>, Refusal> {
        let is_basis = self.before.as_ref().is_some_and(Metadata::is_regular);
        Ok(if is_basis { Some(self.place.open_regular()?) } else { None })
    }

    /// A file for new content, under the name that [`Hiding`] told.
    pub(super) fn temp(&self, visible: Option<&[u8]>, rules: &Rules) -> io::Result<TempFile> {
        match visible {
            Some(name) => self.place.visible_temp(name),
            None => self.place.hidden_temp(rules.tempdir.as_deref()),
        }
    }

    /// Builds the new content, reading the delta to its end. Nothing is replaced yet.
    pub(super) fn assemble(
        &self,
        temp: TempFile,
        basis: Option<&File>,
        delta: &mut dyn io::Read,
        attributes: Option<&Attributes>,
        rules: &Rules,
    ) -> Result<Assembled, Refusal> {
        let room = Room::of(&temp, rules)?;
        let old = basis.map(fs::meta::metadata_of).transpose()?;
        let nothing;
        let basis_or_nothing = if let Some(file) = basis {
            file
        } else {
            nothing = File::open("/dev/null")?;
            &nothing
        };
        let mut output = Hashing::new(io::BufWriter::with_capacity(1 << 16, fs::large::Writer::new(&temp)));
        delta::patch(basis_or_nothing, delta, &mut output, room.bytes()).map_err(|error| match error {
            DeltaError::TooLong { .. } => room.exceeded(),
            other => other.into(),
        })?;
        output.flush()?;
        let (mut output, digest) = output.finish();
        if attributes.is_none() && rules.durable {
            // They take their time.
            output.get_mut().begin();
        }
        drop(output);
        self.complete(temp, digest, old.as_ref().zip(basis), attributes, rules)
    }

    /// Gives new content its attributes: those of the old file that nobody sends, then those that were sent.
    pub(super) fn complete(
        &self,
        temp: TempFile,
        digest: [u8; 32],
        old: Option<(&Metadata, &File)>,
        attributes: Option<&Attributes>,
        rules: &Rules,
    ) -> Result<Assembled, Refusal> {
        let lost = temp.take_over(old.map(|(metadata, _)| metadata), old.map(|(_, file)| file));
        for lost in &lost {
            tracing::info!("WARNING: {}: not kept: {}", self.real.display(), chain(lost));
        }
        let assembled = Assembled { temp, digest, lost };
        for attribute in attributes.into_iter().flat_map(Attribute::all) {
            assembled.set(attribute, rules.ignore)?;
        }
        Ok(assembled)
    }

    /// Refuses when what is there is no longer what it was when the command began.
    pub(super) fn must_be_unchanged(&self) -> Result<(), Refusal> {
        match (&self.place.metadata()?, &self.before) {
            (None, None) => Ok(()),
            (Some(now), Some(before)) if is_untouched(before, now) => Ok(()),
            _ => Err(Refusal::ChangedMeanwhile),
        }
    }

    /// Puts the new content, which is on disk if it has to be, in place of the old. Returns the state of the new file.
    pub(super) fn replace(&self, assembled: Assembled) -> Result<Metadata, Refusal> {
        if self.before.as_ref().is_some_and(Metadata::is_directory) {
            // No rename replaces a directory by a file.
            self.place.remove()?;
        }
        assembled.temp.persist(&self.place)?.metadata().map_err(Refusal::Unsettled)
    }

    /// Whether working on what is there may take longer than a moment.
    pub(super) fn is_large(&self) -> bool {
        self.before.as_ref().is_some_and(is_large)
    }
}

/// Of a regular file: whether reading it may take longer than a moment.
pub(super) fn is_large(metadata: &Metadata) -> bool {
    matches!(metadata.kind, FileKind::Regular { size } if size > LARGE)
}

/// Makes anything but a regular file (sockets are not created). Owner, mode and time follow.
fn make(place: &Place, kind: &FileKind) -> Result<(), Refusal> {
    match kind {
        FileKind::Directory => place.make_directory(UNTIL_SETMOD)?,
        FileKind::Symlink { target } => place.make_symlink(target)?,
        FileKind::CharDevice { device } => place.make_device(DeviceKind::Char, *device)?,
        FileKind::BlockDevice { device } => place.make_device(DeviceKind::Block, *device)?,
        FileKind::Fifo => place.make_fifo()?,
        FileKind::Socket | FileKind::Regular { .. } => {}
    }
    if matches!(kind, FileKind::CharDevice { .. } | FileKind::BlockDevice { .. } | FileKind::Fifo) {
        place.set_mode(UNTIL_SETMOD)?;
    }
    Ok(())
}

fn set(place: &Place, attribute: Attribute, ignore: Ignore) -> Result<(), Refusal> {
    match attribute {
        Attribute::Owner { uid, gid } => place.set_owner((!ignore.uid).then_some(uid), (!ignore.gid).then_some(gid))?,
        Attribute::Mode(_) if ignore.mode => {}
        Attribute::Mode(mode) => place.set_mode(mode)?,
        Attribute::Time(mtime) => place.set_times(mtime)?,
    }
    Ok(())
}

/// What became of a [`Target::put`].
#[derive(Debug)]
pub(super) struct Made {
    pub(super) outcome: Result<(), Refusal>,
    /// Something was there, and nothing is now.
    pub(super) is_gone: bool,
    /// What is there now.
    pub(super) left: Option<Metadata>,
}

/// Whether nobody changed the file between two looks. A directory's ctime changes with every file made in it.
pub(super) fn is_untouched(before: &Metadata, now: &Metadata) -> bool {
    let owner_and_mode = |metadata: &Metadata| (metadata.mode, metadata.uid, metadata.gid);
    before.inode == now.inode
        && before.device == now.device
        && if before.is_directory() { owner_and_mode(before) == owner_and_mode(now) } else { before.ctime == now.ctime }
}

/// New content, complete, beside its target.
#[derive(Debug)]
pub(super) struct Assembled {
    temp: TempFile,
    /// Of its content.
    pub(super) digest: [u8; 32],
    /// What the old file has and this one could not get.
    pub(super) lost: Vec<fs::NotTakenOver>,
}

impl Assembled {
    /// The name beside the target; empty when it lies elsewhere.
    pub(super) fn name(&self) -> Vec<u8> {
        if self.temp.is_beside() { self.temp.name().to_vec() } else { Vec::new() }
    }

    /// Makes it durable, ahead of a [`Target::replace`] that does not.
    pub(super) fn sync(&self) -> Result<(), Refusal> {
        Ok(self.temp.sync()?)
    }

    /// The same on a thread of its own: what follows need not wait for the disk.
    pub(super) fn start_sync(&self) -> io::Result<JoinHandle<io::Result<()>>> {
        let file = File::from(self.temp.as_fd().try_clone_to_owned()?);
        Ok(tokio::task::spawn_blocking(move || file.sync_all()))
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.temp.metadata()
    }

    pub(super) fn set(&self, attribute: Attribute, ignore: Ignore) -> Result<(), Refusal> {
        match attribute {
            Attribute::Owner { uid, gid } => {
                self.temp.set_owner((!ignore.uid).then_some(uid), (!ignore.gid).then_some(gid))?;
            }
            Attribute::Mode(_) if ignore.mode => {}
            Attribute::Mode(mode) => self.temp.set_mode(mode)?,
            Attribute::Time(mtime) => self.temp.set_times(mtime)?,
        }
        Ok(())
    }
}
