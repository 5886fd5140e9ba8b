//! The local syslog, as syslog(3) speaks to it: facility local0, identity `csync2`, with the process's id.
//!
//! Every message goes to the socket's name, so that a restarted syslog daemon is found again. Where none listens,
//! messages are lost, like those of the C program.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use super::clock::LocalTime;

/// local0, shifted to its place in a priority.
const FACILITY: u8 = 16 << 3;

/// More than common syslog daemons keep of a message.
const LONGEST: usize = 8_000;

#[derive(Debug)]
pub(super) struct Syslog {
    socket: UnixDatagram,
    address: PathBuf,
}

impl Syslog {
    pub(super) fn at(address: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A syslog daemon that hangs must not hang us.
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        Ok(Self { socket, address })
    }

    /// Sends one line of a level as of `-v`.
    pub(super) fn send(&self, level: u8, time: &LocalTime, line: &str) {
        let priority = FACILITY | severity(level);
        let mut message = format!("<{priority}>{} csync2[{}]: {line}", time.syslog(), process::id()).into_bytes();
        message.truncate(LONGEST);
        message.push(b'\n');
        let _ = self.socket.send_to(&message, &self.address);
    }
}

/// Level 0 is a warning, 1 is info, everything above is debug.
pub(super) fn severity(level: u8) -> u8 {
    match level {
        0 => 4,
        1 => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn messages_look_like_those_of_the_c_library() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("log");
        let daemon = UnixDatagram::bind(&address).unwrap();
        let time = LocalTime::of(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        let syslog = Syslog::at(address).unwrap();
        let mut buffer = [0; 10_000];
        for (level, priority) in [(0, 132), (1, 134), (2, 135), (3, 135)] {
            syslog.send(level, &time, "Connection closed.");
            let length = daemon.recv(&mut buffer).unwrap();
            let expected = format!("<{priority}>{} csync2[{}]: Connection closed.\n", time.syslog(), process::id());
            assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
        }
        syslog.send(0, &time, &"x".repeat(20_000));
        assert_eq!(daemon.recv(&mut buffer).unwrap(), LONGEST + 1);
    }

    #[test]
    fn a_missing_daemon_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let syslog = Syslog::at(directory.path().join("log")).unwrap();
        syslog.send(0, &LocalTime::of(SystemTime::UNIX_EPOCH), "nobody hears this");
    }
}
