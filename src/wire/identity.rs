//! Our own certificate and key.

use std::path::Path;

use super::TlsError;

/// What we present to every peer.
#[derive(Debug, Clone)]
pub struct Identity;

impl Identity {
    /// Reads `csync2_ssl_cert.pem` and `csync2_ssl_key.pem` of the system directory.
    pub fn load(_system_dir: &Path) -> Result<Self, TlsError> {
        todo!()
    }
    /// DER.
    pub fn certificate(&self) -> &[u8] {
        todo!()
    }
}
