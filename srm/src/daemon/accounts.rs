//! Verifiers of all accounts, for the connection tasks: read at every login, written when an account's record is safe.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use bytes::Bytes;
use dashmap::DashMap;
use presence_engine::record::Verifiers;
use xmpp_core::jid::BareJid;
use xmpp_core::negotiate::Lookup;
use xmpp_core::sasl::{SaslError, ScramCredentials, ScramHash, TokenKey, TokenName};

/// PBKDF2 iterations of new accounts and of those that do not exist.
pub const ITERATIONS: u32 = 4_096;

/// The registry. No guard of the map lives beyond a call.
pub struct Accounts {
    map: DashMap<String, Verifiers>,
    /// For accounts that do not exist: the same on both nodes, so that nobody can tell them from others (S17).
    fake_secret: [u8; 32],
    /// What one-time tokens are derived from.
    tokens: TokenKey,
    /// The authentication service is stopped.
    stopped: AtomicBool,
}

impl Accounts {
    /// Empty.
    pub fn new(fake_secret: [u8; 32]) -> Accounts {
        let (map, tokens) = (DashMap::new(), TokenKey::new(&fake_secret));
        Accounts { map, fake_secret, tokens, stopped: AtomicBool::new(false) }
    }

    /// An account is there.
    pub fn set(&self, user: &BareJid, verifiers: &Verifiers) {
        if let Some(local) = user.local() {
            self.map.insert(local.to_owned(), verifiers.clone());
        }
    }

    /// An account is gone: it is like one that never was.
    pub fn remove(&self, user: &BareJid) {
        if let Some(local) = user.local() {
            self.map.remove(local);
        }
    }

    /// Whether an account is there.
    pub fn has(&self, user: &BareJid) -> bool {
        user.local().is_some_and(|local| self.map.contains_key(local))
    }

    /// Answers from now on, or no longer: then nobody can log in.
    pub fn serve(&self, on: bool) {
        self.stopped.store(!on, Ordering::Relaxed);
    }

    /// The salt of the password whose token was met with `salt`; `salt` itself if that is no longer the account's.
    pub fn password_of(&self, user: &BareJid, token: TokenName, salt: Bytes) -> Bytes {
        let local = user.local().unwrap_or_default();
        let present = self.map.get(local).map(|verifiers| verifiers.salt.clone());
        present.filter(|present| self.tokens.salt(local, present, token) == salt).unwrap_or(salt)
    }

    /// Credentials for a login, by password or by token. Takes the same time for accounts that exist and others.
    pub fn lookup(&self, user: &str, token: Option<TokenName>, hash: ScramHash) -> Lookup {
        if self.stopped.load(Ordering::Relaxed) {
            return Lookup::Unavailable;
        }
        let fake = ScramCredentials::fake(hash, &self.fake_secret, user, ITERATIONS);
        let found = self.map.get(user).map(|verifiers| {
            let (stored_key, server_key) = match hash {
                ScramHash::Sha1 => &verifiers.sha1,
                ScramHash::Sha256 => &verifiers.sha256,
                ScramHash::Sha512 => &verifiers.sha512,
            };
            ScramCredentials {
                salt: verifiers.salt.to_vec(),
                iterations: verifiers.iterations,
                stored_key: stored_key.to_vec(),
                server_key: server_key.to_vec(),
            }
        });
        let known = found.is_some();
        let mut credentials = found.unwrap_or(fake);
        if let Some(token) = token {
            credentials = self.tokens.credentials(hash, user, &credentials.salt, token);
        }
        if known { Lookup::Found(credentials) } else { Lookup::Unknown(credentials) }
    }
}

