//! The hash of a certificate to which `tls-server-end-point` binds (RFC 5929 section 4.1): by the hash of the
//! certificate's own signature, but no worse than SHA-256.

use bytes::Bytes;
use ring::digest::{self, SHA256, SHA384, SHA512};

/// 1.2.840.113549.1.1, RSA; the last number follows.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// RSASSA-PSS among them, which names its hash in its parameters.
const PSS: u8 = 10;
/// 1.2.840.10045.4, ECDSA.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
/// 2.16.840.1.101.3.4.2, SHA-2.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;

/// What a client binds to that was shown this certificate (DER). `None` if its signature has no hash of its own, like
/// Ed25519: RFC 5929 says nothing of those.
pub fn end_point(certificate: &[u8]) -> Option<Bytes> {
    let hash = hash_of(certificate)?;
    Some(Bytes::copy_from_slice(digest::digest(hash, certificate).as_ref()))
}

fn hash_of(certificate: &[u8]) -> Option<&'static digest::Algorithm> {
    let (mut body, _) = value(certificate, SEQUENCE)?;
    (_, body) = value(body, SEQUENCE)?;
    let (algorithm, _) = value(body, SEQUENCE)?;
    let (id, parameters) = value(algorithm, OBJECT_ID)?;
    if let Some(kind) = id.strip_prefix(RSA) {
        return match kind {
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            [PSS] => hash_of_pss(parameters),
            _ => None,
        };
    }
    match id.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&SHA256),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// RFC 4055 3.1: the first parameter, SHA-1 if there is none.
fn hash_of_pss(parameters: &[u8]) -> Option<&'static digest::Algorithm> {
    let (parameters, _) = value(parameters, SEQUENCE)?;
    let Some((hash, _)) = value(parameters, CONTEXT_0) else { return Some(&SHA256) };
    let (hash, _) = value(hash, SEQUENCE)?;
    let (id, _) = value(hash, OBJECT_ID)?;
    match id.strip_prefix(SHA2) {
        Some([1]) | None => Some(&SHA256),
        Some([2]) => Some(&SHA384),
        Some([3]) => Some(&SHA512),
        _ => None,
    }
}

/// The contents of the first DER value, which must have this tag, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(signature: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(signature).unwrap();
        CertificateParams::new(vec!["d.example".into()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (signature, hash) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256), (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384)]
        {
            let certificate = certificate(signature);
            let wanted = digest::digest(hash, &certificate);
            assert_eq!(end_point(&certificate).as_deref(), Some(wanted.as_ref()));
        }
        assert_eq!(end_point(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn every_signature_with_a_hash_is_known() {
        let sequence = |parts: &[&[u8]]| {
            let body = parts.concat();
            [&[SEQUENCE, body.len() as u8], &body[..]].concat()
        };
        let id = |prefix: &[u8], last: &[u8]| {
            let body = [prefix, last].concat();
            [&[OBJECT_ID, body.len() as u8], &body[..]].concat()
        };
        let of = |id: &[u8], parameters: &[u8]| {
            hash_of(&sequence(&[&sequence(&[]), &sequence(&[id, parameters])])).map(|hash| hash.output_len())
        };
        for (last, bytes) in
            [(4, Some(32)), (5, Some(32)), (11, Some(32)), (12, Some(48)), (13, Some(64)), (1, None)]
        {
            assert_eq!(of(&id(RSA, &[last]), &[5, 0]), bytes, "{last}");
        }
        for (last, bytes) in [
            (&[1][..], Some(32)),
            (&[3, 2], Some(32)),
            (&[3, 3], Some(48)),
            (&[3, 4], Some(64)),
            (&[3, 9], None),
        ] {
            assert_eq!(of(&id(ECDSA, last), &[]), bytes, "{last:?}");
        }
        for (last, bytes) in [(1, Some(32)), (2, Some(48)), (3, Some(64)), (9, None)] {
            let hash = sequence(&[&id(SHA2, &[last])]);
            let parameters = sequence(&[&[CONTEXT_0, hash.len() as u8], &hash]);
            assert_eq!(of(&id(RSA, &[PSS]), &parameters), bytes, "PSS {last}");
        }
        assert_eq!(of(&id(RSA, &[PSS]), &sequence(&[])), Some(32), "PSS with its default");
    }

    proptest! {
        #[test]
        fn what_is_no_certificate_has_none_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = end_point(&bytes);
        }
    }
}
