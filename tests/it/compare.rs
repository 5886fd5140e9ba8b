//! `-T` and `-TT`: what differs between the databases of two hosts, in every form, marked, and as diffs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::{Output, peak_memory, run};
use crate::support::tree::{device, file};
use crate::support::{Cast, Postgres, Program, certs, dir, fifo, link, scenarios, tree};

scenarios! {
    every_form_lists_what_differs
    marked_differences_are_sent
    what_was_pushed_is_in_sync
}

scenarios! { tls:
    diffs_look_like_those_of_the_c_program
    pairs_come_in_one_order_whoever_is_down
}

scenarios! { ours:
    names_of_every_kind_are_compared_in_one_order
    what_stands_alone_at_the_end_is_found
    links_and_special_files_are_compared_and_never_opened
    times_agree_as_far_as_both_sides_know_them
    other_groups_are_left_aside
    without_the_program_diff_the_reason_is_said
    groups_may_have_more_keys_than_a_line_holds
}

/// Has each node record what is on its disk.
fn record(cluster: &Cluster) {
    for node in cluster.nodes() {
        node.csync2(["-cIr", "/"]).success();
    }
}

/// Runs a command line in which `{alpha}`, `{alpha.tree}` and so on may stand; words are separated by blanks.
#[track_caller]
fn compare(cluster: &Cluster, arguments: &str) -> Output {
    let arguments = arguments.split(' ').map(|argument| cluster.fill_in(argument));
    cluster["alpha"].csync2(arguments)
}

/// Lines of output: blanks in them become tabs.
fn lines(cluster: &Cluster, lines: &[&str]) -> String {
    lines.iter().map(|line| cluster.fill_in(line).replace(' ', "\t") + "\n").collect()
}

/// What alpha has marked as dirty.
fn dirty(cluster: &Cluster) -> Vec<String> {
    let output = cluster["alpha"].csync2(["-M"]).stdout_text();
    let names = cluster.nodes().iter().map(|node| (&node.host, node.name()));
    let named = names.fold(output, |text, (host, name)| text.replace(&format!("{host}\t"), &format!("{name}\t")));
    named.lines().map(|line| line.replace('\t', " ")).collect()
}

fn every_form_lists_what_differs(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(
        &tree! { "same" => "1", "here" => "22", "other" => "alpha's", "mode" => "3", "type" => dir(), "zoo" => "4" },
    );
    beta.put(
        &tree! { "same" => "1", "there" => "55", "other" => "that of beta", "mode" => file("3").mode(0o600), "type" => "6" },
    );
    record(&cluster);
    let all = [
        "L {alpha} {beta} %d%/here",
        "X {alpha} {beta} %d%/mode",
        "X {alpha} {beta} %d%/other",
        "R {alpha} {beta} %d%/there",
        "X {alpha} {beta} %d%/type",
        "L {alpha} {beta} %d%/zoo",
    ];
    let all = lines(&cluster, &all);
    let check = "Running in-sync check for {alpha} <-> {beta}.";
    compare(&cluster, "-T").prints(&all).success().logs_nothing();
    compare(&cluster, "-Tv").prints(&all).success().logs(&cluster.fill_in(check)).logs("Finished with 0 errors.");
    let pair = compare(&cluster, "-Tv {alpha} {beta}").prints(&all).success();
    pair.logs(&cluster.fill_in("Connecting to host {beta} (")).logs_no("Running in-sync check");
    // The other attributes count, the names and the options besides do not.
    compare(&cluster, "-T -P nobody -r -d").prints(&all).success();

    for (operands, expected) in [
        ("{alpha.tree}/mode", "X {alpha} {beta} %d%/mode"),
        ("{alpha} {beta} {alpha.tree}/mode", "X {alpha} {beta} %d%/mode"),
        ("{alpha} {beta} {alpha.tree}/there", "R {alpha} {beta} %d%/there"),
        ("{alpha.tree}/here", "L {alpha} {beta} %d%/here"),
    ] {
        compare(&cluster, &format!("-T {operands}")).prints(&lines(&cluster, &[expected])).success();
    }
    for operands in ["{alpha.tree}/same", "{alpha} {beta} {alpha.tree}/same", "{alpha.tree}/nothing", "{alpha.tree}"] {
        compare(&cluster, &format!("-T {operands}")).prints("").exits(2).logs_nothing();
    }
    let ignored = "WARNING: Parameter will be ignored: /not/covered";
    compare(&cluster, "-T /not/covered").prints("").exits(2).logs(ignored);
    compare(&cluster, "-T {alpha} {beta} /not/covered").prints("").exits(2).logs(ignored);
    for operands in ["{beta} {alpha}", "{alpha} nobody", "{alpha} nobody {alpha.tree}/mode", "{alpha} {alpha}"] {
        let output = compare(&cluster, &format!("-T {operands}")).prints("").exits(1);
        output.logs("Host pair not found in configuration.").logs("Finished with 1 errors.");
    }
    alpha.expect_clean();

    beta.put(&alpha.tree());
    beta.remove("there");
    record(&cluster);
    compare(&cluster, "-T").silent().exits(2);
    compare(&cluster, "-TT").silent().exits(2);
    compare(&cluster, "-T {alpha} {beta}").silent().exits(2);
    compare(&cluster, "-TIXU").silent().exits(2);
    // Databases are compared, not files.
    beta.put(&tree! { "same" => "changed" });
    compare(&cluster, "-T").silent().exits(2);
}

