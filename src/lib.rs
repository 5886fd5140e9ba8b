//! csync2: keeps files in step across the hosts of a cluster.

pub mod cli;
pub mod commands;
pub mod config;
pub mod delta;
pub mod engine;
pub mod fs;
pub mod logging;
pub mod model;
pub mod store;
pub mod wire;
