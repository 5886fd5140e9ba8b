//! A state moves into another database: `--import-db`, called by an administrator.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::cast::Backend;
use crate::support::cluster::Node;
use crate::support::database::Database;
use crate::support::postgres::{Postgres, USER};
use crate::support::process::run;
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, tree};

const C_ON_SQLITE: Cast =
    Cast { client: Program::Reference, server: Program::Reference, tls: true, backend: Backend::Sqlite };

const TABLES: [Table; 5] = [Table::File, Table::Dirty, Table::Hint, Table::Action, Table::Certificate];

/// A database of the shared server whose order of names is none of bytes.
fn new_database(name: &str) -> Database {
    let options = format!("OWNER {USER} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'");
    Postgres::shared().database(name, &options);
    Database::Postgres { name: name.to_owned() }
}

fn all_rows(database: &Database) -> Vec<Vec<String>> {
    TABLES.map(|table| database.rows(table)).into()
}

/// Leaves something in every table: files that `gamma` has not got, one of them forced, a hint, beta's certificate, and an action
/// as an interrupted run leaves it.
fn use_it(alpha: &Node) {
    alpha.put(&tree! { "d/a b" => "1", "gr\u{fc}n" => "22", "B" => "333", "a" => "4444" });
    alpha.csync2(["-x"]).exits(1);
    alpha.csync2(["-f", alpha.path("a").to_str().unwrap()]).success();
    alpha.csync2(["-hr", alpha.path("d").to_str().unwrap()]).success();
    alpha.database.execute("INSERT INTO action VALUES ('%25d%25/a', 'touch%20done', '/dev/null')");
}

#[test]
fn a_c_installation_in_use_moves_to_postgres_without_loss() {
    for (backend, name) in [(Backend::Sqlite, "import_moves"), (Backend::Postgres, "import_moves_again")] {
        let cluster = Cast { backend, ..C_ON_SQLITE }.cluster(["alpha", "beta", "gamma"]).build();
        let (alpha, beta, gamma) = (&cluster["alpha"], &cluster["beta"], &cluster["gamma"]);
        beta.serve();
        alpha.serve();
        use_it(alpha);
        let before = all_rows(&alpha.database);
        assert!(before.iter().all(|rows| !rows.is_empty()), "{before:?}");
        let listed: Vec<String> = ["-L", "-M", "-H"].map(|list| alpha.csync2([list]).success().stdout_text()).into();
        let before_listing = all_rows(&alpha.database);

        let new = new_database(name);
        let from = alpha.database.option();
        let import = || alpha.csync2_by(Program::Ours, ["--import-db", &from, "-D", &new.option()]);
        let counts = TABLES.map(|table| alpha.database.rows(table).len());
        let [files, dirty, hints, actions, certificates] = counts;
        let counts = format!("file {files}, dirty {dirty}, hint {hints}, action {actions}, x509_cert {certificates}\n");
        let told = import().success().stdout_text();
        assert!(told.ends_with(&format!(": imported: {counts}")), "{told}");
        assert_eq!(all_rows(&new), before_listing, "no row is lost, changed or run");
        assert_eq!(all_rows(&alpha.database), before_listing, "the old database stays as it is");
        let told = import().success().stdout_text();
        assert!(told.ends_with(&format!(": the same is there already: {counts}")), "{told}");

        // The binary is swapped, and the new database in use.
        alpha.stop();
        gamma.serve();
        alpha.reach_database_at(&new.option());
        for (list, listed) in ["-L", "-M", "-H"].into_iter().zip(&listed) {
            alpha.csync2_by(Program::Ours, [list]).success().prints(listed);
        }
        alpha.csync2_by(Program::Ours, ["-cu"]).success();
        assert_eq!(new.rows(Table::Dirty), [""; 0]);
        cluster.expect_agreement();
        let _ = import().exits(1).logs("it holds another state").logs("Nothing has been changed.");
    }
}

/// Its rows have nanoseconds in checktxt.
#[test]
fn a_state_of_the_fork_moves_to_postgres() {
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => file("hello\n").mtime(1_600_000_000) });
    let script = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fork/fork-database.sql"));
    let script = script.unwrap().replace("1600000000123456789", "1600000000000000000");
    alpha.database.execute(&script.replace("1.csync2.test", &alpha.host).replace("2.csync2.test", &beta.host));
    let new = new_database("import_fork");
    let told = alpha.csync2(["--import-db", &alpha.database.option(), "-D", &new.option()]).success().stdout_text();
    assert!(told.ends_with(": imported: file 2, dirty 2, hint 0, action 0, x509_cert 0\n"), "{told}");
    alpha.reach_database_at(&new.option());
    let pair = format!("{}\t{}", alpha.host, beta.host);
    alpha.csync2(["-M"]).success().prints(&format!("chary\t{pair}\t%d%\nchary\t{pair}\t%d%/f\n"));
    alpha.csync2(["-crv", "/"]).success().logs_no("Marking");
    beta.serve();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

#[test]
fn an_import_that_is_killed_leaves_the_target_as_it_was() {
    let cast = Cast { client: Program::Ours, backend: Backend::Postgres, ..C_ON_SQLITE };
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.csync2(["-H"]).exits(2);
    let old = alpha.database_name().unwrap();
    alpha.database.execute(
        "INSERT INTO file (filename, checktxt) SELECT '/f' || n, 'v1' FROM generate_series(1, 9000) AS s (n); \
         INSERT INTO x509_cert VALUES ('beta', '0A')",
    );
    let before = all_rows(&alpha.database);
    let new = new_database("import_killed");
    // The last table cannot be read: by then most of the others has been written.
    let held = Postgres::shared().hold(old, "LOCK TABLE x509_cert IN ACCESS EXCLUSIVE MODE");
    let mut import = alpha.command(Program::Ours, ["--import-db", &alpha.database.option(), "-D", &new.option()]);
    let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    Postgres::shared().wait_for_a_waiter(old);
    import.kill().unwrap();
    import.wait().unwrap();
    drop(held);
    assert_eq!(all_rows(&new).concat(), [""; 0]);
    alpha.csync2(["--import-db", &alpha.database.option(), "-D", &new.option()]).success();
    assert_eq!(all_rows(&new), before);
}

