//! What goes wrong in the world, and what the C program gets wrong: nothing is lost, nothing is half done, and the
//! message says what to do. Only our program is asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::{Output, run, wrap};
use crate::support::tree::{device, file, socket};
use crate::support::{Cast, Postgres, Program, Table, Tree, assert_same, dir, link, scenarios, tree};

scenarios! { ours:
    an_unreadable_directory_removes_nothing
    a_missing_prefix_directory_removes_nothing
    files_that_no_group_covers_do_not_vouch_for_a_missing_directory
    a_missing_directory_keeps_back_what_was_dirty
    a_session_takes_a_missing_directory_for_no_removal
    a_hint_that_cannot_be_checked_stays
    a_file_below_a_prefix_can_be_pushed_alone
    an_operand_below_a_missing_parent_arrives
    a_file_behind_a_regular_file_is_gone
    devices_keep_their_numbers
    a_socket_is_ignored_quietly
    a_longer_link_target_arrives
    a_change_within_one_second_arrives
    a_refused_update_runs_no_action
    file_names_run_no_shell_code
    a_dry_run_with_a_new_directory_changes_nothing
    two_runs_at_once_both_succeed
    a_silent_peer_does_not_delay_the_others
    a_server_that_is_killed_in_a_batch_leaves_files_old_or_new
}

/// The ordinary user that runs a node's program.
const NOBODY: u32 = 65534;

/// Wherever the kill meets it: nothing is half there, and nothing that arrived counts as a change of its own.
fn a_server_that_is_killed_in_a_batch_leaves_files_old_or_new(cast: Cast) {
    const FILES: usize = 300;
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let old = |number: usize| "o".repeat(number + 1);
    let all = |content: &dyn Fn(usize) -> String| {
        (0..FILES).fold(Tree::new(), |tree, number| tree.with(format!("d/f{number}"), file(&content(number))))
    };
    alpha.put(&all(&old));
    alpha.csync2(["-x"]).success();
    for round in 1..=3 {
        let content = |round: usize, number: usize| format!("{round}{}", "n".repeat(number + round));
        let new = |number: usize| content(round, number);
        let now = |number: usize| beta.read(&format!("d/f{number}"));
        alpha.put(&all(&new));
        let arrived = || (0..FILES).filter(|&number| now(number).starts_with(&round.to_string())).count();
        let command = alpha.command(alpha.program, ["-x"]);
        let push = std::thread::spawn(|| run(command));
        while arrived() < round * 20 {
            std::thread::yield_now();
        }
        beta.stop();
        push.join().expect("the push");
        for number in 0..FILES {
            let whole = now(number);
            let before = if round == 1 { old(number) } else { content(round - 1, number) };
            assert!(whole == new(number) || whole == before, "d/f{number} is neither old nor new: {whole}");
        }
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
        let names = fs::read_dir(beta.path("d")).expect("read the directory").count();
        assert_eq!(names, FILES, "temporary files are left");
        beta.serve();
        alpha.csync2(["-x"]).success();
        cluster.expect_agreement();
        alpha.expect_clean();
        beta.expect_clean();
    }
}

/// Gives a node's files to an ordinary user.
pub(crate) fn hand_over(node: &Node) {
    let mut open = vec![node.base().to_path_buf()];
    while let Some(path) = open.pop() {
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("chown: these tests run as root");
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("read a directory").map(|entry| entry.expect("an entry").path()));
        }
    }
}

pub(crate) fn as_ordinary_user(node: &Node, arguments: &[&str]) -> Output {
    let id = NOBODY.to_string();
    run(wrap(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"], &node.command(node.program, arguments)))
}

/// Two nodes in step, the first of them run by an ordinary user.
fn owned_by_an_ordinary_user(cast: Cast) -> Cluster {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "1", "d/a" => "22", "d/deeper/b" => "333", "e/c" => "4444" });
    // The prefix's directories must agree from the start, or their owners are a conflict.
    cluster.nodes().iter().for_each(hand_over);
    as_ordinary_user(alpha, &["-x"]).success();
    cluster.expect_agreement();
    cluster
}

