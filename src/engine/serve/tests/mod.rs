//! Sessions played against the real server, on a scratch tree and an SQLite database.
//!
//! The peer is called `localhost`, since HELLO looks its name up.

mod batch;
mod commands;
mod dialect;
mod hostile;
mod receiving;
mod recording;
mod recovery;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::session;
use crate::engine::check::{self, CheckOptions, Marks};
use crate::engine::open::NodeSettings;
use crate::engine::selection::Target;
use crate::engine::{Node, Report};
use crate::model::{Scope, SyncPath};
use crate::store::DirtyFilter;
use crate::wire::{Connection, Timeouts};

pub(super) const KEY: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCD";
pub(super) const OK: &str = "OK (cmd_finished).";

/// A host `server` whose prefix `d` is the directory `d` of a scratch directory.
pub(super) struct Story {
    directory: tempfile::TempDir,
    registry: Arc<Registry>,
}

impl Story {
    pub(super) fn begin() -> Self {
        Self::with("")
    }

    /// `more` stands in the group; `DIR` in it is the scratch directory.
    pub(super) fn with(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["d", "db", "out"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let dir = directory.path().to_str().unwrap();
        fs::write(directory.path().join("key"), KEY).unwrap();
        let config = format!(
            "nossl * *;\nprefix d {{ on *: {dir}/d; }}\nprefix o {{ on *: {dir}/out; }}\n\
             group g {{ host localhost server third; key {dir}/key; include %d%; exclude %d%/no; {} }}\n",
            more.replace("DIR", dir)
        );
        fs::write(directory.path().join("csync2.cfg"), config).unwrap();
        let settings = NodeSettings {
            system_dir: directory.path().to_owned(),
            config_name: String::new(),
            my_name: "server".to_owned(),
            bind: None,
            auto_name: false,
            port: 0,
            groups: None,
            database: Some(format!("{dir}/db")),
            asynchronous: true,
            no_batches: false,
            no_legacy_tls: false,
            read_only: false,
        };
        Self { directory, registry: Arc::new(Registry::new(settings)) }
    }

    /// As after a restart of the process.
    pub(super) fn restart(&mut self) {
        self.registry = Arc::new(Registry::new(self.registry.settings().clone()));
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `d/NAME`.
    pub(super) fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path("d").join(name).parent().unwrap()).unwrap();
        fs::write(self.path("d").join(name), content).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path("d").join(name)).unwrap()
    }

    /// The names in `d`, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("d")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) async fn served(&self) -> Arc<Node> {
        let known = self.registry.config("").await.unwrap();
        self.registry.serve("", &known).await.unwrap()
    }

    /// `-cIr /`, or `-cr /`.
    pub(super) async fn check(&self, init: bool) {
        let marks = if init { Marks::Nothing } else { Marks::Everything };
        let options = CheckOptions { marks, ..CheckOptions::default() };
        let real = self.path("d").canonicalize().unwrap().into_os_string().into_encoded_bytes();
        check::check(
            &self.served().await,
            &[Target { real, recursive: true }],
            options,
            None,
            &Arc::default(),
            &CancellationToken::new(),
        )
        .await
        .unwrap();
    }

    /// The peers that a file is dirty for.
    pub(super) async fn dirty(&self, name: &str) -> Vec<String> {
        let scopes = vec![Scope::File(path(name))];
        let filter = DirtyFilter { peer: None, scopes };
        let entries = self.served().await.store.dirty(filter).await.unwrap();
        entries.into_iter().map(|entry| entry.peer.to_string()).collect()
    }

    /// The checktxt that is known of a file.
    pub(super) async fn row(&self, name: &str) -> Option<String> {
        let record = self.served().await.store.file(&path(name)).await.unwrap();
        record.map(|record| record.checktxt.to_string())
    }

    pub(super) async fn intents(&self) -> usize {
        self.served().await.store.intents().await.unwrap().len()
    }

    pub(super) fn connect(&self) -> Client {
        self.connect_with(Timeouts::default())
    }

    pub(super) fn connect_with(&self, timeouts: Timeouts) -> Client {
        let (ours, theirs) = duplex(1 << 16);
        let connection = Connection::new(theirs, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), timeouts);
        let server = tokio::spawn(session::run(Arc::clone(&self.registry), connection, None, CancellationToken::new()));
        Client { stream: BufReader::new(ours), server }
    }

    /// A session after HELLO.
    pub(super) async fn greet(&self) -> Client {
        let mut client = self.connect();
        client.ask("CONFIG ", OK).await;
        client.ask("HELLO localhost", OK).await;
        client
    }

    /// Plays one session after HELLO: each request with the answer it must get.
    pub(super) async fn play(&self, lines: &[(&str, &str)]) {
        let mut client = self.greet().await;
        for (request, answer) in lines {
            client.ask(request, answer).await;
        }
        client.bye().await;
    }
}

pub(super) fn path(name: &str) -> SyncPath {
    SyncPath::parse(format!("%d%/{name}").as_bytes()).unwrap()
}

/// The peer's end of a session. `KEY` in what it sends is the group's key, `@` stands for the prefix.
pub(super) struct Client {
    stream: BufReader<DuplexStream>,
    server: JoinHandle<Report>,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// As far as the server still reads.
    pub(super) async fn send_what_is_taken(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(super) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer in time").unwrap();
        line.pop();
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Sends a line and returns the first line of the answer.
    pub(super) async fn answer(&mut self, request: &str) -> String {
        self.send(format!("{}\n", fill_in(request)).as_bytes()).await;
        self.line().await
    }

    pub(super) async fn ask(&mut self, request: &str, answer: &str) {
        assert_eq!(self.answer(request).await, answer, "answer to {request}");
    }

    pub(super) async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line().await, *line);
        }
    }

    /// Reads `length` raw bytes.
    pub(super) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// PATCH up to the point where the delta is due.
    pub(super) async fn start_patch(&mut self, request: &str) {
        self.ask(request, "OK (send_data).").await;
        let header = self.line().await;
        let length = header.strip_prefix("octet-stream ").unwrap().parse().unwrap();
        self.bytes(length).await;
    }

    pub(super) async fn send_delta(&mut self, delta: &[u8]) -> String {
        self.send(format!("octet-stream {}\n", delta.len()).as_bytes()).await;
        self.send(delta).await;
        self.line().await
    }

    /// A whole PATCH of `@/NAME`.
    pub(super) async fn patch(&mut self, name: &str, content: &str) {
        self.start_patch(&format!("PATCH KEY @/{name}")).await;
        assert_eq!(self.send_delta(&literal(content)).await, OK);
    }

    /// Everything until the server closes.
    pub(super) async fn rest(self) -> String {
        let Self { mut stream, server } = self;
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an end in time").unwrap();
        drop(stream);
        server.await.unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    pub(super) async fn bye(mut self) {
        self.ask("BYE", "OK (cu_later).").await;
        assert_eq!(self.rest().await, "");
    }

    /// The connection breaks; returns when the server has noticed.
    pub(super) async fn vanish(self) {
        drop(self.stream);
        self.server.await.unwrap();
    }
}

pub(super) fn fill_in(text: &str) -> String {
    text.replace("KEY", KEY).replace('@', "%25d%25")
}

/// A delta that makes `content` (1 to 64 bytes) out of nothing.
pub(super) fn literal(content: &str) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!((1..=64).contains(&length));
    [&b"rs\x026"[..], &[length], content.as_bytes(), b"\0"].concat()
}
