//! What a server keeps of a password, and what it makes up for an account that does not exist.

use std::fmt;
use std::num::NonZeroU32;

use ring::{hmac, pbkdf2};

use super::{SALT_LEN, SaslError, ScramHash, saslprep};

/// One account's keys for one hash (RFC 5802 section 5.1). Who steals them can pose as the server and try
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
    pub fn derive(hash: ScramHash, password: &str, salt: &[u8], iterations: u32) -> Result<Self, SaslError> {
        let keys = SaltedKeys::derive(hash, password, salt, iterations)?;
        let stored_key = hash.hash(&keys.client_key);
        Ok(ScramCredentials { salt: salt.to_vec(), iterations, stored_key, server_key: keys.server_key })
    }

    /// Credentials for an account that does not exist: the same answer for the same name on both nodes and after
    /// a restart, so that nobody learns who is here (S17). One salt for all hashes, as a real account has. `secret` is
    /// the cluster's, `username` normalised as for the look-up, `iterations` what real accounts have. No password
    /// fits: `stored_key` is no known hash.
    pub fn fake(hash: ScramHash, secret: &[u8], username: &str, iterations: u32) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let part = |purpose: &str, len: usize| {
            let mut input = hmac::Context::with_key(&secret);
            for field in ["scram-fake", purpose, username] {
                input.update(&(field.len() as u64).to_be_bytes());
                input.update(field.as_bytes());
            }
            // Repeated where 32 bytes do not do: nobody ever sees these two keys.
            input.sign().as_ref().iter().copied().cycle().take(len).collect()
        };
        ScramCredentials {
            salt: part("salt", SALT_LEN),
            iterations,
            stored_key: part("stored", hash.key_len()),
            server_key: part("server", hash.key_len()),
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
        hash: ScramHash,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, SaslError> {
        let rounds = NonZeroU32::new(iterations).ok_or(SaslError::Malformed)?;
        if salt.is_empty() {
            return Err(SaslError::Malformed);
        }
        let mut salted = vec![0; hash.key_len()];
        pbkdf2::derive(hash.pbkdf2(), rounds, salt, saslprep(password)?.as_bytes(), &mut salted);
        Ok(SaltedKeys {
            client_key: hash.sign(&salted, b"Client Key"),
            server_key: hash.sign(&salted, b"Server Key"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fake_is_the_same_on_both_nodes_and_for_all_hashes_and_differs_by_user() {
        let fake = |hash, user: &str| ScramCredentials::fake(hash, b"cluster", user, 4096);
        for hash in ScramHash::ALL {
            assert_eq!(fake(hash, "juliet"), fake(hash, "juliet"));
            assert_ne!(fake(hash, "juliet").salt, fake(hash, "romeo").salt);
            assert_eq!(fake(hash, "juliet").salt.len(), SALT_LEN);
            assert_eq!(fake(hash, "juliet").stored_key.len(), hash.key_len());
            assert_eq!(fake(hash, "juliet").server_key.len(), hash.key_len());
        }
        // A real account has one salt: two of them would tell that there is none.
        assert_eq!(fake(ScramHash::Sha1, "juliet").salt, fake(ScramHash::Sha256, "juliet").salt);
        assert_eq!(fake(ScramHash::Sha512, "juliet").salt, fake(ScramHash::Sha256, "juliet").salt);
        let other = ScramCredentials::fake(ScramHash::Sha256, b"another", "juliet", 4096);
        assert_ne!(fake(ScramHash::Sha256, "juliet").salt, other.salt);
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", ScramCredentials::fake(ScramHash::Sha256, b"x", "juliet", 4096));
        assert_eq!(text, "ScramCredentials { iterations: 4096, .. }");
    }

    #[test]
    fn what_cannot_be_a_password_is_refused() {
        let derive =
            |password, salt: &[u8], n| ScramCredentials::derive(ScramHash::Sha256, password, salt, n);
        assert_eq!(derive("", b"salt", 1), Err(SaslError::Malformed));
        assert_eq!(derive("a\u{7}b", b"salt", 1), Err(SaslError::Malformed));
        assert_eq!(derive("secret", b"", 1), Err(SaslError::Malformed));
        assert_eq!(derive("secret", b"salt", 0), Err(SaslError::Malformed));
    }
}
