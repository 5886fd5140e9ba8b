//! An inherited socket as a stream: what inetd or systemd put on stdin and stdout.
//!
//! `O_NONBLOCK` belongs to the open file, which may be shared with a parent or a shell: it is never set here. Each call
//! says for itself that it does not wait.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Bytes received at a time.
const PIECE: usize = 16 * 1024;

/// A socket to read from and one to write to, most often the same.
#[derive(Debug)]
pub(super) struct Socket {
    input: AsyncFd<OwnedFd>,
    output: AsyncFd<OwnedFd>,
}

impl Socket {
    /// Whether both descriptors are sockets.
    pub(super) fn are(input: &OwnedFd, output: &OwnedFd) -> bool {
        [input, output].into_iter().all(|descriptor| sockopt::socket_type(descriptor).is_ok())
    }

    pub(super) fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        Ok(Self { input: register(input, Interest::READABLE)?, output: register(output, Interest::WRITABLE)? })
    }
}

#[expect(unsafe_code, reason = "the runtime must be promised that the descriptor stays open")]
fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is always the same open descriptor, and is closed after the `AsyncFd` has given it up.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.input.poll_read_ready(context))?;
            // Clearing more than most commands have would cost more than it brings.
            let length = into.remaining().min(PIECE);
            let buffer = into.initialize_unfilled_to(length);
            let received = ready.try_io(|input| Ok(recv(input, buffer, RecvFlags::DONTWAIT)?.1));
            match received {
                Ok(Ok(length)) => {
                    into.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_ready) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.output.poll_write_ready(context))?;
            let sent = ready.try_io(|output| Ok(send(output, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?));
            match sent {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(outcome) => return Poll::Ready(outcome),
                Err(_not_ready) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Others may hold the same socket: closing it would not tell the peer.
        match shutdown(&self.output, Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::echo_a_line;
    use std::os::unix::net::UnixStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_shared_socket_stays_blocking_and_the_peer_sees_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shared = ours.try_clone().unwrap();
        let (input, output) = (ours.try_clone().unwrap().into(), ours.into());
        assert!(Socket::are(&input, &output));
        let mut socket = Socket::new(input, output).unwrap();
        // More than any socket holds: both ends wait for each other in between.
        let large = vec![b'x'; 3 << 20];
        let sent = large.clone();
        let peer = echo_a_line(theirs);
        socket.write_all(b"hello\n").await.unwrap();
        let mut answer = [0; 6];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello\n");
        socket.write_all(&sent).await.unwrap();
        socket.shutdown().await.unwrap();
        let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
        assert_eq!(peer.join().unwrap(), ("hello\n".to_owned(), large));
        let mut nothing = Vec::new();
        assert_eq!(socket.read_to_end(&mut nothing).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(ours.try_clone().unwrap().into(), ours.into()).unwrap();
        drop(theirs);
        assert_eq!(socket.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_pipe_is_no_socket() {
        let (input, output) = io::pipe().unwrap();
        assert!(!Socket::are(&input.into(), &output.into()));
    }
}
