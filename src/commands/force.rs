//! `-f`: lets dirty files win their conflicts.

use super::Run;

impl Run {
    pub(super) async fn force(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let targets = self.targets(operands)?;
        self.node.store.force(&self.scopes(&targets)).await?;
        Ok(())
    }
}
