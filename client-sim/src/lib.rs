//! Tandem: what a client sees.

pub mod conn;
pub mod dual;
pub mod ledger;
pub mod plain;
pub mod sm;
