//! Tandem: presence-engine.
