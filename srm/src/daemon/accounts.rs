//! Verifiers of all accounts, for the connection tasks: read at every login, written when an account's record is safe.

use dashmap::DashMap;
use presence_engine::record::Verifiers;
use xmpp_core::jid::BareJid;
use xmpp_core::negotiate::Lookup;
use xmpp_core::sasl::{Mechanism, SaslError, ScramCredentials};

/// PBKDF2 iterations of new accounts and of those that do not exist.
pub const ITERATIONS: u32 = 4_096;

/// The registry. No guard of the map lives beyond a call.
pub struct Accounts {
    map: DashMap<String, Verifiers>,
    /// For accounts that do not exist: the same on both nodes, so that nobody can tell them from others (S17).
    fake_secret: [u8; 32],
}

impl Accounts {
    /// Empty.
    pub fn new(fake_secret: [u8; 32]) -> Accounts {
        Accounts { map: DashMap::new(), fake_secret }
    }

    /// An account is there.
    pub fn set(&self, user: &BareJid, verifiers: &Verifiers) {
        if let Some(local) = user.local() {
            self.map.insert(local.to_owned(), verifiers.clone());
        }
    }

    /// Credentials for a login.
    pub fn lookup(&self, user: &str, mechanism: Mechanism) -> Lookup {
        let found = self.map.get(user).map(|verifiers| {
            let (stored_key, server_key) = match mechanism {
                Mechanism::ScramSha1 => &verifiers.sha1,
                Mechanism::ScramSha256 => &verifiers.sha256,
            };
            ScramCredentials {
                salt: verifiers.salt.to_vec(),
                iterations: verifiers.iterations,
                stored_key: stored_key.to_vec(),
                server_key: server_key.to_vec(),
            }
        });
        match found {
            Some(credentials) => Lookup::Found(credentials),
            None => Lookup::Unknown(ScramCredentials::fake(mechanism, &self.fake_secret, user, ITERATIONS)),
        }
    }
}

/// Verifiers of a password. Takes milliseconds: never on the node's thread.
pub fn derive(password: &str, salt: [u8; 16]) -> Result<Verifiers, SaslError> {
    let of = |mechanism| {
        let c = ScramCredentials::derive(mechanism, password, &salt, ITERATIONS)?;
        Ok((c.stored_key.into(), c.server_key.into()))
    };
    let (sha1, sha256) = (of(Mechanism::ScramSha1)?, of(Mechanism::ScramSha256)?);
    Ok(Verifiers { salt: salt.to_vec().into(), iterations: ITERATIONS, sha1, sha256 })
}
