//! What a database engine has to do for [`super::Store`]. The semantics are documented there, once.

use std::future::Future;

use tokio::sync::mpsc::{Receiver, Sender};

use super::error::Result;
use super::history::{Moments, Record};
use super::transfer::{Imported, Row};
use super::{Change, Claim, DirtyFilter, Hint, HintVersion, Intent, IntentId, Known, Receipt};
use crate::model::{
    ActionVersion, DirtyEntry, FileRecord, Fingerprint, Fingerprinter, Job, JobFile, Mark, ScheduledAction, Scope,
    Standing, SyncPath,
};

/// The operations of [`super::Store`]. Futures may move between threads; arguments are owned, since SQLite's work runs
/// on other threads.
pub(super) trait Backend: Send + Sync {
    /// Sends the records in order; an error of the database ends the stream. Returns when the receiver is gone.
    fn files(
        &self,
        scopes: Vec<Scope>,
        sink: Sender<Result<Vec<FileRecord>>>,
    ) -> impl Future<Output = Result<()>> + Send;
    /// Sends fingerprints in any order.
    fn fingerprints(
        &self,
        scopes: Vec<Scope>,
        fingerprinter: Fingerprinter,
        sink: Sender<Result<Vec<Fingerprint>>>,
    ) -> impl Future<Output = Result<()>> + Send;
    fn records(&self, paths: Vec<SyncPath>) -> impl Future<Output = Result<Vec<FileRecord>>> + Send;
    fn file(&self, path: SyncPath) -> impl Future<Output = Result<Option<FileRecord>>> + Send;
    fn known(&self, paths: Vec<SyncPath>) -> impl Future<Output = Result<Vec<Known>>> + Send;
    fn apply(&self, changes: Vec<Change>) -> impl Future<Output = Result<Vec<SyncPath>>> + Send;
    fn remove_files(&self, paths: Vec<SyncPath>) -> impl Future<Output = Result<u64>> + Send;
    fn remove_malformed(&self) -> impl Future<Output = Result<u64>> + Send;

    fn dirty(&self, filter: DirtyFilter) -> impl Future<Output = Result<Vec<DirtyEntry>>> + Send;
    fn marks(
        &self,
        filter: DirtyFilter,
        sink: Sender<Result<Vec<DirtyEntry>>>,
    ) -> impl Future<Output = Result<()>> + Send;
    fn dirty_peers(&self) -> impl Future<Output = Result<Vec<(String, String)>>> + Send;
    fn mark(&self, marks: Vec<Mark>, actions: Vec<ScheduledAction>) -> impl Future<Output = Result<()>> + Send;
    fn clear(&self, entries: Vec<DirtyEntry>) -> impl Future<Output = Result<u64>> + Send;
    fn flush(&self, path: SyncPath) -> impl Future<Output = Result<()>> + Send;
    fn force(&self, scopes: Vec<Scope>) -> impl Future<Output = Result<u64>> + Send;

    fn hints(&self) -> impl Future<Output = Result<Vec<Hint>>> + Send;
    fn add_hints(&self, hints: Vec<Hint>) -> impl Future<Output = Result<()>> + Send;
    fn hint_versions(&self, hint: Hint) -> impl Future<Output = Result<Vec<HintVersion>>> + Send;
    fn remove_hints(&self, versions: Vec<HintVersion>) -> impl Future<Output = Result<u64>> + Send;

    fn jobs(&self) -> impl Future<Output = Result<Vec<Job>>> + Send;
    fn job_files(&self, job: Job) -> impl Future<Output = Result<Vec<JobFile>>> + Send;
    fn remove_actions(&self, versions: Vec<ActionVersion>) -> impl Future<Output = Result<u64>> + Send;

    /// All of them, or that of one peer; DER.
    fn certificates(&self, peer: Option<String>) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>>> + Send;
    fn pin(&self, peer: String, der: Vec<u8>) -> impl Future<Output = Result<Vec<u8>>> + Send;
    fn unpin(&self, peer: String) -> impl Future<Output = Result<bool>> + Send;

    fn next_receives(
        &self,
        receipts: Vec<(Option<IntentId>, Receipt)>,
        intents: Vec<Intent>,
    ) -> impl Future<Output = Result<Vec<IntentId>>> + Send;
    fn abandon_receives(&self, ids: Vec<IntentId>) -> impl Future<Output = Result<()>> + Send;
    fn intents(&self) -> impl Future<Output = Result<Vec<(IntentId, Intent)>>> + Send;

    /// Returns who has it now.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<String>> + Send;
    fn release(&self, subject: String, holder: String) -> impl Future<Output = Result<()>> + Send;

    fn exists(&self) -> impl Future<Output = bool> + Send;
    fn shrink(&self) -> impl Future<Output = ()> + Send;
    /// Replaces what is remembered about something; returns what was: empty for nothing.
    fn remember(&self, about: String, facts: String) -> impl Future<Output = Result<String>> + Send;
    fn remembered(&self, about: String) -> impl Future<Output = Result<String>> + Send;

    /// A power cut may undo it.
    fn record(&self, record: Record) -> impl Future<Output = Result<()>> + Send;
    /// In any order, without times.
    fn standing(&self) -> impl Future<Output = Result<(Standing, Moments)>> + Send;

    /// Sends all rows of the C program's tables, as one snapshot.
    fn snapshot(&self, sink: Sender<Result<Vec<Row>>>) -> impl Future<Output = Result<()>> + Send;
    fn import(&self, source: Receiver<Result<Vec<Row>>>) -> impl Future<Output = Result<Imported>> + Send;

    /// Standing facts about the database itself that a person should know.
    fn remarks(&self) -> Vec<String>;

    fn close(&self) -> impl Future<Output = ()> + Send;
}
