//! The sockets by which two nodes see each other's life (R9): the life socket, the beacon sockets, and the probe that
//! asks both from outside; and the clock that does not stop while a machine sleeps.
//!
//! A *refusal* is an answer of the peer's kernel: the machine is up and nobody has the port. Everything else that can
//! happen here — no answer, no route, no free descriptor on our side — is not a refusal and says nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use session_mover::kill_point;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{sleep, timeout};

/// Milliseconds since the machine started, its sleep included (CLOCK_BOOTTIME): unlike `Instant`, which stops then.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Where the life socket of the node with this link address is: the next port.
pub fn life_address(link: SocketAddr) -> io::Result<SocketAddr> {
    let port = link.port().checked_add(1).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the port after the link's must exist: choose a lower one",
        )
    })?;
    Ok(SocketAddr::new(link.ip(), port))
}

/// Connections that the kernel completes for the life socket before it stops answering.
const LIFE_BACKLOG: i32 = 16;

/// A TCP listener that nobody ever accepts from. The kernel completes connections to it for as long as the process
/// has it, so a refusal means that the process is gone; not even a stopped or hanging process is refused. It is bound
/// first of all and closed by nothing but death; children do not inherit it (close-on-exec).
///
/// Probes that were completed stay in the backlog. When it is full the kernel drops further attempts: they time out,
/// which is not a refusal either.
#[derive(Debug)]
pub struct LifeSocket {
    listener: TcpListener,
}

impl LifeSocket {
    /// Binds the port after the link's. Fails if another process has it: then this node runs already.
    pub fn bind(link: SocketAddr) -> io::Result<LifeSocket> {
        let address = life_address(link)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // For a restart while the last run's connections linger; it does not allow a second listener.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(LIFE_BACKLOG)?;
        Ok(LifeSocket { listener: socket.into() })
    }

    /// Its address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What the beacon sockets hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard<'a> {
    /// A datagram, from whomever: the receiver checks its MAC.
    Datagram(&'a [u8]),
    /// The peer's machine says that nobody has the beacon port there.
    Refused,
}

/// Longest datagram that is heard; longer ones are cut and fail their MAC.
const DATAGRAM_BYTES: usize = 1_500;
/// How often the threads look whether they are still wanted, and for an address that is not known yet.
const LOOK: Duration = Duration::from_millis(250);
/// After so long without a word that the peer hears this node its name is looked up again: it may have moved.
const MOVED_MS: u64 = 10_000;

/// The beacon sockets of a node, with a thread of their own, so that no load delays them.
///
/// There are two. The one bound to the link port hears everyone; were it connected, the kernel would answer probes,
/// which come from other ports, with a refusal although the node lives. The other one sends to the peer's link port
/// and is *connected* to it, since only a connected socket is told of refusals.
pub struct Beacons {
    shared: Arc<Shared>,
}

struct Shared {
    hears: UdpSocket,
    /// None until the peer's name is known.
    sends: Mutex<Option<Arc<UdpSocket>>>,
    on: Box<dyn Fn(Heard<'_>) -> bool + Send + Sync>,
    /// When the peer was last heard to hear this node.
    heard_ms: AtomicU64,
    stop: AtomicBool,
}

impl Beacons {
    /// Binds the link port and starts to listen. `peer` is `host:port` of the peer's link; it need not be known or
    /// reachable yet. `on` is called on the beacon thread, refusals also on the thread that sends; it must not wait. It says
    /// whether the peer, and no stranger, has heard what was sent since it last said so: else its name is looked up again.
    pub fn start(
        link: SocketAddr,
        peer: String,
        on: impl Fn(Heard<'_>) -> bool + Send + Sync + 'static,
    ) -> io::Result<Beacons> {
        let hears = UdpSocket::bind(link)?;
        hears.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            hears,
            sends: Mutex::new(None),
            on: Box::new(on),
            heard_ms: AtomicU64::new(boottime_ms()),
            stop: AtomicBool::new(false),
        });
        let spawn = |name: &str, run: fn(&Shared, &str)| {
            let (shared, peer) = (Arc::clone(&shared), peer.clone());
            thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared, &peer))
        };
        // Looking up a name can take seconds, so it is done beside the listening.
        shared.aim(&peer, true);
        spawn("beacon-address", |shared, peer| shared.keep_aim(peer))?;
        spawn("beacon", |shared, _| shared.listen())?;
        Ok(Beacons { shared })
    }

    /// Sends one datagram to the peer, from any thread; never waits. False if it did not even leave: no address yet,
    /// no route, a full buffer. A refusal of an earlier datagram is told and does not keep this one back.
    pub fn send(&self, datagram: &[u8]) -> bool {
        kill_point!("beacon.before_send");
        let Some(socket) = self.shared.sends() else { return false };
        for _ in 0..2 {
            match socket.send(datagram) {
                Ok(_) => return true,
                Err(error) if refused(&error) => _ = (self.shared.on)(Heard::Refused),
                Err(_) => return false,
            }
        }
        false
    }

    /// Address that is listened on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.hears.local_addr()
    }
}

