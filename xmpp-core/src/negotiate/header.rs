//! The stream header and the features that answer it (RFC 6120 4.3, 4.7).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use compact_str::CompactString;

use super::auth::ExpectAuth;
use super::tls::ExpectStartTls;
use super::{Carrier, Config, ENTROPY_BYTES, Facts, Input, Next, Output, Turn, not_authorized};
use crate::error::{StreamCondition, StreamError};
use crate::jid::Jid;
use crate::xml::{StreamHeader, Writer};
use crate::{ns, sm};

/// A stream header must come: the first, the one after TLS, or the one after SASL.
pub struct ExpectHeader {
    facts: Facts,
}

impl ExpectHeader {
    pub(super) fn new(facts: Facts) -> Self {
        ExpectHeader { facts }
    }

    /// Answers the header with ours and the features of this stage.
    pub fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Header(header) = input else { return Err(not_authorized()) };
        let mut facts = self.facts;
        check(&header, &facts, turn.config)?;
        let domain = facts.domain.get_or_insert_with(|| domain_of(&header).into());
        let answer = answer(domain, header.from.as_ref(), turn.entropy);
        turn.send(answer);
        let features = features(&facts, turn);
        turn.send(features);
        Ok(match facts.user.take() {
            Some(proved) => {
                turn.out.push(Output::Authenticated(proved));
                Next::Done
            }
            None => match facts.carrier {
                Carrier::Tls { .. } => Next::Auth(ExpectAuth::new(facts)),
                Carrier::Clear => Next::StartTls(ExpectStartTls::new(facts)),
            },
        })
    }
}

fn domain_of(header: &StreamHeader) -> &str {
    header.to.as_ref().map(Jid::domain).unwrap_or_default()
}

fn check(header: &StreamHeader, facts: &Facts, config: &Config) -> Result<(), StreamError> {
    let major = |v: &CompactString| v.split_once('.').and_then(|(major, _)| major.parse::<u32>().ok());
    if header.version.as_ref().and_then(major).unwrap_or(0) < 1 {
        return Err(StreamError::new(StreamCondition::UnsupportedVersion));
    }
    let Some(to) = &header.to else {
        return Err(StreamError::new(StreamCondition::ImproperAddressing).with_text("no to in the header"));
    };
    if to.as_str() != to.domain() || !config.domains.iter().any(|d| d == to.domain()) {
        return Err(StreamError::new(StreamCondition::HostUnknown));
    }
    if facts.domain.as_ref().is_some_and(|d| d != to.domain()) {
        return Err(
            StreamError::new(StreamCondition::NotAuthorized).with_text("to changed on this connection")
        );
    }
    if let (Some(user), Some(from)) = (&facts.user, &header.from)
        && !user.user.same_bare(from)
    {
        return Err(StreamError::new(StreamCondition::InvalidFrom));
    }
    Ok(())
}

/// Our stream header (RFC 6120 4.7). `to` is what the client called itself.
pub(super) fn answer(domain: &str, to: Option<&Jid>, entropy: [u8; ENTROPY_BYTES]) -> Bytes {
    let mut w = Writer::new();
    w.raw("<?xml version='1.0'?>").open("stream:stream", ns::CLIENT).attr("xmlns:stream", ns::STREAM);
    w.attr("id", URL_SAFE_NO_PAD.encode(entropy)).attr("from", domain).attr_opt("to", to);
    w.attr("version", "1.0").attr("xml:lang", "en");
    w.finish_open()
}

/// The mechanisms, and the types of channel binding for those that bind (XEP-0440).
fn sasl(w: &mut Writer, facts: &Facts, config: &Config) {
    w.open("mechanisms", ns::SASL);
    for mechanism in facts.offered(config) {
        w.open("mechanism", "").text(mechanism.name()).close();
    }
    w.close();
    let mut types = facts.binding_types(config).peekable();
    if types.peek().is_some() {
        w.open("sasl-channel-binding", ns::SASL_BINDING);
        for name in types {
            w.open("channel-binding", "").attr("type", name).close();
        }
        w.close();
    }
}

fn features(facts: &Facts, turn: &Turn<'_>) -> Bytes {
    let mut w = Writer::new();
    w.open("stream:features", "");
    let limits = if facts.user.is_some() {
        w.open("bind", ns::BIND).close().raw(sm::FEATURE);
        w.raw(&String::from_utf8_lossy(&(turn.features)()));
        turn.config.after_auth
    } else {
        match facts.carrier {
            Carrier::Tls { .. } => sasl(&mut w, facts, turn.config),
            Carrier::Clear => _ = w.open("starttls", ns::TLS).open("required", "").close().close(),
        }
        turn.config.before_auth
    };
    w.open("limits", ns::STREAM_LIMITS).open("max-bytes", "").text(limits.bytes).close().close();
    w.finish()
}
