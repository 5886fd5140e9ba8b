//! TLS as csync2 uses it.
