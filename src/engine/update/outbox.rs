//! The sending half of a pipelined session: a task of its own, so that answers are read while requests go out.

use std::io::{Seek, SeekFrom};

use tempfile::{SpooledData, SpooledTempFile, spooled_tempfile};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::wire::{Request, WireError, Writer};

/// Deltas above this size wait on disk for their turn.
const IN_MEMORY: usize = 1 << 20;

/// Something to be sent.
enum Item {
    Bytes(Vec<u8>),
    Stream { length: u64, data: SpooledTempFile },
}

/// Takes what is to be sent, in order. What waits here is bounded by the number of commands in flight.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::UnboundedSender<Item>,
    task: JoinHandle<(Writer, Result<(), WireError>)>,
}

impl Outbox {
    pub(super) fn start(writer: Writer) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, task: tokio::spawn(send_all(writer, receiver)) }
    }

    /// Where a delta is written before its length is known.
    pub(super) fn spool() -> SpooledTempFile {
        spooled_tempfile(IN_MEMORY)
    }

    // A writer that failed has closed the channel: whoever waits for the answer sees the connection end.

    pub(super) fn send(&self, request: &Request) {
        let _ = self.sender.send(Item::Bytes(request.encode()));
    }

    pub(super) fn send_text(&self, text: &[u8]) {
        let _ = self.sender.send(Item::Bytes(text.to_vec()));
    }

    pub(super) fn send_stream(&self, length: u64, data: SpooledTempFile) {
        let _ = self.sender.send(Item::Stream { length, data });
    }

    /// Ends the task once everything is sent.
    pub(super) async fn finish(self) -> Result<Writer, WireError> {
        drop(self.sender);
        match self.task.await {
            Ok((writer, result)) => result.map(|()| writer),
            Err(error) => Err(WireError::Protocol(format!("the sending task ended early: {error}"))),
        }
    }
}

async fn send_all(mut writer: Writer, mut items: mpsc::UnboundedReceiver<Item>) -> (Writer, Result<(), WireError>) {
    let result = async {
        while let Some(item) = items.recv().await {
            match item {
                Item::Bytes(bytes) => writer.write(&bytes).await?,
                Item::Stream { length, data } => {
                    writer.write_octet_stream(length, &mut source(data)?).await?;
                }
            }
            if items.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    };
    let result = result.await;
    (writer, result)
}

fn source(mut data: SpooledTempFile) -> Result<Box<dyn AsyncRead + Send + Unpin>, WireError> {
    let read_error =
        |source| WireError::Io { operation: "read the spooled delta for", peer: "the peer".into(), source };
    data.seek(SeekFrom::Start(0)).map_err(read_error)?;
    match data.into_inner() {
        SpooledData::InMemory(cursor) => Ok(Box::new(cursor)),
        SpooledData::OnDisk(file) => Ok(Box::new(tokio::fs::File::from_std(file))),
    }
}
