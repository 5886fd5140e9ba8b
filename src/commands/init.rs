//! `--init`: what a host needs before it can keep anything in step. Makes what is missing, overwrites nothing, and says what is
//! still in the way. Can be repeated: it is done when nothing is wrong any more.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::{certificates, keygen, node_settings};
use crate::cli::settings::DEFAULT_PORT;
use crate::cli::{Printer, Settings, Status};
use crate::config::ast::{Block, Statement};
use crate::config::{Config, Source, starter};
use crate::engine::identify::Names;
use crate::engine::open::OpenError;
use crate::engine::pitfalls;
use crate::engine::reach::{self, Listening};
use crate::model::Scope;
use crate::model::errors::{chain, strerror};
use crate::store::Location;

/// The group of a first configuration.
const GROUP: &str = "cluster";

/// What was found and done, told line by line.
struct Setup<'s> {
    settings: &'s Settings,
    printer: &'s Printer,
    wrong: usize,
    /// The database has no files yet.
    knows_nothing: bool,
    /// What the administrator does next, in this order.
    next: Vec<String>,
}

/// Each line begins with what it is about: `made`, `kept`, `fine`, `wrong` or `next`.
///
/// # Errors
/// What is named is no host, or no other host is named where there is no configuration: nothing is made then.
pub(super) async fn run(settings: &Settings, hosts: &[String], printer: &Printer) -> anyhow::Result<Status> {
    let mut setup = Setup { settings, printer, wrong: 0, knows_nothing: false, next: Vec::new() };
    setup.configuration(hosts)?;
    match node_settings(settings, false).inspect().await {
        Err(error) => setup.wrong(&chain(&error))?,
        Ok((config, usable)) => {
            let is_member = !matches!(usable, Err(OpenError::NotAMember { .. }));
            if let Err(error) = usable {
                setup.wrong(&chain(&error))?;
            }
            setup.check(&config, hosts, is_member).await?;
        }
    }
    if setup.wrong > 0 {
        setup.next.insert(0, format!("put right what is wrong, then: {}", setup.command("--init")));
    }
    for step in std::mem::take(&mut setup.next) {
        setup.line("next", &step)?;
    }
    printer.flush()?;
    Ok(if setup.wrong == 0 { Status::Success } else { Status::Failure })
}

