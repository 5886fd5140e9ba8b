//! The state database, through its public interface: the same stories on both engines, what is peculiar to each, and
//! taking turns with the C program.

mod bench;
mod both;
mod interop;
mod postgres;
mod sqlite;
#[path = "../support/postgres.rs"]
mod support;
