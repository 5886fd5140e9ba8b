//! csync2: keeps files in step across the hosts of a cluster.

pub mod cli;
pub mod commands;
pub mod logging;
pub mod model;
