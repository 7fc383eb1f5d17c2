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
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The right to be there without having authenticated; dropping it makes room.
pub(super) struct Pass {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    pub fn new(total: usize, per_address: usize) -> Arc<Gate> {
        Arc::new(Gate { total, per_address, counts: Mutex::default() })
    }

    /// A pass, unless there are too many already.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Pass> {
        let address = network(ip);
        let mut counts = self.counts();
        let here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.total >= self.total || here >= self.per_address {
            return None;
        }
        counts.total += 1;
        counts.by_address.insert(address, here + 1);
        Some(Pass { gate: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
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
    counts: Mutex<HashMap<BareJid, usize>>,
}

/// The right of one of an account's connections to be there; dropping it makes room.
pub(super) struct Membership {
    accounts: Arc<Accounts>,
    user: BareJid,
}

impl Accounts {
    pub fn new(most: usize) -> Arc<Accounts> {
        Arc::new(Accounts { most, counts: Mutex::default() })
    }

    /// A place among the connections of this account, unless there are too many already.
    pub fn enter(self: &Arc<Self>, user: &BareJid) -> Option<Membership> {
        let mut counts = self.counts();
        let here = counts.entry(user.clone()).or_insert(0);
        if *here >= self.most {
            return None;
        }
        *here += 1;
        Some(Membership { accounts: self.clone(), user: user.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<BareJid, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Entry::Occupied(mut here) = self.accounts.counts().entry(self.user.clone()) {
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
        assert_eq!(accounts.counts().len(), 1);
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
        let counts = gate.counts();
        assert_eq!((counts.total, counts.by_address.len()), (0, 0));
    }
}
