//! SASL for both ends of a stream, without sockets, clocks or randomness of its own: SCRAM (RFC 5802, RFC 7677) with
//! and without channel binding, and PLAIN (RFC 4616) for the server.
//!
//! Everything read here comes from an unauthenticated stranger: nothing in this module panics on its input, and
//! nothing in it tells whether an account exists.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod binding;
mod client;
mod credentials;
mod hash;
mod key_cache;
mod mechanism;
mod message;
mod plain;
mod server;
mod token;

pub use binding::{
    Bindings, Exporter, TLS_EXPORTER, TLS_EXPORTER_LABEL, TLS_SERVER_END_POINT, downgrade_check,
};
pub use client::{ClientBinding, ScramClient};
pub use credentials::ScramCredentials;
pub use hash::ScramHash;
pub use key_cache::KeyCache;
pub use mechanism::Mechanism;
pub use plain::{Plain, PlainCheck};
pub use server::{ScramServer, Site};
pub use token::{TOKEN_ITERATIONS, TokenKey, TokenName};

use crate::jid::BareJid;

/// Rounds of PBKDF2 below which our client refuses to answer (RFC 5802 section 5.1, RFC 7677 section 4): a
/// server that asks for fewer is after the password.
pub const MIN_ITERATIONS: u32 = 4096;
/// Rounds of PBKDF2 above which our client refuses to answer: a server may not make it compute for minutes.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Bytes of salt in every account, real or made up: a length of its own would betray which accounts exist.
pub const SALT_LEN: usize = 16;
/// Longest SASL message in bytes (decoded) that is looked at; a longer one is malformed.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// What went wrong in a SASL exchange; all of them are the other side's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The message does not follow its RFC; nothing about the account has been looked at.
    #[error("the SASL message is malformed")]
    Malformed,
    /// Wrong password, unknown account, foreign nonce or forged binding: deliberately not told apart.
    #[error("the credentials were refused")]
    NotAuthorized,
    /// The client asked to act as somebody other than it proved to be (S11).
    #[error("the authorization identity is not the authenticated one")]
    InvalidAuthzid,
    /// The client binds to a channel in a way that the mechanism or this connection does not have (gs2 flag `p`), or
    /// does not bind with a -PLUS mechanism.
    #[error("the channel binding does not fit the mechanism or is of a type that was not offered")]
    UnsupportedChannelBinding,
    /// The client would bind, and believes that we cannot (gs2 flag `y`), although we offered it: somebody between us
    /// took the offer away (RFC 5802 section 6).
    #[error("the client was kept from seeing that channel binding is offered")]
    Downgrade,
}

impl SaslError {
    /// The element to put into `<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>` (RFC 6120 section 6.5).
    pub fn condition(&self) -> &'static str {
        match self {
            SaslError::Malformed => "malformed-request",
            SaslError::NotAuthorized | SaslError::UnsupportedChannelBinding | SaslError::Downgrade => {
                "not-authorized"
            }
            SaslError::InvalidAuthzid => "invalid-authzid",
        }
    }
}

/// What the name and the password become before they are compared (RFC 4013); empty is refused.
fn saslprep(text: &str) -> Result<String, SaslError> {
    let prepared = stringprep::saslprep(text).map_err(|_| SaslError::Malformed)?;
    if prepared.is_empty() { Err(SaslError::Malformed) } else { Ok(prepared.into_owned()) }
}

/// Whom the client wants to act as must be who it proves to be (S11): by the bare name, or by its bare JID, which is
/// how RFC 6120 section 6.3.8 writes it. Empty means the same.
fn check_authzid(authzid: &str, username: &str, domain: Option<&str>) -> Result<(), SaslError> {
    let own_jid = || {
        let own = BareJid::new(Some(username), domain?).ok()?;
        Some(BareJid::parse(authzid).ok()? == own)
    };
    let own = authzid.is_empty() || authzid == username || own_jid() == Some(true);
    if own { Ok(()) } else { Err(SaslError::InvalidAuthzid) }
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(a, b)| a ^ b).collect()
}
