//! The configuration as the rest of the program uses it: read once, resolved for one host, immutable.
//!
//! Text becomes tokens ([`lexer`]), tokens a tree ([`ast`], [`parser`]), the tree a [`Config`] ([`resolve`]). Which
//! group a file belongs to is decided by the engine; here are only the rules and the places on disk.

pub mod ast;
pub mod diagnostics;
mod fnmatch;
pub mod lexer;
mod lint;
pub mod parser;
pub mod pattern;
#[cfg(test)]
pub(crate) mod reference;
pub mod resolve;
pub mod starter;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ast::Document;
pub use diagnostics::{ConfigError, Span, Warning};
pub use parser::parse;
pub use pattern::Pattern;
use resolve::Keys;

use crate::model::{Ignore, SyncPath};

/// Where the configuration lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `$CSYNC2_SYSTEM_DIR`, `/etc` without it.
    pub system_dir: PathBuf,
    /// The NAME of `-C`, empty without it.
    pub config_name: String,
}

impl Source {
    /// `csync2.cfg`, or `csync2_NAME.cfg`, in the system directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.system_dir.join(match self.config_name.as_str() {
            "" => "csync2.cfg".to_owned(),
            name => format!("csync2_{name}.cfg"),
        })
    }
}

/// For whom the configuration is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// This host's name in lower case.
    pub my_name: String,
    /// Only these groups (`-G`, the command GROUP); `None`: all.
    pub groups: Option<Vec<String>>,
}

/// What the configuration says to one host. Lists stand in the order of precedence: what was declared last comes first.
#[expect(clippy::struct_excessive_bools, reason = "one for each switch, and independent")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What stands in the files: for telling a person where something is.
    pub document: Arc<Document>,
    /// This host's name in lower case, as the host lines have it before any `@`.
    pub my_name: String,
    /// The groups in which this host occurs and that were selected.
    pub groups: Vec<Group>,
    /// Every host name of every group, each once.
    pub all_host_names: Vec<String>,
    pub prefixes: Vec<Prefix>,
    pub nossl: Vec<NoSsl>,
    pub ignore: Ignore,
    /// The first `database` of the file.
    pub database: Option<String>,
    pub tempdir: Option<PathBuf>,
    /// How long to wait for a busy database.
    pub lock_timeout: Duration,
    /// Every file that was read: the configuration, what it includes, key files. When one changes, read again.
    pub files: Vec<PathBuf>,
    /// What parses but hardly means what was meant.
    pub warnings: Vec<Warning>,
    /// How many peers a run serves at once (`parallel-peers`).
    pub max_parallel_peers: usize,
    /// How many sessions a daemon serves at once (`max-sessions`).
    pub max_sessions: usize,
    /// How many of them one peer may have (`max-sessions-per-peer`).
    pub max_sessions_per_peer: usize,
    /// How many connections a daemon has at once that have not said who they are (`max-strangers`).
    pub max_strangers: usize,
    /// A larger file of a peer is refused (`max-file-size`); bytes. `None`: the free disk is the only limit.
    pub max_file_size: Option<u64>,
    pub connect_timeout: Duration,
    pub handshake_timeout: Duration,
    pub idle_timeout: Duration,
    /// A check that finds more removals than this refuses to mark them; `None`: no limit.
    pub max_removals: Option<MaxRemovals>,
    /// `auto-name yes`: as `--auto-name`.
    pub auto_name: bool,
    /// How long the command of an action may run; `None`: as long as it likes.
    pub action_timeout: Option<Duration>,
    /// `batches no`: the batch dialect is neither offered nor asked for.
    pub batches: bool,
    /// `durability none`: received files are not flushed to the disk, and a power cut may cost or empty those of the last
    /// half minute.
    pub durable: bool,
    /// `compression yes`: what is sent in batches is made smaller where that is worth it.
    pub compression: bool,
    pub tls: Tls,
}

/// What TLS sessions rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Our certificate and its key (`tls-certificate`, `tls-key`).
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates of peers (`tls-ca`); `None`: each is pinned when it is first seen.
    pub authority: Option<PathBuf>,
    /// Whether RSA keys below 2,048 bits and X.509 v1 are good enough; `legacy-tls no`: they are not.
    pub legacy: bool,
}

