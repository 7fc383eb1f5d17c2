//! What a server keeps of a password, and what it makes up for an account that does not exist.

use std::fmt;
use std::num::NonZeroU32;

use ring::{hmac, pbkdf2};

use super::{Mechanism, SALT_LEN, SaslError, saslprep};

/// One account's keys for one mechanism (RFC 5802 section 5.1). Who steals them can pose as the server and try
/// passwords, but cannot log in.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredentials {
    /// Salt, the same on both nodes: 16 bytes where we made it.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2; at least 4096.
    pub iterations: u32,
    /// H(ClientKey): what the client's proof is checked against.
    pub stored_key: Vec<u8>,
    /// ServerKey: what proves the server to the client.
    pub server_key: Vec<u8>,
}

impl ScramCredentials {
    /// Computes the keys of a password. Costs milliseconds: never on the engine's or a socket's thread.
    pub fn derive(mech: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Result<Self, SaslError> {
        let keys = SaltedKeys::derive(mech, password, salt, iterations)?;
        let stored_key = mech.hash(&keys.client_key);
        Ok(ScramCredentials { salt: salt.to_vec(), iterations, stored_key, server_key: keys.server_key })
    }

    /// Credentials for an account that does not exist: the same answer for the same name on both nodes and after
    /// a restart, so that nobody learns who is here (S17). `secret` is the cluster's, `username` normalised as for
    /// the look-up, `iterations` what real accounts have. No password fits: `stored_key` is no known hash.
    pub fn fake(mech: Mechanism, secret: &[u8], username: &str, iterations: u32) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let part = |purpose: &str| {
            let mut input = hmac::Context::with_key(&secret);
            for field in ["scram-fake", mech.name(), purpose, username] {
                input.update(&(field.len() as u64).to_be_bytes());
                input.update(field.as_bytes());
            }
            input.sign().as_ref().to_vec()
        };
        let cut = |mut bytes: Vec<u8>, len: usize| {
            bytes.truncate(len);
            bytes
        };
        ScramCredentials {
            salt: cut(part("salt"), SALT_LEN),
            iterations,
            stored_key: cut(part("stored"), mech.key_len()),
            server_key: cut(part("server"), mech.key_len()),
        }
    }
}

impl fmt::Debug for ScramCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredentials").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// ClientKey and ServerKey: what a client needs of its password, and all that the slow rounds are for.
#[derive(Clone)]
pub(super) struct SaltedKeys {
    pub(super) client_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl SaltedKeys {
    pub(super) fn derive(
        mech: Mechanism,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, SaslError> {
        let rounds = NonZeroU32::new(iterations).ok_or(SaslError::Malformed)?;
        if salt.is_empty() {
            return Err(SaslError::Malformed);
        }
        let mut salted = vec![0; mech.key_len()];
        pbkdf2::derive(mech.pbkdf2(), rounds, salt, saslprep(password)?.as_bytes(), &mut salted);
        Ok(SaltedKeys {
            client_key: mech.sign(&salted, b"Client Key"),
            server_key: mech.sign(&salted, b"Server Key"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fake_is_the_same_on_both_nodes_and_differs_by_user_and_mechanism() {
        let fake = |mech, user: &str| ScramCredentials::fake(mech, b"cluster", user, 4096);
        for mech in Mechanism::ALL {
            assert_eq!(fake(mech, "juliet"), fake(mech, "juliet"));
            assert_ne!(fake(mech, "juliet").salt, fake(mech, "romeo").salt);
            assert_eq!(fake(mech, "juliet").salt.len(), SALT_LEN);
            assert_eq!(fake(mech, "juliet").stored_key.len(), mech.key_len());
            assert_eq!(fake(mech, "juliet").server_key.len(), mech.key_len());
        }
        assert_ne!(fake(Mechanism::ScramSha1, "juliet").salt, fake(Mechanism::ScramSha256, "juliet").salt);
        let other = ScramCredentials::fake(Mechanism::ScramSha256, b"another", "juliet", 4096);
        assert_ne!(fake(Mechanism::ScramSha256, "juliet").salt, other.salt);
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", ScramCredentials::fake(Mechanism::ScramSha256, b"x", "juliet", 4096));
        assert_eq!(text, "ScramCredentials { iterations: 4096, .. }");
    }

    #[test]
    fn what_cannot_be_a_password_is_refused() {
        let derive =
            |password, salt: &[u8], n| ScramCredentials::derive(Mechanism::ScramSha256, password, salt, n);
        assert_eq!(derive("", b"salt", 1), Err(SaslError::Malformed));
        assert_eq!(derive("a\u{7}b", b"salt", 1), Err(SaslError::Malformed));
        assert_eq!(derive("secret", b"", 1), Err(SaslError::Malformed));
        assert_eq!(derive("secret", b"salt", 0), Err(SaslError::Malformed));
    }
}
