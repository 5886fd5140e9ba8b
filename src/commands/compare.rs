//! `-o`: prints the files that the configuration covers, `compare` patterns included. Looks at the disk alone.

use std::sync::Arc;

use super::Run;
use crate::cli::Printer;
use crate::cli::output::OutputError;
use crate::engine::directories::Directories;
use crate::engine::find::{self, Failure, Finder};
use crate::engine::membership::Purpose;
use crate::engine::{Report, blocking};
use crate::model::errors::strerror;
use crate::model::{Metadata, NameBuffer, SyncPath};

impl Run {
    /// With `-P` only what is shared with one of these peers.
    pub(super) async fn compare(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        if let Some(peers) = &self.settings.peers {
            self.node = Arc::new(self.node.with_config(self.node.config.select_peers(peers)));
        }
        let targets = self.warn_about(operands, Purpose::Compare)?;
        let node = Arc::clone(&self.node);
        let mut lister = Lister {
            printer: self.printer.clone(),
            directories: self.directories.clone(),
            failure: None,
            report: Report::default(),
        };
        let lister = blocking("compare", move || {
            for target in &targets {
                for failure in find::find(&node.config, target, Purpose::Compare, std::slice::from_mut(&mut lister)) {
                    lister.failed(&failure);
                }
            }
            if let Some(directories) = &lister.directories {
                lister.report.merge(directories.flush());
            }
            lister
        })
        .await?;
        self.report.merge(lister.report);
        lister.failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

struct Lister {
    printer: Printer,
    directories: Option<Directories>,
    /// Why nothing more is printed.
    failure: Option<OutputError>,
    report: Report,
}

impl Lister {
    fn failed(&mut self, Failure { path, operation, error, .. }: &Failure) {
        let path = String::from_utf8_lossy(path);
        self.report.error(format_args!("ERROR: cannot {operation} {path}: {}.", strerror(error)));
    }
}

impl Finder for Lister {
    fn found(&mut self, name: &NameBuffer, _: &Metadata) {
        if let Err(error) = self.printer.line(&[name.as_bytes()]) {
            self.failure = Some(error);
        }
    }

    fn left(&mut self, directory: &SyncPath) {
        if let Some(directories) = &self.directories {
            directories.write(directory);
        }
    }

    fn is_done(&self) -> bool {
        self.failure.is_some()
    }
}
