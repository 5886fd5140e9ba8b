//! What a crash left behind: intents of sessions that no longer exist are finished or dropped.
//!
//! A session writes its intent before it changes a file, and removes it together with the file's new row. An intent
//! whose holder is gone therefore marks a file whose row may be older than the file. Disk and intent decide: what is
//! as it was to be received was received, is made durable if that is wanted, and recorded as such; what had to make way for
//! something that did not come about is recorded as gone, which is no removal of this host's; anything else is left to the
//! next check. Temporary files are removed by the name that stands in the intent, never by what they look like.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::membership::{self, Event};
use super::{EngineError, Node, blocking, content};
use crate::config::LocalPath;
use crate::fs::{self, Presence};
use crate::model::errors::chain;
use crate::model::{Checktxt, FileRecord, Metadata};
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

/// Finishes or drops every intent whose holder is gone. What cannot be flushed keeps its intent, for the next time.
///
/// # Errors
/// Those of the store.
pub async fn recover(node: &Arc<Node>) -> Result<(), EngineError> {
    match settle(node, |holder| !is_alive(holder)).await {
        Err(error @ EngineError::Unsettled { .. }) => {
            tracing::warn!("ERROR: {}", chain(&error));
            Ok(())
        }
        settled => settled,
    }
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
    let (mut settled, mut not_received, mut unsettled) = (Vec::new(), Vec::new(), None);
    for (id, intent) in node.store.intents().await? {
        if !is_left(&intent.holder) {
            continue;
        }
        let row = node.store.file(&intent.path).await?;
        let (worker, path) = (Arc::clone(node), intent.path.clone());
        let sender = intent.peer.clone();
        match blocking("recover", move || inspect(&worker, &intent, row.as_ref())).await? {
            Ok(Found::Received(metadata)) => {
                let actions = membership::actions_for(&node.config, &path, Event::Received);
                let record = metadata.map(|metadata| node.record(path.clone(), &metadata, None));
                settled.push((Some(id), Receipt { path, sender, record, actions }));
            }
            Ok(Found::Cleared) => {
                settled.push((Some(id), Receipt { path, sender, record: None, actions: Vec::new() }));
            }
            Ok(Found::NotReceived) => not_received.push(id),
            Err(error) => unsettled = Some(error),
        }
    }
    node.store.finish_receives(settled).await?;
    node.store.abandon_receives(not_received).await?;
    unsettled.map_or(Ok(()), |source| Err(EngineError::Unsettled { source }))
}

enum Found {
    /// The state that was to be received; `None`: the file was removed.
    Received(Option<Metadata>),
    /// Nothing is there: what was there before went to make way.
    Cleared,
    NotReceived,
}

/// Compares disk and intent. The error: what was received cannot be flushed.
fn inspect(node: &Node, intent: &Intent, row: Option<&FileRecord>) -> io::Result<Found> {
    let Ok(place) = node.config.local(&intent.path) else { return Ok(Found::NotReceived) };
    let mut is_unfinished = false;
    if !intent.temp_name.is_empty()
        && let Ok(target) = content::locate(&place)
        && let Ok(temp) = target.sibling(&intent.temp_name)
        && temp.metadata().is_ok_and(|found| found.is_some())
    {
        // Its rename is the last thing that happens on disk.
        temp.clear_the_way();
        is_unfinished = true;
    }
    match (fs::presence(place.root(), place.relative()), &intent.target) {
        (Presence::Present(metadata), Some(target)) if !is_unfinished => {
            let now = node.record(intent.path.clone(), &metadata, None).checktxt;
            // A regular file is complete, with its attributes, before it is renamed into place.
            let received =
                if metadata.is_regular() { target.describes(&now, metadata.mtime) } else { kind(&now) == kind(target) };
            if !received {
                return Ok(Found::NotReceived);
            }
            make_durable(node, &place, &metadata)?;
            Ok(Found::Received(Some(metadata)))
        }
        (Presence::Gone, Some(target)) => {
            // All but directories takes the place of its like in one step: if nothing is there, somebody here removed it.
            let had_to_go = row.is_some_and(|row| is_directory(&row.checktxt) || is_directory(target));
            Ok(if had_to_go { Found::Cleared } else { Found::NotReceived })
        }
        (Presence::Gone, None) => {
            if let Ok(at) = content::locate(&place)
                && node.config.durable
            {
                at.sync_directory()?;
            }
            Ok(Found::Received(None))
        }
        _ => Ok(Found::NotReceived),
    }
}

/// The crash may have come before the flush: the record must not survive what it is about.
fn make_durable(node: &Node, place: &LocalPath, metadata: &Metadata) -> io::Result<()> {
    let Ok(at) = content::locate(place) else { return Ok(()) };
    if !node.config.durable {
        return Ok(());
    }
    if metadata.is_regular() {
        at.open_regular()?.sync_all()?;
    }
    at.sync_directory()
}

fn is_directory(checktxt: &Checktxt) -> bool {
    kind(checktxt) == b":type=dir"
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
