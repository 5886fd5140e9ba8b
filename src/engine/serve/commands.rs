//! The commands of a peer that has identified itself, one by one.

use super::attribute::Attribute;
use super::peer::Peer;
use super::permission::{self, Admitted};
use super::query::{self, Measure, Signature};
use super::receive::{Stop, time_of};
use super::session::{Flow, Session, SessionError};
use super::spool;
use crate::engine::EngineError;
use crate::engine::check::{self, CheckOptions};
use crate::engine::membership::Purpose;
use crate::model::{FileKind, Metadata, MtimeUnit};
use crate::wire::{Attributes, OctetHeader, Reply, Request, WireError};

impl Session {
    /// Carries out one command and answers it.
    pub(super) async fn serve(&mut self, peer: &Peer, command: Request) -> Result<Flow, SessionError> {
        let purpose = if matches!(command, Request::Type { .. }) { Purpose::Compare } else { Purpose::Sync };
        // What a peer lacks, a slave may ask for; the C program gives it no other command.
        let changes = !matches!(command, Request::Fetch { .. });
        let admitted = match subject(&command) {
            Some((key, file)) => permission::admit(peer, key, file, purpose, changes).await?.map(Some),
            None => Ok(None),
        };
        let continued = match (&admitted, &command) {
            (Ok(Some(file)), Request::SetOwn { .. } | Request::SetMod { .. } | Request::SeTime { .. }) => {
                Some(&file.path)
            }
            _ => None,
        };
        self.receiver.settle(peer, continued).await?;
        let file = subject(&command).map(|(_, file)| file);
        if !is_of_one_file(&command) || file.is_some_and(|file| self.receiver.has_unrecorded(Some(file))) {
            self.receiver.record(peer).await?;
        }
        let reply = match (admitted, command) {
            (Err(reply), _) => reply,
            (Ok(Some(file)), command) => match self.command(peer, file, command).await? {
                Answered::With(reply) => reply,
                Answered::Already(flow) => return Ok(flow),
            },
            (Ok(None), Request::List { server, file, keys }) => {
                let unit = self.unit.unwrap_or_default();
                query::list(peer, &mut self.connection, &server, file.as_deref(), &keys, unit).await??;
                Reply::CmdFinished
            }
            (Ok(None), Request::Push) => self.push(peer).await?,
            (Ok(None), _) => Reply::UnknownCommand,
        };
        self.answer(&reply).await?;
        Ok(Flow::Continue)
    }

    async fn command(&mut self, peer: &Peer, file: Admitted, command: Request) -> Result<Answered, SessionError> {
        if matches!(command, Request::AtomicPatch { .. } | Request::MkDir { attributes: Some(_), .. }) {
            self.unit = Some(MtimeUnit::Nanoseconds);
        }
        let path = file.path.clone();
        let receiver = &mut self.receiver;
        let (outcome, is_told) = match command {
            Request::Sig { .. } => return self.signature(peer, &file).await,
            Request::Type { .. } => return self.content(&file).await,
            Request::GetTm { .. } => {
                return self.number(&file, Measure::Mtime(self.unit.unwrap_or_default())).await;
            }
            Request::GetSz { .. } => return self.number(&file, Measure::Size).await,
            Request::Mark { .. } => (permission::mark_for_groups_of(peer, &path).await.map_err(Stop::from), false),
            Request::Fetch { .. } => return Ok(Answered::With(self.wishes.add(peer, &file).await?)),
            Request::Flush { .. } => (flush(peer, &file).await.map_err(Stop::from), false),
            Request::Patch { .. } => (self.patch(peer, file, None).await?, true),
            Request::AtomicPatch { attributes, .. } => (self.patch(peer, file, Some(attributes)).await?, true),
            Request::Del { .. } => (receiver.delete(peer, file).await, true),
            Request::SetOwn { uid, gid, .. } => (receiver.set(peer, file, Attribute::Owner { uid, gid }).await, false),
            Request::SetMod { mode, .. } => (receiver.set(peer, file, Attribute::Mode(mode)).await, false),
            Request::SeTime { mtime, .. } => {
                (receiver.set(peer, file, Attribute::Time(time_of(mtime, self.unit))).await, false)
            }
            command => match made(command) {
                Some((kind, attributes)) => (receiver.make(peer, file, kind, attributes).await, true),
                None => return Ok(Answered::With(Reply::UnknownCommand)),
            },
        };
        let reply = self.receiver.conclude(peer, &path, outcome).await?;
        match &reply {
            Reply::CmdFinished if is_told => tracing::info!("Updated {path} from {}.", peer.name),
            Reply::Text(text) => tracing::warn!("ERROR: {path} from {}: {text}", peer.name),
            _ => {}
        }
        Ok(Answered::With(reply))
    }

