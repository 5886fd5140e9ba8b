//! Data that has to be complete before it is sent, and data that is used while it arrives.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use bytes::{Buf, Bytes};
use tempfile::{SpooledData, SpooledTempFile};
use tokio::sync::mpsc;

use crate::wire::{Connection, WireError};

/// What waits in memory of one signature, in bytes; a longer one waits on disk.
pub(super) const IN_MEMORY: usize = 1 << 16;

/// Deltas up to this size, in bytes, are complete before they are used.
const SMALL: u64 = 1 << 20;

/// Pieces of a larger one that may wait, each as large as what is read from a connection at a time.
const WAITING: usize = 16;

/// A signature, complete.
#[derive(Debug)]
pub(super) struct Spooled {
    length: u64,
    data: SpooledData,
}

impl Spooled {
    pub(super) fn new(mut file: SpooledTempFile) -> io::Result<Self> {
        Ok(Self { length: file.seek(SeekFrom::End(0))?, data: file.into_inner() })
    }

    /// Sends it as an octet-stream.
    pub(super) async fn send(&mut self, connection: &mut Connection) -> Result<(), WireError> {
        let length = self.length;
        match &mut self.data {
            SpooledData::InMemory(data) => connection.write_octet_stream(length, &mut &data.get_ref()[..]).await,
            SpooledData::OnDisk(file) => {
                let start = file.seek(SeekFrom::Start(0)).and_then(|_| file.try_clone());
                let operation = "read a spooled signature for";
                let failed = |source| WireError::Io { operation, peer: connection.peer_name().to_owned(), source };
                let mut file = tokio::fs::File::from_std(start.map_err(failed)?);
                connection.write_octet_stream(length, &mut file).await
            }
        }
    }
}

/// A delta as it is read by those who apply it. It ends with an error when not all of it arrived.
pub(super) struct Incoming {
    reader: Box<dyn Read + Send>,
    is_complete: bool,
}

impl Incoming {
    /// Reading it waits for nobody.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Incoming").field("is_complete", &self.is_complete).finish_non_exhaustive()
    }
}

/// Brings a delta of `length` bytes to a reader: a small one before it reads, a larger one meanwhile, which takes a thread of
/// its own.
pub(super) async fn receive(connection: &mut Connection, length: u64) -> Result<(Incoming, Feed), WireError> {
    if length > SMALL {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let reader = Box::new(Pieces { waiting, rest: Bytes::new() });
        return Ok((Incoming { reader, is_complete: false }, Feed { pieces: Some(pieces), left: length }));
    }
    let mut data = Vec::new();
    while (data.len() as u64) < length {
        data.extend_from_slice(&connection.read_piece(length - data.len() as u64).await?);
    }
    let reader = Box::new(Cursor::new(data));
    Ok((Incoming { reader, is_complete: true }, Feed { pieces: None, left: 0 }))
}

/// The other end of a delta that is read.
#[derive(Debug)]
pub(super) struct Feed {
    pieces: Option<mpsc::Sender<io::Result<Bytes>>>,
    left: u64,
}

impl Feed {
    /// Passes on what arrives, until all is there. What nobody reads any more is read from the peer all the same, so that
    /// the conversation stays in step.
    pub(super) async fn run(mut self, connection: &mut Connection) -> Result<(), WireError> {
        while self.left > 0 {
            let piece = connection.read_piece(self.left).await;
            let passed = match &piece {
                Ok(piece) => Ok(piece.clone()),
                Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            };
            if let Some(pieces) = &self.pieces
                && pieces.send(passed).await.is_err()
            {
                self.pieces = None;
            }
            self.left -= piece?.len() as u64;
        }
        Ok(())
    }
}

/// Pieces as one stream.
struct Pieces {
    waiting: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.waiting.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
