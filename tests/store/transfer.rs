//! A whole state is taken from one database into another, or nothing of it.

use std::fs;

use csync2::model::{FileRecord, Job, Mark, Scope, SyncPath};
use csync2::store::{Hint, Location, Source, Store, StoreError};
use tokio_postgres::NoTls;

use crate::bench::{Bench, action, change, dirty, files, job_files, mark, options, path, record};
use crate::proxy::{Fault, PostgresProxy, RAISE};

const ICU: &str = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
const SQL_ASCII: &str = "TEMPLATE template0 ENCODING 'SQL_ASCII'";
const LATIN1: &str = "TEMPLATE template0 ENCODING 'LATIN1'";

/// Everything that a state says, as every database says it.
#[derive(Debug, PartialEq, Eq)]
struct State {
    files: Vec<FileRecord>,
    marks: Vec<Mark>,
    hints: Vec<Hint>,
    actions: Vec<(Job, SyncPath)>,
    certificates: Vec<(String, Vec<u8>)>,
}

async fn state(store: &Store) -> State {
    State {
        files: files(store, vec![Scope::All]).await,
        marks: dirty(store).await.into_iter().map(Mark::from).collect(),
        hints: store.hints().await.unwrap(),
        actions: job_files(store).await.into_iter().map(|(job, file)| (job, file.path)).collect(),
        certificates: store.certificates().await.unwrap(),
    }
}

/// Rows of every kind: odd names, long ones, more files than go in one piece.
async fn fill(store: &Store) {
    let long = [b"/long/".as_slice(), &[b'x'; 5000]].concat();
    let names: [&[u8]; 6] = [b"/a b:%", "/gr\u{fc}n".as_bytes(), b"/gr\xfcn", b"%p%/x", &long, b"/B"];
    let mut changes: Vec<_> = names.iter().map(|name| change(name, None, Some("v1:mtime=1:mode=2"))).collect();
    changes[1].record =
        Some(FileRecord { mtime_ns: Some(-5), ctime_ns: Some(i64::MIN), device: Some(-1), ..record(names[1], "v1:x") });
    changes[2].record = Some(FileRecord { digest: Some([7; 32]), ..record(names[2], "v1:target=\u{e9} %") });
    changes.extend((0..1100).map(|number| change(format!("/many/{number}"), None, Some("v1:type=dir"))));
    for name in ["gamma", "beta"] {
        changes.iter_mut().take(4).for_each(|change| change.marks.push(mark(change.path.as_bytes(), name)));
    }
    changes[3].actions = vec![action(names[3], "reload %% 'x'"), action(names[3], "\u{fc} \" \\")];
    changes[4].actions = vec![action(&long, "reload %% 'x'")];
    assert_eq!(store.apply(changes).await.unwrap(), []);
    store.force(&[Scope::File(path(names[2]))]).await.unwrap();
    let hint = |path: &[u8], recursive| Hint { path: path.to_vec(), recursive };
    store.add_hints(&[hint(b"/h", true), hint(b"/h", false), hint(b"/\xff", true)]).await.unwrap();
    store.pin("beta", &[1, 2, 3]).await.unwrap();
    store.pin("gamma", &[0xff; 2000]).await.unwrap();
}

