//! How long csync2 takes, beside the C program, rsync and find on the same files in the same run:
//!
//!     cargo bench --bench comparison -- --help
//!
//! Needs root, PostgreSQL, rsync and the C program. Prints Markdown; docs/performance.md holds what it printed once.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use comparison::{Plan, Report, Workload};
use support::Postgres;

mod comparison;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "most of the harness is for tests")]
mod support;

/// Without a word about workloads: every row of the goals, and those around them.
const FULL: &str = "check huge push:2000 push:2000x2 push:2000x4 push:2000x8 push push:10000x8 equal far new changed removals \
                    compare start";

fn main() {
    let matches = Command::new("comparison")
        .about("Compares csync2 with the C program, rsync and find, and prints tables in Markdown")
        .after_help(format!("Workloads, and the size that each has without a number:\n{}", Workload::help()))
        .args([
            Arg::new("workload")
                .value_name("NAME[:SIZE[xPEERS]]")
                .help("What to measure: push:2000x4 is 2000 files to 4 peers; without any: everything")
                .num_args(0..)
                .value_parser(Workload::parse),
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .help("How often everything is measured, in changing order")
                .default_value("3")
                .value_parser(value_parser!(u32).range(1..)),
            Arg::new("only")
                .long("only")
                .value_name("TEXT")
                .help("Only contenders whose name in the tables holds this; may be given more than once")
                .action(ArgAction::Append),
            Arg::new("directory")
                .long("directory")
                .value_name("DIR")
                .help("Where files and SQLite's databases are made: on a disk, or flushes cost nothing")
                .default_value(env!("CARGO_TARGET_TMPDIR"))
                .value_parser(value_parser!(PathBuf)),
            // Cargo says so to every benchmark.
            Arg::new("bench").long("bench").hide(true).action(ArgAction::SetTrue),
        ])
        .get_matches();
    let asked: Vec<Workload> = matches.get_many("workload").unwrap_or_default().copied().collect();
    let full = FULL.split(' ').map(|word| Workload::parse(word).expect("a workload"));
    let plan = Plan {
        workloads: if asked.is_empty() { full.collect() } else { asked },
        rounds: *matches.get_one("rounds").expect("a default"),
        only: matches.get_many("only").unwrap_or_default().cloned().collect(),
        settled: true,
    };
    let directory: &PathBuf = matches.get_one("directory").expect("a default");
    tempfile::env::override_temp_dir(directory).expect("nobody made a temporary directory before");
    make_postgres_durable();
    let mut report = Report::default();
    for &workload in &plan.workloads {
        let tables = comparison::compare(workload, &plan);
        print!("{tables}");
        report.append(tables);
    }
    print!("{}", report.goals());
}

/// The tests' server does not care about power cuts; here it does what servers in the field do.
fn make_postgres_durable() {
    let server = Postgres::shared();
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting} = on"));
    }
    server.sql("postgres", "SELECT pg_reload_conf()");
}
