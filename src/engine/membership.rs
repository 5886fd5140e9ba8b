//! Which group a file belongs to, with whom it is shared, and who may touch it (spec: config.md). Pure functions over
//! the configuration and a name: no disk, no database.

use std::os::unix::ffi::OsStrExt;

use subtle::ConstantTimeEq;

use crate::config::pattern::{PatternKind, Subject};
use crate::config::{Action, ActionScope, Config, Group, RuleKind};
use crate::model::{ScheduledAction, SyncPath};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Sync,
    /// `compare` patterns count as includes.
    Compare,
}

/// Why an action would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The file was changed here.
    Local,
    /// The file came from a peer.
    Received,
}

/// A peer with whom a file is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerName<'c> {
    /// How the peer knows us.
    pub my_name: &'c str,
    pub peer: &'c str,
    /// The group that gave our name.
    pub group: &'c Group,
}

/// The answer to a peer's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Allowed,
    /// The peer only receives.
    Slave,
    Denied(DeniedBecause),
}

/// Why a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedBecause {
    NoGroupCovers,
    NotAMember,
    WrongKey,
}

/// Whether `path` is a file of `group`: the last path pattern that matches must be an include, and so must the last
/// basename pattern that matches, if any does.
#[must_use]
pub fn covers(group: &Group, path: &SyncPath, purpose: Purpose) -> bool {
    covers_subject(group, &Subject::of(path), purpose)
}

fn covers_subject(group: &Group, subject: &Subject, purpose: Purpose) -> bool {
    let (mut by_path, mut by_basename) = (false, true);
    for rule in &group.rules {
        let Some(included) = effect(rule.kind, purpose) else { continue };
        let verdict = match rule.pattern.kind() {
            PatternKind::Path { .. } => &mut by_path,
            PatternKind::Basename => &mut by_basename,
        };
        if *verdict != included && rule.pattern.matches(subject) {
            *verdict = included;
        }
    }
    by_path && by_basename
}

/// What a match means; `None`: the rule does not count.
fn effect(kind: RuleKind, purpose: Purpose) -> Option<bool> {
    match (kind, purpose) {
        (RuleKind::Include, _) | (RuleKind::Compare, Purpose::Compare) => Some(true),
        (RuleKind::Exclude, _) => Some(false),
        (RuleKind::Compare, Purpose::Sync) => None,
    }
}

/// The groups that hold `path`, in the order of precedence.
pub fn groups_of<'c>(config: &'c Config, path: &'c SyncPath, purpose: Purpose) -> impl Iterator<Item = &'c Group> {
    groups_of_subject(config, Subject::of(path), purpose)
}

fn groups_of_subject(config: &Config, subject: Subject, purpose: Purpose) -> impl Iterator<Item = &Group> {
    config.groups.iter().filter(move |group| covers_subject(group, &subject, purpose))
}

/// Whether any group holds `path`.
#[must_use]
pub fn is_covered(config: &Config, path: &SyncPath, purpose: Purpose) -> bool {
    groups_of(config, path, purpose).next().is_some()
}

/// Whether a walk enters `directory`: it is in a group, or may lie above files that are. The directories above a
/// prefix's own are entered too, under their real names: see [`above_prefix`].
#[must_use]
pub fn descend(config: &Config, directory: &SyncPath, purpose: Purpose) -> bool {
    is_covered(config, directory, purpose) || below_covered(config, directory, purpose)
}

/// Whether an include may lie below `path`: a path pattern cut at one of its slashes matches it. Excludes do not count.
#[must_use]
pub fn below_covered(config: &Config, path: &SyncPath, purpose: Purpose) -> bool {
    if path.as_bytes() == b"/" {
        return true;
    }
    let subject = Subject::of(path);
    let mut rules = config.groups.iter().flat_map(|group| &group.rules);
    rules.any(|rule| effect(rule.kind, purpose) == Some(true) && rule.pattern.may_match_below(&subject))
}

