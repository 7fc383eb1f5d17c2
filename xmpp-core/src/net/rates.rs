//! How fast things may come (S7): buckets of tokens, for each connection and for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many seconds' worth of a connection's rates may come at once.
const BURST_SECONDS: f64 = 2.0;
/// How long an address is remembered at least: after this a bucket is full again, however empty it was.
const MINUTE: Duration = Duration::from_secs(60);
/// Most addresses remembered in one generation. Above it the older generation is forgotten early.
const ADDRESSES: usize = 50_000;

/// Rates that a client or its address must not exceed. What is above is delayed or put off, nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bytes per second that are read from one client that has logged in; two seconds' worth at once. Default 1 MiB.
    pub bytes_per_second: u32,
    /// Top-level elements per second, likewise. Default 1000.
    pub stanzas_per_second: u32,
    /// New connections per minute from one IPv4 address or IPv6 /64 network, all of them at once if it likes; more are
    /// closed unread. Default 6000.
    pub connections_per_minute: u32,
    /// Wrong passwords per minute from there, likewise. Above it no proof is looked at, and everybody there gets
    /// `temporary-auth-failure`. Default 60.
    pub failed_logins_per_minute: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Rates {
            bytes_per_second: 1024 * 1024,
            stanzas_per_second: 1_000,
            connections_per_minute: 6_000,
            failed_logins_per_minute: 60,
        }
    }
}

/// Tokens that come back evenly. May be overdrawn by the last thing taken.
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn full(most: f64, now: Instant) -> Self {
        Bucket { level: most, at: now }
    }

    fn refill(&mut self, per_second: f64, most: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * per_second).min(most);
        self.at = now;
    }
}

/// What one connection has left.
pub(super) struct Meter {
    bytes: Bucket,
    stanzas: Bucket,
    bytes_per_second: f64,
    stanzas_per_second: f64,
}

impl Meter {
    pub fn new(rates: &Rates, now: Instant) -> Self {
        let (bytes, stanzas) = (f64::from(rates.bytes_per_second), f64::from(rates.stanzas_per_second));
        Meter {
            bytes: Bucket::full(bytes * BURST_SECONDS, now),
            stanzas: Bucket::full(stanzas * BURST_SECONDS, now),
            bytes_per_second: bytes,
            stanzas_per_second: stanzas,
        }
    }

    /// So many bytes were read.
    pub fn read(&mut self, bytes: usize) {
        self.bytes.level -= bytes as f64;
    }

    /// An element was handed on.
    pub fn element(&mut self) {
        self.stanzas.level -= 1.0;
    }

    /// How long nothing more may be taken; `None`: something may. Asks the clock only if it has to.
    pub fn pause(&mut self, clock: impl FnOnce() -> Instant) -> Option<Duration> {
        if self.stanzas.level >= 1.0 && self.bytes.level >= 1.0 {
            return None;
        }
        let now = clock();
        self.bytes.refill(self.bytes_per_second, self.bytes_per_second * BURST_SECONDS, now);
        self.stanzas.refill(self.stanzas_per_second, self.stanzas_per_second * BURST_SECONDS, now);
        let short = |bucket: &Bucket, rate: f64| (1.0 - bucket.level).max(0.0) / rate;
        let wait =
            short(&self.bytes, self.bytes_per_second).max(short(&self.stanzas, self.stanzas_per_second));
        // A little more than needed, so that one pause is enough and brings a few tokens.
        (wait > 0.0).then(|| Duration::from_secs_f64(wait) + Duration::from_millis(1))
    }
}

/// A rate for each address. Bounded: an address that was quiet for a minute is forgotten, because its bucket is full.
pub(super) struct PerAddress {
    per_minute: f64,
    inner: Arc<Mutex<Generations>>,
}

struct Generations {
    young: HashMap<IpAddr, Bucket>,
    old: HashMap<IpAddr, Bucket>,
    born: Instant,
}

impl PerAddress {
    pub fn new(per_minute: u32) -> Self {
        let inner = Generations { young: HashMap::new(), old: HashMap::new(), born: Instant::now() };
        PerAddress { per_minute: per_minute.into(), inner: Arc::new(Mutex::new(inner)) }
    }

