//! The mechanisms by their registered names.

use super::ScramHash;

/// A SASL mechanism that we speak.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mechanism {
    /// `SCRAM-SHA-..-PLUS`: bound to the TLS connection, so that nobody between client and server can use it.
    ScramPlus(ScramHash),
    /// `SCRAM-SHA-..`.
    Scram(ScramHash),
    /// `PLAIN` (RFC 4616): the server sees the password.
    Plain,
}

/// All mechanisms with their names, the better one first: a binding is worth more than a longer hash.
const NAMES: [(Mechanism, &str); 7] = [
    (Mechanism::ScramPlus(ScramHash::Sha512), "SCRAM-SHA-512-PLUS"),
    (Mechanism::ScramPlus(ScramHash::Sha256), "SCRAM-SHA-256-PLUS"),
    (Mechanism::ScramPlus(ScramHash::Sha1), "SCRAM-SHA-1-PLUS"),
    (Mechanism::Scram(ScramHash::Sha512), "SCRAM-SHA-512"),
    (Mechanism::Scram(ScramHash::Sha256), "SCRAM-SHA-256"),
    (Mechanism::Scram(ScramHash::Sha1), "SCRAM-SHA-1"),
    (Mechanism::Plain, "PLAIN"),
];

impl Mechanism {
    /// All mechanisms, the better one first.
    pub fn all() -> impl Iterator<Item = Mechanism> {
        NAMES.into_iter().map(|(mechanism, _)| mechanism)
    }

    /// The registered name, as in `<mechanism/>`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(mechanism, _)| *mechanism == self).map_or("", |(_, name)| name)
    }

    /// The mechanism of this registered name; names are upper case (RFC 4422 section 3.1).
    pub fn parse(name: &str) -> Option<Mechanism> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(mechanism, _)| *mechanism)
    }

    /// Whether it binds to the TLS connection.
    pub fn binds(self) -> bool {
        matches!(self, Mechanism::ScramPlus(_))
    }

    /// The hash whose keys check it. PLAIN is checked against those of SHA-256.
    pub fn hash(self) -> ScramHash {
        match self {
            Mechanism::ScramPlus(hash) | Mechanism::Scram(hash) => hash,
            Mechanism::Plain => ScramHash::Sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_has_one_name() {
        for mechanism in Mechanism::all() {
            assert_eq!(Mechanism::parse(mechanism.name()), Some(mechanism));
            assert_eq!(mechanism.binds(), mechanism.name().ends_with("-PLUS"));
        }
        for hash in ScramHash::ALL {
            assert!(
                !Mechanism::Scram(hash).name().is_empty() && !Mechanism::ScramPlus(hash).name().is_empty()
            );
        }
        assert_eq!(Mechanism::parse("plain"), None);
        assert_eq!(Mechanism::parse(""), None);
    }
}
