//! The vocabulary: names, file states, dirty entries. Values only: no files, no sockets, no async.

pub mod action;
pub mod checktxt;
pub mod dirty;
pub mod encoding;
pub mod errors;
pub mod file;
pub mod fingerprint;
pub mod history;
pub mod path;

pub use action::{ActionVersion, Job, JobFile, ScheduledAction};
pub use checktxt::{Checktxt, Ignore, MtimeUnit};
pub use dirty::{DirtyEntry, DirtyVersion, Mark};
pub use file::{FileKind, FileRecord, Metadata, Timestamp};
pub use fingerprint::{Fingerprint, Fingerprinter};
pub use history::{End, Figures, Past, PastRun, Pending, Session, Standing};
pub use path::{NameBuffer, PathError, Scope, SyncPath};
