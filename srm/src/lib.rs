//! Which node serves, and is it well? The Server Recovery Manager and the daemon that it composes.

pub mod beacon;
pub mod evidence;
pub mod node;
pub mod safety;
pub mod view;
