//! Checking and pushing: what arrives at the peers, what stays behind and why.

use crate::support::cast::Backend;
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, Tree, dir, fifo, link, scenarios, tree};

scenarios! {
    everything_arrives
    a_second_run_sends_nothing
    changes_removals_and_renames_arrive
    odd_names_arrive
    a_conflict_stays_dirty
    a_forced_file_wins
    a_slave_is_refused
    a_slave_loses_a_conflict
    auto_methods_decide
    hints_are_checked
    marked_files_are_sent_again
    a_dry_run_lists_and_changes_nothing
    only_the_named_peers_are_served
    only_the_named_groups_are_served
    an_excluded_file_stays_at_home
    ignored_properties_stay
    actions_run_on_both_sides
    old_contents_are_kept_as_backups
    an_init_run_marks_nothing
    a_dead_peer_gets_its_files_later
    the_basis_is_used_for_a_large_file
}

fn sample() -> Tree {
    tree! {
        "motd" => "hello\n",
        "empty" => "",
        "run.sh" => file("#!/bin/sh\necho different length\n").mode(0o755).mtime(1_500_000_000),
        "secret" => file("for the owner").mode(0o600).owner(1234, 4321),
        "setuid" => file("with all bits, longer than others").mode(0o6711).owner(33, 33),
        "old" => file("before 1970? no, just after").mtime(1),
        "d" => dir().mode(0o2750).owner(0, 100),
        "d/one" => "1",
        "d/two" => "22",
        "d/deeper/and/deeper/file" => "at the bottom",
        "empty dir" => dir().mode(0o1777),
        "link" => link("motd"),
        "dangling" => link("no/such/file"),
        "to a directory" => link("d"),
        "pipe" => fifo().mode(0o620),
    }
}

fn everything_arrives(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&sample());
    cluster["alpha"].csync2(["-x"]).success().silent();
    cluster["beta"].expect(sample());
    cluster.expect_agreement();
    cluster["alpha"].expect_clean();
    cluster["beta"].csync2(["-cr", "/"]).success();
    cluster["beta"].expect_clean();
}

fn a_second_run_sends_nothing(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    cluster["alpha"].put(&sample());
    cluster["alpha"].csync2(["-xv"]).success().logs("Connecting to host ").logs("Updating %d%/motd on ");
    cluster.expect_agreement();
    cluster["alpha"].csync2(["-xv"]).success().prints("").logs_no("Connecting").logs_no("Marking");
}

fn changes_removals_and_renames_arrive(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&sample());
    alpha.csync2(["-x"]).success();

    alpha.put(&tree! { "motd" => "a new day, a new message\n", "d/three" => "333" });
    alpha.remove("secret");
    alpha.remove("link");
    alpha.remove("pipe");
    alpha.rename("d", "renamed");
    alpha
        .csync2(["-xv"])
        .success()
        .logs(&cluster.fill_in("Deleting %d%/d/deeper/and/deeper/file on {beta} ..."))
        .logs(&cluster.fill_in("Updating %d%/renamed/three on {gamma} ..."));
    cluster.expect_agreement();
    assert!(!cluster["beta"].path("d").exists() && cluster["beta"].path("renamed/deeper/and").is_dir());
    alpha.expect_clean();
}

fn odd_names_arrive(cast: Cast) {
    let mut names: Vec<Vec<u8>> = [
        "with blank",
        " leading and trailing ",
        "quote's",
        "double\"quote",
        "per%cent",
        "%41 is not A",
        "%d%",
        "new\nline",
        "tab\tand\rreturn",
        "back\\slash",
        "co:lon",
        "dollar$HOME",
        "semi;colon`touch x`",
        "pipe|and&",
        "-dash",
        "*[a-z]?{x}",
        "#hash",
        "ümläut und 日本語",
        "...",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    names.push(vec![b'x'; 255]);
    names.push([&[b'%'; 100][..], &[b' '; 100], b"end"].concat());
    // The C program hands such names to PostgreSQL as they are, which refuses them.
    let c_on_postgres = cast.backend == Backend::Postgres && !cast.all_ours();
    if !c_on_postgres {
        names.push(b"not UTF-8: \xff\xfe \xc3".to_vec());
    }
    let mut tree = Tree::new();
    for (index, name) in names.iter().enumerate() {
        tree =
            tree.with(name, "x".repeat(index + 1)).with([b"dir ", &name[..name.len().min(200)], b"/f"].concat(), "y");
    }
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&tree);
    cluster["alpha"].csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    cluster["alpha"].expect_clean();
    for name in &names {
        cluster["alpha"].remove(name);
    }
    cluster["alpha"].csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    cluster["alpha"].expect_clean();
}

