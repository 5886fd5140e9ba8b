//! What a configuration says and hardly means, as far as it takes the rules of groups, the disk or the network to see it: for
//! whoever asks (`--check-config`). Groups in which this host does not occur mean nothing here.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::check::removal::literal_directory;
use super::identify;
use super::membership::{self, Purpose};
use super::open::shared_backups;
use crate::config::ast::{Block, Statement, Word};
use crate::config::pattern::{Below, PatternKind};
use crate::config::{Config, Group, Prefix, Rule, RuleKind, Warning};
use crate::fs::{Presence, presence};
use crate::model::{FileKind, SyncPath};
use crate::store::{Location, PostgresUrl};

/// Everything that deserves a warning, what every run warns about included, in the order of the file. Looks names up for a
/// few seconds at most.
pub async fn find(config: &Config) -> Vec<Warning> {
    let mut warnings = config.warnings.clone();
    for group in &config.groups {
        for (index, rule) in group.rules.iter().enumerate() {
            warnings.extend(goes_nowhere(config, rule));
            warnings.extend(below_an_exclude(config, group, index));
            warnings.extend(without_prefix(config, rule));
            warnings.extend(behind_a_symlink(config, rule));
        }
    }
    warnings.extend(config.groups.iter().filter_map(|group| without_files(config, group)));
    warnings.extend(config.prefixes.iter().filter_map(|prefix| linked_prefix(config, prefix)));
    warnings.extend(shared_database(config));
    warnings.extend(open_password(config));
    warnings.extend(open_tls_key(config));
    warnings.extend(shared_backups(config).map(Warning::from));
    warnings.extend(misleading_names(config).await);
    warnings.sort_by_key(Warning::span);
    warnings
}

fn without_files(config: &Config, group: &Group) -> Option<Warning> {
    let is_empty = group.rules.iter().all(|rule| rule.kind == RuleKind::Exclude);
    let file = config.files.first().map(|file| file.display().to_string()).unwrap_or_default();
    is_empty.then(|| format!("the group {} includes nothing: say which files in {file}", group.name).into())
}

/// Where the configuration says that the state is kept. One that cannot be understood has an error of its own.
fn database(config: &Config) -> Option<(&Word, PostgresUrl)> {
    let word = config.document.blocks.iter().find_map(|block| match block {
        Block::Database(word) => Some(word),
        _ => None,
    })?;
    match Location::resolve(config.database.as_deref(), &config.my_name, "") {
        Ok(Location::Postgres(url)) => Some((word, url)),
        _ => None,
    }
}

/// The state of one host, which others take for theirs: each would miss the others' files and push their removal.
fn shared_database(config: &Config) -> Option<Warning> {
    let (word, url) = database(config)?;
    if url.is_of_this_machine() {
        return None;
    }
    let ours = Location::Postgres(url);
    let shares = |name: &&String| {
        **name != config.my_name
            && Location::resolve(config.database.as_deref(), name, "").is_ok_and(|theirs| theirs == ours)
    };
    let other = config.all_host_names.iter().find(shares)?;
    let text = format!(
        "{ours} is the database of {other}, too, where this configuration is the same: hosts that share one take each other's files \
         for removed. Without a name behind the last slash each has its own, csync2_HOST; or name one for each host with -D"
    );
    Some(config.warning(word.span, text))
}

fn open_password(config: &Config) -> Option<Warning> {
    let (word, url) = database(config)?;
    url.password?;
    let file = &config.document.sources.get(word.span.source)?.file;
    let is_open = fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o004 != 0);
    is_open.then(|| {
        let file = file.display();
        let text = format!(
            "the password can be read by every user of this host: chmod 640 {file}, or keep it in a password file \
             (?passfile=/etc/csync2.pgpass)"
        );
        config.warning(word.span, text)
    })
}

/// For which kind of run a rule takes files in; `None`: for none.
fn included_for(rule: &Rule) -> Option<Purpose> {
    match rule.kind {
        RuleKind::Include => Some(Purpose::Sync),
        RuleKind::Compare => Some(Purpose::Compare),
        RuleKind::Exclude => None,
    }
}

fn stars_cross_slashes(rule: &Rule) -> bool {
    rule.pattern.kind() == PatternKind::Path { stars_cross_slashes: true }
}

