//! One command, from its start to its end: what it gets to see of us, where its output goes, how it ended.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::model::Job;
use crate::model::errors::strerror;

/// For a command when nobody set one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tells a csync2 that a command runs that it is within one: whoever runs the command waits for its end.
pub(super) const WITHIN: &str = "CSYNC2_WITHIN_ACTION";

/// How long a command that ran out of time has to end in good order.
const GRACE: Duration = Duration::from_secs(5);

/// How a command ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    By(ExitStatus),
    /// It ran out of time.
    Killed {
        after: Duration,
    },
}

/// Runs a command line of a job to its end. With a timeout it has a process group of its own, which is killed as a whole.
///
/// # Errors
/// When it could not be started.
pub(super) async fn run(line: &[u8], job: &Job, timeout: Option<Duration>) -> io::Result<Ended> {
    let log = output(job)?;
    keep_descriptors_to_ourselves();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(line)).env_clear().env("PATH", PATH).envs(environment(std::env::vars_os()));
    shell.env(WITHIN, "1");
    shell.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    if timeout.is_some() {
        shell.process_group(0);
    }
    let mut child = shell.spawn()?;
    let Some(after) = timeout else { return child.wait().await.map(Ended::By) };
    if let Ok(status) = tokio::time::timeout(after, child.wait()).await {
        return status.map(Ended::By);
    }
    kill(&mut child).await?;
    Ok(Ended::Killed { after })
}

/// What of our environment a command gets.
fn environment(ours: impl Iterator<Item = (OsString, OsString)>) -> impl Iterator<Item = (OsString, OsString)> {
    ours.filter(|(name, _)| {
        let name = name.as_bytes();
        [&b"PATH"[..], b"HOME", b"LANG"].contains(&name) || name.starts_with(b"LC_") || name.starts_with(b"CSYNC2_")
    })
}

/// The log file, for appending. A job whose log file cannot be opened runs without.
fn output(job: &Job) -> io::Result<File> {
    if !job.logfile.is_empty() {
        let place = OsStr::from_bytes(&job.logfile);
        match open_log(place) {
            Ok(log) => return Ok(log),
            Err(error) => tracing::warn!(
                "WARNING: cannot open logfile {} of the action '{}': {}. It runs without.",
                place.display(),
                job.shown(),
                strerror(&error)
            ),
        }
    }
    open_log(OsStr::new("/dev/null"))
}

fn open_log(place: &OsStr) -> io::Result<File> {
    // A FIFO that nobody reads must not hold us up; the command itself may wait for its reader.
    let patient_not = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(patient_not.bits()).unwrap_or_default();
    let log = OpenOptions::new().append(true).create(true).custom_flags(flags).open(place)?;
    fcntl_setfl(&log, fcntl_getfl(&log)? - OFlags::NONBLOCK)?;
    Ok(log)
}

/// Sees to it that no descriptor that this process was started with passes on to what it runs (those that it opened
/// itself do not anyway): who waits for the end of a pipe would wait for the command, too.
fn keep_descriptors_to_ourselves() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|&number| number > 2) {
        // SAFETY: fcntl with F_SETFD touches no memory of ours; a number that is no descriptor any more gives EBADF.
        #[allow(unsafe_code)]
        unsafe {
            libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Ends a command and whatever it started in its process group.
async fn kill(child: &mut Child) -> io::Result<()> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = |signal| group.map(|group| kill_process_group(group, signal));
    // What has gone already needs no signal.
    signal(Signal::TERM);
    let ended = tokio::time::timeout(GRACE, child.wait()).await;
    signal(Signal::KILL);
    match ended {
        Ok(status) => status.map(drop),
        Err(_) => child.wait().await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_little_of_our_environment() {
        let ours =
            ["PATH", "HOME", "LANG", "LC_ALL", "CSYNC2_SYSTEM_DIR", "PATHS", "LANGUAGE", "SSH_CLIENT", "PGPASSWORD"];
        let pairs = ours.into_iter().map(|name| (name.into(), "value".into()));
        let kept: Vec<OsString> = environment(pairs).map(|(name, _)| name).collect();
        assert_eq!(kept, ["PATH", "HOME", "LANG", "LC_ALL", "CSYNC2_SYSTEM_DIR"]);
    }
}
