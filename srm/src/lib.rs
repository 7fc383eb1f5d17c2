//! Tandem: srm.
