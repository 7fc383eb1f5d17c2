//! The client's half of a SCRAM exchange.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ring::hmac;

use super::credentials::SaltedKeys;
use super::message::{self, Attributes};
use super::{
    Exporter, KeyCache, MAX_ITERATIONS, MIN_ITERATIONS, Mechanism, SaslError, ScramHash, TLS_EXPORTER,
    TLS_SERVER_END_POINT, TOKEN_ITERATIONS, saslprep, xor,
};

/// What the client knows of channel binding; it becomes the gs2 flag (RFC 5802 section 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientBinding {
    /// This client, or its connection, cannot bind (`n`).
    Unsupported,
    /// It could, but the server offers no -PLUS mechanism (`y`): should that be the work of somebody between, the
    /// server will notice.
    NotOffered,
    /// Bound to the connection by `tls-exporter` (`p=tls-exporter`), with a -PLUS mechanism.
    Exporter(Exporter),
    /// Bound to the server's certificate, by its hash (`p=tls-server-end-point`), with a -PLUS mechanism.
    EndPoint(Bytes),
}

impl ClientBinding {
    /// The gs2 header, without an authorization identity.
    fn header(&self) -> String {
        match self {
            ClientBinding::Unsupported => "n,,".to_owned(),
            ClientBinding::NotOffered => "y,,".to_owned(),
            ClientBinding::Exporter(_) => format!("p={TLS_EXPORTER},,"),
            ClientBinding::EndPoint(_) => format!("p={TLS_SERVER_END_POINT},,"),
        }
    }

    /// What `c=` holds, in base64.
    fn bound(&self) -> String {
        let mut bytes = self.header().into_bytes();
        bytes.extend_from_slice(match self {
            ClientBinding::Unsupported | ClientBinding::NotOffered => &[],
            ClientBinding::Exporter(data) => data,
            ClientBinding::EndPoint(data) => data,
        });
        message::to_base64(&bytes)
    }
}

/// One exchange: `first`, `respond` to the challenge, `verify` the server's last word.
pub struct ScramClient {
    hash: ScramHash,
    binding: ClientBinding,
    user: String,
    password: String,
    nonce: String,
    cache: Option<Arc<KeyCache>>,
    /// Fewest rounds of PBKDF2 that are done for a server.
    least: u32,
    /// What it was offered, see [`super::downgrade_check`].
    offered: Option<String>,
    expected: Option<Expected>,
}

/// What only a server that knows the account can say.
struct Expected {
    server_key: Vec<u8>,
    auth_message: String,
}

impl ScramClient {
    /// A client that will prove `password`; `nonce_entropy` is fresh from a CSPRNG. A name or password that
    /// SASLprep forbids is `Malformed`.
    pub fn new(
        hash: ScramHash,
        binding: ClientBinding,
        user: &str,
        password: &str,
        nonce_entropy: [u8; 18],
    ) -> Result<ScramClient, SaslError> {
        Ok(ScramClient {
            hash,
            binding,
            user: saslprep(user)?,
            password: saslprep(password)?,
            nonce: message::to_base64(&nonce_entropy),
            cache: None,
            least: MIN_ITERATIONS,
            offered: None,
            expected: None,
        })
    }

    /// The mechanism that this exchange is one of.
    pub fn mechanism(&self) -> Mechanism {
        match self.binding {
            ClientBinding::Exporter(_) | ClientBinding::EndPoint(_) => Mechanism::ScramPlus(self.hash),
            ClientBinding::Unsupported | ClientBinding::NotOffered => Mechanism::Scram(self.hash),
        }
    }

