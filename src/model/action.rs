//! Commands that wait to be run at the end of a run or session.

use super::SyncPath;

/// A row of the action table: `command` is to be run because of `path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScheduledAction {
    pub path: SyncPath,
    pub command: Vec<u8>,
    pub logfile: Vec<u8>,
}

impl ScheduledAction {
    #[must_use]
    pub fn job(&self) -> Job {
        Job { command: self.command.clone(), logfile: self.logfile.clone() }
    }
}

/// What runs once, whatever the number of files: a command, and the file that its output is appended to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    pub command: Vec<u8>,
    /// Empty: nowhere.
    pub logfile: Vec<u8>,
}

impl Job {
    /// The command as it stands in messages.
    #[must_use]
    pub fn shown(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.command)
    }
}

/// One of the files that a job is to be run for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFile {
    pub path: SyncPath,
    pub version: ActionVersion,
}

/// Changes whenever the file is scheduled again, by whatever program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionVersion(pub i64);