/// `/srv/**.conf` fits names at any depth, and leads into no directory below `/srv`.
fn goes_nowhere(config: &Config, rule: &Rule) -> Option<Warning> {
    let purpose = included_for(rule).filter(|_| stars_cross_slashes(rule))?;
    let pattern = rule.pattern.as_bytes();
    let directory = literal_directory(pattern)?;
    let last = &pattern[pattern.iter().rposition(|&byte| byte == b'/')? + 1..];
    // A star at the end takes in each directory that it fits, with everything below.
    let fits_deeper = directory.as_bytes() == &pattern[..pattern.len() - last.len() - 1] && !last.ends_with(b"*");
    // A name that nobody has written into a pattern.
    let below = directory.join(b"\x01").ok()?;
    if !fits_deeper || membership::descend(config, &below, purpose) {
        return None;
    }
    let last = String::from_utf8_lossy(last).replace("**", "*");
    let text = format!(
        "it fits names at any depth, but a check goes no deeper than {directory} for it: nothing leads into the \
         directories below. `{directory}/**/{last}` does, beside `{directory}/{last}`"
    );
    Some(config.warning(rule.span, text))
}

/// `exclude /srv/cache; include /srv/**.conf` covers files in a directory that a check does not enter.
fn below_an_exclude(config: &Config, group: &Group, index: usize) -> Option<Warning> {
    let rule = &group.rules[index];
    let purpose = included_for(rule).filter(|_| stars_cross_slashes(rule))?;
    group.rules[..index].iter().filter(|earlier| earlier.kind == RuleKind::Exclude).find_map(|exclude| {
        let directory = SyncPath::parse(exclude.pattern.as_bytes()).ok()?;
        let is_literal = literal_directory(exclude.pattern.as_bytes()).as_ref() == Some(&directory);
        let may_fit_below = rule.pattern.below(&directory) == Below::Some;
        let is_missed = is_literal && may_fit_below && !membership::descend(config, &directory, purpose);
        is_missed.then(|| {
            let text = format!(
                "it may fit files below {directory}, but {} excludes that directory, and nothing leads into it: there, only \
                 what is named is checked",
                config.line(exclude.span)
            );
            config.warning(rule.span, text)
        })
    })
}

fn without_prefix(config: &Config, rule: &Rule) -> Option<Warning> {
    let name = rule.pattern.as_bytes().strip_prefix(b"%")?.split(|&byte| byte == b'%').next()?;
    let is_known = config.prefixes.iter().any(|prefix| prefix.name == name && prefix.directory.is_some());
    (!is_known).then(|| {
        let name = String::from_utf8_lossy(name);
        config.warning(rule.span, format!("the prefix `{name}` has no directory on this host: nothing is found there"))
    })
}

/// Nothing is kept in step behind a symlink; and of one that a pattern names, the link alone.
fn behind_a_symlink(config: &Config, rule: &Rule) -> Option<Warning> {
    included_for(rule)?;
    let pattern = rule.pattern.as_bytes();
    let literal = literal_directory(pattern)?;
    let local = config.local(&literal).ok()?;
    let place = local.absolute();
    let shown = place.display();
    let text = match presence(local.root(), local.relative()) {
        Presence::BehindSymlink => {
            format!("{shown} lies behind a symlink, where no file is kept in step: name the real path")
        }
        Presence::Present(found) if matches!(found.kind, FileKind::Symlink { .. }) => {
            let is_whole = literal.as_bytes() == pattern;
            let leads_to_directory = fs::metadata(&place).is_ok_and(|metadata| metadata.is_dir());
            if !leads_to_directory {
                return None;
            }
            let what = if is_whole { "the link is kept in step, not what lies behind it" } else { "it fits nothing" };
            format!("{shown} is a symlink to a directory: {what}. Name the real path")
        }
        _ => return None,
    };
    Some(config.warning(rule.span, text))
}

/// A directory of a prefix that is reached through a symlink: a check takes in the link, and nothing behind it.
fn linked_prefix(config: &Config, prefix: &Prefix) -> Option<Warning> {
    let directory = prefix.directory.as_ref()?;
    let real = real_place(directory)?;
    let mut blocks = config.document.blocks.iter().filter_map(|block| match block {
        Block::Prefix { name, .. } if name.text == prefix.name => Some(name),
        _ => None,
    });
    let text = format!(
        "the directory of the prefix `{}`, {}, is reached through a symlink, and nothing is found there. Its real path is {}",
        String::from_utf8_lossy(&prefix.name),
        directory.display(),
        real.display()
    );
    // The last block is the one that counts.
    Some(blocks.next_back().map_or_else(|| text.clone().into(), |name| config.warning(name.span, text.clone())))
}

