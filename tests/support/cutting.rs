//! A line between a client and a daemon that can be cut, or held, after any number of bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// Where a connection ends: after so many bytes of the client's, or of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    OfClient(usize),
    OfServer(usize),
    /// It does not end there, but nothing more of the client's passes before [`Line::release`].
    Hold(usize),
}

/// Opened once.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(is_open, |is_open| !*is_open));
    }
}

/// It serves until the process ends, and hands on connections as if they came from the client itself.
pub(crate) struct Line {
    next: Arc<Mutex<Option<Cut>>>,
    gate: Arc<Gate>,
}

impl Line {
    pub(crate) fn between(front: SocketAddr, daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind(front).expect("listen");
        let next: Arc<Mutex<Option<Cut>>> = Arc::default();
        let gate: Arc<Gate> = Arc::default();
        let (cuts, way) = (Arc::clone(&next), Arc::clone(&gate));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let cut = cuts.lock().unwrap_or_else(PoisonError::into_inner).take();
                let way = Arc::clone(&way);
                thread::spawn(move || pass(&client, daemon, cut, &way));
            }
        });
        Self { next, gate }
    }

    /// Lets pass what was held.
    pub(crate) fn release(&self) {
        self.gate.open();
    }

    /// Cuts the next connection; `None`: it holds.
    pub(crate) fn cut_next(&self, cut: Option<Cut>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }
}

fn pass(client: &TcpStream, daemon: SocketAddr, cut: Option<Cut>, gate: &Gate) {
    let from = SocketAddr::new(client.peer_addr().map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.ip()), 0);
    let server = socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
    bind(&server, &from).expect("bind to the client's address");
    if connect(&server, &daemon).is_err() {
        // Nobody is there: the client finds that out.
        return;
    }
    let server = TcpStream::from(server);
    let (of_client, of_server, hold) = match cut {
        None => (usize::MAX, usize::MAX, None),
        Some(Cut::OfClient(bytes)) => (bytes, usize::MAX, None),
        Some(Cut::OfServer(bytes)) => (usize::MAX, bytes, None),
        Some(Cut::Hold(bytes)) => (usize::MAX, usize::MAX, Some((bytes, gate))),
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server, of_client, hold));
        copy(&server, client, of_server, None);
    });
}

/// Copies up to the end, or up to the cut, which ends both directions; behind so many bytes it waits at the gate.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut left: usize, mut hold: Option<(usize, &Gate)>) {
    let mut buffer = vec![0; 1 << 14];
    let mut all = 0;
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let passed = read.min(left);
        all += passed;
        if let Some((_, gate)) = hold.take_if(|(bytes, _)| all > *bytes) {
            gate.wait();
        }
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
