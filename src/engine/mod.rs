//! Decides everything that csync2 decides; the only place where config, store, wire and fs meet.

pub mod membership;
