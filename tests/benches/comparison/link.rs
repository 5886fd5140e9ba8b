//! The connection between a client and the server that is started for it: counted, and as slow as is asked for.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{mem, thread};

use rustix::net::{AddressFamily, SocketType};

use super::measure::{Usage, run};

/// Pieces on their way at once, of at most [`PIECE`] bytes: more than fits into a delay.
const PIECES: usize = 4096;
const PIECE: usize = 64 * 1024;

/// A program that serves a connection on stdin and stdout, as inetd starts it.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) command: Command,
    /// How long each byte takes in either direction. Opening the connection is not slowed down.
    pub(super) delay: Duration,
}

impl Server {
    /// Starts a server for each connection until `closed`, which another connection makes it look at. What the servers
    /// used together, and the bytes in both directions.
    pub(super) fn serve(&self, closed: &AtomicBool) -> (Usage, u64) {
        thread::scope(|scope| {
            let mut sessions = Vec::new();
            loop {
                let (connection, _) = self.listener.accept().expect("accept a connection");
                if closed.load(Ordering::SeqCst) {
                    break;
                }
                sessions.push(scope.spawn(|| self.session(connection)));
            }
            let ends = sessions.into_iter().map(|session| session.join().expect("a session"));
            ends.fold((Usage::default(), 0), |(usage, bytes), end| (usage.and(end.0), bytes + end.1))
        })
    }

    /// Ends [`Self::serve`].
    pub(super) fn close(address: SocketAddr) {
        drop(TcpStream::connect(address).expect("connect to a server of our own"));
    }

    fn session(&self, connection: TcpStream) -> (Usage, u64) {
        if self.delay.is_zero() {
            return self.attend(connection);
        }
        let address = |address: io::Result<SocketAddr>| address.expect("an address").ip();
        let (near, far) = connect(address(connection.peer_addr()), address(connection.local_addr()));
        thread::scope(|scope| {
            scope.spawn(|| delay(&connection, &near, self.delay));
            scope.spawn(|| delay(&near, &connection, self.delay));
            self.attend(far)
        })
    }

    fn attend(&self, connection: TcpStream) -> (Usage, u64) {
        let end = || OwnedFd::from(connection.try_clone().expect("dup"));
        let mut bytes = 0;
        let stdio = (end().into(), end().into());
        let usage = run(&self.command, 0, stdio, || {
            bytes = transferred(&connection);
            // The other end sees the end only when nobody holds the connection.
            drop(connection);
        });
        (usage, bytes)
    }
}

/// A connection from one address to the other, so that the server sees who calls: the caller's end, and the server's.
fn connect(from: IpAddr, to: IpAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((to, 0)).expect("listen");
    let near = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
    rustix::net::bind(&near, &SocketAddr::new(from, 0)).expect("bind");
    rustix::net::connect(&near, &listener.local_addr().expect("an address")).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    (near.into(), far)
}

/// Passes on what comes, and the end, each after `delay`.
fn delay(from: &TcpStream, to: &TcpStream, delay: Duration) {
    to.set_nodelay(true).expect("set TCP_NODELAY");
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PIECES);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = to;
            for (due, piece) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // Who has gone does not read any more.
                if piece.is_empty() || to.write_all(&piece).is_err() {
                    drop(to.shutdown(Shutdown::Write));
                }
            }
        });
        let mut from = from;
        let mut piece = vec![0; PIECE];
        loop {
            let length = from.read(&mut piece).unwrap_or(0);
            let sent = sender.send((Instant::now() + delay, piece[..length].to_vec()));
            if sent.is_err() || length == 0 {
                break;
            }
        }
        // Ends the other thread.
        drop(sender);
    });
}

/// Bytes received and sent (and acknowledged) so far, as the kernel counts them.
#[expect(unsafe_code, reason = "no crate here asks for TCP_INFO")]
fn transferred(connection: &TcpStream) -> u64 {
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("small");
    // SAFETY: all fields are numbers, and the kernel writes no more than `length` bytes.
    let (result, info) = unsafe {
        let mut info: libc::tcp_info = mem::zeroed();
        let place = (&raw mut info).cast();
        let result =
            libc::getsockopt(connection.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length);
        (result, info)
    };
    assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
    info.tcpi_bytes_received + info.tcpi_bytes_acked
}
