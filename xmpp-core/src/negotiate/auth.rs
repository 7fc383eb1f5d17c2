//! SASL (RFC 6120 6.4) with SCRAM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::header::ExpectHeader;
use super::{Facts, Input, Lookup, Next, Output, Turn, not_authorized};
use crate::error::{StreamCondition, StreamError};
use crate::jid::BareJid;
use crate::ns;
use crate::sasl::{Mechanism, ScramServer};
use crate::stanza::Stanza;
use crate::xml::Writer;

/// `<auth/>` must come.
pub struct ExpectAuth {
    facts: Facts,
}

impl ExpectAuth {
    pub(super) fn new(facts: Facts) -> Self {
        ExpectAuth { facts }
    }

    /// Begins an exchange.
    pub fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Element(stanza) = input else { return Err(not_authorized()) };
        if stanza.head.is(ns::SASL, "abort") {
            return again(self.facts, "aborted", turn);
        }
        if !stanza.head.is(ns::SASL, "auth") {
            return Err(not_authorized());
        }
        let offered = |m: &Mechanism| turn.config.mechanisms.contains(m);
        let named = stanza.attr("mechanism").and_then(|name| Mechanism::parse(&name)).filter(offered);
        let Some(mechanism) = named else { return again(self.facts, "invalid-mechanism", turn) };
        match payload(&stanza) {
            Ok(Some(first)) => begin(self.facts, mechanism, &first, turn),
            Ok(None) => {
                turn.send(format!("<challenge xmlns='{}'/>", ns::SASL));
                Ok(Next::Response(ExpectResponse { facts: self.facts, exchange: Exchange::First(mechanism) }))
            }
            Err(condition) => again(self.facts, condition, turn),
        }
    }
}

/// The answer to a lookup must come.
pub struct ExpectCredentials {
    facts: Facts,
    scram: Box<ScramServer>,
    /// From the name the client authenticates as, and nothing else (S11).
    user: BareJid,
}

impl ExpectCredentials {
    /// Sends the challenge.
    pub fn handle(mut self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Credentials(lookup) = input else { return Err(not_authorized()) };
        let (credentials, known) = match lookup {
            Lookup::Found(credentials) => (credentials, true),
            Lookup::Unknown(credentials) => (credentials, false),
            Lookup::Unavailable => {
                // Our fault: it does not count as an attempt.
                turn.send(failure_bytes("temporary-auth-failure"));
                return Ok(Next::Auth(ExpectAuth { facts: self.facts }));
            }
        };
        let challenge = self.scram.challenge(&credentials, turn.entropy);
        turn.send(element("challenge", &challenge));
        let exchange = Exchange::Final { scram: self.scram, user: self.user, known };
        Ok(Next::Response(ExpectResponse { facts: self.facts, exchange }))
    }
}

/// `<response/>` must come.
pub struct ExpectResponse {
    facts: Facts,
    exchange: Exchange,
}

enum Exchange {
    /// The client sent no initial response: this will be it.
    First(Mechanism),
    /// This will be the client's proof.
    Final { scram: Box<ScramServer>, user: BareJid, known: bool },
}

impl ExpectResponse {
    /// Checks the proof, or takes the late initial response.
    pub fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Element(stanza) = input else { return Err(not_authorized()) };
        match stanza.head.name.as_str() {
            "response" if stanza.head.ns == ns::SASL => {}
            "abort" if stanza.head.ns == ns::SASL => return again(self.facts, "aborted", turn),
            "auth" if stanza.head.ns == ns::SASL => return again(self.facts, "malformed-request", turn),
            _ => return Err(not_authorized()),
        }
        let data = match payload(&stanza) {
            Ok(data) => data.unwrap_or_default(),
            Err(condition) => return again(self.facts, condition, turn),
        };
        match self.exchange {
            Exchange::First(mechanism) => begin(self.facts, mechanism, &data, turn),
            Exchange::Final { scram, user, known } => match scram.finish(&data) {
                // A made-up credential cannot be met; should it be, there is still no account.
                Ok(last) if known => {
                    turn.send(element("success", &last));
                    turn.out.push(Output::Restart);
                    let facts = Facts { user: Some(user), ..self.facts };
                    Ok(Next::Header(ExpectHeader::new(facts)))
                }
                Ok(_) => again(self.facts, "not-authorized", turn),
                Err(error) => again(self.facts, error.condition(), turn),
            },
        }
    }
}

fn begin(facts: Facts, mechanism: Mechanism, first: &[u8], turn: &mut Turn<'_>) -> Result<Next, StreamError> {
    let domain = facts.domain.as_deref().unwrap_or_default();
    let scram = match ScramServer::start_at_domain(mechanism, first, domain) {
        Ok(scram) => scram,
        Err(error) => return again(facts, error.condition(), turn),
    };
    // A name that is no local part belongs to no account.
    let Ok(user) = BareJid::new(Some(scram.username()), domain) else {
        return again(facts, "not-authorized", turn);
    };
    turn.out.push(Output::Lookup { user: user.local().unwrap_or_default().into(), mechanism });
    Ok(Next::Credentials(ExpectCredentials { facts, scram: Box::new(scram), user }))
}

/// The decoded payload: `None` if there is none, empty for `=` (RFC 6120 6.4.2).
fn payload(stanza: &Stanza) -> Result<Option<Vec<u8>>, &'static str> {
    match stanza.text().as_str() {
        "" => Ok(None),
        "=" => Ok(Some(Vec::new())),
        text => STANDARD.decode(text).map(Some).map_err(|_| "incorrect-encoding"),
    }
}

fn element(name: &str, data: &[u8]) -> bytes::Bytes {
    let mut w = Writer::new();
    w.open(name, ns::SASL).text(STANDARD.encode(data));
    w.finish()
}

fn failure_bytes(condition: &'static str) -> bytes::Bytes {
    let mut w = Writer::new();
    w.open("failure", ns::SASL).open(condition, "").close();
    w.finish()
}

/// Reports a failed attempt; an error once there were too many.
pub(super) fn failure(
    facts: &mut Facts,
    condition: &'static str,
    turn: &mut Turn<'_>,
) -> Result<(), StreamError> {
    turn.send(failure_bytes(condition));
    facts.failures += 1;
    if facts.failures >= turn.config.auth_attempts {
        return Err(StreamError::new(StreamCondition::PolicyViolation).with_text("too many failed attempts"));
    }
    Ok(())
}

fn again(mut facts: Facts, condition: &'static str, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
    failure(&mut facts, condition, turn)?;
    Ok(Next::Auth(ExpectAuth { facts }))
}
