//! Tandem: what a client sees.

pub mod ledger;
pub mod sm;
