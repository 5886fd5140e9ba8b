//! csync2 keeps files in step across the hosts of a cluster: it remembers the state of each file, finds what changed, and
//! brings the changes to the peers.
//!
//! The modules, in the order in which a run passes through them:
//!
//! 1. [`cli`] reads what was typed: one mode, its operands, the settings. [`logging`] is where messages go, [`memory`]
//!    what the allocator does with what is let go.
//! 2. [`commands`] has one function per mode. It opens a [`engine::Node`] ([`config`] says which files belong to the
//!    cluster and who shares them, [`store`] is the state database) and calls the engine.
//! 3. [`engine`] decides everything: [`engine::check`] compares disk and database and marks what changed as dirty,
//!    [`engine::update`] pushes what is dirty to all peers at once, [`engine::serve`] receives.
//! 4. [`wire`] speaks the protocol with a peer, [`delta`] makes and applies librsync deltas, [`fs`] touches files.
//! 5. [`model`] is the vocabulary that all of them share: names, file states, dirty entries.
//!
//! `config`, `store`, `wire`, `fs` and `delta` know `model` and the outside world, and none of each other: only the
//! engine brings them together. There is no global state; a `Node` is built once and passed on.

pub mod cli;
pub mod commands;
pub mod config;
pub mod delta;
pub mod engine;
pub mod fs;
pub mod logging;
pub mod memory;
pub mod model;
pub mod store;
pub mod wire;
