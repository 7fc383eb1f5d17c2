//! What every client was promised and what it got: the record that decides whether the server kept its word.
//!
//! A message is known by its sender and its id. Writing takes one short lock of a shard; the totals are atomics, so
//! that a live display or [`Ledger::settled`] costs nothing.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks the records are spread over.
const SHARDS: usize = 64;
/// How many offending messages of each kind a report names.
pub const LISTED: usize = 20;

/// The record of all messages of a run.
pub struct Ledger {
    begun: Instant,
    hasher: RandomState,
    messages: Vec<Mutex<HashMap<MessageKey, Message>>>,
    flows: Vec<Mutex<HashMap<FlowKey, Flow>>>,
    totals: Totals,
    strangers: Mutex<Vec<String>>,
}

/// Running totals, as a live display shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed to a client to send.
    pub sent: u64,
    /// Messages the server took responsibility for.
    pub acknowledged: u64,
    /// Messages shown at their receiver at least once.
    pub delivered: u64,
    /// Extra showings of a message at one resource.
    pub duplicated: u64,
    /// Messages shown after a later one of the same sender.
    pub reordered: u64,
}

/// The verdict on a run. The promise is kept if `lost`, `duplicated`, `reordered` and `strangers` are all zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Messages handed to a client to send.
    pub sent: u64,
    /// Messages the server took responsibility for.
    pub acknowledged: u64,
    /// Messages shown at their receiver at least once.
    pub delivered: u64,
    /// Messages the server has not taken responsibility for: these it may drop, but not double.
    pub unacknowledged: u64,
    /// Messages acknowledged to the sender and never shown at the receiver.
    pub lost: u64,
    /// Pairs of message and resource where the message was shown more than once.
    pub duplicated: u64,
    /// How often the message that was shown most often was shown at one resource.
    pub most_shown: u32,
    /// Messages first shown after a later one of the same sender at the same resource.
    pub reordered: u64,
    /// Messages shown that nobody sent, or shown to somebody else than their receiver.
    pub strangers: u64,
    /// Sender and receiver of messages that were shown twice or behind a later one.
    pub disturbed: BTreeSet<(String, String)>,
    /// The first lost messages, one line each.
    pub lost_list: Vec<String>,
    /// The first doubled messages, one line each.
    pub duplicated_list: Vec<String>,
    /// The first messages out of order, one line each.
    pub reordered_list: Vec<String>,
    /// The first messages that nobody sent or that went astray, one line each.
    pub strangers_list: Vec<String>,
    /// The first messages without an acknowledgement, one line each.
    pub unacknowledged_list: Vec<String>,
}

impl LedgerReport {
    /// Whether nothing acknowledged was lost and nothing was doubled, out of order or astray.
    pub fn kept(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.strangers == 0
    }
}

#[derive(PartialEq, Eq, Hash)]
struct MessageKey {
    sender: String,
    id: String,
}

struct Message {
    receiver: String,
    seq: u64,
    sent: Duration,
    acknowledged: Option<Duration>,
    shown: Vec<Shown>,
}

impl Message {
    /// How long it has waited since `since`; `None` if it was shown or acknowledged before.
    fn waited(&self, now: Duration, since: Duration) -> Option<Duration> {
        let shown = self.shown.iter().map(|seen| seen.first);
        let answered = shown.chain(self.acknowledged).min().unwrap_or(now);
        (answered >= since).then(|| answered.saturating_sub(self.sent.max(since)))
    }
}

/// What one resource of the receiver saw of a message.
struct Shown {
    resource: String,
    times: u32,
    first: Duration,
    /// The later sequence number that had been shown before this one.
    overtaken_by: Option<u64>,
}

#[derive(PartialEq, Eq, Hash)]
struct FlowKey {
    sender: String,
    receiver: String,
    resource: String,
}

/// The highest sequence number shown so far in one flow.
struct Flow {
    highest: u64,
}

#[derive(Default)]
struct Totals {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    delivered: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    strangers: AtomicU64,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger::new()
    }
}

impl Ledger {
    /// An empty ledger; times are counted from now.
    pub fn new() -> Self {
        Ledger {
            begun: Instant::now(),
            hasher: RandomState::new(),
            messages: (0..SHARDS).map(|_| Mutex::default()).collect(),
            flows: (0..SHARDS).map(|_| Mutex::default()).collect(),
            totals: Totals::default(),
            strangers: Mutex::default(),
        }
    }

    /// A message is about to be handed to its sender's client. `seq` rises by pair of sender and receiver. Call it
    /// before the client can send, else the receiver may be quicker.
    pub fn sent(&self, sender: &str, id: &str, receiver: &str, seq: u64) {
        let message = Message {
            receiver: receiver.into(),
            seq,
            sent: self.begun.elapsed(),
            acknowledged: None,
            shown: Vec::new(),
        };
        let key = MessageKey { sender: sender.into(), id: id.into() };
        match self.messages_of(&key).entry(key) {
            Slot::Occupied(used) => self.stranger(format!("{} used id {} twice", used.key().sender, id)),
            Slot::Vacant(free) => {
                free.insert(message);
                count(&self.totals.sent);
            }
        }
    }

