//! One session, from the first line to BYE: SSL, CONFIG, GROUP, HELLO, then commands in order.
//!
//! Answers are flushed only when no further command is waiting, so that a pipelining peer costs few packets.

use std::net::IpAddr;
use std::sync::Arc;

use tempfile::spooled_tempfile;

use super::apply::Attribute;
use super::permission::{self, Admitted};
use super::query::{self, Signature};
use super::receive::{self, Receiver};
use super::registry::{Known, Registry};
use crate::engine::check::{self, CheckOptions};
use crate::engine::membership::{self, Purpose};
use crate::engine::open::OpenError;
use crate::engine::{EngineError, Node, Report, chain};
use crate::model::{FileKind, MtimeUnit};
use crate::wire::trust::{self, Trust};
use crate::wire::{Attributes, Connection, Identity, OctetHeader, Reply, Request, RequestError, WireError};

/// Deltas above this size wait on disk.
const IN_MEMORY: usize = 1 << 20;

/// Why a session ended before BYE.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Runs a session to its end. What went wrong is logged once, here.
pub(super) async fn run(registry: Arc<Registry>, connection: Connection) -> Report {
    let mut report = Report::default();
    let address = connection.peer_address();
    let shown = address.map_or_else(|| "the peer".to_owned(), |address| address.to_string());
    match converse(&registry, connection, address, &mut report).await {
        Ok(()) => {}
        Err(SessionError::Wire(WireError::Closed)) => tracing::info!("{shown} closed the connection without BYE."),
        Err(error) => report.error(format_args!("ERROR: session with {shown}: {}", chain(&error))),
    }
    report
}

async fn converse(
    registry: &Arc<Registry>,
    connection: Connection,
    address: Option<IpAddr>,
    report: &mut Report,
) -> Result<(), SessionError> {
    let mut connection = connection;
    let Some(mut request) = next(&mut connection).await? else { return Ok(()) };
    if request == Ok(Request::Ssl) {
        let identity = match Identity::load(&registry.settings().system_dir) {
            Ok(identity) => identity,
            Err(error) => {
                answer(&mut connection, &Reply::Text("SSL is not set up on this host.".to_owned())).await?;
                connection.shutdown().await;
                return Err(WireError::Tls(error).into());
            }
        };
        answer(&mut connection, &Reply::ActivatingSsl).await?;
        connection = connection.start_tls_server(&identity).await?;
        match next(&mut connection).await? {
            Some(after) => request = after,
            None => return Ok(()),
        }
    }
    let Ok(Request::Config { name }) = request else {
        answer(&mut connection, &Reply::ExpectingConfig).await?;
        connection.shutdown().await;
        return Ok(());
    };
    let Some(name) = config_name(&name) else {
        answer(&mut connection, &Reply::BadConfigName).await?;
        connection.shutdown().await;
        return Ok(());
    };
    let known = match registry.config(&name).await {
        Ok(known) => known,
        Err(error) => {
            connection.shutdown().await;
            return Err(error.into());
        }
    };
    let mut session = Session {
        registry: Arc::clone(registry),
        connection,
        address,
        config_name: name,
        known,
        groups: None,
        peer: None,
        unit: None,
        receiver: Receiver::default(),
        last_node: None,
        said_bye: false,
    };
    session.answer(&Reply::CmdFinished).await?;
    let result = session.commands().await;
    if result.is_err() || !session.said_bye {
        session.receiver.drop_unfinished();
    }
    let settled = session.leave().await;
    session.connection.flush().await.ok();
    // The C client returns when the connection closes, and scripts count on the actions being done by then.
    if let Some(node) = session.last_node.take() {
        super::run_actions(&node, report).await;
    }
    session.connection.shutdown().await;
    result?;
    settled
}

/// The next command; `None` at the end of the connection.
async fn next(connection: &mut Connection) -> Result<Option<Result<Request, RequestError>>, WireError> {
    if !connection.has_buffered_input() {
        connection.flush().await?;
    }
    Ok(connection.read_line().await?.map(|line| Request::parse(&line)))
}

async fn answer(connection: &mut Connection, reply: &Reply) -> Result<(), WireError> {
    connection.write_line(&reply.encode()).await?;
    if !connection.has_buffered_input() {
        connection.flush().await?;
    }
    Ok(())
}

fn config_name(name: &[u8]) -> Option<String> {
    let proper = name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    proper.then(|| String::from_utf8_lossy(name).into_owned())
}

