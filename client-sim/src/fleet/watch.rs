//! What the fleet's clients report: counters, times from a fault to the session going on, and the ledger.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use xmpp_core::{Kind, Stanza, ns};

use super::user_name;
use crate::dual::FlipCause;
use crate::ledger::{Counts, LISTED, Ledger, LedgerReport};
use crate::plain::condition_of;
use crate::presence::{Content, PresenceRecord, PresenceReport};
use crate::session::{Event, Observer};

/// Longest time a histogram holds, in microseconds: an hour.
const MAX_US: u64 = 3_600_000_000;

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// Flips by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flips {
    /// `<take/>` came before the client had noticed anything.
    pub take_unasked: u64,
    /// `<take/>` in answer to `<lost/>`.
    pub take_after_lost: u64,
    /// Hand-overs.
    pub moving: u64,
    /// The owner stayed fenced.
    pub stalled: u64,
}

impl Flips {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.take_unasked + self.take_after_lost + self.moving + self.stalled
    }
}

/// The fleet at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Users in all.
    pub users: usize,
    /// Users whose client does not know the dual connection.
    pub plain: usize,
    /// Users with a live main stream that carries their session.
    pub logged_in: usize,
    /// Users with a parked second stream.
    pub parked: usize,
    /// Live main streams by name of the node.
    pub by_node: BTreeMap<String, usize>,
    /// Totals of the ledger.
    pub messages: Counts,
    /// Sessions that went on on the parked stream.
    pub flips: Flips,
    /// Sessions that went on on a new stream.
    pub resumes: u64,
    /// Those of clients that know the dual connection: both of their streams were gone.
    pub dual_resumes: u64,
    /// Sessions that were lost and bound anew.
    pub binds_anew: u64,
    /// Streams that broke or were closed, parked ones too.
    pub streams_lost: u64,
    /// Attempts to connect or to park that failed; usual while a node is down.
    pub attempts_failed: u64,
    /// Messages that came back as an error.
    pub bounced: u64,
    /// What no server should do.
    pub errors: u64,
}

/// The end of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetReport {
    /// The verdict on the messages.
    pub ledger: LedgerReport,
    /// The verdict on presence; without subscriptions (`FleetOptions::subscribe`) nothing is shown.
    pub presence: PresenceReport,
    /// From a fault to `<resumed/>`, of clients that had a parked stream then.
    pub flip_ms: Summary,
    /// The same of plain clients.
    pub plain_resume_ms: Summary,
    /// The same of clients that know the dual connection but were not parked at that moment.
    pub unparked_resume_ms: Summary,
    /// Clients hit by a fault whose session was gone: they bound anew, and are in none of the times.
    pub fault_unresumed: u64,
    /// Clients hit by a fault that have no session yet.
    pub fault_pending: usize,
    /// All counters.
    pub counters: Snapshot,
    /// Users whose session was lost so that they bound anew, and whether they have a plain client.
    pub refused: BTreeMap<String, bool>,
    /// The first errors and bounced messages, one line each.
    pub error_list: Vec<String>,
}

/// What all clients of the fleet share.
pub(super) struct Shared {
    pub(super) ledger: Ledger,
    pub(super) presence: PresenceRecord,
    users: Vec<Mutex<User>>,
    counters: Counters,
    times: Mutex<Times>,
    errors: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Counters {
    take_unasked: AtomicU64,
    take_after_lost: AtomicU64,
    moving: AtomicU64,
    stalled: AtomicU64,
    resumes: AtomicU64,
    dual_resumes: AtomicU64,
    binds_anew: AtomicU64,
    streams_lost: AtomicU64,
    attempts_failed: AtomicU64,
    bounced: AtomicU64,
    errors: AtomicU64,
    fault_unresumed: AtomicU64,
}

/// One client, as last heard of.
#[derive(Default)]
struct User {
    plain: bool,
    node: Option<String>,
    jid: Option<String>,
    /// The main stream is there.
    alive: bool,
    parked: bool,
    refused: bool,
    fault: Option<Fault>,
    last_move: Option<Move>,
}

/// A fault that this client has not got over yet.
struct Fault {
    node: String,
    at: Instant,
    parked: bool,
}

/// The last time the session went on elsewhere.
struct Move {
    from: String,
    at: Instant,
    parked: bool,
}

struct Times {
    flip: Histogram<u64>,
    plain: Histogram<u64>,
    unparked: Histogram<u64>,
}

impl Times {
    fn new() -> Self {
        // The bounds are constants that the crate accepts.
        let empty = || Histogram::new_with_bounds(1, MAX_US, 3).expect("constant bounds");
        Times { flip: empty(), plain: empty(), unparked: empty() }
    }
}

impl Shared {
    pub(super) fn new(plain: &[bool]) -> Self {
        Shared {
            ledger: Ledger::new(),
            presence: PresenceRecord::new(),
            users: plain.iter().map(|plain| Mutex::new(User { plain: *plain, ..User::default() })).collect(),
            counters: Counters::default(),
            times: Mutex::new(Times::new()),
            errors: Mutex::default(),
        }
    }

