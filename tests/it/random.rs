//! Random configurations on random trees: both programs find, list and mark the same files for the same peers.
//!
//! Every case has a number, from which it is made again: `CSYNC2_RANDOM_CASES=17..18`.

mod generate;

use std::fs;
use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use self::generate::{Case, case};
use crate::support::cluster::{Cluster, Node};
use crate::support::process::run;
use crate::support::{Cast, Program, Tree};

/// How many cases an ordinary run looks at.
const CASES: u64 = 60;

fn cases() -> Range<u64> {
    let Ok(wanted) = std::env::var("CSYNC2_RANDOM_CASES") else { return 0..CASES };
    let parsed = wanted.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed
        .or_else(|| Some(0..wanted.parse().ok()?))
        .expect("CSYNC2_RANDOM_CASES is a number of cases or a range: 60..500")
}

/// Cases of one remainder, so that several tests run side by side.
fn compare_cases(remainder: u64, of: u64) {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha"]).build();
    for number in cases().filter(|number| number % of == remainder) {
        let config = Config {
            cases: 1,
            rng_seed: RngSeed::Fixed(number),
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::default()
        };
        let result = TestRunner::new(config).run(&case(), |case| compare(&cluster, &case));
        result.unwrap_or_else(|error| {
            let told = cluster.fill_in("{alpha.tree}");
            panic!("case {number}: {}", error.to_string().replace(&told, "{alpha.tree}"));
        });
    }
}

#[test]
fn the_same_files_are_found_in_even_cases() {
    compare_cases(0, 2);
}

#[test]
fn the_same_files_are_found_in_odd_cases() {
    compare_cases(1, 2);
}

/// The calls of each story, which begins with an empty database and the tree of the case. `OPERANDS`, `GROUPS` and `PEERS`
/// are those of the case; `CHANGE` removes the operands and changes other files; `ALLOW` confirms removals where asked.
const STORIES: [&[&str]; 4] = [
    &["-cIrW 1 /", "-M", "-L", "-mr /", "-M", "-S {alpha} b.example", "-or /"],
    &["-cr / -G GROUPS", "-L", "-M", "-M -G two", "-crF /", "-M", "-fr / -G GROUPS", "-M", "-or / -P PEERS"],
    &[
        "-c OPERANDS",
        "-M",
        "-L",
        "-cr OPERANDS",
        "-M",
        "-L",
        "-o OPERANDS",
        "-or OPERANDS -G GROUPS",
        "-hr OPERANDS",
        "-H",
    ],
    &["-cIr /", "CHANGE", "-cr / ALLOW", "-M", "-crF / ALLOW -G GROUPS", "-M", "-R"],
];

fn compare(cluster: &Cluster, case: &Case) -> Result<(), TestCaseError> {
    cluster.configure(&case.config);
    put(cluster, case);
    for story in STORIES {
        let expected = tell(cluster, Program::Reference, case, story);
        let ours = tell(cluster, Program::Ours, case, story);
        for ((call, ours), expected) in story.iter().zip(ours).zip(expected) {
            let missing: Vec<_> = expected.iter().filter(|line| !ours.contains(line)).collect();
            let more: Vec<_> = ours.iter().filter(|line| !expected.contains(line)).collect();
            prop_assert_eq!((missing, more), (vec![], vec![]), "`{}` of {:?} (only C, only ours)", call, story);
            prop_assert_eq!(&ours, &expected, "`{}`: order", call);
        }
    }
    Ok(())
}

fn put(cluster: &Cluster, case: &Case) {
    let alpha = &cluster["alpha"];
    renew(alpha.tree_dir());
    case.tree.write(alpha.tree_dir());
}

fn renew(directory: &Path) {
    fs::remove_dir_all(directory).expect("remove what was there");
    fs::create_dir(directory).expect("make a directory");
}

fn change(node: &Node, case: &Case) {
    for operand in case.operands.iter().filter(|operand| !operand.starts_with('.')) {
        let path = node.path(operand);
        // It may not be there, or be gone with another one.
        drop(fs::remove_file(&path).or_else(|_| fs::remove_dir_all(path)));
    }
    let changed = ["x.c", "p/a/x.c", "a/b/new.c"].into_iter().filter(|name| !node.path(name).is_dir());
    changed.fold(Tree::new(), |tree, name| tree.with(name, "of another length")).write(node.tree_dir());
}

/// What each call says and how it ends.
fn tell(cluster: &Cluster, program: Program, case: &Case, story: &[&str]) -> Vec<Vec<String>> {
    let alpha = &cluster["alpha"];
    renew(&alpha.base().join("db"));
    if story.contains(&"CHANGE") {
        put(cluster, case);
    }
    let mut told = Vec::new();
    for call in story {
        if *call == "CHANGE" {
            change(alpha, case);
            told.push(Vec::new());
        } else {
            told.push(say(cluster, program, case, call));
        }
    }
    told
}

fn say(cluster: &Cluster, program: Program, case: &Case, call: &str) -> Vec<String> {
    let operand = |operand: &&str| cluster.fill_in(&format!("{{alpha.tree}}/{operand}"));
    // No database here has to outlive a power cut.
    let mut arguments = vec!["-A".to_owned()];
    for argument in call.split(' ') {
        match argument {
            "OPERANDS" => arguments.extend(case.operands.iter().map(operand)),
            "GROUPS" => arguments.push(case.groups.to_owned()),
            "PEERS" => arguments.push(case.peers.to_owned()),
            "ALLOW" if program == Program::Ours => arguments.push("--allow-mass-removal".to_owned()),
            "ALLOW" => {}
            _ => arguments.push(cluster.fill_in(argument)),
        }
    }
    let output = run(cluster["alpha"].command(program, arguments));
    let mut stdout: Vec<String> = shown(&output.stdout).iter().map(|line| without_target(line)).collect();
    // In the order of the directory, and a prefix that is named by its directory twice.
    if call.contains("-o") || call.contains("W 1") {
        tidy(&mut stdout);
    }
    let mut log = shown(&output.stderr);
    if log[0].ends_with("is not a member of any configured group.") {
        // What to do about it, ours says in further lines.
        log.truncate(1);
    }
    // What is odd about a configuration, ours alone remarks.
    log.retain(|line| !line.starts_with("WARNING: ") || line.starts_with("WARNING: Parameter will be ignored: "));
    tidy(&mut log);
    [stdout, log, vec![format!("exit code {:?}", output.code)]].concat()
}

/// The C program records no target for links below a prefix.
fn without_target(line: &str) -> String {
    match line.split_once("target=").and_then(|(before, rest)| Some((before, rest.split_once("\\t%")?.1))) {
        Some((before, name)) => format!("{before}target=\\t%{name}"),
        None => line.to_owned(),
    }
}

fn shown(text: &[u8]) -> Vec<String> {
    let lines = text.split(|byte| [b'\n', 0].contains(byte));
    lines.map(|line| line.escape_ascii().to_string()).collect()
}

fn tidy(lines: &mut Vec<String>) {
    lines.sort();
    lines.dedup();
}
