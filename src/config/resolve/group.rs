//! What stands in a group: who is in it, its key, its patterns, and what becomes of its files.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Keys, Resolver, path_of};
use crate::config::ast::{ActionStatement, GroupBlock, HostEntry, Statement, Word};
use crate::config::diagnostics::Span;
use crate::config::{Action, ActionScope, AutoMethod, Backup, ConfigError, Group, Host, Pattern, Rule, RuleKind, Side};
use crate::model::errors::strerror;

const DEFAULT_BACKUP_GENERATIONS: u32 = 3;

/// Shorter keys are refused.
const KEY_LENGTH_MIN: usize = 32;
/// What the C program reads of the first line, and so what a longer key means to it.
const KEY_LENGTH_MAX: usize = 1023;

impl Resolver<'_> {
    pub(super) fn group(&mut self, block: &GroupBlock) -> Result<(), ConfigError> {
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