impl Setup<'_> {
    fn line(&self, word: &str, text: &str) -> anyhow::Result<()> {
        Ok(self.printer.line(&[format!("{word:<7}").as_bytes(), text.as_bytes()])?)
    }

    fn wrong(&mut self, text: &str) -> anyhow::Result<()> {
        self.wrong += 1;
        self.line("wrong", text)
    }

    /// How csync2 is called on this host.
    fn command(&self, arguments: &str) -> String {
        let Settings { bind, auto_name, database, .. } = self.settings;
        let name = bind.as_ref().map(|name| format!(" -N {}", quoted(name)));
        let auto_name = auto_name.then(|| " --auto-name".to_owned());
        let database = database.as_ref().map(|database| format!(" -D {}", quoted(&self.without_password(database))));
        let own: String = [name, auto_name, database].into_iter().flatten().collect();
        format!("csync2{own}{} {arguments}", self.shared_options())
    }

    /// How it is called on another one, which has a name and a database of its own.
    fn command_there(&self, arguments: &str) -> String {
        format!("csync2{} {arguments}", self.shared_options())
    }

    /// What was given that counts for all hosts.
    fn shared_options(&self) -> String {
        let Settings { config_name, port, .. } = self.settings;
        let config_name = (!config_name.is_empty()).then(|| format!(" -C {config_name}"));
        let port = (*port != DEFAULT_PORT).then(|| format!(" -p {port}"));
        [config_name, port].into_iter().flatten().collect()
    }

    /// A database as it may be shown.
    fn without_password(&self, database: &str) -> String {
        let Settings { my_name, config_name, .. } = self.settings;
        match Location::resolve(Some(database), my_name, config_name) {
            Ok(location @ Location::Postgres(_)) => location.to_string(),
            _ => database.to_owned(),
        }
    }

    /// How the server is started. The units of systemd have none of the options that were given here; which configuration a
    /// peer means it says itself.
    fn how_to_start(&self) -> String {
        let by_hand = self.command("-ii");
        let Settings { bind, auto_name, port, database, .. } = self.settings;
        if bind.is_none() && !auto_name && *port == DEFAULT_PORT && database.is_none() {
            return format!("start the server: systemctl enable --now csync2.socket, or {by_hand}");
        }
        format!(
            "start the server: {by_hand}. The units of systemd know nothing of these options: systemctl edit csync2-daemon.socket \
             csync2-daemon.service"
        )
    }

    /// The configuration and its key: made together, since a key that is missing beside a configuration lies on another host.
    fn configuration(&mut self, hosts: &[String]) -> anyhow::Result<()> {
        let Settings { system_dir, config_name, my_name, .. } = self.settings;
        let path = Source { system_dir: system_dir.clone(), config_name: config_name.clone() }.path();
        starter::check_hosts(hosts).map_err(|reason| anyhow::anyhow!("--init: {reason}. Nothing was made."))?;
        if path.exists() {
            return self.line("kept", &path.display().to_string());
        }
        if path.is_symlink() {
            bail!("{} is a link to nothing: remove it, or make what it leads to. Nothing was made.", path.display());
        }
        let name_of = |host: &String| host.split('@').next().unwrap_or_default().to_owned();
        let mut all = if hosts.iter().any(|host| name_of(host) == *my_name) { vec![] } else { vec![my_name.clone()] };
        all.extend_from_slice(hosts);
        if all.len() < 2 {
            bail!("there is no {}: name the other hosts, --init HOST.., or copy it from one of them", path.display());
        }
        let group = if config_name.is_empty() { GROUP } else { config_name };
        let key = format!("csync2.key_{group}");
        let key_path = system_dir.join(&key);
        if key_path.exists() {
            self.line("kept", &key_path.display().to_string())?;
        } else {
            keygen::run(&key_path).map_err(|error| anyhow::anyhow!("{}: {error}", key_path.display()))?;
            self.line("made", &format!("{}: the key of the group; the same on all hosts", key_path.display()))?;
        }
        certificates::write_new(&path, &starter::starter(group, &all, &key), 0o644)?;
        self.line("made", &format!("{}: a group of {}", path.display(), all.join(" ")))
    }

    async fn check(&mut self, config: &Config, hosts: &[String], is_member: bool) -> anyhow::Result<()> {
        let path = config.files.first().cloned().unwrap_or_default();
        for host in hosts {
            let name = host.split('@').next().unwrap_or_default();
            if !config.all_host_names.iter().any(|known| known == name || host.split('@').nth(1) == Some(known)) {
                self.wrong(&format!(
                    "{name} is in no group of {}, which is kept as it is: add it there",
                    path.display()
                ))?;
            }
        }
        for warning in pitfalls::find(config).await {
            self.wrong(&warning.in_full())?;
        }
        if !is_member {
            // What would be made now would be made for the wrong name.
            return Ok(());
        }
        self.certificate()?;
        self.database(config).await?;
        self.address(config).await?;
        self.port(config).await?;
        self.peers(config, &path).await
    }

    fn certificate(&mut self) -> anyhow::Result<()> {
        let tls = match certificates::places(self.settings) {
            Ok(tls) => tls,
            Err(error) => return self.wrong(&chain(&error)),
        };
        let files = format!("{} and {}", tls.certificate.display(), tls.key.display());
        if tls.certificate.exists() && tls.key.exists() {
            return match crate::wire::Identity::load(&tls.certificate, &tls.key, tls.legacy) {
                Ok(_) => self.line("kept", &files),
                Err(error) => self.wrong(&chain(&error)),
            };
        }
        match certificates::make_pair(self.settings) {
            Ok(made) => self.line("made", &format!("{files}: this host's own, {}", made.fingerprint)),
            Err(error) => self.wrong(&format!("{error:#}")),
        }
    }

    async fn database(&mut self, config: &Config) -> anyhow::Result<()> {
        let settings = node_settings(self.settings, false);
        let location = match settings.location(config, &self.settings.config_name) {
            Ok(location) => location,
            Err(error) => return self.wrong(&chain(&error)),
        };
        if let Location::Sqlite(file) = &location
            && let Some(directory) = file.parent()
            && !directory.exists()
        {
            match make_directory(directory) {
                Ok(()) => self.line("made", &directory.display().to_string())?,
                Err(error) => return self.wrong(&format!("cannot make {}: {}", directory.display(), strerror(&error))),
            }
        }
        match settings.open_store(&location, config).await {
            Ok(store) => {
                let remarks = store.remarks();
                self.knows_nothing = store.files(vec![Scope::All]).recv().await.is_none();
                store.close().await;
                for remark in remarks {
                    self.wrong(&remark)?;
                }
                self.line("fine", &format!("{location}: the database"))?;
            }
            Err(error) => {
                self.wrong(&chain(&error))?;
                for line in super::remedy(&location, &error) {
                    self.line("", &line)?;
                }
            }
        }
        if let Some(database) = &self.settings.database
            && config.database.as_ref() != Some(database)
        {
            self.next.push(format!(
                "-D was given: the server and every call need it, too, unless csync2.cfg has the word `database` ({location} is used \
                 here now); the other hosts have databases of their own"
            ));
        }
        Ok(())
    }

    async fn address(&mut self, config: &Config) -> anyhow::Result<()> {
        let name = &config.my_name;
        let found = Names::find(std::slice::from_ref(name)).await;
        if found.only().is_some() {
            return self.line("fine", &format!("{name}: resolves to an address of this machine"));
        }
        self.wrong(&format!(
            "{name}, this host's name, resolves to no address of this machine: peers reach another one (DNS or /etc/hosts; -N NAME \
             chooses another name)"
        ))
    }

    async fn port(&mut self, config: &Config) -> anyhow::Result<()> {
        let Settings { port, bind, .. } = self.settings;
        match reach::listening(config, bind.as_deref().unwrap_or(&config.my_name), *port).await {
            Listening::Csync2 => self.line("fine", &format!("port {port}: csync2 listens")),
            Listening::Somebody => {
                self.wrong(&format!("port {port}: something else listens there; -p PORT chooses another, on all hosts"))
            }
            Listening::Nobody => match reach::may_listen(config, bind.as_deref(), *port).await {
                Ok(()) => {
                    self.next.push(self.how_to_start());
                    self.line("fine", &format!("port {port}: free, and nobody listens yet"))
                }
                Err(error) => self.wrong(&chain(&error)),
            },
        }
    }

    /// Which peers are there already, and what the others need.
    async fn peers(&mut self, config: &Config, path: &Path) -> anyhow::Result<()> {
        let mut peers: Vec<&str> =
            config.groups.iter().flat_map(|group| &group.hosts).map(|host| host.name.as_str()).collect();
        peers.sort_unstable();
        peers.dedup();
        let port = self.settings.port;
        let listening = peers.iter().map(|peer| reach::listening(config, peer, port));
        let listening = futures_util::future::join_all(listening).await;
        let (there, missing): (Vec<_>, Vec<_>) =
            peers.iter().zip(listening).partition(|(_, listening)| *listening == Listening::Csync2);
        if there.is_empty() && self.knows_nothing {
            let check = self.command("-cr /");
            self.next.push(format!(
                "when the groups include what they should: {check}, for the others to have what is here"
            ));
        }
        for (peer, _) in &there {
            self.line("fine", &format!("{peer}: csync2 listens on port {port}"))?;
            self.next.push(format!(
                "where {peer} has been running, and this host is new: {}",
                self.command(&format!("--join {peer}"))
            ));
        }
        for (peer, _) in missing {
            let files = [path.to_owned()].into_iter().chain(key_files(config, &self.settings.system_dir));
            let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
            let directory = self.settings.system_dir.display();
            self.next.push(format!(
                "{peer} does not answer on port {port}. Where it is not set up yet: scp -p {} {peer}:{directory}/, and there: {}, \
                 start the server, {}",
                files.join(" "),
                self.command_there("--init"),
                self.command_there(&format!("--join {}", config.my_name))
            ));
        }
        Ok(())
    }
}

/// The key files that a configuration names.
fn key_files(config: &Config, system_dir: &Path) -> Vec<PathBuf> {
    let groups = config.document.blocks.iter().filter_map(|block| match block {
        Block::Group(group) => Some(group),
        _ => None,
    });
    let keys = groups.flat_map(|group| &group.statements).filter_map(|statement| match statement {
        Statement::Key(file) => Some(system_dir.join(file.lossy())),
        _ => None,
    });
    let mut keys: Vec<PathBuf> = keys.collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn make_directory(directory: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
