//! `-h`: remembers files that are to be checked later.

use super::Run;
use crate::engine::membership::Purpose;
use crate::store::Hint;

impl Run {
    pub(super) async fn hint(&mut self, operands: &[Vec<u8>]) -> anyhow::Result<()> {
        let targets = self.warn_about(operands, Purpose::Sync)?;
        let hints: Vec<Hint> =
            targets.into_iter().map(|target| Hint { path: target.real, recursive: target.recursive }).collect();
        Ok(self.node.store.add_hints(&hints).await?)
    }
}
