//! The text of a first configuration, for an administrator to fill in.

use super::lexer::is_keyword;

/// What is wrong with the names of hosts as they are typed: each a name, or `name@address`.
///
/// # Errors
/// A sentence about the first that is none, or that is there twice.
pub fn check_hosts(hosts: &[String]) -> Result<(), String> {
    let mut seen: Vec<String> = Vec::new();
    for host in hosts {
        let name = host.split('@').next().unwrap_or_default().to_ascii_lowercase();
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| is_plain(byte) || b":%".contains(&byte));
        if host.matches('@').count() > 1 || !host.split('@').all(is_word) {
            return Err(format!(
                "{host:?} is no host: they are written NAME or NAME@ADDRESS, with blanks between them. A host that only receives is \
                 put in parentheses later, in the configuration"
            ));
        }
        if seen.contains(&name) {
            return Err(format!("the host {name} is named twice"));
        }
        seen.push(name);
    }
    Ok(())
}

/// A configuration of one group of `hosts` (as in a host list, `name@address` included), whose key is in the file `key`. Includes
/// nothing: which files are to be kept in step nobody can know.
#[must_use]
pub fn starter(group: &str, hosts: &[String], key: &str) -> String {
    let hosts: Vec<String> =
        hosts.iter().map(|host| host.split('@').map(quoted).collect::<Vec<_>>().join("@")).collect();
    // The hosts last: one of them may be called like what is replaced.
    TEXT.replace("GROUP", &quoted(group)).replace("KEY", &quoted(key)).replace("HOSTS", &hosts.join(" "))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// A word that is taken as it stands.
fn quoted(word: &str) -> String {
    if word.bytes().all(is_plain) && !is_keyword(word.as_bytes()) { word.to_owned() } else { format!("\"{word}\"") }
}

const TEXT: &str = r#"# What is kept in step between which hosts. The same file, with the same key file, lies in this directory on every host.
# All words: csync2.cfg.example and the manual. `csync2 --check-config` says whether it means what it says, and
# `csync2 --check-config FILE` why a file is kept in step or not.

group GROUP
{
	# Host names as `hostname` prints them. `name@address`: the host `name` is reached as `address`.
	# Hosts in parentheses only receive.
	host HOSTS;

	# A file name relative to this directory. The file's owner alone should read it.
	key KEY;

	# FILL IN which files. A path counts for everything below it; of several patterns that fit, the last decides.
	# A pattern without a `/` is matched against the last component of a name.
	# include /etc/apache2;
	exclude *~ .*.swp;

	# Old versions of what a peer replaces or removes here.
	backup-directory /var/backups/csync2;
	backup-generations 3;

	# Who wins when a file was changed on both sides: none (it is reported, and stays), younger, first, left, ...
	auto none;

	# Run on the hosts that received such files; %% becomes their names.
	# action
	# {
	# 	pattern /etc/apache2/*;
	# 	exec "/usr/sbin/apache2ctl graceful";
	# 	logfile "/var/log/csync2_action.log";
	# }
}

# Where the state is kept: without this an SQLite file in /var/lib/csync2. Without a name behind the last slash each host
# has a database of its own, csync2_HOST.
# database "pgsql://csync2@db.example.net/";
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lexer::Keyword;
    use crate::config::reference::Scratch;
    use crate::config::{Config, Selection, Source};

    /// The peers of `alpha`, in the file that is written for these hosts.
    fn peers(group: &str, hosts: &[String]) -> Vec<String> {
        let scratch = Scratch::new();
        scratch.write("csync2.cfg", starter(group, hosts, "csync2.key_cluster"));
        scratch.write("csync2.key_cluster", "k".repeat(64));
        let only_root = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(scratch.root().join("csync2.key_cluster"), only_root).unwrap();
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        let selection = Selection { my_name: "alpha".into(), groups: None };
        let config = Config::load(&source, &selection).unwrap();
        assert_eq!(config.warnings.len(), 0, "{:?}", config.warnings);
        assert_eq!(config.groups[0].name, group);
        config.groups[0].hosts.iter().map(|host| host.name.clone()).collect()
    }

    #[test]
    fn it_is_a_configuration_of_these_hosts() {
        let hosts = ["alpha", "beta@fe80::1", "gamma", "group", "KEYSERVER", "HOSTS"].map(str::to_owned);
        assert_eq!(check_hosts(&hosts), Ok(()));
        assert_eq!(peers("cluster", &hosts), ["fe80::1", "gamma", "group", "keyserver", "hosts"]);
    }

    #[test]
    fn any_word_of_the_language_is_a_name_as_well() {
        let words = Keyword::ALL.iter().map(|keyword| keyword.word()).chain(["config"]);
        for word in words {
            assert_eq!(peers(word, &["alpha".to_owned(), word.to_owned()]), [word]);
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let refused = |hosts: &[&str]| check_hosts(&hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>());
        for host in
            ["beta@", "@beta", "a@b@c", "be\"ta", "(gamma)", "beta,gamma", "", "be ta", "b;", "b\u{e9}ta", "{", "a\nb"]
        {
            assert!(refused(&["alpha", host]).is_err_and(|said| said.contains("is no host")), "{host}");
        }
        for hosts in [["beta", "Beta"], ["beta", "beta@10.0.0.1"]] {
            assert_eq!(refused(&hosts), Err("the host beta is named twice".to_owned()));
        }
    }
}
