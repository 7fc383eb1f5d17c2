//! The look at the peer's ports that the node asks for (R9). Names are looked up before it is needed, and again now and then: name
//! servers may be gone in the same moment as the peer.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::config::Peer;
use crate::sockets::{Probe, probe_twice};

/// How long a look waits for a name server before it takes the address of the last time.
const LIMIT: Duration = Duration::from_millis(250);
/// How often addresses are looked up when nobody asks for them.
const PERIOD: Duration = Duration::from_secs(60);

/// Where the peer's ports are.
pub(super) struct Look {
    life: Place,
    beacon: Place,
}

struct Place {
    /// `HOST:PORT`.
    name: String,
    /// Where it was when it was found last.
    last: Mutex<Option<SocketAddr>>,
    /// One look-up at a time: a name server that does not answer holds a thread for as long.
    looking: Arc<Semaphore>,
}

impl Look {
    pub(super) fn new(peer: &Peer) -> Arc<Look> {
        Arc::new(Look { life: Place::new(peer.life()), beacon: Place::new(peer.beacon.clone()) })
    }

    /// Knows where the peer is, from now on.
    pub(super) async fn keep(&self) {
        loop {
            tokio::join!(self.life.find(), self.beacon.find());
            sleep(PERIOD).await;
        }
    }

    /// What two probes of both ports find. Whoever cannot be found refuses nothing.
    pub(super) async fn probe(&self) -> [Probe; 2] {
        match tokio::join!(self.life.find_soon(), self.beacon.find_soon()) {
            (Some(life), Some(beacon)) => probe_twice(life, beacon).await,
            _ => [Probe::default(); 2],
        }
    }
}

impl Place {
    fn new(name: String) -> Place {
        // An address needs no looking up.
        let last = Mutex::new(name.parse().ok());
        Place { name, last, looking: Arc::new(Semaphore::new(1)) }
    }

    async fn find(&self) -> Option<SocketAddr> {
        let (one, name) = (self.looking.clone().try_acquire_owned().ok()?, self.name.clone());
        // Whoever waits no longer for it does not end it.
        let look_up = tokio::spawn(async move {
            let found = lookup_host(name).await.ok()?.next();
            drop(one);
            found
        });
        let found = look_up.await.ok()??;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Some(found)
    }

    async fn find_soon(&self) -> Option<SocketAddr> {
        self.found_or_last(self.find()).await
    }

    async fn found_or_last(&self, find: impl Future<Output = Option<SocketAddr>>) -> Option<SocketAddr> {
        let found = timeout(LIMIT, find).await.ok().flatten();
        found.or_else(|| *self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn peer(link: &str, beacon: &str) -> Peer {
        let host = "b".to_owned();
        Peer { name: host.clone(), host, c2s: 5223, link: link.into(), beacon: beacon.into() }
    }

    #[tokio::test]
    async fn a_peer_that_cannot_be_found_refuses_nothing_and_the_node_hears_that() {
        // Without a port there is nothing to look up.
        let look = Look::new(&peer("nowhere", "127.0.0.1:1"));
        assert_eq!(look.probe().await, [Probe::default(); 2]);
    }

    #[tokio::test]
    async fn a_dead_peer_is_found_dead_by_where_it_was_when_names_are_not_found_any_more() {
        let free = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let look = Look::new(&peer("nowhere", "nowhere"));
        *look.life.last.lock().unwrap() = Some(free());
        *look.beacon.last.lock().unwrap() = Some(free());
        assert!(look.probe().await.iter().all(Probe::refused));
    }

    #[tokio::test]
    async fn where_it_is_now_comes_before_where_it_was_and_nobody_waits_for_a_name_server() {
        let (old, new) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        let place = Place::new("192.0.2.1:1".into());
        assert_eq!(place.found_or_last(ready(Some(new))).await, Some(new));
        assert_eq!(place.found_or_last(ready(None)).await, Some(old));
        assert_eq!(place.found_or_last(pending()).await, Some(old));
        assert_eq!(Place::new("b:1".into()).found_or_last(pending()).await, None);
    }

    #[tokio::test]
    async fn what_was_found_is_kept() {
        let place = Place::new("localhost:7".into());
        let found = place.find().await.expect("every machine knows itself");
        assert_eq!(place.found_or_last(ready(None)).await, Some(found));
    }
}
