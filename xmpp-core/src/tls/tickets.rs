//! TLS session tickets that both nodes of a pair accept (RFC 8446 section 4.6.1): a client that was at one node resumes
//! its TLS session at the other and saves both of them the signature.
//!
//! The keys come from a secret that both nodes know and from the time, a new one every six hours, so that nothing is
//! exchanged for it. A ticket is never a login: the client still proves who it is by SASL. It brings no early data, and
//! in TLS 1.3 each session has a key exchange of its own, so that a ticket and its key open no recorded session.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// Seconds for which one key encrypts.
const PERIOD_S: u64 = 6 * 60 * 60;
/// For how many periods after its own a ticket is accepted.
const OLD: u64 = 2;
/// Bytes before the encrypted part: the period, and the nonce.
const PERIOD_BYTES: usize = 8;

/// Makes tickets and reads them, also those of the other node.
pub struct Tickets {
    /// The first one encrypts, each decrypts.
    secrets: ArcSwap<Vec<[u8; 32]>>,
    random: SystemRandom,
    /// Seconds since 1970.
    now: fn() -> u64,
}

impl Tickets {
    /// With secrets for this purpose only: the first one makes tickets, all are tried on those that come.
    pub fn new(secrets: Vec<[u8; 32]>) -> Arc<Tickets> {
        Arc::new(Tickets::at(secrets, now_s))
    }

    fn at(secrets: Vec<[u8; 32]>, now: fn() -> u64) -> Tickets {
        Tickets { secrets: ArcSwap::from_pointee(secrets), random: SystemRandom::new(), now }
    }

    /// Other secrets from now on.
    pub fn replace(&self, secrets: Vec<[u8; 32]>) {
        self.secrets.store(Arc::new(secrets));
    }

    fn period(&self) -> u64 {
        (self.now)() / PERIOD_S
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn key(secret: &[u8; 32], period: u64) -> Option<LessSafeKey> {
    let by = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&by, &[b"tls ticket:".as_slice(), &period.to_be_bytes()].concat());
    UnboundKey::new(&AES_256_GCM, tag.as_ref()).ok().map(LessSafeKey::new)
}

/// Whether this is a session of TLS 1.3, as rustls writes it: the server name behind its length, if there is one, then
/// the version. What is written in another way gets no ticket.
fn is_tls13(session: &[u8]) -> bool {
    let version = match session {
        [0, rest @ ..] => Some(rest),
        [1, len, rest @ ..] => rest.get(usize::from(*len)..),
        _ => None,
    };
    version.is_some_and(|version| version.starts_with(&[3, 4]))
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        (OLD * PERIOD_S) as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if !is_tls13(plain) {
            return None;
        }
        let period = self.period();
        let key = key(self.secrets.load().first()?, period)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let head = period.to_be_bytes();
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut sealed)
            .ok()?;
        Some([head.as_slice(), &nonce, &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (head, rest) = cipher.split_at_checked(PERIOD_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let (head, nonce): ([u8; PERIOD_BYTES], [u8; NONCE_LEN]) =
            (head.try_into().ok()?, nonce.try_into().ok()?);
        let (period, now) = (u64::from_be_bytes(head), self.period());
        // The other node's clock may be a little ahead.
        if period > now + 1 || period + OLD < now {
            return None;
        }
        self.secrets.load().iter().find_map(|secret| {
            let mut text = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            let len = key(secret, period)?.open_in_place(nonce, Aad::from(head), &mut text).ok()?.len();
            text.truncate(len);
            Some(text)
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 20_000 * 4 * PERIOD_S;
    const SESSION: &[u8] = b"\x01\x01d\x03\x04session";

    #[test]
    fn both_nodes_read_tickets_of_either_for_twelve_hours_and_no_others() {
        let a = Tickets::at(vec![[1; 32]], || DAY);
        let ticket = a.encrypt(SESSION).unwrap();
        let read = |now, secret| Tickets::at(vec![[secret; 32]], now).decrypt(&ticket);
        assert_eq!(read(|| DAY, 1).as_deref(), Some(SESSION));
        assert_eq!(read(|| DAY + 3 * PERIOD_S - 1, 1).as_deref(), Some(SESSION));
        assert_eq!(read(|| DAY + 3 * PERIOD_S, 1), None);
        // A clock that is some minutes slow.
        assert!(read(|| DAY - 300, 1).is_some() && read(|| DAY - 2 * PERIOD_S, 1).is_none());
        assert_eq!(read(|| DAY, 2), None);
    }

    #[test]
    fn a_secret_is_replaced_in_three_steps_without_a_ticket_refused() {
        let (old, new) = ([1; 32], [2; 32]);
        let a = Tickets::at(vec![old], || DAY);
        let b = Tickets::at(vec![old], || DAY);
        for secrets in [vec![old, new], vec![new, old], vec![new]] {
            let fits = || {
                let (of_a, of_b) = (a.encrypt(SESSION).unwrap(), b.encrypt(SESSION).unwrap());
                a.decrypt(&of_b).is_some() && b.decrypt(&of_a).is_some()
            };
            a.replace(secrets.clone());
            assert!(fits());
            b.replace(secrets);
            assert!(fits());
        }
        assert_eq!(Tickets::at(vec![old], || DAY).decrypt(&a.encrypt(SESSION).unwrap()), None);
    }

    #[test]
    fn every_damaged_ticket_is_refused() {
        let tickets = Tickets::at(vec![[1; 32]], || DAY);
        let ticket = tickets.encrypt(SESSION).unwrap();
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(tickets.decrypt(&damaged), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
    }
}
