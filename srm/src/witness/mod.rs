//! The witness: a third process that holds the registers of both groups, so that of two nodes that cannot see each other at
//! most one goes on (R0, policy `strict+witness`). It knows nothing of users.
//!
//! A node connects over TLS with its certificate of the link and says who it is; then both sides speak lines of JSON
//! ([`words`]). It reports its copies of the registers each second, which keeps the connection alive, and asks for
//! changes by compare-and-set. What the witness grants is on its disk first.
//!
//! An etcd may be in its place ([`etcd`]).

pub mod client;
pub mod etcd;
mod lines;
pub mod registers;
mod server;
#[cfg(test)]
mod tests;
pub mod words;

pub use server::{run, serve};
