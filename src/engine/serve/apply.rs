//! What a peer's commands do to the disk: synchronous, one unit of work each, relative to open directories.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{Backup, LocalPath};
use crate::delta::{self, DeltaError};
use crate::engine::content;
use crate::fs::{self, BeneathError, DeviceKind, Place, TempFile};
use crate::model::{FileKind, Ignore, Metadata, Timestamp};
use crate::wire::{Attributes, Reply, error::system_text};

/// Why a command was not carried out: the answer to the peer.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Reply);

impl From<BeneathError> for Refusal {
    fn from(error: BeneathError) -> Self {
        match error {
            BeneathError::ParentMissing => Self(Reply::ParentDirMissing),
            BeneathError::NotADirectory => Self(Reply::Text("Not a directory".to_owned())),
            BeneathError::BehindSymlink => Self(Reply::Text("Too many levels of symbolic links".to_owned())),
            BeneathError::Io(error) => Self::from(error),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self(Reply::Text(system_text(&error)))
    }
}

impl From<DeltaError> for Refusal {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Io { source, .. } => Self::from(source),
            other => Self(Reply::Text(other.to_string())),
        }
    }
}

/// What a group wants of its files, as far as the disk is concerned.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) ignore: Ignore,
    pub(super) backups: Vec<Backup>,
    pub(super) tempdir: Option<PathBuf>,
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
        let place = content::locate(local)?;
        let before = place.metadata()?;
        Ok(Self { place, real: local.absolute(), before })
    }

    pub(super) fn now(&self) -> Result<Option<Metadata>, Refusal> {
        Ok(self.place.metadata()?)
    }

    /// Copies what is there to the backup directories, if it is a regular file. Nothing is changed when that fails.
    pub(super) fn back_up(&self, rules: &Rules) -> Result<(), Refusal> {
        if !self.before.as_ref().is_some_and(Metadata::is_regular) {
            return Ok(());
        }
        for backup in rules.backups.iter().filter(|backup| backup.generations > 1) {
            let real = self.real.as_os_str().as_encoded_bytes();
            fs::backup(&self.place, &backup.directory, real, backup.generations).map_err(|error| {
                tracing::warn!(
                    "ERROR: cannot back up {} to {}: {error}. The file is left as it is; make the directory writable.",
                    self.real.display(),
                    backup.directory.display()
                );
                Refusal(Reply::Text(format!("Backup failed: {}", system_text(&error))))
            })?;
        }
        Ok(())
    }

    /// What is there must not be what is coming.
    pub(super) fn clear_the_way(&self) {
        self.place.clear_the_way();
    }

    pub(super) fn remove(&self) -> Result<(), Refusal> {
        Ok(self.place.remove()?)
    }

    /// Makes anything but a regular file. Owner, mode and time follow in commands of their own.
    pub(super) fn make(&self, kind: &FileKind) -> Result<(), Refusal> {
        match kind {
            FileKind::Directory => self.place.make_directory(0o700)?,
            FileKind::Symlink { target } => self.place.make_symlink(target)?,
            FileKind::CharDevice { device } => self.place.make_device(DeviceKind::Char, *device)?,
            FileKind::BlockDevice { device } => self.place.make_device(DeviceKind::Block, *device)?,
            FileKind::Fifo => self.place.make_fifo()?,
            FileKind::Socket | FileKind::Regular { .. } => {}
        }
        Ok(())
    }

    pub(super) fn set(&self, attribute: Attribute, ignore: Ignore) -> Result<(), Refusal> {
        self.own_inode()?;
        match attribute {
            Attribute::Owner { uid, gid } => {
                self.place.set_owner((!ignore.uid).then_some(uid), (!ignore.gid).then_some(gid))?;
            }
            Attribute::Mode(_) if ignore.mode => {}
            Attribute::Mode(mode) => self.place.set_mode(mode)?,
            Attribute::Time(mtime) => self.place.set_times(mtime)?,
        }
        Ok(())
    }

    /// Makes what was done at this place durable.
    pub(super) fn sync(&self) -> Result<(), Refusal> {
        Ok(self.place.sync_directory()?)
    }

    /// A file with several links may have names outside the group: what is changed gets an inode of its own first.
    fn own_inode(&self) -> Result<(), Refusal> {
        if self.before.as_ref().is_some_and(Metadata::is_regular) && self.place.has_other_links()? {
            self.place.detach()?;
        }
        Ok(())
    }

    /// Opens what is there as the basis of a delta; `None` when nothing is.
    pub(super) fn basis(&self) -> Result<Option<File>, Refusal> {
        if self.before.is_none() {
            return Ok(None);
        }
        Ok(Some(self.place.open_regular()?))
    }

    /// Builds the new content beside the target. Nothing is replaced yet.
    pub(super) fn assemble(
        &self,
        basis: Option<File>,
        delta: &mut dyn io::Read,
        attributes: Option<&Attributes>,
        rules: &Rules,
    ) -> Result<Assembled, Refusal> {
        let mut temp = self.place.temp(rules.tempdir.as_deref())?;
        let old = match &basis {
            Some(file) => Some((fs::meta::metadata_of(file)?, file.try_clone()?)),
            None => None,
        };
        let basis = match basis {
            Some(file) => file,
            None => File::open("/dev/null")?,
        };
        let mut output = io::BufWriter::with_capacity(1 << 16, temp.file());
        delta::patch(basis, delta, &mut output, u64::MAX)?;
        output.flush()?;
        drop(output);
        let (metadata, file) = old.as_ref().map_or((None, None), |(metadata, file)| (Some(metadata), Some(file)));
        for lost in temp.take_over(metadata, file) {
            tracing::info!("WARNING: {}: not kept: {lost:?}", self.real.display());
        }
        let assembled = Assembled { temp };
        for attribute in attributes.into_iter().flat_map(Attribute::all) {
            assembled.set(attribute, rules.ignore)?;
        }
        Ok(assembled)
    }

    /// Whether what is there is still what it was when the command began.
    pub(super) fn is_unchanged(&self) -> Result<bool, Refusal> {
        let now = self.place.metadata()?;
        Ok(match (&now, &self.before) {
            (None, None) => true,
            (Some(now), Some(before)) => {
                now.inode == before.inode && now.ctime == before.ctime && now.kind == before.kind
            }
            _ => false,
        })
    }

    /// Puts the new content in place of the old, durably.
    pub(super) fn replace(&self, assembled: Assembled) -> Result<Option<Metadata>, Refusal> {
        assembled.temp.persist(&self.place, true)?;
        Ok(self.place.metadata()?)
    }
}

/// New content, complete, beside its target.
#[derive(Debug)]
pub(super) struct Assembled {
    temp: TempFile,
}

impl Assembled {
    /// The name beside the target; empty when it lies elsewhere.
    pub(super) fn name(&self) -> Vec<u8> {
        if self.temp.is_beside() { self.temp.name().to_vec() } else { Vec::new() }
    }

    pub(super) fn metadata(&mut self) -> Result<Metadata, Refusal> {
        Ok(fs::meta::metadata_of(self.temp.file())?)
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
    /// What the second dialect sends along, in the order in which it must be set: a new owner clears setuid bits.
    pub(super) fn all(attributes: &Attributes) -> [Self; 3] {
        let Attributes { uid, gid, mode, mtime } = *attributes;
        [Self::Owner { uid, gid }, Self::Mode(mode), Self::Time(mtime)]
    }
}