    /// The server counted this message in an `<a h/>` or `<resumed h/>`. Counting it twice changes nothing.
    pub fn acknowledged(&self, sender: &str, id: &str) {
        let key = MessageKey { sender: sender.into(), id: id.into() };
        let now = self.begun.elapsed();
        if let Some(message) = self.messages_of(&key).get_mut(&key)
            && message.acknowledged.is_none()
        {
            message.acknowledged = Some(now);
            count(&self.totals.acknowledged);
        }
    }

    /// This message was shown to the user at one resource of a receiver.
    pub fn shown(&self, sender: &str, id: &str, receiver: &str, resource: &str) {
        let key = MessageKey { sender: sender.into(), id: id.into() };
        let now = self.begun.elapsed();
        let mut messages = self.messages_of(&key);
        let Some(message) = messages.get_mut(&key).filter(|message| message.receiver == receiver) else {
            drop(messages);
            return self.stranger(format!("{sender} {id} shown to {receiver}/{resource}"));
        };
        if let Some(seen) = message.shown.iter_mut().find(|seen| seen.resource == resource) {
            seen.times += 1;
            return count(&self.totals.duplicated);
        }
        let overtaken_by = self.advance(sender, receiver, resource, message.seq);
        if overtaken_by.is_some() {
            count(&self.totals.reordered);
        }
        if message.shown.is_empty() {
            count(&self.totals.delivered);
        }
        message.shown.push(Shown { resource: resource.into(), times: 1, first: now, overtaken_by });
    }

    /// Notes `seq` as shown; the later number that came before it, if one did.
    fn advance(&self, sender: &str, receiver: &str, resource: &str, seq: u64) -> Option<u64> {
        let key = FlowKey { sender: sender.into(), receiver: receiver.into(), resource: resource.into() };
        let mut flows = lock(&self.flows[self.shard(&key)]);
        let flow = flows.entry(key).or_insert(Flow { highest: seq });
        let overtaken_by = (seq < flow.highest).then_some(flow.highest);
        flow.highest = flow.highest.max(seq);
        overtaken_by
    }

    /// Whether every message sent is acknowledged and delivered.
    pub fn settled(&self) -> bool {
        let counts = self.counts();
        counts.sent == counts.acknowledged && counts.sent == counts.delivered
    }

    /// The totals so far.
    pub fn counts(&self) -> Counts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.totals.sent),
            acknowledged: read(&self.totals.acknowledged),
            delivered: read(&self.totals.delivered),
            duplicated: read(&self.totals.duplicated),
            reordered: read(&self.totals.reordered),
        }
    }

    /// Messages acknowledged so far of the senders that fit. Goes through all records.
    pub fn acknowledged_of(&self, sender: impl Fn(&str) -> bool) -> u64 {
        let of = |shard: &Mutex<HashMap<MessageKey, Message>>| {
            let fits = |(key, message): &(&MessageKey, &Message)| {
                message.acknowledged.is_some() && sender(&key.sender)
            };
            lock(shard).iter().filter(fits).count() as u64
        };
        self.messages.iter().map(of).sum()
    }

    /// The longest time since `since` in which no message of the senders that fit was acknowledged. Goes through all records.
    pub fn longest_silence(&self, since: Instant, sender: impl Fn(&str) -> bool) -> Duration {
        let since = since.saturating_duration_since(self.begun);
        let mut times = vec![since, self.begun.elapsed()];
        for shard in &self.messages {
            let of = lock(shard);
            let fitting = of.iter().filter(|(key, _)| sender(&key.sender));
            times.extend(fitting.filter_map(|(_, message)| message.acknowledged).filter(|at| *at > since));
        }
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How long a message of each sender that fits has waited since `since`, the longest one, from when it was said until it
    /// was shown or acknowledged, or until now. Who had nothing that waited is not there. Goes through all records.
    pub fn waits(&self, since: Instant, sender: impl Fn(&str) -> bool) -> BTreeMap<String, Duration> {
        self.waits_until(self.begun.elapsed(), since.saturating_duration_since(self.begun), sender)
    }

    fn waits_until(
        &self,
        now: Duration,
        since: Duration,
        sender: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Duration> {
        let mut waits = BTreeMap::new();
        for shard in &self.messages {
            for (key, message) in lock(shard).iter().filter(|(key, _)| sender(&key.sender)) {
                if let Some(waited) = message.waited(now, since) {
                    let longest: &mut Duration = waits.entry(key.sender.clone()).or_default();
                    *longest = waited.max(*longest);
                }
            }
        }
        waits
    }

    /// The verdict so far. Goes through all records: for the end of a run.
    pub fn report(&self) -> LedgerReport {
        let mut report = LedgerReport::default();
        for shard in &self.messages {
            for (key, message) in lock(shard).iter() {
                judge(&mut report, key, message);
            }
        }
        report.strangers = self.totals.strangers.load(Ordering::Relaxed);
        report.strangers_list.clone_from(&lock(&self.strangers));
        for list in [
            &mut report.lost_list,
            &mut report.duplicated_list,
            &mut report.reordered_list,
            &mut report.unacknowledged_list,
        ] {
            list.sort_unstable();
            list.truncate(LISTED);
        }
        report
    }

    fn stranger(&self, line: String) {
        count(&self.totals.strangers);
        let mut list = lock(&self.strangers);
        if list.len() < LISTED {
            list.push(line);
        }
    }

    fn messages_of(&self, key: &MessageKey) -> MutexGuard<'_, HashMap<MessageKey, Message>> {
        lock(&self.messages[self.shard(key)])
    }

    fn shard(&self, key: &impl std::hash::Hash) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default()
    }
}

