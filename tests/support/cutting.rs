//! A line between a client and a daemon that can be cut after any number of bytes, in either direction.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// Where a connection ends: after so many bytes of the client's, or of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    OfClient(usize),
    OfServer(usize),
}

/// It serves until the process ends, and hands on connections as if they came from the client itself.
pub(crate) struct Line {
    next: Arc<Mutex<Option<Cut>>>,
}

impl Line {
    pub(crate) fn between(front: SocketAddr, daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind(front).expect("listen");
        let next: Arc<Mutex<Option<Cut>>> = Arc::default();
        let cuts = Arc::clone(&next);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let cut = cuts.lock().unwrap_or_else(PoisonError::into_inner).take();
                thread::spawn(move || pass(&client, daemon, cut));
            }
        });
        Self { next }
    }

    /// Cuts the next connection; `None`: it holds.
    pub(crate) fn cut_next(&self, cut: Option<Cut>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }
}

fn pass(client: &TcpStream, daemon: SocketAddr, cut: Option<Cut>) {
    let from = SocketAddr::new(client.peer_addr().map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.ip()), 0);
    let server = socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
    bind(&server, &from).expect("bind to the client's address");
    if connect(&server, &daemon).is_err() {
        // Nobody is there: the client finds that out.
        return;
    }
    let server = TcpStream::from(server);
    let (of_client, of_server) = match cut {
        None => (usize::MAX, usize::MAX),
        Some(Cut::OfClient(bytes)) => (bytes, usize::MAX),
        Some(Cut::OfServer(bytes)) => (usize::MAX, bytes),
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server, of_client));
        copy(&server, client, of_server);
    });
}

/// Copies up to the end, or up to the cut, which ends both directions.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut left: usize) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let passed = read.min(left);
        if to.write_all(&buffer[..passed]).is_err() || passed < read {
            drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
            return;
        }
        left -= passed;
        if read == 0 {
            drop(to.shutdown(Shutdown::Write));
            return;
        }
    }
}