    async fn signature(&mut self, peer: &Peer, file: &Admitted) -> Result<Answered, SessionError> {
        let not_there = |reply: Reply| (reply, b"---".to_vec(), None);
        let signature = loop {
            match query::signature(peer, file, !self.receiver.has_unrecorded(None)).await? {
                Some(signature) => break signature,
                None => self.receiver.record(peer).await?,
            }
        };
        let (reply, checktxt, signature) = match signature {
            Signature::Refused(reply) => return Ok(Answered::With(reply)),
            Signature::Missing(reply) => {
                self.receiver.saw(&file.path, None);
                not_there(reply)
            }
            Signature::There { checktxt, metadata, looked, data } => {
                self.receiver.saw(&file.path, Some(Metadata::clone(&metadata)));
                (Reply::DataFollows, checktxt.as_bytes().to_vec(), Some((metadata, looked, data)))
            }
        };
        self.connection.write_line(&reply.encode()).await?;
        self.connection.write_line(&checktxt).await?;
        match signature {
            None => self.connection.write(&OctetHeader::Length(0).encode()).await?,
            Some((metadata, looked, mut data)) => {
                data.send(&mut self.connection).await?;
                self.receiver.keep(&file.path, &metadata, looked, data);
            }
        }
        Ok(Answered::With(Reply::CmdFinished))
    }

    async fn number(&mut self, file: &Admitted, what: Measure) -> Result<Answered, SessionError> {
        let number = query::measure(file, what).await?;
        self.connection.write_line(&Reply::DataFollows.encode()).await?;
        self.connection.write_line(number.to_string().as_bytes()).await?;
        Ok(Answered::Already(Flow::Continue))
    }

    /// TYPE has no length: the content ends with the connection.
    async fn content(&mut self, file: &Admitted) -> Result<Answered, SessionError> {
        use tokio::io::AsyncReadExt;
        let content = match query::content(file).await? {
            Ok(content) => content,
            Err(reply) => return Ok(Answered::With(reply)),
        };
        self.connection.write_line(&Reply::DataFollows.encode()).await?;
        if let Some(mut content) = content {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let length = content.read(&mut buffer).await.map_err(|source| WireError::Io {
                    operation: "read a file for",
                    peer: self.connection.peer_name().to_owned(),
                    source,
                })?;
                if length == 0 {
                    break;
                }
                self.connection.write(&buffer[..length]).await?;
            }
        }
        self.connection.flush().await?;
        Ok(Answered::Already(Flow::Close))
    }

    async fn patch(
        &mut self,
        peer: &Peer,
        file: Admitted,
        attributes: Option<Attributes>,
    ) -> Result<Result<(), Stop>, SessionError> {
        let (patch, mut signature) = match self.receiver.begin_patch(peer, file, attributes).await {
            Ok(begun) => begun,
            Err(stop) => return Ok(Err(stop)),
        };
        self.connection.write_line(&Reply::SendData.encode()).await?;
        signature.send(&mut self.connection).await?;
        let connection = &mut self.connection;
        let delta = async {
            Ok::<_, WireError>(match connection.read_octet_header().await? {
                OctetHeader::Failed => None,
                OctetHeader::Length(length) => Some(spool::receive(connection, length).await?),
            })
        };
        let Some((delta, feed)) = self.receiver.meanwhile(peer, delta).await?? else {
            return Ok(Err(std::io::Error::from(rustix::io::Errno::IO).into()));
        };
        if !delta.is_complete() {
            self.receiver.record(peer).await?;
        }
        let patched = self.receiver.finish_patch(peer, patch, delta);
        let (fed, patched) = tokio::join!(feed.run(&mut self.connection), patched);
        fed?;
        Ok(patched)
    }
}