async fn source(bench: &Bench) -> Source {
    Source::open(&bench.location(), &options()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_arrives_whole_whatever_the_databases() {
    for from in [Bench::sqlite(), Bench::postgres(None), Bench::postgres(Some(SQL_ASCII))] {
        let old = from.open().await;
        fill(&old).await;
        let expected = state(&old).await;
        for to in [Bench::sqlite(), Bench::postgres(None), Bench::postgres(Some(LATIN1)), Bench::postgres(Some(ICU))] {
            let new = to.open().await;
            let imported = new.import(&source(&from).await).await.unwrap();
            assert_eq!((imported.contents.counts(), imported.was_there), ([1106, 8, 3, 3, 2], false));
            assert!(state(&new).await == expected, "{} to {}", from.url, to.url);
            let again = new.import(&source(&from).await).await.unwrap();
            assert_eq!((again.contents, again.was_there), (imported.contents, true));
            assert!(state(&new).await == expected && state(&old).await == expected);
            // What it holds can be worked with: a mark that is made again is another one.
            let marks = dirty(&new).await;
            new.mark(vec![mark(marks[0].path.as_bytes(), &marks[0].peer)], Vec::new()).await.unwrap();
            assert_eq!(new.clear(&marks).await.unwrap(), marks.len() as u64 - 1);
        }
    }
}

/// As the C program makes them, with rows of its own, one that nothing can be done with, and for PostgreSQL a hint that is
/// there twice.
const C_ROWS: &str = "
    INSERT INTO file VALUES ('/a%20b', 'v1%3Amtime=1%3Atype=dir'), ('%25p%25/x', 'v1%3Amtime=1600000000123456789'),
        ('relative', 'v1');
    INSERT INTO dirty VALUES ('/a%20b', 1, 'me', 'beta'), ('/gone', 0, 'me', 'gamma');
    INSERT INTO hint VALUES ('/h%20h', 1);
    INSERT INTO action VALUES ('/a%20b', 'reload%20%25%25', '/dev/null');
    INSERT INTO x509_cert VALUES ('beta', '0A0B');";

fn c_tables(postgres: bool) -> String {
    let (text, number) = if postgres { (" TEXT NOT NULL", " INTEGER NOT NULL") } else { ("", "") };
    let unique = |columns: &str| format!("UNIQUE ({columns})");
    format!(
        "CREATE TABLE file (filename{text}, checktxt{text}, {});
         CREATE TABLE dirty (filename{text}, forced{number}, myname{text}, peername{text}, {});
         CREATE TABLE hint (filename{text}, recursive{number});
         CREATE TABLE action (filename{text}, command{text}, logfile{text}, {});
         CREATE TABLE x509_cert (peername{text}, certdata{text}, {});{C_ROWS}",
        unique("filename"),
        unique("filename, peername"),
        unique("filename, command"),
        unique("peername"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_the_c_program_are_read_and_left_as_they_are() {
    for from in [Bench::sqlite(), Bench::postgres(Some("")), Bench::postgres(Some(SQL_ASCII))] {
        let is_postgres = from.cluster.is_some();
        from.sql(&c_tables(is_postgres));
        if is_postgres {
            from.sql("INSERT INTO hint VALUES ('/h%20h', 1)");
        }
        let file = from.directory.path().join("state.db3");
        let before = fs::read(&file).ok();
        let to = Bench::postgres(None);
        let new = to.open().await;
        let imported = new.import(&source(&from).await).await.unwrap();
        let malformed = imported.malformed.map(|malformed| (malformed.count, malformed.first));
        assert_eq!((imported.contents.counts(), malformed), ([2, 2, 1, 1, 1], Some((1, "relative".to_owned()))));
        let found = state(&new).await;
        assert_eq!(
            found.files,
            [record("%p%/x", "v1:mtime=1600000000123456789"), record("/a b", "v1:mtime=1:type=dir")]
        );
        assert_eq!(found.marks, [Mark { forced: true, ..mark("/a b", "beta") }, mark("/gone", "gamma")]);
        assert_eq!(found.hints, [Hint { path: b"/h h".to_vec(), recursive: true }]);
        assert_eq!(found.actions[0].0.command, b"reload %%");
        assert_eq!(found.certificates, [("beta".to_owned(), vec![10, 11])]);
        if is_postgres {
            assert_eq!(from.sql("SELECT to_regclass('csync2_schema') IS NULL"), "t", "nothing of ours is added");
        } else {
            assert_eq!(fs::read(&file).ok(), before);
            assert_eq!(fs::read_dir(from.directory.path()).unwrap().count(), 1, "nothing lies beside it");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_holds_something_else_is_left_alone() {
    let from = Bench::sqlite();
    let old = from.open().await;
    fill(&old).await;
    for to in [Bench::sqlite(), Bench::postgres(None)] {
        let new = to.open().await;
        new.pin("beta", &[9]).await.unwrap();
        let before = state(&new).await;
        let error = new.import(&source(&from).await).await.unwrap_err();
        assert!(matches!(error, StoreError::Occupied { .. }), "{error}");
        assert!(error.to_string().contains("(file 0, dirty 0, hint 0, action 0, x509_cert 1)"), "{error}");
        assert_eq!(state(&new).await, before);
        // As many rows are not yet the same.
        new.unpin("beta").await.unwrap();
        new.import(&source(&from).await).await.unwrap();
        new.force(&[Scope::All]).await.unwrap();
        assert!(matches!(new.import(&source(&from).await).await, Err(StoreError::Occupied { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_named_and_not_made() {
    let from = Bench::postgres(None);
    let error = Source::open(&from.location(), &options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    let databases = from.cluster.as_ref().unwrap().sql("postgres", "SELECT datname FROM pg_database");
    assert!(!databases.lines().any(|name| name == from.database()), "{databases}");
    let from = Bench::sqlite();
    Source::open(&from.location(), &options()).await.unwrap_err();
    assert_eq!(fs::read_dir(from.directory.path()).unwrap().count(), 0);
    for from in [Bench::sqlite(), Bench::postgres(Some(""))] {
        from.sql("CREATE TABLE other (x integer)");
        let error = Source::open(&from.location(), &options()).await.unwrap_err();
        assert!(format!("{error:?}").contains("no tables of csync2"), "{error:?}");
    }
    let from = Bench::sqlite();
    from.open().await.close().await;
    from.sql("UPDATE csync2_schema SET version = 1000");
    let error = Source::open(&from.location(), &options()).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { .. }), "{error:?}");
}

/// Whether there is any row.
const ROWS: &str = "SELECT 1 FROM file UNION ALL SELECT 1 FROM dirty UNION ALL SELECT 1 FROM hint \
    UNION ALL SELECT 1 FROM action UNION ALL SELECT 1 FROM x509_cert LIMIT 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_all_of_it_arrives_or_nothing() {
    let (from, to) = (Bench::postgres(Some("")), Bench::postgres(Some("")));
    let old = from.open().await;
    fill(&old).await;
    let expected = state(&old).await;
    let new = to.open().await;
    let (client, connection) = tokio_postgres::connect(&to.url.replace("pgsql", "postgresql"), NoTls).await.unwrap();
    tokio::spawn(connection);
    let behind = |bench: &Bench| {
        bench.sql(RAISE);
        let proxy = PostgresProxy::start(bench.cluster.as_ref().unwrap().port());
        let url = format!("pgsql://csync2@127.0.0.1:{}/{}", proxy.port(), bench.database());
        (proxy, Location::resolve(Some(&url), "h", "").unwrap())
    };
    let ((old_proxy, old_location), (new_proxy, new_location)) = (behind(&from), behind(&to));
    let store = Store::open(&new_location, &options()).await.unwrap();
    let source = Source::open(&old_location, &options()).await.unwrap();
    let mut failures = 0;
    for proxy in [&old_proxy, &new_proxy] {
        for fault in [Fault::Refuse("40001"), Fault::CutBefore, Fault::CutAfter] {
            for before in 0.. {
                proxy.arm(fault, before);
                let result = store.import(&source).await;
                let fired = proxy.disarm();
                let found = client.query(ROWS, &[]).await.unwrap();
                let is_whole = !found.is_empty();
                if is_whole {
                    assert!(state(&new).await == expected, "half a state: {fault:?} behind {before} statements");
                    client
                        .batch_execute(
                            "DELETE FROM file; DELETE FROM dirty; DELETE FROM hint; DELETE FROM action; \
                                          DELETE FROM x509_cert",
                        )
                        .await
                        .unwrap();
                }
                assert!(result.is_err() || is_whole, "{fault:?} behind {before} statements");
                if !fired {
                    assert!(result.is_ok());
                    break;
                }
                failures += 1;
            }
        }
    }
    assert!(failures > 60, "{failures}");
}