fn a_conflict_stays_dirty(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "common", "other" => "ground" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "alpha's version", "other" => "news" });
    beta.put(&tree! { "f" => "the version of beta" });
    alpha.csync2(["-x"]).exits(1).logs("Finished with 1 errors.");

    beta.expect(tree! { "f" => "the version of beta", "other" => "news" });
    let waiting = |from: &str, to: &str| cluster.fill_in(&format!("chary\t{{{from}}}\t{{{to}}}\t%d%/f\n"));
    alpha.csync2(["-M"]).success().prints(&waiting("alpha", "beta"));
    beta.csync2(["-M"]).success().prints(&waiting("beta", "alpha"));
    alpha.csync2(["-u"]).exits(1);
    assert_eq!(beta.read("f"), "the version of beta");
}

fn a_forced_file_wins(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "common", "g" => "common, too", "gone" => "will be removed" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "alpha's version", "g" => "alpha's g" });
    alpha.remove("gone");
    beta.put(&tree! { "f" => "the version of beta", "g" => "the g of beta", "gone" => "the removed of beta" });
    alpha.csync2(["-x"]).exits(1).logs("Finished with 3 errors.");

    let (f, gone) = (alpha.path("f"), alpha.path("gone"));
    alpha.csync2(["-f".as_ref(), f.as_os_str(), gone.as_os_str()]).success();
    let forced = |how: &str, file: &str| cluster.fill_in(&format!("{how}\t{{alpha}}\t{{beta}}\t%d%/{file}\n"));
    let all = [forced("force", "f"), forced("chary", "g"), forced("force", "gone")].concat();
    alpha.csync2(["-M"]).success().prints(&all);
    alpha.csync2(["-u"]).exits(1);
    alpha.csync2(["-M"]).success().prints(&forced("chary", "g"));
    beta.expect(tree! { "f" => "alpha's version", "g" => "the g of beta" });
    // What was forced is no conflict for the other side either.
    beta.csync2(["-M"]).success().prints(&cluster.fill_in("chary\t{beta}\t{alpha}\t%d%/g\n"));

    alpha.csync2(["-fr", "/"]).success();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

fn a_slave_is_refused(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).hosts("({alpha}) {beta}").start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "from a slave" });
    alpha.csync2(["-xvvv"]).exits(1).logs("Permission denied for slave!");
    assert!(!cluster["beta"].path("f").exists());
    let rows = alpha.csync2(["-M"]).success().stdout_text();
    assert!(rows.contains("%d%/f"), "{rows}");
    // The master will put right what its slave has changed.
    let rows = cluster["beta"].csync2(["-M"]).success().stdout_text();
    assert!(rows.contains(&cluster.fill_in("chary\t{beta}\t{alpha}\t%d%/f\n")), "{rows}");
}

fn a_slave_loses_a_conflict(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).hosts("{alpha} ({beta})").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "common", "gone" => "will go" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "the master's word" });
    alpha.remove("gone");
    beta.put(&tree! { "f" => "what the slave thinks", "gone" => "what the slave keeps" });
    alpha.csync2(["-x"]).success();
    beta.expect(tree! { "f" => "the master's word" });
    alpha.expect_clean();
}

fn auto_methods_decide(cast: Cast) {
    // Each file in a group of its own: the file's name is the method, and what alpha has is (left, later, longer).
    let methods = ["none", "first", "younger", "older", "bigger", "smaller", "left", "right"];
    let group = |method: &str| {
        format!("group {method} {{ host {{alpha}} {{beta}}; key demo.key; include %d%/{method}; auto {method}; }}\n")
    };
    let prefix = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";
    let config = [prefix.to_owned(), methods.map(group).concat()].concat();
    let cluster = cast.cluster(["alpha", "beta"]).config(&config).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let all = |content: &str, mtime: i64| {
        methods.iter().fold(Tree::new(), |tree, method| tree.with(method, file(content).mtime(mtime)))
    };
    alpha.put(&all("common", 1_000_000_000));
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    alpha.put(&all("alpha has the longer text", 1_200_000_000));
    beta.put(&all("beta has less", 1_100_000_000));
    let output = alpha.csync2(["-x"]).exits(1);

    let won: Vec<&str> = methods.into_iter().filter(|name| beta.read(name).starts_with("alpha")).collect();
    assert_eq!(won, ["first", "younger", "bigger", "left"], "{output:?}");
    for (verdict, test) in [
        ("Auto-resolving conflict: Won", "younger/older"),
        ("Do not auto-resolve conflict: Lost", "younger/older"),
        ("Auto-resolving conflict: Won", "bigger/smaller"),
        ("Do not auto-resolve conflict: Lost", "bigger/smaller"),
        ("Auto-resolving conflict: Won", "left/right"),
        ("Do not auto-resolve conflict: Lost", "left/right"),
    ] {
        assert!(output.stderr_text().contains(&format!("{verdict} '{test}' test.")), "{output:?}");
    }
    let waiting = alpha.csync2(["-M"]).success().stdout_text();
    let waiting: Vec<&str> = waiting.lines().filter_map(|line| line.rsplit('/').next()).collect();
    assert_eq!(waiting, ["none", "older", "right", "smaller"]);
}

