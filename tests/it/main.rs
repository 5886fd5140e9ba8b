//! Tests of the whole program, most of them with the C program in one role or both.
//!
//! A scenario that passes with the C program in both roles says what csync2 does; the same scenario with our program in
//! a role says that we do it, too. What the C program gets wrong stands in `faults` and is asked of ours alone.

#[path = "../support/mod.rs"]
mod support;

mod actions;
mod audit;
mod backups;
mod benchmark;
mod calls;
mod certificates;
mod check_config;
mod cli;
mod compare;
mod conflicts;
mod coverage;
mod crash;
mod crowd;
mod dialects;
mod differential;
mod disks;
mod documents;
mod durability;
mod errors;
mod faults;
mod fuzz;
mod import;
mod init;
mod interop;
mod join;
mod listing;
mod logging;
mod messages;
mod names;
mod overlap;
mod packaging;
mod random;
mod schedules;
mod selection;
mod serve;
mod settings;
mod status;
mod stopping;
mod sync;
mod updates;
mod watching;
