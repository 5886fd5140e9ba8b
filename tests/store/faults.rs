//! Whatever statement of whatever operation a server refuses for another's sake, or a network swallows: the operation comes
//! to its end, with the same answer and the same rows as if nothing had been.

use std::fmt::Debug;

use csync2::model::{ActionVersion, DirtyVersion, End, Fingerprinter, PastRun, Scope};
use csync2::store::{Claim, DirtyFilter, Hint, IntentId, Location, Store};
use futures_util::future::BoxFuture;
use tokio_postgres::NoTls;

use crate::bench::{Bench, action, change, mark, names, options, path};
use crate::both::{intent, receipt, session};
use crate::proxy::{Fault, PostgresProxy, RAISE};

/// What the tables hold, but for what is never the same twice.
const ROWS: &str = "
    SELECT 'file ' || filename || ' ' || checktxt || ' ' || coalesce(encode(digest, 'hex'), '') FROM file
    UNION ALL SELECT 'dirty ' || filename || ' ' || peername || ' ' || forced FROM dirty
    UNION ALL SELECT 'hint ' || filename || ' ' || recursive FROM hint
    UNION ALL SELECT 'action ' || filename || ' ' || command FROM action
    UNION ALL SELECT 'certificate ' || peername || ' ' || certdata FROM x509_cert
    UNION ALL SELECT 'intent ' || filename || ' ' || coalesce(target, '-') FROM csync2_intent
    UNION ALL SELECT 'claim ' || peername || ' ' || holder || ' ' || expires FROM csync2_claim
    UNION ALL SELECT 'session ' || peername || ' ' || ended || ' ' || sent FROM csync2_peer
    UNION ALL SELECT 'run ' || mode || ' ' || ended || ' ' || checked FROM csync2_run
    UNION ALL SELECT 'marking ' || minute || ' ' || at FROM csync2_marking
    UNION ALL SELECT 'notice ' || about || ' ' || facts FROM csync2_notice
    ORDER BY 1";

/// The same rows before each attempt. Versions and ids are known to the operations.
const BEFORE: &str = "
    TRUNCATE file, dirty, hint, action, x509_cert, csync2_intent, csync2_claim, csync2_notice, csync2_peer,
        csync2_run, csync2_marking;
    INSERT INTO file (filename, checktxt) VALUES ('/a', 'v1:old'), ('/b', 'v1:old'), ('/c', 'v1:old');
    INSERT INTO dirty (filename, forced, myname, peername, version)
        VALUES ('/a', 0, 'me', 'sender', 1000001), ('/b', 0, 'me', 'peer', 1000002), ('/c', 0, 'me', 'peer', 1000003);
    INSERT INTO hint VALUES ('/a', 0, 1000001), ('/b', 1, 1000002);
    INSERT INTO action (filename, command, logfile, version) VALUES ('/a', 'reload', '/dev/null', 1000001);
    INSERT INTO x509_cert VALUES ('peer', '0102');
    INSERT INTO csync2_intent (id, filename, peername, temp_name, target, holder)
        VALUES (11, '/a', 'sender', '', 'v1:new', 'boot 1 2'), (12, '/b', 'sender', '', NULL, 'boot 1 2');
    INSERT INTO csync2_claim VALUES ('peer', 'holder', 100);
    INSERT INTO csync2_notice VALUES ('a thing', 'told');";

fn shown<T: Debug>(answer: T) -> String {
    format!("{answer:?}")
}

/// An operation, whose answer is told as text.
type Operation = for<'s> fn(&'s Store) -> BoxFuture<'s, String>;

/// Gives each operation its name.
macro_rules! operations {
    ($($name:literal: |$store:ident| $call:expr;)*) => {
        [$(($name, (|$store| Box::pin(async move { shown($call) })) as Operation)),*]
    };
}

