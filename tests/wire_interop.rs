//! TLS with the C program, in both directions, with every kind of certificate found in the field.
//!
//! Needs `/usr/sbin/csync2` (the C program) and `openssl`; fails where they are missing. All hosts are addresses of the
//! loopback network, so that no name has to be known to the machine.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

use csync2::wire::{Connection, Identity, Listener, Reply, Request, Timeouts, TlsError, WireError, dial};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const OURS: &str = "127.0.4.1";
const THEIRS: &str = "127.0.4.2";
const KINDS: [Kind; 7] =
    [Kind::Rsa2048, Kind::Rsa2048V1, Kind::Rsa1024V1, Kind::P256, Kind::P384, Kind::Ed25519, Kind::Expired];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa2048,
    Rsa2048V1,
    Rsa1024V1,
    P256,
    P384,
    Ed25519,
    Expired,
}

/// The system directory of one host, with its certificate, its configuration and its database.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new(kind: Kind) -> Self {
        Self::with_pair(&fresh_pair(kind))
    }

    fn with_pair((certificate, key): &Pair) -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::write(host.path("key"), "A".repeat(64) + "\n").unwrap();
        let configuration = format!(
            "group test {{ host {OURS} {THEIRS}; key {}; include {}; }}\n",
            host.path("key").display(),
            host.path("data").display()
        );
        std::fs::write(host.path("csync2.cfg"), configuration).unwrap();
        std::fs::create_dir(host.path("data")).unwrap();
        std::fs::write(host.path("csync2_ssl_cert.pem"), certificate).unwrap();
        std::fs::write(host.path("csync2_ssl_key.pem"), key).unwrap();
        host
    }

    /// The two hosts of a session. Making keys takes its time: those of a kind are made once for each side.
    fn both(ours: Kind, theirs: Kind) -> (Self, Self) {
        static PAIRS: [[OnceLock<Pair>; 7]; 2] = [const { [const { OnceLock::new() }; 7] }; 2];
        let host =
            |side: usize, kind: Kind| Self::with_pair(PAIRS[side][kind as usize].get_or_init(|| fresh_pair(kind)));
        (host(0, ours), host(1, theirs))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn identity(&self) -> Identity {
        let file = |name: &str| self.directory.path().join(name);
        Identity::load(&file("csync2_ssl_cert.pem"), &file("csync2_ssl_key.pem"), true).unwrap()
    }

    /// The C program as this host.
    fn csync2(&self, port: u16, tls: Tls) -> Command {
        let mut command = Command::new("timeout");
        command.args(["60", "/usr/sbin/csync2", "-N", THEIRS, "-v", "-p", &port.to_string(), "-D"]);
        command.arg(self.directory.path()).env("CSYNC2_SYSTEM_DIR", self.directory.path());
        if tls == Tls::Only12 {
            let priorities = self.path("gnutls.conf");
            std::fs::write(&priorities, "[overrides]\ndisabled-version = tls1.3\n").unwrap();
            command.env("GNUTLS_SYSTEM_PRIORITY_FILE", priorities);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A certificate and its key, as PEM.
type Pair = (Vec<u8>, Vec<u8>);

fn fresh_pair(kind: Kind) -> Pair {
    let directory = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(directory.path()).output();
        let output = run.expect("openssl is needed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (key, certificate) = ("csync2_ssl_key.pem", "csync2_ssl_cert.pem");
    openssl(&match kind {
        Kind::Rsa1024V1 => format!("genrsa -traditional -out {key} 1024"),
        Kind::Rsa2048V1 => format!("genrsa -traditional -out {key} 2048"),
        Kind::Rsa2048 | Kind::Expired => format!("genrsa -out {key} 2048"),
        Kind::P256 => format!("ecparam -genkey -name prime256v1 -out {key}"),
        Kind::P384 => format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out {key}"),
        Kind::Ed25519 => format!("genpkey -algorithm ed25519 -out {key}"),
    });
    match kind {
        Kind::Rsa2048 | Kind::P256 | Kind::P384 | Kind::Ed25519 => {
            openssl(&format!("req -x509 -new -key {key} -days 1000 -subj /CN={kind:?} -out {certificate}"));
        }
        // A request that is signed without extensions becomes a certificate of version 1.
        Kind::Rsa2048V1 | Kind::Rsa1024V1 | Kind::Expired => {
            let days = if kind == Kind::Expired { -1 } else { 1000 };
            openssl(&format!("req -new -key {key} -subj /CN={kind:?} -out request"));
            openssl(&format!("x509 -req -days {days} -in request -signkey {key} -out {certificate}"));
        }
    }
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    (read(certificate), read(key))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Any,
    Only12,
}

/// A C program that serves one connection.
struct Server {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(host: &Host, port: u16, tls: Tls) -> Self {
        let mut child = host.csync2(port, tls).arg("-iii").spawn().expect("the C program is needed");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.starts_with("Listening on"), "{line}");
        Self { child, log }
    }

    /// Connects to it. It says that it listens before it does: refusals at the start mean nothing.
    async fn dial(&self, port: u16) -> Connection {
        let patient = async {
            loop {
                match dial(THEIRS, port, Some(OURS), &Timeouts::default()).await {
                    Ok(connection) => return connection,
                    Err(WireError::Unreachable { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(Timeouts::default().connect, patient).await.expect("the C program listens")
    }

    /// Its exit code and what it logged.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

/// A test that fails leaves nothing running.
impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // By TERM, which `timeout` passes on.
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((THEIRS, 0)).unwrap().local_addr().unwrap().port()
}

async fn ask(connection: &mut Connection, request: Request) -> Reply {
    connection.write_line(&request.encode()).await.unwrap();
    Reply::parse(&connection.read_line().await.unwrap().expect("an answer"))
}

/// A session of ours with the C program's server.
async fn visit(ours: Kind, theirs: Kind, tls: Tls) {
    let (us, them) = Host::both(ours, theirs);
    let port = free_port();
    let server = Server::start(&them, port, tls);
    let mut connection = server.dial(port).await;
    assert_eq!(ask(&mut connection, Request::Ssl).await, Reply::ActivatingSsl);
    let mut connection = connection.start_tls_client(&us.identity()).await.unwrap();
    assert_eq!(connection.peer_chain()[0].as_ref(), them.identity().certificate());
    assert_eq!(ask(&mut connection, Request::Config { name: Vec::new() }).await, Reply::CmdFinished);
    assert_eq!(ask(&mut connection, Request::Hello { name: OURS.to_owned() }).await, Reply::CmdFinished);
    assert_eq!(ask(&mut connection, Request::Bye).await, Reply::CuLater);
    // It closes without the goodbye of TLS, and that is an orderly end.
    assert_eq!(connection.read_line().await.unwrap(), None);
    connection.finish().await;
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{ours:?} to {theirs:?}: {log}");
}

#[tokio::test]
async fn our_client_talks_to_the_c_server() {
    for kind in KINDS {
        visit(kind, kind, Tls::Any).await;
        visit(kind, Kind::Rsa2048, Tls::Only12).await;
        visit(Kind::P256, kind, Tls::Only12).await;
    }
}

/// Answers one client as a server without any files; returns what it asked for.
async fn serve(listener: &Listener, identity: &Identity) -> Result<(Connection, Vec<Request>), WireError> {
    let (mut connection, _) = listener.accept().await?;
    let mut asked = Vec::new();
    while let Some(line) = connection.read_line().await? {
        let request = Request::parse(&line).unwrap();
        let reply = match request {
            Request::Ssl => Reply::ActivatingSsl,
            Request::Bye => Reply::CuLater,
            _ => Reply::CmdFinished,
        };
        connection.write_line(&reply.encode()).await?;
        if request == Request::Ssl {
            connection = connection.start_tls_server(identity).await?;
        }
        asked.push(request);
        if asked.last() == Some(&Request::Bye) {
            break;
        }
    }
    Ok((connection, asked))
}

/// A session of the C program's client, which compares its empty database with ours.
async fn be_visited(ours: Kind, theirs: Kind, tls: Tls) {
    let (us, them) = Host::both(ours, theirs);
    let listener = Listener::bind(Some(OURS), 0, Timeouts::default()).await.unwrap();
    let mut client = them.csync2(listener.local_address().port(), tls);
    client.args(["-T", THEIRS, OURS]);
    let client = tokio::task::spawn_blocking(move || client.output().expect("the C program is needed"));
    let served = serve(&listener, &us.identity()).await;
    let Ok((connection, asked)) = served else {
        let log = client.await.unwrap().stderr;
        panic!("{ours:?} by {theirs:?} {tls:?}: {served:?} {}", String::from_utf8_lossy(&log));
    };
    assert_eq!(connection.peer_chain()[0].as_ref(), them.identity().certificate());
    assert_eq!(connection.peer_address(), Some(THEIRS.parse().unwrap()));
    connection.shutdown().await;
    let commands: Vec<_> = asked.iter().map(Request::command).collect();
    assert_eq!(commands, ["SSL", "CONFIG", "HELLO", "LIST", "BYE"]);
    assert_eq!(asked[1], Request::Config { name: Vec::new() });
    assert_eq!(asked[2], Request::Hello { name: THEIRS.to_owned() });
    let Output { status, stderr, .. } = client.await.unwrap();
    assert_eq!(status.code(), Some(2), "{ours:?} by {theirs:?}: {}", String::from_utf8_lossy(&stderr));
}

#[tokio::test]
async fn the_c_client_talks_to_our_server() {
    for kind in KINDS {
        be_visited(kind, kind, Tls::Any).await;
        be_visited(kind, Kind::Rsa2048, Tls::Only12).await;
        be_visited(Kind::P256, kind, Tls::Only12).await;
    }
}

/// Two ends of a TCP connection, ours both.
async fn pair() -> (Connection, Connection) {
    let listener = Listener::bind(Some(OURS), 0, Timeouts::default()).await.unwrap();
    let (port, timeouts) = (listener.local_address().port(), Timeouts::default());
    let (client, server) = tokio::join!(dial(OURS, port, None, &timeouts), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// Sends a line, and what arrives of it.
async fn pass(from: &mut Connection, to: &mut Connection, line: &[u8]) -> Vec<u8> {
    from.write_line(line).await.unwrap();
    from.flush().await.unwrap();
    to.read_line().await.unwrap().expect("a line")
}

#[tokio::test]
async fn both_ends_may_be_ours() {
    for (client_kind, server_kind) in KINDS.into_iter().zip(KINDS.into_iter().rev()) {
        let (client_host, server_host) = Host::both(client_kind, server_kind);
        let (client, server) = pair().await;
        let (client_identity, server_identity) = (client_host.identity(), server_host.identity());
        let (client, server) =
            tokio::join!(client.start_tls_client(&client_identity), server.start_tls_server(&server_identity));
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.peer_chain()[0].as_ref(), server_identity.certificate());
        assert_eq!(server.peer_chain()[0].as_ref(), client_identity.certificate());
        assert_eq!(pass(&mut client, &mut server, b"BYE").await, b"BYE");
        tokio::join!(client.finish(), server.shutdown());
    }
}

/// As under inetd: the session comes over descriptors that may be shared.
#[tokio::test]
async fn an_inherited_socket_carries_tls_and_what_is_cut_off_is_noticed() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let input = ours.try_clone().unwrap();
    let server = Connection::over_descriptors(input.into(), ours.into(), None, Timeouts::default()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let client = tokio::net::UnixStream::from_std(theirs).unwrap();
    let client = Connection::new(client, None, Timeouts::default());
    let identity = Host::new(Kind::P256).identity();
    let (client, server) = tokio::join!(client.start_tls_client(&identity), server.start_tls_server(&identity));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert_eq!(pass(&mut client, &mut server, b"HELLO").await, b"HELLO");
    client.write(b"DEL key /half").await.unwrap();
    client.flush().await.unwrap();
    // Neither side says goodbye: the line could have gone on.
    drop(client);
    assert!(matches!(server.read_line().await, Err(WireError::Closed)));
}

#[tokio::test]
async fn nothing_in_the_clear_gets_into_the_tls_session() {
    let host = Host::new(Kind::P256);
    let (mut client, mut server) = pair().await;
    client.write(b"SSL\nCONFIG \nHELLO evil\n").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read_line().await.unwrap(), Some(b"SSL".to_vec()));
    let refused = server.start_tls_server(&host.identity()).await;
    assert!(matches!(refused, Err(WireError::Tls(TlsError::PlaintextBeforeHandshake))));

    let (mut client, mut server) = pair().await;
    server.write(b"OK (activating_ssl).\nOK (cmd_finished).\n").await.unwrap();
    server.flush().await.unwrap();
    client.read_line().await.unwrap();
    let refused = client.start_tls_client(&host.identity()).await;
    assert!(matches!(refused, Err(WireError::Tls(TlsError::PlaintextBeforeHandshake))));
}

/// Any server will do: these clients try to get past ours.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What our server says to a client with this certificate and key.
async fn intrude(
    certificate_and_key: Option<(&Path, &Path)>,
    version: &'static rustls::SupportedProtocolVersion,
) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let configuration = match certificate_and_key {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            let key = provider.key_provider.load_private_key(PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
            let pair = rustls::sign::CertifiedKey::new(chain, key);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)))
        }
    };
    let listener = Listener::bind(Some(OURS), 0, Timeouts::default()).await.unwrap();
    let address = listener.local_address();
    let client = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(configuration));
        // In TLS 1.3 the client's handshake ends before the server has judged it.
        drop(connector.connect(address.ip().into(), stream).await);
    };
    let identity = Host::new(Kind::P256).identity();
    let server = async { listener.accept().await.unwrap().0.start_tls_server(&identity).await };
    let ((), outcome) = tokio::join!(client, server);
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn a_client_must_show_a_certificate_and_hold_its_key() {
    let (victim, thief) = (Host::new(Kind::P256), Host::new(Kind::P256));
    let stolen = victim.path("csync2_ssl_cert.pem");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let said = intrude(None, version).await;
        assert!(said.contains("peer sent no certificates"), "{said}");
        let said = intrude(Some((&stolen, &thief.path("csync2_ssl_key.pem"))), version).await;
        assert!(said.contains("BadSignature"), "{said}");
    }
}