fn an_unreadable_directory_removes_nothing(cast: Cast) {
    let cluster = owned_by_an_ordinary_user(cast);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let before = beta.tree();
    for mode in [0o000, 0o600, 0o300] {
        fs::set_permissions(alpha.path("d"), fs::Permissions::from_mode(mode)).expect("chmod");
        let path = alpha.path("d").display().to_string();
        as_ordinary_user(alpha, &["-cr", "/"]).exits(1).logs(&path).logs("Permission denied");
        let rows = alpha.rows(Table::Dirty);
        assert!(rows.iter().all(|row| !row.contains("%25d%25/d/")), "mode {mode:o}: {rows:?}");
        fs::set_permissions(alpha.path("d"), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    as_ordinary_user(alpha, &["-x"]).success();
    assert_same(&before, &beta.tree());
    as_ordinary_user(alpha, &["-M"]).exits(2);
}

fn a_missing_prefix_directory_removes_nothing(cast: Cast) {
    let cluster = owned_by_an_ordinary_user(cast);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let before = beta.tree();
    let away = alpha.base().join("moved away");
    let one_file = alpha.path("f").display().to_string();
    for mode in [&["-x"][..], &["-cr", "/"], &["-c", &one_file]] {
        fs::rename(alpha.tree_dir(), &away).expect("rename");
        as_ordinary_user(alpha, mode).exits(1).logs("--allow-mass-removal");
        assert_same(&before, &beta.tree());
        as_ordinary_user(alpha, &["-M"]).exits(2);
        fs::rename(&away, alpha.tree_dir()).expect("rename");
    }
    as_ordinary_user(alpha, &["-x"]).success();
    assert_same(&before, &beta.tree());

    fs::rename(alpha.tree_dir(), &away).expect("rename");
    as_ordinary_user(alpha, &["-cr", "/", "--allow-mass-removal"]).success();
    assert_eq!(alpha.rows(Table::Dirty).len(), before.len());
}

/// What was taken out of the group is not looked at: that it is known says nothing of the file system that it is on.
fn files_that_no_group_covers_do_not_vouch_for_a_missing_directory(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "1", "left out/g" => "22" });
    alpha.csync2(["-x"]).success();
    let config = alpha.system_dir().join("csync2.cfg");
    let text = fs::read_to_string(&config).expect("read the config");
    let (before, after) = text.split_once("include").expect("an include");
    let after = after.replacen(';', "; exclude \"%d%/left out\";", 1);
    fs::write(&config, format!("{before}include{after}")).expect("write the config");

    let away = alpha.base().join("moved away");
    fs::rename(alpha.tree_dir(), &away).expect("rename");
    for mode in [&["-cr", "/"][..], &["-x"]] {
        alpha.csync2(mode).exits(1).logs("--allow-mass-removal");
        alpha.expect_clean();
        assert_eq!(beta.read("f"), "1");
    }
}

/// Files that waited for a peer when their file system went away are not removed there.
fn a_missing_directory_keeps_back_what_was_dirty(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "first", "g" => "stays" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "the second" });
    alpha.csync2(["-cr", "/"]).success();
    let away = alpha.base().join("moved away");
    fs::rename(alpha.tree_dir(), &away).expect("rename");
    for mode in ["-x", "-u"] {
        alpha.csync2([mode]).exits(1).logs("--allow-mass-removal");
        assert_eq!(beta.read("f"), "first");
    }
    fs::rename(&away, alpha.tree_dir()).expect("rename");
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// A push to a host whose file system is not mounted is refused, and marks nothing for third hosts.
fn a_session_takes_a_missing_directory_for_no_removal(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "first", "d/g" => "second" });
    alpha.csync2(["-x"]).success();
    let away = beta.base().join("moved away");
    fs::rename(beta.tree_dir(), &away).expect("rename");
    alpha.put(&tree! { "f" => "changed since", "d/g" => "this one too" });
    alpha.csync2(["-x"]).exits(1).logs(&beta.host);
    assert!(!beta.tree_dir().exists());
    beta.expect_clean();
    fs::rename(&away, beta.tree_dir()).expect("rename");
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

