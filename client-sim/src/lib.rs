//! Tandem: client-sim.
