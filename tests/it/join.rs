//! A new host joins a running one: `--join`.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::run;
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, Tree, scenarios, tree};

const OURS: Cast = Cast { client: Program::Ours, server: Program::Ours, tls: true, backend: Backend::Sqlite };

scenarios! { joining:
    what_is_equal_is_not_sent_and_the_rest_comes
    a_join_that_is_killed_is_repeated
}

/// Files whose times have a fraction of no second, so that every program can tell that copies are equal.
fn many(count: usize) -> Tree {
    (0..count).fold(Tree::new(), |tree, number| {
        tree.with(format!("d{}/f{number}", number % 7), file(&"x".repeat(number % 90)).mtime(1_600_000_000))
    })
}

/// `beta` runs and has recorded its files; `alpha`, which serves too, has copies of most of them: two are missing, one is
/// different, and one exists only there.
fn story(cast: Cast, files: usize) -> Cluster {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).in_group("auto first;").build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&many(files));
    beta.csync2(["-cIr", "/"]).success();
    copy(beta, alpha);
    alpha.remove("d1/f1");
    alpha.remove("d2/f2");
    alpha.put(&tree! { "d3/f3" => "different here", "own" => "only here" });
    beta.serve();
    alpha.serve();
    cluster
}

fn copy(from: &Node, to: &Node) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from.tree_dir().join(".")).arg(to.tree_dir());
    run(copy).success();
}

fn join(alpha: &Node, beta: &Node) -> Command {
    alpha.command(Program::Ours, ["--join", &beta.host])
}

/// What an administrator is told to do on a peer that runs another csync2.
fn push_by_hand(alpha: &Node, beta: &Node) {
    beta.csync2(["-TUI", &beta.host, &alpha.host]).success();
    beta.csync2(["-u", "-P", &alpha.host]).success();
}

fn agree_but_for_what_only_alpha_has(alpha: &Node, beta: &Node) {
    let expected = beta.tree();
    crate::support::assert_same(&expected, &alpha.tree().without("own"));
    assert_eq!((alpha.rows(Table::Dirty), beta.rows(Table::Dirty)), (vec![], vec![]), "no host is told anything");
}

fn what_is_equal_is_not_sent_and_the_rest_comes(cast: Cast) {
    let files = std::env::var("CSYNC2_JOIN_FILES").map_or(300, |number| number.parse().expect("a number"));
    let cluster = story(cast, files);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let before = beta.tree();
    let (me, peer) = (&alpha.host, &beta.host);
    let listed = format!(
        "R\t{me}\t{peer}\t%d%/d1/f1\nR\t{me}\t{peer}\t%d%/d2/f2\nX\t{me}\t{peer}\t%d%/d3/f3\nL\t{me}\t{peer}\t%d%/own\n"
    );
    let forecast = run(alpha.command(Program::Ours, ["-d", "--join", peer])).success().stdout_text();
    assert!(forecast.starts_with(&listed), "{forecast}");
    assert!(forecast.contains(" files are equal, and are not sent. 3 are missing or different here"), "{forecast}");
    assert!(forecast.contains("1 exist only here (L): neither sent nor removed"), "{forecast}");
    assert_eq!(beta.rows(Table::Dirty), [""; 0], "a dry run asks for nothing");
    if cast.server == Program::Ours {
        let told = run(join(alpha, beta)).success().stdout_text();
        assert!(told.starts_with(&listed) && told.contains("3 files have come."), "{told}");
    } else {
        let remedy = format!("`csync2 -TUI {peer} {me} && csync2 -u -P {me}`");
        run(join(alpha, beta)).exits(1).logs("cannot be asked for files").logs(&remedy);
        push_by_hand(alpha, beta);
    }
    agree_but_for_what_only_alpha_has(alpha, beta);
    crate::support::assert_same(&before, &beta.tree());
    let again = run(join(alpha, beta)).success().stdout_text();
    assert!(again.contains("0 are missing or different here"), "{again}");
    // With one of ours, nothing else went. The sessions: two of the dry run, four of the join, two of the last one.
    if cast.server == Program::Ours {
        let sent = beta.daemon().wait_for_all("Finished with", 8);
        let sent: Vec<_> = sent.iter().filter(|line| line.contains("Updating ")).collect();
        assert_eq!(sent.len(), 3, "{sent:#?}");
    }
}