    /// This rate, and what `before` has counted.
    pub fn after(self, before: &PerAddress) -> PerAddress {
        PerAddress { inner: before.inner.clone(), ..self }
    }

    /// Takes a token; whether there was one.
    pub fn take(&self, address: IpAddr, now: Instant) -> bool {
        self.with(address, now, |bucket| {
            let there = bucket.level >= 1.0;
            if there {
                bucket.level -= 1.0;
            }
            there
        })
    }

    /// Whether there is no token.
    pub fn is_empty(&self, address: IpAddr, now: Instant) -> bool {
        self.with(address, now, |bucket| bucket.level < 1.0)
    }

    fn with<T>(&self, address: IpAddr, now: Instant, run: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        if inner.young.len() >= ADDRESSES || now.saturating_duration_since(inner.born) >= MINUTE {
            inner.old = std::mem::take(&mut inner.young);
            inner.born = now;
        }
        let old = &mut inner.old;
        let bucket = inner
            .young
            .entry(address)
            .or_insert_with(|| old.remove(&address).unwrap_or_else(|| Bucket::full(self.per_minute, now)));
        bucket.refill(self.per_minute / 60.0, self.per_minute, now);
        run(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_connection_may_burst_and_then_goes_at_its_rate() {
        let begun = Instant::now();
        let rates = Rates { stanzas_per_second: 10, bytes_per_second: 1_000, ..Rates::default() };
        let mut meter = Meter::new(&rates, begun);
        let mut taken = 0;
        while meter.pause(|| begun).is_none() {
            meter.element();
            taken += 1;
        }
        assert_eq!(taken, 20);
        let pause = meter.pause(|| begun).unwrap();
        assert!((100..=102).contains(&pause.as_millis()), "{pause:?}");
        assert_eq!(meter.pause(|| begun + pause), None);
        // Bytes are counted on their own, and one read may overdraw them.
        let mut meter = Meter::new(&rates, begun);
        meter.read(4_000);
        let pause = meter.pause(|| begun).unwrap();
        assert!((2_001..=2_003).contains(&pause.as_millis()), "{pause:?}");
        assert_eq!(meter.pause(|| begun + pause), None);
        assert!(meter.pause(|| begun + pause * 100).is_none());
    }

    #[test]
    fn each_address_has_its_minute() {
        let begun = Instant::now();
        let rate = PerAddress::new(3);
        for _ in 0..3 {
            assert!(rate.take(ip(1), begun));
        }
        assert!(!rate.take(ip(1), begun) && rate.is_empty(ip(1), begun));
        assert!(rate.take(ip(2), begun));
        let later = begun + Duration::from_secs(20);
        assert!(rate.take(ip(1), later) && !rate.take(ip(1), later));
        // Not forgotten while it is short of tokens, however often the generations change.
        let later = later + Duration::from_secs(10);
        assert!(rate.is_empty(ip(1), later));
    }

    #[test]
    fn the_next_generation_knows_who_was_short_of_tokens() {
        let begun = Instant::now();
        let rate = PerAddress::new(3);
        rate.take(ip(2), begun);
        let late = begun + MINUTE - Duration::from_secs(5);
        assert!((0..3).all(|_| rate.take(ip(1), late)));
        // 10 s later there is half a token, whichever generation it is.
        assert!(rate.is_empty(ip(1), late + Duration::from_secs(10)));
    }

    #[test]
    fn addresses_are_forgotten_in_time_and_never_too_many() {
        let begun = Instant::now();
        let rate = PerAddress::new(3);
        for n in 0..3 * ADDRESSES as u32 {
            rate.take(ip(n), begun);
        }
        let count = |rate: &PerAddress| {
            let inner = rate.inner.lock().unwrap();
            inner.young.len() + inner.old.len()
        };
        assert!(count(&rate) <= 2 * ADDRESSES, "{}", count(&rate));
        rate.take(ip(1), begun + MINUTE);
        rate.take(ip(1), begun + 2 * MINUTE);
        assert_eq!(count(&rate), 1);
    }
}
