//! One-time tokens: a dual client parks, and resumes, without its password.
//!
//! A token belongs to one session of one account. Its number counts the tokens of the session; a token is dead once one
//! with a higher number was used, which whoever keeps sessions has to see to. Nothing of a token is stored anywhere: it
//! is derived from a secret that both nodes have, from the account, the salt of its password, the session, and the
//! number. So it dies with the password, the account and the session, and nobody can make one from a stolen store.
//!
//! On the wire a token is `NUMBER.SECRET`. Its client authenticates by any SCRAM mechanism as `LOCALPART/SM-ID/NUMBER`,
//! which is no local part that an account could have (RFC 7622 section 3.3.1), with the whole token for a password.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::{SALT_LEN, ScramCredentials, ScramHash};

/// Rounds of PBKDF2 for a token, of which nobody guesses 256 random bits: slowing that down protects nothing.
pub const TOKEN_ITERATIONS: u32 = 1;

/// Which token of which session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenName {
    /// The session's SM-ID.
    pub session: [u8; 16],
    /// Counts the tokens of the session, from 1.
    pub number: u32,
}

impl TokenName {
    /// Takes a user name apart: the local part, and the token that is to be its password. `None`: it names no token.
    pub fn read(username: &str) -> Option<(&str, TokenName)> {
        let mut parts = username.split('/');
        let (local, session, number) = (parts.next()?, parts.next()?, parts.next()?);
        if local.is_empty() || parts.next().is_some() || session.len() != 32 {
            return None;
        }
        let mut id = [0; 16];
        for (byte, digits) in id.iter_mut().zip(session.as_bytes().chunks(2)) {
            let digit = |c: u8| (c as char).to_digit(16).filter(|_| !c.is_ascii_uppercase());
            *byte = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
        }
        let plain = number.bytes().all(|c| c.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| plain)?;
        Some((local, TokenName { session: id, number }))
    }

    /// What a client that was told `token` for its session calls itself; `None`: that is no token.
    pub fn username(local: &str, sm_id: &str, token: &str) -> Option<String> {
        let (number, secret) = token.split_once('.')?;
        let name = format!("{local}/{sm_id}/{number}");
        (!secret.is_empty() && TokenName::read(&name).is_some()).then_some(name)
    }
}

/// What all tokens are derived from: the same on both nodes.
#[derive(Clone)]
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// From a secret of the cluster that is used for other things too.
    pub fn new(secret: &[u8; 32]) -> TokenKey {
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"one-time tokens");
        TokenKey(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()))
    }

    fn derive(&self, purpose: &str, local: &str, salt: &[u8], token: TokenName) -> hmac::Tag {
        let mut input = hmac::Context::with_key(&self.0);
        let number = token.number.to_be_bytes();
        for field in [purpose.as_bytes(), local.as_bytes(), salt, &token.session, &number] {
            input.update(&(field.len() as u64).to_be_bytes());
            input.update(field);
        }
        input.sign()
    }

    /// The token. `salt` is that of the account's password.
    pub fn token(&self, local: &str, salt: &[u8], token: TokenName) -> String {
        let secret = self.derive("token", local, salt, token);
        format!("{}.{}", token.number, URL_SAFE_NO_PAD.encode(secret))
    }

    /// The salt of the exchange in which the token is used: tells by which password the account was known then.
    pub fn salt(&self, local: &str, salt: &[u8], token: TokenName) -> Vec<u8> {
        self.derive("salt", local, salt, token).as_ref()[..SALT_LEN].to_vec()
    }

    /// What the token's proof is checked against.
    pub fn credentials(
        &self,
        hash: ScramHash,
        local: &str,
        salt: &[u8],
        token: TokenName,
    ) -> ScramCredentials {
        let (password, salt) = (self.token(local, salt, token), self.salt(local, salt, token));
        ScramCredentials::derive(hash, &password, &salt, TOKEN_ITERATIONS).expect("a token can be a password")
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: TokenName = TokenName { session: [0xAB; 16], number: 7 };
    const SM_ID: &str = "abababababababababababababababab";

    #[test]
    fn names_are_read_as_they_are_written_and_nothing_else_is() {
        let name = TokenName::username("juliet", SM_ID, "7.secret").unwrap();
        assert_eq!(TokenName::read(&name), Some(("juliet", NAME)));
        for bad in ["juliet", "juliet/7", "/abababababababababababababababab/7", "juliet/ab/7", ""] {
            assert_eq!(TokenName::read(bad), None, "{bad}");
        }
        for number in ["", "0", "07", "+7", "-1", "7 ", "4294967296", "7/8", "x"] {
            assert_eq!(TokenName::read(&format!("juliet/{SM_ID}/{number}")), None, "{number}");
        }
        assert_eq!(TokenName::read(&format!("juliet/{}/7", SM_ID.to_uppercase())), None);
        assert_eq!(TokenName::read(&format!("juliet/{}/7", "é".repeat(16))), None);
        for token in ["7", "7.", ".secret", "x.secret", ""] {
            assert_eq!(TokenName::username("juliet", SM_ID, token), None, "{token}");
        }
    }

    #[test]
    fn a_token_is_bound_to_account_password_session_number_and_cluster() {
        let key = TokenKey::new(&[1; 32]);
        let (token, salt) = (key.token("juliet", b"salt", NAME), key.salt("juliet", b"salt", NAME));
        assert_eq!(TokenKey::new(&[1; 32]).token("juliet", b"salt", NAME), token);
        assert!(token.starts_with("7.") && token.len() == 2 + 43, "{token}");
        let session = TokenName { session: [0xAC; 16], ..NAME };
        let number = TokenName { number: 8, ..NAME };
        for (key, local, password, name) in [
            (&TokenKey::new(&[2; 32]), "juliet", "salt", NAME),
            (&key, "romeo", "salt", NAME),
            (&key, "juliet", "other", NAME),
            (&key, "juliet", "salt", session),
            (&key, "juliet", "salt", number),
            (&key, "juliets", "alt", NAME),
        ] {
            assert_ne!(key.token(local, password.as_bytes(), name)[2..], token[2..]);
            assert_ne!(key.salt(local, password.as_bytes(), name), salt);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", TokenKey::new(&[1; 32])), "TokenKey");
    }
}