    pub(super) fn observer(self: &Arc<Self>, user: usize) -> Watching {
        Watching { shared: Arc::clone(self), user, name: user_name(user) }
    }

    pub(super) fn fault_at(&self, node: &str, at: Instant) {
        for user in &self.users {
            let mut user = lock(user);
            let quicker = user.last_move.as_ref().filter(|moved| moved.from == node && moved.at >= at);
            if let Some(moved) = quicker {
                self.time(&user, moved.parked, moved.at - at);
            } else if user.node.as_deref() == Some(node) {
                user.fault = Some(Fault { node: node.to_owned(), at, parked: user.parked });
            }
        }
    }

    fn time(&self, user: &User, parked: bool, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(MAX_US);
        let mut times = lock(&self.times);
        let times = match (user.plain, parked) {
            (true, _) => &mut times.plain,
            (false, true) => &mut times.flip,
            (false, false) => &mut times.unparked,
        };
        times.saturating_record(took.clamp(1, MAX_US));
    }

    /// The session of `user` goes on at `to`.
    fn moved(&self, user: usize, from: String, to: String) {
        let now = Instant::now();
        let mut user = lock(&self.users[user]);
        if let Some(fault) = user.fault.take_if(|fault| fault.node == from) {
            self.time(&user, fault.parked, now.saturating_duration_since(fault.at));
        }
        let parked = user.parked;
        user.last_move = Some(Move { from, at: now, parked });
        user.node = Some(to);
        user.alive = true;
    }

    fn bound(&self, user: usize, node: String, jid: String, again: bool) {
        self.presence.begins(&user_name(user));
        self.presence.logs_in(&jid, Content::empty());
        let mut user = lock(&self.users[user]);
        if user.fault.take().is_some() {
            count(&self.counters.fault_unresumed);
        }
        if again {
            count(&self.counters.binds_anew);
            user.refused = true;
        }
        user.node = Some(node);
        user.jid = Some(jid);
        user.alive = true;
    }

    /// The session of `user` is no more; it will bind anew.
    fn session_gone(&self, user: usize) {
        if let Some(jid) = &lock(&self.users[user]).jid {
            self.presence.logs_out(jid);
        }
    }

    /// Everyone is about to log out.
    pub(super) fn leaving(&self) {
        for user in &self.users {
            if let Some(jid) = lock(user).jid.take() {
                self.presence.logs_out(&jid);
            }
        }
    }

