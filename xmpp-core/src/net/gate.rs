//! How many connections may be open: before authentication in all and from one address (S3), after it for one account
//! (S30).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::jid::BareJid;

/// Counts connections that have not authenticated.
pub(super) struct Gate {
    total: usize,
    per_address: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The right to be there without having authenticated; dropping it makes room.
pub(super) struct Pass {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

impl Gate {
    pub fn new(total: usize, per_address: usize) -> Gate {
        Gate { total, per_address, counts: Arc::default() }
    }

    /// These limits, and what `before` has counted.
    pub fn after(self, before: &Gate) -> Gate {
        Gate { counts: before.counts.clone(), ..self }
    }

    /// A pass, unless there are too many already.
    pub fn enter(&self, ip: IpAddr) -> Option<Pass> {
        let address = network(ip);
        let mut counts = lock(&self.counts);
        let here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.total >= self.total || here >= self.per_address {
            return None;
        }
        counts.total += 1;
        counts.by_address.insert(address, here + 1);
        Some(Pass { counts: self.counts.clone(), address })
    }
}

fn lock<T>(counts: &Mutex<T>) -> MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.total = counts.total.saturating_sub(1);
        match counts.by_address.get_mut(&self.address) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

impl Pass {
    /// Where the client is, as rates count it.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

/// Counts the connections of accounts.
pub(super) struct Accounts {
    most: usize,
    counts: Arc<Mutex<HashMap<BareJid, usize>>>,
}

/// The right of one of an account's connections to be there; dropping it makes room.
pub(super) struct Membership {
    counts: Arc<Mutex<HashMap<BareJid, usize>>>,
    user: BareJid,
}

impl Accounts {
    pub fn new(most: usize) -> Accounts {
        Accounts { most, counts: Arc::default() }
    }

    /// This limit, and what `before` has counted.
    pub fn after(self, before: &Accounts) -> Accounts {
        Accounts { counts: before.counts.clone(), ..self }
    }

    /// A place among the connections of this account, unless there are too many already.
    pub fn enter(&self, user: &BareJid) -> Option<Membership> {
        let mut counts = lock(&self.counts);
        let here = counts.entry(user.clone()).or_insert(0);
        if *here >= self.most {
            return None;
        }
        *here += 1;
        Some(Membership { counts: self.counts.clone(), user: user.clone() })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Entry::Occupied(mut here) = lock(&self.counts).entry(self.user.clone()) {
            *here.get_mut() -= 1;
            if *here.get() == 0 {
                here.remove();
            }
        }
    }
}

/// One household has one IPv4 address or one IPv6 /64.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_so_many_connections_and_others_have_theirs() {
        let user = |text: &str| BareJid::parse(text).unwrap();
        let accounts = Accounts::new(2);
        let first = accounts.enter(&user("a@d")).unwrap();
        let _second = accounts.enter(&user("a@d")).unwrap();
        assert!(accounts.enter(&user("a@d")).is_none());
        drop((accounts.enter(&user("b@d")).unwrap(), first));
        assert!(accounts.enter(&user("a@d")).is_some());
        assert_eq!(lock(&accounts.counts).len(), 1);
    }

    #[test]
    fn other_limits_hold_for_those_who_are_there_already() {
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let before = Gate::new(2, 2);
        let (first, _second) = (before.enter(ip(1)), before.enter(ip(2)));
        let after = Gate::new(3, 1).after(&before);
        assert!(after.enter(ip(1)).is_none());
        let _third = after.enter(ip(3)).unwrap();
        assert!(after.enter(ip(4)).is_none());
        drop(first);
        assert!(after.enter(ip(4)).is_some());
        let user = BareJid::parse("a@d").unwrap();
        let before = Accounts::new(1);
        let _member = before.enter(&user).unwrap();
        let after = Accounts::new(2).after(&before);
        let _other = after.enter(&user).unwrap();
        assert!(after.enter(&user).is_none());
    }

    #[test]
    fn room_is_limited_in_all_and_per_network_and_comes_back() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let gate = Gate::new(3, 2);
        let first = gate.enter(ip("2001:db8::1"));
        let second = gate.enter(ip("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter(ip("2001:db8::3")).is_none());
        let other = gate.enter(ip("::ffff:10.0.0.1"));
        assert!(other.is_some() && gate.enter(ip("10.0.0.2")).is_none());
        drop((first, second, other));
        let counts = lock(&gate.counts);
        assert_eq!((counts.total, counts.by_address.len()), (0, 0));
    }
}
