//! SASL (RFC 6120 6.4): SCRAM, and where a PLAIN message goes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::header::ExpectHeader;
use super::plain::ExpectChecked;
use super::{Carrier, Config, Facts, Input, Lookup, Next, Output, Proved, Turn, not_authorized};
use crate::error::{StreamCondition, StreamError};
use crate::jid::BareJid;
use crate::ns;
use crate::sasl::{Bindings, Mechanism, Plain, SaslError, ScramServer, Site, TokenName, downgrade_check};
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
        let offered = |wanted: &Mechanism| self.facts.offered(turn.config).any(|known| known == *wanted);
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

/// Who is on the way in, as the first message says.
pub(super) enum Claim {
    Scram(Box<ScramServer>),
    Plain(Plain),
}

impl Claim {
    fn read(mechanism: Mechanism, first: &[u8], facts: &Facts, config: &Config) -> Result<Claim, SaslError> {
        let domain = facts.domain.as_deref().unwrap_or_default();
        if mechanism == Mechanism::Plain {
            return Plain::parse(first, domain).map(Claim::Plain);
        }
        let mechanisms = facts.offered(config).map(Mechanism::name);
        let offered = downgrade_check(mechanism.hash(), mechanisms, facts.binding_types(config));
        let site = Site { domain: Some(domain), bindings: facts.bindings(), offered: Some(&offered) };
        ScramServer::start(mechanism, first, site).map(|scram| Claim::Scram(Box::new(scram)))
    }

    fn username(&self) -> &str {
        match self {
            Claim::Scram(scram) => scram.username(),
            Claim::Plain(plain) => plain.username(),
        }
    }
}

/// The answer to a lookup must come.
pub struct ExpectCredentials {
    facts: Facts,
    claim: Claim,
    /// From the name the client authenticates as, and nothing else (S11).
    user: BareJid,
    /// What is to be proved, if it is not the password.
    token: Option<TokenName>,
}

impl ExpectCredentials {
    /// Sends the challenge, or has the password checked.
    pub fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Credentials(lookup) = input else { return Err(not_authorized()) };
        let (credentials, known) = match lookup {
            Lookup::Found(credentials) => (credentials, true),
            Lookup::Unknown(credentials) => (credentials, false),
            Lookup::Unavailable => return Ok(not_now(self.facts, turn)),
        };
        match self.claim {
            Claim::Scram(mut scram) => {
                let challenge = scram.challenge(&credentials, turn.entropy);
                turn.send(element("challenge", &challenge));
                let (user, token) = (self.user, self.token);
                let claimed = Proved { user, salt: credentials.salt.into(), token };
                let exchange = Exchange::Final { scram, claimed, known };
                Ok(Next::Response(ExpectResponse { facts: self.facts, exchange }))
            }
            Claim::Plain(_) if turn.throttled => Ok(not_now(self.facts, turn)),
            Claim::Plain(plain) => {
                let (user, token) = (self.user, self.token);
                let claimed = Proved { user, salt: credentials.salt.clone().into(), token };
                turn.out.push(Output::Check(plain.against(credentials)));
                Ok(Next::Checked(ExpectChecked::new(self.facts, claimed, known)))
            }
        }
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
    Final { scram: Box<ScramServer>, claimed: Proved, known: bool },
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
            // Not even looked at, so that nobody learns by it whether the password is right.
            Exchange::Final { .. } if turn.throttled => Ok(not_now(self.facts, turn)),
            Exchange::Final { scram, claimed, known } => match scram.finish(&data) {
                // A made-up credential cannot be met; should it be, there is still no account.
                Ok(last) if known => Ok(welcome(self.facts, claimed, &last, turn)),
                Ok(_) | Err(SaslError::NotAuthorized) => wrong(self.facts, turn),
                Err(error) => again(self.facts, error.condition(), turn),
            },
        }
    }
}

fn begin(facts: Facts, mechanism: Mechanism, first: &[u8], turn: &mut Turn<'_>) -> Result<Next, StreamError> {
    let claim = match Claim::read(mechanism, first, &facts, turn.config) {
        Ok(claim) => claim,
        Err(error) => return again(facts, error.condition(), turn),
    };
    // A name that is no local part belongs to no account.
    let domain = facts.domain.as_deref().unwrap_or_default();
    let (name, token) = match TokenName::read(claim.username()) {
        Some((local, token)) => (local, Some(token)),
        None => (claim.username(), None),
    };
    let Ok(user) = BareJid::new(Some(name), domain) else {
        return again(facts, "not-authorized", turn);
    };
    let local = user.local().unwrap_or_default().into();
    turn.out.push(Output::Lookup { user: local, token, hash: mechanism.hash() });
    Ok(Next::Credentials(ExpectCredentials { facts, claim, user, token }))
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
    w.open(name, ns::SASL);
    if !data.is_empty() {
        w.text(STANDARD.encode(data));
    }
    w.finish()
}

fn failure_bytes(condition: &'static str) -> bytes::Bytes {
    let mut w = Writer::new();
    w.open("failure", ns::SASL).open(condition, "").close();
    w.finish()
}

/// Proved: a new stream begins, which is this user's. `last` is the server's last word, empty if it has none.
pub(super) fn welcome(facts: Facts, proved: Proved, last: &[u8], turn: &mut Turn<'_>) -> Next {
    turn.send(element("success", last));
    turn.out.push(Output::Restart);
    Next::Header(ExpectHeader::new(Facts { user: Some(proved), ..facts }))
}

/// Our fault: it does not count as an attempt.
pub(super) fn not_now(facts: Facts, turn: &mut Turn<'_>) -> Next {
    turn.send(failure_bytes("temporary-auth-failure"));
    Next::Auth(ExpectAuth { facts })
}

/// A wrong password or an unknown account. While the accounts may be out of date it is not said to be wrong: a good
/// password is never refused as bad.
pub(super) fn wrong(facts: Facts, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
    turn.out.push(Output::Guessed);
    again(facts, if turn.stale { "temporary-auth-failure" } else { "not-authorized" }, turn)
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

impl Facts {
    /// What clients may bind to, where there is TLS 1.3.
    fn bindings(&self) -> Option<&Bindings> {
        match &self.carrier {
            Carrier::Tls { bindings } => bindings.as_ref(),
            Carrier::Clear => None,
        }
    }

    /// The types of channel binding for the mechanisms that bind (XEP-0440); none where no such mechanism is offered.
    pub(super) fn binding_types(&self, config: &Config) -> impl Iterator<Item = &'static str> + use<'_> {
        let plus = self.offered(config).any(Mechanism::binds);
        self.bindings().filter(|_| plus).into_iter().flat_map(Bindings::types)
    }

    /// The mechanisms of this stream, best first: the same for every user, and for every stream of its kind (S13).
    pub(super) fn offered<'a>(&self, config: &'a Config) -> impl Iterator<Item = Mechanism> + 'a {
        let binds = self.bindings().is_some();
        Mechanism::all().filter(move |mechanism| match mechanism {
            Mechanism::ScramPlus(hash) => binds && config.hashes.contains(hash),
            Mechanism::Scram(hash) => config.hashes.contains(hash),
            Mechanism::Plain => config.plain,
        })
    }
}