fn a_hint_that_cannot_be_checked_stays(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "first" });
    alpha.csync2(["-x"]).success();
    let tree = alpha.tree_dir().display().to_string();
    alpha.csync2(["-h", "-r", &tree]).success();
    let away = alpha.base().join("moved away");
    fs::rename(alpha.tree_dir(), &away).expect("rename");
    alpha.csync2(["-c"]).exits(1);
    alpha.csync2(["-H"]).success().prints(&format!("1\t{tree}\n"));
    fs::rename(&away, alpha.tree_dir()).expect("rename");
    alpha.csync2(["-c"]).success();
    alpha.csync2(["-H"]).exits(2);
}

fn a_file_below_a_prefix_can_be_pushed_alone(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "a" => "1", "b" => "22", "d/c" => "333", "d/e" => "4444" });
    alpha.csync2(["-cr", "/"]).success();
    alpha.csync2(["-u".as_ref(), alpha.path("a").as_os_str()]).success();
    beta.expect(tree! { "a" => "1" });
    alpha.csync2(["-ur".as_ref(), alpha.path("d").as_os_str()]).success();
    beta.expect(tree! { "a" => "1", "d/c" => "333", "d/e" => "4444" });
    alpha.csync2(["-m", "-r"].map(Into::into).into_iter().chain([alpha.base().as_os_str().to_owned()])).success();
    assert_eq!(alpha.rows(Table::Dirty).len(), 6);
    alpha.csync2(["-u", "-r", "/"]).success();
    cluster.expect_agreement();
}

fn an_operand_below_a_missing_parent_arrives(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "a/b/c/file" => "deep down", "other" => "x" });
    alpha.csync2(["-cIr", "/"]).success();
    alpha.csync2(["-m".as_ref(), alpha.path("a/b/c/file").as_os_str()]).success();
    alpha.csync2(["-u"]).success();
    let arrived = beta.tree();
    assert!(arrived.get("a/b/c/file").is_some(), "{} entries", arrived.len());
    alpha.expect_clean();

    // Not even the root is there.
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&tree! { "other" => "x" });
    cluster["beta"].remove("");
    cluster["alpha"].csync2(["-x"]).success();
    cluster.expect_agreement();
}

fn a_file_behind_a_regular_file_is_gone(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "d/f" => "1" });
    alpha.csync2(["-x"]).success();
    for node in cluster.nodes() {
        node.remove("d");
        node.put(&tree! { "d" => "a file now" });
    }
    cluster["beta"].csync2(["-cIr", "/"]).success();
    alpha.csync2(["-x"]).success();
    alpha.expect_clean();
}

fn devices_keep_their_numbers(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"]
        .put(&tree! { "null" => device(1, 3, false).mode(0o666), "loop" => device(7, 200, true).mode(0o600) });
    cluster["alpha"].csync2(["-x"]).success();
    cluster.expect_agreement();
    cluster["alpha"].put(&tree! { "null" => device(1, 5, false).mode(0o666) });
    cluster["alpha"].csync2(["-x"]).success();
    cluster.expect_agreement();
}

fn a_socket_is_ignored_quietly(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&tree! { "f" => "1", "s" => socket() });
    cluster["alpha"].csync2(["-x"]).success();
    cluster["beta"].expect(tree! { "f" => "1" });
    cluster["alpha"].csync2(["-x"]).success();
    cluster["alpha"].expect_clean();

    // What it takes the place of is gone; a socket that the peer has is its own.
    cluster["alpha"].put(&tree! { "f" => socket() });
    cluster["beta"].put(&tree! { "s" => socket() });
    cluster["alpha"].csync2(["-m".as_ref(), cluster["alpha"].path("s").as_os_str()]).success();
    cluster["alpha"].csync2(["-x"]).success();
    cluster["beta"].expect(tree! { "s" => socket() });
    cluster["alpha"].expect_clean();
}

