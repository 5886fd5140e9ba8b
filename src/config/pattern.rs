//! Patterns.

/// A shell pattern of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
}

impl Pattern {
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        let _ = (name, &self.text);
        todo!()
    }
}
