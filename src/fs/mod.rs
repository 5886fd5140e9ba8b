//! Touches files: reads their state, walks trees, changes what a peer may change.
//!
//! What a peer causes goes through [`Root`] and [`Place`]: an open directory and one name in it. No function here takes
//! a path of a peer as text for the kernel to resolve, so a directory that becomes a symlink at the wrong moment leads
//! to an error and never out of the root. Which names belong to the cluster, and who may change them, is for others.

mod attributes;
pub mod backup;
pub mod beneath;
pub mod large;
pub mod meta;
mod open;
pub mod place;
pub mod presence;
pub mod temp;
#[cfg(test)]
mod testing;
pub mod walk;

pub use attributes::NotTakenOver;
pub use backup::Backup;
pub use beneath::{BeneathError, Locator, Resolver, Root};
pub use large::read_ahead;
pub use meta::metadata;
pub use place::{DeviceKind, Place};
pub use presence::{Presence, PresenceCheckers, presence};
pub use temp::TempFile;
pub use walk::{Entry, KindHint, Visitor, walk};
