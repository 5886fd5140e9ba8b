//! Runs the commands that changes called for: once per command and log file, at the end of a run or session.
//!
//! A job is claimed while it runs, so that no two processes or sessions run it at once. Its rows are removed by their
//! versions: a file that is scheduled again meanwhile makes it run again. What a process left that is no more, the next
//! one runs. [`command`] knows what a command line may look like, [`shell`] how one is run.

mod command;
mod shell;

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use self::command::Batch;
use self::shell::Ended;
use super::claim::{self, Claimed};
use super::stop::within_grace;
use super::{EngineError, Node, Report};
use crate::model::errors::strerror;
use crate::model::{ActionVersion, Job, JobFile};

/// Whose end to wait for, when a job is being run by somebody else already.
#[derive(Debug, Clone, Copy)]
pub enum Patience<'p> {
    /// All that is scheduled has been run when [`run`] returns, whoever ran it.
    Everything,
    /// These have; others are left to who runs them.
    Only(&'p BTreeSet<Job>),
}

impl Patience<'_> {
    fn waits_for(self, job: &Job) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(jobs) => jobs.contains(job),
        }
    }
}

/// Whether an action runs this process. It must not wait for others that run actions: one of them may be waiting for it.
#[must_use]
pub fn is_within_one() -> bool {
    std::env::var_os(shell::WITHIN).is_some()
}

/// Runs everything that is scheduled, also what an interrupted run left behind. `holder` names who does it, as
/// [`super::recover::holder`] does. When it is stopped, it begins no other job.
///
/// # Errors
/// Those of the store. A command that fails is reported, not an error; one that cannot be run at all counts.
pub async fn run(
    node: &Node,
    holder: &str,
    patience: Patience<'_>,
    stop: &CancellationToken,
) -> Result<Report, EngineError> {
    let mut report = Report::default();
    for job in node.store.jobs().await? {
        let Some(claimed) = stop.run_until_cancelled(claimed(node, &job, holder, patience)).await else {
            report.unfinished = true;
            break;
        };
        let Some(claimed) = claimed? else { continue };
        let ran = within_grace(stop, run_job(node, &job, &mut report)).await;
        report.unfinished |= ran.is_none();
        claimed.release().await?;
        ran.transpose()?;
    }
    Ok(report)
}

/// `None`: somebody else runs it, and will come to its end without us.
async fn claimed(node: &Node, job: &Job, holder: &str, patience: Patience<'_>) -> Result<Option<Claimed>, EngineError> {
    let digest = Sha256::new().chain_update(&job.command).chain_update(b"\0").chain_update(&job.logfile).finalize();
    let subject = format!("run {}", hex::encode(digest));
    if !patience.waits_for(job) {
        return Ok(claim::try_claim(&node.store, &subject, holder).await?);
    }
    let waiting = || tracing::info!("Waiting for another csync2 that is running '{}' ...", job.shown());
    Ok(Some(claim::claim(&node.store, &subject, holder, waiting).await?))
}

async fn run_job(node: &Node, job: &Job, report: &mut Report) -> Result<(), EngineError> {
    // Read now: while we waited, others may have run it, or called for it.
    let files = node.store.job_files(job).await?;
    if files.is_empty() {
        return Ok(());
    }
    let (names, lost) = real_names(node, job, files);
    node.store.remove_actions(&lost).await?;
    for Batch { line, versions } in command::batches(&job.command, names) {
        tracing::info!("Running '{}' ...", String::from_utf8_lossy(&line));
        match shell::run(&line, job, node.config.action_timeout).await {
            Ok(ended) => note(job, ended),
            Err(error) => {
                report.error(format_args!(
                    "ERROR: cannot run the action '{}': {}",
                    job.shown(),
                    trouble(&error, &line)
                ));
                if error.raw_os_error() != Some(libc::E2BIG) {
                    // For want of memory, most likely: another time.
                    return Ok(());
                }
            }
        }
        node.store.remove_actions(&versions).await?;
    }
    Ok(())
}

/// The files as the shell is to read them, and the rows of those that have no place on this host.
fn real_names(node: &Node, job: &Job, files: Vec<JobFile>) -> (Vec<(Vec<u8>, ActionVersion)>, Vec<ActionVersion>) {
    let (mut names, mut lost) = (Vec::with_capacity(files.len()), Vec::new());
    for JobFile { path, version } in files {
        match node.config.local(&path) {
            Ok(local) => names.push((command::quote(local.absolute().as_os_str().as_encoded_bytes()), version)),
            Err(error) => {
                tracing::warn!("WARNING: the action '{}' does not run for {path}: {error}.", job.shown());
                lost.push(version);
            }
        }
    }
    (names, lost)
}

/// Says of a command that it failed. It is no error of the run: the files have arrived.
fn note(job: &Job, ended: Ended) {
    let shown = job.shown();
    match ended {
        Ended::By(status) if status.success() => {}
        Ended::By(status) => tracing::warn!("WARNING: the action '{shown}' ended with {status}."),
        Ended::Killed { after } => {
            let seconds = after.as_secs();
            tracing::warn!(
                "WARNING: the action '{shown}' was killed: it took longer than action-timeout ({seconds} s)."
            );
        }
    }
}

fn trouble(error: &std::io::Error, line: &[u8]) -> String {
    match error.raw_os_error() {
        Some(libc::E2BIG) => format!("its command line of {} bytes is longer than the system allows", line.len()),
        _ => strerror(error),
    }
}
