//! Tandem: session-mover.