fn marked_differences_are_sent(cast: Cast) {
    let action = "action { pattern %d%/x; exec \"echo ran >> {dir}/ran\"; do-local; }";
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).in_group(action).start();
    let (alpha, beta, gamma) = (&cluster["alpha"], &cluster["beta"], &cluster["gamma"]);
    let ran = || fs::read_to_string(cluster.directory().join("ran")).unwrap_or_default();
    let common = tree! { "same" => "1", "x" => "alpha's own" };
    alpha.put(&common.clone().with("l", "here"));
    gamma.put(&common.clone().with("l", "here"));
    beta.put(&tree! { "same" => "1", "x" => "beta's", "r" => "there", "r2" => "there as well" });
    record(&cluster);

    let start_again = || {
        alpha.database.execute("DELETE FROM dirty");
        drop(fs::remove_file(cluster.directory().join("ran")));
    };
    let (l, x) = ("chary alpha beta %d%/l", "chary alpha beta %d%/x");
    let (r, r2) = ("chary alpha beta %d%/r", "chary alpha beta %d%/r2");
    for (arguments, expected) in [
        ("-TIU", vec![l, x]),
        ("-TIU {alpha} {beta}", vec![l, x]),
        ("-TUXI", vec![l, r, r2, x]),
        ("-TIU {alpha} {beta} {alpha.tree}/l", vec![l]),
        ("-TIU {alpha} {beta} {alpha.tree}/r", vec![]),
        ("-TIXU {alpha} {beta} {alpha.tree}/r", vec![r]),
        ("-TIU {alpha} {gamma}", vec![]),
        ("-TIFU {alpha} {beta} {alpha.tree}/x", vec!["force alpha beta %d%/x"]),
        ("-TTIU", vec![l, x]),
    ] {
        start_again();
        compare(&cluster, arguments);
        assert_eq!(dirty(&cluster), expected, "{arguments}");
        assert_eq!(ran(), if expected.iter().any(|row| row.ends_with("/x")) { "ran\n" } else { "" }, "{arguments}");
    }
    // Without -U the other peers are told, too.
    start_again();
    compare(&cluster, "-TIXv {alpha} {beta}").success().logs("Marking file as dirty: %d%/r2\n");
    let everybody = ["l", "r", "r2", "x"].iter();
    let everybody: Vec<String> =
        everybody.flat_map(|name| ["beta", "gamma"].map(|peer| format!("chary alpha {peer} %d%/{name}"))).collect();
    assert_eq!(dirty(&cluster), everybody);

    // As scripts do it: what differs is marked, and sent.
    start_again();
    compare(&cluster, "-TUI").success();
    compare(&cluster, "-u").success();
    compare(&cluster, "-T").prints(&lines(&cluster, &["R {alpha} {beta} %d%/r", "R {alpha} {beta} %d%/r2"])).success();
    compare(&cluster, "-TUXI").success();
    compare(&cluster, "-u").success();
    compare(&cluster, "-T").silent().exits(2);
    cluster.expect_agreement();
}

