//! Tandem: load-tests.
