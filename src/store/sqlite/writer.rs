//! The one thread that writes: takes transactions from a queue and runs one after the other.

use std::sync::mpsc;
use std::thread;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// What the queue carries.
enum Message {
    Run {
        durable: bool,
        job: Job,
    },
    /// Close the connection; everything ahead in the queue has been done.
    Stop(oneshot::Sender<()>),
}

/// The queue's end. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
}

impl Writer {
    /// Starts the thread with its connection; `may_relax`: a transaction that need not be durable may be flushed later,
    /// together with the next one that must be.
    pub(super) fn start(mut connection: Connection, may_relax: bool) -> Self {
        let (queue, messages) = mpsc::channel();
        let work = move || {
            let mut is_durable = true;
            while let Ok(message) = messages.recv() {
                match message {
                    Message::Run { durable, job } => {
                        if may_relax && durable != is_durable {
                            // Where it fails, the transaction is durable all the same or fails as well.
                            let level = if durable { "FULL" } else { "NORMAL" };
                            let set = connection.pragma_update(None, "synchronous", level);
                            is_durable = set.map_or(is_durable, |()| durable);
                        }
                        job(&mut connection);
                    }
                    Message::Stop(stopped) => {
                        drop(connection);
                        let _ = stopped.send(());
                        return;
                    }
                }
            }
        };
        thread::spawn(work);
        Self { queue }
    }

    /// Runs `work` as a transaction; an error undoes all of it. `None`: stopped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        durable: bool,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<rusqlite::Result<T>> {
        let (answer, result) = oneshot::channel();
        let job = move |connection: &mut Connection| {
            // Whoever asked may have given up while the job was waiting.
            if !answer.is_closed() {
                let _ = answer.send(transaction(connection, work));
            }
        };
        self.queue.send(Message::Run { durable, job: Box::new(job) }).ok()?;
        result.await.ok()
    }

    /// Ends the thread when it has done what is in the queue.
    pub(super) async fn stop(&self) {
        let (stopped, done) = oneshot::channel();
        if self.queue.send(Message::Stop(stopped)).is_ok() {
            let _ = done.await;
        }
    }
}

/// Runs `work` with the write lock held from the start: a transaction that begins by reading and then wants to write
/// fails at once when another process wrote in between, without the busy timeout.
pub(super) fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}
