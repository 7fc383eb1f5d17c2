//! SCRAM (RFC 5802, RFC 7677) for both ends of a stream, without sockets, clocks or randomness of its own.
//!
//! Channel binding (`-PLUS`) is not offered yet: the gs2 flags `n` and `y` are accepted, `p` is refused. PLAIN is off.
//! Everything read here comes from an unauthenticated stranger: nothing in this module panics on its input, and
//! nothing in it tells whether an account exists.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod client;
mod credentials;
mod key_cache;
mod message;
mod server;

pub use client::ScramClient;
pub use credentials::ScramCredentials;
pub use key_cache::KeyCache;
pub use server::ScramServer;

use ring::{digest, hmac, pbkdf2};

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
    /// The message does not follow RFC 5802; nothing about the account has been looked at.
    #[error("the SASL message is malformed")]
    Malformed,
    /// Wrong password, unknown account, foreign nonce or forged binding: deliberately not told apart.
    #[error("the credentials were refused")]
    NotAuthorized,
    /// The client asked to act as somebody other than it proved to be (S11).
    #[error("the authorization identity is not the authenticated one")]
    InvalidAuthzid,
    /// The client insists on channel binding, which no offered mechanism has (gs2 flag `p`).
    #[error("channel binding was demanded but not offered")]
    UnsupportedChannelBinding,
}

impl SaslError {
    /// The element to put into `<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>` (RFC 6120 section 6.5).
    pub fn condition(&self) -> &'static str {
        match self {
            SaslError::Malformed => "malformed-request",
            SaslError::NotAuthorized | SaslError::UnsupportedChannelBinding => "not-authorized",
            SaslError::InvalidAuthzid => "invalid-authzid",
        }
    }
}

/// The SCRAM mechanisms we speak, the better one first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mechanism {
    /// `SCRAM-SHA-256` (RFC 7677).
    ScramSha256,
    /// `SCRAM-SHA-1` (RFC 5802), which RFC 6120 makes mandatory and some clients know alone.
    ScramSha1,
}

impl Mechanism {
    /// All mechanisms in order of preference: the list a server offers.
    pub const ALL: [Mechanism; 2] = [Mechanism::ScramSha256, Mechanism::ScramSha1];

    /// The registered name, as in `<mechanism/>`.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
        }
    }

    /// The mechanism of this registered name; names are upper case (RFC 4422 section 3.1).
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mech| mech.name() == name)
    }

    /// Bytes in a key, proof or signature of this mechanism.
    pub fn key_len(self) -> usize {
        self.digest().output_len()
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Mechanism::ScramSha256 => &digest::SHA256,
            Mechanism::ScramSha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        }
    }

    fn hmac(self, key: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Mechanism::ScramSha256 => hmac::HMAC_SHA256,
            Mechanism::ScramSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        };
        hmac::Key::new(algorithm, key)
    }

    fn sign(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        hmac::sign(&self.hmac(key), data).as_ref().to_vec()
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), data).as_ref().to_vec()
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Mechanism::ScramSha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Mechanism::ScramSha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        }
    }
}

/// What the name and the password become before they are compared (RFC 4013); empty is refused.
fn saslprep(text: &str) -> Result<String, SaslError> {
    let prepared = stringprep::saslprep(text).map_err(|_| SaslError::Malformed)?;
    if prepared.is_empty() { Err(SaslError::Malformed) } else { Ok(prepared.into_owned()) }
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(a, b)| a ^ b).collect()
}
