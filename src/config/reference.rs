//! Runs the C program on a scratch directory, for tests that compare with it. Where it is not installed they fail.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PROGRAM: &str = "/usr/sbin/csync2";

pub(crate) struct Answer {
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: i32,
}

pub(crate) fn run(scratch: &Scratch, my_name: &str, arguments: &[&[u8]]) -> Answer {
    let output = Command::new(PROGRAM)
        .args(["-N", my_name, "-D"])
        .arg(scratch.path("db"))
        .args(arguments.iter().map(|&argument| OsStr::from_bytes(argument)))
        .env("CSYNC2_SYSTEM_DIR", scratch.root())
        .env("LC_ALL", "C")
        .current_dir(scratch.root())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
    let status = output.status.code().unwrap_or(-1);
    Answer { stderr: output.stderr, status }
}

/// A system directory with a key file `k` and a place for databases.
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
}

pub(crate) const KEY: &str = "0123456789ABCDEFabcdef._0123456789";

impl Scratch {
    pub(crate) fn new() -> Self {
        let scratch = Self { directory: tempfile::tempdir().unwrap() };
        scratch.write("k", KEY);
        fs::set_permissions(scratch.path("k"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(scratch.path("db")).unwrap();
        scratch
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file, with the directories that it needs.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
