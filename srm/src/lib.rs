//! Which node serves, and is it well? The Server Recovery Manager and the daemon that it composes.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod safety;
pub mod setup;
