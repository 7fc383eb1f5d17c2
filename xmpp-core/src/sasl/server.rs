//! The server's half of a SCRAM exchange.

use std::fmt;

use ring::hmac;

use super::message::{self, Attributes};
use super::{Mechanism, SaslError, ScramCredentials, saslprep, xor};

/// One exchange: `start` on the client's first message, look the account up, `challenge`, `finish`.
pub struct ScramServer {
    mech: Mechanism,
    username: String,
    gs2_header: String,
    client_first_bare: String,
    client_nonce: String,
    challenge: Option<Challenge>,
}

/// What the last message is checked against.
struct Challenge {
    server_first: String,
    nonce: String,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl ScramServer {
    /// Reads client-first. The authorization identity must be empty or the user's own name.
    pub fn start(mech: Mechanism, client_first: &[u8]) -> Result<ScramServer, SaslError> {
        Self::start_in(mech, client_first, None)
    }

    /// As `start`, but accepts `user@domain` too, which is how RFC 6120 section 6.3.8 writes the authorization
    /// identity. `domain` is the stream's `to`.
    pub fn start_at_domain(
        mech: Mechanism,
        client_first: &[u8],
        domain: &str,
    ) -> Result<ScramServer, SaslError> {
        Self::start_in(mech, client_first, Some(domain))
    }

    fn start_in(
        mech: Mechanism,
        client_first: &[u8],
        domain: Option<&str>,
    ) -> Result<ScramServer, SaslError> {
        let text = message::text(client_first)?;
        let mut header = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (header.next(), header.next(), header.next()) else {
            return Err(SaslError::Malformed);
        };
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(SaslError::UnsupportedChannelBinding),
            _ => return Err(SaslError::Malformed),
        }
        let mut attributes = Attributes::of(bare);
        let username = saslprep(&message::unescape_name(attributes.expect('n')?)?)?;
        let client_nonce = message::nonce(attributes.expect('r')?)?.to_owned();
        attributes.ignore_extensions()?;
        check_authzid(authzid, &username, domain)?;
        Ok(ScramServer {
            mech,
            username,
            gs2_header: format!("{flag},{authzid},"),
            client_first_bare: bare.to_owned(),
            client_nonce,
            challenge: None,
        })
    }

    /// The name that is being proved, after SASLprep. The caller still makes a localpart of it; only that may
    /// become the JID of the session (S11).
    pub fn username(&self) -> &str {
        &self.username
    }

    /// server-first for these credentials (real or `fake`). `nonce_entropy` is fresh from a CSPRNG (S15).
    pub fn challenge(&mut self, cred: &ScramCredentials, nonce_entropy: [u8; 18]) -> Vec<u8> {
        let nonce = format!("{}{}", self.client_nonce, message::to_base64(&nonce_entropy));
        let server_first = format!("r={nonce},s={},i={}", message::to_base64(&cred.salt), cred.iterations);
        let bytes = server_first.clone().into_bytes();
        self.challenge = Some(Challenge {
            server_first,
            nonce,
            stored_key: cred.stored_key.clone(),
            server_key: cred.server_key.clone(),
        });
        bytes
    }

    /// Checks client-final and returns server-final, which goes out in `<success/>`.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, SaslError> {
        let challenge = self.challenge.ok_or(SaslError::NotAuthorized)?;
        let text = message::text(client_final)?;
        let (unsigned, proof) = text.rsplit_once(",p=").ok_or(SaslError::Malformed)?;
        let mut attributes = Attributes::of(unsigned);
        let binding = message::from_base64(attributes.expect('c')?)?;
        let nonce = message::nonce(attributes.expect('r')?)?;
        attributes.ignore_extensions()?;
        let proof = message::from_base64(proof)?;
        if proof.len() != self.mech.key_len() {
            return Err(SaslError::Malformed);
        }
        let auth = format!("{},{},{unsigned}", self.client_first_bare, challenge.server_first);
        let signature = self.mech.sign(&challenge.stored_key, auth.as_bytes());
        let client_key = xor(&proof, &signature);
        let proved = same_key(self.mech, &self.mech.hash(&client_key), &challenge.stored_key);
        // Nonce and header are public: comparing them may take as long as it likes.
        if !proved || nonce != challenge.nonce || binding != self.gs2_header.as_bytes() {
            return Err(SaslError::NotAuthorized);
        }
        let signature = self.mech.sign(&challenge.server_key, auth.as_bytes());
        Ok(format!("v={}", message::to_base64(&signature)).into_bytes())
    }
}

