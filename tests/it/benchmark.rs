//! The benchmark (tests/benches) still runs: everybody once, with few files. What they take is not looked at here.

#[path = "../benches/comparison/mod.rs"]
mod comparison;

#[test]
fn every_contender_does_every_workload() {
    let plan = comparison::Plan { files: 150, pushed: 10, peers: vec![2], rounds: 1, settled: false };
    let report = comparison::compare(&plan).map(|report| report.to_string()).collect::<String>();
    let rows = |name: &str| report.lines().filter(|line| line.starts_with(&format!("| {name} |"))).count();
    let both = ["SQLite", "PostgreSQL"].map(|backend| [format!("csync2, {backend}"), format!("C program, {backend}")]);
    for csync2 in both.as_flattened() {
        assert_eq!(rows(csync2), 3, "{csync2}:\n{report}");
    }
    assert_eq!((rows("rsync"), rows("find")), (3, 2), "{report}");
}
