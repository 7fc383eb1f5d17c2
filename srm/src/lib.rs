//! Which node serves, and is it well? The Server Recovery Manager and the daemon that it composes.

pub mod admin;
pub mod beacon;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod events;
pub mod evidence;
mod listen;
pub mod logging;
pub mod node;
pub mod notify;
pub mod pause;
pub mod safety;
pub mod setup;
mod slots;
pub mod sockets;
mod version;
pub mod view;
pub mod witness;
