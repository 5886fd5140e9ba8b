//! Reaching a peer by name.

use super::{Connection, Timeouts, WireError};

/// Connects to the first address of `peer` that answers. `bind` is our own name: its address is the local end, where
/// that works.
pub async fn dial(_peer: &str, _port: u16, _bind: Option<&str>, _timeouts: &Timeouts) -> Result<Connection, WireError> {
    todo!()
}
