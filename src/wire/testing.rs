//! The other end of an inherited stream, for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

/// Reads a line, sends it back, and reads to the end. Returns the line and the rest.
pub(super) fn echo_a_line(stream: UnixStream) -> JoinHandle<(String, Vec<u8>)> {
    thread::spawn(move || {
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut line).unwrap();
        reader.get_mut().write_all(line.as_bytes()).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        (line, rest)
    })
}
