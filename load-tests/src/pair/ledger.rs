//! What every client was promised and what it was shown.

use std::collections::{BTreeMap, BTreeSet};

/// So long after it was shown a node knows that it was, in milliseconds: clients are asked for what they have.
const SURE: u64 = 10_000;

/// One message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// Counted in an `<a h/>` or `<resumed h/>`.
    pub acknowledged: bool,
    /// Shown at the receiver.
    pub shown: bool,
    /// Clients that showed it, as bits: a message to a bare JID reaches all devices of its user.
    at: u32,
    /// Any device of the receiver's user may get it: it was sent to the bare JID, or the session that it was for was
    /// not there all the time (RFC 6121 8.5.3.2).
    any: bool,
    /// It was sent to the bare JID.
    bare: bool,
    /// Sent or fetched again after a session was refused: the client may see it twice (D6).
    pub excused: bool,
    /// It was not acknowledged when no node ran: see [`Ledger::nobody_runs`].
    twice: bool,
    /// It may be lost: see [`Ledger::given_early`].
    early: bool,
    /// When it was shown last.
    shown_at: u64,
}

/// Messages from one client to another.
#[derive(Clone, Debug, Default)]
struct Flow {
    entries: Vec<Entry>,
    /// The highest number that each client showed, of what was for it or its account, and of what was for another
    /// device (`true`).
    highest: BTreeMap<(usize, bool), u64>,
}

/// All messages, by sender and receiver.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    flows: BTreeMap<(usize, usize), Flow>,
    /// The user of each client.
    users: Vec<usize>,
    /// Users who lost a session: what is for a device that binds anew may wait for all of them (XEP-0160).
    anew: BTreeSet<usize>,
    /// Milliseconds since the beginning, as whoever shows something knows.
    pub now: u64,
    /// The nodes may lead the same users, each alone: what is sent meanwhile may come late, or twice.
    apart: bool,
    /// Messages that a device was shown once more.
    again: BTreeMap<(usize, usize, u64, usize), u32>,
}

/// The text that a message carries as its id and its body.
pub fn name(from: usize, to: usize, number: u64) -> String {
    format!("m{from}.{to}.{number}")
}

/// The inverse of [`name`].
pub fn parse(text: &str) -> Option<(usize, usize, u64)> {
    let mut parts = text.strip_prefix('m')?.split('.');
    let (from, to, number) = (parts.next()?, parts.next()?, parts.next()?);
    Some((from.parse().ok()?, to.parse().ok()?, number.parse().ok()?))
}

impl Ledger {
    /// A client of a user, both by their numbers; clients come in order.
    pub fn client_of(&mut self, user: usize) {
        self.users.push(user);
    }

    /// Whether a client is not the only one of its user.
    pub fn has_sibling(&self, client: usize) -> bool {
        self.users.iter().filter(|user| **user == self.users[client]).count() > 1
    }

    /// A new message; its number, from 1. `bare`: to the account, `bound`: the receiver has a session.
    pub fn sent(&mut self, from: usize, to: usize, bare: bool, bound: bool) -> u64 {
        let any = bare || !bound || self.anew.contains(&self.users[to]);
        let flow = self.flows.entry((from, to)).or_default();
        flow.entries.push(Entry { any, bare, excused: self.apart, ..Entry::default() });
        flow.entries.len() as u64
    }

    fn entry(&mut self, from: usize, to: usize, number: u64) -> Option<&mut Entry> {
        self.flows.get_mut(&(from, to))?.entries.get_mut(number.checked_sub(1)? as usize)
    }

    /// The server took responsibility.
    pub fn acknowledged(&mut self, id: &str) {
        let Some((from, to, number)) = parse(id) else { return };
        if let Some(entry) = self.entry(from, to, number) {
            entry.acknowledged = true;
        }
    }

