//! The replicated state: accounts, JSM sessions, offline messages, forwards that are not done. [`State::apply`] is its
//! only mutation; two nodes that applied the same records of both logs hold equal states.

mod branch;
mod delay;
mod early;
mod group;
mod offline;
mod order;
mod pairs;
mod roster;
mod session;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::{BareJid, Jid};

use crate::ids::{Away, Epoch, Group, NodeIx, Position, RecordId, Reg, SmId, StanzaId};
use crate::record::{Effect, Flag, Forward, Record, Verifiers};

pub use branch::Branch;
use branch::Way;
pub use delay::{stamp, with_delay};
pub use early::{Early, EarlyOnes};
pub use group::GroupInfo;
pub use offline::{MOST_DUE, Offline, OfflineQueue};
use order::in_sending_order;
use pairs::Touched;
pub use pairs::{Key, PairError};
pub use roster::{Item, Roster, RosterVersion};
pub use session::{Entry, JsmSession, ResumeError};
use sessions::Sessions;

/// How long it is remembered what void branches brought, in milliseconds (a week).
const KEPT_MS: u64 = 7 * 24 * 3_600_000;

/// An account.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct User {
    /// Home node; a failover does not change it. Of an account that is not assigned, the node that keeps it.
    pub home: NodeIx,
    /// The register that the user belongs to: its primary owns the user's sessions.
    pub register: Group,
    /// Epoch given by the last hand-over; the effective one is [`State::epoch`].
    pub moved: Epoch,
    /// SCRAM verifiers.
    pub verifiers: Verifiers,
    /// Bound resources.
    pub sessions: BTreeMap<CompactString, SmId>,
    /// Messages that wait.
    pub offline: OfflineQueue,
    /// Contacts.
    pub roster: Roster,
    /// Assigned to its home; otherwise nobody logs in.
    pub assigned: bool,
}

/// All that a node knows of users and sessions, its own and its peer's.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    users: BTreeMap<BareJid, User>,
    sessions: Sessions,
    leads: [Option<Reg>; 2],
    away: [Option<Away>; 2],
    group: GroupInfo,
    undone: BTreeMap<RecordId, Forward>,
    /// Those of them that are taken only if they are not there already (D7).
    offers: BTreeSet<RecordId>,
    /// Stanzas of void branches, whom they reached, and when: their senders' valid branch may bring them again.
    kept: BTreeMap<StanzaId, (BTreeSet<BareJid>, u64)>,
    ways: [Way; 2],
    touched: Touched,
}

/// Where records stand that are being applied: gives forwards their identity.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The log.
    pub log: NodeIx,
    /// The frame.
    pub at: Position,
    /// Forwards of this frame so far.
    pub forwards: u32,
}

impl Place {
    /// Identity of the next forward.
    pub fn next_forward(&mut self) -> RecordId {
        self.forwards += 1;
        RecordId { log: self.log, at: self.at, index: self.forwards - 1 }
    }
}

impl State {
    /// An account.
    pub fn user(&self, user: &BareJid) -> Option<&User> {
        self.users.get(user)
    }

    /// All accounts in order of their JIDs.
    pub fn users(&self) -> impl Iterator<Item = (&BareJid, &User)> {
        self.users.iter()
    }

    /// Accounts behind this name.
    pub fn users_after<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a BareJid, &'a User)> + use<'a> {
        self.users.range::<str, _>((Bound::Excluded(name), Bound::Unbounded))
    }

    /// A session.
    pub fn session(&self, id: SmId) -> Option<&JsmSession> {
        self.sessions.get(&id)
    }

    /// All sessions in order of their ids.
    pub fn sessions(&self) -> impl Iterator<Item = (SmId, &JsmSession)> {
        self.sessions.iter().map(|(id, s)| (*id, s))
    }

    /// How many there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions for which something is due at some time: see [`JsmSession::is_timed`]. In order of their ids.
    pub fn timed(&self) -> impl Iterator<Item = (SmId, &JsmSession)> {
        self.sessions.timed()
    }