fn a_join_that_is_killed_is_repeated(cast: Cast) {
    let cluster = story(cast, 200);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    for number in 4..150 {
        alpha.remove(format!("d{}/f{number}", number % 7));
    }
    let before = beta.tree();
    alpha.csync2(["-H"]).exits(2);
    let mut killed = join(alpha, beta).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It has written the table, and is asking, or waiting for what comes.
    while alpha.rows(Table::File).is_empty() {
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let joined = run(join(alpha, beta));
    if cast.server == Program::Ours {
        joined.success();
    } else {
        joined.exits(1);
        push_by_hand(alpha, beta);
        run(join(alpha, beta)).success();
    }
    agree_but_for_what_only_alpha_has(alpha, beta);
    crate::support::assert_same(&before, &beta.tree());
}

#[test]
fn what_does_not_come_is_told_and_comes_with_the_next_join() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&tree! { "a" => "1", "big" => file(&"content ".repeat(1_000)), "z" => "22" });
    beta.csync2(["-cIr", "/"]).success();
    beta.serve();
    let config = alpha.system_dir().join("csync2.cfg");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("max-file-size 4K;\n{text}")).unwrap();
    alpha.serve();
    run(join(alpha, beta)).exits(1).logs("1 files have not come, the first of them %d%/big.");
    assert_eq!(alpha.read("z"), "22");
    fs::write(&config, text).unwrap();
    alpha.stop();
    alpha.serve();
    run(join(alpha, beta)).success();
    cluster.expect_agreement();
}

#[test]
fn what_was_changed_here_since_is_kept_and_sent_by_a_push() {
    let cluster = story(OURS, 20);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    run(join(alpha, beta)).success();
    alpha.put(&tree! { "d3/f3" => "edited after the join", "new" => "made after it" });
    alpha.remove("d1/f1");
    let told = run(join(alpha, beta)).success().stdout_text();
    assert!(told.contains("1 were changed here and wait to be sent"), "{told}");
    assert!(told.contains("2 exist only here (L)"), "{told}");
    assert_eq!(alpha.read("d3/f3"), "edited after the join");
    assert_eq!(beta.read("d1/f1"), "x", "nothing is removed where it runs");
    assert_eq!(alpha.read("d1/f1"), "x", "and it is back here");
    alpha.csync2(["-u", "-P", &beta.host]).success();
    assert_eq!(beta.read("d3/f3"), "edited after the join");
    assert!(!beta.path("new").exists());
}

/// Two that serve and agree. `alpha` has joined `beta`.
fn joined() -> Cluster {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&many(20));
    beta.csync2(["-cIr", "/"]).success();
    beta.serve();
    alpha.serve();
    run(join(alpha, beta)).success();
    cluster
}

#[test]
fn a_lost_disk_is_filled_again_and_removes_nothing() {
    let cluster = joined();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let before = beta.tree();
    fs::remove_dir_all(alpha.tree_dir()).unwrap();
    let told =
        run(join(alpha, beta)).exits(1).logs("is missing, and with it all").logs("join with --allow-mass-removal");
    assert!(!told.stderr_text().contains("csync2 -c"), "a check would remove them there: {told:?}");
    alpha.csync2(["-d", "--allow-mass-removal", "--join", &beta.host]).success();
    assert_eq!((alpha.rows(Table::File), alpha.rows(Table::Dirty)), (vec![], vec![]));
    fs::create_dir(alpha.tree_dir()).unwrap();
    run(join(alpha, beta)).success();
    alpha.csync2(["-x"]).success();
    crate::support::assert_same(&before, &beta.tree());
    cluster.expect_agreement();

    // Where the directory was made before, there is nothing to ask.
    fs::remove_dir_all(alpha.tree_dir()).unwrap();
    fs::create_dir(alpha.tree_dir()).unwrap();
    run(join(alpha, beta)).success();
    crate::support::assert_same(&before, &beta.tree());
    cluster.expect_agreement();
}

#[test]
fn a_removal_that_waits_to_be_sent_is_told_with_what_it_does() {
    let cluster = joined();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let file = "d1/f1";
    alpha.remove(file);
    alpha.csync2(["-c", alpha.path(file).to_str().unwrap()]).success();
    for arguments in [&["--join", &beta.host][..], &["-d", "--join", &beta.host]] {
        let told = run(alpha.command(Program::Ours, arguments)).exits(1);
        let told = told.logs("1 files that it has were removed here, the first of them %d%/d1/f1, and wait to be sent");
        let told = told.stdout_text();
        assert!(told.contains("0 are missing or different here") && !told.contains("changed here"), "{told}");
    }
    assert!(!alpha.path(file).exists() && beta.path(file).exists());
    // What the line says is the way back.
    beta.csync2(["-mF", beta.path(file).to_str().unwrap()]).success();
    beta.csync2(["-u", "-P", &alpha.host]).success();
    run(join(alpha, beta)).success();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
    assert_eq!(beta.read(file), "x");
}

#[test]
fn a_removal_that_waits_where_it_runs_does_not_come_with_a_join() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&tree! { "removed" => "before", "new" => "content", "same" => "equal" });
    beta.csync2(["-cr", "/"]).success();
    copy(beta, alpha);
    alpha.remove("new");
    beta.remove("removed");
    beta.csync2(["-cr", "/"]).success();
    beta.serve();
    alpha.serve();
    let told = run(join(alpha, beta)).success().stdout_text();
    assert!(told.contains("1 exist only here (L): neither sent nor removed"), "{told}");
    assert_eq!((alpha.read("new"), alpha.read("removed")), ("content".into(), "before".into()));
    let waiting = beta.rows(Table::Dirty);
    assert!(
        matches!(waiting.as_slice(), [only] if only.contains("removed")),
        "what is equal is no longer dirty: {waiting:?}"
    );
    beta.csync2(["-u"]).success();
    assert!(!alpha.path("removed").exists());
    cluster.expect_agreement();
}

