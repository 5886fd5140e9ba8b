//! `-c`: update detection, of the operands or of everything that was hinted at.

use super::Run;
use crate::engine::check::{self, CheckOptions, Marks};
use crate::engine::membership::Purpose;
use crate::engine::selection::Target;

impl Run {
    /// `-c`: without operands, every hint, each removed once it is done, unless it was given again meanwhile.
    pub(super) async fn check(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        if !operands.is_empty() {
            return self.check_operands(operands).await;
        }
        for hint in self.node.store.hints().await? {
            let target = Target { real: hint.path.clone(), recursive: hint.recursive };
            let (errors, versions) = (self.report.errors, self.node.store.hint_versions(&hint).await?);
            self.check_targets(&[target], self.check_options()).await?;
            // What was not checked, or not to its end, is to be checked again.
            if self.report.errors == errors && !self.report.unfinished {
                self.node.store.remove_hints(&versions).await?;
            }
        }
        Ok(())
    }

    /// Checks the operands; without any, everything.
    pub(super) async fn check_operands(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let mut targets = self.warn_about(operands, Purpose::Sync)?;
        if targets.is_empty() {
            targets.push(Target::everything());
        }
        self.check_targets(&targets, self.check_options()).await
    }

    fn check_options(&self) -> CheckOptions {
        CheckOptions {
            marks: if self.settings.init { Marks::Nothing } else { Marks::Everything },
            forced: self.settings.mark_forced,
            allow_mass_removal: self.settings.allow_mass_removal,
        }
    }

    pub(super) async fn check_targets(&mut self, targets: &[Target], options: CheckOptions) -> anyhow::Result<()> {
        let marked = self.tally.check.marked();
        self.report.merge(
            check::check(&self.node, targets, options, self.directories.as_ref(), &self.tally, &self.stop).await?,
        );
        if self.tally.check.marked() > marked {
            self.remember_marking().await;
        }
        Ok(())
    }
}
