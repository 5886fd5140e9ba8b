//! The benchmark (tests/benches) still runs: everybody once, with little to do. What they take is not looked at here.

#[path = "../benches/comparison/mod.rs"]
#[expect(dead_code, reason = "the command line is the benchmark's")]
mod comparison;

use comparison::{Plan, Report, Workload};

#[test]
fn every_contender_does_every_workload() {
    let mut report = Report::default();
    for (workloads, only) in [
        ("check:150 push:10 equal:10 far:3 changed:1 compare:10 start:1 status:100", &[][..]),
        ("huge:150 push:10x2 new:1 removals:10", &["ours, SQLite", "find", "rsync"]),
    ] {
        let plan = Plan {
            workloads: workloads.split(' ').map(|word| Workload::parse(word).unwrap()).collect(),
            rounds: 1,
            only: only.iter().map(ToString::to_string).collect(),
            settled: false,
        };
        for &workload in &plan.workloads {
            report.append(comparison::compare(workload, &plan));
        }
    }
    let (tables, goals) = (report.to_string(), report.goals());
    let rows = |name: &str| tables.lines().filter(|line| line.starts_with(&format!("| {name} |"))).count();
    for (name, count) in [
        ("ours, SQLite", 15),
        ("ours, PostgreSQL", 10),
        ("ours to C, SQLite", 5),
        ("C to ours, SQLite", 7),
        ("C, SQLite", 9),
        ("C, PostgreSQL", 6),
        ("rsync", 11),
        ("rsync --fsync", 4),
        ("find", 5),
        ("true", 1),
    ] {
        assert_eq!(rows(name), count, "{name}:\n{tables}");
    }
    assert!(goals.lines().count() > 30, "{goals}");
}
