//! Reads a large file while the peer still makes the sums of its own: what stayed in its place is known when they are
//! complete, and so is the digest.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::contents::{Content, Contents};
use crate::config::LocalPath;
use crate::delta::stayed::{Bridge, Stayed};

/// A smaller file, in bytes, is not worth a thread.
pub(super) const WORTH_IT: u64 = 8 << 20;

/// A file that is being read. Without it the reading ends.
#[derive(Debug)]
pub(super) struct Scout {
    sums: Sender<Bytes>,
    thread: JoinHandle<io::Result<Found>>,
    interest: Arc<()>,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: Content,
    pub(super) bridge: Bridge,
}

impl Scout {
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start(contents: Arc<Contents>, place: LocalPath) -> io::Result<Self> {
        let (sums, coming) = channel();
        let interest = Arc::new(());
        let is_wanted = Arc::downgrade(&interest);
        let read = move || {
            let file = contents.open(&place)?;
            file.read_ahead();
            read(Watched { file, interest: is_wanted }, &coming)
        };
        let thread = thread::Builder::new().name("scout".to_owned()).spawn(read)?;
        Ok(Self { sums, thread, interest })
    }

    /// Passes on what the peer says of its file.
    pub(super) fn add(&self, sums: Bytes) {
        // A thread that has ended tells why when it is asked what it found.
        let _ = self.sums.send(sums);
    }

    /// What it found, once all sums were passed on and the file was read to its end.
    ///
    /// # Errors
    /// Those of opening and reading the file; sums that make no sense.
    pub(super) fn found(self) -> io::Result<Found> {
        let Self { sums, thread, interest } = self;
        drop(sums);
        let found = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        drop(interest);
        found
    }
}

fn read(mut file: Watched, coming: &Receiver<Bytes>) -> io::Result<Found> {
    let mut stayed = Stayed::default();
    while let Ok(sums) = coming.recv() {
        stayed.add(&sums);
        while stayed.step(&mut file)? {}
    }
    let bridge = stayed.finish(&mut file)?;
    Ok(Found { file: file.file, bridge })
}

/// A file that is read as long as somebody wants it.
struct Watched {
    file: Content,
    interest: Weak<()>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interest.strong_count() == 0 {
            return Err(io::Error::other("nobody wants it any more"));
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::blocks::{self, KEY, Piece};
    use crate::delta::stayed::head;
    use crate::engine::content;

    fn scout(place: &LocalPath) -> Scout {
        Scout::start(Arc::new(Contents::for_peers(1)), place.clone()).unwrap()
    }

    #[test]
    fn what_stayed_and_the_digest_are_known_when_the_sums_are_complete() {
        let scratch = tempfile::tempdir().unwrap();
        let place = LocalPath { root: scratch.path().to_owned(), relative: b"f".to_vec() };
        let mut content = vec![0; 3_000_000];
        getrandom::fill(&mut content).unwrap();
        let mut sums = head(4_096, &[1; KEY]).to_vec();
        blocks::sums(&mut &content[..], 4_096, &[1; KEY], &mut |sum| sums.extend(sum)).unwrap();
        content[1_000_000] ^= 1;
        std::fs::write(scratch.path().join("f"), &content).unwrap();

        let scout = scout(&place);
        sums.chunks(1_000).for_each(|piece| scout.add(Bytes::copy_from_slice(piece)));
        let Found { file, mut bridge } = scout.found().unwrap();
        let (mut literal, mut length) = (0, 0);
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Literal(bytes) => literal += bytes.len() as u64,
            Piece::Copy { length: copied, .. } => length += copied,
        };
        while bridge.step(&mut |buffer, at| file.read_at(buffer, at), &mut take).unwrap() {}
        assert_eq!((literal, literal + length), (4_096, content.len() as u64));
        assert!(!file.has_changed().unwrap());
        assert_eq!(file.digest(), content::digest(&place).unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_one_that_nobody_wants_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let place = LocalPath { root: scratch.path().to_owned(), relative: b"f".to_vec() };
        assert_eq!(scout(&place).found().unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(scratch.path().join("f"), [0; 100_000]).unwrap();
        assert_eq!(scout(&place).found().unwrap_err().kind(), io::ErrorKind::InvalidData, "without sums");
        let Scout { sums, thread, interest } = scout(&place);
        drop((interest, sums));
        assert_eq!(thread.join().unwrap().unwrap_err().kind(), io::ErrorKind::Other);
    }
}