fn operations() -> Vec<(&'static str, Operation)> {
    operations! {
        "files": |store| names(store, vec![Scope::All]).await;
        "fingerprints": |store| {
            let mut chunks = store.fingerprints(vec![Scope::Tree(path("/"))], Fingerprinter::random());
            let mut count = 0;
            while let Some(chunk) = chunks.recv().await {
                count += chunk.unwrap().len();
            }
            count
        };
        "records": |store| store.records(&[path("/a"), path("/none")]).await.unwrap().len();
        "file": |store| store.file(&path("/a")).await.unwrap();
        "known": |store| store.known(vec![path("/a"), path("/b"), path("/none")]).await.unwrap();
        "apply": |store| {
            let mut changes = vec![
                change("/a", Some("v1:old"), Some("v1:new")),
                change("/c", Some("v1:old"), None),
                change("/new", None, Some("v1:new")),
                change("/none", None, None),
            ];
            for change in &mut changes {
                change.marks = vec![mark(change.path.as_bytes(), "peer"), mark(change.path.as_bytes(), "third")];
                change.actions = vec![action(change.path.as_bytes(), "reload")];
            }
            // What an attempt without an answer has written is no longer as expected: the caller looks again.
            let stale = store.apply(changes).await.unwrap();
            assert!(stale.iter().all(|path| path.as_bytes() != b"/b"), "{stale:?}");
        };
        "remove_files": |store| store.remove_files(&[path("/a")]).await.is_ok();
        "remove_malformed": |store| store.remove_malformed().await.unwrap();
        "dirty": |store| {
            let scopes = vec![Scope::File(path("/a")), Scope::File(path("/b"))];
            store.dirty(DirtyFilter { peer: None, scopes }).await.unwrap()
        };
        "dirty_peers": |store| store.dirty_peers().await.unwrap();
        "mark": |store| {
            store.mark(vec![mark("/a", "peer"), mark("/b", "peer")], vec![action("/b", "reload")]).await.unwrap();
        };
        "clear": |store| {
            let mut entries = store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::All] }).await.unwrap();
            entries.retain(|entry| entry.path.as_bytes() != b"/c");
            entries[1].version = DirtyVersion(7);
            store.clear(&entries).await.is_ok()
        };
        "flush": |store| store.flush(&path("/a")).await.unwrap();
        "force": |store| store.force(&[Scope::File(path("/a")), Scope::Tree(path("/b"))]).await.unwrap();
        "hints": |store| store.hints().await.unwrap().len();
        "add_hints": |store| {
            store.add_hints(&[hint("/a", false), hint("/new", true)]).await.unwrap();
        };
        "remove_hints": |store| {
            let versions = store.hint_versions(&hint("/a", false)).await.unwrap();
            store.remove_hints(&versions).await.is_ok()
        };
        "jobs": |store| store.jobs().await.unwrap();
        "job_files": |store| {
            let jobs = store.jobs().await.unwrap();
            store.job_files(&jobs[0]).await.unwrap()
        };
        "remove_actions": |store| store.remove_actions(&[ActionVersion(1_000_001)]).await.is_ok();
        "certificates": |store| store.certificates().await.unwrap();
        "pin": |store| (store.pin("peer", &[9]).await.unwrap(), store.pin("new", &[9]).await.unwrap());
        "unpin": |store| store.unpin("peer").await.is_ok();
        "begin_receives": |store| {
            store.begin_receives(vec![intent("/c", None), intent("/d", Some("v1:new"))]).await.unwrap().len()
        };
        "finish_receives": |store| {
            let receipts = vec![
                (Some(IntentId(11)), receipt("/a", Some("v1:new"))),
                (Some(IntentId(12)), receipt("/b", None)),
            ];
            store.finish_receives(receipts).await.unwrap();
        };
        "next_receives": |store| {
            let receipts = vec![(Some(IntentId(11)), receipt("/a", Some("v1:new"))), (None, receipt("/n", None))];
            store.next_receives(receipts, vec![intent("/c", Some("v1:new"))]).await.unwrap().len()
        };
        "abandon_receives": |store| store.abandon_receives(vec![IntentId(11)]).await.unwrap();
        "intents": |store| store.intents().await.unwrap();
        "claim": |store| (claim(store, "peer", 50).await, claim(store, "peer", 150).await, claim(store, "new", 1).await);
        "release": |store| store.release("peer", "holder").await.unwrap();
        "record_session": |store| store.record_session(session("peer", End::Well)).await.is_ok();
        "record_run": |store| {
            let run = PastRun { mode: "x".into(), at: 5, milliseconds: 1, errors: 1, checked: 2, marked: 3 };
            store.record_run(run).await.is_ok()
        };
        "record_marking": |store| store.record_marking(70).await.is_ok();
        "standing": |store| store.standing().await.unwrap();
        "news": |store| store.news("a thing", &["it is red".to_owned()]).await.is_ok();
    }
    .into()
}