    /// The register of a group, as its primary last wrote it into its log.
    pub fn lead(&self, group: Group) -> Option<Reg> {
        self.leads[group.index()]
    }

    /// The register of an account that `writer` adds: that of its home, or the writer's own while the home node is failed over
    /// although it lives, and its users are away.
    pub(crate) fn register_of_new(&self, home: NodeIx, writer: NodeIx) -> Group {
        let led_there = self.leads[home.index()].is_some_and(|reg| reg.primary != writer);
        if writer != home && led_there { writer } else { home }
    }

    /// Why the home node's users are away although it lives; `None`: they are not.
    pub fn away(&self, group: Group) -> Option<Away> {
        self.away[group.index()]
    }

    /// The presence redundancy group, as operators describe it.
    pub fn group(&self) -> &GroupInfo {
        &self.group
    }

    /// The node that owns a user's sessions; `None` before anybody led.
    pub fn owner(&self, user: &User) -> Option<NodeIx> {
        self.leads[user.register.index()].map(|reg| reg.primary)
    }

    /// The owner of an account by name.
    pub fn owner_of(&self, user: &BareJid) -> Option<NodeIx> {
        self.users.get(user).and_then(|u| self.owner(u))
    }

    /// The user's epoch: the last hand-over or the last change of the register, whichever is later.
    pub fn epoch(&self, user: &User) -> Epoch {
        let term = self.leads[user.register.index()].map_or(0, |reg| reg.term.0);
        user.moved.max(Epoch { term, moves: 0 })
    }

    /// Whether a client that was told this epoch may have lived where the other node leads the same users alone (D6). It may
    /// have been told it of the other group, too, by a stream that had left that with a hand-over.
    pub fn is_beside(&self, user: &User, told: Epoch) -> bool {
        let (group, other) = (user.register, user.register.peer());
        let lead = self.leads[group.index()];
        told > user.moved
            && lead.is_some_and(|reg| self.ways[group.index()].has_not(told.term, reg))
            && !self.ways[other.index()].is_over(other, told.term)
    }

    /// Forwards whose effects no log holds yet, in the order of their logs.
    pub fn undone(&self) -> impl Iterator<Item = (RecordId, &Forward)> {
        self.undone.iter().map(|(id, f)| (*id, f))
    }

    /// The same in the order in which they are to be processed: that of the logs, but what one session sent, a part of which
    /// may stand in each log because its user has moved, in the order in which it was sent.
    pub fn undone_in_order(&self) -> Vec<RecordId> {
        in_sending_order(self.undone.iter().map(|(id, forward)| (*id, forward.id)).collect())
    }

    /// A forward that no log holds the effects of.
    pub fn undone_forward(&self, id: RecordId) -> Option<&Forward> {
        self.undone.get(&id)
    }

    /// Offers in this node's log that nobody has answered yet, in its order: the frame of each, and to whom.
    pub fn offers_in(&self, log: NodeIx) -> impl Iterator<Item = (Position, &Jid)> {
        let first = RecordId { log, at: Position::default(), index: 0 };
        let those = self.offers.range(first..).take_while(move |id| id.log == log);
        those.filter_map(|id| Some((id.at, &self.undone.get(id)?.to)))
    }

    /// Whether any forward is an offer.
    pub fn has_offers(&self) -> bool {
        !self.offers.is_empty()
    }

    /// Whether this forward is an offer: taken only if the stanza is not there already.
    pub fn is_offer(&self, id: RecordId) -> bool {
        self.offers.contains(&id)
    }

    /// Whether a void branch of its sender's session has brought this stanza to the user before (D7).
    pub fn was_kept(&self, stanza: StanzaId, user: &BareJid) -> bool {
        self.kept.get(&stanza).is_some_and(|(users, _)| users.contains(user))
    }

