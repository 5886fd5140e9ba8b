//! `-T` and `-TT`: what differs between this host and its peers, as lines or as diffs.

use std::io::Read;
use std::sync::Arc;

use super::Run;
use crate::cli::output::{OutputError, Side as Letter};
use crate::cli::{InSyncScope, Printer, Status};
use crate::engine::in_sync::{self, Difference, Findings, Found, Marking, Options, Pair, Side};
use crate::engine::membership::{self, Purpose};
use crate::model::{Scope, SyncPath};

impl Run {
    pub(super) async fn in_sync(&mut self, scope: InSyncScope, diffs: bool) -> anyhow::Result<Status> {
        match scope {
            InSyncScope::AllPairs => self.compare_pairs(Pair::all(&self.node), Scope::All, diffs, true).await,
            InSyncScope::Pair { my_name, peer } => match self.pair(&my_name, &peer) {
                Some(pair) => self.compare_pairs(vec![pair], Scope::All, diffs, false).await,
                None => Ok(self.not_found("Host pair not found in configuration.")),
            },
            InSyncScope::File(file) if diffs => {
                let Some(path) = self.compared_path(file)? else { return Ok(Status::Nothing) };
                self.diff_file(Pair::sharing(&self.node, &path), &path).await?;
                Ok(Status::Nothing)
            }
            InSyncScope::PairFile { my_name, peer, file } if diffs => {
                let path = self.compared_path(file)?;
                let is_meant = |pair: &Pair| pair.my_name.as_bytes() == my_name && pair.peer.as_bytes() == peer;
                let pair =
                    path.and_then(|path| Some((Pair::sharing(&self.node, &path).into_iter().find(is_meant)?, path)));
                let Some((pair, path)) = pair else {
                    return Ok(self.not_found("Host pair + file not found in configuration."));
                };
                self.diff_file(vec![pair], &path).await?;
                Ok(Status::Success)
            }
            InSyncScope::File(file) => match self.covered_path(file, Purpose::Sync)? {
                Some(path) => self.compare_pairs(Pair::all(&self.node), Scope::File(path), false, true).await,
                None => Ok(Status::Nothing),
            },
            InSyncScope::PairFile { my_name, peer, file } => {
                let path = self.covered_path(file, Purpose::Sync)?;
                match (self.pair(&my_name, &peer), path) {
                    (None, _) => Ok(self.not_found("Host pair not found in configuration.")),
                    (Some(_), None) => Ok(Status::Nothing),
                    (Some(pair), Some(path)) => self.compare_pairs(vec![pair], Scope::File(path), false, false).await,
                }
            }
        }
    }

    /// The pair with exactly these names.
    fn pair(&self, my_name: &[u8], peer: &[u8]) -> Option<Pair> {
        let mut pairs = Pair::all(&self.node).into_iter();
        pairs.find(|pair| pair.my_name.as_bytes() == my_name && pair.peer.as_bytes() == peer)
    }

    fn not_found(&mut self, text: &str) -> Status {
        self.report.error(text);
        Status::Failure
    }

    /// The preferred spelling of an operand that a group covers. What none covers is warned about.
    fn covered_path(&self, operand: Vec<u8>, purpose: Purpose) -> std::io::Result<Option<SyncPath>> {
        let targets = self.warn_about(&[operand], purpose)?;
        let config = &self.node.config;
        let mut names = targets.iter().flat_map(|target| config.names_of(&target.real));
        Ok(names.find(|name| membership::is_covered(config, name, purpose)))
    }

    /// As [`Run::covered_path`] where `compare` patterns and `-P` count.
    fn compared_path(&mut self, operand: Vec<u8>) -> std::io::Result<Option<SyncPath>> {
        let path = self.covered_path(operand, Purpose::Compare)?;
        if let Some(peers) = &self.settings.peers {
            self.node = Arc::new(self.node.with_config(self.node.config.select_peers(peers)));
        }
        Ok(path)
    }

    async fn compare_pairs(
        &mut self,
        pairs: Vec<Pair>,
        scope: Scope,
        diffs: bool,
        announce: bool,
    ) -> anyhow::Result<Status> {
        let settings = &self.settings;
        let marking = settings.init.then_some(Marking {
            removals: settings.mark_removals,
            one_peer: settings.mark_one_peer,
            forced: settings.mark_forced,
        });
        let options = Options { marking, diffs, announce };
        let (printer, report) = (&self.printer, &mut self.report);
        let mut status = Status::Nothing;
        let take = |findings: Findings| {
            if !matches!(findings.found, Found::Nothing) {
                status = Status::Success;
            }
            report.merge(findings.report);
            print(printer, &findings.pair, findings.found)
        };
        let compared = self.stop.run_until_cancelled(in_sync::compare(&self.node, pairs, &scope, &options, take)).await;
        self.report.unfinished |= compared.is_none();
        compared.transpose()?;
        if settings.init {
            self.remember_marking().await;
        }
        Ok(status)
    }

    async fn diff_file(&mut self, pairs: Vec<Pair>, path: &SyncPath) -> anyhow::Result<()> {
        let (printer, report) = (&self.printer, &mut self.report);
        let take = |findings: Findings| {
            report.merge(findings.report);
            print(printer, &findings.pair, findings.found)
        };
        let compared = self.stop.run_until_cancelled(in_sync::diffs(&self.node, pairs, path, take)).await;
        self.report.unfinished |= compared.is_none();
        compared.unwrap_or(Ok(()))
    }
}

pub(super) fn print_difference(printer: &Printer, pair: &Pair, difference: &Difference) -> Result<(), OutputError> {
    let letter = match difference.side {
        Side::LocalOnly => Letter::LocalOnly,
        Side::RemoteOnly => Letter::RemoteOnly,
        Side::Different => Letter::Different,
    };
    printer.difference(letter, &pair.my_name, &pair.peer, difference.path.as_bytes())
}

fn print(printer: &Printer, pair: &Pair, found: Found) -> anyhow::Result<()> {
    match found {
        Found::Nothing => {}
        Found::Differences(differences) => {
            for difference in differences.forwards()? {
                print_difference(printer, pair, &difference?)?;
            }
        }
        Found::Diffs(mut text) => {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let length = text.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                printer.bytes(&buffer[..length])?;
            }
        }
    }
    // A pair's findings are seen while the next pairs are compared.
    Ok(printer.flush()?)
}