    /// Takes the slow rounds from `cache` where they have been done before.
    pub fn with_cache(mut self, cache: Arc<KeyCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// What is proved is a one-time token, of which few rounds give nothing away.
    pub fn of_token(mut self) -> Self {
        self.least = TOKEN_ITERATIONS;
        self
    }

    /// What the stream offered, as [`super::downgrade_check`] has it: a server that says that it was something else ends
    /// the exchange with [`SaslError::Downgrade`].
    pub fn was_offered(mut self, offered: String) -> Self {
        self.offered = Some(offered);
        self
    }

    /// client-first, for `<auth mechanism='..'>`.
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.header(), self.first_bare()).into_bytes()
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", message::escape_name(&self.user), self.nonce)
    }

    /// client-final for this server-first. Costs milliseconds where the keys are not cached. A challenge outside
    /// `MIN_ITERATIONS..=MAX_ITERATIONS` is `Malformed`.
    pub fn respond(&mut self, server_first: &[u8]) -> Result<Vec<u8>, SaslError> {
        let text = message::text(server_first)?;
        let mut attributes = Attributes::of(text);
        let nonce = message::nonce(attributes.expect('r')?)?;
        let salt = message::from_base64(attributes.expect('s')?)?;
        let iterations = attributes.expect('i')?.parse::<u32>().map_err(|_| SaslError::Malformed)?;
        let offered = attributes.extension(Some('h'))?;
        if offered.is_some_and(|told| self.offered.as_ref().is_some_and(|seen| seen != told)) {
            return Err(SaslError::Downgrade);
        }
        if !(self.least..=MAX_ITERATIONS).contains(&iterations) {
            return Err(SaslError::Malformed);
        }
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(SaslError::NotAuthorized);
        }
        let keys = self.keys(&salt, iterations)?;
        let unsigned = format!("c={},r={nonce}", self.binding.bound());
        let auth_message = format!("{},{text},{unsigned}", self.first_bare());
        let stored_key = self.hash.hash(&keys.client_key);
        let proof = xor(&keys.client_key, &self.hash.sign(&stored_key, auth_message.as_bytes()));
        self.expected = Some(Expected { server_key: keys.server_key, auth_message });
        Ok(format!("{unsigned},p={}", message::to_base64(&proof)).into_bytes())
    }

    fn keys(&self, salt: &[u8], iterations: u32) -> Result<SaltedKeys, SaslError> {
        match &self.cache {
            Some(cache) => cache.salted(self.hash, &self.user, &self.password, salt, iterations),
            None => SaltedKeys::derive(self.hash, &self.password, salt, iterations),
        }
    }

    /// Checks server-final: `NotAuthorized` if this is not the server that knows the account.
    pub fn verify(&self, server_final: &[u8]) -> Result<(), SaslError> {
        let expected = self.expected.as_ref().ok_or(SaslError::Malformed)?;
        let text = message::text(server_final)?;
        if text.starts_with("e=") {
            return Err(SaslError::NotAuthorized);
        }
        let mut attributes = Attributes::of(text);
        let signature = message::from_base64(attributes.expect('v')?)?;
        attributes.ignore_extensions()?;
        hmac::verify(&self.hash.hmac(&expected.server_key), expected.auth_message.as_bytes(), &signature)
            .map_err(|_| SaslError::NotAuthorized)
    }
}

impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramClient").field("hash", &self.hash).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The client with the nonce of an RFC's example.
    fn client(hash: ScramHash, nonce: &str) -> ScramClient {
        let client = ScramClient::new(hash, ClientBinding::Unsupported, "user", "pencil", [0; 18]).unwrap();
        ScramClient { nonce: nonce.into(), ..client }
    }

    #[test]
    fn test_vector_of_rfc_7677() {
        let mut client = client(ScramHash::Sha256, "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(client.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge =
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = String::from_utf8(client.respond(challenge).unwrap()).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    #[test]
    fn test_vector_of_rfc_5802() {
        let mut client = client(ScramHash::Sha1, "fyko+d2lbbFgONRv9qkxdawL");
        let challenge = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        let last = String::from_utf8(client.respond(challenge).unwrap()).unwrap();
        assert_eq!(
            last,
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        assert_eq!(client.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), Ok(()));
        assert_eq!(client.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKR="), Err(SaslError::Malformed));
        assert_eq!(client.verify(b"v=smF9pqV8S7suAoZWja4dJRkFsKQ="), Err(SaslError::NotAuthorized));
        assert_eq!(client.verify(b"e=invalid-proof"), Err(SaslError::NotAuthorized));
        assert_eq!(client.verify(b""), Err(SaslError::Malformed));
    }

    #[test]
    fn the_flag_says_what_the_client_knows_of_channel_binding() {
        for (binding, header, bound, mechanism) in [
            (ClientBinding::Unsupported, "n,,", "c=biws,", Mechanism::Scram(ScramHash::Sha1)),
            (ClientBinding::NotOffered, "y,,", "c=eSws,", Mechanism::Scram(ScramHash::Sha1)),
            (
                ClientBinding::Exporter([0; 32]),
                "p=tls-exporter,,",
                "c=cD10bHMtZXhwb3J0ZXIsLAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,",
                Mechanism::ScramPlus(ScramHash::Sha1),
            ),
        ] {
            let mut client = ScramClient { binding, ..client(ScramHash::Sha1, "abc") };
            assert_eq!(client.mechanism(), mechanism);
            assert!(client.first().starts_with(header.as_bytes()));
            let last = client.respond(b"r=abcdef,s=QSXCR+Q6sek8bf92,i=4096").unwrap();
            assert!(last.starts_with(bound.as_bytes()), "{}", String::from_utf8_lossy(&last));
        }
    }

    #[test]
    fn a_server_cannot_weaken_the_exchange() {
        let respond = |challenge: &str| client(ScramHash::Sha1, "abc").respond(challenge.as_bytes());
        assert!(respond("r=abcdef,s=QSXCR+Q6sek8bf92,i=4096").is_ok());
        assert_eq!(respond("r=abcdef,s=QSXCR+Q6sek8bf92,i=1").unwrap_err(), SaslError::Malformed);
        assert_eq!(respond("r=abcdef,s=QSXCR+Q6sek8bf92,i=4294967295").unwrap_err(), SaslError::Malformed);
        assert_eq!(respond("r=abcdef,s=,i=4096").unwrap_err(), SaslError::Malformed);
        assert_eq!(respond("r=abc,s=QSXCR+Q6sek8bf92,i=4096").unwrap_err(), SaslError::NotAuthorized);
        assert_eq!(respond("r=xyzdef,s=QSXCR+Q6sek8bf92,i=4096").unwrap_err(), SaslError::NotAuthorized);
        assert_eq!(respond("m=x,r=abcdef,s=QSXCR+Q6sek8bf92,i=4096").unwrap_err(), SaslError::Malformed);
        assert_eq!(client(ScramHash::Sha1, "abc").verify(b"v=AAAA"), Err(SaslError::Malformed));
    }

    #[test]
    fn the_cache_gives_the_same_answer_and_is_used() {
        let cache = Arc::new(KeyCache::new());
        let challenge = b"r=abcdef,s=QSXCR+Q6sek8bf92,i=4096";
        let plain = client(ScramHash::Sha1, "abc").respond(challenge);
        for _ in 0..3 {
            let mut cached = client(ScramHash::Sha1, "abc").with_cache(Arc::clone(&cache));
            assert_eq!(cached.respond(challenge), plain);
        }
        assert_eq!(cache.len(), 1);
        let other =
            ScramClient::new(ScramHash::Sha1, ClientBinding::Unsupported, "user", "other", [0; 18]).unwrap();
        let mut other = ScramClient { nonce: "abc".into(), ..other }.with_cache(Arc::clone(&cache));
        assert_ne!(other.respond(challenge), plain);
        assert_eq!(cache.len(), 2);
    }

    proptest! {
        #[test]
        fn hostile_servers_never_panic_the_client(
            first in "(r=)?(abc)?\\PC{0,20}(,s=[A-Za-z+/=]{0,8})?(,i=[0-9]{0,3})?",
            last in "(v=|e=)?\\PC{0,40}",
        ) {
            let mut client = client(ScramHash::Sha1, "abc");
            let _ = client.respond(first.as_bytes());
            let _ = client.verify(last.as_bytes());
        }
    }
}