/// Whoever asks, also for links below a prefix, whose targets only ours records.
fn what_was_pushed_is_in_sync(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(
        &tree! { "f" => "1", "d/g" => "22", "link" => link("f"), "d/up" => link("../with blanks"), "pipe" => fifo() },
    );
    alpha.csync2(["-x"]).success();
    compare(&cluster, "-T").silent().exits(2);
    compare(&cluster, "-TUI {alpha} {beta}").silent().exits(2);
    alpha.serve();
    cluster["beta"].csync2(["-T"]).silent().exits(2);
    cluster["beta"].expect_clean();
}

fn diffs_look_like_those_of_the_c_program(cast: Cast) {
    let cluster =
        cast.cluster(["alpha", "beta", "gamma"]).in_group("exclude %d%/seen; compare %seen%;").top(SEEN).start();
    let (alpha, beta, gamma) = (&cluster["alpha"], &cluster["beta"], &cluster["gamma"]);
    alpha.put(&tree! { "same" => "1\n", "text" => "a\nb\nc\n", "here" => "new\n", "binary" => "a\0b", "mode" => "m\n", "end" => "no newline", "seen/s" => "s1\n" });
    beta.put(&tree! { "same" => "1\n", "text" => file("a\nB\nc\n").mtime(1_500_000_000), "there" => "old\n", "binary" => "a\0bc", "mode" => file("m\n").mode(0o600), "end" => "no newline\n", "seen/s" => "s2\n" });
    gamma.put(&alpha.tree());
    gamma.put(&tree! { "text" => "a\nb\nc\nd\n" });
    record(&cluster);
    let text = |expected: &str| cluster.fill_in(expected);
    let of_text = text("--- {beta}:%d%/text\n+++ {alpha}:%d%/text\n@@ -1,3 +1,3 @@\n a\n-B\n+b\n c\n");
    let of_gamma = text("--- {gamma}:%d%/text\n+++ {alpha}:%d%/text\n@@ -1,4 +1,3 @@\n a\n b\n c\n-d\n");
    // The last name comes first.
    let of_beta = text(
        "--- {beta}:%d%/there\n+++ {alpha}:%d%/there\n@@ -1 +0,0 @@\n-old\nTEXT\
         Files {beta}:%d%/mode and {alpha}:%d%/mode are identical\n\
         --- {beta}:%d%/here\n+++ {alpha}:%d%/here\n@@ -0,0 +1 @@\n+new\n\
         --- {beta}:%d%/end\n+++ {alpha}:%d%/end\n@@ -1 +1 @@\n-no newline\n+no newline\n\\ No newline at end of file\n\
         Binary files {beta}:%d%/binary and {alpha}:%d%/binary differ\n",
    )
    .replace("TEXT", &of_text);
    compare(&cluster, "-TT").prints(&[&*of_gamma, &*of_beta].concat()).success().logs_nothing();
    compare(&cluster, "-TT {alpha} {beta}").prints(&of_beta).success();
    compare(&cluster, "-TT {alpha.tree}/text").prints(&[&*of_text, &*of_gamma].concat()).exits(2);
    compare(&cluster, "-TT {alpha} {gamma} {alpha.tree}/text").prints(&of_gamma).success();
    let same = text("Files {beta}:%d%/same and {alpha}:%d%/same are identical\n");
    compare(&cluster, "-TT {alpha} {beta} {alpha.tree}/same").prints(&same).success();
    // What only a `compare` pattern covers; it is in no database.
    let seen = text("--- {beta}:%seen%/s\n+++ {alpha}:%seen%/s\n@@ -1 +1 @@\n-s2\n+s1\n");
    compare(&cluster, "-TT {alpha} {beta} {alpha.tree}/seen/s").prints(&seen).success();
    compare(&cluster, "-TT -P {beta} {alpha} {beta} {alpha.tree}/seen/s").prints(&seen).success();
    let not_found = "Host pair + file not found in configuration.";
    for arguments in ["-TT -P nobody {alpha} {beta} {alpha.tree}/text", "-TT {alpha} nobody {alpha.tree}/text"] {
        compare(&cluster, arguments).prints("").exits(1).logs(not_found);
    }
    compare(&cluster, "-TT {alpha} {beta} /not/covered").exits(1).logs("Parameter will be ignored").logs(not_found);
    compare(&cluster, "-TT -P nobody {alpha.tree}/text").silent().exits(2);
    compare(&cluster, "-TT /not/covered").prints("").exits(2).logs("Parameter will be ignored: /not/covered");

    gamma.stop();
    let output = compare(&cluster, "-TT {alpha.tree}/text").prints(&of_text).exits(1);
    output.logs(&text("ERROR: Connection to remote host `{gamma}' failed.")).logs("Finished with 1 errors.");
}

