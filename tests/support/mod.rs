//! The test harness: clusters of nodes on loopback, each with an address, a tree, a system directory and a database of
//! its own, and with either program in any role.
//!
//! A scenario is a function of a [`Cast`]; [`scenarios!`] turns it into one test for each cast of the list in `cast`.
//! Everything lives in temporary directories, every daemon dies with the value that stands for it.

pub(crate) mod cast;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod cutting;
pub(crate) mod database;
pub(crate) mod differential;
pub(crate) mod hosts;
pub(crate) mod messages;
pub(crate) mod postgres;
pub(crate) mod postgres_proxy;
pub(crate) mod process;
pub(crate) mod session;
pub(crate) mod syslog;
pub(crate) mod tracer;
pub(crate) mod tree;

pub(crate) use cast::{Cast, Program, scenarios};
pub(crate) use database::Table;
pub(crate) use hosts::Hosts;
pub(crate) use postgres::Postgres;
pub(crate) use syslog::Syslog;
pub(crate) use tree::{Tree, assert_same, dir, fifo, link, tree};
