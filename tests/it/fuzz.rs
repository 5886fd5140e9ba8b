//! The twins of the fuzz targets: what libFuzzer found on its way is tried again with each run of the suite, and so are some
//! hundred changes to it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

// A library to the fuzz targets.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod checks;

use checks::Host;

type Check = fn(&[u8]);

/// All but `session`, which needs a host.
const CHECKS: [(&str, Check); 15] = [
    ("batch", checks::batch),
    ("blocks", checks::blocks),
    ("checktxt", checks::checktxt),
    ("codec", checks::codec),
    ("command_line", checks::command_line),
    ("config", checks::config),
    ("delta", checks::delta),
    ("encoding", checks::encoding),
    ("listing", checks::listing),
    ("patch", checks::patch),
    ("pattern", checks::pattern),
    ("reply", checks::reply),
    ("request", checks::request),
    ("store_url", checks::store_url),
    ("sync_path", checks::sync_path),
];

/// The inputs of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpora").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("read {}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target}");
    files.iter().map(|file| fs::read(file).expect("read an input")).collect()
}

/// Calls `check` with each input of the corpus, then with changed ones.
fn hold(target: &str, changes: u32, check: impl Fn(&[u8])) {
    let corpus = corpus(target);
    for input in &corpus {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            eprintln!("{target}: {}", input.escape_ascii());
            resume_unwind(panic);
        }
    }
    let config = ProptestConfig { cases: changes, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&changed(corpus), |input| {
        check(&input);
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{target}: {failure}");
    }
}

/// An input with some of its bytes replaced, by others or by those of another input.
fn changed(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let others = corpus.clone();
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        (select(others), any::<Index>(), 0..64_usize).prop_map(|(other, from, length)| {
            let from = from.index(other.len() + 1);
            other[from..(from + length).min(other.len())].to_vec()
        }),
    ];
    let changes = prop::collection::vec((any::<Index>(), 0..64_usize, bytes), 0..5);
    (select(corpus), changes).prop_map(|(mut input, changes)| {
        for (at, length, bytes) in changes {
            let at = at.index(input.len() + 1);
            let end = (at + length).min(input.len());
            input.splice(at..end, bytes);
        }
        input
    })
}

#[test]
fn whatever_was_found_by_fuzzing_holds() {
    for (target, check) in CHECKS {
        hold(target, 256, check);
    }
}

#[test]
fn any_session_ends_and_leaves_alone_what_is_outside() {
    let host = Host::new();
    hold("session", 128, |input| drop(host.serve(input)));
}

#[test]
fn the_sessions_of_the_corpus_speak_both_dialects() {
    let host = Host::new();
    let answers: Vec<Vec<u8>> = corpus("session").iter().map(|input| host.serve(input)).collect();
    let says = |what: &[u8]| answers.iter().any(|answer| answer.windows(what.len()).any(|window| window == what));
    // DONE, CONFLICT, COMPARE and WANT, each with the head of its frame.
    let batch: [&[u8]; 5] =
        [b"OK (batch 1).\n", &[0x86, 0, 0, 0, 5], &[0x84, 0, 0, 0, 25], &[0x83, 0, 0, 0, 36], &[0x82, 0, 0, 0, 5]];
    let lines: [&[u8]; 5] = [
        b"OK (send_data).\n",
        b"OK (data_follows).\ncontent of f\n",
        b"\t%25d%25/f\n",
        b"also marked dirty",
        b"OK (cu_later).\n",
    ];
    for what in batch.into_iter().chain(lines) {
        assert!(says(what), "nobody says {}", what.escape_ascii());
    }
}

#[test]
fn every_target_has_its_twin() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/targets");
    let entries = fs::read_dir(directory).expect("the targets");
    let name = |entry: fs::DirEntry| entry.path().file_stem().expect("a name").to_string_lossy().into_owned();
    let mut targets: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    targets.sort();
    let mut twins: Vec<&str> = CHECKS.iter().map(|(target, _)| *target).chain(["session"]).collect();
    twins.sort_unstable();
    assert_eq!(targets, twins);
}