/// A directory that is only compared.
const SEEN: &str =
    "prefix seen { on {alpha}: {alpha.tree}/seen; on {beta}: {beta.tree}/seen; on {gamma}: {gamma.tree}/seen; }";

fn pairs_come_in_one_order_whoever_is_down(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma", "delta"]).start();
    cluster["alpha"].put(&tree! { "a" => "1" });
    cluster["beta"].put(&tree! { "a" => "22" });
    cluster["gamma"].put(&tree! { "a" => "333" });
    record(&cluster);
    let [beta, gamma, delta] = ["X {alpha} {beta} %d%/a", "X {alpha} {gamma} %d%/a", "L {alpha} {delta} %d%/a"];
    compare(&cluster, "-T").prints(&lines(&cluster, &[delta, gamma, beta])).success();
    cluster["gamma"].stop();
    let output = compare(&cluster, "-T").prints(&lines(&cluster, &[delta, beta])).exits(1);
    let failed = cluster.fill_in("ERROR: Connection to remote host `{gamma}' failed.");
    output.logs(&failed).logs("Finished with 1 errors.");
    compare(&cluster, "-T {alpha} {gamma}").prints("").exits(1).logs(&failed);
    compare(&cluster, "-TI {alpha} {gamma}").prints("").exits(1);
    cluster["alpha"].expect_clean();
}

/// Names whose order depends on who sorts them, and names that the C program cannot hold.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        ["a b", "a#b", "a&b", "a", "a.d", "a/x", "A", "\u{e9}", "-dash", "q'\"$|\\`x`;", "n\nl", "%41", "~"]
            .map(|name| name.as_bytes().to_vec())
            .into();
    names.push(b"no \xff utf-8".to_vec());
    let part = [b'%'; 250];
    names.push([&part[..], &part, &part, &part, &part, &part, &part, &part, b"end"].join(&b'/'));
    names
}

