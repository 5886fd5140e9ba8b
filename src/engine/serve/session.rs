//! One session, from the first line to BYE: SSL, CONFIG, GROUP, HELLO. What follows them is for `commands`.
//!
//! Answers are flushed only when no further command is waiting, so that a pipelining peer costs few packets.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::batch;
use super::lobby::{TooMany, Visitor};
use super::peer::{self, Jobs, Peer};
use super::receive::Receiver;
use super::registry::{Known, Registry};
use super::wishes::Wishes;
use crate::engine::action::{self, Patience};
use crate::engine::open::OpenError;
use crate::engine::recover;
use crate::engine::{EngineError, Node, Report, membership};
use crate::model::MtimeUnit;
use crate::model::errors::chain;
use crate::wire::batch::VERSIONS;
use crate::wire::{Connection, Reply, Request, RequestError, WireError};

/// Why a session ended before BYE.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("stopped by a signal; what is left stays dirty there")]
    Stopped,
    #[error("a connection was closed, there is no thread for it")]
    Thread(#[source] io::Error),
    #[error("the peer did not identify itself, and made room for others that came (max-strangers)")]
    DrivenOut,
}

/// How long a peer may take for all up to CONFIG, which names the configuration with its own limit for the rest.
const FIRST_WORDS: Duration = Duration::from_secs(30);

/// A session after CONFIG.
#[derive(Debug)]
pub(super) struct Session {
    registry: Arc<Registry>,
    pub(super) connection: Connection,
    address: Option<IpAddr>,
    config_name: String,
    known: Arc<Known>,
    groups: Option<Vec<String>>,
    /// The room that the session takes up in a daemon.
    visitor: Option<Visitor>,
    /// Until when the peer has to identify itself.
    patience: Instant,
    /// Who the peer proved to be.
    peer: Option<Arc<Peer>>,
    /// Names the session in its intents and claims.
    pub(super) holder: String,
    /// The unit of times, once the peer showed which dialect it speaks.
    pub(super) unit: Option<MtimeUnit>,
    pub(super) receiver: Receiver,
    /// What the peer lacks.
    pub(super) wishes: Wishes,
    /// Set by the first HELLO that succeeds; for the actions at the end it stays.
    served: Option<Arc<Node>>,
    /// What the changes of this session called for.
    jobs: Arc<Jobs>,
    /// The peer is one of ours: it has asked for our dialect with the bare word.
    reads_on: bool,
    /// Ends the session after the file in hand.
    pub(super) stop: CancellationToken,
}

/// Why a HELLO came to nothing.
#[derive(Debug)]
enum Unwelcome {
    /// The session goes on with this answer.
    Refused(Reply),
    TooMany,
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Close,
}

/// Runs a session to its end. What went wrong is logged once, here. The room that it takes up in a daemon is free before its
/// actions run.
pub(super) async fn run(
    registry: Arc<Registry>,
    connection: Connection,
    visitor: Option<Visitor>,
    stop: CancellationToken,
) -> Report {
    let mut report = Report::default();
    let shown = connection.peer_name().to_owned();
    match converse(&registry, connection, visitor, stop, &mut report).await {
        Ok(()) => {}
        Err(SessionError::Wire(WireError::Closed)) => tracing::info!("{shown} closed the connection without BYE."),
        // Nobody's log is to be flooded as well.
        Err(error @ SessionError::DrivenOut) => tracing::info!("{shown}: {error}"),
        Err(error) => report.error(format_args!("ERROR: session with {shown}: {}", chain(&error))),
    }
    report
}

async fn converse(
    registry: &Arc<Registry>,
    connection: Connection,
    visitor: Option<Visitor>,
    stop: CancellationToken,
    report: &mut Report,
) -> Result<(), SessionError> {
    let Some(opened) = stop.run_until_cancelled(Box::pin(open(registry, connection, visitor))).await else {
        return Err(SessionError::Stopped);
    };
    let Some(mut session) = opened? else { return Ok(()) };
    session.stop = stop;
    let introduced = session.introduce().await;
    // A stranger is a task among others. Most of what a peer wants is to wait for the disk: it gets a thread.
    let needs_a_thread = session.visitor.is_some() && matches!(introduced, Ok(None));
    let rest = session.go_on(introduced);
    let (done, outcome) = if needs_a_thread { on_a_thread(rest).await? } else { rest.await };
    report.merge(done);
    outcome
}

/// Runs the rest of a session on a thread of its own.
async fn on_a_thread<T: Send + 'static>(rest: impl Future<Output = T> + Send + 'static) -> Result<T, SessionError> {
    let (runtime, span) = (Handle::current(), tracing::Span::current());
    let (sender, done) = oneshot::channel();
    let run = move || drop(sender.send(runtime.block_on(rest.instrument(span))));
    thread::Builder::new().name("session".to_owned()).spawn(run).map_err(SessionError::Thread)?;
    done.await.map_err(|_| SessionError::Thread(io::Error::other("it ended early")))
}

