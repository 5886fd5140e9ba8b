//! The two directions of a connection, each with its buffer and its time limit. What they carry is `codec`'s to tell;
//! how they come into being is `connection`'s.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::codec::{Decoder, MAX_LINE};
use super::frame::{self, Frame};
use super::{OctetHeader, Timeouts, WireError};

/// Bytes read at a time, and bytes that wait before they are sent unasked.
const PIECE: usize = 64 * 1024;

/// The receiving half.
pub struct Reader {
    half: ReadHalf<Stream>,
    decoder: Decoder,
    pub(super) peer: Arc<Peer>,
    pub(super) timeouts: Timeouts,
}

/// The sending half. What is written leaves with [`Writer::flush`], or when much has gathered.
pub struct Writer {
    half: WriteHalf<Stream>,
    buffer: BytesMut,
    /// Bytes have left `buffer` and may wait inside the stream.
    unflushed: bool,
    pub(super) peer: Arc<Peer>,
    timeouts: Timeouts,
}

/// Takes a body piece by piece.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + Send + 'a;

/// Whatever carries the bytes; TLS included.
pub(super) type Stream = Pin<Box<dyn Duplex>>;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Who is at the other end.
#[derive(Debug)]
pub(super) struct Peer {
    /// For messages.
    pub(super) name: String,
    pub(super) address: Option<IpAddr>,
    /// Our own end, of a connection that we made.
    pub(super) local: Option<IpAddr>,
    /// Its certificate, then those that lead to who signed it; empty without TLS.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// The two directions of `stream`.
pub(super) fn split(stream: Stream, peer: Peer, timeouts: Timeouts) -> (Reader, Writer) {
    let peer = Arc::new(peer);
    let (read, write) = tokio::io::split(stream);
    (
        Reader { half: read, decoder: Decoder::default(), peer: Arc::clone(&peer), timeouts },
        Writer { half: write, buffer: BytesMut::new(), unflushed: false, peer, timeouts },
    )
}

/// The stream of which these are the directions. What is buffered is lost.
pub(super) fn unsplit(reader: Reader, writer: Writer) -> Stream {
    reader.half.unsplit(writer.half)
}

/// Whether these are the directions of one stream.
pub(super) fn are_a_pair(reader: &Reader, writer: &Writer) -> bool {
    reader.half.is_pair_of(&writer.half)
}

impl Reader {
    /// Where we connected from; `None` where the peer connected to us.
    pub fn local_address(&self) -> Option<IpAddr> {
        self.peer.local
    }

    /// As [`super::Connection::read_line`], without sending anything.
    pub async fn read_line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        if let Some(line) = self.decoder.line()? {
            return Ok(Some(line));
        }
        let idle = self.timeouts.idle;
        let line = async {
            loop {
                if !self.receive().await? {
                    return if self.decoder.is_empty() { Ok(None) } else { Err(WireError::Closed) };
                }
                if let Some(line) = self.decoder.line()? {
                    return Ok(Some(line));
                }
            }
        };
        tokio::time::timeout(idle, line).await.unwrap_or(Err(WireError::TimedOut { what: "waiting for a line" }))
    }

    /// The line before binary data.
    ///
    /// # Errors
    /// [`WireError::Protocol`] when it is another line or announces too much, [`WireError::Closed`] when there is none.
    pub async fn read_octet_header(&mut self) -> Result<OctetHeader, WireError> {
        let line = self.read_line().await?.ok_or(WireError::Closed)?;
        OctetHeader::parse(&line)
    }

    /// The `length` bytes behind a header, piece by piece. When the sink fails, the rest is read all the same, so that the
    /// conversation stays in step, and the inner error tells.
    ///
    /// # Errors
    /// [`WireError`]: the peer closed before the end, sent nothing in time, or the socket failed.
    pub async fn read_body(&mut self, length: u64, sink: &mut Sink<'_>) -> Result<io::Result<()>, WireError> {
        let (mut left, mut outcome) = (length, Ok(()));
        loop {
            left -= self.hand_on(left, &mut outcome, sink);
            if left == 0 {
                return Ok(outcome);
            }
            if !self.receive_in_time().await? {
                return Err(WireError::Closed);
            }
        }
    }

    /// The next bytes of a body of which `left` are to come: as many as have arrived, at least one.
    ///
    /// # Errors
    /// [`WireError`]: the peer closed, sent nothing in time, or the socket failed.
    pub async fn read_piece(&mut self, left: u64) -> Result<Bytes, WireError> {
        if self.decoder.is_empty() && !self.receive_in_time().await? {
            return Err(WireError::Closed);
        }
        Ok(self.decoder.piece(left))
    }

    /// Waits for a frame, then takes all that have arrived, up to about `limit` bytes. None: the peer closed the connection
    /// between two frames. Nothing is lost when the caller stops waiting.
    ///
    /// # Errors
    /// [`WireError`]: a frame is too long or was cut off, nothing came in time, or the socket failed.
    pub async fn read_frames(&mut self, limit: usize) -> Result<Vec<Frame>, WireError> {
        self.gather(limit, true).await
    }

    /// The same without waiting: none may be there.
    ///
    /// # Errors
    /// As [`Reader::read_frames`].
    pub async fn frames_at_hand(&mut self, limit: usize) -> Result<Vec<Frame>, WireError> {
        self.gather(limit, false).await
    }