fn names_of_every_kind_are_compared_in_one_order(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let names: Vec<Vec<u8>> = odd_names().into_iter().filter(|name| name != b"a").collect();
    for node in [alpha, beta] {
        node.put(&names.iter().fold(tree! {}, |tree, name| tree.with(name, "same")));
    }
    record(&cluster);
    compare(&cluster, "-T").silent().exits(2);
    beta.put(&names.iter().fold(tree! {}, |tree, name| tree.with(name, "of beta\n")));
    beta.csync2(["-cIr", "/"]).success();

    let output = compare(&cluster, "-T").success();
    let mut expected: Vec<Vec<u8>> = names.iter().map(|name| line_of(&cluster, name)).collect();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for start in output.stdout.split_inclusive(|&byte| byte == b'\n') {
        match found.last_mut() {
            Some(before) if !start.starts_with(b"X\t") => before.extend_from_slice(start),
            _ => found.push(start.to_vec()),
        }
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);

    let output = compare(&cluster, "-TT").success();
    for name in &names {
        let of = |node: &Node| [node.host.as_bytes(), b":%d%/", name].concat();
        let header = [b"--- ", &of(beta)[..], b"\n+++ ", &of(alpha), b"\n@@ -1 +1 @@\n-of beta\n+same\n"].concat();
        let is_there = output.stdout.windows(header.len()).any(|window| window == header);
        assert!(is_there, "{}", String::from_utf8_lossy(&header));
    }
}

/// The line of `-T` for a file that is different.
fn line_of(cluster: &Cluster, name: &[u8]) -> Vec<u8> {
    let start = cluster.fill_in("X\t{alpha}\t{beta}\t%d%/");
    [start.as_bytes(), name, b"\n"].concat()
}

/// The C program forgets the file of the peer that it has read when its own list ends.
fn what_stands_alone_at_the_end_is_found(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&tree! { "a" => "1", "c" => "1" });
    cluster["beta"].put(&tree! { "b" => "22", "d" => "22" });
    record(&cluster);
    let [a, b] = ["L {alpha} {beta} %d%/a", "R {alpha} {beta} %d%/b"];
    let [c, d] = ["L {alpha} {beta} %d%/c", "R {alpha} {beta} %d%/d"];
    compare(&cluster, "-T").prints(&lines(&cluster, &[a, b, c, d])).success();
}

fn links_and_special_files_are_compared_and_never_opened(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let secret = alpha.base().join("secret");
    fs::write(&secret, "outside\n").expect("write");
    alpha.put(&tree! { "link" => link("a"), "same" => link("b"), "out" => link(secret.as_os_str().as_encoded_bytes()), "fifo" => fifo(), "device" => device(1, 3, false), "d" => dir(), "in/f" => "f" });
    beta.put(&tree! { "link" => link("bb"), "same" => link("b"), "out" => "in\n", "fifo" => "file\n", "device" => "file\n", "e" => dir(), "in/f" => "g\n" });
    record(&cluster);
    // A directory of ours that has become a link since is not followed.
    alpha.remove("in");
    alpha.put(&tree! { "in" => link(alpha.base().as_os_str().as_encoded_bytes()) });
    fs::write(alpha.base().join("f"), "outside\n").expect("write");
    compare(&cluster, "-T").success().prints(&lines(
        &cluster,
        &[
            "L {alpha} {beta} %d%/d",
            "X {alpha} {beta} %d%/device",
            "R {alpha} {beta} %d%/e",
            "X {alpha} {beta} %d%/fifo",
            "X {alpha} {beta} %d%/in/f",
            "X {alpha} {beta} %d%/link",
            "X {alpha} {beta} %d%/out",
        ],
    ));
    let is = |name: &str, theirs: &str, ours: &str| {
        cluster.fill_in(&format!("File {{beta}}:%d%/{name} {theirs} while file {{alpha}}:%d%/{name} {ours}\n"))
    };
    let expected = [
        is("out", "is a regular file", "is a symbolic link"),
        cluster.fill_in("Files {beta}:%d%/link and {alpha}:%d%/link differ: each is a symbolic link\n"),
        cluster.fill_in("--- {beta}:%d%/in/f\n+++ {alpha}:%d%/in/f\n@@ -1 +0,0 @@\n-g\n"),
        is("fifo", "is a regular file", "is a fifo"),
        is("e", "is a directory", "does not exist"),
        is("device", "is a regular file", "is a character special file"),
        is("d", "does not exist", "is a directory"),
    ];
    compare(&cluster, "-TT").prints(&expected.concat()).success().logs_nothing();
    let why = cluster.fill_in("File {alpha}:%d%/fifo is a fifo: its content is not compared\n");
    compare(&cluster, "-TT {alpha.tree}/fifo").prints(&why).exits(2);
}

