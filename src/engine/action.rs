//! Runs the commands that changes called for: once per command and log file, at the end of a run or session.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use tokio::process::Command;

use super::{EngineError, Node, Report};
use crate::model::errors::strerror;
use crate::model::{ScheduledAction, SyncPath};

/// Runs everything that is scheduled, also what an interrupted run left behind.
///
/// # Errors
/// Those of the store. A command that fails is reported, not an error.
pub async fn run(node: &Node) -> Result<Report, EngineError> {
    let mut report = Report::default();
    let mut batches: BTreeMap<(Vec<u8>, Vec<u8>), Vec<ScheduledAction>> = BTreeMap::new();
    for action in node.store.actions().await? {
        batches.entry((action.command.clone(), action.logfile.clone())).or_default().push(action);
    }
    for ((command, logfile), actions) in batches {
        let paths: Vec<SyncPath> = actions.iter().map(|action| action.path.clone()).collect();
        execute(node, &command, &logfile, &paths, &mut report).await;
        node.store.remove_actions(&actions).await?;
    }
    Ok(report)
}

async fn execute(node: &Node, command: &[u8], logfile: &[u8], paths: &[SyncPath], report: &mut Report) {
    let line = expand(node, command, paths);
    let shown = String::from_utf8_lossy(&line).into_owned();
    tracing::info!("Running '{shown}' ...");
    let place = if logfile.is_empty() { OsStr::new("/dev/null") } else { OsStr::from_bytes(logfile) };
    let log = match OpenOptions::new().append(true).create(true).open(place) {
        Ok(log) => log,
        Err(error) => {
            let place = place.to_string_lossy();
            tracing::warn!(
                "WARNING: cannot open logfile {place} of the action '{shown}': {}. It runs without.",
                strerror(&error)
            );
            match OpenOptions::new().append(true).open("/dev/null") {
                Ok(null) => null,
                Err(error) => return report.error(format_args!("ERROR: cannot open /dev/null: {}", strerror(&error))),
            }
        }
    };
    let stdout = log.try_clone();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(&line)).stdin(Stdio::null()).stderr(Stdio::from(log));
    if let Ok(stdout) = stdout {
        shell.stdout(Stdio::from(stdout));
    }
    match shell.status().await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("WARNING: the action '{shown}' ended with {status}."),
        Err(error) => report.error(format_args!("ERROR: cannot run the action '{shown}': {}", strerror(&error))),
    }
}

/// The first `%%` becomes the list of files: real paths, quoted for the shell.
fn expand(node: &Node, command: &[u8], paths: &[SyncPath]) -> Vec<u8> {
    let Some(at) = command.windows(2).position(|pair| pair == b"%%") else { return command.to_vec() };
    let real = paths.iter().filter_map(|path| node.config.local(path).ok());
    let quoted: Vec<Vec<u8>> = real.map(|local| quote(local.absolute().as_os_str().as_bytes())).collect();
    [&command[..at], &quoted.join(&b' '), &command[at + 2..]].concat()
}

/// Quotes a name for the shell where it needs it.
fn quote(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(byte);
    if !name.is_empty() && name.iter().all(is_plain) {
        return name.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in name {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn names_are_quoted_where_the_shell_would_read_more_than_a_name() {
        assert_eq!(quote(b"/etc/motd"), b"/etc/motd");
        assert_eq!(quote(b"/a b;`id`"), b"'/a b;`id`'");
        assert_eq!(quote(b"/it's"), b"'/it'\\''s'");
    }
}
