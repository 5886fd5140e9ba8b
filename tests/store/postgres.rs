//! What is peculiar to PostgreSQL: getting there, being let in, losing the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use csync2::model::Scope;
use csync2::store::{ErrorKind, Location, Store, StoreError, StoreOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use crate::bench::{Bench, change, dirty, files, mark, names, options, path};
use crate::both::{intent, receipt};
use crate::support::Postgres;

async fn open(url: &str) -> Result<Store, StoreError> {
    Store::open(&Location::resolve(Some(url), "1.csync2.test", "").unwrap(), &options()).await
}

/// An error with its causes, as a user sees it.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_socket_is_a_way_in() {
    let bench = Bench::postgres(None);
    let cluster = bench.cluster.as_ref().unwrap();
    let url = format!(
        "postgresql://csync2@:{}/{}?host={}&sslmode=verify-full",
        cluster.port(),
        bench.database(),
        cluster.socket_directory().display()
    );
    open(&url).await.unwrap().mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    assert_eq!(dirty(&bench.open().await).await.len(), 1, "the same database");
}

#[tokio::test]
async fn a_missing_database_is_made_as_it_is_spelled() {
    let bench = Bench::postgres(None);
    let cluster = bench.cluster.as_ref().unwrap();
    let name = format!("Mixed-{}", bench.database());
    open(&cluster.url(&name)).await.unwrap();
    let sql = format!(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = '{}'",
        name.replace('-', "_")
    );
    assert_eq!(cluster.sql("postgres", &sql), "UTF8|C|C");
    // Without a name it is called for the host.
    open(&format!("pgsql://csync2@127.0.0.1:{}", cluster.port())).await.unwrap();
    assert_eq!(cluster.sql("csync2_1_csync2_test", "SELECT count(*) FROM csync2_schema"), "1");
}

