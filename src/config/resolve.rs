//! Tree to Config.