/// Adds one message to the verdict. Lines begin with the time sent, so that sorting them puts the first first.
fn judge(report: &mut LedgerReport, key: &MessageKey, message: &Message) {
    let line = |what: std::fmt::Arguments<'_>| {
        let (sender, receiver, seq) = (&key.sender, &message.receiver, message.seq);
        format!("{:9.3} s {sender} > {receiver} #{seq} id {}: {what}", message.sent.as_secs_f64(), key.id)
    };
    report.sent += 1;
    match message.acknowledged {
        Some(_) => report.acknowledged += 1,
        None => {
            report.unacknowledged += 1;
            report.unacknowledged_list.push(line(format_args!("shown {} times", message.shown.len())));
        }
    }
    if !message.shown.is_empty() {
        report.delivered += 1;
    } else if let Some(at) = message.acknowledged {
        report.lost += 1;
        report.lost_list.push(line(format_args!("acknowledged at {:.3} s, never shown", at.as_secs_f64())));
    }
    for seen in &message.shown {
        report.most_shown = report.most_shown.max(seen.times);
        if seen.times > 1 || seen.overtaken_by.is_some() {
            report.disturbed.insert((key.sender.clone(), message.receiver.clone()));
        }
        if seen.times > 1 {
            report.duplicated += 1;
            let what = format_args!("shown {} times at {}", seen.times, seen.resource);
            report.duplicated_list.push(line(what));
        }
        if let Some(later) = seen.overtaken_by {
            report.reordered += 1;
            let at = seen.first.as_secs_f64();
            report.reordered_list.push(line(format_args!("shown at {at:.3} s, after #{later}")));
        }
    }
}

fn count(total: &AtomicU64) {
    total.fetch_add(1, Ordering::Relaxed);
}

