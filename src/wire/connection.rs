//! One conversation with a peer: lines and octet streams, buffered both ways, under time limits.
//!
//! It knows how bytes travel, not what they mean. Memory is bounded whatever the peer sends: a body is handed on piece
//! by piece. Before it waits for the peer, a connection sends what has been written to it; the two halves of
//! [`Connection::split`] are for a client that reads and writes at once, and there flushing is the writer's business.

use std::future::Future;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::Frame;
use super::half::{self, Peer, Reader, Sink, Stream, Writer};
use super::pipe::Pipe;
use super::socket::Socket;
use super::{Identity, OctetHeader, TlsError, WireError};

/// How long and how much we listen after our end is closed. A socket closed with unread input is reset, and the peer
/// may then never read our last answer.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 1 << 20);

/// How long a peer may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For each address of a peer, and for looking its name up.
    pub connect: Duration,
    /// For the whole TLS handshake.
    pub handshake: Duration,
    /// For the next line to be complete, and for each piece of data read or written.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// Long enough for anybody. Programs go by their configuration.
    fn default() -> Self {
        let long = Duration::from_secs(60);
        Self { connect: long, handshake: long, idle: long }
    }
}

/// A connection to a peer: plain TCP, TLS, or an inherited pipe or socket.
#[derive(Debug)]
pub struct Connection {
    reader: Reader,
    writer: Writer,
}

impl Connection {
    /// Talks over any stream. `address` is the other side's, where there is one; IPv4 within IPv6 counts as IPv4.
    pub fn new(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        address: Option<IpAddr>,
        timeouts: Timeouts,
    ) -> Self {
        let address = address.map(|address| address.to_canonical());
        let name = address.map_or_else(|| "the peer".to_owned(), |address| address.to_string());
        Self::over(Box::pin(stream), Peer { name, address, local: None, chain: Vec::new() }, timeouts)
    }

    /// Gives the peer its name for messages; `local` is where we connected from.
    #[must_use]
    pub fn named(mut self, name: &str, local: Option<IpAddr>) -> Self {
        let (address, chain) = (self.peer_address(), self.reader.peer.chain.clone());
        let peer = Arc::new(Peer { name: name.to_owned(), address, local, chain });
        self.reader.peer = Arc::clone(&peer);
        self.writer.peer = peer;
        self
    }