fn hints_are_checked(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "1", "d/a" => "22", "unhinted" => "333" });
    alpha.csync2(["-h".as_ref(), alpha.path("f").as_os_str()]).success().silent();
    alpha.csync2(["-hr".as_ref(), alpha.path("d").as_os_str()]).success().silent();
    let listed = cluster.fill_in("1\t{alpha.tree}/d\n0\t{alpha.tree}/f\n");
    alpha.csync2(["-H"]).success().prints(&listed);
    alpha.csync2(["-cu"]).success();
    alpha.csync2(["-H"]).exits(2).prints("");
    let beta = cluster["beta"].tree();
    assert!(beta.get("f").is_some() && beta.get("d/a").is_some() && beta.get("unhinted").is_none(), "{}", beta.len());

    // As a watcher calls it, that sees more than we know: the file may be gone by then, or be none of ours.
    alpha.put(&tree! { "d/b" => "4444" });
    for changed in ["f", "d/b", "d/never seen"] {
        alpha.csync2(["-h".as_ref(), alpha.path(changed).as_os_str()]).success().silent();
    }
    alpha.csync2(["-h", "/etc/passwd"]).success().logs("WARNING: Parameter will be ignored: /etc/passwd");
    alpha.remove("f");
    alpha.csync2(["-cu"]).success().silent();
    alpha.csync2(["-H"]).exits(2).prints("");
    let beta = cluster["beta"].tree();
    assert!(beta.get("f").is_none() && beta.get("d/b").is_some() && beta.get("unhinted").is_none(), "{}", beta.len());
    alpha.expect_clean();
}

fn marked_files_are_sent_again(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content", "g" => "other content" });
    alpha.csync2(["-x"]).success();
    alpha.csync2(["-m".as_ref(), alpha.path("f").as_os_str()]).success();
    alpha.csync2(["-M"]).success().prints(&cluster.fill_in("chary\t{alpha}\t{beta}\t%d%/f\n"));
    alpha.csync2(["-uv"]).success().logs("File is already up to date on peer.");
    alpha.expect_clean();

    beta.remove("g");
    alpha.csync2(["-mF".as_ref(), alpha.path("g").as_os_str()]).success();
    alpha.csync2(["-M"]).success().prints(&cluster.fill_in("force\t{alpha}\t{beta}\t%d%/g\n"));
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

fn a_dry_run_lists_and_changes_nothing(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "a" => "changed later", "b" => "removed later", "z" => "stays" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "a" => "changed", "new" => "n" });
    alpha.remove("b");
    let before = beta.tree();
    let peer = format!("{:<15}", beta.host);
    let listed = format!("?D: {peer} %d%/b\n?M: {peer} %d%/a\n?M: {peer} %d%/new\n");
    let output = alpha.csync2(["-xd"]).success();
    // The root's new times make it dirty for some, and the C program then says that it is in sync.
    let lines: Vec<&str> = listed.lines().collect();
    let printed = output.stdout_text();
    let printed: Vec<&str> = printed.lines().filter(|line| !line.starts_with("?S: ")).collect();
    assert_eq!(printed, lines);
    crate::support::assert_same(&before, &beta.tree());
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

fn only_the_named_peers_are_served(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "for all" });
    alpha.csync2(["-x", "-P", &cluster["gamma"].host]).success();
    assert!(!cluster["beta"].path("f").exists() && cluster["gamma"].path("f").exists());
    let waiting = alpha.csync2(["-M"]).success().stdout_text();
    assert!(waiting.contains(&cluster.fill_in("chary\t{alpha}\t{beta}\t%d%/f\n")), "{waiting}");
    assert!(!waiting.contains(&cluster["gamma"].host), "{waiting}");
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

fn only_the_named_groups_are_served(cast: Cast) {
    let config = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n\
        group one { host {alpha} {beta}; key demo.key; include %d%/one; }\n\
        group two { host {alpha} {beta}; key demo.key; include %d%/two; }\n\
        group three { host {alpha} {beta}; key three.key; include %d%/three; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).config(config).build();
    cluster.write_key("three.key", 'C');
    cluster["beta"].serve();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "one/f" => "1", "two/f" => "22", "three/f" => "333" });
    alpha.csync2(["-x", "-G", "two,three"]).success();
    cluster["beta"].expect(tree! { "two" => dir(), "two/f" => "22", "three" => dir(), "three/f" => "333" });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
}

