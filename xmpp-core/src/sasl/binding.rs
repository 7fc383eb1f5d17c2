//! Channel binding: what ties a SASL exchange to the TLS connection under it (RFC 5056, XEP-0440).

use bytes::Bytes;

use super::ScramHash;
use super::message;

/// Type of the binding to one TLS connection (RFC 9266).
pub const TLS_EXPORTER: &str = "tls-exporter";
/// Label under which TLS gives it, with an empty context (RFC 9266 section 2).
pub const TLS_EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// Type of the binding to the server's certificate (RFC 5929 section 4): for clients whose TLS gives no exporter.
pub const TLS_SERVER_END_POINT: &str = "tls-server-end-point";

/// What `tls-exporter` binds to: both ends of one TLS connection have the same, and no other connection has it.
pub type Exporter = [u8; 32];

/// What a connection gives for channel binding. There is one on TLS 1.3 only: below it, clients are known that bind by
/// `tls-unique` whatever is offered, and it would need more care than it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings {
    /// For [`TLS_EXPORTER`].
    pub exporter: Exporter,
    /// For [`TLS_SERVER_END_POINT`]: the certificate's hash. `None` for a certificate whose signature names no hash
    /// (RFC 5929 leaves those undefined).
    pub end_point: Option<Bytes>,
}

impl Bindings {
    /// The types that are offered, the better one first.
    pub fn types(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(TLS_EXPORTER).chain(self.end_point.as_ref().map(|_| TLS_SERVER_END_POINT))
    }

    /// What a client binds to that names this type.
    pub(super) fn data(&self, name: &str) -> Option<&[u8]> {
        match name {
            TLS_EXPORTER => Some(&self.exporter),
            TLS_SERVER_END_POINT => self.end_point.as_deref(),
            _ => None,
        }
    }
}

/// A digest of everything that a stream offered for SASL, told inside the exchange (XEP-0474 0.5): a client that was
/// shown another offer, because somebody between took the better mechanisms or bindings out of it, finds it out.
pub fn downgrade_check<'a>(
    hash: ScramHash,
    mechanisms: impl Iterator<Item = &'a str>,
    bindings: impl Iterator<Item = &'a str>,
) -> String {
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join("\u{1e}")
    };
    let mut offered = sorted(mechanisms.collect());
    let types = sorted(bindings.collect());
    if !types.is_empty() {
        offered.push('\u{1f}');
        offered.push_str(&types);
    }
    message::to_base64(&hash.hash(offered.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_xep_0474() {
        let both = Bindings { exporter: [0; 32], end_point: Some(Bytes::from_static(&[1])) };
        let check = |bindings: &Bindings| {
            downgrade_check(
                ScramHash::Sha1,
                ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"].into_iter(),
                bindings.types(),
            )
        };
        assert_eq!(check(&both), "G6k/rBLDqgOhRRaCuuatSDFkJ08=");
        assert_ne!(check(&Bindings { end_point: None, ..both.clone() }), check(&both));
    }
}
