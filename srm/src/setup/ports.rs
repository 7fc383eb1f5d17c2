//! Ports for nodes on one machine: readable, below the range that the system gives to outgoing connections.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;

use super::SetupError;

/// Ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Clients that begin in the clear (STARTTLS).
    pub starttls: u16,
    /// Clients that begin with TLS.
    pub direct: u16,
    /// The link (TCP) and beacons (UDP); the life socket takes the port above.
    pub link: u16,
    /// The admin API.
    pub admin: u16,
}

/// Thousands that are tried, in this order. Above 32767 Linux takes ports for outgoing connections.
const THOUSANDS: std::ops::RangeInclusive<u16> = 15..=31;

/// Thousands that this process has handed out, the last one at the end: two pairs of one test run must not get the same
/// before they start.
static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

impl Ports {
    /// Where a node of its own machine listens.
    pub const STANDARD: Ports = Ports { starttls: 5222, direct: 5223, link: 22_001, admin: 20_075 };

    /// Those of one of several nodes in a block of 1000: the first node's are 022, 023, 001 (and 002), 075, the
    /// second's 122, 123, ...
    fn within(thousand: u16, node: usize) -> Ports {
        let base = thousand * 1000 + 100 * u16::try_from(node).unwrap_or(0);
        Ports { starttls: base + 22, direct: base + 23, link: base + 1, admin: base + 75 }
    }

    /// Port of the life socket: the one above the link's.
    pub fn life(self) -> u16 {
        self.link + 1
    }

    fn free(self) -> bool {
        let tcp = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        let udp = |port: u16| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        [self.starttls, self.direct, self.link, self.life(), self.admin].into_iter().all(tcp)
            && udp(self.link)
    }
}

/// Free ports for so many nodes (at most 10) on this machine: 15001 to 15175 for a pair, or the same in the next
/// thousand if one of them is taken.
pub fn free_ports(nodes: usize) -> Result<Vec<Ports>, SetupError> {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ports = |thousand: u16| (0..nodes).map(move |node| Ports::within(thousand, node));
    let free = |thousand: &u16| ports(*thousand).all(Ports::free);
    let thousand = in_turn(&given).into_iter().find(free).ok_or(SetupError::NoPorts(15_000, 31_999))?;
    given.retain(|other| *other != thousand);
    given.push(thousand);
    Ok(ports(thousand).collect())
}

/// What was never handed out comes first, then what was handed out longest ago: whoever had that, and does not use it now, is
/// done with it, while the last ones may not have started yet.
fn in_turn(given: &[u16]) -> Vec<u16> {
    let mut thousands: Vec<u16> = THOUSANDS.collect();
    thousands.sort_by_key(|thousand| given.iter().position(|other| other == thousand));
    thousands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_got_ports_last_is_the_last_to_lose_them() {
        assert_eq!(in_turn(&[]), THOUSANDS.collect::<Vec<_>>());
        let all: Vec<u16> = THOUSANDS.rev().collect();
        assert_eq!(in_turn(&all), all);
        let some = in_turn(&[16, 15]);
        assert_eq!((some.first(), &some[some.len() - 2..]), (Some(&17), &[16, 15][..]));
    }
}