#[test]
fn a_state_is_not_imported_into_itself() {
    let cluster = Cast { client: Program::Ours, ..C_ON_SQLITE }.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.csync2(["-H"]).exits(2);
    let Database::Sqlite { file, .. } = &alpha.database else { panic!("SQLite") };
    alpha.csync2(["--import-db", file.to_str().unwrap()]).exits(1).logs("imported into itself");
    alpha
        .csync2(["--import-db", "none.db3"])
        .exits(1)
        .logs("Can't open database: sqlite3://none.db3: No such file or directory");
    assert!(!alpha.base().join("none.db3").exists());
}

/// As a killed program of C leaves it: half of a transaction is in the file, and the way back in the journal.
#[test]
fn a_journal_that_a_killed_run_has_left_is_told_with_the_way_out() {
    let cluster = C_ON_SQLITE.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.csync2(["-H"]).exits(2);
    let Database::Sqlite { file, .. } = &alpha.database else { panic!("SQLite") };
    let mut shell = Command::new("sqlite3").arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let rows = "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT 20000) \
                INSERT INTO file SELECT '/f' || n, 'v1' FROM n";
    let statements = format!("PRAGMA cache_size = 5; BEGIN; {rows};\n.print ready\n");
    shell.stdin.as_mut().unwrap().write_all(statements.as_bytes()).unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    let copy = alpha.base().join("copy.db3");
    fs::copy(file, &copy).unwrap();
    fs::copy(format!("{}-journal", file.display()), alpha.base().join("copy.db3-journal")).unwrap();
    shell.kill().unwrap();
    shell.wait().unwrap();
    let target = alpha.base().join("new.db3");
    let import = || {
        alpha.csync2_by(
            Program::Ours,
            ["--import-db", copy.to_str().unwrap(), "-D", &format!("sqlite://{}", target.display())],
        )
    };
    import()
        .exits(1)
        .logs("an interrupted run has left a journal beside it; let csync2 -M of the program that wrote it");
    alpha.csync2_by(Program::Reference, ["-D", "copy.db3", "-M"]).exits(2);
    import().success();
}

#[test]
fn what_cannot_be_taken_in_is_named() {
    let cluster = C_ON_SQLITE.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.csync2(["-H"]).exits(2);
    alpha.database.execute("INSERT INTO file VALUES ('/a%20b', 'v1'), ('no/path', 'v1'), ('/a b', 'v1')");
    let new = new_database("import_names");
    let import = || alpha.csync2_by(Program::Ours, ["--import-db", &alpha.database.option(), "-D", &new.option()]);
    import().exits(1).logs("The source has two rows, in two spellings, of /a b in the table file: remove one");
    assert_eq!(all_rows(&new).concat(), [""; 0]);
    alpha.database.execute("DELETE FROM file WHERE filename = '/a b'");
    import()
        .success()
        .logs("1 rows are malformed, and were left out: no csync2 could use them. The first: \"no/path\"");
}

#[test]
fn a_server_that_refuses_the_new_database_is_answered_with_the_statements() {
    let cluster = C_ON_SQLITE.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.csync2(["-H"]).exits(2);
    let server = Postgres::shared();
    server.sql("postgres", "CREATE ROLE import_poor LOGIN");
    let new = format!("pgsql://import_poor@127.0.0.1:{}/import_poor", server.port());
    alpha
        .csync2_by(Program::Ours, ["--import-db", &alpha.database.option(), "-D", &new])
        .exits(1)
        .logs("CREATE DATABASE \"import_poor\" OWNER \"import_poor\"");
}

/// The commands are those that csync2 prints; a program in the place of MySQL's answers from the C program's SQLite file.
#[test]
fn mysql_is_answered_with_the_way_through_a_dump() {
    let cluster = C_ON_SQLITE.cluster(["alpha", "beta", "gamma"]).build();
    let alpha = &cluster["alpha"];
    cluster["beta"].serve();
    use_it(alpha);
    let Database::Sqlite { file, .. } = &alpha.database else { panic!("SQLite") };
    let told = alpha.csync2_by(Program::Ours, ["--import-db", "mysql://me:secret@db/csync2"]).exits(1).stderr_text();
    assert!(told.starts_with("mysql://me@db/csync2: MySQL is not read directly."), "{told}");
    let (_, commands) = told.split_once(":\n").expect("commands");
    let commands = commands.rsplit_once("    csync2 --import-db").expect("the last one").0;
    let mysql = alpha.base().join("mysql");
    fs::write(&mysql, format!("#!/bin/bash\nexec sqlite3 -separator $'\\t' {} \"${{@: -1}}\"\n", file.display()))
        .unwrap();
    fs::set_permissions(&mysql, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shell = std::process::Command::new("bash");
    let path = format!("{}:{}", alpha.base().display(), std::env::var("PATH").unwrap());
    shell.args(["-ec", commands]).current_dir(alpha.base()).env("PATH", path);
    run(shell).success();
    let new = new_database("import_mysql");
    alpha.csync2_by(Program::Ours, ["--import-db", "state.db3", "-D", &new.option()]).success();
    assert_eq!(all_rows(&new), all_rows(&alpha.database));
}
