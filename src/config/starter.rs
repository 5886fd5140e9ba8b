//! The text of a first configuration, for an administrator to fill in.

/// A configuration of one group of `hosts` (as in a host list, `name@address` included), whose key is in the file `key`. Includes
/// nothing: which files are to be kept in step nobody can know.
#[must_use]
pub fn starter(group: &str, hosts: &[String], key: &str) -> String {
    let hosts: Vec<String> =
        hosts.iter().map(|host| host.split('@').map(quoted).collect::<Vec<_>>().join("@")).collect();
    TEXT.replace("GROUP", group).replace("HOSTS", &hosts.join(" ")).replace("KEY", &quoted(key))
}

/// A word that is taken as it stands.
fn quoted(word: &str) -> String {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_keyword = ["host", "key", "include", "exclude", "compare", "auto", "action", "group"].contains(&word);
    if is_plain && !is_keyword { word.to_owned() } else { format!("\"{word}\"") }
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
    use crate::config::reference::Scratch;
    use crate::config::{Config, Selection, Source};

    #[test]
    fn it_is_a_configuration_of_these_hosts() {
        let scratch = Scratch::new();
        let hosts = ["alpha", "beta@fe80::1", "gamma", "group"].map(str::to_owned);
        scratch.write("csync2.cfg", starter("cluster", &hosts, "csync2.key_cluster"));
        scratch.write("csync2.key_cluster", "k".repeat(64));
        let only_root = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(scratch.root().join("csync2.key_cluster"), only_root).unwrap();
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        let selection = Selection { my_name: "alpha".into(), groups: None };
        let config = Config::load(&source, &selection).unwrap();
        let peers: Vec<&str> = config.groups[0].hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(peers, ["fe80::1", "gamma", "group"]);
        assert_eq!(config.warnings.len(), 0, "{:?}", config.warnings);
    }
}
