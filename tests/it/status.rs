//! `--status`, `--json`, `--metrics` and progress bars: what people and programs are told of how things are.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::cutting::{Cut, Line};
use crate::support::process::wrap;
use crate::support::tree::file;
use crate::support::{Cast, Program, Tree, scenarios, tree};

scenarios! { ours:
    what_waits_and_how_it_went_is_told
    metrics_are_written_at_the_end_of_a_run
    the_age_of_what_waits_is_known
}

/// beta serves, gamma does not.
fn one_peer_down(cast: Cast) -> Cluster {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).build();
    cluster["beta"].serve();
    cluster["alpha"].put(&tree! { "motd" => "hello", "d/long" => "different length" });
    cluster["alpha"].csync2(["-x"]).exits(1);
    cluster
}

fn first_line(node: &Node, arguments: &[&str], code: i32) -> String {
    node.csync2(arguments).exits(code).stdout_text().lines().next().expect("a line").to_owned()
}

fn what_waits_and_how_it_went_is_told(cast: Cast) {
    let cluster = one_peer_down(cast);
    let (alpha, beta, gamma) = (&cluster["alpha"], &cluster["beta"].host, &cluster["gamma"].host);
    let text = alpha.csync2(["--status"]).exits(1).logs_nothing().stdout_text();
    let first = text.lines().next().expect("a line");
    let expected =
        format!("CSYNC2 WARNING: 4 files wait for 1 of 2 peers; {gamma}: the last session failed | files=4;;;0");
    assert!(first.starts_with(&expected), "{text}");
    assert!(first.contains(" bytes=21B;;;0 ") && first.ends_with(&format!("'{gamma}'=4;;;0")), "{text}");
    assert!(text.contains("\n  last session 3 sent, 0 removed, 1 equal already, 0 refused; 21 bytes in "), "{text}");
    assert!(text.contains("\n  dialect      batch ") && text.contains("Connection refused"), "{text}");
    assert!(text.contains("\n  last -x      "), "{text}");
    // Some peers alone, and other limits.
    let fine = "CSYNC2 OK: nothing waits for 1 peer | files=0;;;0";
    assert!(first_line(alpha, &["--status", beta], 0).starts_with(fine));
    let critical = first_line(alpha, &["--status", "--warning=5", "--critical=4", gamma], 2);
    assert!(critical.contains(&format!("; {gamma}: 4 files wait for ")), "{critical}");
    // A failed session is one no more when the next one works.
    cluster["gamma"].serve();
    alpha.csync2(["-u"]).success();
    let text = alpha.csync2(["--status"]).success().stdout_text();
    assert!(text.starts_with("CSYNC2 OK: nothing waits for 2 peers |"), "{text}");
    assert!(text.contains("  last failure "), "what went wrong is still told: {text}");
}

fn the_age_of_what_waits_is_known(cast: Cast) {
    let cluster = one_peer_down(cast);
    let alpha = &cluster["alpha"];
    alpha.database.execute("UPDATE csync2_marking SET at = at - 7200, minute = minute - 120");
    assert!(first_line(alpha, &["--status"], 1).contains(": 4 files wait for 2 h; "));
    assert!(first_line(alpha, &["--status", "--critical", "2h"], 2).starts_with("CSYNC2 CRITICAL: "));
    // What is marked later is younger.
    alpha.csync2(["-u"]).exits(1);
    alpha.csync2(["-mr", "/"]).success();
    assert!(!first_line(alpha, &["--status"], 1).contains(" wait for 2 h; "));
}

