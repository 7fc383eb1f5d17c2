//! STARTTLS (RFC 6120 5.4), which is required on a port without direct TLS.

use super::auth::failure;
use super::header::ExpectHeader;
use super::{Carrier, Facts, Input, Next, Output, Turn, not_authorized};
use crate::error::StreamError;
use crate::ns;

/// `<starttls/>` must come.
pub struct ExpectStartTls {
    facts: Facts,
}

impl ExpectStartTls {
    pub(super) fn new(facts: Facts) -> Self {
        ExpectStartTls { facts }
    }

    /// Goes on to the handshake. SASL in the clear fails with `encryption-required`.
    pub fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Element(stanza) = input else { return Err(not_authorized()) };
        if stanza.head.is(ns::TLS, "starttls") {
            turn.send(format!("<proceed xmlns='{}'/>", ns::TLS));
            turn.out.push(Output::StartTls);
            return Ok(Next::Handshake(ExpectHandshake { facts: self.facts }));
        }
        if stanza.head.is(ns::SASL, "auth") {
            let mut facts = self.facts;
            failure(&mut facts, "encryption-required", turn)?;
            return Ok(Next::StartTls(ExpectStartTls { facts }));
        }
        Err(not_authorized())
    }
}

/// The handshake is under way.
pub struct ExpectHandshake {
    facts: Facts,
}

impl ExpectHandshake {
    /// After the handshake a new stream begins; what was known of the old one is forgotten except its domain.
    pub fn handle(self, input: Input) -> Result<Next, StreamError> {
        let Input::TlsReady { bindings } = input else { return Err(not_authorized()) };
        let carrier = Carrier::Tls { bindings };
        Ok(Next::Header(ExpectHeader::new(Facts { carrier, ..self.facts })))
    }
}