    /// Talks over stdin and stdout (`-i`), and takes them away from everybody else in this process: what is printed or
    /// read by mistake, here or in a child, cannot get into the conversation. `ssh_client` is the variable
    /// `SSH_CLIENT`: its first word is the peer's address where stdin is no network socket.
    ///
    /// # Errors
    /// [`WireError::Io`] when the descriptors cannot be used.
    pub fn inherited(ssh_client: Option<&str>, timeouts: Timeouts) -> Result<Self, WireError> {
        let take = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
            let taken = (stdin.try_clone_to_owned()?, stdout.try_clone_to_owned()?);
            let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            Ok(taken)
        };
        take()
            .and_then(|(input, output)| Self::over_descriptors(input, output, ssh_client, timeouts))
            .map_err(|source| WireError::Io { operation: "take over", peer: "stdin and stdout".to_owned(), source })
    }

    /// Talks over two descriptors, which may be one and the same socket, without changing their mode.
    ///
    /// # Errors
    /// When the threads that read and write pipes cannot be started, or a socket cannot be waited for.
    pub fn over_descriptors(
        input: OwnedFd,
        output: OwnedFd,
        ssh_client: Option<&str>,
        timeouts: Timeouts,
    ) -> io::Result<Self> {
        let socket = TcpStream::from(input.as_fd().try_clone_to_owned()?);
        let address = socket.peer_addr().map(|address| address.ip()).ok();
        let address = address.or_else(|| ssh_client?.split_ascii_whitespace().next()?.parse().ok());
        Ok(if Socket::are(&input, &output) {
            Self::new(Socket::new(input, output)?, address, timeouts)
        } else {
            Self::new(Pipe::new(input, output)?, address, timeouts)
        })
    }

    fn over(stream: Stream, peer: Peer, timeouts: Timeouts) -> Self {
        let (reader, writer) = half::split(stream, peer, timeouts);
        Self { reader, writer }
    }

    /// The next line, without its line end; `None`: the peer closed the connection between two lines.
    ///
    /// # Errors
    /// [`WireError`]: the line is too long, did not come in time or was cut off, or the socket failed. What was written
    /// before could not be sent.
    pub async fn read_line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        if !self.has_buffered_input() {
            self.flush().await?;
        }
        self.reader.read_line().await
    }

    /// A whole line has arrived already: answers may wait for it and leave together.
    pub fn has_buffered_input(&self) -> bool {
        self.reader.has_line()
    }

    /// As [`Writer::write_line`].
    pub async fn write_line(&mut self, line: &[u8]) -> Result<(), WireError> {
        self.writer.write_line(line).await
    }

    /// As [`Writer::write`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.writer.write(bytes).await
    }

    /// As [`Writer::write_octet_stream`].
    pub async fn write_octet_stream(
        &mut self,
        length: u64,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<(), WireError> {
        self.writer.write_octet_stream(length, source).await
    }

    /// Sends what has been written.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.writer.flush().await
    }

    /// As [`Reader::read_octet_header`].
    pub async fn read_octet_header(&mut self) -> Result<OctetHeader, WireError> {
        self.flush().await?;
        self.reader.read_octet_header().await
    }

    /// As [`Reader::read_frames`].
    pub async fn read_frames(&mut self, limit: usize) -> Result<Vec<Frame>, WireError> {
        self.flush().await?;
        self.reader.read_frames(limit).await
    }

    /// As [`Reader::frames_at_hand`].
    pub async fn frames_at_hand(&mut self, limit: usize) -> Result<Vec<Frame>, WireError> {
        self.reader.frames_at_hand(limit).await
    }

    /// As [`Reader::read_body`].
    pub async fn read_body(&mut self, length: u64, sink: &mut Sink<'_>) -> Result<io::Result<()>, WireError> {
        self.flush().await?;
        self.reader.read_body(length, sink).await
    }

    /// As [`Reader::read_piece`].
    pub async fn read_piece(&mut self, left: u64) -> Result<Bytes, WireError> {
        self.flush().await?;
        self.reader.read_piece(left).await
    }

    /// Everything until the peer closes: the content in the answer to TYPE. The inner error is the sink's.
    ///
    /// # Errors
    /// [`WireError`]: nothing came in time, or the socket failed.
    pub async fn read_rest(&mut self, sink: &mut Sink<'_>) -> Result<io::Result<()>, WireError> {
        self.flush().await?;
        self.reader.read_rest(sink).await
    }

    /// Where the peer is; `None` on a pipe that nobody gave an address.
    pub fn peer_address(&self) -> Option<IpAddr> {
        self.reader.peer.address
    }

    /// As [`Reader::local_address`].
    pub fn local_address(&self) -> Option<IpAddr> {
        self.reader.local_address()
    }

    /// What the peer is called in messages: its address, unless it was given a name.
    pub fn peer_name(&self) -> &str {
        &self.reader.peer.name
    }

    /// The certificate the peer showed, then those that lead to who signed it; empty without TLS.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.reader.peer.chain
    }

    pub fn is_tls(&self) -> bool {
        !self.reader.peer.chain.is_empty()
    }

    /// The TLS handshake after `OK (activating_ssl).` has been written.
    ///
    /// # Errors
    /// [`WireError::Tls`]: the client sent something behind its `SSL` line, the handshake failed, or the client has no
    /// certificate.
    pub async fn start_tls_server(self, identity: &Identity) -> Result<Self, WireError> {
        let acceptor = identity.acceptor();
        self.upgrade(async |stream| {
            let stream = acceptor.accept(stream).await?;
            let chain = stream.get_ref().1.peer_certificates().map(owned).unwrap_or_default();
            Ok((Box::pin(stream) as Stream, chain))
        })
        .await
    }

    /// The TLS handshake after `OK (activating_ssl).` has been read: the C program reads ahead, so nothing of it may be
    /// sent along with the `SSL` line.
    ///
    /// # Errors
    /// [`WireError::Tls`]: the server sent something behind its answer, or the handshake failed.
    pub async fn start_tls_client(self, identity: &Identity) -> Result<Self, WireError> {
        let connector = identity.connector();
        self.upgrade(async |stream| {
            let stream = connector.connect(super::tls::server_name(), stream).await?;
            let chain = stream.get_ref().1.peer_certificates().map(owned).unwrap_or_default();
            Ok((Box::pin(stream) as Stream, chain))
        })
        .await
    }

    async fn upgrade<F>(mut self, handshake: impl FnOnce(Stream) -> F) -> Result<Self, WireError>
    where
        F: Future<Output = io::Result<(Stream, Vec<CertificateDer<'static>>)>>,
    {
        self.flush().await?;
        // Bytes in the clear would otherwise count as sent by the peer that the certificate names.
        if !self.reader.is_drained() {
            return Err(TlsError::PlaintextBeforeHandshake.into());
        }
        if self.is_tls() {
            return Err(WireError::Protocol("TLS is active already".to_owned()));
        }
        let (name, address, timeouts) = (self.peer_name().to_owned(), self.peer_address(), self.reader.timeouts);
        let local = self.reader.peer.local;
        let stream = half::unsplit(self.reader, self.writer);
        let (stream, chain) = tokio::time::timeout(timeouts.handshake, handshake(stream))
            .await
            .map_err(|_| WireError::TimedOut { what: "TLS handshake" })?
            .map_err(|source| TlsError::Handshake { peer: name.clone(), source })?;
        // Both verifiers demand one, so its absence would be a fault of ours: it must never pass for a plain session.
        if chain.is_empty() {
            return Err(TlsError::Setup("the peer showed no certificate".to_owned()).into());
        }
        Ok(Self::over(stream, Peer { name, address, local, chain }, timeouts))
    }

    /// Ends our side: sends what is left, says goodbye in TLS, closes. The C client waits for that.
    pub async fn shutdown(self) {
        self.end(LINGER.0).await;
    }

    /// Ends a client's side and waits until the server has closed too: by then it has run its actions. `false`: it has
    /// not within the time that a session may be silent.
    pub async fn finish(self) -> bool {
        let idle = self.reader.timeouts.idle;
        self.end(idle).await
    }

    async fn end(mut self, linger: Duration) -> bool {
        // A peer that is gone already cannot be told.
        self.writer.close().await.is_err() || tokio::time::timeout(linger, self.reader.discard(LINGER.1)).await.is_ok()
    }

    /// The two halves, for reading and writing at once: a client that sends many requests without reading the answers
    /// would wait for ever, as would the server.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// The two halves of one connection again.
    ///
    /// # Panics
    /// When they are halves of different connections.
    pub fn unite(reader: Reader, writer: Writer) -> Self {
        assert!(half::are_a_pair(&reader, &writer), "halves of different connections");
        Self { reader, writer }
    }
}