#[test]
fn what_has_changed_where_it_runs_without_a_check_comes_and_is_told() {
    let cluster = joined();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&tree! { "d1/f1" => "another content", "d2/f2" => "one more" });
    beta.remove("d3/f3");
    alpha.remove("d1/f1");
    alpha.remove("d3/f3");
    let told = run(join(alpha, beta)).success().stdout_text();
    assert!(told.contains("1 files have come."), "{told}");
    assert!(
        told.contains("1 files have changed there since they were last checked, the first of them %d%/d1/f1"),
        "{told}"
    );
    assert!(
        told.contains("1 files are gone there since they were last checked, the first of them %d%/d3/f3"),
        "{told}"
    );
    assert_eq!(alpha.read("d1/f1"), "another content");
    assert!(!alpha.path("d3/f3").exists());
    // It is so until that host looks.
    let again = run(join(alpha, beta)).success().stdout_text();
    assert!(again.contains("0 files have come.") && again.contains("1 files have changed there since"), "{again}");
    beta.csync2(["-cr", "/"]).success();
    let again = run(join(alpha, beta)).success().stdout_text();
    assert!(again.contains("1 files have come.") && !again.contains("since they were last checked"), "{again}");
    assert_eq!(alpha.read("d2/f2"), "one more");
}

#[test]
fn what_is_marked_before_wins() {
    let cluster = story(OURS, 20);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.csync2(["-m", alpha.path("d3/f3").to_str().unwrap()]).success();
    run(join(alpha, beta)).success();
    alpha.csync2(["-u", "-P", &beta.host]).success();
    assert_eq!(beta.read("d3/f3"), "different here");
}

#[test]
fn a_slave_joins_its_master_and_not_the_other_way() {
    let cluster = OURS.cluster(["alpha", "beta"]).hosts("({alpha}) {beta}").build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&tree! { "f" => "the master's" });
    beta.csync2(["-cIr", "/"]).success();
    alpha.put(&tree! { "g" => "the slave's own" });
    beta.serve();
    alpha.serve();
    run(join(alpha, beta)).success();
    assert_eq!(alpha.read("f"), "the master's");
    let told = run(join(beta, alpha)).success().stdout_text();
    assert!(told.contains("1 are not to come from there, where it is a slave"), "{told}");
    assert!(!beta.path("g").exists());
}

#[test]
fn a_host_that_was_never_checked_has_nothing_to_join() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    beta.put(&tree! { "f" => "not known yet" });
    alpha.put(&tree! { "g" => "this host's own" });
    beta.serve();
    alpha.serve();
    let said = "knows no files that it shares with this host: `csync2 -cr /` there, then join again.";
    run(join(alpha, beta)).exits(1).logs(said);
    beta.csync2(["-cr", "/"]).success();
    run(join(alpha, beta)).success();
    assert_eq!(alpha.read("f"), "not known yet");
}

#[test]
fn files_that_only_the_other_configuration_has_are_no_slaves() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let config = alpha.system_dir().join("csync2.cfg");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("include %d%;", "include %d%; exclude only*;")).unwrap();
    beta.put(&tree! { "f" => "content", "only1" => "there", "only2" => "more there" });
    beta.csync2(["-cIr", "/"]).success();
    beta.serve();
    alpha.serve();
    for arguments in [&["-d", "--join", &beta.host][..], &["--join", &beta.host]] {
        let told = run(alpha.command(Program::Ours, arguments)).exits(1);
        let told =
            told.logs("has 2 files for this host that no group here shares with it, the first of them %d%/only1");
        assert!(!told.stdout_text().contains("slave"), "{told:?}");
    }
    assert_eq!((alpha.read("f").as_str(), alpha.path("only1").exists()), ("content", false));
}

#[test]
fn what_is_in_the_way_is_told_before_anything_is_done() {
    for server in [Program::Ours, Program::Reference] {
        let cluster = Cast { server, ..OURS }.cluster(["alpha", "beta", "gamma"]).build();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        beta.put(&tree! { "f" => "content" });
        beta.csync2(["-cIr", "/"]).success();
        beta.serve();
        run(join(alpha, beta)).exits(1).logs(&format!("no csync2 listens on port {} of {}", alpha.port, alpha.host));
        alpha.serve();
        run(join(alpha, &cluster["gamma"])).exits(1).logs("Connection to remote host");
        run(alpha.command(Program::Ours, ["--join", "delta"]))
            .exits(1)
            .logs("no group has both this host and delta in it");
        let key = alpha.system_dir().join("demo.key");
        let right = fs::read(&key).unwrap();
        alpha.write_key("demo.key", 'X');
        let told = run(join(alpha, beta)).exits(1);
        let _ = told.logs("%d%: Permission denied!").logs("key files of both hosts");
        assert_eq!(alpha.rows(Table::File), [""; 0], "nothing was done");
        fs::write(key, right).unwrap();
    }
}