/// A session after CONFIG.
struct Session {
    registry: Arc<Registry>,
    connection: Connection,
    address: Option<IpAddr>,
    config_name: String,
    known: Arc<Known>,
    groups: Option<Vec<String>>,
    /// Who the peer proved to be, and the node that serves it.
    peer: Option<(String, Arc<Node>)>,
    /// The unit of times, once the peer showed which dialect it speaks.
    unit: Option<MtimeUnit>,
    receiver: Receiver,
    /// For the actions at the end, also when a later HELLO failed.
    last_node: Option<Arc<Node>>,
    said_bye: bool,
}

/// Whether the session goes on.
enum Flow {
    Continue,
    Close,
}

impl Session {
    async fn answer(&mut self, reply: &Reply) -> Result<(), WireError> {
        answer(&mut self.connection, reply).await
    }

    async fn commands(&mut self) -> Result<(), SessionError> {
        while let Some(request) = next(&mut self.connection).await? {
            match request {
                Ok(request) => {
                    if let Flow::Close = self.execute(request).await? {
                        return Ok(());
                    }
                }
                // The C program's server does not answer an empty line.
                Err(RequestError::Empty) => {}
                Err(RequestError::Unknown) => self.answer(&Reply::UnknownCommand).await?,
                Err(RequestError::Malformed(problem)) => {
                    tracing::warn!("WARNING: the peer sent a malformed command: {problem}");
                    self.answer(&Reply::Text("Invalid argument".to_owned())).await?;
                }
            }
        }
        Ok(())
    }