fn an_excluded_file_stays_at_home(cast: Cast) {
    let cluster =
        cast.cluster(["alpha", "beta"]).in_group("exclude *~ *.o; exclude %d%/private; include %d%/private/but;");
    let cluster = cluster.start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! {
        "main.c" => "kept", "main.c~" => "a backup", "d/main.o" => "an object", "private/key" => "no", "d/.hidden" => "yes",
    });
    alpha.csync2(["-x"]).success();
    cluster["beta"].expect(tree! { "main.c" => "kept", "d" => dir(), "d/.hidden" => "yes" });
}

fn ignored_properties_stay(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).top("ignore uid; ignore gid mod;").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => file("content").mode(0o640).owner(12, 34) });
    alpha.csync2(["-x"]).success();
    let arrived = beta.tree();
    let entry = format!("{:?}", arrived.get("f").expect("the file"));
    assert!(entry.contains("mode 0600, owner 0:0"), "{entry}");
    alpha.put(&tree! { "f" => file("content").mode(0o644).owner(56, 78) });
    alpha.csync2(["-xv"]).success().logs_no("Marking");
}

fn actions_run_on_both_sides(cast: Cast) {
    let group = "\
        action { pattern %d%/conf; exec \"echo received >> $PWD/ran\"; logfile \"/dev/null\"; }\n\
        action { pattern %d%/conf; exec \"echo both\"; logfile \"{dir}/both.log\"; do-local; }\n\
        action { pattern %d%/conf; exec \"echo local; echo to stderr >&2\"; logfile \"{dir}/local.log\"; do-local-only; }\n\
        action { pattern %d%/nothing; exec \"echo never\"; logfile \"{dir}/never.log\"; do-local; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "conf" => "setting = 1\n", "data" => "22" });
    alpha.csync2(["-x"]).success();
    // A plain client may return before the server has run its actions.
    cluster["beta"].daemon().wait_for("Connection closed.");
    let log = |name: &str| std::fs::read_to_string(cluster.directory().join(name)).unwrap_or_default();
    assert_eq!(log("both.log"), "both\nboth\n");
    assert_eq!(log("local.log"), "local\nto stderr\n");
    assert_eq!(log("never.log"), "");
    assert_eq!(log("beta/ran"), "received\n");
    assert_eq!(log("alpha/ran"), "");
    assert!(alpha.rows(Table::Action).is_empty() && cluster["beta"].rows(Table::Action).is_empty());
}

fn old_contents_are_kept_as_backups(cast: Cast) {
    let group = "backup-directory {dir}/backups; backup-generations 3;";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    std::fs::create_dir(cluster.directory().join("backups")).expect("make the backup directory");
    let backup = |name: &str| {
        let path = format!("{}/backups{}{name}", cluster.directory().display(), beta.path("f").display());
        std::fs::read_to_string(path).ok()
    };
    alpha.put(&tree! { "f" => "first" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "f" => "second one" });
    alpha.csync2(["-x"]).success();
    assert_eq!(backup("").as_deref(), Some("first"));
    alpha.remove("f");
    alpha.csync2(["-x"]).success();
    assert_eq!(backup("").as_deref(), Some("second one"));
    // The C program overwrites the only copy that it has.
    let older = (cast.server == Program::Ours).then_some("first");
    assert_eq!(backup(".1").as_deref(), older);
}

fn an_init_run_marks_nothing(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "known to both" });
    alpha.csync2(["-cIr", "/"]).success();
    alpha.expect_clean();
    assert_eq!(alpha.rows(Table::File).len(), 2);
    alpha.put(&tree! { "f" => "changed afterwards" });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
}

fn a_dead_peer_gets_its_files_later(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&sample());
    cluster["beta"].stop();
    let failed = cluster.fill_in("ERROR: Connection to remote host `{beta}' failed.");
    alpha.csync2(["-x"]).exits(1).logs(&failed).logs("Finished with 1 errors.");
    cluster["gamma"].expect(sample());
    let waiting = alpha.rows(Table::Dirty);
    assert_eq!(waiting.len(), alpha.tree().len(), "{waiting:?}");
    assert!(waiting.iter().all(|row| row.ends_with(&cluster["beta"].host)), "{waiting:?}");
    cluster["beta"].serve();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

fn the_basis_is_used_for_a_large_file(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    // Pseudo-random, so that no two blocks are alike.
    let mut state = 1_u32;
    let mut content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(3_000_001)
    .collect();
    alpha.put(&tree! { "large" => content.clone() });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    content.splice(1_000_000..1_000_005, *b"inserted in the middle");
    content.truncate(2_900_000);
    alpha.put(&tree! { "large" => content });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
}
