//! The server's half of a SCRAM exchange.

use std::fmt;

use super::message::{self, Attributes};
use super::{Bindings, Mechanism, SaslError, ScramCredentials, ScramHash, check_authzid, saslprep, xor};

/// The stream that an exchange takes place on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Site<'a> {
    /// The stream's `to`: the authorization identity may be written as `user@domain` then.
    pub domain: Option<&'a str>,
    /// What clients may bind to. With it -PLUS mechanisms were offered, and a client that says otherwise has been
    /// deceived.
    pub bindings: Option<&'a Bindings>,
    /// What the stream offered, see [`super::downgrade_check`].
    pub offered: Option<&'a str>,
}

/// One exchange: `start` on the client's first message, look the account up, `challenge`, `finish`.
pub struct ScramServer {
    hash: ScramHash,
    username: String,
    /// What `c=` must hold: the gs2 header, and the data of the binding behind it.
    binding: Vec<u8>,
    client_first_bare: String,
    client_nonce: String,
    offered: Option<String>,
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
    /// Reads client-first. The authorization identity must be empty or the user's own.
    pub fn start(mech: Mechanism, client_first: &[u8], site: Site<'_>) -> Result<ScramServer, SaslError> {
        let text = message::text(client_first)?;
        let mut header = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (header.next(), header.next(), header.next()) else {
            return Err(SaslError::Malformed);
        };
        let bound = check_flag(mech, flag, site.bindings)?;
        let mut attributes = Attributes::of(bare);
        let username = saslprep(&message::unescape_name(attributes.expect('n')?)?)?;
        let client_nonce = message::nonce(attributes.expect('r')?)?.to_owned();
        attributes.ignore_extensions()?;
        if !authzid.is_empty() {
            let name = message::unescape_name(authzid.strip_prefix("a=").ok_or(SaslError::Malformed)?)?;
            check_authzid(&name, &username, site.domain)?;
        }
        let mut binding = format!("{flag},{authzid},").into_bytes();
        binding.extend_from_slice(bound.unwrap_or_default());
        Ok(ScramServer {
            hash: mech.hash(),
            username,
            binding,
            client_first_bare: bare.to_owned(),
            client_nonce,
            offered: site.offered.map(str::to_owned),
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
        let mut server_first =
            format!("r={nonce},s={},i={}", message::to_base64(&cred.salt), cred.iterations);
        if let Some(offered) = &self.offered {
            server_first.push_str(",h=");
            server_first.push_str(offered);
        }
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
        if proof.len() != self.hash.key_len() {
            return Err(SaslError::Malformed);
        }
        let auth = format!("{},{},{unsigned}", self.client_first_bare, challenge.server_first);
        let signature = self.hash.sign(&challenge.stored_key, auth.as_bytes());
        let client_key = xor(&proof, &signature);
        let proved = self.hash.same(&self.hash.hash(&client_key), &challenge.stored_key);
        let bound = self.hash.same(&binding, &self.binding);
        // The nonce is public: comparing it may take as long as it likes.
        if !proved || !bound || nonce != challenge.nonce {
            return Err(SaslError::NotAuthorized);
        }
        let signature = self.hash.sign(&challenge.server_key, auth.as_bytes());
        Ok(format!("v={}", message::to_base64(&signature)).into_bytes())
    }
}

impl fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramServer").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// What the gs2 flag says of channel binding (RFC 5802 section 6), and the data that is bound to.
fn check_flag<'a>(
    mech: Mechanism,
    flag: &str,
    bindings: Option<&'a Bindings>,
) -> Result<Option<&'a [u8]>, SaslError> {
    match (flag, bindings) {
        ("n" | "y", _) if mech.binds() => Err(SaslError::UnsupportedChannelBinding),
        ("n", _) | ("y", None) => Ok(None),
        ("y", Some(_)) => Err(SaslError::Downgrade),
        _ => {
            let name = flag.strip_prefix("p=").ok_or(SaslError::Malformed)?;
            let data = bindings.filter(|_| mech.binds()).and_then(|bindings| bindings.data(name));
            data.map(Some).ok_or(SaslError::UnsupportedChannelBinding)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use bytes::Bytes;

    use super::super::{ClientBinding, Exporter, ScramClient};
    use super::*;

    const ENTROPY: [u8; 18] = [7; 18];

    const SHA_256: Mechanism = Mechanism::Scram(ScramHash::Sha256);
    const SHA_256_PLUS: Mechanism = Mechanism::ScramPlus(ScramHash::Sha256);
    const EXPORTER: Exporter = [5; 32];
    const END_POINT: Bytes = Bytes::from_static(&[8; 32]);
    static BINDINGS: Bindings = Bindings { exporter: EXPORTER, end_point: Some(END_POINT) };
    /// Without TLS 1.3.
    const UNBOUND: Site<'_> = Site { domain: Some("example.org"), bindings: None, offered: None };
    /// With it.
    fn bound() -> Site<'static> {
        Site { bindings: Some(&BINDINGS), offered: Some("b2ZmZXJlZA=="), ..UNBOUND }
    }

    fn start(text: &str) -> Result<ScramServer, SaslError> {
        ScramServer::start(SHA_256, text.as_bytes(), Site::default())
    }

    fn credentials(hash: ScramHash, password: &str) -> ScramCredentials {
        ScramCredentials::derive(hash, password, b"sixteen bytes...", 4096).unwrap()
    }

    /// The whole exchange; `Ok` if both sides are content.
    fn exchange(
        hash: ScramHash,
        binding: ClientBinding,
        user: &str,
        password: &str,
        cred: &ScramCredentials,
    ) -> Result<(), SaslError> {
        let mut client = ScramClient::new(hash, binding, user, password, [3; 18])?;
        let mut server = ScramServer::start(client.mechanism(), &client.first(), bound())?;
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
    }

    #[test]
    fn each_gs2_flag_is_taken_where_it_is_true_and_nowhere_else() {
        use SaslError::{Downgrade, Malformed, UnsupportedChannelBinding as Unsupported};
        for (flag, plain, plain_bound, plus, plus_bound) in [
            ("n", Ok(()), Ok(()), Err(Unsupported), Err(Unsupported)),
            ("y", Ok(()), Err(Downgrade), Err(Unsupported), Err(Unsupported)),
            ("p=tls-exporter", Err(Unsupported), Err(Unsupported), Err(Unsupported), Ok(())),
            ("p=tls-server-end-point", Err(Unsupported), Err(Unsupported), Err(Unsupported), Ok(())),
            ("p=tls-unique", Err(Unsupported), Err(Unsupported), Err(Unsupported), Err(Unsupported)),
            ("p=", Err(Unsupported), Err(Unsupported), Err(Unsupported), Err(Unsupported)),
            ("p", Err(Malformed), Err(Malformed), Err(Malformed), Err(Malformed)),
            ("P=tls-exporter", Err(Malformed), Err(Malformed), Err(Malformed), Err(Malformed)),
        ] {
            let first = format!("{flag},,n=user,r=abc");
            let start = |mech, site| ScramServer::start(mech, first.as_bytes(), site).map(|_| ());
            assert_eq!(start(SHA_256, UNBOUND), plain, "{flag}");
            assert_eq!(start(SHA_256, bound()), plain_bound, "{flag}");
            assert_eq!(start(SHA_256_PLUS, UNBOUND), plus, "{flag}");
            assert_eq!(start(SHA_256_PLUS, bound()), plus_bound, "{flag}");
        }
    }

    #[test]
    fn a_binding_to_another_connection_is_refused() {
        let cred = credentials(ScramHash::Sha256, "pencil");
        let with = |data: Exporter| {
            exchange(ScramHash::Sha256, ClientBinding::Exporter(data), "user", "pencil", &cred)
        };
        assert_eq!(with(EXPORTER), Ok(()));
        // Somebody between the two, with a TLS connection to each, passes on what it hears.
        assert_eq!(with([6; 32]), Err(SaslError::NotAuthorized));
        let mut last_bit = EXPORTER;
        last_bit[31] ^= 1;
        assert_eq!(with(last_bit), Err(SaslError::NotAuthorized));
        let to = |data: &'static [u8]| {
            let data = ClientBinding::EndPoint(Bytes::from_static(data));
            exchange(ScramHash::Sha256, data, "user", "pencil", &cred)
        };
        assert_eq!(to(&[8; 32]), Ok(()));
        // Another server's certificate, or the right data under the wrong name.
        assert_eq!(to(&[9; 32]), Err(SaslError::NotAuthorized));
        assert_eq!(to(&EXPORTER), Err(SaslError::NotAuthorized));
    }

