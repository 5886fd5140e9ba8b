//! From the tree to the [`Config`] of one host: defaults, the order of precedence, what stands outside of groups, and the
//! remarks about what was hardly meant.

mod group;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ast::{Block, Document, Setting, Word};
use super::diagnostics::{Span, Warning};
use super::{Config, ConfigError, MaxRemovals, NoSsl, Pattern, Prefix, Selection, Tls};
use crate::model::Ignore;

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(12);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_PARALLEL_PEERS: usize = 16;
const DEFAULT_SESSIONS: usize = 64;
const DEFAULT_SESSIONS_PER_PEER: usize = 16;
const DEFAULT_STRANGERS: usize = 256;

impl Config {
    /// The configuration of a file that says nothing.
    #[must_use]
    pub fn silent(my_name: &str, system_dir: &Path) -> Self {
        Self {
            document: Arc::default(),
            my_name: my_name.to_owned(),
            groups: Vec::new(),
            all_host_names: Vec::new(),
            prefixes: Vec::new(),
            nossl: Vec::new(),
            ignore: Ignore::default(),
            database: None,
            tempdir: None,
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            files: Vec::new(),
            warnings: Vec::new(),
            max_parallel_peers: DEFAULT_PARALLEL_PEERS,
            max_sessions: DEFAULT_SESSIONS,
            max_sessions_per_peer: DEFAULT_SESSIONS_PER_PEER,
            max_strangers: DEFAULT_STRANGERS,
            max_file_size: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            max_removals: None,
            auto_name: false,
            action_timeout: None,
            batches: true,
            durable: true,
            compression: false,
            tls: Tls::in_directory(system_dir),
        }
    }
}

/// Whether a configuration is of use without its key files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    Needed,
    /// For looking at it: a key that cannot be read is a warning, and empty.
    Dispensable,
}

/// Gives a configuration its meaning for the host and the groups of `selection`. Relative key files lie in
/// `system_dir`; all key files are read, also those of groups that do not matter here.
///
/// # Errors
/// The first thing that makes no sense.
pub(super) fn resolve(
    document: &Arc<Document>,
    selection: &Selection,
    system_dir: &Path,
    keys: Keys,
) -> Result<Config, ConfigError> {
    let files = document.sources.iter().map(|source| source.file.clone()).collect();
    let silent = Config::silent(&selection.my_name, system_dir);
    let config = Config { document: Arc::clone(document), files, ..silent };
    let mut resolver = Resolver { document, selection, system_dir, keys, config, unnamed_groups: 0 };
    for block in &document.blocks {
        resolver.block(block)?;
    }
    Ok(resolver.finish())
}

struct Resolver<'d> {
    document: &'d Document,
    selection: &'d Selection,
    system_dir: &'d Path,
    keys: Keys,
    /// In the order of the file until the end.
    config: Config,
    unnamed_groups: usize,
}