impl Drop for Beacons {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the thread that listens; the sockets are closed when both threads have seen the flag.
        let _ = rustix::net::shutdown(&self.shared.hears, rustix::net::Shutdown::Both);
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn sends(&self) -> Option<Arc<UdpSocket>> {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The beacon thread: blocks until one of the sockets has something.
    fn listen(&self) {
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
        while !self.stopped() {
            let sends = self.sends();
            let mut fds = vec![PollFd::new(&self.hears, PollFlags::IN)];
            fds.extend(sends.as_deref().map(|socket| PollFd::new(socket, PollFlags::IN)));
            match poll(&mut fds, Some(&look)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                // Out of memory, for a moment: what else is there to do but to go on.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
            self.hear(&self.hears);
            if let Some(socket) = &sends {
                self.hear(socket);
            }
        }
    }

    /// Everything that a socket has now.
    fn hear(&self, socket: &UdpSocket) {
        let mut buffer = [0; DATAGRAM_BYTES];
        while !self.stopped() {
            match socket.recv(&mut buffer) {
                // A probe.
                Ok(0 | 1) => {}
                Ok(length) => {
                    if (self.on)(Heard::Datagram(&buffer[..length])) {
                        self.heard_ms.store(boottime_ms(), Ordering::Relaxed);
                    }
                }
                Err(error) if refused(&error) => _ = (self.on)(Heard::Refused),
                Err(_) => return,
            }
        }
    }

    /// The address thread: finds the peer, and finds it again if it does not hear this node for long.
    fn keep_aim(&self, peer: &str) {
        let mut looked_ms = boottime_ms();
        while !self.stopped() {
            thread::sleep(LOOK);
            let now = boottime_ms();
            let silent = now.saturating_sub(self.heard_ms.load(Ordering::Relaxed).max(looked_ms)) >= MOVED_MS;
            if silent || self.sends().is_none() {
                self.aim(peer, false);
                looked_ms = now;
            }
        }
    }

    /// Connects the sending socket to the peer's address, or to the next of several if the present one was silent.
    /// With `at_once` only to an address that needs no looking up.
    fn aim(&self, peer: &str, at_once: bool) {
        let own = self.hears.local_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip());
        let found: Vec<SocketAddr> = match peer.parse() {
            Ok(address) => vec![address],
            Err(_) if at_once => Vec::new(),
            Err(_) => peer.to_socket_addrs().map_or(Vec::new(), Iterator::collect),
        };
        // A socket for IPv4 only can neither reach nor be reached by the other kind.
        let found: Vec<_> = found.into_iter().filter(|a| own.is_ipv6() || a.is_ipv4()).collect();
        let present = self.sends().and_then(|socket| socket.peer_addr().ok());
        let next = found.iter().position(|a| Some(*a) == present).map_or(0, |i| i + 1);
        let Some(address) = found.iter().cycle().nth(next).copied() else { return };
        if Some(address) == present {
            return;
        }
        if let Ok(socket) = connected(own, address) {
            *self.sends.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(socket));
        }
    }
}

/// A socket that sends to one address, from our own address where that is of the same kind.
fn connected(own: IpAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let own = if own.is_ipv4() == to.is_ipv4() { own } else { any(to) };
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}

fn any(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// How long a probe waits for a refusal. Over a link with a longer way there is none, and the node is taken for
/// silent, not dead.
pub const PROBE_LIMIT: Duration = Duration::from_millis(10);
/// Time between the beginnings of two probes (R9).
pub const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// What one probe of the peer's ports found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Probe {
    /// The life socket refuses.
    pub life_refused: bool,
    /// The beacon port refuses.
    pub beacon_refused: bool,
}

