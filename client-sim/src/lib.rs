//! Tandem: what a client sees.

pub mod conn;
pub mod dual;
pub mod fleet;
pub mod ledger;
pub mod plain;
pub mod presence;
pub mod session;
pub mod sm;
