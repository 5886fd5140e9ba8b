//! From the tree to the [`Config`] of one host: defaults, the order of precedence, key files, and the remarks about
//! what was hardly meant.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ast::{ActionStatement, Block, Document, GroupBlock, HostEntry, Setting, Statement, Word};
use super::diagnostics::{Span, Warning};
use super::{
    Action, ActionScope, AutoMethod, Backup, Config, ConfigError, Group, Host, MaxRemovals, NoSsl, Pattern, Prefix,
    Rule, RuleKind, Selection, Side, Tls,
};
use crate::model::Ignore;
use crate::model::errors::strerror;

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(12);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_PARALLEL_PEERS: usize = 16;
const DEFAULT_SESSIONS: usize = 64;
const DEFAULT_SESSIONS_PER_PEER: usize = 16;
const DEFAULT_STRANGERS: usize = 256;
const DEFAULT_BACKUP_GENERATIONS: u32 = 3;

/// Shorter keys are refused.
const KEY_LENGTH_MIN: usize = 32;
/// What the C program reads of the first line, and so what a longer key means to it.
const KEY_LENGTH_MAX: usize = 1023;

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

    fn group(&mut self, block: &GroupBlock) -> Result<(), ConfigError> {
        let name = if let Some(name) = &block.name {
            name.lossy()
        } else {
            self.unnamed_groups += 1;
            format!("group_{}", self.unnamed_groups)
        };
        let mut parts = GroupParts::default();
        for statement in &block.statements {
            self.statement(statement, &mut parts)?;
        }
        let Some(key) = parts.key else {
            let message = "Config error: every group must have a key.";
            return Err(self.error(message.to_owned(), block.keyword, "this one has no `key FILE;`"));
        };
        let members = self.members(&parts.hosts);
        let selected = self.selection.groups.as_ref().is_none_or(|groups| groups.contains(&name));
        if let Some((my_name, i_am_slave)) = members.me
            && selected
        {
            parts.actions.reverse();
            let generations = parts.backup_generations.unwrap_or(DEFAULT_BACKUP_GENERATIONS);
            self.config.groups.push(Group {
                name,
                my_name,
                i_am_slave,
                hosts: members.others,
                key: key.into(),
                rules: parts.rules,
                auto: parts.auto.unwrap_or_default(),
                backup: parts.backup_directory.map(|directory| Backup { directory, generations }),
                actions: parts.actions,
            });
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement, parts: &mut GroupParts) -> Result<(), ConfigError> {
        match statement {
            Statement::Hosts(hosts) => parts.hosts.extend_from_slice(hosts),
            Statement::Patterns(kind, words) => self.rules(*kind, words, &mut parts.rules),
            Statement::Key(file) => {
                if parts.key.is_some() {
                    let message = "Config error: a group might only have one key.";
                    return Err(self.error(message.to_owned(), file.span, "the second one"));
                }
                parts.key = Some(self.key(file)?);
            }
            Statement::Auto(method) => {
                if parts.auto.is_some() {
                    let message = "Config error: a group might only have one auto-setting.";
                    return Err(self.error(message.to_owned(), method.span, "the second one"));
                }
                parts.auto = Some(self.auto(method)?);
            }
            Statement::BackupDirectory(directory) => parts.backup_directory = Some(path_of(&directory.text)),
            Statement::BackupGenerations(number) => {
                let number = self.number_as_c_reads_it(number);
                parts.backup_generations = Some(u32::try_from(number).unwrap_or_default());
            }
            Statement::Action(span, statements) => parts.actions.push(action(*span, statements)),
        }
        Ok(())
    }

    fn rules(&mut self, kind: RuleKind, words: &[Word], rules: &mut Vec<Rule>) {
        if let (RuleKind::Compare, [first, .., last]) = (kind, words) {
            self.warn(
                first.span,
                format!(
                    "of several patterns behind `compare` only the last, `{}`, is for comparing; the others are includes",
                    last.lossy()
                ),
            );
        }
        for (index, word) in words.iter().enumerate() {
            // The C program takes all but the last as includes; the peers that run it read this file too.
            let is_include = kind == RuleKind::Compare && index + 1 < words.len();
            let kind = if is_include { RuleKind::Include } else { kind };
            rules.push(Rule { kind, pattern: Pattern::rule(&word.text), span: word.span });
        }
    }

    fn auto(&self, method: &Word) -> Result<AutoMethod, ConfigError> {
        Ok(match method.text.as_slice() {
            b"none" => AutoMethod::None,
            b"first" => AutoMethod::First,
            b"younger" => AutoMethod::Younger,
            b"older" => AutoMethod::Older,
            b"bigger" => AutoMethod::Bigger,
            b"smaller" => AutoMethod::Smaller,
            b"left" => AutoMethod::Left,
            b"right" => AutoMethod::Right,
            _ => {
                let message = format!(
                    "Config error: Unknown auto-setting '{}' (use 'none', 'younger', 'older', 'bigger', 'smaller', \
                     'left' or 'right').",
                    method.lossy()
                );
                return Err(self.error(message, method.span, "`first` is a method, too"));
            }
        })
    }

    /// Reads a pre-shared key.
    fn key(&mut self, file: &Word) -> Result<String, ConfigError> {
        let path = self.system_dir.join(OsStr::from_bytes(&file.text));
        let unreadable = |error: io::Error| {
            let message = format!("Config error: Can't read keyfile {}.", path.display());
            self.error(message, file.span, error.to_string()).because(error)
        };
        let (line, mode) = match (first_line(&path), self.keys) {
            (Err(error), Keys::Dispensable) => {
                // Once, however many groups have it.
                if !self.config.files.contains(&path) {
                    let (shown, problem) = (path.display(), strerror(&error));
                    self.warn(
                        file.span,
                        format!("the key file {shown} cannot be read: {problem}; no run works without it"),
                    );
                    self.config.files.push(path);
                }
                return Ok(String::new());
            }
            (read, _) => read.map_err(unreadable)?,
        };
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
        if let Some(&byte) = line.iter().find(|byte| !is_allowed(byte)) {
            let character = char::from(byte);
            let message = format!("Unallowed character '{character}' in key file {}.", path.display());
            return Err(self.error(message, file.span, "a key is one line of letters, digits, `.` and `_`"));
        }
        if line.len() < KEY_LENGTH_MIN {
            let message = format!("Config error: Key in file {} is too short.", path.display());
            let hint =
                format!("it has {} characters, {KEY_LENGTH_MIN} are needed; `csync2 -k FILE` makes one", line.len());
            return Err(self.error(message, file.span, hint));
        }
        if mode & 0o004 != 0 {
            self.warn(file.span, format!("the key file {} can be read by every user of this host", path.display()));
        }
        if !self.config.files.contains(&path) {
            self.config.files.push(path);
        }
        Ok(line.into_iter().map(char::from).collect())
    }

    /// Who we are in a group, and the others.
    fn members(&mut self, hosts: &[HostEntry]) -> Members {
        let mut members = Members::default();
        let mut names = Vec::new();
        for entry in hosts {
            let name = entry.name.lossy().to_ascii_lowercase();
            let known_as =
                entry.interface.as_ref().map_or_else(|| name.clone(), |word| word.lossy().to_ascii_lowercase());
            for word in [Some(&entry.name), entry.interface.as_ref()].into_iter().flatten() {
                if word.text.contains(&b',') {
                    let name = word.lossy().to_ascii_lowercase();
                    self.warn(word.span, format!("the comma is part of the host name `{name}`; blanks separate hosts"));
                }
            }
            if names.contains(&name) {
                self.warn(entry.name.span, format!("the host `{name}` is listed twice in its group"));
            }
            if !self.config.all_host_names.contains(&name) {
                self.config.all_host_names.push(name.clone());
            }
            if name == self.selection.my_name {
                // Listed twice: the last entry says how, as in the C program.
                members.me = Some((known_as, entry.slave));
            } else {
                let side = if members.me.is_none() { Side::Left } else { Side::Right };
                members.others.push(Host { name: known_as, slave: entry.slave, side });
            }
            names.push(name);
        }
        members
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

#[derive(Default)]
struct GroupParts {
    hosts: Vec<HostEntry>,
    rules: Vec<Rule>,
    key: Option<String>,
    auto: Option<AutoMethod>,
    backup_directory: Option<PathBuf>,
    backup_generations: Option<u32>,
    actions: Vec<Action>,
}

#[derive(Default)]
struct Members {
    /// Our name towards the others, and whether we are a slave.
    me: Option<(String, bool)>,
    others: Vec<Host>,
}

fn action(span: Span, statements: &[ActionStatement]) -> Action {
    let mut action = Action {
        span,
        patterns: Vec::new(),
        commands: Vec::new(),
        logfile: b"/dev/null".to_vec(),
        local: ActionScope::Remote,
    };
    for statement in statements {
        match statement {
            ActionStatement::Pattern(words) => {
                action.patterns.extend(words.iter().map(|word| Pattern::path(&word.text)));
            }
            ActionStatement::Exec(words) => action.commands.extend(words.iter().map(|word| word.text.clone())),
            ActionStatement::Logfile(file) => action.logfile.clone_from(&file.text),
            ActionStatement::DoLocal if action.local == ActionScope::LocalOnly => {}
            ActionStatement::DoLocal => action.local = ActionScope::Both,
            ActionStatement::DoLocalOnly => action.local = ActionScope::LocalOnly,
        }
    }
    action
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

/// The first line of a key file as far as the C program reads it, and the file's mode. An empty file is an error.
fn first_line(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = Vec::new();
    file.take(KEY_LENGTH_MAX as u64).read_to_end(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
    }
    let end = text.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(text.len());
    text.truncate(end);
    Ok((text, mode))
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