/// Everything up to CONFIG's answer; `None` when the session ends before.
async fn open(
    registry: &Arc<Registry>,
    connection: Connection,
    visitor: Option<Visitor>,
) -> Result<Option<Session>, SessionError> {
    let until = Instant::now() + FIRST_WORDS;
    let opened = in_time(visitor.as_ref(), until, first_words(registry, connection)).await??;
    let Some((connection, config_name, known)) = opened else { return Ok(None) };
    Ok(Some(Session {
        registry: Arc::clone(registry),
        address: connection.peer_address(),
        connection,
        config_name,
        patience: Instant::now() + known.config.handshake_timeout,
        known,
        groups: None,
        visitor,
        peer: None,
        holder: registry.holder(),
        unit: None,
        receiver: Receiver::default(),
        wishes: Wishes::default(),
        served: None,
        jobs: Arc::default(),
        reads_on: false,
        stop: CancellationToken::new(),
    }))
}

/// SSL and CONFIG.
async fn first_words(
    registry: &Arc<Registry>,
    mut connection: Connection,
) -> Result<Option<(Connection, String, Arc<Known>)>, SessionError> {
    let Some(mut request) = next(&mut connection).await? else { return Ok(None) };
    if request == Ok(Request::Ssl) {
        let identity = match registry.identity().await {
            Ok(identity) => identity,
            Err(error) => {
                refuse(connection, Reply::Text("SSL is not set up on this host.".to_owned())).await?;
                return Err(WireError::Tls(error).into());
            }
        };
        answer(&mut connection, &Reply::ActivatingSsl).await?;
        connection = connection.start_tls_server(&identity).await?;
        match next(&mut connection).await? {
            Some(after) => request = after,
            None => return Ok(None),
        }
    }
    let Ok(Request::Config { name }) = request else {
        refuse(connection, Reply::ExpectingConfig).await?;
        return Ok(None);
    };
    let Some(config_name) = config_name(&name) else {
        refuse(connection, Reply::BadConfigName).await?;
        return Ok(None);
    };
    let known = match registry.config(&config_name).await {
        Ok(known) => known,
        Err(error) => {
            connection.shutdown().await;
            return Err(error.into());
        }
    };
    answer(&mut connection, &Reply::CmdFinished).await?;
    Ok(Some((connection, config_name, known)))
}

/// What a peer says before it has said who it is: it does not hold its place for long, nor against others.
async fn in_time<T>(
    visitor: Option<&Visitor>,
    until: Instant,
    words: impl Future<Output = T>,
) -> Result<T, SessionError> {
    let late = |_| WireError::TimedOut { what: "the peer did not identify itself" }.into();
    unless_driven_out(visitor, tokio::time::timeout_at(until, words)).await?.map_err(late)
}

/// What it makes us do.
async fn unless_driven_out<T>(visitor: Option<&Visitor>, step: impl Future<Output = T>) -> Result<T, SessionError> {
    let Some(visitor) = visitor else { return Ok(step.await) };
    tokio::select! {
        done = step => Ok(done),
        () = visitor.dismissed() => Err(SessionError::DrivenOut),
    }
}

fn config_name(name: &[u8]) -> Option<String> {
    let proper = name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    proper.then(|| String::from_utf8_lossy(name).into_owned())
}

/// The next command; `None` at the end of the connection.
async fn next(connection: &mut Connection) -> Result<Option<Result<Request, RequestError>>, WireError> {
    Ok(connection.read_line().await?.map(|line| Request::parse(&line)))
}

async fn answer(connection: &mut Connection, reply: &Reply) -> Result<(), WireError> {
    connection.write_line(&reply.encode()).await?;
    if connection.has_buffered_input() { Ok(()) } else { connection.flush().await }
}

/// The last answer of a session that does not come about.
async fn refuse(mut connection: Connection, reply: Reply) -> Result<(), WireError> {
    answer(&mut connection, &reply).await?;
    connection.shutdown().await;
    Ok(())
}

impl Session {
    pub(super) async fn answer(&mut self, reply: &Reply) -> Result<(), WireError> {
        answer(&mut self.connection, reply).await
    }

    /// Everything up to the first HELLO that succeeds: `None`. Some: the session ends before, see [`Session::turn`].
    async fn introduce(&mut self) -> Result<Option<Flow>, SessionError> {
        while self.peer.is_none() {
            if let Some(flow) = self.turn().await? {
                return Ok(Some(flow));
            }
        }
        Ok(None)
    }

