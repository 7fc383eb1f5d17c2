//! SCRAM once more (RFC 5802), by its text and not by the code that is tested: what an honest client says, and what a server
//! answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use xmpp_core::sasl::{Bindings, Mechanism, ScramHash};

use super::{PASSWORD, ROUNDS, SALT};

/// A client that knows the password, in an exchange that has come to the challenge.
pub(super) struct Honest {
    hash: ScramHash,
    /// What `c=` stands for: the gs2 header, and the data of the binding that it names.
    binding: Vec<u8>,
    nonce: String,
    /// client-first-bare and server-first, each with its comma.
    before: String,
}

impl Honest {
    /// `None` if `challenge` cannot be the answer to `first`.
    pub(super) fn new(
        mech: Mechanism,
        first: &str,
        challenge: &[u8],
        bindings: Option<&Bindings>,
    ) -> Option<Honest> {
        let challenge = std::str::from_utf8(challenge).ok()?;
        let second_comma = first.match_indices(',').nth(1)?.0;
        let (header, bare) = first.split_at(second_comma + 1);
        let data = match (header.split(',').next(), bindings) {
            (Some("p=tls-exporter"), Some(bindings)) => bindings.exporter.to_vec(),
            (Some("p=tls-server-end-point"), Some(bindings)) => bindings.end_point.as_ref()?.to_vec(),
            _ => Vec::new(),
        };
        let nonce = challenge.strip_prefix("r=")?.split(',').next()?;
        let own = bare.split(',').nth(1)?.strip_prefix("r=")?;
        let of_both = nonce.starts_with(own) && nonce.len() >= own.len() + 24;
        of_both.then(|| Honest {
            hash: mech.hash(),
            binding: [header.as_bytes(), &data].concat(),
            nonce: nonce.to_owned(),
            before: format!("{bare},{challenge},"),
        })
    }

    /// A message with what an honest client would say at the marks.
    pub(super) fn fill(&self, message: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(message) else { return message.to_vec() };
        let text = text.replace("{c}", &STANDARD.encode(&self.binding)).replace("{r}", &self.nonce);
        let proof = text.rsplit_once(",p=").map(|(unsigned, _)| STANDARD.encode(self.proof(unsigned)));
        text.replace("{p}", &proof.unwrap_or_default()).into_bytes()
    }

    /// What a server must answer to this client-final; `None`: it must refuse.
    pub(super) fn verdict(&self, last: &[u8]) -> Option<Vec<u8>> {
        let (unsigned, proof) = std::str::from_utf8(last).ok()?.rsplit_once(",p=")?;
        let mut parts = unsigned.split(',');
        let binding = STANDARD.decode(parts.next()?.strip_prefix("c=")?).ok()?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let good = binding == self.binding
            && nonce == self.nonce
            && STANDARD.decode(proof).ok()? == self.proof(unsigned);
        let server_key = self.sign(&self.salted(), b"Server Key");
        let signature = self.sign(&server_key, format!("{}{unsigned}", self.before).as_bytes());
        good.then(|| format!("v={}", STANDARD.encode(signature)).into_bytes())
    }

    fn proof(&self, unsigned: &str) -> Vec<u8> {
        let client_key = self.sign(&self.salted(), b"Client Key");
        let digest = match self.hash {
            ScramHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            ScramHash::Sha256 => &digest::SHA256,
            ScramHash::Sha512 => &digest::SHA512,
        };
        let stored_key = digest::digest(digest, &client_key);
        let signature = self.sign(stored_key.as_ref(), format!("{}{unsigned}", self.before).as_bytes());
        client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect()
    }

    fn salted(&self) -> Vec<u8> {
        let algorithm = match self.hash {
            ScramHash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramHash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let rounds = ROUNDS.try_into().expect("not zero");
        let mut out = vec![0; self.hash.key_len()];
        pbkdf2::derive(algorithm, rounds, SALT, PASSWORD.as_bytes(), &mut out);
        out
    }

    fn sign(&self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self.hash {
            ScramHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            ScramHash::Sha256 => hmac::HMAC_SHA256,
            ScramHash::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }
}
