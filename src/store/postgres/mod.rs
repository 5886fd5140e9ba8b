//! Placeholder.
use super::backend::Backend;
use super::error::Result;
use super::{Change, DirtyFilter, Hint, Intent, IntentId, Receipt, StoreOptions};
use crate::model::{DirtyEntry, FileRecord, Mark, ScheduledAction, Scope, SyncPath};
use tokio::sync::mpsc::Sender;
#[derive(Debug)]
pub(super) struct Postgres;
impl Postgres {
    pub(super) async fn open(_: &super::url::PostgresUrl, _: &StoreOptions) -> Result<Self> {
        todo!()
    }
}
impl Backend for Postgres {
    async fn files(&self, _: Vec<Scope>, _: Sender<Result<Vec<FileRecord>>>) -> Result<()> {
        todo!()
    }
    async fn file(&self, _: SyncPath) -> Result<Option<FileRecord>> {
        todo!()
    }
    async fn apply(&self, _: Vec<Change>) -> Result<Vec<SyncPath>> {
        todo!()
    }
    async fn remove_files(&self, _: Vec<SyncPath>) -> Result<u64> {
        todo!()
    }
    async fn remove_malformed(&self) -> Result<u64> {
        todo!()
    }
    async fn dirty(&self, _: DirtyFilter) -> Result<Vec<DirtyEntry>> {
        todo!()
    }
    async fn dirty_peers(&self) -> Result<Vec<(String, String)>> {
        todo!()
    }
    async fn mark(&self, _: Vec<Mark>, _: Vec<ScheduledAction>) -> Result<()> {
        todo!()
    }
    async fn clear(&self, _: Vec<DirtyEntry>) -> Result<u64> {
        todo!()
    }
    async fn flush(&self, _: SyncPath) -> Result<()> {
        todo!()
    }
    async fn force(&self, _: Vec<Scope>) -> Result<u64> {
        todo!()
    }
    async fn hints(&self) -> Result<Vec<Hint>> {
        todo!()
    }
    async fn add_hints(&self, _: Vec<Hint>) -> Result<()> {
        todo!()
    }
    async fn remove_hints(&self, _: Vec<Hint>) -> Result<u64> {
        todo!()
    }
    async fn actions(&self) -> Result<Vec<ScheduledAction>> {
        todo!()
    }
    async fn remove_actions(&self, _: Vec<ScheduledAction>) -> Result<u64> {
        todo!()
    }
    async fn certificates(&self, _: Option<String>) -> Result<Vec<(String, Vec<u8>)>> {
        todo!()
    }
    async fn pin(&self, _: String, _: Vec<u8>) -> Result<Vec<u8>> {
        todo!()
    }
    async fn unpin(&self, _: String) -> Result<bool> {
        todo!()
    }
    async fn begin_receive(&self, _: Intent) -> Result<IntentId> {
        todo!()
    }
    async fn finish_receive(&self, _: Option<IntentId>, _: Receipt) -> Result<()> {
        todo!()
    }
    async fn abandon_receive(&self, _: IntentId) -> Result<()> {
        todo!()
    }
    async fn intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        todo!()
    }
    async fn close(&self) {
        todo!()
    }
}
