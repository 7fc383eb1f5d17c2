//! Does the whole hold? The model of the safety core, the seeded pair on a virtual clock, real processes with ledgers.

pub mod batches;
pub mod clock;
pub mod foreign;
pub mod fuzz;
pub mod measure;
pub mod model;
pub mod numbered;
pub mod pair;
pub mod powerloss;
pub mod rig;
pub mod scenario;
pub mod siege;
