//! `--init`: what a host needs before it can keep anything in step. Makes what is missing, overwrites nothing, and says what is
//! still in the way. Can be repeated: it is done when nothing is wrong any more.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::{certificates, keygen, node_settings};
use crate::cli::{Printer, Settings, Status};
use crate::config::ast::{Block, Statement};
use crate::config::{Config, RuleKind, Source, starter};
use crate::engine::identify::Names;
use crate::engine::pitfalls;
use crate::engine::reach::{self, Listening};
use crate::model::errors::{chain, strerror};
use crate::store::Location;

/// The group of a first configuration.
const GROUP: &str = "cluster";

/// What was found and done, told line by line.
struct Setup<'s> {
    settings: &'s Settings,
    printer: &'s Printer,
    wrong: usize,
    /// What the administrator does next, in this order.
    next: Vec<String>,
}

/// Each line begins with what it is about: `made`, `kept`, `fine`, `wrong` or `next`.
///
/// # Errors
/// No other host is named where there is no configuration.
pub(super) async fn run(settings: &Settings, hosts: &[String], printer: &Printer) -> anyhow::Result<Status> {
    let mut setup = Setup { settings, printer, wrong: 0, next: Vec::new() };
    setup.configuration(hosts)?;
    match node_settings(settings, false).inspect().await {
        Err(error) => setup.wrong(&chain(&error))?,
        Ok((config, usable)) => {
            if let Err(error) = usable {
                setup.wrong(&chain(&error))?;
            }
            setup.check(&config, hosts).await?;
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
        let Settings { config_name, bind, port, .. } = self.settings;
        let config_name = Some(config_name).filter(|name| !name.is_empty()).map(|name| format!("-C {name}"));
        let name = bind.as_ref().map(|name| format!("-N {name}"));
        let port = (*port != crate::cli::settings::DEFAULT_PORT).then(|| format!("-p {port}"));
        let options = [config_name, name, port].into_iter().flatten();
        let words: Vec<String> =
            ["csync2".to_owned()].into_iter().chain(options).chain([arguments.to_owned()]).collect();
        words.join(" ")
    }

    /// The configuration and its key: made together, since a key that is missing beside a configuration lies on another host.
    fn configuration(&mut self, hosts: &[String]) -> anyhow::Result<()> {
        let Settings { system_dir, config_name, my_name, .. } = self.settings;
        let path = Source { system_dir: system_dir.clone(), config_name: config_name.clone() }.path();
        if path.exists() {
            return self.line("kept", &path.display().to_string());
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

    async fn check(&mut self, config: &Config, hosts: &[String]) -> anyhow::Result<()> {
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
        for group in &config.groups {
            if !group.rules.iter().any(|rule| rule.kind != RuleKind::Exclude) {
                self.wrong(&format!(
                    "the group {} includes nothing: say which files in {}",
                    group.name,
                    path.display()
                ))?;
            }
        }
        for warning in pitfalls::find(config).await {
            self.wrong(&warning.in_full())?;
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
                store.close().await;
                for remark in remarks {
                    self.wrong(&remark)?;
                }
                self.line("fine", &format!("{location}: the database"))?;
            }
            Err(error) => {
                self.wrong(&chain(&error))?;
                let statements = location.remedy(&error);
                if !statements.is_empty() {
                    self.line("", "in psql, as the server's superuser (sudo -u postgres psql):")?;
                }
                for statement in statements {
                    self.line("", &format!("    {statement}"))?;
                }
            }
        }
        if let Some(database) = &self.settings.database
            && config.database.as_ref() != Some(database)
        {
            self.next.push(format!(
                "-D was given: the server and every call need it, too, unless csync2.cfg has the word `database` ({location} is used \
                 here now)"
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
                    self.next.push(format!(
                        "start the server: systemctl enable --now csync2.socket, or {}",
                        self.command("-ii")
                    ));
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
                "{peer} does not answer on port {port}. Where it is not set up yet: scp -p {} {peer}:{directory}/, and there: csync2 \
                 --init, start the server, csync2 --join {}",
                files.join(" "),
                config.my_name
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

fn make_directory(directory: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
