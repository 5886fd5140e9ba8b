//! `-o`: prints the files that the configuration covers, `compare` patterns included. Looks at the disk alone.

use std::io;
use std::sync::Arc;

use super::Run;
use crate::cli::Printer;
use crate::cli::output::OutputError;
use crate::engine::directories::Directories;
use crate::engine::find::{self, Finder};
use crate::engine::membership::Purpose;
use crate::engine::{Report, blocking};
use crate::model::errors::strerror;
use crate::model::{Metadata, SyncPath};

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
                find::find(&node.config, target, Purpose::Compare, &mut lister);
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

impl Finder for Lister {
    fn found(&mut self, names: &[SyncPath], _: &Metadata) {
        for name in names {
            if let Err(error) = self.printer.line(&[name.as_bytes()]) {
                self.failure = Some(error);
            }
        }
    }

    fn left(&mut self, directory: &SyncPath) {
        if let Some(directories) = &self.directories {
            directories.write(directory);
        }
    }

    fn failed(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        let path = String::from_utf8_lossy(path);
        self.report.error(format_args!("ERROR: cannot {operation} {path}: {}.", strerror(&error)));
    }

    fn is_done(&self) -> bool {
        self.failure.is_some()
    }
}