/// What became of a command: the answer is still to be sent, or all is said.
enum Answered {
    With(Reply),
    Already(Flow),
}

/// Whether a command asks for nothing that is recorded of other files.
fn is_of_one_file(command: &Request) -> bool {
    match command {
        Request::Sig { .. }
        | Request::GetTm { .. }
        | Request::GetSz { .. }
        | Request::Patch { .. }
        | Request::AtomicPatch { .. }
        | Request::MkDir { .. }
        | Request::MkChr { .. }
        | Request::MkBlk { .. }
        | Request::MkFifo { .. }
        | Request::MkLink { .. }
        | Request::MkSock { .. }
        | Request::SetOwn { .. }
        | Request::SetMod { .. }
        | Request::SeTime { .. }
        | Request::Del { .. } => true,
        Request::Mark { .. }
        | Request::Fetch { .. }
        | Request::Push
        | Request::Type { .. }
        | Request::Flush { .. }
        | Request::List { .. }
        | Request::Ssl
        | Request::Config { .. }
        | Request::Group { .. }
        | Request::Hello { .. }
        | Request::AtomicDialect
        | Request::BatchDialect { .. }
        | Request::Batch { .. }
        | Request::Bye => false,
    }
}

/// Key and file of a command that has them.
fn subject(command: &Request) -> Option<(&str, &[u8])> {
    match command {
        Request::Sig { key, file }
        | Request::Mark { key, file }
        | Request::Fetch { key, file }
        | Request::Type { key, file }
        | Request::GetTm { key, file }
        | Request::GetSz { key, file }
        | Request::Flush { key, file }
        | Request::Del { key, file }
        | Request::Patch { key, file }
        | Request::AtomicPatch { key, file, .. }
        | Request::MkDir { key, file, .. }
        | Request::MkChr { key, file, .. }
        | Request::MkBlk { key, file, .. }
        | Request::MkFifo { key, file }
        | Request::MkLink { key, file, .. }
        | Request::MkSock { key, file }
        | Request::SetOwn { key, file, .. }
        | Request::SetMod { key, file, .. }
        | Request::SeTime { key, file, .. } => Some((key, file)),
        Request::List { .. }
        | Request::Push
        | Request::Ssl
        | Request::Config { .. }
        | Request::Group { .. }
        | Request::Hello { .. }
        | Request::AtomicDialect
        | Request::BatchDialect { .. }
        | Request::Batch { .. }
        | Request::Bye => None,
    }
}

/// What an MK… command makes.
fn made(command: Request) -> Option<(FileKind, Option<Attributes>)> {
    Some(match command {
        Request::MkDir { attributes, .. } => (FileKind::Directory, attributes),
        Request::MkChr { device, .. } => (FileKind::CharDevice { device: device.unwrap_or_default() }, None),
        Request::MkBlk { device, .. } => (FileKind::BlockDevice { device: device.unwrap_or_default() }, None),
        Request::MkFifo { .. } => (FileKind::Fifo, None),
        Request::MkLink { target, .. } => (FileKind::Symlink { target }, None),
        Request::MkSock { .. } => (FileKind::Socket, None),
        _ => return None,
    })
}

/// FLUSH: looks at the file once more, so that its row is that of what is on disk, and forgets that it is dirty.
pub(super) async fn flush(peer: &Peer, file: &Admitted) -> Result<(), EngineError> {
    check::examine(&peer.node, vec![file.path.clone()], CheckOptions::default()).await?;
    Ok(peer.node.store.flush(&file.path).await?)
}
