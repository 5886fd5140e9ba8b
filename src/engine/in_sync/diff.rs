//! One file of ours against the peer's as a unified diff, made by diff(1), or a line that says why there is none.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;

use tempfile::SpooledTempFile;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::kind::Kind;
use super::{Pair, Trouble, inquiry};
use crate::config::LocalPath;
use crate::engine::{Node, blocking, content};
use crate::fs::BeneathError;
use crate::model::SyncPath;

/// The program, its output format as in the C program (whose `-N` means nothing here: both files are open).
const DIFF: [&str; 2] = ["diff", "-us"];

/// So much of what diff(1) complains about is shown, in bytes.
const COMPLAINT: u64 = 4096;

/// What is known of the peer's file beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Theirs {
    Unknown,
    Missing,
    Known(Kind),
}

/// What is here.
enum Ours {
    Missing,
    Regular(File),
    Other(Kind),
}

/// Writes the diff of one file, the peer's being the old one. `key` is that of a group that shares it with the peer.
///
/// # Errors
/// [`Trouble`]: the peer does not send its content, ours cannot be read, or diff(1) does not work.
pub(super) async fn diff(
    node: &Node,
    pair: &Pair,
    key: &str,
    path: &SyncPath,
    theirs: Theirs,
    output: &mut SpooledTempFile,
) -> Result<(), Trouble> {
    let place = node.config.local(path)?;
    let ours = blocking("open a file", move || open(&place)).await?.map_err(Trouble::Ours)?;
    let labels = [label(&pair.peer, path), label(&pair.my_name, path)];
    let ours = match (ours, theirs) {
        (Ours::Regular(file), Theirs::Unknown | Theirs::Missing | Theirs::Known(Kind::Regular)) => Some(file),
        (Ours::Missing, Theirs::Unknown | Theirs::Missing | Theirs::Known(Kind::Regular)) => None,
        (Ours::Other(kind), Theirs::Unknown) => {
            let why = format!(" is a {kind}: its content is not compared\n");
            return Ok(output.write_all(&[b"File ", &labels[1][..], why.as_bytes()].concat())?);
        }
        (Ours::Other(ours), Theirs::Known(theirs)) if ours == theirs => {
            let why = format!(" differ: each is a {ours}\n");
            let pieces = [b"Files ", &labels[0][..], b" and ", &labels[1], why.as_bytes()];
            return Ok(output.write_all(&pieces.concat())?);
        }
        (ours, theirs) => {
            let (theirs, ours) = (theirs.in_words(), ours.in_words());
            let pieces = [b"File ", &labels[0][..], theirs.as_bytes(), b" while file ", &labels[1], ours.as_bytes()];
            return Ok(output.write_all(&[&pieces.concat()[..], b"\n"].concat())?);
        }
    };
    let theirs = inquiry::content(node, pair, key, path).await?;
    run(&labels.map(OsString::from_vec), theirs, ours, output).await
}

impl Theirs {
    fn in_words(self) -> String {
        match self {
            Self::Unknown | Self::Missing => " does not exist".to_owned(),
            Self::Known(kind) => format!(" is a {kind}"),
        }
    }
}

impl Ours {
    fn in_words(&self) -> String {
        match self {
            Self::Missing => " does not exist".to_owned(),
            Self::Regular(_) => format!(" is a {}", Kind::Regular),
            Self::Other(kind) => format!(" is a {kind}"),
        }
    }
}

fn label(host: &str, path: &SyncPath) -> Vec<u8> {
    [host.as_bytes(), b":", path.as_bytes()].concat()
}

/// Only a regular file is opened: a FIFO would block, a device might do something.
fn open(place: &LocalPath) -> io::Result<Ours> {
    let at = match content::locate(place) {
        Ok(at) => at,
        Err(BeneathError::Io(error)) => return Err(error),
        Err(_) => return Ok(Ours::Missing),
    };
    match at.metadata()? {
        None => Ok(Ours::Missing),
        Some(metadata) if metadata.is_regular() => Ok(Ours::Regular(at.open_regular()?)),
        Some(metadata) => Ok(Ours::Other(Kind::of(&metadata.kind))),
    }
}

/// Runs diff(1) on two open files: no name of ours is ever in its arguments but in the labels.
async fn run(
    labels: &[OsString; 2],
    theirs: File,
    ours: Option<File>,
    output: &mut SpooledTempFile,
) -> Result<(), Trouble> {
    let failed = |source| Trouble::Diff { source };
    let ours_as = match &ours {
        None => OsString::from("/dev/null"),
        Some(file) => descriptor(file).map_err(failed)?,
    };
    let [program, format] = DIFF;
    let label = OsStr::new("--label");
    let mut child = Command::new(program)
        .args([OsStr::new(format), label, &labels[0], OsStr::new("-"), label, &labels[1], &ours_as])
        .stdin(theirs)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut complaint = Vec::new();
    let (copied, heard) = tokio::join!(copy(stdout, output), async {
        let Some(mut stderr) = stderr else { return Ok(()) };
        (&mut stderr).take(COMPLAINT).read_to_end(&mut complaint).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await.map(drop)
    });
    copied?;
    heard.map_err(failed)?;
    let status = child.wait().await.map_err(failed)?;
    if matches!(status.code(), Some(0 | 1)) {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    Err(Trouble::DiffFailed { status: status.to_string(), complaint })
}

/// A name under which another process of ours can open a file that is open here.
fn descriptor(file: &File) -> io::Result<OsString> {
    let name = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    std::fs::metadata(&name)?;
    Ok(name.into())
}

async fn copy(source: Option<impl AsyncRead + Unpin>, output: &mut SpooledTempFile) -> Result<(), Trouble> {
    let Some(mut source) = source else { return Ok(()) };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = source.read(&mut buffer).await.map_err(|source| Trouble::Diff { source })?;
        if length == 0 {
            return Ok(());
        }
        output.write_all(&buffer[..length])?;
    }
}
