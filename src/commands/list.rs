//! `-H`, `-L`, `-M`, `-S`: what the state database holds, in name order. Rows that no group covers are left out.

use super::Run;
use crate::cli::Status;
use crate::engine::membership::{self, Purpose};
use crate::model::{Scope, SyncPath};
use crate::store::DirtyFilter;

impl Run {
    pub(super) async fn list_hints(&mut self) -> anyhow::Result<Status> {
        let hints = self.node.store.hints().await?;
        for hint in &hints {
            self.printer.hint(hint.recursive, &hint.path)?;
        }
        Ok(listed(!hints.is_empty()))
    }

    /// Known files; with a pair, those that it shares.
    pub(super) async fn list_files(&mut self, pair: Option<(&[u8], &[u8])>) -> anyhow::Result<Status> {
        let mut any = false;
        let mut rows = self.node.store.files(vec![Scope::All]);
        while let Some(chunk) = rows.recv().await {
            for record in chunk? {
                if self.is_listed(&record.path, pair) {
                    self.printer.file(record.checktxt.as_bytes(), record.path.as_bytes())?;
                    any = true;
                }
            }
        }
        Ok(listed(any))
    }

    fn is_listed(&self, path: &SyncPath, pair: Option<(&[u8], &[u8])>) -> bool {
        membership::groups_of(&self.node.config, path, Purpose::Sync).any(|group| {
            pair.is_none_or(|(my_name, peer)| {
                group.my_name.as_bytes() == my_name && group.hosts.iter().any(|host| host.name.as_bytes() == peer)
            })
        })
    }

    pub(super) async fn list_dirty(&mut self) -> anyhow::Result<Status> {
        let mut any = false;
        for entry in self.node.store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::All] }).await? {
            if self.is_listed(&entry.path, None) {
                self.printer.dirty(entry.forced, &entry.my_name, &entry.peer, entry.path.as_bytes())?;
                any = true;
            }
        }
        Ok(listed(any))
    }
}

fn listed(any: bool) -> Status {
    if any { Status::Success } else { Status::Nothing }
}