/// Where a directory is that is reached through a symlink; `None`: it is what it is called.
#[must_use]
pub fn real_place(directory: &Path) -> Option<PathBuf> {
    directory.canonicalize().ok().filter(|real| real != directory)
}

fn open_tls_key(config: &Config) -> Option<Warning> {
    let key = config.tls.key.as_path();
    let is_open = fs::metadata(key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0);
    is_open.then(|| {
        let key = Path::display(key);
        format!("the TLS key {key} can be read by every user of this host; chmod 600 {key}").into()
    })
}

/// Hosts that cannot be reached since their name says nothing, or leads here, each where it stands first.
async fn misleading_names(config: &Config) -> Vec<Warning> {
    let peers: BTreeSet<&str> =
        config.groups.iter().flat_map(|group| &group.hosts).map(|host| host.name.as_str()).collect();
    // Of a comma in a name there is a warning already.
    let mut names: Vec<String> = peers.into_iter().filter(|name| !name.contains(',')).map(str::to_owned).collect();
    names.push(config.my_name.clone());
    let mut addresses = identify::look_up(&names).await;
    let ours = addresses.pop().unwrap_or_default();
    let own = &config.my_name;
    let warning = |(name, addresses): (&String, Vec<IpAddr>)| {
        let text = if addresses.is_empty() {
            format!("the host name `{name}` resolves to no address on this host")
        } else if identify::lead_here(&ours, &addresses) {
            format!(
                "the host name `{name}` resolves to an address of this host, {own}: what is pushed to it comes back"
            )
        } else {
            return None;
        };
        Some(match place_of(config, name) {
            Some(word) => config.warning(word.span, text),
            None => text.into(),
        })
    };
    names.iter().zip(addresses).filter_map(warning).collect()
}