fn metrics_are_written_at_the_end_of_a_run(cast: Cast) {
    let cluster = one_peer_down(cast);
    let (alpha, gamma) = (&cluster["alpha"], &cluster["gamma"].host);
    let path = alpha.base().join("csync2.prom");
    let metrics = path.to_str().expect("UTF-8");
    for (arguments, code) in [(vec!["-x", "--metrics", metrics], 1), (vec!["--status", "--metrics", metrics], 1)] {
        alpha.csync2(arguments).exits(code);
        let text = fs::read_to_string(&path).expect("the metrics");
        fs::remove_file(&path).expect("remove the metrics");
        for line in [
            format!("csync2_pending_files{{peer=\"{gamma}\"}} 4"),
            format!("csync2_peer_failing{{peer=\"{gamma}\"}} 1"),
            "csync2_run_errors{mode=\"x\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
        }
        assert_valid(&text);
    }
    // The work counts, whatever becomes of the metrics.
    cluster["gamma"].serve();
    alpha
        .csync2(["-u", "--metrics", "/nonexistent/x.prom"])
        .success()
        .logs("WARNING: cannot write the metrics to /none");
}

/// Each metric has its HELP and TYPE once, then its values; names are those of Prometheus, and documented.
fn assert_valid(text: &str) {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("docs");
    let (mut known, mut current) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            rest.split(' ').next().expect("a name").clone_into(&mut current);
            assert!(known.insert(current.clone()), "{current} comes twice");
            assert!(document.contains(&format!("`{current}")), "{current} is not in docs/operations.md");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest, format!("{current} gauge"));
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert_eq!(name.split('{').next(), Some(current.as_str()), "{line}");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        }
    }
    assert!(known.len() > 15, "{text}");
}

#[test]
fn a_status_that_cannot_be_told_is_unknown() {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let line = first_line(alpha, &["--status"], 3);
    assert!(line.starts_with("CSYNC2 UNKNOWN: Can't open database: ") && line.contains("is not there"), "{line}");
    let value: Value = serde_json::from_slice(&alpha.csync2(["--status", "--json"]).exits(3).stdout).expect("JSON");
    assert_eq!((&value["status"], &value["code"]), (&"unknown".into(), &3.into()));
    cluster.configure("group {");
    assert!(first_line(alpha, &["--status"], 3).starts_with("CSYNC2 UNKNOWN: "));
    alpha.csync2(["--status", "--warning", "soon"]).exits(1).logs("--warning takes a number of files, an age");
}

/// Who may only read the state reads it, and nothing is left where it lies.
#[test]
fn nothing_is_written_where_the_status_is_read() {
    let cluster = one_peer_down(Cast::sqlite(Program::Ours));
    let alpha = &cluster["alpha"];
    let directory = alpha.base().join("db");
    let list = || {
        let entries = fs::read_dir(&directory).expect("read a directory").map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name(), fs::read(entry.path()).expect("read a file"))
        });
        entries.filter(|(name, _)| name.to_string_lossy().ends_with(".db3")).collect::<Vec<_>>()
    };
    let before = list();
    alpha.csync2(["--status"]).exits(1);
    assert_eq!(list(), before);
}

#[test]
fn the_documented_screen_is_what_is_seen() {
    let cluster = one_peer_down(Cast { tls: true, ..Cast::sqlite(Program::Ours) });
    let alpha = &cluster["alpha"];
    let mut text = alpha.csync2(["--status"]).exits(1).stdout_text();
    for node in cluster.nodes() {
        text =
            text.replace(&format!("{}/db", node.base().display()), "/var/lib/csync2").replace(&node.host, node.name());
    }
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("docs");
    let screen = document.split_once("    $ csync2 --status\n").expect("the screen").1;
    let screen: Vec<&str> = screen.lines().map_while(|line| line.strip_prefix("    ")).collect();
    let shape = |text: &str| text.lines().map(shape_of).collect::<Vec<_>>();
    assert_eq!(shape(&screen.join("\n")), shape(&text), "{text}");
}