fn a_longer_link_target_arrives(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    let targets = ["a".to_owned(), "ab".to_owned(), "a".to_owned(), "long/".repeat(600), "long/".repeat(599)];
    for target in targets {
        alpha.put(&tree! { "l" => link(&target) });
        alpha.csync2(["-x"]).success();
        cluster["beta"].expect(tree! { "l" => link(&target) });
    }
}

fn a_change_within_one_second_arrives(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "12345" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "54321" });
    alpha.csync2(["-x"]).success();
    assert_eq!(cluster["beta"].read("f"), "54321");
}

fn a_refused_update_runs_no_action(cast: Cast) {
    let group = "action { exec \"echo ran\"; logfile \"{dir}/ran\"; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "alpha's" });
    beta.put(&tree! { "f" => "the file of beta" });
    beta.csync2(["-cr", "/"]).success();
    alpha.csync2(["-x"]).exits(1).logs("%d%/f").logs(&beta.host).logs("File is also marked dirty here!");
    beta.daemon().wait_for("Connection closed.");
    assert!(!cluster.directory().join("ran").exists());
    assert!(beta.rows(Table::Action).is_empty());
}

fn file_names_run_no_shell_code(cast: Cast) {
    let group = "action { exec \"printf '%%s\\n' %%\"; logfile \"{dir}/names\"; }\n".replace("'%%s", "'%s");
    let cluster = cast.cluster(["alpha", "beta"]).in_group(&group).start();
    let alpha = &cluster["alpha"];
    let names = ["$(touch evil)", "`touch evil`", "a b", "it's; touch evil", "plain"];
    alpha.put(&names.iter().fold(crate::support::Tree::new(), |tree, name| tree.with(name, "x")));
    alpha.csync2(["-x"]).success();
    cluster["beta"].daemon().wait_for("Connection closed.");
    let listed = fs::read_to_string(cluster.directory().join("names")).expect("read the log");
    for name in names {
        let path = cluster["beta"].path(name).display().to_string();
        assert!(listed.lines().any(|line| line == path), "{path} in {listed}");
    }
    assert!(!cluster["beta"].base().join("evil").exists());
}

fn a_dry_run_with_a_new_directory_changes_nothing(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "same" => "equal" });
    beta.put(&tree! { "same" => file("equal").mtime(1_500_000_000) });
    beta.csync2(["-cIr", "/"]).success();
    alpha.put(&tree! { "d/e/f" => "1" });
    let before = beta.tree();
    let peer = format!("{:<15}", beta.host);
    let expected = ["d", "d/e", "d/e/f"].map(|name| format!("?M: {peer} %d%/{name}"));
    let output = alpha.csync2(["-xd"]).success();
    let listed = output.stdout_text();
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with("?S")).collect();
    assert_eq!(listed, expected, "{output:?}");
    assert_same(&before, &beta.tree());
    assert_eq!(alpha.rows(Table::Dirty).len(), 5);
}

fn two_runs_at_once_both_succeed(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&(0..200).fold(tree! {}, |tree, number| tree.with(format!("{number}"), "x".repeat(number))));
    let runs: Vec<Command> = (0..4).map(|_| alpha.command(alpha.program, ["-x"])).collect();
    let threads: Vec<_> = runs.into_iter().map(|command| std::thread::spawn(|| run(command))).collect();
    for thread in threads {
        thread.join().expect("a run").success();
    }
    cluster.expect_agreement();
    alpha.expect_clean();
}

