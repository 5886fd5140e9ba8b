//! `-R`: forgets what the configuration no longer covers. Hints and actions stay.

use anyhow::bail;

use super::Run;
use crate::engine::membership::{self, Purpose};
use crate::model::{DirtyEntry, Scope, SyncPath};
use crate::store::DirtyFilter;

impl Run {
    pub(super) async fn remove_old(&mut self) -> anyhow::Result<()> {
        if self.settings.groups.is_some() {
            bail!("Never run -R with -G!");
        }
        let config = &self.node.config;
        let dirty = self.node.store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::All] }).await?;
        let is_old = |entry: &DirtyEntry| {
            !membership::groups_of(config, &entry.path, Purpose::Sync)
                .any(|group| group.my_name == *entry.my_name && group.hosts.iter().any(|host| host.name == *entry.peer))
        };
        let old: Vec<DirtyEntry> = dirty.into_iter().filter(is_old).collect();
        for entry in &old {
            // The C program shows the name as it is stored.
            tracing::info!("Removing {} ({}) from dirty db.", entry.path.encoded(), entry.peer);
        }
        self.node.store.clear(&old).await?;
        let mut uncovered: Vec<SyncPath> = Vec::new();
        let mut rows = self.node.store.files(vec![Scope::All]);
        while let Some(chunk) = rows.recv().await {
            let paths = chunk?.into_iter().map(|record| record.path);
            uncovered.extend(paths.filter(|path| !membership::is_covered(config, path, Purpose::Sync)));
        }
        for path in &uncovered {
            tracing::info!("Removing {} from file db.", path.encoded());
        }
        self.node.store.remove_files(&uncovered).await?;
        self.node.store.remove_malformed().await?;
        Ok(())
    }
}
