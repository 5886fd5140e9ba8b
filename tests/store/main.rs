//! The state database, through its public interface: the same stories on both engines, what is peculiar to each, and
//! taking turns with the C program.

mod bench;
mod both;
mod faults;
mod interop;
mod postgres;
#[path = "../support/postgres_proxy.rs"]
mod proxy;
mod sqlite;
#[path = "../support/postgres.rs"]
mod support;
mod transfer;