    /// Records what is still open, whoever sent it.
    async fn leave(&mut self) -> Result<(), SessionError> {
        if let Some((peer, node)) = &self.peer {
            self.receiver.settle(node, peer, None).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, request: Request) -> Result<Flow, SessionError> {
        match request {
            Request::Bye => {
                self.leave().await?;
                self.said_bye = true;
                self.answer(&Reply::CuLater).await?;
                return Ok(Flow::Close);
            }
            Request::Group { names } => {
                let reply = if self.groups.is_some() { Reply::GroupListAlreadySet } else { Reply::CmdFinished };
                self.groups.get_or_insert(names);
                self.answer(&reply).await?;
            }
            Request::Hello { name } => {
                let reply = self.hello(&name.to_lowercase()).await?;
                self.answer(&reply).await?;
            }
            Request::AtomicDialect => {
                self.unit = Some(MtimeUnit::Nanoseconds);
                let address = self.shown_address();
                self.answer(&Reply::IdentifyFirst { address }).await?;
            }
            Request::Ssl | Request::Config { .. } => self.answer(&Reply::UnknownCommand).await?,
            command => match self.peer.clone() {
                None => {
                    let address = self.shown_address();
                    self.answer(&Reply::IdentifyFirst { address }).await?;
                }
                Some((peer, node)) => return self.serve(&peer, &node, command).await,
            },
        }
        Ok(Flow::Continue)
    }

    fn shown_address(&self) -> String {
        self.address.map_or_else(|| "unknown".to_owned(), |address| address.to_canonical().to_string())
    }

    /// Who may speak under a name: who comes from one of its addresses, with the certificate that is pinned for it, over
    /// TLS unless the configuration says otherwise. A failed HELLO drops the earlier identity.
    async fn hello(&mut self, name: &str) -> Result<Reply, SessionError> {
        self.leave().await?;
        self.peer = None;
        let Some(address) = self.address else {
            tracing::warn!("{name}: Identification failed! The peer's address is not known (SSH_CLIENT is not set).");
            return Ok(Reply::IdentificationFailed);
        };
        let resolved = tokio::net::lookup_host((name, 0)).await;
        let addresses: Vec<IpAddr> =
            resolved.map(|found| found.map(|found| found.ip().to_canonical()).collect()).unwrap_or_default();
        if !addresses.contains(&address.to_canonical()) {
            let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            tracing::warn!(
                "{name}: Identification failed! It connects from {}, and its name resolves here to: {}.",
                address.to_canonical(),
                if list.is_empty() { "nothing" } else { &list }
            );
            return Ok(Reply::IdentificationFailed);
        }
        let config = &self.known.config;
        if !self.connection.is_tls() && !config.plain_allowed(&config.my_name, name) {
            tracing::warn!("{name}: SSL encrypted connection expected! No nossl entry allows a plain one.");
            return Ok(Reply::SslExpected);
        }
        let node = self.registry.node(&self.config_name, &self.known).await?;
        if let Some(presented) = self.connection.peer_certificate().map(<[u8]>::to_vec)
            && !certificate_fits(&node, name, &presented).await?
        {
            return Ok(Reply::IdentificationFailed);
        }
        let node = match &self.groups {
            None => node,
            Some(groups) => {
                Arc::new(Node { config: Arc::new(node.config.select_groups(groups)), ..Node::clone(&node) })
            }
        };
        self.last_node = Some(Arc::clone(&node));
        self.peer = Some((name.to_owned(), node));
        Ok(Reply::CmdFinished)
    }

    async fn serve(&mut self, peer: &str, node: &Arc<Node>, command: Request) -> Result<Flow, SessionError> {
        let (key, file, purpose) = match &command {
            Request::List { keys, file, .. } => {
                self.receiver.settle(node, peer, None).await?;
                let unit = self.unit.unwrap_or_default();
                let listed = query::list(node, &mut self.connection, peer, file.as_deref(), keys, unit).await?;
                listed?;
                self.answer(&Reply::CmdFinished).await?;
                return Ok(Flow::Continue);
            }
            Request::Type { key, file } => (key, file, Purpose::Compare),
            Request::Sig { key, file }
            | Request::Mark { key, file }
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
            | Request::SeTime { key, file, .. } => (key, file, Purpose::Sync),
            Request::Ssl
            | Request::Config { .. }
            | Request::Group { .. }
            | Request::Hello { .. }
            | Request::AtomicDialect
            | Request::Bye => {
                self.answer(&Reply::UnknownCommand).await?;
                return Ok(Flow::Continue);
            }
        };
        match permission::admit(node, peer, key, file, purpose).await? {
            Ok(admitted) => self.command(peer, node, admitted, command).await,
            Err(reply) => {
                self.answer(&reply).await?;
                Ok(Flow::Continue)
            }
        }
    }

    async fn command(
        &mut self,
        peer: &str,
        node: &Arc<Node>,
        file: Admitted,
        command: Request,
    ) -> Result<Flow, SessionError> {
        if matches!(command, Request::AtomicPatch { .. } | Request::MkDir { attributes: Some(_), .. }) {
            self.unit = Some(MtimeUnit::Nanoseconds);
        }
        let (shown, receiver) = (file.path.clone(), &mut self.receiver);
        let make = |kind: FileKind, attributes: Option<Attributes>| (kind, attributes);
        let changed = match command {
            Request::Sig { .. } => return self.signature(node, peer, &file).await,
            Request::Mark { .. } => {
                permission::mark_for_groups_of(node, &file.path, peer).await?;
                self.answer(&Reply::CmdFinished).await?;
                return Ok(Flow::Continue);
            }
            Request::Type { .. } => return self.type_out(&file).await,
            Request::GetTm { .. } => return self.number(&file, Some(self.unit.unwrap_or_default())).await,
            Request::GetSz { .. } => return self.number(&file, None).await,
            Request::Flush { .. } => {
                check::examine(node, vec![file.path.clone()], CheckOptions::default()).await?;
                node.store.flush(&file.path).await.map_err(EngineError::from)?;
                self.answer(&Reply::CmdFinished).await?;
                return Ok(Flow::Continue);
            }
            Request::Patch { .. } => return self.patch(node, peer, file, None).await,
            Request::AtomicPatch { attributes, .. } => return self.patch(node, peer, file, Some(attributes)).await,
            Request::Del { .. } => receiver.delete(node, peer, file).await?,
            Request::SetOwn { uid, gid, .. } => receiver.set(node, peer, file, Attribute::Owner { uid, gid }).await?,
            Request::SetMod { mode, .. } => receiver.set(node, peer, file, Attribute::Mode(mode)).await?,
            Request::SeTime { mtime, .. } => {
                let mtime = receive::time_of(mtime, self.unit);
                receiver.set(node, peer, file, Attribute::Time(mtime)).await?
            }
            command => {
                let (kind, attributes) = match command {
                    Request::MkDir { attributes, .. } => make(FileKind::Directory, attributes),
                    Request::MkChr { device, .. } => {
                        make(FileKind::CharDevice { device: device.unwrap_or_default() }, None)
                    }
                    Request::MkBlk { device, .. } => {
                        make(FileKind::BlockDevice { device: device.unwrap_or_default() }, None)
                    }
                    Request::MkFifo { .. } => make(FileKind::Fifo, None),
                    Request::MkLink { target, .. } => make(FileKind::Symlink { target }, None),
                    _ => make(FileKind::Socket, None),
                };
                receiver.make(node, peer, file, kind, attributes).await?
            }
        };
        let reply = match changed {
            Ok(()) => {
                tracing::debug!("Updated {shown} from {peer}.");
                Reply::CmdFinished
            }
            Err(reply) => reply,
        };
        self.answer(&reply).await?;
        Ok(Flow::Continue)
    }

    async fn signature(&mut self, node: &Arc<Node>, peer: &str, file: &Admitted) -> Result<Flow, SessionError> {
        self.receiver.settle(node, peer, None).await?;
        let not_there = |reply: Reply| (reply, b"---".to_vec(), 0, spooled_tempfile(0));
        let (reply, checktxt, length, data) = match query::signature(node, file).await? {
            Signature::Refused(reply) => {
                self.answer(&reply).await?;
                return Ok(Flow::Continue);
            }
            Signature::Missing(reply) => {
                self.receiver.saw(&file.path, None);
                not_there(reply)
            }
            Signature::There { checktxt, metadata, length, data } => {
                self.receiver.saw(&file.path, Some(*metadata));
                (Reply::DataFollows, checktxt.as_bytes().to_vec(), length, data)
            }
        };
        self.connection.write_line(&reply.encode()).await?;
        self.connection.write_line(&checktxt).await?;
        query::send_stream(&mut self.connection, length, data).await?;
        self.answer(&Reply::CmdFinished).await?;
        Ok(Flow::Continue)
    }

    async fn number(&mut self, file: &Admitted, unit: Option<MtimeUnit>) -> Result<Flow, SessionError> {
        let number = query::measure(file, unit).await?;
        self.connection.write_line(&Reply::DataFollows.encode()).await?;
        self.connection.write_line(number.to_string().as_bytes()).await?;
        Ok(Flow::Continue)
    }

    /// TYPE has no length: the content ends with the connection.
    async fn type_out(&mut self, file: &Admitted) -> Result<Flow, SessionError> {
        use tokio::io::AsyncReadExt;
        self.connection.write_line(&Reply::DataFollows.encode()).await?;
        if let Some(mut content) = query::content(file).await? {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let length = content.read(&mut buffer).await.map_err(|source| WireError::Io {
                    operation: "read a file for",
                    peer: self.shown_address(),
                    source,
                })?;
                if length == 0 {
                    break;
                }
                self.connection.write(&buffer[..length]).await?;
            }
        }
        self.connection.flush().await?;
        Ok(Flow::Close)
    }