#[tokio::test]
async fn passwords_are_used_and_never_told() {
    // Not the cluster of the others: its rules are changed.
    let cluster = Postgres::start();
    cluster.sql("postgres", "CREATE ROLE \"us@er\" LOGIN PASSWORD 'se@cr:et'; CREATE ROLE poor LOGIN PASSWORD 'poor'");
    cluster.database("guarded", "OWNER \"us@er\"");
    cluster.prepend_hba("host all \"us@er\" 127.0.0.1/32 scram-sha-256\nhost all poor 127.0.0.1/32 md5");
    let place = format!("127.0.0.1:{}/guarded", cluster.port());
    let store = open(&format!("pgsql://us%40er:se%40cr:et@{place}")).await.unwrap();
    assert!(!format!("{store:?}").contains("se@cr:et"));

    let error = open(&format!("pgsql://us%40er:wrong-secret@{place}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let message = format!("{} {error:?}", told(&error));
    assert!(message.starts_with(&format!("Can't open database: pgsql://us@er@{place}: ")), "{message}");
    assert!(!message.contains("wrong-secret"), "{message}");
    assert_eq!(open(&format!("pgsql://us%40er@{place}")).await.unwrap_err().kind(), ErrorKind::Refused, "none");

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("127.0.0.1:{}:*:us@er:se@cr\\:et\n", cluster.port())).unwrap();
    let with_file = format!("pgsql://us%40er@{place}?passfile={}", file.path().display());
    open(&with_file).await.unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open(&with_file).await.is_err(), "others may read it");

    let error = open(&format!("pgsql://poor:poor@127.0.0.1:{}/none", cluster.port())).await.unwrap_err();
    let message = told(&error);
    assert!(message.contains("there is no database \"none\", and it cannot be created"), "{message}");
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let error = open("pgsql://user:secret@127.0.0.1:1/db").await.unwrap_err();
    assert_eq!(error.to_string(), "Can't open database: pgsql://user@127.0.0.1:1/db");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(told(&error).contains("refused"), "{}", told(&error));
    let error = open("pgsql://user@/db?host=/nonexistent").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for() {
    // It takes the connection and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("pgsql://user@{}/db?sslmode=disable", listener.local_addr().unwrap());
    let location = Location::resolve(Some(&url), "h", "").unwrap();
    let options = StoreOptions { lock_timeout: Duration::from_millis(50), ..options() };
    let error = Store::open(&location, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_named() {
    let bench = Bench::postgres(None);
    let store = bench.open().await;
    let cluster = bench.cluster.as_ref().unwrap();
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    // The server ends it in the middle of a transaction.
    bench.sql(
        "CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'; \
         CREATE TRIGGER stumble BEFORE INSERT ON action FOR EACH ROW EXECUTE PROCEDURE stumble();",
    );
    let mut change = change("/b", None, Some("v1:type=dir"));
    change.actions = vec![crate::bench::action("/b", "true")];
    let error = store.apply(vec![change.clone()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{}", told(&error));
    let message = error.to_string();
    assert_eq!(message, format!("record changed files in database {}: connection lost", bench.url));
    bench.sql("DROP TRIGGER stumble ON action");
    assert_eq!(names(&store, vec![Scope::All]).await, [], "nothing of it was kept");
    assert_eq!(store.apply(vec![change]).await.unwrap(), []);

    // All connections, while nobody uses them.
    cluster.terminate_connections(bench.database());
    store.mark(vec![mark("/c", "peer")], vec![]).await.unwrap();
    cluster.terminate_connections(bench.database());
    assert_eq!(names(&store, vec![Scope::All]).await, [path("/b")]);
    cluster.terminate_connections(bench.database());
    assert_eq!(dirty(&store).await.len(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error() {
    let bench = Bench::postgres(None);
    let store = bench.open().await;
    let changes = (0..40_000).map(|number| change(format!("/f{number}"), None, Some(&"x".repeat(500)))).collect();
    assert_eq!(store.apply(changes).await.unwrap(), []);
    let mut chunks = store.files(vec![Scope::All]);
    assert!(chunks.recv().await.unwrap().is_ok());
    bench.cluster.as_ref().unwrap().terminate_connections(bench.database());
    let mut last = None;
    while let Some(chunk) = chunks.recv().await {
        assert!(last.is_none(), "nothing follows an error");
        last = chunk.err();
    }
    assert_eq!(last.expect("not the whole tree").kind(), ErrorKind::ConnectionLost);
}

#[tokio::test]
async fn a_server_that_stops_is_waited_for_and_then_named() {
    let cluster = Postgres::start_with(&["synchronous_commit = on"]);
    let location = Location::resolve(Some(&cluster.url("db")), "1.csync2.test", "").unwrap();
    let options = StoreOptions { lock_timeout: Duration::from_millis(300), ..options() };
    let impatient = Store::open(&location, &options).await.unwrap();
    let patient = open(&cluster.url("db")).await.unwrap();
    patient.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    cluster.stop();
    let error = impatient.mark(vec![mark("/b", "peer")], vec![]).await.unwrap_err();
    assert!(error.to_string().contains("pgsql://csync2@127.0.0.1"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let error = open(&cluster.url("db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "one that was never there is not waited for");
    let waiting = patient.clone();
    let waiting = tokio::spawn(async move { waiting.mark(vec![mark("/c", "peer")], vec![]).await });
    let cluster = tokio::task::spawn_blocking(|| {
        cluster.start_again();
        cluster
    });
    let _cluster = cluster.await.unwrap();
    waiting.await.unwrap().unwrap();
    let marked: Vec<_> = dirty(&patient).await.into_iter().map(|entry| entry.path).collect();
    assert_eq!(marked, [path("/a"), path("/c")]);
}

/// Or files would count as being received as long as the process lives whose session has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_brings_no_ended_receive_back() {
    let cluster = Postgres::start_with(&["synchronous_commit = on"]);
    let store = open(&cluster.url("db")).await.unwrap();
    let ids = store.begin_receives(vec![intent("/a", None), intent("/b", None)]).await.unwrap();
    let receipts = ids.into_iter().map(Some).zip([receipt("/a", None), receipt("/b", None)]).collect();
    store.finish_receives(receipts).await.unwrap();
    cluster.restart("immediate");
    assert_eq!(store.intents().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_keeps_nothing() {
    let bench = Bench::postgres(None);
    let store = bench.open().await;
    bench.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN RAISE EXCEPTION ''could not extend file'' USING ERRCODE = ''53100''; END'; \
         CREATE TRIGGER full_disk BEFORE INSERT ON dirty FOR EACH ROW EXECUTE PROCEDURE full_disk();",
    );
    let mut change = change("/b", None, Some("v1:type=dir"));
    change.marks = vec![mark("/b", "peer")];
    let error = store.apply(vec![change]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(told(&error).contains("could not extend file"), "{}", told(&error));
    assert_eq!(names(&store, vec![Scope::All]).await, []);
}

#[tokio::test]
async fn locks_are_waited_for_no_longer_than_we_may() {
    let bench = Bench::postgres(None);
    let options = StoreOptions { lock_timeout: Duration::from_millis(50), ..options() };
    bench.open().await.close().await;
    let store = Store::open(&bench.location(), &options).await.unwrap();
    let (client, connection) =
        tokio_postgres::connect(&bench.url.replace("pgsql", "postgresql"), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE dirty IN EXCLUSIVE MODE").await.unwrap();
    let error = store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBusy, "{}", told(&error));
    client.batch_execute("COMMIT").await.unwrap();
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

/// As pg_dump does it.
#[tokio::test]
async fn a_limit_on_statements_is_for_others() {
    let bench = Bench::postgres(None);
    bench.open().await.close().await;
    bench.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER INSERT ON dirty FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    bench.sql(&format!("ALTER DATABASE {} SET statement_timeout = 150", bench.database()));
    let store = bench.open().await;
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    assert_eq!(dirty(&store).await.len(), 1);
}

#[tokio::test]
async fn streams_never_take_the_last_connection() {
    let bench = Bench::postgres(None);
    let options = StoreOptions { max_connections: 1, lock_timeout: Duration::from_millis(500), ..options() };
    bench.open().await.close().await;
    let store = Store::open(&bench.location(), &options).await.unwrap();
    let changes = (0..20_000).map(|number| change(format!("/f{number}"), None, Some(&"x".repeat(500)))).collect();
    store.apply(changes).await.unwrap();
    let mut first = store.files(vec![Scope::All]);
    let mut second = store.files(vec![Scope::All]);
    assert!(first.recv().await.unwrap().is_ok());
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    drop(first);
    assert!(second.recv().await.unwrap().is_ok(), "the second had to wait for the first");
}

#[tokio::test]
async fn tables_of_older_set_ups_are_widened() {
    let bench = Bench::postgres(Some(""));
    bench.sql(
        "CREATE TABLE file (filename varchar(255) NOT NULL, checktxt varchar(200) NOT NULL, UNIQUE (filename)); \
         CREATE TABLE dirty (filename varchar(200) NOT NULL, forced integer NOT NULL, myname varchar(100) NOT NULL, \
             peername varchar(100) NOT NULL, UNIQUE (filename, peername)); \
         CREATE TABLE hint (filename varchar(255) PRIMARY KEY, recursive integer NOT NULL); \
         CREATE TABLE action (filename varchar(255) NOT NULL, command text NOT NULL, logfile text NOT NULL); \
         CREATE UNIQUE INDEX action_once ON action (filename, command); \
         CREATE TABLE x509_cert (peername varchar(255) NOT NULL, certdata varchar(255) NOT NULL, UNIQUE (peername)); \
         INSERT INTO file VALUES ('/old%20', 'v1%3Atype=dir'); \
         INSERT INTO dirty VALUES ('/old%20', 0, 'me', 'peer'), ('/old%20', 1, 'me', 'other');",
    );
    let store = bench.open().await;
    assert_eq!(files(&store, vec![Scope::All]).await.len(), 1);
    let entries = dirty(&store).await;
    assert_eq!(entries.len(), 2);
    assert_ne!(entries[0].version, entries[1].version);
    store.pin("peer", &[1; 800]).await.unwrap();
    let long = format!("/{}", "long".repeat(500));
    assert_eq!(store.apply(vec![change(&long, None, Some(&long))]).await.unwrap(), []);
    store.mark(vec![mark(&long, "peer")], vec![]).await.unwrap();
    assert_eq!(store.clear(&entries).await.unwrap(), 2);
    assert_eq!(dirty(&store).await[0].path, path(&long));
}

/// A certificate of its own signature: PEM of certificate and key.
fn self_signed(common_name: &str) -> (String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// An authority's certificate, and one that it signed for 127.0.0.1 with its key.
fn signed() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

/// Tries every combination and compares the outcome.
async fn expect(cluster: &Postgres, cases: &[(&str, &str, Option<&std::path::Path>, bool)]) {
    for (host, mode, root, accepted) in cases {
        let root = root.map_or(String::new(), |root| format!("&sslrootcert={}", root.display()));
        let url = format!("pgsql://csync2:secret@{host}:{}/tls?sslmode={mode}{root}", cluster.port());
        match open(&url).await {
            Ok(_) => assert!(accepted, "{url} was accepted"),
            Err(error) => {
                assert!(!accepted, "{url}: {}", told(&error));
                assert_eq!(error.kind(), ErrorKind::Refused, "{url}: {}", told(&error));
                assert!(!told(&error).contains("secret"));
            }
        }
    }
}

#[tokio::test]
async fn tls_is_as_strict_as_its_mode() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let cluster = Postgres::start();
    expect(&cluster, &[("127.0.0.1", "prefer", None, true), ("127.0.0.1", "require", None, false)]).await;

    let (certificate, key) = self_signed("localhost");
    cluster.enable_tls(&certificate, &key);
    let own = file("own.pem", &certificate);
    let other = file("other.pem", &self_signed("localhost").0);
    expect(
        &cluster,
        &[
            ("127.0.0.1", "disable", None, true),
            ("127.0.0.1", "prefer", None, true),
            ("127.0.0.1", "require", None, true),
            ("127.0.0.1", "require", Some(&own), true),
            ("127.0.0.1", "require", Some(&other), false),
            ("127.0.0.1", "verify-ca", Some(&own), true),
            ("127.0.0.1", "verify-ca", Some(&other), false),
            ("127.0.0.1", "verify-ca", Some(std::path::Path::new("system")), false),
            ("localhost", "verify-full", Some(&own), true),
            ("127.0.0.1", "verify-full", Some(&own), false),
            ("localhost", "verify-full", Some(std::path::Path::new("/nonexistent.pem")), false),
        ],
    )
    .await;
    let store = open(&format!("{}?sslmode=prefer", cluster.url("tls"))).await.unwrap();
    let encrypted = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = 'tls' \
                     AND application_name = 'csync2'";
    assert_eq!(cluster.sql("postgres", encrypted), "t");
    store.close().await;

    // A password that is bound to the TLS session, as Debian sets servers up.
    cluster.sql("postgres", "CREATE ROLE bound LOGIN PASSWORD 'bound' SUPERUSER");
    cluster.prepend_hba("hostssl all bound 127.0.0.1/32 scram-sha-256");
    open(&format!("pgsql://bound:bound@127.0.0.1:{}/tls?sslmode=require", cluster.port())).await.unwrap();

    // A server that wants no TLS after all: what may do without, does.
    cluster.prepend_hba("hostssl all all 127.0.0.1/32 reject");
    expect(&cluster, &[("127.0.0.1", "prefer", None, true), ("127.0.0.1", "require", None, false)]).await;

    let (authority, certificate, key) = signed();
    let cluster = Postgres::start();
    cluster.enable_tls(&certificate, &key);
    let authority = file("authority.pem", &authority);
    expect(
        &cluster,
        &[
            ("127.0.0.1", "verify-full", Some(&authority), true),
            ("localhost", "verify-full", Some(&authority), false),
            ("localhost", "verify-ca", Some(&authority), true),
            ("localhost", "verify-ca", Some(&other), false),
        ],
    )
    .await;
}