/// The secret of a node that shares none with a peer: made at its first start, kept in its data folder. With one that
/// everybody knows, everybody could tell made-up credentials from real ones.
pub fn own_secret(data: &Path) -> anyhow::Result<[u8; 32]> {
    let path = data.join("unknown.key");
    let context = || format!("{}: cannot be read or written; check the data folder", path.display());
    match fs::read(&path) {
        Ok(bytes) => <[u8; 32]>::try_from(bytes)
            .map_err(|_| anyhow::anyhow!("{}: damaged; remove it, a new one is made", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret: [u8; 32] = rand::random();
            let new = path.with_extension("new");
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)
                .with_context(context)?;
            file.write_all(&secret).and_then(|()| file.sync_all()).with_context(context)?;
            fs::rename(&new, &path).with_context(context)?;
            Ok(secret)
        }
        Err(error) => Err(error).with_context(context),
    }
}

/// Verifiers of a password. Takes milliseconds: never on the node's thread.
pub fn derive(password: &str, salt: [u8; 16]) -> Result<Verifiers, SaslError> {
    let of = |hash| {
        let c = ScramCredentials::derive(hash, password, &salt, ITERATIONS)?;
        Ok((c.stored_key.into(), c.server_key.into()))
    };
    let (sha1, sha256, sha512) = (of(ScramHash::Sha1)?, of(ScramHash::Sha256)?, of(ScramHash::Sha512)?);
    Ok(Verifiers { salt: salt.to_vec().into(), iterations: ITERATIONS, sha1, sha256, sha512 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(lookup: Lookup) -> (bool, ScramCredentials) {
        match lookup {
            Lookup::Found(credentials) => (true, credentials),
            Lookup::Unknown(credentials) => (false, credentials),
            Lookup::Unavailable => panic!("it can always be told"),
        }
    }

    #[test]
    fn an_account_has_keys_for_every_hash_and_one_salt_as_has_one_that_does_not_exist() {
        let accounts = Accounts::new([3; 32]);
        accounts.set(&BareJid::parse("alice@d.example").unwrap(), &derive("pencil", [1; 16]).unwrap());
        for hash in ScramHash::ALL {
            let (known, found) = challenge(accounts.lookup("alice", None, hash));
            assert!(known);
            assert_eq!(found, ScramCredentials::derive(hash, "pencil", &[1; 16], ITERATIONS).unwrap());
            let (known, made_up) = challenge(accounts.lookup("bob", None, hash));
            assert!(!known);
            let salt = challenge(accounts.lookup("bob", None, ScramHash::Sha1)).1.salt;
            assert_eq!((made_up.salt, made_up.iterations), (salt, found.iterations));
            assert_eq!(made_up.stored_key.len(), found.stored_key.len());
            // The other node, and this one after a restart.
            assert_eq!(
                challenge(Accounts::new([3; 32]).lookup("bob", None, hash)).1.stored_key,
                made_up.stored_key
            );
        }
    }

    /// The salt of its password is what a token is derived from.
    #[test]
    fn a_token_is_nobodys_once_its_account_is_gone_or_is_there_anew() {
        let (accounts, romeo) = (Accounts::new([3; 32]), BareJid::parse("romeo@d.example").unwrap());
        let token = TokenName { session: [7; 16], number: 1 };
        let met = || challenge(accounts.lookup("romeo", Some(token), ScramHash::Sha256));
        accounts.set(&romeo, &derive("pencil", [1; 16]).unwrap());
        let (known, good) = met();
        assert!(known);
        accounts.remove(&romeo);
        let (known, gone) = met();
        assert!(!known && gone.stored_key != good.stored_key);
        accounts.set(&romeo, &derive("pencil", [2; 16]).unwrap());
        let (known, anew) = met();
        assert!(known && anew.stored_key != good.stored_key);
    }

    #[test]
    fn a_single_nodes_secret_is_its_own_and_stays() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = own_secret(one.path()).unwrap();
        assert_eq!(own_secret(one.path()).unwrap(), secret);
        assert_ne!(own_secret(other.path()).unwrap(), secret);
        fs::write(one.path().join("unknown.key"), b"short").unwrap();
        assert!(own_secret(one.path()).unwrap_err().to_string().contains("damaged"));
    }
}
