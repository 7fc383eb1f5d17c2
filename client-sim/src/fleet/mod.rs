//! Many clients that chat in pairs, with one ledger: the load of the demo, the drill and the tests.

mod pairs;
mod watch;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use xmpp_core::Stanza;
use xmpp_core::dual::Peer;
use xmpp_core::sasl::KeyCache;
use xmpp_core::xml::Writer;

use crate::conn::{Account, Dialer};
use crate::ledger::Ledger;
use crate::presence::Content;
use crate::session::{Options, Session};
use crate::sm::Outgoing;

pub use pairs::{choose_plain, pair_up};
pub use watch::{FleetReport, Flips, Snapshot, Summary};

/// How often the live picture is renewed, and conditions are looked at.
const RENEW: Duration = Duration::from_millis(100);

/// What the fleet is to be.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Domain of all accounts, which are called `u0`, `u1`, ...
    pub domain: String,
    /// Their common password.
    pub password: String,
    /// The nodes.
    pub nodes: Vec<Peer>,
    /// For each account the index in `nodes` of its home, where it logs in first. Its length is the number of users.
    pub homes: Vec<usize>,
    /// How clients connect.
    pub dialer: Dialer,
    /// Addresses that clients come from, in turn among those of one home; none: whatever the system takes.
    pub from: Vec<IpAddr>,
    /// Share of the users of each home, 0 to 1, whose client does not know the dual connection.
    pub plain: f64,
    /// Mean time between two messages of one user; each pause is between half and one and a half of it.
    pub interval: Duration,
    /// Characters in a message's body, at least.
    pub body_len: usize,
    /// Seed of all random choices.
    pub seed: u64,
    /// Logins begun per second, for all users together.
    pub logins_per_second: f64,
    /// Resource of every client.
    pub resource: String,
    /// A user with this many unacknowledged messages writes no more until there are fewer.
    pub max_backlog: usize,
    /// Ask for an acknowledgement after this many stanzas.
    pub ack_every: usize,
    /// Pause before each attempt to connect.
    pub pause: RangeInclusive<Duration>,
    /// A main stream that says nothing for this long is dead.
    pub silence: Duration,
    /// Partners subscribe to each other's presence at the start; then flickers are seen.
    pub subscribe: bool,
    /// Mean time between two changes of presence of one user while the fleet chats; each pause is between half and one
    /// and a half of it.
    pub change_presence: Duration,
}

impl FleetOptions {
    /// One message a second and user, 10 % plain clients, 100 logins a second.
    pub fn new(domain: &str, password: &str, nodes: Vec<Peer>, homes: Vec<usize>, dialer: Dialer) -> Self {
        FleetOptions {
            domain: domain.into(),
            password: password.into(),
            nodes,
            homes,
            dialer,
            from: Vec::new(),
            plain: 0.1,
            interval: Duration::from_secs(1),
            body_len: 20,
            seed: 1,
            logins_per_second: 100.0,
            resource: "sim".into(),
            max_backlog: 500,
            ack_every: 5,
            pause: Duration::from_millis(50)..=Duration::from_millis(250),
            silence: Duration::from_secs(60),
            subscribe: true,
            change_presence: Duration::from_secs(5),
        }
    }
}

/// Running clients. They end when this is dropped.
pub struct Fleet {
    shared: Arc<watch::Shared>,
    sessions: Arc<Vec<Session>>,
    partners: Vec<usize>,
    sending: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    live: channel::Receiver<Snapshot>,
}

