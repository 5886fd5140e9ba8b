//! What operands, prefixes, `-r`, `-G`, `-P`, `-C`, hints and marks select: on the same state our program prints what the
//! C program prints, exits with the same code and leaves the same rows behind.
//!
//! Nothing here is pushed: no peer runs.

use crate::support::cast::Backend;
use crate::support::cluster::Cluster;
use crate::support::process::run;
use crate::support::{Cast, Program, Snapshot, Table, dir, fifo, link, tree};

/// Two groups that overlap below the prefix `p`, in which the prefix `q` lies; `far` is defined elsewhere.
const OVERLAPPING: &str = "
prefix p { on *: {alpha.tree}/pre; }
prefix q { on *: {alpha.tree}/pre/in/ner; }
prefix far { on elsewhere: /nowhere; on other*: /nowhere; }
group one {
    host {alpha} Beta.example; key demo.key;
    include {alpha.tree}; exclude *~; exclude {alpha.tree}/x; compare {alpha.tree}/x/c; exclude {alpha.tree}/pre/plain;
}
group two {
    host {alpha}@alpha.two (gamma.example) delta.example; key demo.key;
    include %p% %q% %far%/f; exclude %p%/not;
}
group three {
    host ({alpha}) beta.example epsilon.example; key demo.key;
    include {alpha.tree}/d/only*; include {alpha.tree}/x/*/deep/*.c;
}
";

/// The same, but no file is in groups by more than one of its names.
fn distinct() -> String {
    let plain = OVERLAPPING.replace("exclude {alpha.tree}/pre/plain;", "exclude {alpha.tree}/pre;");
    plain.replace("exclude %p%/not;", "exclude %p%/not; exclude %p%/in/ner;")
}

fn cluster(backend: Backend, config: &str) -> Cluster {
    let cast = Cast { client: Program::Reference, server: Program::Reference, tls: false, backend };
    let cluster = cast.cluster(["alpha"]).config(config).build();
    cluster["alpha"].put(&tree! {
        "f" => "1",
        "f~" => "a backup",
        "with blank %41" => "22",
        "d/only me" => "333",
        "d/e/g" => "4444",
        "d/pipe" => fifo().mtime(1_600_000_000),
        "x/c" => "for comparing",
        "x/other/deep/a.c" => "a",
        "x/other/deep/a.h" => "aa",
        "pre/f" => "in the prefix",
        "pre/not" => "not in two",
        "pre/plain/f" => "not in one",
        "pre/in/ner/g" => "in both prefixes",
        "pre/empty" => dir(),
        "link" => link("d"),
        "d/up" => link("../pre"),
    });
    cluster
}

/// What a story leaves: a line for each line that its calls said, each exit code and each row.
type Told = Vec<String>;

/// Runs `calls`, separated by `; `, in a directory of the cluster. A `_` in an argument stands for a blank.
fn tell(cluster: &Cluster, program: Program, directory: &str, calls: &str) -> Told {
    let alpha = &cluster["alpha"];
    let directory = cluster.fill_in(directory);
    let mut told = Told::new();
    for (number, call) in calls.split("; ").enumerate() {
        let arguments = call.split(' ').map(|argument| cluster.fill_in(&argument.replace('_', " ")));
        let mut command = alpha.command(program, arguments);
        command.current_dir(&directory).env("PWD", &directory);
        let output = run(command);
        let (mut stdout, mut log) = (lines(&output.stdout), lines(&output.stderr));
        // Some things the C program says more than once, in the order of the directory.
        let tidy = |lines: &mut Vec<String>| {
            lines.sort();
            if program == Program::Reference {
                lines.dedup();
            }
        };
        tidy(&mut log);
        if call.starts_with("-o") {
            tidy(&mut stdout);
        }
        told.extend(stdout.iter().map(|line| format!("{number} stdout: {line}")));
        told.extend(log.iter().map(|line| format!("{number} log: {line}")));
        told.push(format!("{number} exit code: {:?}", output.code));
    }
    for table in [Table::File, Table::Dirty, Table::Hint, Table::Action] {
        // The C program records no target for links below a prefix; ours does.
        let without_target = |row: String| row.split_once("target").map_or(row.clone(), |(row, _)| row.to_owned());
        told.extend(alpha.rows(table).into_iter().map(|row| format!("{table:?}: {}", without_target(row))));
    }
    told
}

fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}

/// Tells each story with the C program, then with ours, both times from the state as it is now.
fn compare(cluster: &Cluster, directory: &str, stories: &[&str]) {
    let snapshot = Snapshot::take(cluster);
    let mut different = String::new();
    for story in stories {
        let expected = tell(cluster, Program::Reference, directory, story);
        snapshot.restore();
        let ours = tell(cluster, Program::Ours, directory, story);
        snapshot.restore();
        if ours != expected {
            different += &format!("`{story}`\n{}", difference(&expected, &ours));
        }
    }
    let top = cluster.fill_in("{dir}");
    assert!(different.is_empty(), "in {directory}, - the C program, + ours:\n{}", different.replace(&top, "{dir}"));
}

fn difference(expected: &Told, ours: &Told) -> String {
    let missing = |from: &Told, of: &Told, sign: char| -> String {
        let mut left = from.clone();
        of.iter()
            .filter(|line| match left.iter().position(|other| other == *line) {
                Some(found) => {
                    left.remove(found);
                    false
                }
                None => true,
            })
            .map(|line| format!("  {sign} {line}\n"))
            .collect()
    };
    match missing(ours, expected, '-') + &missing(expected, ours, '+') {
        none if none.is_empty() => format!("  in another order: {expected:#?} {ours:#?}\n"),
        some => some,
    }
}

const OPERANDS: [&str; 25] = [
    "{alpha.tree}",
    "{alpha.tree}/",
    "{alpha.tree}/f",
    "{alpha.tree}/f~",
    "{alpha.tree}/with_blank_%41",
    "{alpha.tree}/d",
    "{alpha.tree}/d/only_me",
    "{alpha.tree}/d/up/f",
    "{alpha.tree}/link",
    "{alpha.tree}/link/.",
    "{alpha.tree}/link/e/g",
    "{alpha.tree}/x",
    "{alpha.tree}/x/c",
    "{alpha.tree}/x/other",
    "{alpha.tree}/pre",
    "{alpha.tree}/pre/f",
    "{alpha.tree}/pre/not",
    "{alpha.tree}/pre/plain",
    "{alpha.tree}/pre/in",
    "{alpha.tree}/pre/in/ner/g",
    "{alpha.tree}/no/such/file",
    "{alpha.tree}/f/below",
    "{dir}",
    "/",
    "/etc/passwd",
];

/// Each call with each operand that `wanted` takes.
fn compare_with_operands(cluster: &Cluster, calls: &[&str], wanted: impl Fn(&str) -> bool) {
    let operands = || OPERANDS.into_iter().filter(|operand| wanted(operand));
    let stories: Vec<String> =
        calls.iter().flat_map(|call| operands().map(|operand| call.replace('@', operand))).collect();
    let stories: Vec<&str> = stories.iter().map(String::as_str).collect();
    compare(cluster, "{dir}", &stories);
}

#[test]
fn operands_select_what_is_checked() {
    let cluster = cluster(Backend::Sqlite, OVERLAPPING);
    compare_with_operands(&cluster, &["-cv @", "-crv @", "-cIr @", "-crF @", "-ov @", "-orv @"], |_| true);
}

/// `-m -r` and `-f -r` of the C program miss the prefixes below their operand, unless that is `/`.
fn is_above_a_prefix(operand: &str) -> bool {
    ["{alpha.tree}", "{alpha.tree}/", "{dir}", "{alpha.tree}/pre", "{alpha.tree}/pre/in"].contains(&operand)
}

#[test]
fn operands_select_what_is_marked() {
    let cluster = cluster(Backend::Sqlite, &distinct());
    cluster["alpha"].csync2(["-cIr", "/"]).success();
    compare_with_operands(&cluster, &["-mv @", "-mF @"], |_| true);
    compare_with_operands(&cluster, &["-mrv @"], |operand| !is_above_a_prefix(operand));
}

#[test]
fn operands_select_what_is_forced() {
    let cluster = cluster(Backend::Sqlite, &distinct());
    cluster["alpha"].csync2(["-cr", "/"]).success();
    compare_with_operands(&cluster, &["-fv @; -M"], |_| true);
    compare_with_operands(&cluster, &["-frv @; -M"], |operand| !is_above_a_prefix(operand));
}

#[test]
fn operands_select_what_is_hinted() {
    let cluster = cluster(Backend::Sqlite, OVERLAPPING);
    compare_with_operands(&cluster, &["-hv @; -H", "-hrv @; -H; -cv; -H"], |_| true);
}