    /// Shown at `at`. What is wrong with it, if anything.
    pub fn shown(&mut self, at: usize, id: &str) -> Option<String> {
        let Some((from, to, number)) = parse(id) else { return Some(format!("{id} was sent by nobody")) };
        if self.users[to] != self.users[at] {
            return Some(format!("{id} went astray to u{at}"));
        }
        let now = self.now;
        let Some(entry) = self.entry(from, to, number) else {
            return Some(format!("{id} was sent by nobody"));
        };
        let (again, excused, twice) = (entry.at & (1 << at) != 0, entry.excused, entry.twice);
        // It waited for its device until that bound anew (D14), and what came to the account meanwhile did not.
        let around = to != at && !entry.bare;
        (entry.shown, entry.shown_at, entry.at) = (true, now, entry.at | 1 << at);
        if to != at && !entry.any && !excused {
            return Some(format!("{id} went to another device, u{at}"));
        }
        if again {
            *self.again.entry((from, to, number, at)).or_default() += u32::from(!twice);
            return (!excused && !twice).then(|| format!("{id} is shown twice"));
        }
        let flow = self.flows.entry((from, to)).or_default();
        let shown = |around| flow.highest.get(&(at, around)).copied().unwrap_or(0);
        let highest = if around { shown(true) } else { shown(false).max(shown(true)) };
        flow.highest.insert((at, around), highest.max(number));
        (number < highest && !excused).then(|| format!("{id} is shown after {}", name(from, to, highest)))
    }

    /// A session of this client was refused: what is under way from or to it may come twice (D6).
    pub fn refused(&mut self, client: usize) {
        let user = self.users[client];
        self.anew.insert(user);
        for ((from, to), flow) in &mut self.flows {
            if *from == client {
                flow.entries.iter_mut().filter(|e| !e.acknowledged).for_each(|e| e.excused = true);
            }
            if self.users[*to] == user {
                flow.entries.iter_mut().for_each(|e| e.excused = true);
            }
        }
    }

    /// Both nodes are dead. What the first one had not written yet when it died, the other may have processed meanwhile. If
    /// the first comes back alone it does not know of that, and takes again what clients send again for want of an
    /// acknowledgement: that may be shown twice.
    pub fn nobody_runs(&mut self) {
        let entries = self.flows.values_mut().flat_map(|flow| &mut flow.entries);
        entries.filter(|e| !e.acknowledged).for_each(|e| e.twice = true);
    }

    /// A session had been given this and had not enabled stream management when its node died, or was replaced. To the full JID of such
    /// a client nothing is promised of what was on its way: nobody knows what it was shown, and it is shown nothing twice.
    pub fn given_early(&mut self, id: &str) {
        let Some((from, to, number)) = parse(id) else { return };
        if let Some(entry) = self.entry(from, to, number).filter(|entry| !entry.bare) {
            entry.early = true;
        }
    }

    /// A client says again what whoever has its session now does not have: that is on no other way, and arrives.
    pub fn says_again(&mut self, client: usize) {
        let of_client = self.flows.iter_mut().filter(|((from, _), _)| *from == client);
        let entries = of_client.flat_map(|(_, flow)| &mut flow.entries);
        entries.filter(|e| !e.acknowledged).for_each(|e| e.early = false);
    }

    /// The nodes are cut off from each other. What is not both acknowledged and shown for a while may come late, or twice, and
    /// so may what is sent until they are together again.
    pub fn part(&mut self, now: u64) {
        self.apart = true;
        let entries = self.flows.values_mut().flat_map(|flow| &mut flow.entries);
        let open = |e: &&mut Entry| !e.acknowledged || !e.shown || e.shown_at + SURE > now;
        entries.filter(open).for_each(|e| e.excused = true);
    }

    /// All is well again: what is sent from now on comes once and in order.
    pub fn together(&mut self) {
        self.apart = false;
    }

    /// How many messages a device was shown more than once.
    pub fn again(&self) -> u32 {
        self.again.len() as u32
    }

    /// A message that a device was shown once more, more often than this.
    pub fn too_often(&self, most: u32) -> Option<String> {
        let (&(from, to, number, at), times) = self.again.iter().find(|(_, times)| **times > most)?;
        Some(format!("{} was shown {} times at u{at}", name(from, to, number), times + 1))
    }

    /// Messages that were acknowledged and not shown.
    pub fn lost(&self) -> Vec<String> {
        self.list(|e| e.acknowledged && !e.shown && !e.early)
    }

    /// The same of those that may be lost.
    pub fn lost_early(&self) -> u32 {
        self.list(|e| e.acknowledged && !e.shown && e.early).len() as u32
    }

    /// Messages that are not both acknowledged and shown.
    pub fn open(&self) -> Vec<String> {
        self.list(|e| !e.acknowledged || !e.shown && !e.early)
    }

    /// Messages in all.
    pub fn total(&self) -> usize {
        self.flows.values().map(|flow| flow.entries.len()).sum()
    }