    #[test]
    fn a_client_that_was_shown_another_offer_goes_away() {
        let cred = credentials(ScramHash::Sha256, "pencil");
        let shown = |offer: &str| {
            let mut client =
                ScramClient::new(ScramHash::Sha256, ClientBinding::Unsupported, "user", "pencil", [3; 18])
                    .unwrap()
                    .was_offered(offer.to_owned());
            let mut server = ScramServer::start(SHA_256, &client.first(), bound()).unwrap();
            client.respond(&server.challenge(&cred, ENTROPY)).map(|_| ())
        };
        assert_eq!(shown("b2ZmZXJlZA=="), Ok(()));
        assert_eq!(shown("b3RoZXI="), Err(SaslError::Downgrade));
    }

    #[test]
    fn authzid_may_be_the_own_bare_jid_of_this_domain_only() {
        let at = |first: &str| {
            ScramServer::start(Mechanism::Scram(ScramHash::Sha1), first.as_bytes(), UNBOUND).map(|_| ())
        };
        assert_eq!(at("n,a=user@example.org,n=user,r=abc"), Ok(()));
        assert_eq!(at("n,a=user,n=user,r=abc"), Ok(()));
        // One address, however it is written: both go through the preparation of addresses.
        assert_eq!(at("n,a=User@Example.org,n=user,r=abc"), Ok(()));
        for other in [
            "user@example.net",
            "admin@example.org",
            "user@example.org@example.org",
            "@example.org",
            "user@example.org/phone",
            "example.org",
        ] {
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
            ScramServer::start(SHA_256, b"n,,n=\xff,r=abc", UNBOUND).unwrap_err(),
            SaslError::Malformed
        );
    }