fn owned(chain: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|certificate| certificate.clone().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::MAX_LINE;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// A connection over a pipe of the given size, and the other end.
    fn connected(size: usize) -> (Connection, DuplexStream) {
        let (ours, theirs) = duplex(size);
        (Connection::new(ours, None, Timeouts::default()), theirs)
    }

    /// A sink that keeps what it is given.
    fn collect(into: &mut Vec<u8>) -> impl FnMut(&[u8]) -> io::Result<()> + '_ {
        |data| std::io::Write::write_all(into, data)
    }

    #[tokio::test]
    async fn answers_wait_for_the_end_of_what_has_arrived() {
        let (mut ours, mut theirs) = connected(1 << 16);
        theirs.write_all(b"one\r\ntwo\n").await.unwrap();
        assert_eq!(ours.read_line().await.unwrap(), Some(b"one".to_vec()));
        ours.write_line(b"first").await.unwrap();
        assert!(ours.has_buffered_input());
        assert_eq!(ours.read_line().await.unwrap(), Some(b"two".to_vec()));
        ours.write_line(b"second\n").await.unwrap();
        assert!(!ours.has_buffered_input());
        // Nobody calls flush: waiting for the next line does.
        let mut answers = [0; 13];
        let (line, read) = tokio::join!(ours.read_line(), async {
            let read = theirs.read_exact(&mut answers).await.map(drop);
            theirs.shutdown().await.and(read)
        });
        read.unwrap();
        assert_eq!((line.unwrap(), &answers), (None, b"first\nsecond\n"));
    }

    #[tokio::test]
    async fn bodies_pass_in_both_directions_and_stay_in_step() {
        let (mut ours, theirs) = connected(100);
        let mut peer = Connection::new(theirs, None, Timeouts::default());
        let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (sent, received) = tokio::join!(
            async {
                ours.write_octet_stream(content.len() as u64, &mut content.as_slice()).await?;
                ours.write_octet_stream(3, &mut &b"a\nb"[..]).await?;
                ours.write_line(b"SIG k f").await?;
                ours.flush().await
            },
            async {
                let mut whole = Vec::new();
                let OctetHeader::Length(length) = peer.read_octet_header().await? else { panic!("no length") };
                peer.read_body(length, &mut collect(&mut whole)).await?.unwrap();
                assert_eq!(peer.read_octet_header().await?, OctetHeader::Length(3));
                let failed = peer.read_body(3, &mut |_| Err(io::ErrorKind::StorageFull.into())).await?;
                assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
                assert_eq!(peer.read_line().await?, Some(b"SIG k f".to_vec()));
                Ok::<_, WireError>(whole)
            }
        );
        sent.unwrap();
        assert_eq!(received.unwrap(), content);
    }

    #[tokio::test]
    async fn what_is_cut_off_is_an_error() {
        let (mut ours, mut theirs) = connected(100);
        theirs.write_all(b"octet-stream 10\nhalf").await.unwrap();
        drop(theirs);
        assert_eq!(ours.read_octet_header().await.unwrap(), OctetHeader::Length(10));
        assert!(matches!(ours.read_body(10, &mut |_| Ok(())).await, Err(WireError::Closed)));

        let (mut ours, mut theirs) = connected(100);
        theirs.write_all(b"DEL key /a").await.unwrap();
        drop(theirs);
        assert!(matches!(ours.read_line().await, Err(WireError::Closed)), "half a command is none");
    }

    #[tokio::test]
    async fn content_without_a_length_ends_with_the_connection() {
        let (mut ours, mut theirs) = connected(100);
        theirs.write_all(b"OK (data_follows).\nsome\ncontent").await.unwrap();
        drop(theirs);
        ours.read_line().await.unwrap();
        let mut content = Vec::new();
        ours.read_rest(&mut collect(&mut content)).await.unwrap().unwrap();
        assert_eq!(content, b"some\ncontent");
    }

    #[tokio::test]
    async fn lines_without_an_end_are_refused_both_ways() {
        let (mut ours, mut theirs) = connected(1 << 20);
        theirs.write_all(&vec![b'x'; 1 << 18]).await.unwrap();
        assert!(matches!(ours.read_line().await, Err(WireError::LineTooLong)));
        assert!(matches!(ours.write_line(&[b'x'; MAX_LINE]).await, Err(WireError::LineTooLong)));
        assert!(matches!(ours.write_line(b"BYE\nDEL").await, Err(WireError::Protocol(_))));
        ours.write_line(&[b'x'; MAX_LINE - 1]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up() {
        let (mut ours, mut theirs) = connected(1000);
        let started = tokio::time::Instant::now();
        theirs.write_all(b"octet-stream 10\nsome").await.unwrap();
        ours.read_octet_header().await.unwrap();
        let body = ours.read_body(10, &mut |_| Ok(())).await;
        assert!(matches!(body, Err(WireError::TimedOut { what: "waiting for data" })));
        theirs.write_all(b"half a li").await.unwrap();
        assert!(matches!(ours.read_line().await, Err(WireError::TimedOut { what: "waiting for a line" })));
        let sent = ours.write_octet_stream(1 << 20, &mut tokio::io::repeat(0)).await;
        assert!(matches!(sent, Err(WireError::TimedOut { what: "sending" })));
        assert_eq!(started.elapsed().as_secs(), 3 * Timeouts::default().idle.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_does_not_wait_for_ever() {
        let made = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        let identity = Identity::load(&made.join("p256.crt"), &made.join("p256.key"), true).unwrap();
        let started = tokio::time::Instant::now();
        let (server, _silent) = connected(1000);
        let refused = server.start_tls_server(&identity).await;
        assert!(matches!(refused, Err(WireError::TimedOut { what: "TLS handshake" })));
        assert_eq!(started.elapsed().as_secs(), Timeouts::default().handshake.as_secs());
    }

    #[tokio::test]
    async fn five_megabytes_of_requests_do_not_deadlock_a_client_that_reads_along() {
        let (ours, theirs) = connected(4096);
        let mut server = Connection::new(theirs, None, Timeouts::default());
        let request = [b"SIG k ".as_slice(), &[b'f'; 1000]].concat();
        let count = 5000;
        let (mut reader, mut writer) = ours.split();
        let answer = request.clone();
        let serve = async move {
            while server.read_line().await?.is_some() {
                server.write_line(&answer).await?;
            }
            server.shutdown().await;
            Ok::<_, WireError>(())
        };
        let send = async {
            for _ in 0..count {
                writer.write_line(&request).await?;
            }
            writer.flush().await.map(|()| writer)
        };
        let receive = async {
            for _ in 0..count {
                reader.read_line().await?.ok_or(WireError::Closed)?;
            }
            Ok::<_, WireError>(reader)
        };
        let client = async {
            let (writer, reader) = tokio::try_join!(send, receive)?;
            Connection::unite(reader, writer).finish().await;
            Ok::<_, WireError>(())
        };
        let (serving, done) = tokio::join!(serve, client);
        serving.unwrap();
        done.unwrap();
    }

    #[tokio::test]
    async fn the_address_comes_from_the_socket_or_from_ssh() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let over = |input: OwnedFd, output: OwnedFd, ssh: Option<&str>| {
            Connection::over_descriptors(input, output, ssh, Timeouts::default()).unwrap().peer_address()
        };
        let ssh = Some("192.0.2.7 50000 22");
        let localhost = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(over(server.try_clone().unwrap().into(), server.into(), ssh), localhost);
        drop(client);
        let (input, output) = (io::pipe().unwrap(), io::pipe().unwrap());
        assert_eq!(over(input.0.into(), output.1.into(), ssh), Some(IpAddr::from([192, 0, 2, 7])));
        let (input, output) = (io::pipe().unwrap(), io::pipe().unwrap());
        assert_eq!(over(input.0.into(), output.1.into(), None), None);
    }
}