impl Probe {
    /// Both refuse: the process is gone and its machine says so.
    pub fn refused(&self) -> bool {
        self.life_refused && self.beacon_refused
    }
}

/// Probes the peer's life socket and beacon port twice, with new sockets each time.
pub async fn probe_twice(life: SocketAddr, beacon: SocketAddr) -> [Probe; 2] {
    let second = async {
        sleep(PROBE_PAUSE).await;
        probe(life, beacon).await
    };
    tokio::join!(probe(life, beacon), second).into()
}

async fn probe(life: SocketAddr, beacon: SocketAddr) -> Probe {
    let life = timeout(PROBE_LIMIT, tokio::net::TcpStream::connect(life));
    let (life, beacon_refused) = tokio::join!(life, beacon_refuses(beacon));
    let life_refused = match life {
        Ok(Ok(socket)) => {
            // Closed by a reset: nothing of it lingers.
            let _ = socket.set_zero_linger();
            false
        }
        Ok(Err(error)) => refused(&error),
        Err(_) => false,
    };
    Probe { life_refused, beacon_refused }
}

async fn beacon_refuses(address: SocketAddr) -> bool {
    let ask = async {
        let socket = tokio::net::UdpSocket::bind((any(address), 0)).await?;
        socket.connect(address).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    };
    timeout(PROBE_LIMIT, ask).await.is_ok_and(|answer| answer.is_err_and(|error| refused(&error)))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A port that is free, as is the next. Not one that the kernel gives to the test next door once it is free.
    fn free_port() -> SocketAddr {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let base = 10_000 + u64::from(std::process::id() % 500) * 40;
        loop {
            let port = base + 2 * NEXT.fetch_add(1, Ordering::Relaxed);
            let link = local(port as u16);
            if UdpSocket::bind(link).is_ok() && TcpListener::bind(life_address(link).unwrap()).is_ok() {
                return link;
            }
        }
    }

    fn life() -> (LifeSocket, SocketAddr) {
        let link = free_port();
        (LifeSocket::bind(link).unwrap(), link)
    }

    fn start(link: SocketAddr, peer: String) -> (Beacons, Receiver<Vec<u8>>, Receiver<()>) {
        let (datagrams, heard): (Sender<Vec<u8>>, _) = channel();
        let (refusals, refused) = channel();
        let on = move |what: Heard<'_>| {
            match what {
                Heard::Datagram(bytes) => _ = datagrams.send(bytes.to_vec()),
                Heard::Refused => _ = refusals.send(()),
            }
            what == Heard::Datagram(b"i hear you")
        };
        (Beacons::start(link, peer, on).unwrap(), heard, refused)
    }

    /// Another process that holds these two sockets, and is the only one.
    fn holder(tcp: TcpListener, udp: UdpSocket) -> Child {
        let (tcp, udp) = (std::os::fd::OwnedFd::from(tcp), std::os::fd::OwnedFd::from(udp));
        Command::new("sleep").arg("600").stdin(Stdio::from(tcp)).stdout(Stdio::from(udp)).spawn().unwrap()
    }

    async fn probed(life: SocketAddr, beacon: SocketAddr) -> Probe {
        let [first, second] = probe_twice(life, beacon).await;
        assert_eq!(first, second);
        first
    }

    #[test]
    fn the_clock_goes_on() {
        let then = boottime_ms();
        thread::sleep(Duration::from_millis(20));
        assert!((20..20_000).contains(&(boottime_ms() - then)));
        assert!(then > 0);
    }

    #[tokio::test]
    async fn ports_without_a_process_refuse_and_take_twenty_milliseconds() {
        let (life, link) = life();
        let address = life.local_addr().unwrap();
        assert_eq!(address, life_address(link).unwrap());
        drop(life);
        let begun = boottime_ms();
        assert!(probed(address, link).await.refused());
        assert!(boottime_ms() - begun >= 19);
    }

    #[tokio::test]
    async fn a_life_socket_never_refuses_even_when_its_backlog_is_full() {
        let (life, link) = life();
        let address = life.local_addr().unwrap();
        for _ in 0..LIFE_BACKLOG + 4 {
            let probe = probed(address, link).await;
            assert_eq!(probe, Probe { life_refused: false, beacon_refused: true });
        }
        let full = timeout(Duration::from_millis(50), tokio::net::TcpStream::connect(address)).await;
        assert!(full.is_err(), "the backlog is full by now");
        assert!(LifeSocket::bind(link).is_err(), "a second process of the node gets no life socket");
        drop(life);
        assert!(probed(address, link).await.life_refused, "what was in the backlog dies too");
        assert!(life_address(local(u16::MAX)).is_err());
    }

    #[tokio::test]
    async fn a_living_nodes_beacon_port_refuses_no_probe() {
        let (life, link) = life();
        // What would happen with one socket for both: the kernel refuses whoever is not the peer.
        let single = UdpSocket::bind(local(0)).unwrap();
        single.connect(local(1)).unwrap();
        assert!(beacon_refuses(single.local_addr().unwrap()).await);
        let (beacons, heard, _refused) = start(link, local(1).to_string());
        let address = life.local_addr().unwrap();
        assert_eq!(probed(address, beacons.local_addr().unwrap()).await, Probe::default());
        assert!(heard.try_recv().is_err(), "a probe is no beacon");
    }

    #[tokio::test]
    async fn a_killed_process_refuses_and_a_stopped_one_does_not() {
        let (life, link) = life();
        let address = life.local_addr().unwrap();
        let mut child = holder(life.listener, UdpSocket::bind(link).unwrap());
        assert_eq!(probed(address, link).await, Probe::default());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        assert_eq!(probed(address, link).await, Probe::default());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(probed(address, link).await.refused());
    }

    #[test]
    fn beacons_are_heard_and_refusals_are_told() {
        let address = free_port();
        let (a, a_heard, a_refused) = start(local(0), address.to_string());
        // Nobody there yet: that is told, by the thread that listens, and sending goes on.
        for _ in 0..3 {
            assert!(a.send(b"hello?"));
            a_refused.recv_timeout(LIMIT).unwrap();
        }
        let (b, b_heard, _b_refused) = start(address, a.local_addr().unwrap().to_string());
        let from_another_thread = thread::spawn(move || {
            assert!(a.send(b"from a"));
            a
        });
        assert_eq!(b_heard.recv_timeout(LIMIT).unwrap(), b"from a");
        let a = from_another_thread.join().unwrap();
        assert!(b.send(b"from b"));
        assert_eq!(a_heard.recv_timeout(LIMIT).unwrap(), b"from b");
        // The peer ends, and its port is free at once.
        drop(b);
        let begun = boottime_ms();
        while a_refused.recv_timeout(Duration::from_millis(20)).is_err() {
            assert!(boottime_ms() - begun < 20_000, "the refusal is never told");
            a.send(b"are you there?");
        }
    }

    #[test]
    fn a_peer_whose_name_nobody_knows_yet_is_no_failure() {
        let (a, heard, _refused) = start(local(0), "no-such-node.invalid:22001".into());
        assert!(!a.send(b"to nobody"));
        let stranger = UdpSocket::bind(local(0)).unwrap();
        stranger.send_to(b"hello", a.local_addr().unwrap()).unwrap();
        assert_eq!(heard.recv_timeout(LIMIT).unwrap(), b"hello");
    }

    /// A stranger, or the peer from an address where it is not reached, does not keep a node from looking where the peer is.
    #[test]
    fn only_a_peer_that_hears_this_node_keeps_its_address() {
        let (a, heard, _refused) = start(local(0), local(1).to_string());
        let heard_ms = || a.shared.heard_ms.load(Ordering::Relaxed);
        a.shared.heard_ms.store(0, Ordering::Relaxed);
        let somebody = UdpSocket::bind(local(0)).unwrap();
        for (said, counts) in [("hello", false), ("i hear you", true)] {
            for word in [said, "and that is all"] {
                somebody.send_to(word.as_bytes(), a.local_addr().unwrap()).unwrap();
                assert_eq!(heard.recv_timeout(LIMIT).unwrap(), word.as_bytes());
            }
            assert_eq!(heard_ms() > 0, counts, "{said}");
        }
    }

    #[test]
    fn a_name_is_found() {
        let (b, b_heard, _refused) = start(local(0), local(1).to_string());
        let (a, ..) = start(local(0), format!("localhost:{}", b.local_addr().unwrap().port()));
        let begun = boottime_ms();
        while !a.send(b"by name") {
            assert!(boottime_ms() - begun < 20_000, "the name is never found");
            thread::sleep(Duration::from_millis(10));
        }
        // The datagram is not lost on loopback, and of the addresses that can be ::1 the right one is taken.
        assert_eq!(b_heard.recv_timeout(LIMIT).unwrap(), b"by name");
    }
}
