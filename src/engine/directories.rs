//! `-W FD`: names the directories that hold files of the cluster, for a program that wants to watch them.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use super::Report;
use crate::model::SyncPath;
use crate::model::errors::strerror;

/// A handle on the descriptor; clones write to the same one. What goes wrong does not stop the walk that writes: it is
/// kept for [`Directories::flush`].
#[derive(Clone)]
pub struct Directories {
    number: RawFd,
    state: Arc<Mutex<State>>,
}

enum State {
    Open(BufWriter<Patient>),
    Broken(io::Error),
    /// The failure was reported: nothing is written any more.
    Closed,
}

impl Directories {
    /// `number` is what the user calls the descriptor, `output` a copy of it.
    #[must_use]
    pub fn to(number: RawFd, output: File) -> Self {
        Self { number, state: Arc::new(Mutex::new(State::Open(BufWriter::new(Patient(output))))) }
    }

    /// Writes the name as the database has it, decoded, and a NUL. May wait for the reader.
    pub fn write(&self, name: &SyncPath) {
        self.attempt(|output| output.write_all(name.as_bytes()).and_then(|()| output.write_all(b"\0")));
    }

    /// Writes out what is buffered. May wait for the reader. The first failure to write is reported, once.
    #[must_use]
    pub fn flush(&self) -> Report {
        self.attempt(Write::flush);
        let mut report = Report::default();
        let mut state = self.lock();
        if let State::Broken(error) = &*state {
            report.error(format_args!(
                "Error while writing to dump_dir_fd {}: {}; it gets no more directories.",
                self.number,
                strerror(error)
            ));
            *state = State::Closed;
        }
        report
    }

    fn attempt(&self, write: impl FnOnce(&mut BufWriter<Patient>) -> io::Result<()>) {
        let mut state = self.lock();
        if let State::Open(output) = &mut *state
            && let Err(error) = write(output)
        {
            *state = State::Broken(error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Directories {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Directories").finish_non_exhaustive()
    }
}

/// Waits where a descriptor that does not block (it is shared with the program that made it) is full.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::thread;

    use super::*;

    fn name(number: usize) -> SyncPath {
        SyncPath::parse(format!("%p%/a directory {number}").as_bytes()).unwrap()
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let directories = Directories::to(5, OwnedFd::from(writer).into());
        // More than any pipe holds by default.
        let count = 100_000;
        let work = thread::spawn(move || {
            (0..count).for_each(|number| directories.write(&name(number)));
            directories.flush()
        });
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert_eq!(work.join().unwrap(), Report::default());
        let expected: Vec<u8> = (0..count).flat_map(|number| [name(number).as_bytes(), b"\0"].concat()).collect();
        assert!(written == expected);
    }

    #[test]
    fn a_reader_that_has_gone_is_told_once() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let directories = Directories::to(5, OwnedFd::from(writer).into());
        directories.write(&name(1));
        assert_eq!(directories.clone().flush().errors, 1);
        directories.write(&name(2));
        assert_eq!(directories.flush(), Report::default());
    }
}