    /// A digest that is equal on both nodes when they hold the same.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Applies one record. The only place where the state changes.
    pub fn apply(&mut self, place: &mut Place, record: &Record) {
        self.note(*place, record);
        match record {
            Record::Lead { group, reg, at_ms, late } => self.apply_lead(*group, *reg, *at_ms, *late),
            Record::UserAdd { user, home, verifiers } => {
                // Both nodes may be asked for one name at once: both then keep the account of the first home.
                let first = self.users.get(user).is_none_or(|u| *home < u.home && u.sessions.is_empty());
                if first {
                    let account = User {
                        home: *home,
                        register: self.register_of_new(*home, place.log),
                        moved: Epoch::default(),
                        verifiers: verifiers.clone(),
                        sessions: BTreeMap::new(),
                        offline: OfflineQueue::default(),
                        roster: Roster::default(),
                        assigned: true,
                    };
                    self.users.insert(user.clone(), account);
                }
            }
            Record::UserPasswd { user, verifiers } => {
                if let Some(u) = self.users.get_mut(user) {
                    u.verifiers = verifiers.clone();
                }
            }
            Record::UserRemove { user, effects } => {
                if let Some(u) = self.users.remove(user) {
                    u.sessions.values().for_each(|session| _ = self.sessions.remove(session));
                }
                self.apply_effects(place, effects);
            }
            Record::Bind { session, user, resource, at_ms, effects } => {
                self.apply_bind(*session, user, resource, *at_ms);
                self.apply_effects(place, effects);
            }
            Record::SmIn { session, number, effects } => {
                if let Some(mut s) = self.sessions.get_mut(session) {
                    s.inbound = *number;
                    s.is_here();
                }
                self.apply_effects(place, effects);
            }
            Record::Done { forward, effects } | Record::Cancel { forward, effects } => {
                self.undone.remove(forward);
                self.offers.remove(forward);
                self.apply_effects(place, effects);
            }
            Record::Kept { stanza, at_ms, effects } => {
                self.note_kept(*stanza, *at_ms, effects);
                self.apply_effects(place, effects);
            }
            Record::End { session, at_ms, effects } => {
                self.apply_end(*session, *at_ms);
                self.apply_effects(place, effects);
            }
            Record::Lapse { session, effects } => {
                if let Some(mut s) = self.sessions.get_mut(session) {
                    s.visible = false;
                    s.directed.clear();
                }
                self.apply_effects(place, effects);
            }
            Record::Flush { session, count } => self.flush_offline(*session, *count),
            Record::Trim { session, h } => {
                self.apply_trim(*session, *h);
                if let Some(mut s) = self.sessions.get_mut(session) {
                    s.is_here();
                }
            }
            Record::Resumed { session, h } => {
                self.apply_trim(*session, *h);
                if let Some(mut s) = self.sessions.get_mut(session) {
                    s.apply(record);
                }
            }
            Record::HandOver { user, to, epoch, .. } => {
                if let Some(u) = self.users.get_mut(user) {
                    u.register = *to;
                    u.moved = *epoch;
                    self.arrive(user, *to, *epoch);
                }
            }
            Record::Away { group, why } => self.away[group.index()] = *why,
            Record::Group(group) => {
                if group.replaces(&self.group) {
                    self.group = group.clone();
                }
            }
            Record::Assign { user, home } => {
                if let Some(u) = self.users.get_mut(user) {
                    u.assigned = home.is_some();
                    u.home = home.unwrap_or(u.home);
                }
            }
            Record::Absorb { from, into } => self.apply_absorb(*from, *into),
            Record::Enable { session, .. }
            | Record::Dual { session }
            | Record::Token { session, .. }
            | Record::Reattached { session, .. }
            | Record::Detached { session, .. } => {
                if let Some(mut s) = self.sessions.get_mut(session) {
                    s.apply(record);
                }
            }
        }
    }