/// A line without what differs from time to time: numbers, fingerprints, addresses.
fn shape_of(line: &str) -> String {
    let word = |word: &str| {
        if word.matches(':').count() > 20 {
            return "FINGERPRINT".to_owned();
        }
        let mut shape = String::new();
        for character in word.chars() {
            match character {
                '0'..='9' if shape.ends_with('0') => {}
                '0'..='9' => shape.push('0'),
                other => shape.push(other),
            }
        }
        shape
    };
    let line = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    match line.strip_prefix("  address      ") {
        Some(_) => "  address      ADDRESS".to_owned(),
        None => line,
    }
}

/// The members that docs/json.md lists in a section: `peers[].files`.
fn documented(section: &str) -> BTreeSet<String> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md")).expect("docs");
    let text = document.split_once(&format!("\n## {section}\n")).expect("the section").1;
    let text = text.split("\n## ").next().expect("its text");
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect()
}

/// The members of a value. Of lists those of all elements; a member without a value has none of its own.
fn members(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                members(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| members(value, &format!("{prefix}[]"), found)),
        _ => {}
    }
}

fn objects(node: &Node, arguments: &[&str], code: i32) -> Vec<Value> {
    let text = node.csync2(arguments).exits(code).stdout_text();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn members_of(values: &[Value]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in values {
        members(value, "", &mut found);
    }
    found
}

#[test]
fn json_is_what_is_documented() {
    let cluster = one_peer_down(Cast::full(Program::Ours, Program::Ours));
    let (alpha, gamma) = (&cluster["alpha"], &cluster["gamma"].host);
    let status = objects(alpha, &["--status", "--json"], 1);
    assert_eq!(members_of(&status), documented("Status"));
    assert_eq!((&status[0]["status"], &status[0]["files"]), (&"warning".into(), &4.into()));

    alpha.put(&tree! { "motd" => "hello again" });
    let run = objects(alpha, &["-x", "--json"], 1);
    assert_eq!(members_of(&run), documented("A run"));
    assert_eq!((run.len(), &run[0]["errors"], &run[0]["marked"]), (1, &1.into(), &1.into()));
    let failed = run[0]["peers"].as_array().expect("a list").iter().filter(|peer| peer["ok"] == false);
    assert_eq!(failed.map(|peer| &peer["peer"]).collect::<Vec<_>>(), [gamma]);

    alpha.put(&Tree::new().with(b"\xff", "no UTF-8"));
    alpha.csync2(["-c", "/"]).success();
    alpha.csync2(["-h", "/nonexistent"]).success();
    alpha.csync2(["-h", alpha.tree_dir().to_str().expect("UTF-8")]).success();
    alpha.csync2(["-cr", "/"]).success();
    let mut lines = Vec::new();
    let beta = &cluster["beta"].host;
    for (arguments, code) in [
        (vec!["-L", "--json"], 0),
        (vec!["-M", "--json"], 0),
        (vec!["-H", "--json"], 0),
        (vec!["-S", "--json", &alpha.host, gamma], 0),
        (vec!["-T", "--json", &alpha.host, beta], 0),
    ] {
        let listed = objects(alpha, &arguments, code);
        assert!(!listed.is_empty(), "{arguments:?}");
        lines.extend(listed);
    }
    let mut forecast = objects(alpha, &["-ud", "--json", "-P", beta], 0);
    forecast.pop();
    assert!(!forecast.is_empty());
    lines.extend(forecast);
    assert_eq!(members_of(&lines), documented("Listings"));
    let strange = lines.iter().find(|line| line["file_hex"] != Value::Null).expect("a name that is no text");
    assert_eq!((&strange["file"], &strange["file_hex"]), (&"%d%/\u{fffd}".into(), &"2564252fff".into()));
}

/// A run on a terminal, with what its peer gets held up in the middle, until `seen` in what the terminal has got.
fn on_a_terminal(arguments: &[&str], seen: &str) -> (String, Option<i32>) {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let at = |port| SocketAddr::new(beta.host.parse().expect("an address"), port);
    let free = TcpListener::bind(at(0)).and_then(|listener| listener.local_addr()).expect("a free port").port();
    beta.serve_with(&["-ii", "-v", "-p", &free.to_string()]);
    let line = Line::between(at(beta.port), at(free));
    alpha.put(&(0..300).fold(Tree::new(), |tree, number| tree.with(format!("f{number}"), file("content"))));
    alpha.csync2(["-cr", "/"]).success();
    line.cut_next(Some(Cut::Hold(8_000)));
    let typescript = alpha.base().join("typescript");
    let mut run = wrap(&["env", "TERM=xterm"], &alpha.command(alpha.program, arguments));
    let shell = format!("{run:?}");
    run = Command::new("script");
    run.args(["-qefc", &shell]).arg(&typescript).env("SHELL", "/bin/sh");
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start script(1)");
    let text = || String::from_utf8_lossy(&fs::read(&typescript).unwrap_or_default()).into_owned();
    while !text().contains(seen) {
        assert_eq!(run.try_wait().expect("wait"), None, "{seen} is not seen:\n{}", text());
        thread::yield_now();
    }
    line.release();
    let code = run.wait().expect("wait for script(1)").code();
    cluster.expect_agreement();
    (text(), code)
}

#[test]
fn a_long_push_shows_how_far_it_is_and_leaves_nothing() {
    let (text, code) = on_a_terminal(&["-uv"], "/301 files, ");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" left"), "{text}");
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manual.md")).expect("docs");
    let shown = manual.lines().find(|line| line.contains(" files, ") && line.contains(" left")).expect("a bar");
    let bars: Vec<String> = text.split(['\r', '\n']).filter(|line| line.contains(" left")).map(bar_shape).collect();
    assert!(bars.contains(&bar_shape(shown)), "{shown} is not among {bars:#?}");
    // Each line of the log stands alone, from the first column on.
    let lines: Vec<&str> = text.split(['\r', '\n']).map(|line| line.trim_start_matches("\u{1b}[2K")).collect();
    let updates = lines.iter().filter(|line| line.contains("Updating ")).count();
    assert!(updates >= 301, "{updates}: {text}");
    for line in lines.iter().filter(|line| line.contains("Updating ")) {
        let bare = line.rsplit("\u{1b}[").next().unwrap_or(line);
        assert!(bare.contains("Updating ") && bare.ends_with(" ..."), "{line:?}");
    }
    let end = text.rsplit("Finished with 0 errors.").next().expect("an end");
    assert!(!end.contains("files, "), "the bars are gone: {end:?}");
}