    fn error(&self, line: String) {
        let mut list = lock(&self.errors);
        if list.len() < LISTED {
            list.push(line);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut now = Snapshot {
            users: self.users.len(),
            messages: self.ledger.counts(),
            flips: Flips {
                take_unasked: read(&counters.take_unasked),
                take_after_lost: read(&counters.take_after_lost),
                moving: read(&counters.moving),
                stalled: read(&counters.stalled),
            },
            resumes: read(&counters.resumes),
            dual_resumes: read(&counters.dual_resumes),
            binds_anew: read(&counters.binds_anew),
            streams_lost: read(&counters.streams_lost),
            attempts_failed: read(&counters.attempts_failed),
            bounced: read(&counters.bounced),
            errors: read(&counters.errors),
            ..Snapshot::default()
        };
        for user in &self.users {
            let user = lock(user);
            now.plain += usize::from(user.plain);
            now.parked += usize::from(user.parked);
            if let Some(node) = user.node.as_ref().filter(|_| user.alive) {
                now.logged_in += 1;
                *now.by_node.entry(node.clone()).or_default() += 1;
            }
        }
        now
    }

    /// The node with which a user has a session, on a live stream.
    pub(super) fn node_of(&self, user: usize) -> Option<String> {
        let user = lock(self.users.get(user)?);
        if user.alive { user.node.clone() } else { None }
    }

    /// Whether a user's client does not know the dual connection.
    pub(super) fn is_plain(&self, user: usize) -> bool {
        self.users.get(user).is_some_and(|user| lock(user).plain)
    }

    /// Clients hit by a fault that have no session yet.
    pub(super) fn fault_pending(&self) -> usize {
        self.users.iter().filter(|user| lock(user).fault.is_some()).count()
    }

    pub(super) fn report(&self) -> FleetReport {
        // A user's lock is taken before that of the times, never the other way round.
        let fault_pending = self.fault_pending();
        let counters = self.snapshot();
        let users = self.users.iter().map(lock).enumerate();
        let refused = users
            .filter(|(_, user)| user.refused)
            .map(|(index, user)| (user_name(index), user.plain))
            .collect();
        let times = lock(&self.times);
        FleetReport {
            ledger: self.ledger.report(),
            presence: self.presence.report(),
            flip_ms: summary(&times.flip),
            plain_resume_ms: summary(&times.plain),
            unparked_resume_ms: summary(&times.unparked),
            fault_unresumed: self.counters.fault_unresumed.load(Ordering::Relaxed),
            fault_pending,
            counters,
            refused,
            error_list: lock(&self.errors).clone(),
        }
    }
}

/// One client's reports.
pub(super) struct Watching {
    shared: Arc<Shared>,
    user: usize,
    name: String,
}

impl Observer for Watching {
    fn event(&self, event: Event) {
        let counters = &self.shared.counters;
        let set = |change: &dyn Fn(&mut User)| change(&mut lock(&self.shared.users[self.user]));
        match event {
            Event::Bound { node, jid, again } => self.shared.bound(self.user, node, jid, again),
            Event::Resumed { from, to } => {
                count(&counters.resumes);
                if !lock(&self.shared.users[self.user]).plain {
                    count(&counters.dual_resumes);
                }
                self.shared.moved(self.user, from, to);
            }
            Event::Flipped { from, to, cause } => {
                count(match cause {
                    FlipCause::TakeUnasked => &counters.take_unasked,
                    FlipCause::TakeAfterLost => &counters.take_after_lost,
                    FlipCause::Moving => &counters.moving,
                    FlipCause::Stalled => &counters.stalled,
                });
                self.shared.moved(self.user, from, to);
            }
            Event::Parked { .. } => set(&|user| user.parked = true),
            Event::Unparked => {
                count(&counters.streams_lost);
                set(&|user| user.parked = false);
            }
            Event::MainLost { .. } => {
                count(&counters.streams_lost);
                set(&|user| user.alive = false);
            }
            // What is sent again is acknowledged later; what is not stays unacknowledged in the ledger.
            // Its contacts may be told.
            Event::SessionGone { .. } => self.shared.session_gone(self.user),
            Event::Acknowledged { id } if id.is_empty() => {}
            Event::Acknowledged { id } => self.shared.ledger.acknowledged(&self.name, &id),
            Event::Stanza(stanza) => self.stanza(&stanza),
            Event::AttemptFailed { .. } | Event::ParkFailed { .. } => count(&counters.attempts_failed),
            Event::Error(text) => {
                count(&counters.errors);
                self.shared.error(format!("{}: {text}", self.name));
            }
        }
    }
}

impl Watching {
    fn stanza(&self, stanza: &Stanza) {
        if stanza.head.kind == Kind::Presence {
            self.shared.presence.shown(&self.name, stanza);
        }
        if stanza.head.kind != Kind::Message {
            return;
        }
        let id = stanza.head.id.as_deref().unwrap_or_default();
        if stanza.head.type_.as_deref() == Some("error") {
            count(&self.shared.counters.bounced);
            let condition = condition_of(stanza);
            return self.shared.error(format!("{}: message {id} came back: {condition}", self.name));
        }
        let sender = stanza.head.from.as_ref().and_then(|from| from.local());
        if let (true, Some(sender)) = (stanza.head.has_child(ns::CLIENT, "body"), sender) {
            // Everyone has one resource here, so the name of the receiver says which.
            self.shared.ledger.shown(sender, id, &self.name, "");
        }
    }
}

fn summary(times: &Histogram<u64>) -> Summary {
    #[allow(clippy::cast_precision_loss, reason = "an hour in microseconds fits a float")]
    let ms = |us: u64| us as f64 / 1000.0;
    if times.is_empty() {
        return Summary::default();
    }
    Summary {
        count: times.len(),
        p50: ms(times.value_at_quantile(0.5)),
        p99: ms(times.value_at_quantile(0.99)),
        max: ms(times.max()),
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flipped(from: &str, to: &str) -> Event {
        Event::Flipped { from: from.into(), to: to.into(), cause: FlipCause::TakeUnasked }
    }

    fn resumed(from: &str, to: &str) -> Event {
        Event::Resumed { from: from.into(), to: to.into() }
    }

    /// Four users at a: dual and parked, dual and not parked, plain, and a dual one at b.
    fn fleet() -> (Arc<Shared>, Vec<Watching>) {
        let shared = Arc::new(Shared::new(&[false, false, true, false]));
        let users: Vec<_> = (0..4).map(|user| shared.observer(user)).collect();
        for (user, node) in users.iter().zip(["a", "a", "a", "b"]) {
            user.event(Event::Bound { node: node.into(), jid: String::new(), again: false });
        }
        users[0].event(Event::Parked { node: "b".into() });
        (shared, users)
    }

    #[test]
    fn times_run_from_the_fault_and_are_kept_apart() {
        let (shared, users) = fleet();
        let at = Instant::now().checked_sub(Duration::from_millis(20)).unwrap();
        shared.fault_at("a", at);
        assert_eq!(shared.report().fault_pending, 3);
        users[0].event(flipped("a", "b"));
        users[1].event(resumed("a", "b"));
        users[2].event(resumed("a", "b"));
        users[3].event(resumed("b", "b"));
        let report = shared.report();
        for times in [report.flip_ms, report.plain_resume_ms, report.unparked_resume_ms] {
            assert_eq!(times.count, 1);
            assert!(times.max >= 20.0 && times.max < 10_000.0);
        }
        assert_eq!((report.fault_pending, report.fault_unresumed), (0, 0));
        assert_eq!((report.counters.flips.total(), report.counters.resumes), (1, 3));
        assert_eq!(report.counters.dual_resumes, 2, "not that of the plain client, and no flip");
        assert_eq!(report.counters.by_node["b"], 4);
    }

    #[test]
    fn streams_that_are_lost_are_counted() {
        let (shared, users) = fleet();
        assert_eq!(shared.snapshot().streams_lost, 0);
        assert_eq!(shared.node_of(2).as_deref(), Some("a"));
        users[0].event(Event::Unparked);
        users[2].event(Event::MainLost { node: "a".into(), reason: "reset".into() });
        let now = shared.snapshot();
        assert_eq!((now.streams_lost, now.parked, now.logged_in), (2, 0, 3));
        assert_eq!((shared.node_of(0).as_deref(), shared.node_of(2)), (Some("a"), None));
    }

    #[test]
    fn a_client_quicker_than_the_call_is_timed_once() {
        let (shared, users) = fleet();
        let at = Instant::now();
        users[0].event(flipped("a", "b"));
        users[0].event(Event::Unparked);
        shared.fault_at("a", at);
        users[0].event(resumed("b", "b"));
        assert_eq!(shared.report().flip_ms.count, 1);
        // An old move is no answer to a new fault.
        shared.fault_at("a", Instant::now());
        assert_eq!(shared.report().flip_ms.count, 1);
    }

    #[test]
    fn who_binds_anew_is_counted_and_not_timed() {
        let (shared, users) = fleet();
        shared.fault_at("a", Instant::now());
        users[2].event(Event::Bound { node: "b".into(), jid: String::new(), again: true });
        let report = shared.report();
        assert_eq!(report.refused, BTreeMap::from([("u2".to_owned(), true)]));
        assert_eq!(
            (report.fault_unresumed, report.counters.binds_anew, report.plain_resume_ms.count),
            (1, 1, 0)
        );
    }

    #[test]
    fn messages_go_to_the_ledger_and_errors_to_the_list() {
        let (shared, users) = fleet();
        shared.ledger.sent("u0", "m1", "u1", 1);
        let show = |text: &str| users[1].event(Event::Stanza(Stanza::parse(text.as_bytes()).unwrap()));
        show("<message from='u0@example.org/sim' id='m1'><body>x</body></message>");
        show("<message from='u0@example.org/sim' id='m0'><active xmlns='urn:x'/></message>");
        users[0].event(Event::Acknowledged { id: "m1".into() });
        users[0].event(Event::Acknowledged { id: String::new() });
        assert!(shared.ledger.settled());
        show(
            "<message type='error' from='u0@example.org' id='m9'><body>x</body><error type='wait'>\
             <remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
        );
        users[0].event(Event::Error("odd".into()));
        let report = shared.report();
        assert_eq!((report.counters.bounced, report.counters.errors), (1, 1));
        assert!(report.error_list[0].contains("remote-server-timeout"), "{:?}", report.error_list);
        assert!(report.ledger.kept());
    }
}
