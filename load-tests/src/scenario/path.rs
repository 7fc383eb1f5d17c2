//! A path between two sites on which packets are lost, late, doubled, turned round, too large, or the last of their
//! connection. There is a TUN device at each end, and a thread that copies from each to the other: the kernels at both ends,
//! with their TCP and UDP, are the real ones.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::language::PathFaults;
use super::segment::{Torn, tear};

/// Longest time for which a packet that others overtake is held back. Beacons are sent once a second.
const HELD: Duration = Duration::from_secs(3);
/// How often the thread looks whether the path is given up.
const LOOK: Duration = Duration::from_millis(20);
/// What waits for longer to be sent has no room: queues of routers are about as long.
const QUEUE: Duration = Duration::from_millis(200);
/// Larger than any packet.
const BYTES: usize = 1 << 16;
/// How long a name may be taken by a device that is given up, and how often that is looked at.
const BUSY: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// One end, in the namespace of the calling thread. It has neither address nor route yet, and is gone when it is dropped.
pub(super) fn device(name: &str) -> io::Result<SyncDevice> {
    // One of this name that was just given up is there for as long as a process has it that is being started at that moment.
    let until = Instant::now() + BUSY;
    let device = loop {
        match DeviceBuilder::new().name(name).inherit_enable_state().build_sync() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                thread::sleep(POLL)
            }
            built => break built?,
        }
    };
    device.set_nonblocking(true)?;
    Ok(device)
}

