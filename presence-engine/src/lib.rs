//! Who is where, who may know, where does a stanza go: the pure engine behind a Tandem node.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod engine;
pub mod front;
pub mod ids;
pub mod merge;
pub mod record;
pub mod state;
pub mod subscription;
