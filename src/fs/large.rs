//! What the system is told about files: what will be read next, and what can go to the disk already.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Advice, fadvise};

/// What a file is written to the disk in, in bytes.
const PART: u64 = 8 << 20;

/// Says that a file is about to be read from its start to its end.
pub fn read_ahead(file: &File) {
    // Advice only: a file system that takes none is read all the same.
    let _ = fadvise(file, 0, None, Advice::Sequential);
}

/// Writes a file, and has the disk begin with each part as soon as it is there: less is left when it is made durable.
#[derive(Debug)]
pub struct Writer<F> {
    file: F,
    written: u64,
    /// So much of it is on its way.
    begun: u64,
}

impl<F: AsFd> Writer<F> {
    /// Writes an empty file.
    pub fn new(file: F) -> Self {
        Self { file, written: 0, begun: 0 }
    }

    /// What was written to.
    pub fn into_file(self) -> F {
        self.file
    }

    /// Has the disk begin with all that is there.
    #[allow(unsafe_code)]
    pub fn begin(&mut self) {
        let (Ok(offset), Ok(length)) = (i64::try_from(self.begun), i64::try_from(self.written - self.begun)) else {
            return;
        };
        // SAFETY: no memory is involved, and the descriptor is open. Whether it succeeds is seen when the file is synced.
        unsafe { libc::sync_file_range(self.file.as_fd().as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
        self.begun = self.written;
    }
}

impl<F: AsFd> Write for Writer<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = rustix::io::write(&self.file, bytes)?;
        self.written += length as u64;
        if self.written - self.begun >= PART {
            self.begin();
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
