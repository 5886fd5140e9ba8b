//! `-m`: marks files as dirty, changed or not.

use super::Run;
use crate::engine::mark;
use crate::engine::membership::Purpose;

impl Run {
    pub(super) async fn mark(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let targets = self.warn_about(operands, Purpose::Sync)?;
        let scopes = self.scopes(&targets);
        Ok(mark::mark(&self.node, scopes, self.settings.mark_forced).await?)
    }
}
