//! Attacks on a real server, each named after its class (S1 to S45). While one goes on others chat, and it costs them
//! nothing: no stream of theirs is closed, their ledger is clean, and the server's memory stays bounded.

mod identity;
mod limits;
mod link;
mod login;
mod poison;
mod session;
mod xml;