impl Fleet {
    /// Starts the clients at the given pace, and the chat once all are started. Whether they are in is what
    /// [`Fleet::all_logged_in`] tells.
    pub async fn start(options: FleetOptions) -> Fleet {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let partners = pair_up(&options.homes);
        let plain = choose_plain(&options.homes, options.plain, &mut rng);
        let shared = Arc::new(watch::Shared::new(&plain));
        let keys = Arc::new(KeyCache::new());
        let (tell, live) = channel::channel(shared.snapshot());
        let renewing = Arc::clone(&shared);
        let mut tasks = vec![tokio::spawn(async move {
            let mut renew = interval(RENEW);
            while !tell.is_closed() {
                renew.tick().await;
                tell.send_replace(renewing.snapshot());
            }
        })];
        let mut pace = interval(Duration::from_secs_f64(1.0 / options.logins_per_second.max(0.001)));
        let mut sessions = Vec::with_capacity(options.homes.len());
        for (user, home) in options.homes.iter().enumerate() {
            pace.tick().await;
            let session = session_options(&options, &keys, user, *home, !plain[user], rng.random());
            sessions.push(Session::spawn(session, Arc::new(shared.observer(user))));
        }
        let sessions = Arc::new(sessions);
        let sending = Arc::new(AtomicBool::new(false));
        let run: u32 = rand::random();
        for (user, partner) in partners.iter().enumerate() {
            let writer = Writing {
                options: options.clone(),
                shared: Arc::clone(&shared),
                sessions: Arc::clone(&sessions),
                sending: Arc::clone(&sending),
                rng: StdRng::seed_from_u64(rng.random()),
                user,
                partner: *partner,
                run,
            };
            if options.subscribe {
                shared.presence.may_see(&user_name(user), &full_jid(&options, *partner));
                tasks.push(tokio::spawn(writer.another(rng.random()).change_presence()));
            }
            tasks.push(tokio::spawn(writer.write()));
        }
        Fleet { shared, sessions, partners, sending, tasks, live }
    }

    /// The chat begins, or goes on.
    pub fn start_sending(&self) {
        self.sending.store(true, Ordering::SeqCst);
    }

    /// Nobody writes new messages; those on the way are still sent, again if need be.
    pub fn stop_sending(&self) {
        self.sending.store(false, Ordering::SeqCst);
    }

    /// Waits until everyone has a session. False if that is not so after `deadline`.
    pub async fn all_logged_in(&self, deadline: Duration) -> bool {
        self.reached(deadline, |now| now.logged_in == now.users).await
    }

    /// Waits until every dual client has its second stream parked.
    pub async fn all_parked(&self, deadline: Duration) -> bool {
        self.reached(deadline, |now| now.parked == now.users - now.plain).await
    }

    /// Stops the chat and waits until everything sent is acknowledged and delivered, and everybody sees the presence of
    /// their contacts.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.stop_sending();
        let settled = async {
            while !self.shared.ledger.settled() || !self.shared.presence.settled() {
                sleep(RENEW / 4).await;
            }
        };
        timeout(deadline, settled).await.is_ok()
    }

    async fn reached(&self, deadline: Duration, condition: impl Fn(&Snapshot) -> bool) -> bool {
        let reached = async {
            while !condition(&self.shared.snapshot()) {
                sleep(RENEW / 4).await;
            }
        };
        timeout(deadline, reached).await.is_ok()
    }

    /// A fault hit this node at this moment (the return of kill(2), say): from then the clients that were there are timed
    /// until their session goes on. Call it right after; a client that was quicker than the call is timed too.
    pub fn fault_at(&self, node: &str, at: Instant) {
        self.shared.fault_at(node, at);
    }

    /// Clients hit by a fault that have no session yet.
    pub fn fault_pending(&self) -> usize {
        self.shared.fault_pending()
    }

    /// The live picture, renewed ten times a second.
    pub fn live(&self) -> channel::Receiver<Snapshot> {
        self.live.clone()
    }

    /// The picture of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// The verdict and the figures.
    pub fn report(&self) -> FleetReport {
        self.shared.report()
    }

    /// The record of all messages.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// The client of one user, to break its streams or let it say something else.
    pub fn session(&self, user: usize) -> Option<&Session> {
        self.sessions.get(user)
    }

    /// The node with which a user has a session, on a live stream.
    pub fn node_of(&self, user: usize) -> Option<String> {
        self.shared.node_of(user)
    }

    /// Whether a user's client does not know the dual connection.
    pub fn is_plain(&self, user: usize) -> bool {
        self.shared.is_plain(user)
    }

    /// With whom each user chats.
    pub fn partners(&self) -> &[usize] {
        &self.partners
    }

    /// Logs everyone out.
    pub async fn stop(self) {
        self.stop_sending();
        self.shared.leaving();
        let stops: Vec<_> = (0..self.sessions.len())
            .map(|user| {
                let sessions = Arc::clone(&self.sessions);
                tokio::spawn(async move { sessions[user].stop().await })
            })
            .collect();
        for stop in stops {
            let _ = stop.await;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("users", &self.sessions.len()).finish_non_exhaustive()
    }
}

/// The name of an account.
pub fn user_name(user: usize) -> String {
    format!("u{user}")
}

/// What a user has of `list`, which is gone through in turn among the users of each home: these follow each other at the
/// distance of `nodes`.
pub fn in_turn<T: Copy>(list: &[T], nodes: usize, user: usize) -> Option<T> {
    let nth = user / nodes.max(1);
    list.get(nth % list.len().max(1)).copied()
}

