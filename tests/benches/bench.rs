//! How long csync2 takes, beside the C program, rsync and find on the same files in the same run:
//!
//!     cargo bench --bench comparison -- --help
//!
//! Needs root, PostgreSQL, rsync and the C program. Prints Markdown; docs/performance.md holds what it printed once.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use comparison::Plan;
use support::Postgres;

mod comparison;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "most of the harness is for tests")]
mod support;

fn main() {
    let matches = Command::new("comparison")
        .about("Compares csync2 with the C program, rsync and find, and prints a table in Markdown")
        .args([
            number("files", "100000", "Files to check; 0: no checks"),
            number("pushed", "5000", "Files of 1 to 4 KiB to push; 0: no pushes"),
            number("rounds", "3", "How often everything is measured, in changing order"),
            number("peers", "1,4", "Push to so many peers at once").value_delimiter(','),
            // Cargo says so to every benchmark.
            Arg::new("bench").long("bench").hide(true).action(ArgAction::SetTrue),
        ])
        .get_matches();
    let plan = Plan {
        files: one(&matches, "files"),
        pushed: one(&matches, "pushed"),
        rounds: one(&matches, "rounds").max(1),
        settled: true,
        peers: matches.get_many::<usize>("peers").expect("a default").copied().collect(),
    };
    make_postgres_durable();
    for report in comparison::compare(&plan) {
        print!("{report}");
    }
}

/// The tests' server does not care about power cuts; here it does what servers in the field do.
fn make_postgres_durable() {
    let server = Postgres::shared();
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting} = on"));
    }
    server.sql("postgres", "SELECT pg_reload_conf()");
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").default_value(default).value_parser(value_parser!(usize)).help(help)
}

fn one(matches: &ArgMatches, name: &str) -> usize {
    *matches.get_one(name).expect("a default")
}
