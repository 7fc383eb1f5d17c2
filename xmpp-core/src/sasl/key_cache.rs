//! Lets a fleet of clients log in again and again without paying for the slow rounds each time.
// The one place of this module with shared memory; it is looked up by key and never iterated.
#![allow(clippy::disallowed_types)]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::credentials::SaltedKeys;
use super::{SaslError, ScramHash};

/// Keys already computed, by hash, user, password (hashed), salt and rounds. It holds what is worth a
/// password: for test clients, or one person's own client. It grows with the number of different keys.
#[derive(Default)]
pub struct KeyCache {
    keys: Mutex<HashMap<CacheKey, SaltedKeys>>,
}

#[derive(PartialEq, Eq, Hash)]
struct CacheKey {
    hash: ScramHash,
    user: String,
    password_hash: Vec<u8>,
    salt: Vec<u8>,
    iterations: u32,
}

impl KeyCache {
    /// An empty cache; share it in an `Arc`.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing has been computed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys, computed outside the lock when they are new: two logins at once may both compute them.
    pub(super) fn salted(
        &self,
        hash: ScramHash,
        user: &str,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<SaltedKeys, SaslError> {
        let password_hash = ScramHash::Sha256.hash(password.as_bytes());
        let key = CacheKey { hash, user: user.into(), password_hash, salt: salt.into(), iterations };
        if let Some(found) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(found.clone());
        }
        let made = SaltedKeys::derive(hash, password, salt, iterations)?;
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made.clone());
        Ok(made)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("len", &self.len()).finish_non_exhaustive()
    }
}