    fn apply_lead(&mut self, group: Group, reg: Reg, at_ms: u64, late: bool) {
        let before = self.leads[group.index()];
        if before.is_some_and(|b| b.term > reg.term) {
            return;
        }
        if before.is_some_and(|b| b.primary != reg.primary) {
            // Whoever takes over serves whatever is in that register, its own users that were away there too.
            self.away[reg.primary.index()] = None;
            let members: Vec<SmId> =
                self.users.values().filter(|u| u.register == group).fold(Vec::new(), |mut all, u| {
                    all.extend(u.sessions.values());
                    all
                });
            for id in members {
                let user = self.sessions.get(&id).and_then(|s| self.users.get(&s.user));
                let epoch = user.map(|u| self.epoch(u));
                let branch =
                    epoch.filter(|_| late).map(|known| Branch { known, terms: Vec::new(), from: u64::MAX });
                if let Some(mut s) = self.sessions.get_mut(&id) {
                    s.detached_ms.get_or_insert(at_ms);
                    s.uncertain = Branch::of_both(branch, s.uncertain.take());
                }
            }
        }
        if before.is_some_and(|b| reg.settled > b.settled) {
            self.settle(group, reg);
        }
        self.kept.retain(|_, (_, kept_ms)| kept_ms.saturating_add(KEPT_MS) > at_ms);
        self.ways[group.index()].step(reg);
        self.leads[group.index()] = Some(reg);
    }

    fn note_kept(&mut self, stanza: StanzaId, at_ms: u64, effects: &[Effect]) {
        for effect in effects {
            let user = match effect {
                Effect::Out { to, .. } => self.sessions.get(to).map(|s| s.user.clone()),
                Effect::Offline { user, .. } => Some(user.clone()),
                _ => None,
            };
            if let Some(user) = user {
                self.kept.entry(stanza).or_insert((BTreeSet::new(), at_ms)).0.insert(user);
            }
        }
    }

    /// Two nodes led the group alone, and this is the branch that goes on (D6).
    fn settle(&mut self, group: Group, reg: Reg) {
        let branch = self.ways[group.index()].branch(reg);
        for user in self.users.values().filter(|u| u.register == group) {
            doubt(user, &branch, &mut self.sessions);
        }
        self.ways[group.index()].went_on = Some(branch);
    }

    /// A hand-over that was written before it was settled who leads the receiving group (D6): the node whose copy is
    /// void may have served the user there. What is handed over later carries a term that is not below.
    fn arrive(&mut self, user: &BareJid, group: Group, epoch: Epoch) {
        let branch = self.ways[group.index()].went_on.as_ref().filter(|branch| epoch.term < branch.from);
        if let (Some(branch), Some(user)) = (branch, self.users.get(user)) {
            doubt(user, branch, &mut self.sessions);
        }
    }

    fn apply_absorb(&mut self, from: Group, into: Group) {
        let epochs: Vec<(BareJid, Epoch)> = (self.users.iter())
            .filter(|(_, u)| u.register == from)
            .map(|(jid, u)| (jid.clone(), self.epoch(u)))
            .collect();
        for (jid, epoch) in epochs {
            if let Some(u) = self.users.get_mut(&jid) {
                u.register = into;
                u.moved = Epoch { moves: epoch.moves + 1, ..epoch };
            }
        }
    }

    /// A session that had the resource ends without a word to its contacts: they go on believing in this one (D14).
    fn apply_bind(&mut self, id: SmId, user: &BareJid, resource: &CompactString, at_ms: u64) {
        let Some(u) = self.users.get(user) else { return };
        let mut session = JsmSession::new(user.clone(), resource.clone(), at_ms);
        if let Some(old) = u.sessions.get(resource).copied()
            && let Some(old) = self.apply_end(old, at_ms)
        {
            (session.visible, session.directed) = (old.visible, old.directed);
        }
        if let Some(u) = self.users.get_mut(user) {
            u.sessions.insert(resource.clone(), id);
            self.sessions.insert(id, session);
        }
    }

    /// What the client handled leaves its queue. Other resources' copies of it are seen from now on.
    fn apply_trim(&mut self, id: SmId, h: u32) {
        let Some(mut session) = self.sessions.get_mut(&id) else { return };
        let gone = session.trim(h);
        let Some(user) = self.users.get(&session.user) else { return };
        drop(session);
        for other_id in user.sessions.values().filter(|other| **other != id) {
            let Some(mut other) = self.sessions.get_mut(other_id) else { continue };
            for entry in &gone {
                if let Entry::Stanza { id, keep: true, .. } = entry
                    && other.mark_seen(*id)
                {
                    self.touched.add(Key::Session(*other_id));
                }
            }
        }
    }