    /// The rest of the session, unless it has ended already, and what follows from it.
    async fn go_on(mut self, introduced: Result<Option<Flow>, SessionError>) -> (Report, Result<(), SessionError>) {
        let mut report = Report::default();
        let spoken = match introduced {
            Ok(None) => self.converse().await,
            Ok(Some(flow)) => Ok(flow),
            Err(error) => Err(error),
        };
        let ended = match &spoken {
            Ok(Flow::Close) => Ok(()),
            Ok(Flow::Continue) | Err(_) => self.break_off().await,
        };
        // The peer may be gone already.
        self.connection.flush().await.ok();
        // The C client returns when the connection closes, and scripts count on the actions being done by then.
        self.visitor = None;
        if let Some(node) = &self.served {
            let patience = Patience::Only(&self.jobs.take());
            match action::run(node, &self.holder, patience, &CancellationToken::new()).await {
                Ok(done) => report.merge(done),
                Err(error) => report.error(format_args!("ERROR: cannot run the scheduled actions: {}", chain(&error))),
            }
        }
        // Who makes room does so at once.
        if !matches!(spoken, Err(SessionError::DrivenOut)) {
            self.connection.shutdown().await;
        }
        // A database that failed may have left an intent: what was received is not recorded then.
        if let (Some(peer), true) = (&self.peer, spoken.is_err() || ended.is_err()) {
            tokio::spawn(recover::retry(Arc::clone(&peer.node), self.holder));
        }
        (report, spoken.and_then(|_| Ok(ended?)))
    }

    /// Carries out commands until the session ends.
    async fn converse(&mut self) -> Result<Flow, SessionError> {
        loop {
            if let Some(flow) = self.turn().await? {
                return Ok(flow);
            }
        }
    }

