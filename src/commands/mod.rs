//! One function per mode.

pub mod keygen;
