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
