//! stderr: a terminal, a file, the journal, or the socket of a peer, to which nothing may be written.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use indicatif::MultiProgress;
use rustix::fs::{Mode, OFlags, fstat, open};

use super::{Sink, sink, write_lines};

/// Where lines go that are for people.
pub(super) struct Stderr {
    sink: Sink,
    /// The journal takes a number in front of a line for its priority: that of a session, where we gave none.
    is_journal: bool,
    /// Bars that give way to lines.
    screen: Option<MultiProgress>,
}

impl Stderr {
    pub(super) fn of_process(journal_stream: Option<&OsStr>, screen: Option<MultiProgress>) -> Self {
        let is_journal = journal_stream.is_some_and(|stream| names(stream, io::stderr()));
        Self { sink: sink(io::stderr()), is_journal, screen }
    }

    #[cfg(test)]
    pub(super) fn to(writer: impl io::Write + Send + 'static, is_journal: bool) -> Self {
        Self { sink: sink(writer), is_journal, screen: None }
    }

    /// Writes lines of a severity (syslog's number), each with the prefix.
    pub(super) fn write(&self, severity: u8, prefix: &str, text: &str) {
        let write = || {
            if self.is_journal {
                write_lines(&self.sink, &format!("<{severity}>{prefix}"), text);
            } else {
                write_lines(&self.sink, prefix, text);
            }
        };
        match &self.screen {
            Some(screen) => screen.suspend(write),
            None => write(),
        }
    }
}

impl fmt::Debug for Stderr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stderr").field("is_journal", &self.is_journal).finish_non_exhaustive()
    }
}

/// Whether `$JOURNAL_STREAM`, `DEVICE:INODE`, is this file: a program that was started with another stderr than its
/// parent inherits the variable all the same.
fn names(stream: &OsStr, file: impl AsFd) -> bool {
    fstat(file).is_ok_and(|found| stream.to_str() == Some(&format!("{}:{}", found.st_dev, found.st_ino)))
}

/// inetd gives a server its socket as stderr, too. Whatever writes there (the log's timing lines, the language's runtime
/// when it aborts) must not reach the peer: a stderr that is also stdin or stdout becomes /dev/null.
pub(super) fn keep_from_the_peer() {
    if is_same(io::stderr(), io::stdin()) || is_same(io::stderr(), io::stdout()) {
        let null: rustix::io::Result<OwnedFd> = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        if let Ok(null) = null {
            let _ = rustix::stdio::dup2_stderr(null);
        }
    }
}

fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    let identity = |file| fstat(file).map(|found| (found.st_dev, found.st_ino));
    matches!((identity(one.as_fd()), identity(other.as_fd())), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let stream = |device: u64, inode: u64| format!("{device}:{inode}");
        assert!(names(OsStr::new(&stream(metadata.dev(), metadata.ino())), &file));
        for other in
            [stream(metadata.dev(), metadata.ino() + 1), stream(1 + metadata.dev(), metadata.ino()), "x".into()]
        {
            assert!(!names(OsStr::new(&other), &file), "{other}");
        }
    }

    #[test]
    fn copies_of_a_socket_are_the_same_file() {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(is_same(&one, one.try_clone().unwrap()));
        assert!(!is_same(&one, &other));
    }
}