    fn list(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for ((from, to), flow) in &self.flows {
            for (i, _) in flow.entries.iter().enumerate().filter(|(_, e)| wanted(e)) {
                found.push(name(*from, *to, i as u64 + 1));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody, and a user's laptop and phone, by their numbers.
    const FROM: usize = 0;
    const LAPTOP: usize = 1;
    const PHONE: usize = 2;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        [0, 1, 1].into_iter().for_each(|user| ledger.client_of(user));
        ledger
    }

    #[test]
    fn what_waited_for_another_device_may_come_after_what_did_not_wait() {
        let mut ledger = ledger();
        ledger.refused(LAPTOP);
        for bare in [false, false, true, true] {
            ledger.sent(FROM, LAPTOP, bare, false);
        }
        for number in [3, 1, 2, 4] {
            assert_eq!(ledger.shown(PHONE, &name(FROM, LAPTOP, number)), None);
        }
    }

    #[test]
    fn what_waited_together_comes_in_order_and_so_does_what_did_not_wait() {
        for bare in [false, true] {
            let mut ledger = ledger();
            ledger.refused(LAPTOP);
            (0..2).for_each(|_| _ = ledger.sent(FROM, LAPTOP, bare, false));
            assert_eq!(ledger.shown(PHONE, &name(FROM, LAPTOP, 2)), None);
            let wrong = ledger.shown(PHONE, &name(FROM, LAPTOP, 1));
            assert_eq!(wrong.as_deref(), Some("m0.1.1 is shown after m0.1.2"));
        }
    }

    /// What was over long before a cut, and what comes when all is well again, is not excused.
    #[test]
    fn only_what_a_cut_met_may_be_shown_twice() {
        let mut ledger = ledger();
        let shows = |ledger: &mut Ledger, number| ledger.shown(LAPTOP, &name(FROM, LAPTOP, number));
        ledger.sent(FROM, LAPTOP, false, true);
        ledger.acknowledged(&name(FROM, LAPTOP, 1));
        assert_eq!(shows(&mut ledger, 1), None);
        ledger.now = SURE + 1;
        ledger.sent(FROM, LAPTOP, false, true);
        ledger.part(ledger.now);
        ledger.sent(FROM, LAPTOP, false, true);
        ledger.together();
        ledger.sent(FROM, LAPTOP, false, true);
        for number in [2, 3, 4] {
            assert_eq!(shows(&mut ledger, number), None);
        }
        for number in [2, 3] {
            assert_eq!(shows(&mut ledger, number), None, "{number} met the cut");
        }
        for number in [1, 4] {
            assert!(shows(&mut ledger, number).is_some_and(|wrong| wrong.ends_with("is shown twice")));
        }
        assert_eq!(ledger.too_often(1), None);
        shows(&mut ledger, 3);
        assert_eq!(ledger.too_often(1).as_deref(), Some("m0.1.3 was shown 3 times at u1"));
    }

    /// To the full JID, once it is acknowledged, and if it is not said again.
    #[test]
    fn only_what_was_on_its_way_to_a_client_without_stream_management_may_be_lost() {
        let mut ledger = ledger();
        for (number, bare) in [(1, false), (2, true), (3, false), (4, false)] {
            ledger.sent(FROM, LAPTOP, bare, true);
            if number < 4 {
                ledger.given_early(&name(FROM, LAPTOP, number));
            }
        }
        assert_eq!(ledger.open().len(), 4, "nobody said that it is safe");
        for number in [1, 2, 4] {
            ledger.acknowledged(&name(FROM, LAPTOP, number));
        }
        ledger.says_again(LAPTOP);
        assert_eq!(ledger.lost(), [name(FROM, LAPTOP, 2), name(FROM, LAPTOP, 4)]);
        ledger.says_again(FROM);
        ledger.acknowledged(&name(FROM, LAPTOP, 3));
        let lost = [2, 3, 4].map(|number| name(FROM, LAPTOP, number));
        assert_eq!((ledger.open(), ledger.lost(), ledger.lost_early()), (lost.to_vec(), lost.to_vec(), 1));
    }

    #[test]
    fn at_its_own_device_everything_comes_in_order() {
        let mut ledger = ledger();
        ledger.sent(FROM, LAPTOP, false, true);
        ledger.sent(FROM, LAPTOP, true, true);
        assert_eq!(ledger.shown(LAPTOP, &name(FROM, LAPTOP, 2)), None);
        let wrong = ledger.shown(LAPTOP, &name(FROM, LAPTOP, 1));
        assert_eq!(wrong.as_deref(), Some("m0.1.1 is shown after m0.1.2"));
    }
}
