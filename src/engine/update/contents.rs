//! What was read in this run, for the peers that come later: all of them get the same files at about the same time.
//! Synchronous, as what reads files is.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::config::LocalPath;
use crate::engine::content::{self, Hashing};
use crate::fs::{self, Locator};
use crate::model::{FileKind, Metadata, Timestamp};

/// Larger files, in bytes, are read for each peer; their digests are kept.
const SMALL: u64 = 64 << 10;

/// Contents that are kept, in bytes.
const ROOM: usize = 2 << 20;

/// Digests of larger files that are kept.
const DIGESTS: usize = 4_096;

/// The contents of small files and the digests of larger ones, each with the state in which it was read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Somebody else will ask.
    are_shared: bool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Who comes first reads, and the others wait for it.
    small: HashMap<PathBuf, Arc<Mutex<Option<Small>>>>,
    /// In the order in which they were read, with their sizes.
    order: VecDeque<(PathBuf, usize)>,
    bytes: usize,
    digests: HashMap<PathBuf, (Metadata, [u8; 32])>,
}

/// A small file that did not change while it was read.
#[derive(Debug, Clone)]
struct Small {
    metadata: Metadata,
    content: Bytes,
    digest: [u8; 32],
}

/// A regular file, to be read once.
#[derive(Debug)]
pub(super) struct Content {
    /// Its state before it was read.
    pub(super) metadata: Metadata,
    /// No change since would have left that state as it was.
    is_settled: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Kept(Cursor<Bytes>, [u8; 32]),
    Known(File, [u8; 32]),
    New(Hashing<File>),
}

impl Contents {
    /// For so many peers: one alone needs nothing to be kept.
    pub(super) fn for_peers(number: usize) -> Self {
        Self { are_shared: number > 1, ..Self::default() }
    }

    /// Opens a file, one of many in order, or takes what is known of it.
    ///
    /// # Errors
    /// Those of opening it, and of reading a small one.
    pub(super) fn open(&self, locator: &mut Locator, place: &LocalPath) -> io::Result<Content> {
        let mut read = || Content::of(content::open_with(locator, place)?);
        if !self.are_shared {
            return read();
        }
        let path = place.absolute();
        let now = content::locate(place).ok().and_then(|at| at.metadata().ok()).flatten();
        let Some(now) = now else { return read() };
        let FileKind::Regular { size } = now.kind else { return read() };
        if size > SMALL {
            let mut content = read()?;
            if let (Some((metadata, digest)), Body::New(file)) = (self.kept().digests.get(&path), &content.body)
                && *metadata == content.metadata
            {
                content.body = Body::Known(file.file().try_clone()?, *digest);
            }
            return Ok(content);
        }
        let slot = Arc::clone(self.kept().small.entry(path.clone()).or_default());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(small) = slot.as_ref().filter(|small| small.metadata == now) {
            return Ok(small.clone().into());
        }
        let mut content = read()?;
        let mut bytes = Vec::new();
        content.by_ref().take(SMALL + 1).read_to_end(&mut bytes)?;
        let Body::New(file) = content.body else { return read() };
        let is_same = content.is_settled && fs::meta::metadata_of(file.file())? == content.metadata;
        if bytes.len() as u64 > SMALL || !is_same {
            return read();
        }
        let small = Small { metadata: content.metadata, content: bytes.into(), digest: file.digest() };
        *slot = Some(small.clone());
        drop(slot);
        self.kept().make_room(path, small.content.len());
        Ok(small.into())
    }

