//! csync2: keeps files in step across the hosts of a cluster.

pub mod model;
pub mod store;