/// Where a user's client will be, in its only resource.
fn full_jid(options: &FleetOptions, user: usize) -> String {
    format!("{}@{}/{}", user_name(user), options.domain, options.resource)
}

fn session_options(
    options: &FleetOptions,
    keys: &Arc<KeyCache>,
    user: usize,
    home: usize,
    dual: bool,
    seed: u64,
) -> Options {
    let account = Account {
        user: user_name(user),
        domain: options.domain.clone(),
        password: options.password.clone(),
        resource: Some(options.resource.clone()),
        keys: Arc::clone(keys),
    };
    let mut dialer = options.dialer.with_tickets();
    dialer.from = in_turn(&options.from, options.nodes.len(), user);
    Options {
        first: options.nodes.get(home).map(|node| node.node.to_string()),
        dual,
        ack_every: options.ack_every,
        pause: options.pause.clone(),
        silence: options.silence,
        approve: options.subscribe,
        roster: options.subscribe,
        seed,
        ..Options::new(account, dialer, options.nodes.clone())
    }
}

/// One user's writing.
struct Writing {
    options: FleetOptions,
    shared: Arc<watch::Shared>,
    sessions: Arc<Vec<Session>>,
    sending: Arc<AtomicBool>,
    rng: StdRng,
    user: usize,
    partner: usize,
    /// Tells the ids of this run from those of earlier ones, whose offline messages may still come.
    run: u32,
}

impl Writing {
    async fn write(mut self) {
        let (sender, receiver) = (user_name(self.user), user_name(self.partner));
        if self.options.subscribe {
            let bytes = self.subscription(&receiver);
            self.sessions[self.user].send(Outgoing { id: String::new(), bytes, survives: true });
        }
        let mut seq = 0;
        loop {
            let share = self.rng.random_range(0.5..1.5);
            sleep(self.options.interval.mul_f64(share)).await;
            let session = &self.sessions[self.user];
            if !self.sending.load(Ordering::SeqCst) || session.backlog() >= self.options.max_backlog {
                continue;
            }
            seq += 1;
            let id = format!("{:08x}-{sender}-{seq}", self.run);
            let bytes = self.message(&id, &receiver, seq);
            self.shared.ledger.sent(&sender, &id, &receiver, seq);
            session.send(Outgoing { id, bytes, survives: true });
        }
    }

    /// The same user with other luck.
    fn another(&self, seed: u64) -> Writing {
        Writing {
            options: self.options.clone(),
            shared: Arc::clone(&self.shared),
            sessions: Arc::clone(&self.sessions),
            sending: Arc::clone(&self.sending),
            rng: StdRng::seed_from_u64(seed),
            ..*self
        }
    }

    /// One user's moods. No two of them are the same, so that each can be told from those before.
    async fn change_presence(mut self) {
        let jid = full_jid(&self.options, self.user);
        let mut seq = 0u64;
        loop {
            let share = self.rng.random_range(0.5..1.5);
            sleep(self.options.change_presence.mul_f64(share)).await;
            if !self.sending.load(Ordering::SeqCst) {
                continue;
            }
            seq += 1;
            let mut w = Writer::new();
            w.open("presence", "");
            if let Some(show) = [None, Some("away"), Some("dnd"), Some("xa")][self.rng.random_range(0..4)] {
                w.open("show", "").text(show).close();
            }
            w.open("status", "").text(format_args!("mood {seq}"));
            let bytes = w.finish();
            let Ok(stanza) = Stanza::parse(&bytes) else { return };
            self.shared.presence.says(&jid, Content::of(&stanza));
            self.sessions[self.user].send(Outgoing { id: String::new(), bytes, survives: false });
        }
    }

    fn subscription(&self, receiver: &str) -> bytes::Bytes {
        let mut w = Writer::new();
        w.open("presence", "").attr("type", "subscribe");
        w.attr("to", format_args!("{receiver}@{}", self.options.domain));
        w.finish()
    }

    fn message(&self, id: &str, receiver: &str, seq: u64) -> bytes::Bytes {
        let mut w = Writer::new();
        w.open("message", "").attr("type", "chat").attr("id", id);
        w.attr("to", format_args!("{receiver}@{}", self.options.domain));
        w.open("body", "").text(format_args!("{seq:0width$}", width = self.options.body_len));
        w.finish()
    }
}
