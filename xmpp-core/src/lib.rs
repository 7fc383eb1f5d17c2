//! Tandem: what is said on the wire.

pub mod sasl;
pub mod tls;