fn a_silent_peer_does_not_delay_the_others(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma", "delta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    cluster["gamma"].serve();
    cluster["delta"].serve();
    // Accepts the connection and never says a word, until the others have been served.
    let silent = std::net::TcpListener::bind((beta.host.as_str(), beta.port)).expect("listen");
    alpha.put(&tree! { "f" => "content" });
    let command = alpha.command(alpha.program, ["-x"]);
    let running = std::thread::spawn(|| run(command));
    let connection = silent.accept().expect("accept");
    for node in ["gamma", "delta"] {
        cluster[node].daemon().wait_for("Updated %d%/f from ");
    }
    drop((connection, silent));
    running.join().expect("the run").exits(1).logs(&beta.host);
    assert!(alpha.rows(Table::Dirty).iter().all(|row| row.ends_with(&beta.host)));
}

/// A PostgreSQL that refuses, drops connections in the middle, or cannot be written to.
#[test]
fn a_failing_postgres_is_named_and_the_next_run_completes() {
    let cast = Cast { client: Program::Ours, server: Program::Ours, tls: false, backend: Backend::Sqlite };
    let cluster =
        cast.cluster(["alpha", "beta"]).top("lock-timeout 1;").role("alpha", Program::Ours, Backend::Postgres).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let name = alpha.database_name().expect("PostgreSQL");
    let server = Postgres::shared();
    alpha.put(&tree! { "f" => "first" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "second version", "g" => "new" });

    let in_trouble = |trouble: &str, remedy: &str| {
        server.sql("postgres", trouble);
        let output = alpha.csync2(["-x"]).exits(1).logs(name);
        assert!(output.stderr_text().contains(name), "{output:?}");
        assert_eq!(beta.read("f"), "first");
        server.sql("postgres", remedy);
    };
    in_trouble(
        &format!("ALTER DATABASE {name} CONNECTION LIMIT 0"),
        &format!("ALTER DATABASE {name} CONNECTION LIMIT -1"),
    );
    in_trouble(
        &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
        &format!("ALTER DATABASE {name} RESET default_transaction_read_only"),
    );
    // Full: every insert fails, as it does on a full disk.
    server.sql(
        name,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON file EXECUTE FUNCTION full_disk()",
    );
    alpha.csync2(["-x"]).exits(1).logs(name).logs("No space left on device");
    server.sql(name, "DROP TRIGGER full_disk ON file");
    // Dropped in the middle: the first insert ends its own connection.
    server.sql(
        name,
        "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
         $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
         CREATE TRIGGER hang_up BEFORE INSERT OR UPDATE ON file EXECUTE FUNCTION hang_up()",
    );
    alpha.csync2(["-x"]).exits(1).logs(name);
    server.sql(name, "DROP TRIGGER hang_up ON file");
    assert_eq!(beta.read("f"), "first");

    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// The receiving side's database fails: the sender is told, nothing is half written, the next run completes.
#[test]
fn a_server_whose_postgres_fails_writes_nothing_half() {
    let cast = Cast { client: Program::Ours, server: Program::Ours, tls: false, backend: Backend::Postgres };
    let cluster = cast.cluster(["alpha", "beta"]).top("lock-timeout 1;").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "first", "d" => dir() });
    alpha.csync2(["-x"]).success();
    let name = beta.database_name().expect("PostgreSQL");
    let server = Postgres::shared();
    alpha.put(&tree! { "f" => "the second version", "d/g" => "new" });
    server.sql("postgres", &format!("ALTER DATABASE {name} CONNECTION LIMIT 0"));
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    server.sql("postgres", &kill);
    alpha.csync2(["-x"]).exits(1);
    let tree = beta.tree();
    assert!(tree.len() <= 4 && ["first", "the second version"].contains(&beta.read("f").as_str()), "{}", tree.len());
    server.sql("postgres", &format!("ALTER DATABASE {name} CONNECTION LIMIT -1"));
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
    beta.csync2(["-cr", "/"]).success();
    beta.expect_clean();
}
