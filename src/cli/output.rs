//! Standard output, where the results go: bytes, as any file name may consist of them, one whole line at a time.
//!
//! What is printed when is for `commands` and `engine` to say; here is only how each kind of line looks.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::json;

/// Why output stopped.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader of the pipe has gone: the program ends without a word, with `Status::ReaderGone`.
    #[error("the reader of the output has gone")]
    ReaderGone,
    #[error("write to standard output")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(error),
        }
    }
}

/// A handle on standard output (or on what a test puts in its place). Clones write to the same place; lines of several
/// tasks never mix.
#[derive(Clone)]
pub struct Printer {
    output: Arc<Mutex<Output>>,
    /// Lines are JSON objects.
    json: bool,
}

struct Output {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// On a terminal, a line is seen when it is written.
    line_by_line: bool,
}

/// On which side of a comparison a file is (`-T`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    LocalOnly,
    RemoteOnly,
    Different,
}

/// What a push would do with a file (`-d`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Modify { forced: bool },
    Delete { forced: bool },
    InSync,
}

impl Printer {
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(io::stdout(), io::stdout().is_terminal())
    }

    /// Prints somewhere else.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self::new(writer, false)
    }

    fn new(writer: impl Write + Send + 'static, line_by_line: bool) -> Self {
        let output = Output { writer: BufWriter::new(Box::new(writer)), line_by_line };
        Self { output: Arc::new(Mutex::new(output)), json: false }
    }

    /// The same place, with results as JSON objects.
    #[must_use]
    pub fn as_json(&self) -> Self {
        Self { output: Arc::clone(&self.output), json: true }
    }

    /// Prints pieces as one line.
    ///
    /// # Errors
    /// The reader has gone, or the output is full.
    pub fn line(&self, pieces: &[&[u8]]) -> Result<(), OutputError> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in pieces {
            output.writer.write_all(piece)?;
        }
        output.writer.write_all(b"\n")?;
        if output.line_by_line { Ok(output.writer.flush()?) } else { Ok(()) }
    }

    /// Prints bytes as they are: the text of a diff, or of the help.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.writer.write_all(bytes)?;
        if output.line_by_line { Ok(output.writer.flush()?) } else { Ok(()) }
    }

    /// A line of `-L` and `-S`.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn file(&self, checktxt: &[u8], name: &[u8]) -> Result<(), OutputError> {
        if self.json {
            let checktxt = String::from_utf8_lossy(checktxt).into();
            return self.line(&[&json::named(name, [("checktxt", checktxt)])]);
        }
        self.line(&[checktxt, b"\t", name])
    }

    /// A line of `-H`.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn hint(&self, recursive: bool, name: &[u8]) -> Result<(), OutputError> {
        if self.json {
            return self.line(&[&json::named(name, [("recursive", recursive.into())])]);
        }
        self.line(&[if recursive { b"1" } else { b"0" }, b"\t", name])
    }

    /// A line of `-M`.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn dirty(&self, forced: bool, my_name: &str, peer: &str, name: &[u8]) -> Result<(), OutputError> {
        if self.json {
            let members = [("forced", forced.into()), ("my_name", my_name.into()), ("peer", peer.into())];
            return self.line(&[&json::named(name, members)]);
        }
        let force: &[u8] = if forced { b"force" } else { b"chary" };
        self.line(&[force, b"\t", my_name.as_bytes(), b"\t", peer.as_bytes(), b"\t", name])
    }

    /// A line of `--ls-ssl-cert`.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn certificate(&self, host: &str, description: &impl fmt::Display) -> Result<(), OutputError> {
        self.line(&[host.as_bytes(), b"\t", description.to_string().as_bytes()])
    }

    /// A line of `-T`.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn difference(&self, side: Side, my_name: &str, peer: &str, name: &[u8]) -> Result<(), OutputError> {
        if self.json {
            let members = [("differs", json::side(side)), ("my_name", my_name.into()), ("peer", peer.into())];
            return self.line(&[&json::named(name, members)]);
        }
        let letter = match side {
            Side::LocalOnly => b"L",
            Side::RemoteOnly => b"R",
            Side::Different => b"X",
        };
        self.line(&[letter, b"\t", my_name.as_bytes(), b"\t", peer.as_bytes(), b"\t", name])
    }

    /// A line of `-ud` and `-xd`: the peer left-justified to 15 columns.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn plan(&self, plan: Plan, peer: &str, name: &[u8]) -> Result<(), OutputError> {
        if self.json {
            let (what, forced) = json::plan(plan);
            return self.line(&[&json::named(name, [("plan", what), ("forced", forced), ("peer", peer.into())])]);
        }
        let what: &[u8] = match plan {
            Plan::Modify { forced: false } => b"?M: ",
            Plan::Modify { forced: true } => b"!M: ",
            Plan::Delete { forced: false } => b"?D: ",
            Plan::Delete { forced: true } => b"!D: ",
            Plan::InSync => b"?S: ",
        };
        self.line(&[what, format!("{peer:<15}").as_bytes(), b" ", name])
    }

    /// Writes out what is buffered. To be called at the end of a run, and before waiting for something.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn flush(&self) -> Result<(), OutputError> {
        Ok(self.output.lock().unwrap_or_else(PoisonError::into_inner).writer.flush()?)
    }
}

impl fmt::Debug for Printer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Printer").finish_non_exhaustive()
    }
}

/// A place to print to in tests.
#[cfg(test)]
pub(crate) mod page {
    use super::{Arc, Mutex, Write, io};

    /// What was written to any of the clones.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.bytes()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::page::Page;
    use super::*;

    #[test]
    fn lines_look_like_those_of_the_c_program() {
        let page = Page::default();
        let printer = Printer::to(page.clone());
        printer.file(b"v1:type=dir", b"/d \xff").unwrap();
        printer.hint(false, b"/h").unwrap();
        printer.hint(true, b"/h").unwrap();
        printer.dirty(false, "me", "peer", b"/a").unwrap();
        printer.dirty(true, "me", "peer", b"/a").unwrap();
        printer.difference(Side::LocalOnly, "me", "peer", b"/a").unwrap();
        printer.difference(Side::RemoteOnly, "me", "peer", b"/a").unwrap();
        printer.difference(Side::Different, "me", "peer", b"/a").unwrap();
        printer.plan(Plan::Modify { forced: false }, "1.csync2.test", b"/a").unwrap();
        printer.plan(Plan::Delete { forced: true }, "a-name-of-more-columns", b"/a").unwrap();
        printer.plan(Plan::InSync, "peer", b"/a").unwrap();
        printer.bytes(b"--- a\n+++ b\n").unwrap();
        assert!(page.bytes().is_empty(), "lines are collected");
        printer.flush().unwrap();
        let expected: &[u8] = b"v1:type=dir\t/d \xff\n0\t/h\n1\t/h\nchary\tme\tpeer\t/a\nforce\tme\tpeer\t/a\n\
            L\tme\tpeer\t/a\nR\tme\tpeer\t/a\nX\tme\tpeer\t/a\n\
            ?M: 1.csync2.test   /a\n!D: a-name-of-more-columns /a\n?S: peer            /a\n--- a\n+++ b\n";
        assert_eq!(page.bytes(), expected);
    }

    #[test]
    fn a_closed_pipe_is_told_from_a_full_disk() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let printer = Printer::to(writer);
        printer.line(&[b"x"]).unwrap();
        assert!(matches!(printer.flush(), Err(OutputError::ReaderGone)));
        let full = Printer::to(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        full.line(&[b"x"]).unwrap();
        assert!(matches!(full.flush(), Err(OutputError::Failed(_))));
    }
}
