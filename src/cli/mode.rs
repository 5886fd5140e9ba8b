//! Which one thing a run does, with its operands as they were typed. The modifiers are in `settings`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::ArgMatches;

use super::options::{self, OPERANDS};

/// A mode, named for what it does. Operands are raw bytes: [`WorkingDirectory`](super::WorkingDirectory) makes absolute names of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// `-x`: check the operands (none: everything), then push.
    CheckAndUpdate { operands: Vec<Vec<u8>> },
    /// `-c`: check the operands (none: every hint). `-cu`: and then push.
    Check { operands: Vec<Vec<u8>>, then_update: bool },
    /// `-u`: push what is dirty.
    Update { operands: Vec<Vec<u8>> },
    /// `-h`: add hints.
    Hint { operands: Vec<Vec<u8>> },
    /// `-o`: print the files that the config covers.
    Compare { operands: Vec<Vec<u8>> },
    /// `-m`: mark as dirty.
    Mark { operands: Vec<Vec<u8>> },
    /// `-f`: let these files win.
    Force { operands: Vec<Vec<u8>> },
    /// `-H`.
    ListHints,
    /// `-L`.
    ListFiles,
    /// `-M`.
    ListDirty,
    /// `-S myname peername`; both are compared exactly.
    ListPair { my_name: Vec<u8>, peer: Vec<u8> },
    /// `-T`; `-TT` with `diffs`.
    InSync { scope: InSyncScope, diffs: bool },
    /// `-R`.
    RemoveOld,
    /// `-i`, `-ii`, `-iii`.
    Serve(ServeMode),
    /// `--status [PEER..]`: how things are, for all peers or some.
    Status { peers: Vec<String> },
    /// `--ls-ssl-cert [PEER]`.
    ListCertificates { peer: Option<String> },
    /// `--rm-ssl-cert PEER`.
    ForgetCertificate { peer: String },
    /// `--gen-ssl-cert`.
    NewCertificate,
    /// `--check-config [FILE..]`
    CheckConfig { operands: Vec<Vec<u8>> },
    /// `--import-db DATABASE`; written as for `-D`.
    ImportDatabase { from: String },
    /// `--init [HOST..]`; the names in lower case.
    Init { hosts: Vec<String> },
    /// `--join PEER`.
    Join { peer: String },
    /// `-k FILE`, alone on the line.
    NewKey { file: PathBuf },
}

/// What `-T` compares. Names are compared exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InSyncScope {
    AllPairs,
    File(Vec<u8>),
    Pair { my_name: Vec<u8>, peer: Vec<u8> },
    PairFile { my_name: Vec<u8>, peer: Vec<u8>, file: Vec<u8> },
}

/// Where a serving process finds its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeMode {
    /// `-i`: one peer, on stdin and stdout.
    Inherited,
    /// `-ii`: listens until it is stopped.
    Daemon,
    /// `-iii`: listens for one connection, serves it, ends.
    Once,
}

impl Mode {
    /// The mode that was asked for; `None` (usage) unless it is exactly one, with operands that it can take.
    pub(super) fn of(matches: &ArgMatches) -> Option<Self> {
        let count = |name: &str| matches.get_count(name);
        let mut given = options::MODES.into_iter().filter(|name| count(name) > 0);
        let (first, second, third) = (given.next()?, given.next(), given.next());
        let then_update = (first, second) == ("c", Some("u"));
        if third.is_some() || (second.is_some() && !then_update) {
            return None;
        }
        // `-uc` and `-u -c` are no mode.
        if then_update && matches.index_of("c") > matches.index_of("u") {
            return None;
        }
        if [Some(first), second].into_iter().flatten().any(|name| count(name) > most_often(name)) {
            return None;
        }
        let operands: Vec<Vec<u8>> =
            matches.get_many::<OsString>(OPERANDS).unwrap_or_default().cloned().map(OsString::into_vec).collect();
        // Names of hosts have no case.
        let host = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        let bare = |mode: Self| operands.is_empty().then_some(mode);
        match first {
            "L" => bare(Self::ListFiles),
            "M" => bare(Self::ListDirty),
            "H" => bare(Self::ListHints),
            "R" => bare(Self::RemoveOld),
            "i" => bare(Self::Serve(match count("i") {
                1 => ServeMode::Inherited,
                2 => ServeMode::Daemon,
                _ => ServeMode::Once,
            })),
            "S" => {
                let [my_name, peer] = operands.try_into().ok()?;
                Some(Self::ListPair { my_name, peer })
            }
            "T" => Some(Self::InSync { scope: InSyncScope::of(operands)?, diffs: count("T") > 1 }),
            "status" => Some(Self::Status { peers: operands.iter().map(|name| host(name)).collect() }),
            "ls-ssl-cert" => match operands.as_slice() {
                [] => Some(Self::ListCertificates { peer: None }),
                [peer] => Some(Self::ListCertificates { peer: Some(host(peer)) }),
                _ => None,
            },
            "rm-ssl-cert" => match operands.as_slice() {
                [peer] => Some(Self::ForgetCertificate { peer: host(peer) }),
                _ => None,
            },
            "init" => Some(Self::Init { hosts: operands.iter().map(|operand| host(operand)).collect() }),
            "join" => match operands.as_slice() {
                [peer] => Some(Self::Join { peer: host(peer) }),
                _ => None,
            },
            "gen-ssl-cert" => bare(Self::NewCertificate),
            "import-db" => match <[Vec<u8>; 1]>::try_from(operands) {
                Ok([from]) => Some(Self::ImportDatabase { from: String::from_utf8(from).ok()? }),
                Err(_) => None,
            },
            "check-config" => Some(Self::CheckConfig { operands }),
            "x" => Some(Self::CheckAndUpdate { operands }),
            "c" => Some(Self::Check { operands, then_update }),
            "u" => Some(Self::Update { operands }),
            "h" => Some(Self::Hint { operands }),
            "o" => Some(Self::Compare { operands }),
            "m" => Some(Self::Mark { operands }),
            "f" => Some(Self::Force { operands }),
            _ => None,
        }
    }
}

/// How often a mode may stand on the line. A fourth `-T` adds nothing, a fourth `-i` is an error.
fn most_often(name: &str) -> u8 {
    match name {
        "i" => 3,
        "T" => u8::MAX,
        _ => 1,
    }
}

impl InSyncScope {
    fn of(operands: Vec<Vec<u8>>) -> Option<Self> {
        let mut operands = operands.into_iter();
        match (operands.next(), operands.next(), operands.next(), operands.next()) {
            (None, ..) => Some(Self::AllPairs),
            (Some(file), None, ..) => Some(Self::File(file)),
            (Some(my_name), Some(peer), None, _) => Some(Self::Pair { my_name, peer }),
            (Some(my_name), Some(peer), Some(file), None) => Some(Self::PairFile { my_name, peer, file }),
            (Some(_), Some(_), Some(_), Some(_)) => None,
        }
    }
}