impl Tls {
    /// Where the C program has its pair.
    #[must_use]
    pub fn in_directory(system_dir: &Path) -> Self {
        let (certificate, key) = (system_dir.join("csync2_ssl_cert.pem"), system_dir.join("csync2_ssl_key.pem"));
        Self { certificate, key, authority: None, legacy: true }
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.authority)
    }
}

/// A set of hosts, and the files they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// How the peers of this group know this host: the name behind its `@`, where there is one.
    pub my_name: String,
    pub i_am_slave: bool,
    /// The other hosts in the order of the file.
    pub hosts: Vec<Host>,
    /// The pre-shared key.
    pub key: Arc<str>,
    /// Patterns in the order of the file: the last match wins.
    pub rules: Vec<Rule>,
    pub auto: AutoMethod,
    pub backup: Option<Backup>,
    /// In the order of precedence.
    pub actions: Vec<Action>,
}

/// Another member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name it is known as, and reached under.
    pub name: String,
    pub slave: bool,
    /// Where it is listed, seen from this host.
    pub side: Side,
}

/// The place of a peer in the host list of a group, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Listed before this host.
    Left,
    /// Listed behind this host.
    Right,
}

/// A pattern of a group, and what its match means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub kind: RuleKind,
    pub pattern: Pattern,
    /// The pattern in the file.
    pub span: Span,
}

/// What the match of a rule's pattern means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    Include,
    Exclude,
    /// An include in compare mode, nothing otherwise.
    Compare,
}

/// Who wins when a file was changed on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoMethod {
    #[default]
    None,
    First,
    Younger,
    Older,
    Bigger,
    Smaller,
    Left,
    Right,
}

/// Where replaced files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub directory: PathBuf,
    /// As configured; generations − 1 old copies are kept.
    pub generations: u32,
}

/// Commands that are run when certain files change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The word `action` in the file.
    pub span: Span,
    /// Path patterns; none: every file of the group.
    pub patterns: Vec<Pattern>,
    /// For `/bin/sh -c`.
    pub commands: Vec<Vec<u8>>,
    pub logfile: Vec<u8>,
    pub local: ActionScope,
}

/// On which changes an action runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActionScope {
    /// When a file was received.
    #[default]
    Remote,
    /// `do-local`: also when it was changed here.
    Both,
    /// `do-local-only`: only when it was changed here.
    LocalOnly,
}

/// The name of a directory that lies elsewhere on every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// Without the `%`.
    pub name: Vec<u8>,
    /// Its place on this host; `None` when no line matches this host.
    pub directory: Option<Arc<Path>>,
}

/// Sessions that may do without TLS: both are patterns for host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSsl {
    pub from: Pattern,
    pub to: Pattern,
}

/// How many removals one check may mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRemovals {
    Files(u64),
    /// Of the files known in the range of the check.
    Percent(u8),
}

/// A name, and where it is on this disk. Many are kept at once: clones share everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPath {
    pub path: SyncPath,
    /// The directory of the prefix that it stands below.
    pub prefix: Option<Arc<Path>>,
}

impl LocalPath {
    /// `/`, or the directory of the prefix.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.prefix.as_deref().unwrap_or(Path::new("/"))
    }

    /// What follows the root; may be empty.
    #[must_use]
    pub fn relative(&self) -> &[u8] {
        self.path.split_prefix().map_or(&self.path.as_bytes()[1..], |(_, rest)| rest)
    }

    /// Root and relative part in one.
    #[must_use]
    pub fn absolute(&self) -> PathBuf {
        let relative = self.relative();
        if relative.is_empty() { self.root().to_owned() } else { self.root().join(OsStr::from_bytes(relative)) }
    }
}

#[cfg(test)]
impl LocalPath {
    /// A name below a prefix that stands for `directory`.
    pub(crate) fn within(directory: &Path, name: &str) -> Self {
        let path = SyncPath::parse(format!("%p%/{name}").as_bytes()).unwrap();
        Self { path, prefix: Some(directory.into()) }
    }
}