    async fn gather(&mut self, limit: usize, wait: bool) -> Result<Vec<Frame>, WireError> {
        let (mut frames, mut taken) = (Vec::new(), 0);
        loop {
            while taken < limit
                && let Some(frame) = Frame::take(self.decoder.buffer())?
            {
                taken += frame::HEADER + frame.body.len();
                frames.push(frame);
            }
            let more = if frames.is_empty() && wait {
                self.receive_in_time().await?
            } else if taken < limit {
                // A read that has to wait has taken nothing.
                self.receive().now_or_never().transpose()?.unwrap_or_default()
            } else {
                false
            };
            if !more {
                return if frames.is_empty() && wait && !self.decoder.is_empty() {
                    Err(WireError::Closed)
                } else {
                    Ok(frames)
                };
            }
        }
    }

    /// As [`super::Connection::read_rest`], without sending anything.
    pub async fn read_rest(&mut self, sink: &mut Sink<'_>) -> Result<io::Result<()>, WireError> {
        let mut outcome = Ok(());
        loop {
            self.hand_on(u64::MAX, &mut outcome, sink);
            if outcome.is_err() || !self.receive_in_time().await? {
                return Ok(outcome);
            }
        }
    }

    /// Gives buffered bytes to the sink, unless it has failed before. Returns how many were taken.
    fn hand_on(&mut self, limit: u64, outcome: &mut io::Result<()>, sink: &mut Sink<'_>) -> u64 {
        self.decoder.data(limit, |data| {
            if outcome.is_ok() && !data.is_empty() {
                *outcome = sink(data);
            }
        })
    }

    /// A whole line has arrived already.
    pub(super) fn has_line(&self) -> bool {
        self.decoder.has_line()
    }

    /// Everything that has arrived has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.decoder.is_empty()
    }

    /// Throws away what still comes, until the end or an error, at most `limit` bytes.
    pub(super) async fn discard(&mut self, limit: u64) {
        let mut left = limit;
        while left > 0 && self.receive().await.is_ok_and(|more| more) {
            left -= self.decoder.data(left, |_| ());
        }
    }

    async fn receive_in_time(&mut self) -> Result<bool, WireError> {
        let idle = self.timeouts.idle;
        let received = tokio::time::timeout(idle, self.receive()).await;
        received.unwrap_or(Err(WireError::TimedOut { what: "waiting for data" }))
    }

    /// Reads once; `false` at the end.
    async fn receive(&mut self) -> Result<bool, WireError> {
        let buffer = self.decoder.buffer();
        buffer.reserve(PIECE);
        match self.half.read_buf(buffer).await {
            Ok(length) => Ok(length > 0),
            // The C server closes without the goodbye of TLS. What was cut off in the middle shows as an unfinished line
            // or body.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(WireError::Io { operation: "read from", peer: self.peer.name.clone(), source }),
        }
    }
}

impl Writer {
    /// Writes a line, given with its `\n` or without.
    ///
    /// # Errors
    /// [`WireError::LineTooLong`] when a peer could not read it: nothing is written then, the connection stays usable.
    /// As [`Writer::write`].
    pub async fn write_line(&mut self, line: &[u8]) -> Result<(), WireError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() >= MAX_LINE {
            return Err(WireError::LineTooLong);
        }
        if line.contains(&b'\n') {
            return Err(WireError::Protocol("a line cannot hold a line end".to_owned()));
        }
        self.write(line).await?;
        self.write(b"\n").await
    }

    /// Writes raw bytes.
    ///
    /// # Errors
    /// [`WireError`]: the peer took nothing in time, or the socket failed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for piece in bytes.chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() >= PIECE {
                self.drain().await?;
            }
        }
        Ok(())
    }

    /// Announces and writes `length` bytes of `source`, piece by piece.
    ///
    /// # Errors
    /// As [`Writer::write`]; [`WireError::Io`] also when `source` fails or ends too early. The peer then waits for bytes
    /// that will not come: close the connection.
    pub async fn write_octet_stream(
        &mut self,
        length: u64,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<(), WireError> {
        self.write(&OctetHeader::Length(length).encode()).await?;
        let mut source = source.take(length);
        let mut left = length;
        while left > 0 {
            self.buffer.reserve(PIECE);
            let read = source.read_buf(&mut self.buffer).await.and_then(|read| match read {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                read => Ok(read as u64),
            });
            let peer = &self.peer.name;
            left -= read.map_err(|source| WireError::Io {
                operation: "read the data to be sent to",
                peer: peer.clone(),
                source,
            })?;
            if self.buffer.len() >= PIECE {
                self.drain().await?;
            }
        }
        Ok(())
    }

    /// Sends what has been written.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.drain().await?;
        if self.unflushed {
            in_time(self.timeouts.idle, &self.peer, self.half.flush()).await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Says that nothing more will come: the goodbye of TLS, then the end of the stream.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub(super) async fn close(&mut self) -> Result<(), WireError> {
        self.flush().await?;
        in_time(self.timeouts.idle, &self.peer, self.half.shutdown()).await
    }

    async fn drain(&mut self) -> Result<(), WireError> {
        while !self.buffer.is_empty() {
            self.unflushed = true;
            // The buffer shrinks with every write that succeeds: a caller that stops waiting loses and repeats nothing.
            in_time(self.timeouts.idle, &self.peer, self.half.write_buf(&mut self.buffer)).await.and_then(
                |written| {
                    if written == 0 { Err(WireError::Closed) } else { Ok(()) }
                },
            )?;
        }
        Ok(())
    }
}

/// Waits for a write; none may take longer than the idle time.
async fn in_time<T>(idle: Duration, peer: &Peer, write: impl Future<Output = io::Result<T>>) -> Result<T, WireError> {
    let written = tokio::time::timeout(idle, write).await.map_err(|_| WireError::TimedOut { what: "sending" })?;
    written.map_err(|source| WireError::Io { operation: "write to", peer: peer.name.clone(), source })
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writer").field("peer", &self.peer).finish_non_exhaustive()
    }
}