    fn apply_end(&mut self, id: SmId, at_ms: u64) -> Option<JsmSession> {
        let mut session = self.sessions.remove(&id)?;
        let user = self.users.get_mut(&session.user)?;
        if user.sessions.get(&session.resource) == Some(&id) {
            user.sessions.remove(&session.resource);
        }
        let others: Vec<&JsmSession> = user.sessions.values().filter_map(|s| self.sessions.get(s)).collect();
        for entry in std::mem::take(&mut session.out) {
            let Entry::Stanza { id, keep: true, seen, stanza } = entry else { continue };
            let open = !seen && !others.iter().any(|s| s.holds(id));
            user.offline.give_back(id, &session.resource, open, at_ms, stanza);
        }
        Some(session)
    }

    fn apply_effects(&mut self, place: &mut Place, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Out { to, id, keep, stanza } => {
                    if let Some(mut s) = self.sessions.get_mut(to) {
                        s.queue(Entry::Stanza { id: *id, keep: *keep, seen: false, stanza: stanza.clone() });
                    }
                }
                Effect::Gap { about, to } => {
                    for session in to {
                        if let Some(mut s) = self.sessions.get_mut(session) {
                            s.queue(Entry::Gap { about: about.clone() });
                        }
                    }
                }
                Effect::Offline { user, id, at_ms, open, due, stanza } => {
                    if let Some(u) = self.users.get_mut(user) {
                        let (id, at_ms, open, due) = (*id, *at_ms, *open, due.iter().cloned().collect());
                        u.offline.store(Offline { id, at_ms, open, due, stanza: stanza.clone() });
                    }
                }
                Effect::Forward(forward) => _ = self.forward(place, forward.clone()),
                Effect::Offer(forward) => {
                    let id = self.forward(place, forward.clone());
                    self.offers.insert(id);
                }
                Effect::FanOut { id, to, stanza } => {
                    for contact in to {
                        let (to, stanza) = ((**contact).clone(), stanza.clone());
                        self.forward(place, Forward { to, id: *id, stanza });
                    }
                }
                Effect::Presence { session, priority, stanza } => {
                    if let Some(mut s) = self.sessions.get_mut(session) {
                        s.set_presence(*priority, stanza.clone());
                    }
                }
                Effect::Roster { user, contact, item, version } => {
                    if let Some(u) = self.users.get_mut(user) {
                        u.roster.set(contact, item.as_ref(), *version);
                    }
                }
                Effect::Flag { session, flag, on } => {
                    if let Some(mut s) = self.sessions.get_mut(session) {
                        match flag {
                            Flag::Interested => s.interested = *on,
                            Flag::Carbons => s.carbons = *on,
                        }
                    }
                }
                Effect::Directed { session, to, on } => {
                    if let Some(mut s) = self.sessions.get_mut(session) {
                        match on {
                            true => s.directed.insert(to.clone()),
                            false => s.directed.remove(to),
                        };
                    }
                }
                Effect::FlushOffline { session, count } => self.flush_offline(*session, *count),
            }
        }
    }

    fn forward(&mut self, place: &mut Place, forward: Forward) -> RecordId {
        let id = place.next_forward();
        self.undone.insert(id, forward);
        id
    }

    fn flush_offline(&mut self, id: SmId, count: u32) {
        let Some(mut session) = self.sessions.get_mut(&id) else { return };
        let Some(user) = self.users.get_mut(&session.user) else { return };
        for message in user.offline.take(&session.resource, count) {
            let stanza = with_delay(&message.stanza, session.user.domain(), message.at_ms);
            session.queue(Entry::Stanza { id: message.id, keep: true, seen: !message.open, stanza });
        }
    }
}

/// Only clients of this branch may resume the user's sessions, and of what went on at an earlier partition.
fn doubt(user: &User, branch: &Branch, sessions: &mut Sessions) {
    for id in user.sessions.values() {
        if let Some(mut s) = sessions.get_mut(id) {
            s.uncertain = Branch::of_both(Some(branch.of_user(user.moved)), s.uncertain.take());
        }
    }
}
