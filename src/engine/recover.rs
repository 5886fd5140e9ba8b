//! What a crash left behind: intents of sessions that no longer exist are finished or dropped.
//!
//! A session writes its intent before it changes a file, and removes it together with the file's new row. An intent
//! whose holder is gone therefore marks a file whose row may be older than the file. Disk and intent decide: what is
//! as it was to be received was received, and is recorded as such; anything else is left to the next
//! check. Temporary files are removed by the name that stands in the intent, never by what they look like.

use std::sync::Arc;
use std::time::Duration;

use super::membership::{self, Event};
use super::{EngineError, Node, blocking, content};
use crate::fs::{self, Presence};
use crate::model::{Checktxt, Metadata};
use crate::store::{Intent, Receipt};

/// Names this process so that another one can find out whether it still exists: boot id, pid, start time.
#[must_use]
pub fn holder() -> String {
    let pid = std::process::id();
    format!("{} {pid} {}", boot_id(), start_time(pid).unwrap_or_default())
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Field 22 of /proc/PID/stat. The command name before it may hold anything, so fields count from its last `)`.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(19).map(str::to_owned)
}

/// Whether the process that called itself so still exists.
pub(super) fn is_alive(holder: &str) -> bool {
    let mut words = holder.split(' ');
    let (Some(boot), Some(pid), Some(start)) = (words.next(), words.next(), words.next()) else { return false };
    boot == boot_id() && pid.parse().ok().and_then(start_time).is_some_and(|now| now == start)
}

/// Finishes or drops every intent whose holder is gone.
///
/// # Errors
/// Those of the store.
pub async fn recover(node: &Arc<Node>) -> Result<(), EngineError> {
    settle(node, |holder| !is_alive(holder)).await
}

/// Finishes or drops what a session of this process left when its database failed: again and again until that works.
pub(super) async fn retry(node: Arc<Node>, holder: String) {
    let mut pause = Duration::from_secs(1);
    while let Err(error) = settle(&node, |other| other == holder).await {
        tracing::debug!("receives of a broken session: {error}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

async fn settle(node: &Arc<Node>, is_left: impl Fn(&str) -> bool) -> Result<(), EngineError> {
    let (mut received, mut not_received) = (Vec::new(), Vec::new());
    for (id, intent) in node.store.intents().await? {
        if !is_left(&intent.holder) {
            continue;
        }
        let (worker, path) = (Arc::clone(node), intent.path.clone());
        let sender = intent.peer.clone();
        match blocking("recover", move || inspect(&worker, &intent)).await? {
            Found::Received(metadata) => {
                let actions = membership::actions_for(&node.config, &path, Event::Received);
                let record = metadata.map(|metadata| node.record(path.clone(), &metadata, None));
                received.push((Some(id), Receipt { path, sender, record, actions }));
            }
            Found::NotReceived => not_received.push(id),
        }
    }
    node.store.finish_receives(received).await?;
    node.store.abandon_receives(not_received).await?;
    Ok(())
}

enum Found {
    /// The state that was to be received; `None`: the file was removed.
    Received(Option<Metadata>),
    NotReceived,
}

fn inspect(node: &Node, intent: &Intent) -> Found {
    let Ok(place) = node.config.local(&intent.path) else { return Found::NotReceived };
    if !intent.temp_name.is_empty() {
        let mut temp = place.clone();
        let directory = temp.relative.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        temp.relative.truncate(directory);
        temp.relative.extend_from_slice(&intent.temp_name);
        if let Ok(at) = content::locate(&temp)
            && at.metadata().is_ok_and(|found| found.is_some())
        {
            // Its rename is the last thing that happens on disk.
            at.clear_the_way();
            return Found::NotReceived;
        }
    }
    match (fs::presence(&place.root, &place.relative), &intent.target) {
        (Presence::Present(metadata), Some(target)) => {
            let now = node.record(intent.path.clone(), &metadata, None).checktxt;
            // A regular file is complete, with its attributes, before it is renamed into place.
            let received =
                if metadata.is_regular() { target.describes(&now, metadata.mtime) } else { kind(&now) == kind(target) };
            if received { Found::Received(Some(metadata)) } else { Found::NotReceived }
        }
        (Presence::Gone, None) => Found::Received(None),
        _ => Found::NotReceived,
    }
}

/// The part of a checktxt that owner and mode do not touch: of anything but a regular file they are set after it is made.
fn kind(checktxt: &Checktxt) -> &[u8] {
    let text = checktxt.as_bytes();
    let at = text.windows(6).position(|window| window == b":type=").unwrap_or_default();
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_boot_is_not() {
        assert!(is_alive(&holder()));
        assert!(!is_alive("00000000-0000-0000-0000-000000000000 1 1"));
        assert!(!is_alive(&holder().replace(&std::process::id().to_string(), "1")), "another start time");
    }
}
