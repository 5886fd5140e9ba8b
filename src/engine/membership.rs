//! Which group a file belongs to, with whom it is shared, and who may touch it (docs/manual.md). Pure functions over
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
pub(super) fn effect(kind: RuleKind, purpose: Purpose) -> Option<bool> {
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

/// Whether a walk enters `directory`: it is in a group, or may lie above files that are. Each spelling of a path is a
/// walk of its own: what is entered under its plain name is not thereby entered under `%prefix%`. Plain directories
/// above a prefix's own are entered in any case: see [`above_prefix`].
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

/// Whether the real path lies above the directory of some prefix: a walk must pass through it to get there.
#[must_use]
pub fn above_prefix(config: &Config, real: &[u8]) -> bool {
    let mut directories = config.prefixes.iter().filter_map(|prefix| prefix.directory.as_deref());
    directories.any(|directory| {
        let directory = directory.as_os_str().as_bytes();
        match real {
            b"/" => directory != b"/",
            _ => directory.strip_prefix(real).is_some_and(|rest| rest.starts_with(b"/")),
        }
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

/// Whether a peer has the key of any group that it is in.
#[must_use]
pub fn has_key(config: &Config, peer: &str, key: &str) -> bool {
    config.groups.iter().any(|group| admits(group, peer, key))
}

/// Whether the peer is a member of the group and has its key: then [`permission`] denies it no file that the group holds.
#[must_use]
pub fn admits(group: &Group, peer: &str, key: &str) -> bool {
    bool::from(group.key.as_bytes().ct_eq(key.as_bytes())) && group.hosts.iter().any(|host| host.name == peer)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::{KEY, Scratch};
    use crate::config::{Selection, Source};

    /// The configuration as host `h` sees it.
    fn config(text: &str) -> Config {
        let scratch = Scratch::new();
        scratch.write("csync2.cfg", text);
        load(&scratch)
    }

    fn load(scratch: &Scratch) -> Config {
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        Config::load(&source, &Selection { my_name: "h".into(), groups: None })
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn path(name: &str) -> SyncPath {
        SyncPath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_match_of_each_kind_decides() {
        for (rules, name, expected) in [
            ("include /a;", "/a/b", true),
            ("include /a;", "/b", false),
            ("include /a; exclude /a/b;", "/a/b/c", false),
            ("exclude /a/b; include /a;", "/a/b/c", true),
            ("include /a; exclude *.c;", "/a/b.c", false),
            ("include /a; exclude *.c;", "/a/b.c/d", true),
            ("exclude *.c; include b.c /a;", "/a/b.c", true),
            ("include *.c;", "/a/b.c", false),
            ("include /a/*; exclude .*;", "/a/.x", false),
            ("include %p%; exclude %p%/x;", "%p%/y", true),
            ("include /p;", "%p%/y", false),
            ("compare /a;", "/a", false),
            ("include /a; exclude /a/b; compare /a/b;", "/a/b", false),
        ] {
            let config = config(&format!("group {{ host h p; key k; {rules} }}"));
            assert_eq!(is_covered(&config, &path(name), Purpose::Sync), expected, "{rules} {name}");
        }
        let compare = config("group { host h p; key k; include /x; compare /a /b; }");
        let both = |name| [Purpose::Sync, Purpose::Compare].map(|purpose| is_covered(&compare, &path(name), purpose));
        assert_eq!([both("/x"), both("/a"), both("/b")], [[true, true], [true, true], [false, true]]);
        assert_eq!(compare.warnings.len(), 1);
    }

    const TWO_GROUPS: &str = "group one { host h@one p (q); key k; include /a; }
        group two { host h@two q r p; key k2; include /a/b /c; auto first; }
        group no { host x; key k; include /a; }
        prefix p { on *: /srv/data; }";

    fn two_groups() -> Config {
        let scratch = Scratch::new();
        scratch.write("csync2.cfg", TWO_GROUPS);
        scratch.write("k2", KEY.to_lowercase());
        load(&scratch)
    }

    #[test]
    fn the_group_declared_last_gives_our_name() {
        let config = two_groups();
        let peers = |name: &str| -> Vec<(String, String)> {
            let path = path(name);
            let peers = peers_of(&config, &path, Purpose::Sync);
            peers.iter().map(|peer| (peer.my_name.to_owned(), peer.peer.to_owned())).collect()
        };
        let named = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|&(mine, peer)| (mine.to_owned(), peer.to_owned())).collect()
        };
        assert_eq!(peers("/a/x"), named(&[("one", "p"), ("one", "q")]));
        assert_eq!(peers("/a/b"), named(&[("two", "q"), ("two", "r"), ("two", "p")]));
        assert_eq!(peers("/x"), []);
        assert_eq!(pairs(&config), named(&[("one", "q"), ("one", "p"), ("two", "p"), ("two", "r"), ("two", "q")]));
        let group =
            |name, mine, peer| group_with_peer(&config, &path(name), mine, peer).map(|group| group.name.as_str());
        assert_eq!(group("/a/b", None, "p"), Some("two"));
        assert_eq!(group("/a/b", Some("one"), "p"), Some("one"));
        assert_eq!(group("/a/x", None, "r"), None);
    }

    #[test]
    fn a_peer_needs_a_group_its_membership_and_the_key() {
        let config = two_groups();
        let ask = |name, peer, key| permission(&config, &path(name), peer, key, Purpose::Sync);
        let lower = KEY.to_lowercase();
        for (name, peer, key, expected) in [
            ("/x", "p", KEY, Permission::Denied(DeniedBecause::NoGroupCovers)),
            ("/a/x", "r", KEY, Permission::Denied(DeniedBecause::NotAMember)),
            ("/a/x", "p", "", Permission::Denied(DeniedBecause::WrongKey)),
            ("/a/x", "p", lower.as_str(), Permission::Denied(DeniedBecause::WrongKey)),
            ("/a/x", "p", KEY, Permission::Allowed),
            ("/a/x", "q", KEY, Permission::Slave),
            ("/a/b", "q", KEY, Permission::Slave),
            ("/a/b", "q", lower.as_str(), Permission::Allowed),
        ] {
            assert_eq!(ask(name, peer, key), expected, "{name} {peer} {key}");
        }
    }

    #[test]
    fn a_walk_passes_above_prefixes_and_nowhere_else() {
        let config = two_groups();
        for (real, expected) in [
            ("/", true),
            ("/srv", true),
            ("/srv/data", false),
            ("/srv/data/x", false),
            ("/sr", false),
            ("/srv/da", false),
        ] {
            assert_eq!(above_prefix(&config, real.as_bytes()), expected, "{real}");
        }
        assert!(descend(&config, &path("/"), Purpose::Sync) && descend(&config, &path("/a/x"), Purpose::Sync));
        assert!(!descend(&config, &path("/b"), Purpose::Sync));
    }

    #[test]
    fn actions_depend_on_where_the_change_was_made() {
        let config = config(
            "group { host h p; key k; include /r;
                action { exec REMOTE; }
                action { pattern /r/a/* /r/a/b; exec A1 A2; do-local; logfile L; logfile L2; }
                action { pattern /r/**f; exec LOCAL; do-local-only; do-local; }
                action { pattern f; pattern /r/a/; exec NEVER; do-local; }
                action { pattern /r/*; exec A1; do-local; } }",
        );
        let commands = |name, event| -> Vec<String> {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let scheduled = actions_for(&config, &path(name), event).into_iter();
            scheduled.map(|action| format!("{}>{}", text(action.command), text(action.logfile))).collect()
        };
        assert_eq!(commands("/r/a/f", Event::Local), ["A1>/dev/null", "LOCAL>/dev/null", "A2>L2"]);
        assert_eq!(commands("/r/a/f", Event::Received), ["A1>/dev/null", "A2>L2", "REMOTE>/dev/null"]);
        assert_eq!(commands("/r", Event::Received), ["REMOTE>/dev/null"]);
        assert_eq!(commands("/x", Event::Received), [""; 0]);
    }
}
