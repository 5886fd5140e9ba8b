//! What a person is told about a wrong configuration.

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The wording that scripts know, one line.
    pub message: String,
}
