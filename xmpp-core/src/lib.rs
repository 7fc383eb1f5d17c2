//! Tandem: xmpp-core.
