//! Tandem: what a client sees.

pub mod conn;
pub mod dual;
pub mod ledger;
pub mod sm;
