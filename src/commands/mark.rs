//! `-m`: marks files as dirty, changed or not.

use super::Run;
use crate::engine::mark;
use crate::engine::membership::Purpose;
use crate::model::Scope;

impl Run {
    pub(super) async fn mark(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let targets = self.warn_about(operands, Purpose::Sync)?;
        let mut scopes = self.scopes(&targets);
        // The peers would take such a name for a removal, and might follow the symlink.
        scopes.retain(|scope| match scope {
            Scope::File(name) | Scope::Tree(name) => !self.is_behind_symlink(name),
            Scope::All => true,
        });
        mark::mark(&self.node, scopes, self.settings.mark_forced).await?;
        self.remember_marking().await;
        Ok(())
    }
}