/// A path; given up when this is dropped.
pub(super) struct Path {
    met: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Path {
    /// Carries packets from each end to the other from now on.
    pub(super) fn begin(ends: [SyncDevice; 2], faults: PathFaults, seed: u64) -> Path {
        let (met, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let begun = Instant::now();
        let narrow = [Narrow { rate: faults.rate, free: begun }; 2];
        let luck = Luck { faults, random: StdRng::seed_from_u64(seed) };
        let carrier = Carrier {
            ends,
            luck,
            narrow,
            begun,
            number: 0,
            under_way: BTreeMap::new(),
            met: Arc::clone(&met),
        };
        let ends_it = Arc::clone(&over);
        let thread = std::thread::spawn(move || carrier.carry(&ends_it));
        Path { met, over, thread: Some(thread) }
    }

    /// How many packets something was done to.
    pub(super) fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the thread has.
struct Carrier {
    ends: [SyncDevice; 2],
    luck: Luck,
    /// What limits each direction, by the end where it comes in.
    narrow: [Narrow; 2],
    begun: Instant,
    number: u64,
    /// When each is to come out of which end; at the same time in the order in which they came in.
    under_way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    met: Arc<AtomicU64>,
}

impl Carrier {
    fn carry(mut self, over: &AtomicBool) {
        let mut packet = vec![0; BYTES];
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= now) {
                let (end, packet) = first.remove();
                // What the kernel does not take is lost, as everywhere.
                let _ = self.ends[end].send(&packet);
            }
            self.wait();
            for end in 0..2 {
                while let Ok(bytes) = self.ends[end].recv(&mut packet) {
                    self.take(end, &packet[..bytes]);
                }
            }
        }
    }

    /// Until a packet comes, or one is due.
    fn wait(&self) {
        let due = self.under_way.first_key_value().map(|((due, _), _)| *due);
        let wait = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut ends = self.ends.each_ref().map(|end| PollFd::new(end, PollFlags::IN));
        let _ = poll(&mut ends, Some(&wait));
    }

    /// A packet that came in at this end.
    fn take(&mut self, end: usize, packet: &[u8]) {
        if packet.first().is_none_or(|first| first >> 4 != 4) {
            // Nobody here has an address of IPv6: what the kernel asks its neighbours on its own.
            return;
        }
        let now = Instant::now();
        let Some(now) = self.narrow[end].sent(now, packet.len()) else {
            self.met.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let torn = tear(packet);
        let fate = self.luck.fate(now - self.begun, packet.len(), torn.is_some());
        if fate != Fate::Late(vec![Duration::ZERO]) {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        match (fate, torn) {
            (Fate::Late(copies), _) => {
                for late in copies {
                    self.send(now + late, 1 - end, packet.to_vec());
                }
            }
            (Fate::Torn(late), Some(Torn { half, ahead, back })) => {
                self.send(now + late, 1 - end, half);
                self.send(now + late, 1 - end, ahead);
                self.send(now + late, end, back);
            }
            (Fate::Lost, _) | (Fate::Torn(_), None) => {}
        }
    }

    fn send(&mut self, due: Instant, end: usize, packet: Vec<u8>) {
        self.number += 1;
        self.under_way.insert((due, self.number), (end, packet));
    }
}

/// One direction of a path that takes so many bits in a second, with a queue before it.
#[derive(Clone, Copy, Debug)]
struct Narrow {
    rate: Option<u64>,
    /// When everything that came so far has been sent.
    free: Instant,
}

impl Narrow {
    /// When a packet that comes now has been sent; `None`: the queue has no room for it.
    fn sent(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = self.rate else { return Some(now) };
        let begins = self.free.max(now);
        if begins - now > QUEUE {
            return None;
        }
        self.free = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
        Some(self.free)
    }
}

/// What becomes of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It does not arrive.
    Lost,
    /// It arrives after this time, or after each of these.
    Late(Vec<Duration>),
    /// Half of it arrives after this time, and with it the end of its connection.
    Torn(Duration),
}

/// Decides it.
struct Luck {
    faults: PathFaults,
    random: StdRng,
}

impl Luck {
    /// `since`: how long the path has been there. `segment`: it has data of a TCP connection.
    fn fate(&mut self, since: Duration, bytes: usize, segment: bool) -> Fate {
        let faults = self.faults.clone();
        let down = faults.flaps.is_some_and(|time| (since.as_nanos() / time.as_nanos()).is_multiple_of(2));
        if down || faults.at_most.is_some_and(|most| bytes > most) || self.happens(faults.loss) {
            return Fate::Lost;
        }
        if segment && self.happens(faults.resets) {
            return Fate::Torn(faults.delay);
        }
        let copies = if self.happens(faults.twice) { 2 } else { 1 };
        Fate::Late((0..copies).map(|_| faults.delay + self.held(faults.disorder)).collect())
    }

    fn held(&mut self, chance: u8) -> Duration {
        if self.happens(chance) { HELD.mul_f64(self.random.random()) } else { Duration::ZERO }
    }

    fn happens(&mut self, chance: u8) -> bool {
        chance > 0 && self.random.random_range(0..100) < chance
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

    use super::super::language::{Node, Site};
    use super::super::net::{Net, address};
    use super::*;

    const A: Site = Site::Node(Node::A);
    const B: Site = Site::Node(Node::B);
    const SEED: u64 = 7;

    fn luck(faults: PathFaults) -> Luck {
        Luck { faults, random: StdRng::seed_from_u64(SEED) }
    }

    fn fates(faults: &PathFaults) -> Vec<Fate> {
        let mut luck = luck(faults.clone());
        (0..10_000).map(|_| luck.fate(Duration::ZERO, 100, true)).collect()
    }

    /// A pair of sites with this path between them, on a thread of its own; the number is in the names.
    fn on(number: usize, faults: PathFaults, act: impl FnOnce(&mut Net) + Send) {
        let play = || {
            let mut net = Net::make(number, SEED).unwrap();
            net.lay_path(A, B, &faults).unwrap();
            act(&mut net);
        };
        std::thread::scope(|own| own.spawn(play).join().unwrap());
    }

    fn at(node: Node) -> SocketAddr {
        (address(node), 7_000).into()
    }

    fn udp(net: &Net) -> [UdpSocket; 2] {
        Node::BOTH.map(|node| {
            let socket = net.inside(Site::Node(node), || UdpSocket::bind(at(node))).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.connect(at(node.other())).unwrap();
            socket
        })
    }

    fn tcp(net: &Net) -> [TcpStream; 2] {
        let listener = net.inside(B, || TcpListener::bind(at(Node::B))).unwrap();
        let dialled = net.inside(A, || TcpStream::connect(at(Node::B))).unwrap();
        let accepted = listener.accept().unwrap().0;
        for stream in [&dialled, &accepted] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        [dialled, accepted]
    }

    #[test]
    fn so_many_in_a_hundred_as_it_says_and_the_same_ones_by_the_same_seed() {
        let near = |count: usize, chance: usize| count.abs_diff(chance * 100) <= 200;
        let count = |faults: &PathFaults, fits: fn(&Fate) -> bool| {
            let all = fates(faults);
            assert_eq!(all, fates(faults), "the seed decides");
            all.iter().filter(|fate| fits(fate)).count()
        };
        let lost = |loss| count(&PathFaults { loss, ..Default::default() }, |f| *f == Fate::Lost);
        assert!(near(lost(30), 30), "{}", lost(30));
        assert!(near(lost(3), 3), "{}", lost(3));
        assert_eq!((lost(0), lost(100)), (0, 10_000));
        let faults = PathFaults { twice: 20, ..Default::default() };
        let twice = count(&faults, |f| *f == Fate::Late(vec![Duration::ZERO; 2]));
        assert!(near(twice, 20), "{twice}");
        let faults = PathFaults { resets: 10, ..Default::default() };
        let torn = count(&faults, |f| *f == Fate::Torn(Duration::ZERO));
        assert!(near(torn, 10), "{torn}");
        let faults = PathFaults { disorder: 40, ..Default::default() };
        let held = count(&faults, |f| *f != Fate::Late(vec![Duration::ZERO]));
        assert!(near(held, 40), "{held}");
        let faults = PathFaults { delay: Duration::from_secs(1), ..Default::default() };
        assert_eq!(count(&faults, |f| *f == Fate::Late(vec![Duration::from_secs(1)])), 10_000);
    }

    #[test]
    fn size_and_time_decide_alone() {
        let well = Fate::Late(vec![Duration::ZERO]);
        let mut small = luck(PathFaults { at_most: Some(1_300), ..Default::default() });
        assert_eq!([1_300, 1_301].map(|n| small.fate(Duration::ZERO, n, false)), [well.clone(), Fate::Lost]);
        let mut flaps = luck(PathFaults { flaps: Some(Duration::from_secs(2)), ..Default::default() });
        let fates =
            [0, 1_999, 2_000, 3_999, 4_000].map(|ms| flaps.fate(Duration::from_millis(ms), 99, false));
        assert_eq!(fates, [Fate::Lost, Fate::Lost, well.clone(), well.clone(), Fate::Lost]);
        let mut resets = luck(PathFaults { resets: 100, ..Default::default() });
        assert_eq!(resets.fate(Duration::ZERO, 99, false), well, "only what has data of a connection");
    }

    #[test]
    fn a_narrow_path_sends_one_packet_after_the_other_and_its_queue_is_bounded() {
        let begun = Instant::now();
        let mut narrow = Narrow { rate: Some(1_000_000), free: begun };
        let ms = |ms| begun + Duration::from_millis(ms);
        // 1,250 bytes are 10,000 bits, which take 10 ms.
        assert_eq!([(); 2].map(|()| narrow.sent(begun, 1_250)), [Some(ms(10)), Some(ms(20))]);
        assert_eq!(narrow.sent(ms(50), 1_250), Some(ms(60)), "nothing was under way");
        let room = std::iter::from_fn(|| narrow.sent(ms(60), 1_250)).count();
        assert_eq!(room, 21, "the queue is 200 ms long");
        assert_eq!(narrow.sent(ms(70), 1_250), Some(ms(280)), "there is room again");
        let mut wide = Narrow { rate: None, free: begun };
        assert_eq!(wide.sent(begun, 1 << 30), Some(begun));
    }

    #[test]
    fn a_delay_is_one_of_both_directions_and_ends_with_the_path() {
        let delay = Duration::from_millis(200);
        on(9_001, PathFaults { delay, ..Default::default() }, |net| {
            let [a, b] = udp(net);
            let (mut buffer, sent) = ([0; 100], Instant::now());
            a.send(b"there").unwrap();
            assert_eq!(b.recv(&mut buffer).unwrap(), 5);
            assert!(sent.elapsed() >= delay);
            b.send(b"and back").unwrap();
            assert_eq!(a.recv(&mut buffer).unwrap(), 8);
            assert!(sent.elapsed() >= 2 * delay);
            assert_eq!(net.met(), 2);
            net.mend().unwrap();
            a.send(b"by the bridge").unwrap();
            assert_eq!(b.recv(&mut buffer).unwrap(), 13);
            assert_eq!(net.met(), 0);
        });
    }

    #[test]
    fn a_connection_goes_on_when_a_path_begins_and_ends_and_over_one_that_loses() {
        let faults =
            PathFaults { loss: 10, twice: 10, delay: Duration::from_millis(1), ..Default::default() };
        on(9_002, faults.clone(), |net| {
            net.mend().unwrap();
            let [mut a, mut b] = tcp(net);
            let mut said = [0; 4_000];
            let mut say = |byte| {
                a.write_all(&[byte; 4_000]).unwrap();
                b.read_exact(&mut said).unwrap();
                assert_eq!(said, [byte; 4_000]);
            };
            say(1);
            net.lay_path(A, B, &faults).unwrap();
            (2..12).for_each(&mut say);
            assert!(net.met() > 20, "it went another way: {}", net.met());
            net.mend().unwrap();
            say(12);
        });
    }

    #[test]
    fn what_is_too_large_is_lost_and_nobody_is_told() {
        on(9_003, PathFaults { at_most: Some(1_300), ..Default::default() }, |net| {
            let [a, b] = udp(net);
            let mut buffer = [0; 1_500];
            // With 28 bytes of IP and UDP.
            for bytes in [1_273, 1_272] {
                a.send(&vec![0; bytes]).unwrap();
            }
            assert_eq!(b.recv(&mut buffer).unwrap(), 1_272);
            assert_eq!(net.met(), 1);
            let [mut one, mut other] = tcp(net);
            one.write_all(&[1; 500]).unwrap();
            other.read_exact(&mut buffer[..500]).unwrap();
            one.write_all(&[2; 1_400]).unwrap();
            other.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            assert_eq!(other.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it is stuck");
            net.mend().unwrap();
            other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            other.read_exact(&mut buffer[..1_400]).unwrap();
        });
    }

    #[test]
    fn a_torn_segment_comes_by_half_and_both_ends_are_told() {
        on(9_004, PathFaults { resets: 100, ..Default::default() }, |net| {
            let [mut a, mut b] = tcp(net);
            a.write_all(&[1; 1_000]).unwrap();
            let mut buffer = [0; 2_000];
            b.read_exact(&mut buffer[..500]).unwrap();
            let ends = [&mut b, &mut a].map(|end| end.read(&mut buffer).map_err(|e| e.kind()));
            assert_eq!(ends, [Err(io::ErrorKind::ConnectionReset), Err(io::ErrorKind::ConnectionReset)]);
            assert_eq!(net.met(), 1);
        });
    }

    #[test]
    fn one_way_is_cut_and_the_other_is_there() {
        on(9_005, PathFaults { loss: 100, ..Default::default() }, |net| {
            let [a, b] = udp(net);
            net.cut_one_way(A, &[B]).unwrap();
            let mut buffer = [0; 100];
            for number in 0..3 {
                a.send(b"lost").unwrap();
                b.send(&[number]).unwrap();
                assert_eq!(a.recv(&mut buffer).unwrap(), 1);
            }
            b.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            assert!(b.recv(&mut buffer).is_err());
            net.mend().unwrap();
            a.send(b"there").unwrap();
            assert_eq!(b.recv(&mut buffer).unwrap(), 5);
        });
    }
}
