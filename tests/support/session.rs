//! Sessions with a server, byte by byte: what a client of any other make, or a hostile one, would send.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::cluster::{KEY, Node};

/// A plain connection to a server.
pub(crate) struct Session {
    reader: BufReader<TcpStream>,
}

impl Session {
    /// Connects from the address of `client` to the daemon of `server`.
    pub(crate) fn open(client: &Node, server: &Node) -> Session {
        let address = |node: &Node, port| SocketAddr::new(node.host.parse().expect("an address"), port);
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
        bind(&socket, &address(client, 0)).expect("bind to the client's address");
        connect(&socket, &address(server, server.port)).expect("connect to the server");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set a timeout");
        Session { reader: BufReader::new(stream) }
    }

    /// As [`Self::open`], with CONFIG and HELLO done.
    pub(crate) fn greeted(client: &Node, server: &Node) -> Session {
        let mut session = Session::open(client, server);
        session.ask("CONFIG ", "OK (cmd_finished).");
        session.ask(&format!("HELLO {}", client.host), "OK (cmd_finished).");
        session
    }

    /// A connection that the test itself has accepted on the server's behalf, as inetd does; the server's end.
    pub(crate) fn accepted(client: &Node, server: &Node) -> (Session, TcpStream) {
        let listener = TcpListener::bind((server.host.as_str(), server.port)).expect("listen");
        let session = Session::open(client, server);
        (session, listener.accept().expect("accept").0)
    }

    /// Sends as much as the server takes before it closes.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) {
        drop(self.reader.get_mut().write_all(bytes));
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("write to the server");
    }

    /// Sends a line (`KEY` in it is the cluster's key) and expects a line.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &str, answer: &str) {
        assert_eq!(self.answer(request), answer, "answer to `{request}`");
    }

    /// Sends a line (with `KEY` replaced); the answer.
    #[track_caller]
    pub(crate) fn answer(&mut self, request: &str) -> String {
        self.send(format!("{}\n", request.replace("KEY", KEY)).as_bytes());
        self.line().unwrap_or_else(|| panic!("`{request}` ended the session"))
    }

    /// Expects these lines.
    #[track_caller]
    pub(crate) fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line().as_deref(), Some(*line));
        }
    }

    /// The next line without its end; None at the end of the connection.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned()),
            // A server that closes with our bytes unread resets the connection: that is an end, too.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("read from the server: {error}"),
        }
    }

    /// Whether the server has sent something that was not read yet; does not wait for it.
    pub(crate) fn has_answer(&self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).expect("set a flag");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("set a flag");
        !self.reader.buffer().is_empty() || peeked.is_ok()
    }

    /// The next `length` bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).expect("read from the server");
        bytes
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        while let Some(line) = self.line() {
            writeln!(rest, "{line}").expect("write to a string");
        }
        rest
    }

    /// No more requests will come.
    pub(crate) fn finish(&mut self) {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write).expect("shut down");
    }
}

/// A session as it was recorded (fixtures/): what the client sent, what the server answered, in turns.
pub(crate) struct Recording(Vec<(Speaker, Vec<u8>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

impl Recording {
    /// Reads a recording and puts `host` for the client's name in it.
    pub(crate) fn load(name: &str, host: &str) -> Recording {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        let mut turns: Vec<(Speaker, Vec<u8>)> = Vec::new();
        for line in text.lines() {
            let (speaker, shown) = match line.split_once(": ") {
                Some(("C", shown)) => (Speaker::Client, shown),
                Some(("S", shown)) => (Speaker::Server, shown),
                _ => continue,
            };
            let bytes = unescape(&shown.replace("1.csync2.test", host));
            match turns.last_mut() {
                Some((last, turn)) if *last == speaker => turn.extend(bytes),
                _ => turns.push((speaker, bytes)),
            }
        }
        Recording(turns)
    }

    /// Plays the client's part; the server's answers must be those recorded, byte for byte.
    #[track_caller]
    pub(crate) fn play(&self, session: &mut Session) {
        for (speaker, bytes) in &self.0 {
            match speaker {
                Speaker::Client => session.send(bytes),
                Speaker::Server => {
                    let answer = session.bytes(bytes.len());
                    let (answer, expected) = (answer.escape_ascii().to_string(), bytes.escape_ascii().to_string());
                    assert_eq!(answer, expected, "left: the server's answer, right: the recorded one");
                }
            }
        }
    }
}

/// `\n`, `\xNN` and `\\`; everything else stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let taken = match (byte, after) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', digits @ ..]) if digits.len() >= 2 => {
                let digits = std::str::from_utf8(&digits[..2]).expect("hex digits");
                (u8::from_str_radix(digits, 16).expect("hex digits"), 4)
            }
            _ => (byte, 1),
        };
        bytes.push(taken.0);
        rest = &rest[taken.1..];
    }
    bytes
}
