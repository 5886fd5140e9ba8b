//! `--check-config`: says what is wrong with the configuration, what it hardly means, and what it makes of the operands.
//! Opens no database, needs no key, and changes nothing.

use std::os::unix::ffi::OsStrExt;

use crate::cli::{Printer, Settings, Status, WorkingDirectory};
use crate::config::{Action, ActionScope, Config, Group, Host, Pattern, Rule, RuleKind};
use crate::engine::check::includes;
use crate::engine::explain::{self, Verdict};
use crate::engine::membership::{self, Purpose};
use crate::engine::pitfalls;
use crate::fs::{Presence, presence};
use crate::model::SyncPath;
use crate::model::path::shown;

/// Warnings go to the log, what is said of the operands to the printer.
///
/// # Errors
/// What is wrong with the configuration, as every run would say it.
pub(super) async fn run(settings: &Settings, operands: &[Vec<u8>], printer: &Printer) -> anyhow::Result<Status> {
    let (config, usable) = super::node_settings(settings, true).inspect().await?;
    let warnings = pitfalls::find(&config).await.into_iter().map(|warning| warning.in_full());
    // Where files are still to come from others, nothing is wrong with that.
    let warnings: Vec<String> = warnings.chain(includes::without_directory(&config)).collect();
    for warning in &warnings {
        tracing::warn!("WARNING: {warning}");
    }
    usable?;
    let mut lines = Vec::new();
    if operands.is_empty() {
        lines.push(summary(&config, warnings.len()));
    } else {
        let directory = WorkingDirectory::of_process()?;
        for operand in operands {
            lines.extend(Explained::of(&config, operand, &directory).lines());
        }
    }
    for line in lines {
        printer.line(&[line.as_bytes()])?;
    }
    printer.flush()?;
    Ok(Status::Success)
}

fn summary(config: &Config, warnings: usize) -> String {
    let file = config.files.first().map(|file| file.display().to_string()).unwrap_or_default();
    let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let groups = of(config.groups.len(), "group");
    let warnings = if warnings == 0 { "no warnings".to_owned() } else { of(warnings, "warning") };
    format!("{file} is valid. {} is in {groups}; {warnings}.", config.my_name)
}

/// An operand, and what the configuration makes of the file that it names.
struct Explained<'c> {
    config: &'c Config,
    /// What was typed, where that is another name.
    typed: Option<String>,
    /// As the program knows it.
    file: String,
    names: Vec<SyncPath>,
    is_here: bool,
}

impl<'c> Explained<'c> {
    fn of(config: &'c Config, operand: &[u8], directory: &WorkingDirectory) -> Self {
        let prefixed = SyncPath::parse(operand).ok().filter(|name| name.split_prefix().is_some());
        // A name of the tables stands for what lies there, whatever links lead to it.
        let real = match prefixed.as_ref().map(|name| config.local(name)) {
            Some(Ok(local)) => local.absolute().as_os_str().as_bytes().to_vec(),
            Some(Err(_)) => operand.to_vec(),
            None => directory.canonical(operand),
        };
        let names = if real.starts_with(b"/") { config.names_of(&real) } else { prefixed.into_iter().collect() };
        let is_named_otherwise = matches!(operand.first(), Some(b'/' | b'%')) && operand != real;
        let is_here = names
            .iter()
            .filter_map(|name| config.local(name).ok())
            .any(|local| !matches!(presence(local.root(), local.relative()), Presence::Gone));
        Self { config, typed: is_named_otherwise.then(|| shown(operand)), file: shown(&real), names, is_here }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let typed = self.typed.as_ref().map(|typed| format!(", as {typed}")).unwrap_or_default();
        let missing = if self.is_here { "" } else { " (not on this disk)" };
        lines.push(format!("{}{typed}{missing}", self.file));
        if let [name] = self.names.as_slice()
            && let Err(error) = self.config.local(name)
        {
            lines.push(format!("  not covered: {error}"));
            return lines;
        }
        let pairs = || self.names.iter().flat_map(|name| self.config.groups.iter().map(move |group| (name, group)));
        let is_covered = pairs().any(|(name, group)| membership::covers(group, name, Purpose::Sync));
        for (name, group) in pairs() {
            let verdict = Verdict::of(group, name, Purpose::Sync);
            if verdict.covers() {
                lines.extend(self.covered(name, &verdict));
            } else {
                lines.extend(self.left_out(name, &verdict));
            }
        }
        if lines.len() == 1 {
            lines.push("  not covered: no pattern with a path fits".to_owned());
        }
        if !is_covered && self.names.iter().any(|name| membership::below_covered(self.config, name, Purpose::Sync)) {
            lines.push("  a check goes through it to what may be covered below".to_owned());
        }
        lines
    }