fn hint(name: &str, recursive: bool) -> Hint {
    Hint { path: name.as_bytes().to_vec(), recursive }
}

async fn claim(store: &Store, subject: &str, now: i64) -> String {
    let claim = Claim { subject: subject.to_owned(), holder: "another".to_owned(), now, expires: 200 };
    store.claim(claim).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_of_every_operation_may_fail_once() {
    let bench = Bench::postgres(Some(""));
    bench.open().await.close().await;
    bench.sql(RAISE);
    let proxy = PostgresProxy::start(bench.cluster.as_ref().unwrap().port());
    let url = format!("pgsql://csync2@127.0.0.1:{}/{}", proxy.port(), bench.database());
    let store = Store::open(&Location::resolve(Some(&url), "h", "").unwrap(), &options()).await.unwrap();
    // Makes the tables.
    store.record_marking(1).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&bench.url.replace("pgsql", "postgresql"), NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows =
        async || -> Vec<String> { client.query(ROWS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect() };
    let mut failures = 0;
    for (name, operation) in operations() {
        client.batch_execute(BEFORE).await.unwrap();
        let expected = (operation(&store).await, rows().await);
        for fault in [Fault::Refuse("40001"), Fault::Refuse("40P01"), Fault::CutBefore, Fault::CutAfter] {
            let mut before = 0;
            loop {
                client.batch_execute(BEFORE).await.unwrap();
                proxy.arm(fault, before);
                let answer = operation(&store).await;
                if !proxy.disarm() {
                    break;
                }
                assert_eq!((answer, rows().await), expected, "{name}: {fault:?} behind {before} statements");
                before += 1;
            }
            assert!(before > 0, "{name} makes no statement");
            failures += before;
        }
    }
    assert!(failures > 250, "{failures}");
}

/// What others did between a record whose answer was lost and the next attempt at it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receive_is_not_recorded_twice() {
    let bench = Bench::postgres(Some(""));
    let other = bench.open().await;
    bench.sql(RAISE);
    let proxy = PostgresProxy::start(bench.cluster.as_ref().unwrap().port());
    let url = format!("pgsql://csync2@127.0.0.1:{}/{}", proxy.port(), bench.database());
    let store = Store::open(&Location::resolve(Some(&url), "h", "").unwrap(), &options()).await.unwrap();
    // A later change of the file, as soon as its receive is recorded.
    bench.sql(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN UPDATE file SET checktxt = ''v1:later''; RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER change AFTER DELETE ON csync2_intent DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION change()",
    );
    for next in [vec![], vec![intent("/b", None)]] {
        let begun = store.begin_receives(vec![intent("/a", Some("v1:new"))]).await.unwrap();
        proxy.arm(Fault::CutAfter, if next.is_empty() { 3 } else { 4 } + 1);
        let receipts = vec![(Some(begun[0]), receipt("/a", Some("v1:new")))];
        let ids = store.next_receives(receipts, next.clone()).await.unwrap();
        assert!(proxy.disarm());
        assert_eq!(other.file(&path("/a")).await.unwrap().unwrap().checktxt.as_bytes(), b"v1:later");
        let begun: Vec<_> = ids.into_iter().zip(next).collect();
        assert_eq!(other.intents().await.unwrap(), begun);
        other.abandon_receives(begun.into_iter().map(|(id, _)| id).collect()).await.unwrap();
    }
}