    #[test]
    fn only_the_right_password_gets_in() {
        for hash in ScramHash::ALL {
            for binding in [ClientBinding::Unsupported, ClientBinding::Exporter(EXPORTER)] {
                let run = |user: &str, password: &str, cred: &ScramCredentials| {
                    exchange(hash, binding.clone(), user, password, cred)
                };
                let cred = credentials(hash, "pencil");
                assert_eq!(run("user", "pencil", &cred), Ok(()));
                assert_eq!(run("user", "pencils", &cred), Err(SaslError::NotAuthorized));
                let fake = ScramCredentials::fake(hash, b"cluster", "nobody", 4096);
                assert_eq!(run("nobody", "pencil", &fake), Err(SaslError::NotAuthorized));
                let empty = ScramCredentials { stored_key: vec![], server_key: vec![], ..cred };
                assert_eq!(run("user", "pencil", &empty), Err(SaslError::NotAuthorized));
            }
        }
    }

    #[test]
    fn a_tampered_binding_or_nonce_is_refused() {
        let cred = credentials(ScramHash::Sha256, "pencil");
        let run = |edit: &dyn Fn(String) -> String| {
            let binding = ClientBinding::Unsupported;
            let mut client = ScramClient::new(ScramHash::Sha256, binding, "user", "pencil", [3; 18]).unwrap();
            let mut server = ScramServer::start(SHA_256, &client.first(), UNBOUND).unwrap();
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
    /// nonces are no base64 of 18 bytes, so the challenge is put together here. For SHA-512 no text has an example;
    /// this one is that of RFC 7677 with the other hash, computed by Python's hashlib and hmac.
    #[test]
    fn test_vectors_of_the_rfcs() {
        for (hash, salt, nonce, proof, verifier) in [
            (
                ScramHash::Sha512,
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                ["rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"],
                "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
                "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
            ),
            (
                ScramHash::Sha256,
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                ["rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"],
                "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
            (
                ScramHash::Sha1,
                "QSXCR+Q6sek8bf92",
                ["fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j"],
                "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
        ] {
            let salt = message::from_base64(salt).unwrap();
            let cred = ScramCredentials::derive(hash, "pencil", &salt, 4096).unwrap();
            let first = format!("n,,n=user,r={}", nonce[0]);
            let mut server = ScramServer::start(Mechanism::Scram(hash), first.as_bytes(), UNBOUND).unwrap();
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
            let _ = ScramServer::start(SHA_256, &bytes, bound());
        }

        #[test]
        fn nearly_right_first_messages_never_panic(text in "([ny]|p(=tls-exporter)?),(a=)?[a-z=,]{0,4},[nmr]=\\PC{0,8},[rm]=\\PC{0,8}") {
            let _ = ScramServer::start(SHA_256_PLUS, text.as_bytes(), bound());
        }

        #[test]
        fn hostile_last_messages_never_get_in(text in "(c=(biws|\\PC{0,6}),)?(r=\\PC{0,40})?(,p=[A-Za-z0-9+/]{27}=)?") {
            let mut server = start("n,,n=user,r=abc").unwrap();
            server.challenge(&ScramCredentials::fake(ScramHash::Sha256, b"k", "user", 4096), ENTROPY);
            prop_assert!(server.finish(text.as_bytes()).is_err());
        }
    }
}
