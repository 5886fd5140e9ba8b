//! SHA-256 of what passes by. Of a large file it is made by a thread of its own: it takes as long as all else that is done
//! with the content.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

/// What is hashed without a thread, in bytes: it is not worth one.
const SMALL: usize = 256 * 1024;

/// Bytes that are handed over at a time, and how many such pieces may wait.
const PIECE: (usize, usize) = (256 * 1024, 4);

/// Hashes what passes through it: a file that is read, or one that is written.
#[derive(Debug)]
pub struct Hashing<F> {
    file: F,
    hash: Hash,
}

impl<F> Hashing<F> {
    #[must_use]
    pub fn new(file: F) -> Self {
        Self { file, hash: Hash::Here { hash: Sha256::new(), length: 0, alone: false } }
    }

    /// However large it becomes.
    #[must_use]
    pub fn without_thread(file: F) -> Self {
        Self { file, hash: Hash::Here { hash: Sha256::new(), length: 0, alone: true } }
    }

    #[must_use]
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Of what has passed.
    #[must_use]
    pub fn digest(self) -> [u8; 32] {
        self.finish().1
    }

    /// The file, and the digest of what has passed.
    #[must_use]
    pub fn finish(self) -> (F, [u8; 32]) {
        let digest = match self.hash {
            Hash::Here { hash, .. } => hash.finalize().into(),
            Hash::There(helper) => helper.finish(),
        };
        (self.file, digest)
    }
}

impl<F: Read> Read for Hashing<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

impl<F: Write> Write for Hashing<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[derive(Debug)]
enum Hash {
    Here {
        hash: Sha256,
        /// In bytes, of what has passed.
        length: usize,
        /// It stays here.
        alone: bool,
    },
    There(Helper),
}

impl Hash {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Here { hash, length, alone } => {
                hash.update(bytes);
                *length += bytes.len();
                // Without a thread it takes longer.
                if *length > SMALL
                    && !*alone
                    && let Ok(helper) = Helper::start(hash)
                {
                    *self = Self::There(helper);
                }
            }
            Self::There(helper) => helper.update(bytes),
        }
    }
}

/// The thread that hashes, and the piece that it gets next.
#[derive(Debug)]
struct Helper {
    piece: Vec<u8>,
    pieces: SyncSender<Vec<u8>>,
    used: Receiver<Vec<u8>>,
    thread: JoinHandle<[u8; 32]>,
}

impl Helper {
    fn start(hash: &Sha256) -> io::Result<Self> {
        let (pieces, waiting) = sync_channel(PIECE.1);
        let (back, used) = channel();
        let hash = hash.clone();
        let thread = thread::Builder::new().name("sha256".to_owned()).spawn(move || hash_all(hash, &waiting, &back))?;
        Ok(Self { piece: Vec::with_capacity(PIECE.0), pieces, used, thread })
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PIECE.0 - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            if self.piece.len() == PIECE.0 {
                let empty = self.used.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE.0));
                self.send(empty);
            }
            bytes = later;
        }
    }

    /// Hands the piece over.
    fn send(&mut self, next: Vec<u8>) {
        // A thread that is gone has panicked: `finish` tells.
        let _ = self.pieces.send(std::mem::replace(&mut self.piece, next));
    }

    fn finish(mut self) -> [u8; 32] {
        self.send(Vec::new());
        let Self { pieces, thread, .. } = self;
        drop(pieces);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn hash_all(mut hash: Sha256, pieces: &Receiver<Vec<u8>>, back: &Sender<Vec<u8>>) -> [u8; 32] {
    while let Ok(mut piece) = pieces.recv() {
        hash.update(&piece);
        piece.clear();
        // Nobody needs it any more at the end.
        let _ = back.send(piece);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_who_hashes() {
        for length in [0, 1, SMALL, SMALL + 1, SMALL + PIECE.0, 2_000_001] {
            let content: Vec<u8> = (0..length).map(|number| (number % 251).to_le_bytes()[0]).collect();
            let expected: [u8; 32] = Sha256::digest(&content).into();
            for step in [1000, PIECE.0 + 7] {
                let (mut reading, mut read) = (Hashing::new(&content[..]), Vec::new());
                let mut buffer = vec![0; step];
                while let length @ 1.. = reading.read(&mut buffer).unwrap() {
                    read.extend_from_slice(&buffer[..length]);
                }
                assert!(read == content);
                assert_eq!(reading.digest(), expected, "{length}");
                let mut writing = Hashing::new(Vec::new());
                content.chunks(step).for_each(|piece| writing.write_all(piece).unwrap());
                assert!(*writing.file() == content);
                assert_eq!(writing.digest(), expected, "{length}");
            }
        }
    }
}