/// A panic elsewhere does not make the record wrong: each step under a lock is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three messages from u0 to u1, none acknowledged or shown.
    fn ledger() -> Ledger {
        let ledger = Ledger::new();
        for seq in 1..=3 {
            ledger.sent("u0", &format!("m{seq}"), "u1", seq);
        }
        ledger
    }

    fn run(ledger: &Ledger, shown: &[&str]) {
        for id in shown {
            ledger.acknowledged("u0", id);
            ledger.shown("u0", id, "u1", "r");
        }
    }

    #[test]
    fn a_perfect_run() {
        let ledger = ledger();
        assert!(!ledger.settled());
        run(&ledger, &["m1", "m2", "m3"]);
        let report = ledger.report();
        assert!(ledger.settled() && report.kept() && report.disturbed.is_empty());
        assert_eq!((report.sent, report.acknowledged, report.delivered), (3, 3, 3));
        assert_eq!(report.unacknowledged, 0);
        assert_eq!(ledger.counts().delivered, 3);
    }

    #[test]
    fn acknowledged_and_not_shown_is_lost_but_unacknowledged_is_not() {
        let ledger = ledger();
        run(&ledger, &["m1"]);
        ledger.acknowledged("u0", "m2");
        ledger.acknowledged("u0", "m2");
        let report = ledger.report();
        assert_eq!(ledger.acknowledged_of(|sender| sender == "u0"), 2);
        assert_eq!(ledger.acknowledged_of(|sender| sender == "u1"), 0);
        assert_eq!((report.lost, report.unacknowledged, report.acknowledged), (1, 1, 2));
        assert!(report.lost_list[0].contains("u0 > u1 #2 id m2"), "{}", report.lost_list[0]);
        assert!(report.unacknowledged_list[0].contains("id m3"));
        assert!(!report.kept() && !ledger.settled());
    }

    #[test]
    fn shown_twice_at_one_resource_is_doubled_but_at_two_it_is_not() {
        let ledger = ledger();
        run(&ledger, &["m1", "m2", "m3"]);
        ledger.shown("u0", "m3", "u1", "other");
        assert_eq!((ledger.report().duplicated, ledger.report().most_shown), (0, 1));
        ledger.shown("u0", "m2", "u1", "r");
        ledger.shown("u0", "m2", "u1", "r");
        let report = ledger.report();
        assert_eq!((report.duplicated, report.delivered, report.reordered), (1, 3, 0));
        assert_eq!(report.most_shown, 3);
        assert_eq!(report.disturbed, BTreeSet::from([("u0".to_owned(), "u1".to_owned())]));
        assert_eq!(ledger.counts().duplicated, 2);
        assert!(report.duplicated_list[0].contains("id m2: shown 3 times at r"));
    }

    #[test]
    fn a_later_one_shown_before_an_earlier_one_is_reordered() {
        let ledger = ledger();
        run(&ledger, &["m1", "m3", "m2"]);
        let report = ledger.report();
        assert_eq!((report.reordered, report.lost, report.duplicated), (1, 0, 0));
        assert_eq!(report.disturbed, BTreeSet::from([("u0".to_owned(), "u1".to_owned())]));
        assert!(report.reordered_list[0].contains("#2") && report.reordered_list[0].contains("after #3"));
    }

    #[test]
    fn order_is_per_sender_and_receiver() {
        let ledger = ledger();
        ledger.sent("u2", "m1", "u1", 1);
        run(&ledger, &["m1", "m2"]);
        ledger.shown("u2", "m1", "u1", "r");
        run(&ledger, &["m3"]);
        assert_eq!(ledger.report().reordered, 0);
    }

    #[test]
    fn an_unacknowledged_message_may_be_shown() {
        let ledger = ledger();
        ledger.shown("u0", "m1", "u1", "r");
        let report = ledger.report();
        assert_eq!((report.delivered, report.unacknowledged, report.lost), (1, 3, 0));
    }

    #[test]
    fn what_nobody_sent_or_goes_astray_is_told() {
        let ledger = ledger();
        ledger.shown("u0", "m9", "u1", "r");
        ledger.shown("u0", "m1", "u7", "r");
        ledger.sent("u0", "m1", "u1", 4);
        let report = ledger.report();
        assert_eq!((report.strangers, report.sent, report.delivered), (3, 3, 0));
        assert!(!report.kept());
    }

    #[test]
    fn each_sender_waits_until_its_message_is_shown_or_acknowledged() {
        let seconds = Duration::from_secs;
        let ledger = ledger();
        ledger.sent("u2", "m1", "u1", 1);
        let times = |sender: &str, id: &str, sent, acknowledged: Option<u64>, first: Option<u64>| {
            let key = MessageKey { sender: sender.to_owned(), id: id.to_owned() };
            let mut messages = ledger.messages_of(&key);
            let message = messages.get_mut(&key).expect("it was sent");
            (message.sent, message.acknowledged) = (seconds(sent), acknowledged.map(seconds));
            let seen = |at| Shown { resource: "r".into(), times: 1, first: seconds(at), overtaken_by: None };
            message.shown = first.map(seen).into_iter().collect();
        };
        let waits = |now, since| ledger.waits_until(seconds(now), seconds(since), |_| true);
        let of = |list: &[(&str, u64)]| -> BTreeMap<String, Duration> {
            list.iter().map(|(sender, wait)| ((*sender).to_owned(), seconds(*wait))).collect()
        };
        // While one of them is answered all the time, the other waits.
        times("u0", "m1", 1, Some(2), None);
        times("u0", "m2", 3, Some(9), Some(5));
        times("u0", "m3", 6, Some(7), None);
        times("u2", "m1", 4, None, None);
        assert_eq!(waits(30, 0), of(&[("u0", 2), ("u2", 26)]));
        // What was answered before does not count, and no wait before.
        assert_eq!(waits(30, 10), of(&[("u2", 20)]));
        assert_eq!(ledger.waits_until(seconds(30), Duration::ZERO, |who| who == "u0"), of(&[("u0", 2)]));
        times("u2", "m1", 4, None, Some(20));
        assert_eq!(waits(30, 10), of(&[("u2", 10)]), "it was shown, although nobody told its sender");
    }

    #[test]
    fn lists_are_bounded_and_begin_with_the_first() {
        let ledger = Ledger::new();
        for seq in 0..100 {
            ledger.sent("u0", &format!("m{seq}"), "u1", seq);
            ledger.acknowledged("u0", &format!("m{seq}"));
        }
        let report = ledger.report();
        assert_eq!((report.lost, report.lost_list.len()), (100, LISTED));
    }
}