fn times_agree_as_far_as_both_sides_know_them(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let times = [-1, 0, 1, 1_600_000_000];
    for node in [alpha, beta] {
        node.put(&times.iter().fold(tree! {}, |tree, time| tree.with(format!("t{time}"), file("x").mtime(*time))));
    }
    fs::File::options()
        .write(true)
        .open(alpha.path("t1"))
        .and_then(|file| file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_000_000_001)))
        .expect("set a time");
    record(&cluster);
    compare(&cluster, "-T").silent().exits(2);
    beta.put(&times.iter().fold(tree! {}, |tree, time| tree.with(format!("t{time}"), file("x").mtime(time + 1))));
    beta.csync2(["-cIr", "/"]).success();
    let different = ["t-1", "t0", "t1", "t1600000000"].map(|name| format!("X {{alpha}} {{beta}} %d%/{name}"));
    compare(&cluster, "-T").prints(&lines(&cluster, &different.each_ref().map(String::as_str))).success();
}

/// With `-G` only the files of these groups are compared, also where several groups have one key.
fn other_groups_are_left_aside(cast: Cast) {
    let groups = "group one { host {alpha} {beta}; key demo.key; include %d%/one; }
        group two { host {alpha} {beta}; key demo.key; include %d%/two; }
        prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }";
    let cluster = cast.cluster(["alpha", "beta"]).config(groups).start();
    cluster["alpha"].put(&tree! { "one/a" => "1", "two/a" => "1" });
    cluster["beta"].put(&tree! { "one/b" => "22", "two/b" => "22" });
    record(&cluster);
    let [a, b] = ["L {alpha} {beta} %d%/one/a", "R {alpha} {beta} %d%/one/b"];
    compare(&cluster, "-T -G one").prints(&lines(&cluster, &[a, b])).success();
    compare(&cluster, "-TIX -G one").success();
    assert_eq!(dirty(&cluster), ["chary alpha beta %d%/one/a", "chary alpha beta %d%/one/b"]);
    compare(&cluster, "-T -G two {alpha.tree}/one/a").prints("").exits(2).logs("Parameter will be ignored");
    compare(&cluster, "-T -G none {alpha} {beta}").prints("").exits(1);
}

fn without_the_program_diff_the_reason_is_said(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&tree! { "a" => "1", "b" => "1" });
    record(&cluster);
    let mut command = cluster["alpha"].command(Program::Ours, ["-TT"]);
    command.env("PATH", "/nonexistent");
    run(command).prints("").exits(1).logs("diffutils").logs("Finished with 1 errors.");
    compare(&cluster, "-T").success();
}

/// LIST takes 28 keys: with more the C program finds everything of the other groups missing.
fn groups_may_have_more_keys_than_a_line_holds(cast: Cast) {
    let group = |number: u32| {
        format!("group g{number} {{ host {{alpha}} {{beta}}; key g{number}.key; include %d%/{number:02}; }}\n")
    };
    let groups: String = (0..60).map(group).collect();
    let prefix = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).config(&[prefix, &groups].concat()).build();
    for node in cluster.nodes() {
        for number in 0..60 {
            let key = node.system_dir().join(format!("g{number}.key"));
            fs::write(&key, format!("{number:064}\n")).expect("write a key");
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
        }
        node.put(&(0..60).fold(tree! {}, |tree, number| tree.with(format!("{number:02}"), "same")));
    }
    cluster["beta"].put(&tree! { "03" => "other", "57" => "other" });
    record(&cluster);
    cluster["beta"].serve();
    let expected = ["X {alpha} {beta} %d%/03", "X {alpha} {beta} %d%/57"];
    compare(&cluster, "-T").prints(&lines(&cluster, &expected)).success();
}

