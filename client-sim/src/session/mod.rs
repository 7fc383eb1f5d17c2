//! One client, running: a task that owns up to two streams and does what the state machine in [`crate::dual`] says.

mod runner;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use xmpp_core::Stanza;
use xmpp_core::dual::Peer;

use crate::conn::{Account, Dialer};
use crate::dual::FlipCause;
use crate::sm::Outgoing;

/// What a client is told before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who it is.
    pub account: Account,
    /// How it connects.
    pub dialer: Dialer,
    /// The nodes it knows, as from SRV records.
    pub nodes: Vec<Peer>,
    /// Name of the node to log in at first; the first of `nodes` if `None`.
    pub first: Option<String>,
    /// Whether it asks for the dual connection where that is offered.
    pub dual: bool,
    /// Ask for an acknowledgement after this many stanzas.
    pub ack_every: usize,
    /// Pause before each attempt to connect.
    pub pause: RangeInclusive<Duration>,
    /// A main stream that says nothing for this long is dead; after half of it, it is asked.
    pub silence: Duration,
    /// White space goes over the parked stream this often.
    pub keepalive: Duration,
    /// Whether the roster is asked for after bind, before presence: that makes the resource an interested one (RFC 6121 2.2).
    pub roster: bool,
    /// Whether presence is sent after bind; without it no messages come.
    pub initial_presence: bool,
    /// Whether every request to see this user's presence is granted.
    pub approve: bool,
    /// Whether requests (IQs) are answered: pings as XEP-0199 says, all others with an error.
    pub answer: bool,
    /// Seed of all random choices but the nonces.
    pub seed: u64,
}

impl Options {
    /// The usual client: acknowledgements every 5 stanzas, 50 to 250 ms between attempts, 60 s of silence.
    pub fn new(account: Account, dialer: Dialer, nodes: Vec<Peer>) -> Self {
        Options {
            account,
            dialer,
            nodes,
            first: None,
            dual: true,
            ack_every: 5,
            pause: Duration::from_millis(50)..=Duration::from_millis(250),
            silence: Duration::from_secs(60),
            keepalive: Duration::from_secs(60),
            roster: false,
            initial_presence: true,
            approve: false,
            answer: true,
            seed: 0,
        }
    }
}

/// What happens to a client, in the order it happens.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a stanza is the usual case")]
pub enum Event {
    /// A new session: the first login, or the old one was gone.
    Bound {
        /// Name of the node.
        node: String,
        /// Full JID.
        jid: String,
        /// There was a session before.
        again: bool,
    },
    /// The session goes on on a new stream, by an ordinary resume.
    Resumed {
        /// Where it was.
        from: String,
        /// Where it is.
        to: String,
    },
    /// The session goes on on what was the parked stream.
    Flipped {
        /// Where it was.
        from: String,
        /// Where it is.
        to: String,
        /// Why.
        cause: FlipCause,
    },
    /// The session cannot be had back: it was refused, or the counts of both sides do not fit. A new one follows.
    SessionGone {
        /// Ids of stanzas that go out again in the new session.
        again: Vec<String>,
        /// Ids of stanzas that nobody can tell of whether the server had them; they are not sent again.
        unknown: Vec<String>,
    },
    /// The second stream is registered.
    Parked {
        /// Name of the node.
        node: String,
    },
    /// The second stream is no more, other than by a flip.
    Unparked,
    /// The main stream ended.
    MainLost {
        /// Name of the node.
        node: String,
        /// Why, in words.
        reason: String,
    },
    /// The server has taken responsibility for this stanza of ours.
    Acknowledged {
        /// Its id.
        id: String,
    },
    /// A stanza came in and counts as shown.
    Stanza(Stanza),
    /// An attempt to connect failed; it goes on. Usual while a node is down.
    AttemptFailed {
        /// Name of the node.
        node: String,
        /// Why, in words.
        reason: String,
    },
    /// An attempt to park failed; it is tried again. Usual while a node is down.
    ParkFailed {
        /// Why, in words.
        reason: String,
    },
    /// Something that no server should do.
    Error(String),
}

/// Who is told. Called on the client's task: must be quick and never block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: Event);
}

/// For scripts and tests: events queue up in a channel.
impl Observer for mpsc::UnboundedSender<Event> {
    fn event(&self, event: Event) {
        let _ = self.send(event);
    }
}

/// What a client is told to do while it runs.
enum Command {
    Send(Outgoing),
    BreakMain,
    BreakParked,
    Stop(oneshot::Sender<()>),
}

/// What can be seen of a client without asking its task.
#[derive(Default)]
struct Status {
    backlog: AtomicUsize,
    up: AtomicBool,
    parked: AtomicBool,
}

/// A running client. It ends when this is dropped; [`Session::stop`] ends it politely.
pub struct Session {
    commands: mpsc::UnboundedSender<Command>,
    status: Arc<Status>,
    task: JoinHandle<()>,
}

impl Session {
    /// Starts a client on the present tokio runtime; it logs in by itself and never gives up.
    pub fn spawn(options: Options, observer: Arc<dyn Observer>) -> Session {
        let (commands, inbox) = mpsc::unbounded_channel();
        let status = Arc::new(Status::default());
        let task = tokio::spawn(runner::Runner::new(options, observer, inbox, Arc::clone(&status)).run());
        Session { commands, status, task }
    }

    /// Queues a stanza. It goes out when there is a stream for it, and again until it is acknowledged.
    pub fn send(&self, stanza: Outgoing) {
        self.status.backlog.fetch_add(1, Ordering::Relaxed);
        let _ = self.commands.send(Command::Send(stanza));
    }

    /// How many stanzas wait for their acknowledgement.
    pub fn backlog(&self) -> usize {
        self.status.backlog.load(Ordering::Relaxed)
    }

    /// Whether a main stream carries the session.
    pub fn is_up(&self) -> bool {
        self.status.up.load(Ordering::Relaxed)
    }

    /// Whether the second stream is parked.
    pub fn is_parked(&self) -> bool {
        self.status.parked.load(Ordering::Relaxed)
    }

    /// Breaks the main stream's TCP connection, as a network would.
    pub fn break_main(&self) {
        let _ = self.commands.send(Command::BreakMain);
    }

    /// Breaks the parked stream's TCP connection.
    pub fn break_parked(&self) {
        let _ = self.commands.send(Command::BreakParked);
    }

    /// Ends both streams in good order, which ends the session at the server too.
    pub async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("up", &self.is_up()).field("parked", &self.is_parked()).finish()
    }
}
