//! The hashes under SCRAM.

use ring::{digest, hmac, pbkdf2};

/// A hash that SCRAM is built on; an account has keys for each. The better one first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScramHash {
    /// SHA-512 (`SCRAM-SHA-512`, draft-melnikov-scram-sha-512).
    Sha512,
    /// SHA-256 (RFC 7677).
    Sha256,
    /// SHA-1 (RFC 5802), which RFC 6120 makes mandatory and some clients know alone.
    Sha1,
}

impl ScramHash {
    /// All of them in order of preference.
    pub const ALL: [ScramHash; 3] = [ScramHash::Sha512, ScramHash::Sha256, ScramHash::Sha1];

    /// Bytes in a key, proof or signature.
    pub fn key_len(self) -> usize {
        self.digest().output_len()
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            ScramHash::Sha512 => &digest::SHA512,
            ScramHash::Sha256 => &digest::SHA256,
            ScramHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        }
    }

    pub(super) fn hmac(self, key: &[u8]) -> hmac::Key {
        let algorithm = match self {
            ScramHash::Sha512 => hmac::HMAC_SHA512,
            ScramHash::Sha256 => hmac::HMAC_SHA256,
            ScramHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        };
        hmac::Key::new(algorithm, key)
    }

    pub(super) fn sign(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        hmac::sign(&self.hmac(key), data).as_ref().to_vec()
    }

    pub(super) fn hash(self, data: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), data).as_ref().to_vec()
    }

    pub(super) fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            ScramHash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramHash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        }
    }

    /// Equality in constant time (S14): both sides under one key, compared by ring.
    pub(super) fn same(self, left: &[u8], right: &[u8]) -> bool {
        let key = self.hmac(right);
        hmac::verify(&key, left, hmac::sign(&key, right).as_ref()).is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "it measures time")]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// The quickest of several, which is the one that nothing else disturbed.
    fn time(run: impl Fn() -> bool) -> Duration {
        let once = || {
            let begun = Instant::now();
            assert!(!run());
            begun.elapsed()
        };
        (0..10).map(|_| once()).min().unwrap()
    }

    /// Keys as long as this never come, but on them it shows: a comparison that stops at the first difference would be
    /// a thousand times faster on the one than on the other.
    #[test]
    fn s14_comparing_takes_the_same_time_wherever_the_difference_is() {
        let right = vec![7; 1 << 18];
        let (mut first, mut last) = (right.clone(), right.clone());
        first[0] ^= 1;
        last[(1 << 18) - 1] ^= 1;
        for hash in ScramHash::ALL {
            assert!(hash.same(&right, &right) && !hash.same(&right[1..], &right));
            let (first, last) = (time(|| hash.same(&first, &right)), time(|| hash.same(&last, &right)));
            assert!(first * 2 > last && last * 2 > first, "{hash:?}: {first:?} and {last:?}");
        }
    }
}
