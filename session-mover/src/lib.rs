//! How state leaves this process and comes back: the replicated log, the link between the nodes, and the loop that
//! drives the engine and lets nothing go before it is safe.

pub mod driver;
pub mod frame;
pub mod kill;
pub mod link;
pub mod log;
pub mod msg;
pub mod runs;
pub mod store;
