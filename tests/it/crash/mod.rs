//! Nothing is lost in a crash: client and server are killed after each system call of a push, in both dialects, and what
//! the next runs make of it is looked at.
//!
//! An ordinary run kills at some points of each story, chosen by a seed; `CSYNC2_CRASH_POINTS=all` at every one,
//! `CSYNC2_CRASH_POINTS=500` at so many, `CSYNC2_CRASH_SEED=7` at others.

mod disk;
mod story;

use self::story::{Story, Victim};
use crate::support::{Cast, Program};

const SQLITE: Cast = Cast::sqlite(Program::Ours);
const POSTGRES: Cast = Cast::postgres(Program::Ours);

#[test]
fn a_server_killed_in_a_batch_leaves_old_or_new() {
    Story::begin(SQLITE, &[]).kill_everywhere(Victim::Server, 16);
}

#[test]
fn a_server_killed_in_the_classic_dialect_leaves_old_or_new() {
    Story::begin(SQLITE, &["--no-batches"]).kill_everywhere(Victim::Server, 16);
}

/// As on file systems that know no files without a name.
#[test]
fn a_server_killed_with_temporary_names_leaves_none() {
    Story::begin(SQLITE, &[]).with_visible_files().kill_everywhere(Victim::Server, 8);
    Story::begin(SQLITE, &["--no-batches"]).with_visible_files().kill_everywhere(Victim::Server, 8);
}

#[test]
fn a_client_killed_in_a_batch_forgets_nothing() {
    Story::begin(SQLITE, &[]).kill_everywhere(Victim::Client, 12);
}

#[test]
fn a_client_killed_in_the_classic_dialect_forgets_nothing() {
    Story::begin(SQLITE, &["--no-batches"]).kill_everywhere(Victim::Client, 12);
}

#[test]
fn a_server_on_postgres_leaves_old_or_new() {
    Story::begin(POSTGRES, &[]).kill_everywhere(Victim::Server, 6);
    Story::begin(POSTGRES, &["--no-batches"]).kill_everywhere(Victim::Server, 6);
}

#[test]
fn a_client_on_postgres_forgets_nothing() {
    Story::begin(POSTGRES, &[]).kill_everywhere(Victim::Client, 6);
}

#[test]
fn a_power_cut_in_a_batch_loses_nothing() {
    Story::begin(SQLITE, &[]).cut_the_power_everywhere(Victim::Server, 14);
}

#[test]
fn a_power_cut_in_the_classic_dialect_loses_nothing() {
    Story::begin(SQLITE, &["--no-batches"]).cut_the_power_everywhere(Victim::Server, 14);
}

#[test]
fn a_power_cut_of_the_client_loses_nothing() {
    Story::begin(SQLITE, &[]).cut_the_power_everywhere(Victim::Client, 12);
}

/// The database is elsewhere, and has all that it confirmed.
#[test]
fn a_power_cut_beside_postgres_loses_nothing() {
    Story::begin(POSTGRES, &[]).cut_the_power_everywhere(Victim::Server, 6);
}