    /// Carries out one command. Some: the session ends with it; [`Flow::Continue`] when the peer closed the connection while
    /// it might have gone on.
    async fn turn(&mut self) -> Result<Option<Flow>, SessionError> {
        // A file is in hand until its attributes have come.
        let stop = if self.receiver.is_at_a_file() { CancellationToken::new() } else { self.stop.clone() };
        let next = stop.run_until_cancelled(next(&mut self.connection));
        let next = match self.peer {
            Some(ref peer) => self.receiver.meanwhile(peer, next).await?,
            None => in_time(self.visitor.as_ref(), self.patience, next).await?,
        };
        let Some(request) = next.ok_or(SessionError::Stopped)?? else { return Ok(Some(Flow::Continue)) };
        match request {
            Ok(request) => {
                if self.execute(request).await? == Flow::Close {
                    return Ok(Some(Flow::Close));
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
        Ok(None)
    }

    async fn execute(&mut self, request: Request) -> Result<Flow, SessionError> {
        let reply = match request {
            Request::Bye => {
                self.settle().await?;
                self.answer(&Reply::CuLater).await?;
                return Ok(Flow::Close);
            }
            Request::Group { .. } if self.groups.is_some() => Reply::GroupListAlreadySet,
            Request::Group { names } => {
                self.groups = Some(names);
                self.restrict().await?;
                Reply::CmdFinished
            }
            Request::Hello { name } => match self.hello(&name.to_lowercase()).await? {
                Ok(()) => Reply::CmdFinished,
                Err(Unwelcome::Refused(reply)) => reply,
                Err(Unwelcome::TooMany) => {
                    self.answer(&Reply::Text("Too many sessions at once, try again later.".to_owned())).await?;
                    return Ok(Flow::Close);
                }
            },
            Request::AtomicDialect => {
                self.unit = Some(MtimeUnit::Nanoseconds);
                self.reads_on = true;
                self.identify_first()
            }
            Request::BatchDialect { lowest, highest } => match self.version(lowest, highest) {
                Some(version) => Reply::Batch { version },
                None => Reply::UnknownCommand,
            },
            Request::Batch { version } if self.version(version, version).is_some() => match self.peer.clone() {
                None => self.identify_first(),
                Some(peer) => {
                    self.settle().await?;
                    self.answer(&Reply::Batch { version }).await?;
                    batch::serve(&mut self.connection, &peer, &self.stop).await?;
                    return Ok(Flow::Continue);
                }
            },
            Request::Batch { .. } | Request::Ssl | Request::Config { .. } => Reply::UnknownCommand,
            command => match self.peer.clone() {
                None => self.identify_first(),
                Some(peer) => return self.serve(&peer, command).await,
            },
        };
        self.answer(&reply).await?;
        Ok(Flow::Continue)
    }

    /// An answer with its reason, for those that read on. Others get the bare text that they know.
    fn explained(&self, reply: Reply, reason: impl FnOnce() -> String) -> Reply {
        if self.reads_on { reply.because(&reason()) } else { reply }
    }

    /// The highest version of the batch dialect within these bounds that is spoken here.
    fn version(&self, lowest: u32, highest: u32) -> Option<u32> {
        let ours = VERSIONS.0.max(lowest)..=VERSIONS.1.min(highest);
        (self.known.config.batches && !ours.is_empty()).then_some(*ours.end())
    }

    fn identify_first(&self) -> Reply {
        Reply::IdentifyFirst { address: self.connection.peer_name().to_owned() }
    }

    /// Lets the peer speak under a name, if it may. A failed HELLO drops the earlier identity.
    async fn hello(&mut self, name: &str) -> Result<Result<(), Unwelcome>, SessionError> {
        self.settle().await?;
        self.wishes = Wishes::default();
        if self.peer.take().is_some() {
            self.patience = Instant::now() + self.known.config.handshake_timeout;
        }
        let (visitor, begun) = (self.visitor.take(), Instant::now());
        let identified = unless_driven_out(visitor.as_ref(), Box::pin(self.identify(name))).await??;
        self.visitor = visitor;
        // The time that we take is not the peer's.
        self.patience += begun.elapsed();
        let served = match identified {
            Ok(served) => served,
            Err(reply) => return Ok(Err(Unwelcome::Refused(reply))),
        };
        if let Some(visitor) = &mut self.visitor
            && let Err(TooMany) = visitor.be_seated(name).await
        {
            tracing::warn!("{name}: refused, it has as many sessions as one peer may have (max-sessions-per-peer).");
            return Ok(Err(Unwelcome::TooMany));
        }
        let node = self.in_groups(&served);
        self.peer = Some(Arc::new(self.peer_called(name, node)));
        self.served = Some(served);
        Ok(Ok(()))
    }

    /// Who may speak under a name: who comes from one of its addresses, with the certificate that is pinned for it, over
    /// TLS unless the configuration says otherwise. The inner error is the answer.
    async fn identify(&mut self, name: &str) -> Result<Result<Arc<Node>, Reply>, SessionError> {
        // Names that nobody here has may take long to look up: they wait for each other, and for nobody else.
        let is_known = membership::pairs(&self.known.config).iter().any(|(_, peer)| peer == name);
        let registry = Arc::clone(&self.registry);
        let _turn = if is_known { None } else { registry.unknown_names().acquire().await.ok() };
        if !peer::resolves_to(name, self.address).await {
            return Ok(Err(self.explained(Reply::IdentificationFailed, || {
                format!("{name} does not resolve here to {}.", self.connection.peer_name())
            })));
        }
        let config = &self.known.config;
        if !self.connection.is_tls() && !config.plain_allowed(&config.my_name, name) {
            tracing::warn!("{name}: SSL encrypted connection expected! No nossl entry allows a plain one.");
            return Ok(Err(Reply::SslExpected));
        }
        let served = self.registry.serve(&self.config_name, &self.known).await?;
        if self.connection.is_tls() {
            if let Err(reason) = peer::check_certificate(&served, name, self.connection.peer_chain()).await? {
                return Ok(Err(self.explained(Reply::IdentificationFailed, || reason)));
            }
            // It works, or there would be no TLS; but it may be weak.
            drop(served.identity().await);
        }
        Ok(Ok(served))
    }

    /// Lets GROUP take effect for a peer that has said HELLO already.
    async fn restrict(&mut self) -> Result<(), SessionError> {
        if let Some(peer) = self.peer.clone() {
            self.settle().await?;
            self.peer = Some(Arc::new(self.peer_called(&peer.name, self.in_groups(&peer.node))));
        }
        Ok(())
    }

    fn peer_called(&self, name: &str, node: Arc<Node>) -> Peer {
        Peer {
            name: name.to_owned(),
            node,
            reads_on: self.reads_on,
            holder: self.holder.clone(),
            jobs: Arc::clone(&self.jobs),
        }
    }

    fn in_groups(&self, node: &Arc<Node>) -> Arc<Node> {
        match &self.groups {
            None => Arc::clone(node),
            Some(groups) => Arc::new(node.with_config(node.config.select_groups(groups))),
        }
    }

    /// Ends what the peer has begun, before it goes or takes another name.
    async fn settle(&mut self) -> Result<(), EngineError> {
        if let Some(peer) = &self.peer {
            self.receiver.settle(peer, None).await?;
            self.receiver.record(peer).await?;
        }
        Ok(())
    }

    /// The end of a session that broke off: a file whose attributes were still to come stays as it was.
    async fn break_off(&mut self) -> Result<(), EngineError> {
        if let Some(peer) = &self.peer {
            self.receiver.drop_unfinished(peer).await?;
        }
        self.settle().await
    }
}