#[test]
fn a_wrong_certificate_costs_one_pair() {
    let cluster = Cast::full(Program::Ours, Program::Ours).cluster(["alpha", "beta", "gamma"]).start();
    cluster["alpha"].put(&tree! { "a" => "1" });
    record(&cluster);
    let [beta, gamma] = ["L {alpha} {beta} %d%/a", "L {alpha} {gamma} %d%/a"];
    compare(&cluster, "-T").prints(&lines(&cluster, &[gamma, beta])).success();
    certs::write_new(cluster["gamma"].system_dir(), "another");
    cluster["gamma"].stop();
    cluster["gamma"].serve();
    let output = compare(&cluster, "-T").prints(&lines(&cluster, &[beta])).exits(1);
    output.logs("Peer did provide a wrong SSL X509 cetrificate.").logs("Finished with 1 errors.");
}

/// Our client against the C program's server, whose order is that of its database.
fn compare_with_c_on(options: Option<&str>) {
    let cast = Cast { backend: Backend::Postgres, ..Cast::plain(Program::Ours, Program::Reference) };
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    if let (Some(options), Some(name)) = (options, beta.database_name()) {
        Postgres::shared().sql("postgres", &format!("CREATE DATABASE {name} OWNER node {options}"));
    }
    let names: Vec<Vec<u8>> =
        odd_names().into_iter().filter(|name| name != b"a" && name.is_ascii() && name.len() < 255).collect();
    for node in [alpha, beta] {
        node.put(&names.iter().fold(tree! {}, |tree, name| tree.with(name, "same")));
    }
    beta.serve();
    record(&cluster);
    compare(&cluster, "-T").silent().exits(2);
    beta.put(&tree! { "a#b" => "of beta", "A" => "of beta", "z" => "of beta" });
    beta.remove("~");
    beta.csync2(["-cIr", "/"]).success();
    let expected =
        ["X {alpha} {beta} %d%/A", "X {alpha} {beta} %d%/a#b", "R {alpha} {beta} %d%/z", "L {alpha} {beta} %d%/~"];
    compare(&cluster, "-T").prints(&lines(&cluster, &expected)).success();
}

#[test]
fn a_peer_that_sorts_by_the_c_locale_is_understood() {
    compare_with_c_on(None);
}

#[test]
fn a_peer_that_sorts_by_another_collation_is_understood() {
    compare_with_c_on(Some("TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"));
}

/// A hundred thousand files with long names, all of them different: either list would take 40 MiB in memory, and so would
/// what is found.
#[test]
fn long_lists_take_little_memory() {
    const FILES: u32 = 100_000;
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).build();
    let name = "long%20name".repeat(27);
    for (node, size) in [(&cluster["alpha"], 1), (&cluster["beta"], 2)] {
        // (A run makes the tables.)
        node.csync2(["-L"]).exits(2);
        node.database.execute(&format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {FILES})
             INSERT INTO file (filename, checktxt) SELECT '%25d%25/{name}/' || (n + 1000000),
                 'v1%3Amtime=1%3Amode=33188%3Auid=0%3Agid=0%3Atype=reg%3Asize={size}' FROM n"
        ));
    }
    cluster["beta"].serve();
    // Everything has been compared when the first line is printed, and the rest waits in the pipe for its reader.
    let mut child = cluster["alpha"]
        .command(Program::Ours, ["-T"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start csync2");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).split(b'\n');
    let first = lines.next().expect("a line").expect("read a pipe");
    assert!(first.starts_with(cluster.fill_in("X\t{alpha}\t{beta}\t%d%/long name").as_bytes()));
    let ours = peak_memory(child.id());
    assert_eq!(1 + lines.count(), FILES as usize);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    let theirs = peak_memory(cluster["beta"].daemon().id());
    assert!(ours < 48 << 10 && theirs < 48 << 10, "{ours} KiB, the server {theirs} KiB");
}
