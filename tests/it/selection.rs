//! What operands, prefixes, `-r`, `-G`, `-P`, `-C`, hints and marks select: on the same state our program prints what the
//! C program prints, exits with the same code and leaves the same rows behind.
//!
//! Nothing here is pushed: no peer runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::faults::{as_ordinary_user, hand_over};
use crate::support::cluster::Cluster;
use crate::support::process::{run, wrap};
use crate::support::{Cast, Program, Table, dir, fifo, link, scenarios, tree};

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

fn cluster(config: &str) -> Cluster {
    let cluster = Cast::sqlite(Program::Reference).cluster(["alpha"]).config(config).build();
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
        "pre/in/ner/h" => "too",
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
        if call.contains("-o") {
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

/// What the database directory of the only node holds. No story changes the tree.
struct State {
    directory: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl State {
    fn of(cluster: &Cluster) -> Self {
        let directory = cluster["alpha"].base().join("db");
        let content = |file: PathBuf| (file.clone(), fs::read(file).expect("read a database"));
        let files = entries(&directory).into_iter().map(content).collect();
        State { directory, files }
    }

    fn restore(&self) {
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

/// What `-W` writes to its descriptor: names, NUL-terminated.
fn directories(cluster: &Cluster, program: Program, call: &str) -> Vec<String> {
    let alpha = &cluster["alpha"];
    let file = cluster.directory().join("directories");
    let arguments = call.split(' ').map(|argument| cluster.fill_in(argument));
    let shell = format!("exec \"$@\" 7>'{}'", file.display());
    run(wrap(&["bash", "-c", &shell, "with a file"], &alpha.command(program, arguments))).success();
    let text = String::from_utf8(fs::read(file).expect("what was written")).expect("UTF-8");
    text.split_inclusive('\0').map(|name| name.strip_suffix('\0').expect("a NUL at the end").to_owned()).collect()
}

#[test]
fn relevant_directories_are_named() {
    let cluster = cluster(OVERLAPPING);
    let alpha = &cluster["alpha"];
    alpha.csync2(["-cIr", "/"]).success();
    alpha.csync2(["-hr".as_ref(), alpha.path("d").as_os_str()]).success();
    let state = State::of(&cluster);
    for call in [
        "-crW7 /",
        "-cIrW 7 /",
        "-cr -W 7 {alpha.tree}/d {alpha.tree}/x {alpha.tree}/f {alpha.tree}/pre",
        "-crW7 {alpha.tree}/x/other/deep {alpha.tree}/link {alpha.tree}/d {alpha.tree}/d/e",
        "-crW7 {alpha.tree}/none /etc",
        "-crW7 -G two /",
        "-crW7 -G three {alpha.tree}",
        "-cW7",
        "-cW7 {alpha.tree}/d",
        "-xdW7 -P nobody",
        "-xW7 {alpha.tree}/d -P nobody",
        "-orW7 {alpha.tree}/x",
        "-uW7 -P nobody",
    ] {
        let mut expected = directories(&cluster, Program::Reference, call);
        state.restore();
        let ours = directories(&cluster, Program::Ours, call);
        state.restore();
        let is_below = |below: &str, above: &str| below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        // (Of several operands, one may lie in another.)
        let early = ours.iter().enumerate().find(|(index, name)| {
            !call.contains("/d/e") && ours[index + 1..].iter().any(|later| is_below(later, name))
        });
        assert_eq!(early, None, "`{call}` names a directory before one in it: {ours:?}");
        let mut ours = ours;
        ours.sort();
        expected.sort();
        // The C program goes through a prefix twice that is named by its directory.
        if call.ends_with("pre") {
            expected.dedup();
        }
        assert_eq!(ours, expected, "`{call}`: left ours, right the C program's");
    }
}

scenarios! { ours:
    marks_and_forces_reach_every_name_of_a_file
    names_behind_a_symlink_are_no_files
    a_prefix_may_be_reached_by_a_symlink
    a_broken_descriptor_loses_no_change
    unreadable_directories_are_told_when_comparing
}

fn start(cast: Cast, config: &str) -> Cluster {
    let cluster = cast.cluster(["alpha"]).config(config).build();
    cluster["alpha"].put(
        &tree! { "f" => "1", "d/f" => "22", "pre/f" => "333", "pre/in/ner/g" => "4444", "link" => link("pre/in") },
    );
    cluster
}

fn marks_and_forces_reach_every_name_of_a_file(cast: Cast) {
    let cluster = start(cast, OVERLAPPING);
    let alpha = &cluster["alpha"];
    alpha.csync2(["-cIr", "/"]).success();
    let names = |how: &str, files: &[&str]| -> String {
        let known = [
            ("alpha.two", "delta.example", "%p%"),
            ("alpha.two", "gamma.example", "%p%"),
            ("{alpha}", "beta.example", "{alpha.tree}/pre"),
        ];
        let rows = known.iter().flat_map(|(mine, peer, top)| {
            files.iter().map(move |file| (format!("{top}{file}"), format!("{how}\t{mine}\t{peer}\t{top}{file}\n")))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        rows.into_iter().map(|(_, row)| cluster.fill_in(&row)).collect()
    };
    let file = alpha.path("pre/f");
    alpha.csync2(["-m".as_ref(), file.as_os_str()]).success().silent();
    alpha.csync2(["-M"]).success().prints(&names("chary", &["/f"]));
    alpha.csync2(["-f".as_ref(), file.as_os_str()]).success().silent();
    alpha.csync2(["-M"]).success().prints(&names("force", &["/f"]));

    // What lies in a prefix below the operand is below the operand.
    let in_prefixes = |how: &str| {
        let listed = alpha.csync2(["-M"]).success().stdout_text();
        listed.lines().filter(|line| line.starts_with(how) && line.contains("\t%")).count()
    };
    alpha.csync2(["-mr".as_ref(), alpha.tree_dir().as_os_str()]).success();
    // Five files of %p% and two of %q%, for two peers each; those of %p%/f were forced.
    assert_eq!((in_prefixes("chary"), in_prefixes("force")), (14, 0));
    alpha.csync2(["-fr".as_ref(), alpha.path("pre/in").as_os_str()]).success();
    assert_eq!((in_prefixes("chary"), in_prefixes("force")), (4, 10));
    alpha.csync2(["-fr".as_ref(), cluster.directory().as_os_str()]).success();
    assert_eq!((in_prefixes("chary"), in_prefixes("force")), (0, 14));
}

fn names_behind_a_symlink_are_no_files(cast: Cast) {
    let cluster = start(cast, &distinct());
    let alpha = &cluster["alpha"];
    for call in ["-c", "-cr", "-m", "-mr", "-o", "-or", "-x"] {
        let mut command = alpha.command(alpha.program, [call, "ner"]);
        command.current_dir(alpha.path("link")).env("PWD", alpha.path("link"));
        let told = cluster.fill_in("WARNING: {alpha.tree}/link/ner lies behind a symlink");
        run(command).success().prints("").logs(&told);
        assert_eq!((alpha.rows(Table::File), alpha.rows(Table::Dirty)), (vec![], vec![]), "{call}");
    }
    // The same file by its own name.
    let mut command = alpha.command(alpha.program, ["-cI", "ner/g", "../pre/f"]);
    command.current_dir(alpha.path("link")).env("PWD", alpha.path("link"));
    run(command).success().silent();
    alpha.csync2(["-L"]).success().logs_no("link");
    assert_eq!(alpha.rows(Table::File).len(), 2);
}

fn a_prefix_may_be_reached_by_a_symlink(cast: Cast) {
    let config = "prefix p { on *: {dir}/way/pre; } group g { host {alpha} beta.example; key demo.key; include %p%; }";
    let cluster = start(cast, config);
    let alpha = &cluster["alpha"];
    symlink(alpha.tree_dir(), cluster.directory().join("way")).expect("make a symlink");
    let place = cluster.directory().join("way/pre");
    for (call, rows) in [("-c f", 1), ("-cr .", 5)] {
        let mut command = alpha.command(alpha.program, call.split(' '));
        command.current_dir(&place).env("PWD", &place);
        run(command).success().silent();
        assert_eq!(alpha.rows(Table::File).len(), rows, "{call}");
    }
}

fn a_broken_descriptor_loses_no_change(cast: Cast) {
    let cluster = start(cast, OVERLAPPING);
    let alpha = &cluster["alpha"];
    let broken = [("7> /dev/full", "No space left on device"), ("7> >(exec true); wait $!", "Broken pipe")];
    for (number, (redirection, reason)) in broken.into_iter().enumerate() {
        alpha.put(&tree! { "f" => "x".repeat(number + 5) });
        let shell = format!("exec {redirection}; exec \"$@\"");
        let check = alpha.command(alpha.program, ["-crW7", "/"]);
        let output = run(wrap(&["bash", "-c", &shell, "broken"], &check)).exits(1);
        output.logs(&format!("Error while writing to dump_dir_fd 7: {reason}")).logs("Finished with 1 errors.");
        let size = format!("size={}", number + 5);
        let known = alpha.csync2(["-L"]).success().stdout_text();
        assert!(known.lines().any(|row| row.contains(&size) && row.ends_with("/f")), "{known}");
        assert!(alpha.csync2(["-M"]).success().stdout_text().contains("/d/f\n"));
    }
}

fn unreadable_directories_are_told_when_comparing(cast: Cast) {
    let cluster = start(cast, OVERLAPPING);
    let alpha = &cluster["alpha"];
    alpha.csync2(["-L"]).exits(2);
    hand_over(alpha);
    let directory = alpha.path("d");
    chown(&directory, Some(0), Some(0)).expect("chown");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("chmod");
    let output = as_ordinary_user(alpha, &["-or", "/"]).exits(1);
    let listed = output.stdout_text();
    let output = output.logs(&format!("ERROR: cannot open {}: Permission denied", directory.display()));
    assert!(listed.contains("/d\n") && listed.contains("/f\n") && !listed.contains("/d/f\n"), "{output:?}");
}