/// Where a host is named, as it is reached.
fn place_of<'c>(config: &'c Config, name: &str) -> Option<&'c Word> {
    let groups = config.document.blocks.iter().filter_map(|block| match block {
        Block::Group(group) => Some(group),
        _ => None,
    });
    let hosts = groups.flat_map(|group| &group.statements).filter_map(|statement| match statement {
        Statement::Hosts(hosts) => Some(hosts),
        _ => None,
    });
    let mut words = hosts.flatten().map(|host| host.interface.as_ref().unwrap_or(&host.name));
    words.find(|word| word.lossy().to_ascii_lowercase() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::Scratch;
    use crate::config::{Selection, Source};
    use std::os::unix::fs::{PermissionsExt, symlink};

    async fn warnings(scratch: &Scratch, text: &str) -> Vec<String> {
        scratch.write("csync2.cfg", text);
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        let selection = Selection { my_name: "h".into(), groups: None };
        find(&Config::inspect(&source, &selection).unwrap()).await.iter().map(Warning::to_string).collect()
    }

    /// The warnings of a group of `h` and an address, without their places.
    async fn of_rules(rules: &str) -> Vec<String> {
        let text = format!("group {{ host h 127.0.0.1; key k; {rules} }}\nprefix p {{ on h: /nowhere; on x: /x; }}");
        let found = warnings(&Scratch::new(), &text).await;
        found.iter().map(|warning| warning.split_once(":1: ").unwrap().1.to_owned()).collect()
    }

    #[tokio::test]
    async fn patterns_that_a_check_does_not_follow_are_told() {
        for (rules, part) in [
            ("include /srv/**.conf;", "`/srv/**/*.conf` does, beside `/srv/*.conf`"),
            ("include %p%/**.conf;", "a check goes no deeper than %p%"),
            ("compare /srv/a**b;", "no deeper than /srv"),
            ("include /srv; exclude /srv/cache; include /srv/**.conf;", "files below /srv/cache, but line 1 excludes"),
            ("include %q%/a;", "the prefix `q` has no directory"),
        ] {
            let found = of_rules(rules).await;
            assert!(matches!(found.as_slice(), [only] if only.contains(part)), "{rules}: {found:#?}");
        }
        for rules in [
            "include /srv/**/*.conf;",
            "include /srv/**;",
            "include /srv/a**;",
            "include /srv /srv/**.conf;",
            "include /srv/*/x**.conf;",
            "include /srv; exclude /srv/**.conf;",
            "include /srv; exclude /srv/cache; include /srv/cache/keep /srv/*.d/x;",
            "include /srv; exclude /srv/cache; include /srv/**/*.conf;",
            "include %p%;",
        ] {
            assert_eq!(of_rules(rules).await, [""; 0], "{rules}");
        }
    }

    #[tokio::test]
    async fn a_database_that_several_hosts_would_share_is_told_of() {
        for (database, is_shared) in [
            ("pgsql://u@db.example.net/csync2", true),
            ("pgsql://u@db.example.net/?dbname=csync2", true),
            ("pgsql://u@db.example.net/", false),
            ("pgsql://u@/csync2", false),
            ("pgsql://u@127.0.0.1/csync2", false),
            ("pgsql:///csync2?host=/run/postgresql", false),
            ("/srv/csync2.db", false),
        ] {
            let text = format!("group {{ host h 127.0.0.1; key k; include /srv; }} database \"{database}\";");
            let found = warnings(&Scratch::new(), &text).await;
            let told = found.iter().any(|warning| warning.contains("is the database of 127.0.0.1, too"));
            assert_eq!(told, is_shared, "{database}: {found:#?}");
            assert_eq!(found.len(), usize::from(is_shared), "{database}: {found:#?}");
        }
        let alone = "group { host h; key k; include /srv; } database \"pgsql://u@db.example.net/csync2\";";
        assert_eq!(warnings(&Scratch::new(), alone).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_password_that_everybody_can_read_is_told_of() {
        let scratch = Scratch::new();
        let text = "group { host h 127.0.0.1; key k; include /srv; } database \"pgsql://u:p@127.0.0.1/\";";
        scratch.write("csync2.cfg", "");
        std::fs::set_permissions(scratch.path("csync2.cfg"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let found = warnings(&scratch, text).await;
        assert!(matches!(found.as_slice(), [only] if only.contains("chmod 640")), "{found:#?}");
        std::fs::set_permissions(scratch.path("csync2.cfg"), std::fs::Permissions::from_mode(0o640)).unwrap();
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        let selection = Selection { my_name: "h".into(), groups: None };
        assert!(find(&Config::inspect(&source, &selection).unwrap()).await.is_empty());
    }

    #[tokio::test]
    async fn a_peer_that_is_this_host_is_told_of() {
        let source = |scratch: &Scratch| Source { system_dir: scratch.root(), config_name: String::new() };
        let selection = Selection { my_name: "127.0.0.7".into(), groups: None };
        for (peer, is_this) in [("localhost.me@127.0.0.7", true), ("127.0.0.8", false)] {
            let scratch = Scratch::new();
            scratch.write("csync2.cfg", format!("group {{ host 127.0.0.7 {peer}; key k; include /srv; }}"));
            scratch.write("k", "k".repeat(64));
            let config = Config::inspect(&source(&scratch), &selection).unwrap();
            let told = find(&config)
                .await
                .iter()
                .any(|warning| warning.to_string().contains("what is pushed to it comes back"));
            assert_eq!(told, is_this, "{peer}");
        }
    }

    #[tokio::test]
    async fn what_the_disk_and_the_network_say_is_told_in_the_order_of_the_file() {
        let scratch = Scratch::new();
        scratch.write("real/sub/f", "");
        symlink("real", scratch.path("link")).unwrap();
        symlink("real/sub/f", scratch.path("real/to-file")).unwrap();
        scratch.write("csync2_ssl_key.pem", "");
        std::fs::set_permissions(scratch.path("csync2_ssl_key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let top = scratch.root();
        let top = top.to_str().unwrap();
        let text = format!(
            "group {{ host h 127.0.0.1\nx@no.such.host.invalid;\nkey none;\ninclude {top}/link/sub/f;\ninclude {top}/link;\n\
             include {top}/link/*;\ninclude {top}/real/to-file {top}/real/sub;\nbackup-directory {top}/real/sub/backups; }}\n\
             prefix l {{ on h: {top}/link; }}"
        );
        let found = warnings(&scratch, &text).await;
        let expected = [
            "the TLS key",
            "the backup-directory",
            "csync2.cfg:2: the host name `no.such.host.invalid` resolves to no address",
            "csync2.cfg:3: the key file",
            "csync2.cfg:4: ",
            "csync2.cfg:5: ",
            "csync2.cfg:6: ",
            "csync2.cfg:9: the directory of the prefix `l`",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (warning, part) in found.iter().zip(expected) {
            assert!(warning.contains(part), "{part}: {found:#?}");
        }
        assert!(found[4].contains("behind a symlink") && found[5].contains("the link is kept in step"), "{found:#?}");
        assert!(found[6].contains("it fits nothing"), "{found:#?}");
    }
}
