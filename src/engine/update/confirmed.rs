//! What is written down once a peer has confirmed a file: its dirty row goes, and the content it has now is remembered.

use crate::engine::Node;
use crate::model::{DirtyEntry, FileRecord, Metadata, SyncPath};
use crate::store::{Change, StoreError};

/// A file that a peer has now.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) entry: DirtyEntry,
    /// Of a regular file: SHA-256 of the content, and the state of the file that it was read from.
    pub(super) content: Option<([u8; 32], Metadata)>,
}

/// Forgets exactly the dirty rows that were read: a file that was marked again stays dirty. Then adds the digests to
/// the file table.
pub(super) async fn record(node: &Node, confirmed: Vec<Confirmed>) -> Result<(), StoreError> {
    if confirmed.is_empty() {
        return Ok(());
    }
    let (entries, contents): (Vec<_>, Vec<_>) = confirmed.into_iter().map(|one| (one.entry, one.content)).unzip();
    node.store.clear(&entries).await?;
    let contents: Vec<(SyncPath, ([u8; 32], Metadata))> =
        entries.into_iter().zip(contents).filter_map(|(entry, content)| Some((entry.path, content?))).collect();
    let known = node.store.known(contents.iter().map(|(path, _)| path.clone()).collect()).await?;
    let changes = contents.into_iter().zip(known).filter_map(|((path, (digest, metadata)), known)| {
        let row = known.record?;
        let record = with_digest(node, &row, digest, &metadata)?;
        let expected = Some(row.checktxt);
        Some(Change { path, expected, record: Some(record), marks: Vec::new(), actions: Vec::new() })
    });
    node.store.apply(changes.collect()).await?;
    Ok(())
}

/// The row with the digest. Only a row of that very state gets it: with the digest of a later one, the change would go
/// unnoticed, and the other peers would never see it.
fn with_digest(node: &Node, row: &FileRecord, digest: [u8; 32], metadata: &Metadata) -> Option<FileRecord> {
    let fresh = node.record(row.path.clone(), metadata, Some(digest));
    let same_state = row.checktxt.describes(&fresh.checktxt, metadata.mtime)
        && row.mtime_ns.is_none_or(|mtime| Some(mtime) == fresh.mtime_ns)
        && row.ctime_ns.is_none_or(|ctime| Some(ctime) == fresh.ctime_ns);
    (same_state && row.digest != fresh.digest).then_some(fresh)
}
