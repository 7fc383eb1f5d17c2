//! The shell of the peer link: TCP and mutual TLS around [`crate::msg`]. It decides nothing; it carries messages and
//! says how connections end.
//!
//! Each node dials the other and accepts the other's connection. The dialler checks that the certificate names the
//! peer, the acceptor does the same and only then says "come in" (one empty message): so [`LinkEvent::Up`] means on
//! both ends that both have checked. For each connection there is one `Up`, then its messages, then one `Down`, and
//! the next connection of the same direction begins after that.

mod accept;
mod connection;
mod dial;
mod handshakes;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::driver::Link;
use crate::msg::Msg;

pub use accept::{ACCEPT_PAUSE, accept_forever};
pub use dial::{Wake, dial_forever};
pub use handshakes::Handshakes;
pub use wire::{GREETING_BYTES, read_all};

/// How long sent bytes may stay unacknowledged, and how long a peer may refuse to read, before the connection is
/// given up (TCP_USER_TIMEOUT).
pub const USER_TIMEOUT: Duration = Duration::from_secs(6);
/// Time that TLS and the mutual check may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// One connection: numbers are never used twice in a process, so that what is late cannot be taken for the present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn {
    /// Who dialled.
    pub link: Link,
    /// Its number.
    pub generation: u64,
}

impl Conn {
    fn next(link: Link) -> Conn {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        Conn { link, generation: GENERATION.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What the shell tells the node. It is told on the connection's own task, which must not wait (D9): put it into a
/// queue and return.
#[derive(Debug)]
pub enum LinkEvent {
    /// The peer is there and has proved who it is. Dropping the sender, and all its clones, closes the connection.
    Up(Conn, LinkSender),
    /// A message of the peer.
    Msg(Conn, Msg),
    /// The end of a connection that was up. Everything that arrived before it has been told.
    Down(Conn, Ended),
    /// An attempt came to nothing before it was up: a dial, or a stranger at the door. Never evidence of death.
    Failed(Link, Ended),
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The peer's kernel closed it: its process ended or hung up.
    Fin,
    /// The peer's kernel refused it.
    Reset,
    /// Silence: nothing was acknowledged, or nobody could be reached.
    TimedOut,
    /// Nobody listens there.
    Refused,
    /// TLS did not come about or was broken: certificate, name, or bytes that are no TLS.
    Tls(String),
    /// The other side broke the rules of the link, or our system has no means; the text says what.
    Bad(String),
    /// This node closed it.
    Closed,
    /// The peer dialled again: the older connection gives way.
    Replaced,
}

impl Ended {
    /// Whether an end like this, of a connection that was up, is one of the signs that the peer's process is dead
    /// (R9). It never is enough alone: anyone on the path can forge it.
    pub fn suggests_death(&self) -> bool {
        matches!(self, Ended::Fin | Ended::Reset)
    }
}

/// The way into one connection. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub struct LinkSender {
    conn: Conn,
    queue: mpsc::UnboundedSender<Item>,
    closing: Arc<Closing>,
}

impl LinkSender {
    fn new(link: Link) -> (LinkSender, mpsc::UnboundedReceiver<Item>) {
        let (queue, items) = mpsc::unbounded_channel();
        (LinkSender { conn: Conn::next(link), queue, closing: Arc::default() }, items)
    }

    /// The connection that this leads into.
    pub fn conn(&self) -> Conn {
        self.conn
    }

    /// Queues a message behind the others; those that wait together leave in one write. False if the connection has
    /// ended or is being closed: then the message goes nowhere. True promises nothing.
    pub fn send(&self, msg: Msg) -> bool {
        !self.closing.asked() && self.queue.send(Item::Msg(msg)).is_ok()
    }

    /// Ends the connection: what was sent before still goes out, for a second at most. From now on none of its
    /// messages is told, but for one that is being told at this moment.
    pub fn close(&self) {
        self.closing.ask();
        let _ = self.queue.send(Item::Close);
    }
}

#[derive(Debug)]
enum Item {
    Msg(Msg),
    Close,
}

/// Whether this node wants the connection to end.
#[derive(Debug, Default)]
struct Closing {
    asked: AtomicBool,
    wake: Notify,
}

impl Closing {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