/// A name stands below a prefix that has no directory on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Prefix '{prefix}' is not defined for host '{host}'.")]
pub struct UnknownPrefix {
    pub prefix: String,
    pub host: String,
}

impl Config {
    /// Reads, parses and resolves the configuration, key files included.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(source: &Source, selection: &Selection) -> Result<Self, ConfigError> {
        Self::read(source, selection, Keys::Needed)
    }

    /// The same for a person who wants to know what is to be said of it: with more warnings, and without keys where they
    /// cannot be read.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn inspect(source: &Source, selection: &Selection) -> Result<Self, ConfigError> {
        let mut config = Self::read(source, selection, Keys::Dispensable)?;
        config.warnings.extend(lint::misleading(&config.document));
        Ok(config)
    }

    fn read(source: &Source, selection: &Selection, keys: Keys) -> Result<Self, ConfigError> {
        let path = source.path();
        let text = fs::read(&path).map_err(|error| {
            let reason = c_text(&error);
            ConfigError::new(format!("Can not open config file `{}': {reason}", path.display())).because(error)
        })?;
        // Relative names count from the working directory, as in the C program.
        let document = Arc::new(parse(&text, &path, &mut |file| fs::read(file))?);
        resolve::resolve(&document, selection, &source.system_dir, keys)
    }

    /// A warning about a place in the file.
    #[must_use]
    pub fn warning(&self, span: Span, text: impl Into<String>) -> Warning {
        Warning::at(&self.document.sources, span, text)
    }

    /// Where something stands, for a sentence: `line 3`, or `FILE:3` in a file that is included.
    #[must_use]
    pub fn line(&self, span: Span) -> String {
        diagnostics::shown_line(&self.document.sources, span)
    }

    /// The same configuration, seen by a session that named its groups.
    #[must_use]
    pub fn select_groups(&self, names: &[String]) -> Self {
        let groups = self.groups.iter().filter(|group| names.contains(&group.name)).cloned().collect();
        Self { groups, ..self.clone() }
    }

    /// The same configuration with only the groups that hold one of these peers. Case counts.
    #[must_use]
    pub fn select_peers(&self, names: &[String]) -> Self {
        let holds = |group: &&Group| group.hosts.iter().any(|host| names.contains(&host.name));
        Self { groups: self.groups.iter().filter(holds).cloned().collect(), ..self.clone() }
    }

    /// Whether a session between us (as `my_name`) and `peer` may do without TLS.
    #[must_use]
    pub fn plain_allowed(&self, my_name: &str, peer: &str) -> bool {
        self.nossl.iter().any(|nossl| nossl.from.matches_name(my_name) && nossl.to.matches_name(peer))
    }

    /// Where a name is on this disk.
    pub fn local(&self, path: &SyncPath) -> Result<LocalPath, UnknownPrefix> {
        let Some((name, _)) = path.split_prefix() else {
            return Ok(LocalPath { path: path.clone(), prefix: None });
        };
        let directory =
            self.prefixes.iter().find(|prefix| prefix.name == name).and_then(|prefix| prefix.directory.clone());
        match directory {
            Some(directory) => Ok(LocalPath { path: path.clone(), prefix: Some(directory) }),
            None => {
                Err(UnknownPrefix { prefix: String::from_utf8_lossy(name).into_owned(), host: self.my_name.clone() })
            }
        }
    }

    /// Every spelling of a canonical absolute path, the preferred first.
    #[must_use]
    pub fn names_of(&self, real: &[u8]) -> Vec<SyncPath> {
        let below = |prefix: &Prefix| {
            let directory = prefix.directory.as_ref()?.as_os_str().as_bytes();
            let rest = if directory == b"/" { real } else { real.strip_prefix(directory)? };
            let rest = if rest == b"/" { b"" } else { rest };
            SyncPath::parse(&[b"%", prefix.name.as_slice(), b"%", rest].concat()).ok()
        };
        self.prefixes.iter().filter_map(below).chain(SyncPath::parse(real).ok()).collect()
    }
}

/// The system's text for an error, without the number that Rust adds: the line is the C program's.
fn c_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
