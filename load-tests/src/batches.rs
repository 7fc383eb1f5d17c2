//! Batches for a store whose content follows from their number: what is read back can be checked without having been kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use session_mover::store::{Batch, Store};

/// Keys that there are at most.
const KEYS: u64 = 300;
/// Keys that one batch changes.
const CHANGES: u64 = 12;

fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}

/// The keys that a batch changes, and how long the new values are; `None`: the key goes away.
fn changes(number: u64) -> BTreeMap<u64, Option<usize>> {
    let change = |i: u64| {
        let dice = mix(number, i);
        let length = match dice % 64 {
            0..16 => None,
            16 => Some(100_000 + dice as usize % 160_000),
            17..24 => Some(dice as usize % 20_000),
            _ => Some(dice as usize % 500),
        };
        (dice / 64 % KEYS, length)
    };
    (0..CHANGES).map(change).collect()
}

fn key(key: u64) -> Vec<u8> {
    format!("key{key}").into_bytes()
}

fn value(number: u64, key: u64, length: usize) -> Bytes {
    let words = (0..length as u64 / 8 + 1).flat_map(|i| mix(mix(number, key), i).to_le_bytes());
    words.take(length).collect()
}

/// Batch `number`; its mark is the number.
pub fn numbered_batch(number: u64) -> Batch {
    let pair = |(k, length): (u64, Option<usize>)| (key(k), length.map(|length| value(number, k, length)));
    Batch {
        pairs: changes(number).into_iter().map(pair).collect(),
        mark: Bytes::copy_from_slice(&number.to_le_bytes()),
    }
}

/// Reads a store through: it must hold exactly what the batches up to some number leave, bit by bit. The number.
pub fn check_store(store: &mut dyn Store) -> Result<u64, String> {
    let failed = |error: session_mover::store::StoreError| error.to_string();
    let number = match store.mark().map_err(failed)? {
        Some(mark) => u64::from_le_bytes(mark[..].try_into().map_err(|_| "a mark of 8 bytes".to_owned())?),
        None => 0,
    };
    let mut wanted: BTreeMap<Vec<u8>, (u64, u64, usize)> = BTreeMap::new();
    for n in 1..=number {
        for (k, length) in changes(n) {
            match length {
                Some(length) => _ = wanted.insert(key(k), (n, k, length)),
                None => _ = wanted.remove(&key(k)),
            }
        }
    }
    let mut after = Bytes::new();
    loop {
        let some = store.scan(&after, 1 << 20).map_err(failed)?;
        let Some((last, _)) = some.last() else { break };
        after = last.clone();
        for (key, found) in &some {
            let wrong = |why: &str| Err(format!("batch {number}: {}: {why}", key.escape_ascii()));
            match wanted.remove(&key[..]) {
                None => return wrong("is there and should not be"),
                Some((n, k, length)) if *found != value(n, k, length) => return wrong("has another value"),
                Some(_) => {}
            }
        }
    }
    match wanted.keys().next() {
        Some(key) => Err(format!("batch {number}: {}: is missing", key.escape_ascii())),
        None => Ok(number),
    }
}
