//! What a client sees: a scriptable XMPP client, fleets of them, and the record of what each was promised and got.
//!
//! It sees only `xmpp-core`, and so can drive any XMPP server; the two streams of [`dual`] need one that offers them.
//!
//! | module | answers |
//! |---|---|
//! | [`conn`] | how does one stream come about and carry stanzas? |
//! | [`plain`] | how does any XEP-0198 client bind, resume and find the other node? |
//! | [`sm`] | what is not acknowledged yet, and what does `h` mean? |
//! | [`dual`] | which of the two streams carries the session? (pure) |
//! | [`session`] | one running client: the task that does what `dual` says |
//! | [`ledger`], [`presence`] | was a message lost, doubled, out of order? did anyone flicker? |
//! | [`script`] | what is said and heard, step by step, as a text that people read? |
//! | [`fleet`] | many clients that chat in pairs, and how long a fault kept them |
//!
//! One client: [`session::Session::spawn`] with an [`session::Observer`]. A load: [`fleet::Fleet::start`], wait for
//! `all_logged_in` and `all_parked`, `start_sending`, do harm and tell `fault_at`, `drain`, `report`.

pub mod conn;
pub mod dual;
pub mod fleet;
pub mod ledger;
pub mod plain;
pub mod presence;
pub mod script;
pub mod session;
pub mod silence;
pub mod sm;