    /// How a name is told where the file has another one.
    fn spelled(&self, name: &SyncPath) -> String {
        let name = shown(name.as_bytes());
        if name == self.file { String::new() } else { format!(" as {name}") }
    }

    fn covered(&self, name: &SyncPath, verdict: &Verdict) -> Vec<String> {
        let Verdict { group, .. } = verdict;
        let rules: Vec<String> = verdict.decisive().iter().map(|rule| self.rule(rule)).collect();
        let spelled = self.spelled(name);
        let mut lines = vec![format!("  covered{spelled} by group {}: {}", group.name, rules.join(", and "))];
        lines.push(format!("    peers: {}", self.peers(group)));
        if group.i_am_slave {
            lines.push("    this host is a slave there: what changes here is refused by the peers".to_owned());
        }
        lines.extend(explain::actions(group, name).map(|(action, pattern)| self.action(action, pattern)));
        if self.is_linked(name) {
            lines.push("    the prefix leads through a symlink, and no check finds what is behind it".to_owned());
        }
        if let Some(directory) = explain::barrier(self.config, name) {
            lines.push(format!(
                "    a check does not find it by itself, since it does not enter {}: csync2 -c {}",
                shown(directory.as_bytes()),
                self.file
            ));
        }
        lines
    }

    fn is_linked(&self, name: &SyncPath) -> bool {
        name.split_prefix().is_some()
            && self.config.local(name).is_ok_and(|local| pitfalls::real_place(local.root()).is_some())
    }

    fn left_out(&self, name: &SyncPath, verdict: &Verdict) -> Option<String> {
        let (group, spelled) = (&verdict.group.name, self.spelled(name));
        let for_comparing = Verdict::of(verdict.group, name, Purpose::Compare);
        if for_comparing.covers() {
            let rule = self.rule(for_comparing.decisive().first()?);
            return Some(format!("  not covered{spelled} by group {group}, but for comparing: {rule}"));
        }
        let rule = self.rule(verdict.decisive().first()?);
        Some(format!("  not covered{spelled} by group {group}: last match is {rule}"))
    }

    fn rule(&self, rule: &Rule) -> String {
        let word = match rule.kind {
            RuleKind::Include => "include",
            RuleKind::Exclude => "exclude",
            RuleKind::Compare => "compare",
        };
        format!("{}, {word} {}", self.config.line(rule.span), shown(rule.pattern.as_bytes()))
    }

    fn peers(&self, group: &Group) -> String {
        let peer = |host: &Host| if host.slave { format!("{} (slave)", host.name) } else { host.name.clone() };
        let peers: Vec<String> = group.hosts.iter().map(peer).collect();
        let peers = if peers.is_empty() { "none".to_owned() } else { peers.join(", ") };
        if group.my_name == self.config.my_name {
            return peers;
        }
        format!("{peers}; they know this host as {}", group.my_name)
    }

    fn action(&self, action: &Action, pattern: Option<&Pattern>) -> String {
        let when = match action.local {
            ActionScope::Remote => "received",
            ActionScope::Both => "received, or changed here",
            ActionScope::LocalOnly => "changed here",
        };
        let pattern = pattern.map(|pattern| format!(", pattern {}", shown(pattern.as_bytes()))).unwrap_or_default();
        let commands: Vec<String> = action.commands.iter().map(|command| shown(command)).collect();
        format!("    runs when {when}: {} ({}{pattern})", commands.join("; "), self.config.line(action.span))
    }
}
