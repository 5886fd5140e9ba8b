//! Commands that wait to be run at the end of a run or session.

use super::SyncPath;

/// A row of the action table: `command` is to be run because of `path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScheduledAction {
    pub path: SyncPath,
    pub command: Vec<u8>,
    pub logfile: Vec<u8>,
}
