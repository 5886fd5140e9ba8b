//! `-u`: pushes what is dirty, or says what would be pushed.

use super::Run;
use crate::cli::output::Plan;
use crate::engine::update::{self, Forecast, Prospect, UpdateOptions};
use crate::model::Scope;

impl Run {
    /// Pushes the operands; without any, everything.
    pub(super) async fn update(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let scopes = if operands.is_empty() { vec![Scope::All] } else { self.scopes(&self.targets(operands)?) };
        let peers = self.settings.peers.as_ref();
        let options = UpdateOptions {
            dry_run: self.settings.dry_run,
            peers: peers.map(|peers| peers.iter().map(|peer| peer.to_lowercase()).collect()),
        };
        let outcome = update::update(&self.node, scopes, &options).await?;
        for Forecast { prospect, forced, peer, path } in &outcome.forecasts {
            let plan = match prospect {
                Prospect::Modify => Plan::Modify { forced: *forced },
                Prospect::Delete => Plan::Delete { forced: *forced },
                Prospect::InSync => Plan::InSync,
            };
            self.printer.plan(plan, peer, path.as_bytes())?;
        }
        self.report.merge(outcome.report);
        Ok(())
    }
}
