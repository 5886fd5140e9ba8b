//! What follows when the peer refuses something, or a file cannot be sent: reported once, and its row stays.

use super::Pipeline;
use crate::engine::contact::SessionError;
use crate::engine::contact::advice;
use crate::engine::update::exchange::Answer;
use crate::engine::update::job::Progress;
use crate::model::Scope;
use crate::store::DirtyFilter;
use crate::wire::Reply;

/// What a server says where a component of a path is no directory, and what the C program's server says to anything
/// but SIG where one is missing.
const NO_DIRECTORY: [&str; 2] = ["Not a directory", "No such file or directory"];

impl Pipeline<'_> {
    /// Any answer but OK to something that concerns one file.
    pub(super) async fn on_refusal(&mut self, number: usize, answer: &Answer) -> Result<(), SessionError> {
        let no_directory = match &answer.reply {
            Reply::ParentDirMissing => true,
            Reply::Text(text) => NO_DIRECTORY.contains(&text.as_str()),
            _ => false,
        };
        let job = &self.jobs[number];
        match answer.reply {
            // Where its directory is missing, or is something else by now, there is nothing left to remove.
            _ if no_directory && job.is_removal() => {
                self.is_gone(number);
                Ok(())
            }
            _ if no_directory => self.on_missing_parent(number, &answer.line).await,
            Reply::AlsoDirty if !job.past.disputed => self.dispute(number).await,
            _ => self.refuse(number, &answer.line).await,
        }
    }

    /// The peer said no: reported with all that is needed to act on it.
    pub(super) async fn refuse(&mut self, number: usize, line: &[u8]) -> Result<(), SessionError> {
        if self.is_settled(number).await? {
            self.give_up(number);
            return Ok(());
        }
        let advice = match Reply::parse(line) {
            Reply::AlsoDirty => self.remedy(number),
            Reply::PermissionDenied => {
                advice::on_denial(&self.node.config, line, self.pair.my_name, self.pair.peer, self.jobs[number].path())
            }
            Reply::PermissionDeniedSlave => " This host is a slave in the group: it only receives.".to_owned(),
            Reply::ParentDirMissing => {
                " Its directory is missing there, and is none of ours: make it there.".to_owned()
            }
            _ => String::new(),
        };
        // Thousands of files may have one cause.
        let advice = if self.advised.insert(advice.clone()) { advice } else { String::new() };
        self.fail(number, Some(&format!("{}{advice}", String::from_utf8_lossy(line))));
        Ok(())
    }

    /// Another run has pushed the file meanwhile, or the peer has pushed its own to us: nothing is left to be done.
    pub(super) async fn is_settled(&mut self, number: usize) -> Result<bool, SessionError> {
        let peer = Some(self.pair.peer.to_owned());
        let rows = DirtyFilter { peer, scopes: vec![Scope::File(self.jobs[number].path().clone())] };
        Ok(!self.dry_run && self.node.store.dirty(rows).await?.is_empty())
    }

    /// The row stays. Without a problem to report, it is the consequence of one that was reported.
    pub(super) fn fail(&mut self, number: usize, problem: Option<&str>) {
        let job = &self.jobs[number];
        if job.is_over() {
            return;
        }
        if let Some(problem) = problem {
            self.report.error(format_args!("ERROR: {}: {}: {problem}", self.pair.peer, job.path()));
        }
        tracing::info!("File stays in dirty state. Try again later...");
        self.give_up(number);
    }

    pub(super) fn give_up(&mut self, number: usize) {
        let job = &mut self.jobs[number];
        job.begin_anew();
        job.progress = Progress::Failed;
        self.is_over(number);
    }
}
