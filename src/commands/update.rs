//! `-u`: pushes what is dirty, or says what would be pushed.

use std::sync::Arc;

use super::Run;
use crate::cli::output::Plan;
use crate::engine::update::{self, Forecast, Prospect, UpdateOptions};
use crate::memory;
use crate::model::Scope;

impl Run {
    /// Pushes the operands; without any, and with `/`, everything.
    pub(super) async fn update(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let targets = self.targets(operands)?;
        // `/` is everything, also without `-r`.
        let is_everything = targets.is_empty() || targets.iter().any(|target| target.real == b"/");
        let scopes = if is_everything { vec![Scope::All] } else { self.scopes(&targets) };
        let peers = self.settings.peers.as_ref();
        let options = UpdateOptions {
            dry_run: self.settings.dry_run,
            peers: peers.map(|peers| peers.iter().map(|peer| peer.to_lowercase()).collect()),
            without_removals: false,
            holder: None,
            stop: self.stop.clone(),
            tally: Arc::clone(&self.tally),
        };
        // A check may have come before.
        self.node.store.shrink().await;
        memory::give_back();
        let outcome = update::update(&self.node, scopes, &options).await?;
        self.bars = None;
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
