//! csync2: keeps files in step across the hosts of a cluster.

pub mod delta;
pub mod fs;
pub mod model;
