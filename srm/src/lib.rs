//! Which node serves, and is it well? The Server Recovery Manager and the daemon that it composes.

pub mod admin;
pub mod config;
pub mod safety;
pub mod setup;