impl fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramServer").field("mech", &self.mech).finish_non_exhaustive()
    }
}

fn check_authzid(field: &str, username: &str, domain: Option<&str>) -> Result<(), SaslError> {
    if field.is_empty() {
        return Ok(());
    }
    let authzid = message::unescape_name(field.strip_prefix("a=").ok_or(SaslError::Malformed)?)?;
    let own_jid = domain.is_some_and(|domain| {
        authzid.rsplit_once('@').is_some_and(|(local, host)| local == username && host == domain)
    });
    if authzid == username || own_jid { Ok(()) } else { Err(SaslError::InvalidAuthzid) }
}

/// Equality in constant time (S14): both sides under one key, compared by ring.
fn same_key(mech: Mechanism, left: &[u8], right: &[u8]) -> bool {
    let key = mech.hmac(right);
    hmac::verify(&key, left, hmac::sign(&key, right).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ScramClient;
    use super::*;

    const ENTROPY: [u8; 18] = [7; 18];

    fn start(text: &str) -> Result<ScramServer, SaslError> {
        ScramServer::start(Mechanism::ScramSha256, text.as_bytes())
    }

    fn credentials(mech: Mechanism, password: &str) -> ScramCredentials {
        ScramCredentials::derive(mech, password, b"sixteen bytes...", 4096).unwrap()
    }

    /// The whole exchange; `Ok` if both sides are content.
    fn exchange(
        mech: Mechanism,
        user: &str,
        password: &str,
        cred: &ScramCredentials,
    ) -> Result<(), SaslError> {
        let mut client = ScramClient::new(mech, user, password, [3; 18])?;
        let mut server = ScramServer::start(mech, &client.first())?;
        let client_final = client.respond(&server.challenge(cred, ENTROPY))?;
        client.verify(&server.finish(&client_final)?)
    }

    #[test]
    fn gs2_header_and_names() {
        assert_eq!(start("n,,n=user,r=abc").unwrap().username(), "user");
        assert_eq!(start("y,,n=a=2Cb=3Dc,r=abc").unwrap().username(), "a,b=c");
        assert_eq!(start("n,a=user,n=user,r=abc").unwrap().username(), "user");
        assert_eq!(start("n,,n=I\u{AD}X,r=abc,x=ignored").unwrap().username(), "IX");
        assert_eq!(start("n,a=admin,n=user,r=abc").unwrap_err(), SaslError::InvalidAuthzid);
        for binding in ["p=tls-exporter,,n=user,r=abc", "p=tls-unique,,n=u,r=abc", "p=,,n=u,r=a"] {
            assert_eq!(start(binding).unwrap_err(), SaslError::UnsupportedChannelBinding);
        }
    }

    #[test]
    fn authzid_may_be_the_own_bare_jid_of_this_domain_only() {
        let at = |first: &str| {
            ScramServer::start_at_domain(Mechanism::ScramSha1, first.as_bytes(), "example.org").map(|_| ())
        };
        assert_eq!(at("n,a=user@example.org,n=user,r=abc"), Ok(()));
        assert_eq!(at("n,a=user,n=user,r=abc"), Ok(()));
        for other in ["user@example.net", "admin@example.org", "user@example.org@example.org", "@example.org"]
        {
            assert_eq!(at(&format!("n,a={other},n=user,r=abc")), Err(SaslError::InvalidAuthzid), "{other}");
        }
    }

    #[test]
    fn malformed_first_messages() {
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=user,r=abc",
            "N,,n=user,r=abc",
            "n,user,n=user,r=abc",
            "n,a=,n=u,r=abc",
            "n,,n=,r=abc",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,r=abc,n=user",
            "n,,m=x,n=user,r=abc",
            "n,,n=user,r=abc,m=x",
            "n,,n=us=er,r=abc",
            "n,,n=us\u{7}er,r=abc",
            "n,,n=user,r=a b",
            "n,,n=\0,r=abc",
            "n,,n=user,r=é",
            "n,,n=\u{AD},r=abc",
        ] {
            assert_eq!(start(bad).unwrap_err(), SaslError::Malformed, "{bad:?}");
        }
        let long = format!("n,,n=user,r={}", "a".repeat(5000));
        assert_eq!(start(&long).unwrap_err(), SaslError::Malformed);
        assert_eq!(
            ScramServer::start(Mechanism::ScramSha1, b"n,,n=\xff,r=abc").unwrap_err(),
            SaslError::Malformed
        );
    }

    #[test]
    fn only_the_right_password_gets_in() {
        for mech in Mechanism::ALL {
            let cred = credentials(mech, "pencil");
            assert_eq!(exchange(mech, "user", "pencil", &cred), Ok(()));
            assert_eq!(exchange(mech, "user", "pencils", &cred), Err(SaslError::NotAuthorized));
            let fake = ScramCredentials::fake(mech, b"cluster", "nobody", 4096);
            assert_eq!(exchange(mech, "nobody", "pencil", &fake), Err(SaslError::NotAuthorized));
            let empty = ScramCredentials { stored_key: vec![], server_key: vec![], ..cred };
            assert_eq!(exchange(mech, "user", "pencil", &empty), Err(SaslError::NotAuthorized));
        }
    }

    #[test]
    fn a_tampered_binding_or_nonce_is_refused() {
        let cred = credentials(Mechanism::ScramSha256, "pencil");
        let run = |edit: &dyn Fn(String) -> String| {
            let mech = Mechanism::ScramSha256;
            let mut client = ScramClient::new(mech, "user", "pencil", [3; 18]).unwrap();
            let mut server = ScramServer::start(mech, &client.first()).unwrap();
            let last = client.respond(&server.challenge(&cred, ENTROPY)).unwrap();
            server.finish(edit(String::from_utf8(last).unwrap()).as_bytes()).map(|_| ())
        };
        assert_eq!(run(&|last| last), Ok(()));
        assert_eq!(run(&|last| last.replace("c=biws", "c=eSws")), Err(SaslError::NotAuthorized));
        assert_eq!(run(&|last| last.replace(",r=", ",r=x")), Err(SaslError::NotAuthorized));
        assert_eq!(run(&|last| last.replace(",p=", ",x=y,p=")), Err(SaslError::NotAuthorized));
        assert_eq!(run(&|last| last.replace(",p=", ",p=AAAA")), Err(SaslError::Malformed));
        assert_eq!(run(&|last| last.split(",p=").next().unwrap().into()), Err(SaslError::Malformed));
    }

    #[test]
    fn finishing_without_a_challenge_is_refused() {
        let server = start("n,,n=user,r=abc").unwrap();
        assert_eq!(server.finish(b"c=biws,r=abc,p=AAAA"), Err(SaslError::NotAuthorized));
    }

    /// RFC 7677 section 3 and RFC 5802 section 5, played to the server with the nonce of the text: their server
    /// nonces are no base64 of 18 bytes, so the challenge is put together here.
    #[test]
    fn test_vectors_of_the_rfcs() {
        for (mech, salt, nonce, proof, verifier) in [
            (
                Mechanism::ScramSha256,
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                ["rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"],
                "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
            (
                Mechanism::ScramSha1,
                "QSXCR+Q6sek8bf92",
                ["fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j"],
                "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
        ] {
            let salt = message::from_base64(salt).unwrap();
            let cred = ScramCredentials::derive(mech, "pencil", &salt, 4096).unwrap();
            let first = format!("n,,n=user,r={}", nonce[0]);
            let mut server = ScramServer::start(mech, first.as_bytes()).unwrap();
            server.challenge(&cred, ENTROPY);
            let challenge = server.challenge.as_mut().unwrap();
            challenge.nonce = nonce.concat();
            challenge.server_first = format!("r={},s={},i=4096", nonce.concat(), message::to_base64(&salt));
            let last = format!("c=biws,r={},p={proof}", nonce.concat());
            let answer = server.finish(last.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), format!("v={verifier}"));
        }
    }

    proptest! {
        #[test]
        fn hostile_first_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ScramServer::start(Mechanism::ScramSha256, &bytes);
        }

        #[test]
        fn nearly_right_first_messages_never_panic(text in "[nyp],(a=)?[a-z=,]{0,4},[nmr]=\\PC{0,8},[rm]=\\PC{0,8}") {
            let _ = ScramServer::start(Mechanism::ScramSha1, text.as_bytes());
        }

        #[test]
        fn hostile_last_messages_never_get_in(text in "(c=(biws|\\PC{0,6}),)?(r=\\PC{0,40})?(,p=[A-Za-z0-9+/]{27}=)?") {
            let mut server = start("n,,n=user,r=abc").unwrap();
            server.challenge(&ScramCredentials::fake(Mechanism::ScramSha256, b"k", "user", 4096), ENTROPY);
            prop_assert!(server.finish(text.as_bytes()).is_err());
        }
    }
}
