//! What operands, prefixes, `-r`, `-G`, `-P`, `-C`, hints and marks select: on the same state our program prints what the
//! C program prints, exits with the same code and leaves the same rows behind.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::cluster::Cluster;
use crate::support::process::run;
use crate::support::{Cast, Program, Table, Tree, dir, fifo, link, tree};

/// Two groups that overlap below the prefix `p`, in which the prefix `q` lies; `far` is defined elsewhere.
pub(super) const OVERLAPPING: &str = "
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
pub(super) fn distinct() -> String {
    let plain = OVERLAPPING.replace("exclude {alpha.tree}/pre/plain;", "exclude {alpha.tree}/pre;");
    plain.replace("exclude %p%/not;", "exclude %p%/not; exclude %p%/in/ner;")
}

pub(super) fn cluster(config: &str) -> Cluster {
    let cluster = Cast::sqlite(Program::Reference).cluster(["alpha"]).config(config).build();
    cluster["alpha"].put(&sample());
    cluster
}

fn sample() -> Tree {
    tree! {
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
        "pre/in/ner/h" => "too",
        "pre/empty" => dir(),
        "link" => link("d"),
        "d/up" => link("../pre"),
    }
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
        // (-A: no database here has to outlive a power cut.)
        let mut command = alpha.command(program, ["-A".to_owned()].into_iter().chain(arguments));
        command.current_dir(&directory).env("PWD", &directory);
        let output = run(command);
        let (mut stdout, mut log) = (lines(&output.stdout), lines(&output.stderr));
        log.sort();
        if program == Program::Reference {
            // (To which socket it connects, only the C program says.)
            log.retain(|line| !line.starts_with("Bound to ") && !line.starts_with("Connect to "));
            // Of a file with several names it says some things more than once.
            log.dedup_by(|one, other| one == other && one.starts_with("Marking "));
        }
        if call.contains("-o") {
            // In the order of the directory, there.
            stdout.sort();
            if program == Program::Reference {
                stdout.dedup();
            }
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

/// What the database directory of the only node holds. No story changes the tree.
pub(super) struct State {
    directory: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl State {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let directory = cluster["alpha"].base().join("db");
        let content = |file: PathBuf| (file.clone(), fs::read(file).expect("read a database"));
        let files = entries(&directory).into_iter().map(content).collect();
        State { directory, files }
    }

    pub(super) fn restore(&self) {
        for file in entries(&self.directory) {
            fs::remove_file(file).expect("remove a database");
        }
        for (file, content) in &self.files {
            fs::write(file, content).expect("write a database");
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("list databases").map(|entry| entry.expect("an entry").path()).collect()
}

/// Tells each story with the C program, then with ours, both times from the state as it is now.
fn compare(cluster: &Cluster, directory: &str, stories: &[&str]) {
    let state = State::of(cluster);
    let mut different = Vec::new();
    for story in stories {
        let expected = tell(cluster, Program::Reference, directory, story);
        state.restore();
        let ours = tell(cluster, Program::Ours, directory, story);
        state.restore();
        if ours != expected {
            different.push(format!("`{story}`\n{}", difference(&expected, &ours)));
        }
    }
    let top = cluster.fill_in("{dir}");
    let different = different.concat().replace(&top, "{dir}");
    assert!(different.is_empty(), "in {directory}, - the C program, + ours:\n{different}");
}

fn difference(expected: &Told, ours: &Told) -> String {
    let lacking = |from: &Told, of: &Told, sign: char| {
        let mut left = from.clone();
        let mut lines = Vec::new();
        for line in of {
            match left.iter().position(|other| other == line) {
                Some(found) => drop(left.remove(found)),
                None => lines.push(format!("  {sign} {line}\n")),
            }
        }
        lines.concat()
    };
    match lacking(ours, expected, '-') + &lacking(expected, ours, '+') {
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
    let cluster = cluster(OVERLAPPING);
    compare_with_operands(&cluster, &["-cv @", "-crv @", "-cIr @", "-crF @", "-ov @", "-orv @"], |_| true);
}

/// `-m -r` and `-f -r` of the C program miss the prefixes below their operand, unless that is `/`.
fn is_above_a_prefix(operand: &str) -> bool {
    ["{alpha.tree}", "{alpha.tree}/", "{dir}", "{alpha.tree}/pre", "{alpha.tree}/pre/in"].contains(&operand)
}

#[test]
fn operands_select_what_is_marked() {
    let cluster = cluster(&distinct());
    cluster["alpha"].csync2(["-cIr", "/"]).success();
    compare_with_operands(&cluster, &["-mv @", "-mF @"], |_| true);
    compare_with_operands(&cluster, &["-mrv @"], |operand| !is_above_a_prefix(operand));
}

#[test]
fn operands_select_what_is_forced() {
    let cluster = cluster(&distinct());
    cluster["alpha"].csync2(["-cr", "/"]).success();
    compare_with_operands(&cluster, &["-fv @; -M"], |_| true);
    compare_with_operands(&cluster, &["-frv @; -M"], |operand| !is_above_a_prefix(operand));
}

#[test]
fn operands_select_what_is_hinted() {
    let cluster = cluster(OVERLAPPING);
    compare_with_operands(&cluster, &["-hv @; -H", "-hrv @; -H; -cv; -H"], |_| true);
}

/// The peer serves the very tree that is pushed: what is selected is found up to date and dirty no more.
#[test]
fn operands_select_what_is_pushed() {
    let config =
        "group one { host {alpha} {beta}; key demo.key; include {alpha.tree}; exclude *~; exclude {alpha.tree}/x; }
        group two { host {alpha} {beta}; key demo.key; include {alpha.tree}/x/c; }";
    let cluster = Cast::sqlite(Program::Reference).cluster(["alpha", "beta"]).config(config).start();
    let alpha = &cluster["alpha"];
    alpha.put(&sample());
    alpha.csync2(["-cr", "/"]).success();
    alpha.put(&tree! { "d/new" => "not yet checked" });
    alpha.remove("d/e/g");
    compare_with_operands(&cluster, &["-uv @", "-urv @"], |operand| !operand.contains("/pre/"));
    compare(
        &cluster,
        "{alpha.tree}",
        &[
            "-uv f d/e/g d/e; -u f",
            "-urv d f; -xv -G two",
            "-uv -G two; -xv -G two x/c",
            "-uv -P {beta} f; -urv -P nobody /",
            "-cuv d/new f; -cuv",
            "-hr d; -cuv; -H",
            "-xv -F d/new; -M",
            "-uv / f; -uv f /",
            "-xv d/e; -xrv d/e",
            "-xv d x/c; -xv /",
            "-xrv d link none f~ /etc/passwd",
        ],
    );
}

#[test]
fn operands_count_from_the_working_directory() {
    let cluster = cluster(&distinct());
    let story = |operand: &&str| ["-cv", "-mv", "-cr", "-or", "-hr"].map(|call| format!("{call} {operand}")).join("; ");
    let compare_in = |directory: &str, operands: &[&str]| {
        let stories: Vec<String> = operands.iter().map(story).collect();
        compare(&cluster, directory, &stories.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let anywhere = [".", "./", "..", "../", "e/g", "../f", "../d/./e//g", "up/f", "../../f"];
    // In `link` these would lie behind a symlink.
    let below = ["f", "./f", "none/x", "up/../f"];
    compare_in("{alpha.tree}", &below);
    compare_in("{alpha.tree}/d", &[&anywhere[..], &below].concat());
    compare_in("{alpha.tree}/link", &anywhere);
    compare_in("{alpha.tree}/pre/plain", &["f", "../f"]);
}

#[test]
fn a_changed_tree_is_checked_in_parts() {
    let cluster = cluster(&distinct());
    let alpha = &cluster["alpha"];
    alpha.csync2(["-cIr", "/"]).success();
    alpha.put(&tree! { "f" => "changed", "d/new" => "n", "pre/f" => "changed in the prefix", "x/c" => "changed, but only for comparing" });
    alpha.remove("d/e");
    alpha.remove("pre/in/ner/g");
    alpha.remove("x/other/deep/a.c");
    alpha.rename("pre/plain", "pre/renamed");
    alpha.rename("d/only me", "d/only");
    let other = cluster.fill_in("group other { host {alpha} zeta.example; key demo.key; include {alpha.tree}/d; }");
    fs::write(alpha.system_dir().join("csync2_other.cfg"), other).expect("write another config");
    compare(
        &cluster,
        "{alpha.tree}",
        &[
            "-c; -M",
            "-cr /; -M; -L",
            "-cIr /; -M; -L",
            "-crF /; -M; -cr /; -M",
            "-cv f d x/c pre/f",
            "-cv f f; -cv f",
            "-crv d pre/in/ner; -crv d",
            "-crv d/e d/only d/only_me",
            "-cv d/e d/e/g",
            "-crv pre/plain; -crv pre/renamed",
            "-crv x/other; -crv x",
            "-crv -G one /",
            "-crv -G two /",
            "-crv -G one,three /; -crv -G two,nosuch /",
            "-cr -G three /; -M; -crv /; -M",
            "-crv -P nobody /; -M",
            "-mr / -F; -cr /; -M",
            "-m f d/e/g d/none -v; -M; -mF f; -M; -m f; -M",
            "-m d -G three -v; -M",
            "-mr d -G three -v; -M",
            "-mr / -G two -v; -M; -fr / -G three; -M",
            "-cr /; -f f d/e; -M; -fr d; -M; -u -P nobody; -M",
            "-cr /; -fr /; -M; -cr /; -M; -m f; -M",
            "-cr /; -f nothing /etc/passwd f~ -v",
            "-L -G two; -M -G two; -H -G two",
            "-cr /; -L -G three; -M -G three; -S {alpha} beta.example -G three",
            "-S alpha.two gamma.example; -S alpha.two beta.example; -S {alpha} Beta.example; -S {alpha} beta.example",
            "-o f d x/c x f~ pre pre/f; -or d x pre",
            "-or / -P gamma.example; -or / -P GAMMA.example; -or / -P gamma.example,epsilon.example; -or / -P alpha.two",
            "-ov d x/c -P epsilon.example; -orv d x x/other -P epsilon.example; -orv x -P beta.example",
            "-or / -G one; -or / -G two -P beta.example; -orI /; -orF /; -ord /; -o; -ov; -or",
            "-hr /; -H; -c; -M; -H",
            "-h f d/e/g d/only; -H; -cv; -H; -M",
            "-h f d/e pre/f f; -h d/e; -hr d/e; -H; -cI; -M; -H; -L",
            "-h /etc/passwd f~ x/c none; -H; -cv; -H",
            "-hr d; -h d; -H; -cr -G three; -H",
            "-h -G three f d; -H; -H -G two; -c -G two; -H",
            "-hv; -H; -cv; -mv; -fv; -ov",
            "-R; -L; -M",
            "-cr /; -R -G one",
            "-C other -cr /; -C other -L; -L; -C other -m f; -C other -h d; -C other -M; -H; -C other -or /",
        ],
    );
}
