//! What is peculiar to the embedded database.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use csync2::model::Scope;
use csync2::store::{Durability, ErrorKind, Location, Store, StoreOptions};

use crate::bench::{Bench, change, dirty, mark, names, options, path};

/// The schema of the C program, as it makes it.
const C_SCHEMA: &str = "
    CREATE TABLE file (filename, checktxt, UNIQUE ( filename ) ON CONFLICT REPLACE);
    CREATE TABLE dirty (filename, forced, myname, peername, UNIQUE ( filename, peername ) ON CONFLICT IGNORE);
    CREATE TABLE hint (filename, recursive, UNIQUE ( filename, recursive ) ON CONFLICT IGNORE);
    CREATE TABLE action (filename, command, logfile, UNIQUE ( filename, command ) ON CONFLICT IGNORE);
    CREATE TABLE x509_cert (peername, certdata, UNIQUE ( peername ) ON CONFLICT IGNORE);
    INSERT INTO file VALUES ('/a', 'v1%3Atype=dir');
    INSERT INTO dirty VALUES ('/a', 0, 'me', 'peer');";

#[tokio::test]
async fn a_missing_directory_is_named() {
    let location = Location::resolve(Some("/nonexistent/dir"), "host", "").unwrap();
    let error = Store::open(&location, &StoreOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "Can't open database: sqlite3:///nonexistent/dir/host.db3");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_writer_waits_for_another_process_and_no_longer_than_it_may() {
    let bench = Bench::sqlite();
    let options = StoreOptions { lock_timeout: Duration::from_millis(50), ..options() };
    let store = Store::open(&bench.location(), &options).await.unwrap();
    let other = rusqlite::Connection::open(bench.url.strip_prefix("sqlite3://").unwrap()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO file (filename, checktxt) VALUES ('/held', 'x')").unwrap();
    let error = store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBusy);
    assert!(error.to_string().contains(&bench.url), "{error}");
    assert_eq!(names(&store, vec![Scope::All]).await, [], "readers are not disturbed");
    other.execute_batch("COMMIT").unwrap();
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    assert_eq!(names(&store, vec![Scope::All]).await, [path("/held")]);
}

#[tokio::test]
async fn a_half_made_database_of_the_c_program_is_completed() {
    let bench = Bench::sqlite();
    bench.sql("CREATE TABLE file (filename, checktxt, UNIQUE ( filename ) ON CONFLICT REPLACE)");
    let store = bench.open().await;
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    assert_eq!(dirty(&store).await.len(), 1);
}

#[tokio::test]
async fn names_from_a_utf8_database_get_the_spelling_of_this_one() {
    let bench = Bench::sqlite();
    bench.sql(C_SCHEMA);
    bench.sql("INSERT INTO file VALUES ('/gr%FCn%2580', 'x'), ('/gr%25FC', 'x')");
    let store = bench.open().await;
    let expected = [path("/a"), path("/gr%FC"), path(b"/gr\xfcn%80")];
    assert_eq!(names(&store, vec![Scope::All]).await, expected);
    assert_eq!(
        bench.sql("SELECT hex(filename) FROM file ORDER BY filename"),
        "2F61\n2F67722532354643\n2F6772FC6E2532353830"
    );
}

#[tokio::test]
async fn durability_is_given_up_only_when_asked() {
    let bench = Bench::sqlite();
    for durability in [Durability::All, Durability::AllButReceives, Durability::Nothing] {
        let store = Store::open(&bench.location(), &StoreOptions { durability, ..options() }).await.unwrap();
        store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
        assert_eq!(dirty(&store).await.len(), 1);
        store.close().await;
    }
    assert_eq!(bench.sql("PRAGMA journal_mode"), "wal");
}

/// The variable that carries the database to the run of the next test as another user.
const AS_NOBODY: &str = "CSYNC2_TEST_READ_ONLY";

/// Root may write anywhere: the listing runs in a process that has given that up.
#[test]
fn a_file_that_may_only_be_read_can_be_listed() {
    if let Some(url) = env::var_os(AS_NOBODY) {
        return list_as_nobody(url.to_str().unwrap());
    }
    for prepared_by_us in [false, true] {
        let bench = Bench::sqlite();
        bench.sql(C_SCHEMA);
        if prepared_by_us {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { bench.open().await.close().await });
        }
        let file = bench.url.strip_prefix("sqlite3://").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(bench.directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
        // The test program itself may lie where others cannot get.
        let copy = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in("/tmp").unwrap();
        let program = copy.path().join("store");
        fs::copy(env::current_exe().unwrap(), &program).unwrap();
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        let name = "sqlite::a_file_that_may_only_be_read_can_be_listed";
        let output = command.args(["--exact", name, "--nocapture"]).env(AS_NOBODY, &bench.url).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        fs::set_permissions(bench.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn list_as_nobody(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let location = Location::resolve(Some(url), "host", "").unwrap();
        let error = Store::open(&location, &options()).await.unwrap_err();
        assert!(error.to_string().starts_with("Can't open database: "), "{error}");
        let store = Store::open(&location, &StoreOptions { read_only: true, ..options() }).await.unwrap();
        assert_eq!(names(&store, vec![Scope::All]).await, [path("/a")]);
        assert_eq!(dirty(&store).await.len(), 1);
        assert_eq!(store.intents().await.unwrap(), []);
        let error = store.apply(vec![change("/b", None, Some("x"))]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    });
}