    async fn patch(
        &mut self,
        node: &Arc<Node>,
        peer: &str,
        file: Admitted,
        attributes: Option<Attributes>,
    ) -> Result<Flow, SessionError> {
        let shown = file.path.clone();
        let (patch, length, data) = match self.receiver.begin_patch(node, peer, file, attributes).await? {
            Ok(begun) => begun,
            Err(reply) => {
                self.answer(&reply).await?;
                return Ok(Flow::Continue);
            }
        };
        self.connection.write_line(&Reply::SendData.encode()).await?;
        query::send_stream(&mut self.connection, length, data).await?;
        self.connection.flush().await?;
        let reply = match self.connection.read_octet_header().await? {
            OctetHeader::Failed => Reply::Text("Input/output error".to_owned()),
            OctetHeader::Length(length) => {
                let mut delta = spooled_tempfile(IN_MEMORY);
                let spooled = self.connection.read_body(length, &mut receive::sink(&mut delta)).await?;
                match spooled {
                    Err(error) => Reply::Text(crate::wire::error::system_text(&error)),
                    Ok(()) => match self.receiver.finish_patch(node, peer, patch, delta).await? {
                        Ok(()) => {
                            tracing::info!("Updated {shown} from {peer}.");
                            Reply::CmdFinished
                        }
                        Err(reply) => {
                            tracing::warn!("ERROR: {shown} from {peer}: {}", reply.text());
                            reply
                        }
                    },
                }
            }
        };
        self.answer(&reply).await?;
        Ok(Flow::Continue)
    }
}

/// The certificate of the session against the one that is pinned for the name. The first one is pinned, for names that
/// the configuration knows.
async fn certificate_fits(node: &Node, name: &str, presented: &[u8]) -> Result<bool, EngineError> {
    let pinned = match node.store.certificate(name).await? {
        Some(pinned) => pinned,
        None if membership::pairs(&node.config).iter().any(|(_, peer)| peer == name) => {
            node.store.pin(name, presented).await?
        }
        None => return Ok(true),
    };
    if trust::judge(Some(&pinned), presented) == Trust::Different {
        tracing::warn!(
            "{name}: Peer did provide a wrong SSL X509 cetrificate. Pinned is {}, presented was {}. If the change was \
             intended, remove its row from the table x509_cert.",
            trust::fingerprint(&pinned),
            trust::fingerprint(presented)
        );
        return Ok(false);
    }
    Ok(true)
}
