//! Inherited descriptors of any kind as a stream: what sshd or a shell put on stdin and stdout.
//!
//! `O_NONBLOCK` belongs to the open file, which may be shared with a parent or a shell: it is never set here. Two
//! threads read and write blockingly instead. They are plain threads and not the runtime's, which would wait at its end
//! for a read that never returns.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// Bytes moved at a time.
const PIECE: usize = 64 * 1024;

/// A descriptor to read from and one to write to, as one stream.
#[derive(Debug)]
pub(super) struct Pipe {
    incoming: mpsc::Receiver<io::Result<Bytes>>,
    /// Received, and not handed out yet.
    rest: Bytes,
    /// `None` after the shutdown.
    outgoing: Option<mpsc::Sender<Bytes>>,
    /// The outcome of each piece given to `outgoing`.
    written: mpsc::Receiver<io::Result<()>>,
    /// A piece is being written.
    busy: bool,
}

impl Pipe {
    /// Starts the two threads. They end when the stream is dropped; the one that
    /// reads only when something comes or the other side closes.
    pub(super) fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        let (received, incoming) = mpsc::channel(1);
        let (outgoing, pieces) = mpsc::channel(1);
        let (outcomes, written) = mpsc::channel(1);
        spawn("pipe reader", move || read_all(File::from(input), &received))?;
        spawn("pipe writer", move || write_all(File::from(output), pieces, &outcomes))?;
        Ok(Self { incoming, rest: Bytes::new(), outgoing: Some(outgoing), written, busy: false })
    }

    /// Waits until the writer has done what it was given.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.busy {
            return Poll::Ready(Ok(()));
        }
        let outcome = ready!(self.written.poll_recv(context));
        self.busy = false;
        Poll::Ready(outcome.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into())))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn read_all(mut input: File, received: &mpsc::Sender<io::Result<Bytes>>) {
    let mut piece = vec![0; PIECE];
    loop {
        let outcome = match input.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => Ok(Bytes::copy_from_slice(&piece[..length])),
            Err(error) => match wait_if_needed(&input, PollFlags::IN, error) {
                Ok(()) => continue,
                Err(error) => Err(error),
            },
        };
        let failed = outcome.is_err();
        if received.blocking_send(outcome).is_err() || failed {
            return;
        }
    }
}

fn write_all(mut output: File, mut pieces: mpsc::Receiver<Bytes>, outcomes: &mpsc::Sender<io::Result<()>>) {
    while let Some(mut piece) = pieces.blocking_recv() {
        let outcome = loop {
            match output.write(&piece) {
                Ok(length) => piece.advance(length),
                Err(error) => match wait_if_needed(&output, PollFlags::OUT, error) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
            if piece.is_empty() {
                break Ok(());
            }
        };
        if outcomes.blocking_send(outcome).is_err() {
            break;
        }
    }
    // Others may hold the same socket: closing it would not tell the peer. On a pipe this fails, and closing does.
    let _ = rustix::net::shutdown(&output, rustix::net::Shutdown::Write);
}

/// An interrupted call is repeated; where somebody else made the file non-blocking, we wait in poll.
fn wait_if_needed(file: &File, flags: PollFlags, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => {
            match rustix::event::poll(&mut [PollFd::from_borrowed_fd(file.as_fd(), flags)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        }
        _ => Err(error),
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.incoming.poll_recv(context)) {
                Some(piece) => self.rest = piece?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_idle(context))?;
        let length = bytes.len().min(PIECE);
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let sent = self.outgoing.as_ref().is_some_and(|outgoing| {
            // There is room: the writer has reported every earlier piece.
            outgoing.try_send(Bytes::copy_from_slice(&bytes[..length])).is_ok()
        });
        self.busy = sent;
        Poll::Ready(if sent { Ok(length) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_idle(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(self.poll_idle(context));
        self.outgoing = None;
        outcome?;
        // The writer is gone once it has told the peer; this process may end right after.
        self.written.poll_recv(context).map(|_| Ok(()))
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
        let mut pipe = Pipe::new(ours.try_clone().unwrap().into(), ours.into()).unwrap();
        let large = vec![b'x'; 3 * PIECE];
        let sent = large.clone();
        let peer = echo_a_line(theirs);
        pipe.write_all(b"hello\n").await.unwrap();
        let mut answer = [0; 6];
        pipe.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello\n");
        pipe.write_all(&sent).await.unwrap();
        pipe.shutdown().await.unwrap();
        let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
        assert_eq!(peer.join().unwrap(), ("hello\n".to_owned(), large));
    }

    #[tokio::test]
    async fn a_file_in_non_blocking_mode_works_as_well() {
        let (input, mut feed) = io::pipe().unwrap();
        let (mut sink, output) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&input, true).unwrap();
        let mut pipe = Pipe::new(input.into(), output.into()).unwrap();
        pipe.write_all(b"question").await.unwrap();
        pipe.flush().await.unwrap();
        let mut question = [0; 8];
        sink.read_exact(&mut question).unwrap();
        feed.write_all(b"answer").unwrap();
        drop(feed);
        let mut answer = String::new();
        pipe.read_to_string(&mut answer).await.unwrap();
        assert_eq!((&question, answer.as_str()), (b"question", "answer"));
        drop(sink);
        pipe.write_all(b"more").await.unwrap();
        assert_eq!(pipe.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