impl Resolver<'_> {
    fn finish(mut self) -> Config {
        self.config.groups.reverse();
        self.config.nossl.reverse();
        self.config.prefixes.reverse();
        // Of several blocks of one name, the last that has a path for this host counts.
        let mut prefixes: Vec<Prefix> = Vec::new();
        for prefix in std::mem::take(&mut self.config.prefixes) {
            match prefixes.iter().position(|known| known.name == prefix.name) {
                Some(index) if prefixes[index].directory.is_none() => {
                    prefixes.remove(index);
                    prefixes.push(prefix);
                }
                Some(_) => {}
                None => prefixes.push(prefix),
            }
        }
        self.config.prefixes = prefixes;
        self.config
    }

    fn block(&mut self, block: &Block) -> Result<(), ConfigError> {
        match block {
            Block::Group(group) => self.group(group)?,
            Block::Prefix { name, lines } => {
                let prefix = self.prefix(name, lines)?;
                self.config.prefixes.push(prefix);
            }
            Block::NoSsl { from, to } => {
                self.config.nossl.push(NoSsl { from: Pattern::name(&from.text), to: Pattern::name(&to.text) });
            }
            Block::Database(url) => {
                self.config.database.get_or_insert_with(|| url.lossy());
            }
            Block::Tempdir(directory) => self.config.tempdir = Some(path_of(&directory.text)),
            Block::Ignore(properties) => {
                for property in properties {
                    self.ignore(property)?;
                }
            }
            Block::LockTimeout(seconds) => {
                let seconds = self.number_as_c_reads_it(seconds);
                self.config.lock_timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            }
            Block::NoCygwinLowercase(span) => {
                let message = "Config error: Found 'nocygwinlowercase' but this is not a cygwin csync2.";
                return Err(self.error(message.to_owned(), *span, "remove the line"));
            }
            Block::Setting(setting, value) => self.setting(*setting, value)?,
        }
        Ok(())
    }

    fn ignore(&mut self, property: &Word) -> Result<(), ConfigError> {
        let ignore = &mut self.config.ignore;
        match property.text.as_slice() {
            b"uid" => ignore.uid = true,
            b"gid" => ignore.gid = true,
            b"mod" => ignore.mode = true,
            _ => {
                // The misspelling is the C program's: scripts may know it.
                let message = format!("Config error: Unknown 'ignore' porperty: '{}'.", property.lossy());
                return Err(self.error(message, property.span, "expected `uid`, `gid` or `mod`, separated by blanks"));
            }
        }
        Ok(())
    }

    fn setting(&mut self, setting: Setting, value: &Word) -> Result<(), ConfigError> {
        let text = value.lossy();
        let invalid = |expected: &str| {
            let message = format!("Config error: '{text}' is no value for {}.", setting.name());
            self.error(message, value.span, expected)
        };
        let number = text.parse::<u32>().ok().filter(|&number| number > 0);
        let number = number.ok_or_else(|| invalid("expected a whole number above 0"));
        let limit = max_removals(&text).ok_or_else(|| invalid("expected a number of files, or 0% to 100%"));
        let size = file_size(&text).ok_or_else(|| invalid("expected a number of bytes, or of K, M, G or T: 20G"));
        let yes = match text.as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(invalid("expected `yes` or `no`")),
        };
        let durable = match text.as_str() {
            "full" => Ok(true),
            "none" => Ok(false),
            _ => Err(invalid("expected `full` or `none`")),
        };
        let seconds = |number: u32| Duration::from_secs(number.into());
        let file = self.system_dir.join(OsStr::from_bytes(&value.text));
        let config = &mut self.config;
        match setting {
            Setting::ParallelPeers => config.max_parallel_peers = number? as usize,
            Setting::MaxSessions => config.max_sessions = number? as usize,
            Setting::MaxSessionsPerPeer => config.max_sessions_per_peer = number? as usize,
            Setting::MaxStrangers => config.max_strangers = number? as usize,
            Setting::MaxFileSize => config.max_file_size = Some(size?),
            Setting::ConnectTimeout => config.connect_timeout = seconds(number?),
            Setting::HandshakeTimeout => config.handshake_timeout = seconds(number?),
            Setting::IdleTimeout => config.idle_timeout = seconds(number?),
            Setting::ActionTimeout => config.action_timeout = Some(seconds(number?)),
            Setting::MaxRemovals => config.max_removals = Some(limit?),
            Setting::AutoName => config.auto_name = yes?,
            Setting::Batches => config.batches = yes?,
            Setting::Durability => config.durable = durable?,
            Setting::Compression => config.compression = yes?,
            Setting::TlsCertificate => config.tls.certificate = file,
            Setting::TlsKey => config.tls.key = file,
            Setting::TlsCa => config.tls.authority = Some(file),
            Setting::LegacyTls => config.tls.legacy = yes?,
        }
        Ok(())
    }

    fn prefix(&mut self, name: &Word, lines: &[(Word, Word)]) -> Result<Prefix, ConfigError> {
        let mut directory = None;
        for (host, path) in lines {
            if path.text.first() != Some(&b'/') {
                let message = format!("Config error: Prefix '{}' is not an absolute path.", path.lossy());
                return Err(self.error(message, path.span, "expected a path that begins with `/`"));
            }
            if directory.is_none() && Pattern::name(&host.text).matches_name(&self.selection.my_name) {
                directory = Some(path_of(&canonical(&path.text)));
            }
        }
        Ok(Prefix { name: name.text.clone(), directory: directory.map(Arc::from) })
    }

    /// A number as C's atoi sees it: what does not begin with one is 0, which deserves a word.
    fn number_as_c_reads_it(&mut self, word: &Word) -> i64 {
        let text = word.text.trim_ascii_start();
        let (negative, digits) = match text.split_first() {
            Some((b'-', digits)) => (true, digits),
            Some((b'+', digits)) => (false, digits),
            _ => (false, text),
        };
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = digits[..length].iter().fold(0_i64, |number, byte| {
            number.saturating_mul(10).saturating_add(i64::from(byte - b'0')).min(i64::from(i32::MAX))
        });
        let number = if negative { -number } else { number };
        if length == 0 || length < digits.len() || number < 0 {
            self.warn(word.span, format!("`{}` is no whole number; taken as {}", word.lossy(), number.max(0)));
        }
        number
    }

    fn error(&self, message: String, span: Span, hint: impl Into<String>) -> ConfigError {
        ConfigError::new(message).at(&self.document.sources, span, hint)
    }

    fn warn(&mut self, span: Span, text: String) {
        self.config.warnings.push(Warning::at(&self.document.sources, span, text));
    }
}

fn max_removals(text: &str) -> Option<MaxRemovals> {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|&percent| percent <= 100).map(MaxRemovals::Percent),
        None => text.parse().ok().map(MaxRemovals::Files),
    }
}

/// Bytes, or units of 1,024, 1,024², … of them.
fn file_size(text: &str) -> Option<u64> {
    const UNITS: [char; 5] = ['B', 'K', 'M', 'G', 'T'];
    let unit = text.chars().last().and_then(|last| UNITS.iter().position(|unit| *unit == last));
    let (digits, exponent) = match unit {
        Some(exponent) => (&text[..text.len() - 1], exponent),
        None => (text, 0),
    };
    let number = digits.parse::<u64>().ok().filter(|&number| number > 0 && !digits.starts_with('+'))?;
    number.checked_mul(1 << (10 * exponent))
}

/// An absolute path without empty, `.` and `..` components.
fn canonical(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    [b"/", components.join(&b'/').as_slice()].concat()
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
