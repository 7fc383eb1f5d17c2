//! PLAIN (RFC 4616), the server's half: one message, and a check that takes milliseconds.

use std::fmt;

use super::{MAX_MESSAGE_LEN, Mechanism, SaslError, ScramCredentials, check_authzid, saslprep};

/// Who wants in, and with which password. Only inside TLS.
pub struct Plain {
    username: String,
    password: String,
}

impl Plain {
    /// Reads `[authzid] NUL authcid NUL passwd`: exactly two NULs (S11). `domain` is the stream's `to`.
    pub fn parse(message: &[u8], domain: &str) -> Result<Plain, SaslError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(SaslError::Malformed);
        }
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let mut parts = text.split('\0');
        let (Some(authzid), Some(username), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SaslError::Malformed);
        };
        let username = saslprep(username)?;
        check_authzid(authzid, &username, Some(domain))?;
        Ok(Plain { username, password: saslprep(password)? })
    }

    /// The name that is being proved, after SASLprep; see [`super::ScramServer::username`].
    pub fn username(&self) -> &str {
        &self.username
    }

    /// What is left to do, once the account's keys are there. `credentials` are those of the hash of
    /// [`Mechanism::Plain`].
    pub fn against(self, credentials: ScramCredentials) -> PlainCheck {
        PlainCheck { password: self.password, credentials }
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

/// A password and the keys it should fit.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainCheck {
    password: String,
    credentials: ScramCredentials,
}

impl PlainCheck {
    /// Whether the password fits. Costs milliseconds, the same for an account that does not exist: never on the
    /// engine's or a socket's thread.
    pub fn holds(&self) -> bool {
        let (hash, given) = (Mechanism::Plain.hash(), &self.credentials);
        ScramCredentials::derive(hash, &self.password, &given.salt, given.iterations)
            .is_ok_and(|derived| hash.same(&derived.stored_key, &given.stored_key))
    }
}

impl fmt::Debug for PlainCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainCheck").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Plain, SaslError> {
        Plain::parse(text.as_bytes(), "d.example")
    }

    #[test]
    fn only_the_right_password_holds() {
        let cred =
            ScramCredentials::derive(Mechanism::Plain.hash(), "pencil", b"sixteen bytes...", 4096).unwrap();
        let holds = |text: &str| parse(text).unwrap().against(cred.clone()).holds();
        assert!(holds("\0alice\0pencil"));
        assert!(holds("alice@d.example\0alice\0pencil"));
        assert!(!holds("\0alice\0pencils"));
        let fake = ScramCredentials::fake(Mechanism::Plain.hash(), b"cluster", "alice", 4096);
        assert!(!parse("\0alice\0pencil").unwrap().against(fake).holds());
    }

    #[test]
    fn a_message_with_other_than_two_nuls_or_without_name_or_password_is_malformed() {
        for bad in
            ["", "alice", "\0alice", "\0alice\0a\0b", "\0\0pencil", "\0alice\0", "\0al\u{7}ice\0pencil"]
        {
            assert_eq!(parse(bad).unwrap_err(), SaslError::Malformed, "{bad:?}");
        }
        assert_eq!(Plain::parse(b"\0\xff\0pencil", "d.example").unwrap_err(), SaslError::Malformed);
        let long = format!("\0alice\0{}", "a".repeat(5000));
        assert_eq!(parse(&long).unwrap_err(), SaslError::Malformed);
    }

    #[test]
    fn nobody_acts_as_somebody_else() {
        for other in ["bob", "bob@d.example", "alice@other.example", "alice@d.example/phone", "@d.example"] {
            assert_eq!(
                parse(&format!("{other}\0alice\0pencil")).unwrap_err(),
                SaslError::InvalidAuthzid,
                "{other}"
            );
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let plain = parse("\0alice\0pencil").unwrap();
        assert!(!format!("{plain:?}").contains("pencil"));
        let check = plain.against(ScramCredentials::fake(Mechanism::Plain.hash(), b"x", "alice", 4096));
        assert!(!format!("{check:?}").contains("pencil"));
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Plain::parse(&bytes, "d.example");
        }
    }
}