/// A bar without its host, its length and its figures.
fn bar_shape(line: &str) -> String {
    let says = line.rsplit(']').next().unwrap_or(line);
    let word = |word: &str| match word {
        "B" | "KiB" => "B".to_owned(),
        "B/s," | "KiB/s," => "B/s,".to_owned(),
        figure => shape_of(figure).replace("0.0", "0"),
    };
    says.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn no_bars_are_shown_where_nobody_wants_them() {
    let (text, code) = on_a_terminal(&["-uv", "--no-progress"], "Connecting to host");
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("\u{1b}["), "{text}");
}

/// What a person reads at the end is no part of what scripts compare.
#[test]
fn the_summary_comes_at_the_second_level() {
    let cluster = Cast { backend: Backend::Sqlite, ..Cast::sqlite(Program::Ours) }.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "a" => "1", "b" => "22" });
    let summary = format!("{}: 2 sent, 0 removed, 1 equal already, 0 refused; 3 bytes in ", cluster["beta"].host);
    alpha.csync2(["-xvv"]).success().logs(&summary);
    alpha.remove("a");
    alpha.csync2(["-xv"]).success().logs_no("equal already");
    alpha.csync2(["-mr", "/"]).success();
    alpha.csync2(["-uvv"]).success().logs(" 0 sent, 0 removed, 2 equal already, 0 refused; 0 bytes in ");
}
