//! Data of a peer that has to be complete before it is used: in memory while it is small, else in a file.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

/// What is kept in memory, in bytes.
const IN_MEMORY: usize = 1 << 20;

/// Takes data piece by piece. The file comes from outside, since it may become as large as any that is kept in step: the
/// directory for temporary files may be too small for it.
#[derive(Debug, Default)]
pub(super) struct Spool {
    memory: Vec<u8>,
    disk: Option<File>,
}

impl Spool {
    /// Appends; `open` gives the file when one is needed.
    ///
    /// # Errors
    /// Those of opening and writing the file.
    pub(super) fn push(&mut self, bytes: &[u8], open: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        if self.disk.is_none() && self.memory.len() + bytes.len() <= IN_MEMORY {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let file = match &mut self.disk {
            Some(file) => file,
            none => none.insert(open()?),
        };
        file.write_all(&std::mem::take(&mut self.memory))?;
        file.write_all(bytes)
    }

    /// All of it, from the start.
    ///
    /// # Errors
    /// Those of seeking in the file.
    pub(super) fn into_reader(self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self.disk {
            None => Box::new(Cursor::new(self.memory)),
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Box::new(file)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_goes_to_disk_and_comes_back_whole() {
        for (pieces, on_disk) in [(3, false), (16, false), (40, true)] {
            let mut spool = Spool::default();
            let mut sent = Vec::new();
            for number in 0..pieces {
                let piece = vec![number; 1 << 16];
                spool.push(&piece, tempfile::tempfile).unwrap();
                sent.extend(piece);
            }
            assert_eq!(spool.disk.is_some(), on_disk);
            assert!(!on_disk || spool.memory.is_empty());
            let mut back = Vec::new();
            spool.into_reader().unwrap().read_to_end(&mut back).unwrap();
            assert!(back == sent);
        }
        let full = || Err(io::ErrorKind::StorageFull.into());
        assert!(Spool::default().push(&vec![0; IN_MEMORY + 1], full).is_err());
    }
}
