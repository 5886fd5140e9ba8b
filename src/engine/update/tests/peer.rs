//! A peer made for tests: it has names without contents, accepts everything, and remembers what it was told. A script
//! can make it refuse, misbehave or hang up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, duplex};

use crate::delta;
use crate::wire::{Connection, OctetHeader, Reply, Request, Timeouts, WireError};

/// What the peer does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// As its files say.
    Normally,
    /// Nothing is done; these lines are the answer.
    Say(String),
}

type Script = Box<dyn FnMut(&str, &str) -> Act + Send>;

/// What a peer has and heard.
pub(super) struct Peer {
    /// Names as `%d%/a`.
    pub(super) names: BTreeSet<String>,
    /// Command and name of every request, in order; a delta counts as `DELTA`, one that could not be made as `NO-DELTA`.
    pub(super) heard: Vec<String>,
    /// Asked about each request by command and name.
    pub(super) script: Script,
    /// The description of names that are there from the start.
    pub(super) checktxt: String,
    pub(super) signature: Vec<u8>,
    /// The answer before which it hangs up, and how much of that it still sends.
    pub(super) cut: Option<(usize, Cut)>,
    /// How long the client waits for it.
    pub(super) patience: Duration,
    answers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Before,
    InTheMiddle,
}

pub(super) type Shared = Arc<Mutex<Peer>>;

impl Peer {
    pub(super) fn new(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            heard: Vec::new(),
            script: Box::new(|_, _| Act::Normally),
            checktxt: "v1:type=other".to_owned(),
            signature: delta::MISSING_BASIS.to_vec(),
            cut: None,
            patience: Timeouts::default().idle,
            answers: 0,
        }
    }

    pub(super) fn scripted(mut self, script: impl FnMut(&str, &str) -> Act + Send + 'static) -> Self {
        self.script = Box::new(script);
        self
    }

    /// Serves one session; returns the client's end of the connection.
    pub(super) fn serve(self) -> (Shared, Connection) {
        // Small, so that a client that does not read while it writes is found out.
        let (ours, theirs) = duplex(2_000);
        let timeouts = Timeouts { idle: self.patience, ..Timeouts::default() };
        let shared = Arc::new(Mutex::new(self));
        let peer = Arc::clone(&shared);
        tokio::spawn(async move {
            // The client's own outcome is what the tests look at.
            let _ = serve(peer, theirs).await;
        });
        (shared, Connection::new(ours, None, timeouts))
    }

    fn has_parent(&self, name: &str) -> bool {
        name.rfind('/').is_none_or(|slash| self.names.contains(&name[..slash]))
    }

    fn has_children(&self, name: &str) -> bool {
        self.names.iter().any(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
    }

    fn answer(&mut self, command: &str, name: &str) -> Vec<u8> {
        self.heard.push(format!("{command} {name}"));
        match (self.script)(command, name) {
            Act::Say(lines) => return lines.into_bytes(),
            Act::Normally => {}
        }
        let known = self.names.contains(name);
        let line = |reply: Reply| reply.encode();
        match command {
            "HELLO" | "FLUSH" => line(Reply::CmdFinished),
            "BYE" => line(Reply::CuLater),
            _ if !self.has_parent(name) => line(Reply::ParentDirMissing),
            "SIG" if known => {
                let start = format!("OK (data_follows).\n{}\noctet-stream {}\n", self.checktxt, self.signature.len());
                [start.as_bytes(), &self.signature, &line(Reply::CmdFinished)].concat()
            }
            "SIG" => b"OK (path_not_found).\n---\noctet-stream 0\nOK (cmd_finished).\n".to_vec(),
            "GETTM" | "GETSZ" => b"OK (data_follows).\n50\n".to_vec(),
            "DEL" if self.has_children(name) => line(Reply::Text("Directory not empty".to_owned())),
            "DEL" => {
                self.names.remove(name);
                line(Reply::CmdFinished)
            }
            "PATCH" | "ATOMICPATCH" => {
                let header = OctetHeader::Length(delta::MISSING_BASIS.len() as u64).encode();
                [&line(Reply::SendData)[..], &header, &delta::MISSING_BASIS].concat()
            }
            "NO-DELTA" => line(Reply::Text("Input/output error".to_owned())),
            "SETOWN" | "SETMOD" | "SETIME" if known => line(Reply::CmdFinished),
            "SETOWN" | "SETMOD" | "SETIME" => line(Reply::Text("No such file or directory".to_owned())),
            // DELTA and whatever makes a file.
            _ => {
                self.names.insert(name.to_owned());
                line(Reply::CmdFinished)
            }
        }
    }

    /// The answer as far as it is sent, and whether the session goes on.
    fn cut(&mut self, mut answer: Vec<u8>) -> (Vec<u8>, bool) {
        self.answers += 1;
        match self.cut {
            Some((at, cut)) if at < self.answers => {
                answer.truncate(if cut == Cut::Before { 0 } else { answer.len() / 2 });
                (answer, false)
            }
            _ => (answer, true),
        }
    }
}

/// The name a request is about.
fn name_of(request: &Request) -> String {
    let line = request.encode();
    let mut words = line.split(u8::is_ascii_whitespace);
    let field = match request {
        Request::Hello { .. } => words.nth(1),
        _ => words.nth(2),
    };
    let name = crate::model::encoding::decode(field.unwrap_or_default());
    String::from_utf8_lossy(&name).into_owned()
}

/// One session.
pub(super) async fn serve(peer: Shared, stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<(), WireError> {
    let mut connection = Connection::new(stream, None, Timeouts::default());
    while let Some(line) = connection.read_line().await? {
        let request = Request::parse(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let name = name_of(&request);
        let accepts = step(&peer, &mut connection, request.command(), &name).await?;
        if accepts && matches!(request, Request::Patch { .. } | Request::AtomicPatch { .. }) {
            // A command in place of the delta is an error here, and the connection ends.
            let delta = match connection.read_octet_header().await? {
                OctetHeader::Length(length) => {
                    connection.read_body(length, &mut |_: &[u8]| Ok(())).await?.expect("the sink takes everything");
                    "DELTA"
                }
                OctetHeader::Failed => "NO-DELTA",
            };
            step(&peer, &mut connection, delta, &name).await?;
        }
        if request == Request::Bye {
            break;
        }
    }
    Ok(())
}

/// Answers; says whether the answer was `OK (send_data).`.
async fn step(peer: &Shared, connection: &mut Connection, command: &str, name: &str) -> Result<bool, WireError> {
    let (answer, goes_on) = {
        let mut peer = peer.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = peer.answer(command, name);
        peer.cut(answer)
    };
    connection.write(&answer).await?;
    connection.flush().await?;
    if goes_on { Ok(answer.starts_with(b"OK (send_data)")) } else { Err(WireError::Closed) }
}
