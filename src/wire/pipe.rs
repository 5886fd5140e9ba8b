//! Inherited descriptors as a stream.