    /// Keeps the digest of a file that was read to its end and did not change meanwhile.
    pub(super) fn learn(&self, place: &LocalPath, metadata: &Metadata, digest: [u8; 32]) {
        let FileKind::Regular { size } = metadata.kind else { return };
        let mut kept = self.kept();
        if self.are_shared && size > SMALL && kept.digests.len() < DIGESTS {
            kept.digests.insert(place.absolute(), (metadata.clone(), digest));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Notes what was read, and forgets the oldest when that is too much.
    fn make_room(&mut self, path: PathBuf, size: usize) {
        self.bytes += size;
        self.order.push_back((path, size));
        while self.bytes > ROOM
            && let Some((oldest, size)) = self.order.pop_front()
        {
            self.small.remove(&oldest);
            self.bytes -= size;
        }
    }
}

impl From<Small> for Content {
    fn from(small: Small) -> Self {
        Self { metadata: small.metadata, is_settled: true, body: Body::Kept(Cursor::new(small.content), small.digest) }
    }
}

impl Content {
    /// A file that was changed a moment ago is given the moment until another change would show.
    fn of(file: File) -> io::Result<Self> {
        let mut metadata = fs::meta::metadata_of(&file)?;
        if let Some(moment) = until_settled(metadata.ctime, SystemTime::now()) {
            thread::sleep(moment);
            metadata = fs::meta::metadata_of(&file)?;
        }
        let is_settled = until_settled(metadata.ctime, SystemTime::now()).is_none();
        Ok(Self { metadata, is_settled, body: Body::New(Hashing::new(file)) })
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.metadata.size()
    }

    /// It is about to be read from its start to its end.
    pub(super) fn read_ahead(&self) {
        match &self.body {
            Body::Kept(..) => {}
            Body::Known(file, _) => fs::read_ahead(file),
            Body::New(file) => fs::read_ahead(file.file()),
        }
    }

    /// Whether it is another than when it was opened, or may be.
    ///
    /// # Errors
    /// Those of stat.
    pub(super) fn has_changed(&self) -> io::Result<bool> {
        let file = match &self.body {
            Body::Kept(..) => return Ok(false),
            Body::Known(file, _) => file,
            Body::New(file) => file.file(),
        };
        Ok(!self.is_settled || fs::meta::metadata_of(file)? != self.metadata)
    }

    /// Whether its digest is known without reading it.
    pub(super) fn is_hashed(&self) -> bool {
        !matches!(self.body, Body::New(_))
    }

    /// SHA-256 of all of it, when it was read to its end or is hashed already.
    pub(super) fn digest(self) -> [u8; 32] {
        match self.body {
            Body::Kept(_, digest) | Body::Known(_, digest) => digest,
            Body::New(file) => file.digest(),
        }
    }
}

/// Clocks of files have ticks. This is the longest of those that have nanoseconds…
const TICK: Duration = Duration::from_millis(10);

/// … and of those that count whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(1);

/// How long a file that was changed at `ctime` might still be changed without another ctime. One from the future, as a
/// clock that was set back leaves it, is not waited for.
fn until_settled(ctime: Timestamp, now: SystemTime) -> Option<Duration> {
    let tick = if ctime.nanoseconds == 0 { COARSE_TICK } else { TICK };
    let changed = UNIX_EPOCH + Duration::new(u64::try_from(ctime.seconds).ok()?, ctime.nanoseconds);
    let left = (changed + tick).duration_since(now).ok()?;
    (!left.is_zero() && left <= tick).then_some(left)
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.body {
            Body::Kept(content, _) => content.read(buffer),
            Body::Known(file, _) => file.read(buffer),
            Body::New(file) => file.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(tempfile::TempDir);

    impl Scratch {
        fn put(&self, name: &str, content: &[u8]) -> LocalPath {
            std::fs::write(self.0.path().join(name), content).unwrap();
            LocalPath::within(self.0.path(), name)
        }
    }

    /// What a peer gets, and whether the disk was asked for it.
    fn read(contents: &Contents, place: &LocalPath) -> (Vec<u8>, [u8; 32], bool) {
        let mut content = contents.open(&mut Locator::default(), place).unwrap();
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        assert!(!content.has_changed().unwrap());
        let hashed = matches!(content.body, Body::New(_));
        let (metadata, digest) = (content.metadata.clone(), content.digest());
        contents.learn(place, &metadata, digest);
        (bytes, digest, hashed)
    }

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        let contents = Contents::for_peers(8);
        for (name, size, hashed) in [("small", 1000, false), ("large", 100_000, true)] {
            let place = scratch.put(name, &vec![1; size]);
            let first = read(&contents, &place);
            assert_eq!((first.0.len(), first.2), (size, hashed));
            for _ in 1..8 {
                assert!(read(&contents, &place) == (vec![1; size], first.1, false));
            }
            scratch.put(name, &vec![2; size + 1]);
            let changed = read(&contents, &place);
            assert!(changed.0 == vec![2; size + 1] && changed.1 != first.1);
            assert_eq!(changed.1, content::digest(&place).unwrap());
        }
        std::fs::remove_file(scratch.0.path().join("small")).unwrap();
        assert!(contents.open(&mut Locator::default(), &scratch.put("other", b"")).is_ok());
        let gone = LocalPath::within(scratch.0.path(), "small");
        assert!(contents.open(&mut Locator::default(), &gone).is_err(), "what is gone is not in the cache");
    }

    #[test]
    fn a_file_that_was_just_changed_is_given_a_moment() {
        let ctime = |nanoseconds| Timestamp { seconds: 1_000, nanoseconds };
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        assert_eq!(until_settled(ctime(5_000_000), at(1_000_007)), Some(Duration::from_millis(8)));
        assert_eq!(until_settled(ctime(5_000_000), at(1_000_015)), None);
        // Whole seconds.
        assert_eq!(until_settled(ctime(0), at(1_000_400)), Some(Duration::from_millis(600)));
        assert_eq!(until_settled(ctime(0), at(1_001_000)), None);
        // The clock was set back.
        assert_eq!(until_settled(ctime(5_000_000), at(999_000)), None);
        assert_eq!(until_settled(ctime(0), at(900_000)), None);
        assert_eq!(until_settled(Timestamp { seconds: -5, nanoseconds: 1 }, at(0)), None);
    }

    /// Who writes all the time may do so within the tick in which we look.
    #[test]
    fn a_file_that_never_settles_may_have_changed() {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        let place = scratch.put("f", b"content");
        let mut content = Contents::for_peers(1).open(&mut Locator::default(), &place).unwrap();
        assert!(!content.has_changed().unwrap());
        content.is_settled = false;
        assert!(content.has_changed().unwrap());
    }

    #[test]
    fn memory_is_bounded() {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        let contents = Contents::for_peers(2);
        for number in 0..ROOM / (60 << 10) + 20 {
            read(&contents, &scratch.put(&number.to_string(), &vec![0; 60 << 10]));
        }
        let kept = contents.kept();
        assert!(kept.bytes <= ROOM && kept.bytes > ROOM / 2);
        assert_eq!(kept.small.len(), kept.order.len());
    }
}