/// With whom `path` is shared: each peer once, our name from the first group in the order of precedence.
#[must_use]
pub fn peers_of<'c>(config: &'c Config, path: &SyncPath, purpose: Purpose) -> Vec<PeerName<'c>> {
    let mut peers: Vec<PeerName<'c>> = Vec::new();
    for group in groups_of_subject(config, Subject::of(path), purpose) {
        for host in &group.hosts {
            if !peers.iter().any(|known| known.peer == host.name) {
                peers.push(PeerName { my_name: &group.my_name, peer: &host.name, group });
            }
        }
    }
    peers
}

/// All pairs of our name and a peer's, each once, in the order in which the C program goes through them: the reverse
/// of the order of precedence, the hosts of a group from the last to the first.
#[must_use]
pub fn pairs(config: &Config) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for group in &config.groups {
        for host in &group.hosts {
            let pair = (group.my_name.clone(), host.name.clone());
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    pairs.reverse();
    pairs
}

/// The first group that holds `path` and has `peer` as a member (and us under `my_name`).
#[must_use]
pub fn group_with_peer<'c>(
    config: &'c Config,
    path: &SyncPath,
    my_name: Option<&str>,
    peer: &str,
) -> Option<&'c Group> {
    groups_of_subject(config, Subject::of(path), Purpose::Sync)
        .filter(|group| my_name.is_none_or(|name| group.my_name == name))
        .find(|group| group.hosts.iter().any(|host| host.name == peer))
}

/// Whether the real path is, or lies above, the directory of some prefix: a walk must pass through it.
#[must_use]
pub fn above_prefix(config: &Config, real: &[u8]) -> bool {
    let mut directories = config.prefixes.iter().filter_map(|prefix| prefix.directory.as_deref());
    directories.any(|directory| {
        let rest = directory.as_os_str().as_bytes().strip_prefix(real);
        real == b"/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// Whether `peer` may do something to `path` with `key`: some group that holds the file must have the peer as a member
/// and exactly this key. Only when it is a slave in all of these is it treated as one.
#[must_use]
pub fn permission(config: &Config, path: &SyncPath, peer: &str, key: &str, purpose: Purpose) -> Permission {
    let mut answer = Permission::Denied(DeniedBecause::NoGroupCovers);
    for group in groups_of_subject(config, Subject::of(path), purpose) {
        let mut memberships = group.hosts.iter().filter(|host| host.name == peer).peekable();
        let here = if memberships.peek().is_none() {
            Permission::Denied(DeniedBecause::NotAMember)
        } else if !bool::from(group.key.as_bytes().ct_eq(key.as_bytes())) {
            Permission::Denied(DeniedBecause::WrongKey)
        } else if memberships.any(|host| host.slave) {
            Permission::Slave
        } else {
            return Permission::Allowed;
        };
        if rank(here) > rank(answer) {
            answer = here;
        }
    }
    answer
}

/// How close an answer is to a yes: of several groups the closest one is reported.
fn rank(permission: Permission) -> u8 {
    match permission {
        Permission::Denied(DeniedBecause::NoGroupCovers) => 0,
        Permission::Denied(DeniedBecause::NotAMember) => 1,
        Permission::Denied(DeniedBecause::WrongKey) => 2,
        Permission::Slave => 3,
        Permission::Allowed => 4,
    }
}

/// The commands to be run because of a change to `path`, each command once.
#[must_use]
pub fn actions_for(config: &Config, path: &SyncPath, event: Event) -> Vec<ScheduledAction> {
    let subject = Subject::of(path);
    let applies = |action: &Action| {
        let wanted = match event {
            Event::Local => action.local != ActionScope::Remote,
            Event::Received => action.local != ActionScope::LocalOnly,
        };
        wanted && (action.patterns.is_empty() || action.patterns.iter().any(|pattern| pattern.matches(&subject)))
    };
    let mut scheduled: Vec<ScheduledAction> = Vec::new();
    let groups = groups_of_subject(config, subject.clone(), Purpose::Sync);
    for action in groups.flat_map(|group| &group.actions).filter(|action| applies(action)) {
        for command in &action.commands {
            // The action table holds a command once for each file.
            if !scheduled.iter().any(|known| known.command == *command) {
                let (command, logfile) = (command.clone(), action.logfile.clone());
                scheduled.push(ScheduledAction { path: path.clone(), command, logfile });
            }
        }
    }
    scheduled
}
