//! What is kept of the divergent tail of a log (D7): after a partition both nodes may have led both groups alone. The
//! node that leads a group in the end keeps its own branch of that group's sessions; of the other branch only messages
//! that had been acknowledged to their senders are offered to it, never counters, numbers or trims.
//!
//! The loser's log is one file with records of both groups. Its tail is cut where the first void record stands, and
//! what this module makes of it is written in its place: records of groups that this node still leads as they are;
//! what void senders brought to users of those groups as [`Record::Kept`]; messages for users of lost groups as
//! forwards to the node that leads them. What a void user did to the own roster is said again there (`words.rs`).

mod ends;
mod seen;
mod shown;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use crate::ids::{Group, NodeIx, RecordId, SmId, StanzaId};
use crate::record::{Effect, Forward, Record};
use crate::state::{Place, State};
use ends::{Ends, is_question};
use shown::{Shown, availability};
use words::ToCome;

pub(crate) use ends::{Pair, between, pair, question};
pub use seen::Seen;
pub(crate) use shown::probe;
pub use words::{Word, word};

/// Carbons (XEP-0280): copies, which are not offered; the message itself is.
const CARBONS: &str = "urn:xmpp:carbons:2";
/// Roster management (RFC 6121 2).
const ROSTER: &str = "jabber:iq:roster";

/// The frame of the tail that is at hand.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Groups whose records in it had been let go alone, by index.
    pub released: [bool; 2],
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Whose branch an effect comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    /// A sender's who is led here on.
    Valid,
    /// A void one, and the sender was told that it is safe.
    Told,
    /// A void one, and the sender will send it again.
    Untold,
}

/// Turns the records of one tail into those that replace them.
#[derive(Clone, Debug)]
pub struct Merge {
    me: NodeIx,
    led: [bool; 2],
    /// Whom a move that is dropped had put into which group: the tail says of them with it what it says.
    went: BTreeMap<BareJid, Group>,
    /// Forwards of the tail: where they stand now, if they do, and whose they are.
    moved: BTreeMap<RecordId, (Option<RecordId>, Of)>,
    shown: Shown,
    ends: Ends,
    words: ToCome,
    /// What was offered to whom: what comes back to storage from a session is no news.
    told: BTreeSet<(StanzaId, BareJid)>,
    /// What stands in the same log before this tail, though the tail was written without it.
    before: Option<Seen>,
}

/// A record that takes another's place, and the groups that it belongs to as a bit mask.
pub type Kept = (u8, Record);

impl Merge {
    /// For the tail of node `me`; `led`: the groups that it leads on, by index.
    pub fn new(me: NodeIx, led: [bool; 2]) -> Merge {
        let (went, moved, told) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (shown, ends, words) = (Shown::default(), Ends::default(), ToCome::default());
        Merge { me, led, went, moved, told, shown, ends, words, before: None }
    }

    /// The same, written behind stanzas that the tail does not know of: what is among them is not offered once more.
    pub fn behind(self, before: Seen) -> Merge {
        Merge { before: Some(before), ..self }
    }

    /// The groups that the node leads on, by index.
    pub fn led(&self) -> [bool; 2] {
        self.led
    }

    /// Looks at a record of the tail before any is kept: contacts are told the last presence of a session only, and owners the
    /// last word of a user, and are asked for an end of a subscription behind the last of it. `state`: this branch as it is at
    /// the end of the tail.
    pub fn foresee(&mut self, state: &State, spot: Spot, record: &Record) {
        self.shown.foresee(record);
        self.ends.foresee(record);
        let told = |user: &BareJid| state.user(user).is_some_and(|u| spot.released[u.register.index()]);
        self.words.foresee(record, told);
    }

    /// What is left of a record that is about to be applied to `state`, this branch as it was then, but for moves
    /// ([`moves`]). `old` and `new`: where its effects stood and will stand; `new` moves on.
    pub fn keep(
        &mut self,
        state: &State,
        spot: Spot,
        old: Place,
        new: &mut Place,
        record: &Record,
    ) -> Vec<Kept> {
        let mut left = self.keep_one(state, spot, old, new, record);
        // Of no stanza that comes again: what stands behind it is made anew should this tail be cut once more.
        let mut effects = self.presence(state, record, &left);
        effects.extend(self.ends(state, record, &left));
        effects.iter().for_each(|effect| take_places(effect, new));
        left.extend(kept(0, StanzaId::default(), spot, effects));
        left
    }

    fn keep_one(
        &mut self,
        state: &State,
        spot: Spot,
        old: Place,
        new: &mut Place,
        record: &Record,
    ) -> Vec<Kept> {
        let user_of = |id: &SmId| state.session(*id).map(|s| &s.user);
        let of_session = |id: &SmId| user_of(id).and_then(|user| state.user(user)).map(|u| u.register);
        match record {
            Record::SmIn { session, effects, .. }
            | Record::End { session, effects, .. }
            | Record::Lapse { session, effects } => {
                self.of_one(state, spot, (old, new), user_of(session), record, effects)
            }
            // A session that makes way for the new one returns requests, to askers who may be led here.
            Record::Bind { user, effects, .. } => {
                self.of_one(state, spot, (old, new), Some(user), record, effects)
            }
            Record::Cancel { forward, effects } => {
                let asked = state.undone_forward(*forward).and_then(|f| of_session(&f.id.session));
                let valid = asked.filter(|g| self.led[g.index()]);
                // Of a void asker: its own branch knows how it ended.
                let of = if valid.is_some() { Of::Valid } else { Of::Untold };
                let effects = self.effects(state, old, new, effects, of);
                let (now, _) = self.moved.get(forward).copied().unwrap_or((Some(*forward), Of::Valid));
                let (Some(group), Some(forward)) = (valid, now) else { return Vec::new() };
                vec![(mask_of(state, &effects) | 1 << group.index(), Record::Cancel { forward, effects })]
            }
            Record::Done { forward, effects } => self.done(state, spot, (old, new), *forward, effects),
            // What was kept once is kept again: it belongs to nobody's branch.
            Record::Kept { stanza, at_ms, effects } => {
                let effects = self.effects(state, old, new, effects, Of::Told);
                let at_ms = *at_ms;
                kept(mask_of(state, &effects), *stanza, Spot { at_ms, ..spot }, effects)
            }
            // An account is there once it was added; the log that both nodes read first decides between two.
            Record::UserAdd { .. } | Record::UserPasswd { .. } => vec![(0, record.clone())],
            // What the operator said last of the group holds, wherever it was said.
            Record::Group(_) => vec![(0, record.clone())],
            // So is a removal, wherever the account was led: the operator was told that it is done.
            Record::UserRemove { effects, .. } => {
                let effects = self.effects(state, old, new, effects, Of::Valid);
                vec![(mask_of(state, &effects), with_effects(record, effects))]
            }
            Record::Lead { group, .. } => self.as_it_is(Some(*group), record),
            Record::Away { .. } => self.as_it_is(Some(self.me), record),
            Record::Enable { session, .. }
            | Record::Dual { session }
            | Record::Token { session, .. }
            | Record::Trim { session, .. }
            | Record::Resumed { session, .. }
            | Record::Reattached { session, .. }
            | Record::Flush { session, .. }
            | Record::Detached { session, .. } => self.as_it_is(of_session(session), record),
            // Nobody hands over alone, and what one branch gave or took the other never heard of.
            Record::HandOver { user, to, .. } => {
                self.went.insert(user.clone(), *to);
                Vec::new()
            }
            Record::Absorb { from, into } => {
                let members = state.users().filter(|(user, u)| self.then(user, u.register) == *from);
                let went: Vec<_> = members.map(|(user, _)| (user.clone(), *into)).collect();
                self.went.extend(went);
                Vec::new()
            }
            Record::Assign { .. } => Vec::new(),
        }
    }

    /// The group with which the tail let go what it says of a user of `group`.
    fn then(&self, user: &BareJid, group: Group) -> Group {
        self.went.get(user).copied().unwrap_or(group)
    }

    fn of(&self, user: &BareJid, group: Group, spot: Spot) -> Of {
        match (self.led[group.index()], spot.released[self.then(user, group).index()]) {
            (true, _) => Of::Valid,
            (false, true) => Of::Told,
            (false, false) => Of::Untold,
        }
    }

    /// A record of one user's group, or what is left of it if that is not led here on.
    fn of_one(
        &mut self,
        state: &State,
        spot: Spot,
        (old, new): (Place, &mut Place),
        user: Option<&BareJid>,
        record: &Record,
        effects: &[Effect],
    ) -> Vec<Kept> {
        self.words.pass(record);
        let Some((user, group)) = user.and_then(|user| Some((user, state.user(user)?.register))) else {
            return Vec::new();
        };
        let of = self.of(user, group, spot);
        let mut effects = self.effects(state, old, new, effects, of);
        if of == Of::Told {
            self.say_again(state, spot.at_ms, record, new, &mut effects);
        }
        let mask = mask_of(state, &effects);
        match of {
            Of::Valid => vec![(mask | 1 << group.index(), with_effects(record, effects))],
            _ => kept(mask, stanza_of(record), spot, effects),
        }
    }

    /// What a void user said to the own account, and was told is done, goes to whoever owns the user.
    fn say_again(&self, state: &State, at_ms: u64, record: &Record, new: &mut Place, left: &mut Vec<Effect>) {
        let Record::SmIn { session, .. } = record else { return };
        let Some(user) = state.session(*session).map(|s| s.user.clone()) else { return };
        let to = (*user).clone();
        for stanza in words::words(state, record) {
            if self.words.supersede(&to, &stanza) {
                continue;
            }
            new.next_forward();
            let (to, id) = (to.clone(), stanza_of(record));
            left.push(Effect::Offer(Forward { to, id, stanza }));
        }
        for effect in left {
            if let Effect::Offer(forward) = effect {
                words::stamped(forward, &user, at_ms);
            }
        }
    }

    fn as_it_is(&self, group: Option<Group>, record: &Record) -> Vec<Kept> {
        let group = group.filter(|g| self.led[g.index()]);
        group.map(|g| (1 << g.index(), record.clone())).into_iter().collect()
    }

    /// A forward was done for a user who is led here on, or for one who is not: then its owner does it anew.
    fn done(
        &mut self,
        state: &State,
        spot: Spot,
        (old, new): (Place, &mut Place),
        id: RecordId,
        effects: &[Effect],
    ) -> Vec<Kept> {
        let Some(forward) = state.undone_forward(id) else {
            // It stood in an end of the other log that is gone. What users who are led here on got of it stays.
            let effects = self.effects(state, old, new, effects, Of::Untold);
            let mask = mask_of(state, &effects);
            return (mask != 0)
                .then_some((mask, Record::Done { forward: id, effects }))
                .into_iter()
                .collect();
        };
        let Some(user) = state.user(&forward.to.to_bare()) else { return Vec::new() };
        let valid = self.led[user.register.index()];
        let (now, of) = self.moved.get(&id).copied().unwrap_or((Some(id), Of::Valid));
        if valid && of == Of::Valid {
            let effects = self.effects(state, old, new, effects, Of::Valid);
            let mask = mask_of(state, &effects) | 1 << user.register.index();
            return now.map(|forward| (mask, Record::Done { forward, effects })).into_iter().collect();
        }
        let effects = self.effects(state, old, new, effects, Of::Untold);
        let mut left = kept(mask_of(state, &effects), forward.id, spot, effects);
        if let Some(forward) = now.filter(|_| valid) {
            left.push((1 << user.register.index(), Record::Done { forward, effects: Vec::new() }));
        }
        left
    }

    /// Effects on users that are led here stay; messages for the others go to the node that leads them.
    fn effects(
        &mut self,
        state: &State,
        mut old: Place,
        new: &mut Place,
        effects: &[Effect],
        of: Of,
    ) -> Vec<Effect> {
        let mut left = Vec::new();
        for effect in effects {
            match effect {
                Effect::Forward(forward) | Effect::Offer(forward) => {
                    let was = old.next_forward();
                    let sent = self.sent(forward.clone(), of);
                    let last =
                        |e: &Effect| !matches!(e, Effect::Offer(f) if self.words.supersede(&f.to, &f.stanza));
                    let sent = sent.filter(last);
                    let now = sent.is_some().then(|| new.next_forward());
                    // What goes to its speaker is another: what was done with this one says nothing of it.
                    let same = |effect: &Effect| matches!(effect, Effect::Forward(f) | Effect::Offer(f) if f.to == forward.to);
                    self.moved.insert(was, (now.filter(|_| sent.as_ref().is_some_and(same)), of));
                    left.extend(sent);
                }
                Effect::FanOut { to, .. } => {
                    for _ in to {
                        let was = old.next_forward();
                        let now = (of == Of::Valid).then(|| new.next_forward());
                        self.moved.insert(was, (now, of));
                    }
                    left.extend((of == Of::Valid).then(|| effect.clone()));
                }
                Effect::Out { to, id, stanza, .. } if !self.leads_session(state, to) => {
                    let Some(user) = state.session(*to).map(|s| s.user.clone()) else { continue };
                    let to = addressee(stanza, &user, of).filter(|_| self.told.insert((*id, user)));
                    let Some(to) = to else {
                        continue;
                    };
                    let sent = self.sent(Forward { to, id: *id, stanza: stanza.clone() }, of);
                    left.extend(sent.inspect(|_| _ = new.next_forward()));
                }
                Effect::Offline { user, id, stanza, .. } if !self.leads(state, user) => {
                    if self.told.insert((*id, user.clone())) {
                        let to = (**user).clone();
                        let sent = self.sent(Forward { to, id: *id, stanza: stanza.clone() }, of);
                        left.extend(sent.inspect(|_| _ = new.next_forward()));
                    }
                }
                Effect::Gap { about, to } => {
                    let to: Vec<SmId> = to.iter().filter(|s| self.leads_session(state, s)).copied().collect();
                    left.extend((!to.is_empty()).then(|| Effect::Gap { about: about.clone(), to }));
                }
                Effect::Out { to: session, .. }
                | Effect::Presence { session, .. }
                | Effect::Flag { session, .. }
                | Effect::Directed { session, .. }
                | Effect::FlushOffline { session, .. } => {
                    left.extend(self.leads_session(state, session).then(|| effect.clone()));
                }
                Effect::Offline { user, .. } | Effect::Roster { user, .. } => {
                    left.extend(self.leads(state, user).then(|| effect.clone()));
                }
            }
        }
        left
    }

    fn sent(&mut self, forward: Forward, of: Of) -> Option<Effect> {
        let mut is_there = |offer: &Forward| self.before.as_mut().is_some_and(|seen| seen.has_older(offer));
        sent(forward, of).filter(|effect| !matches!(effect, Effect::Offer(offer) if is_there(offer)))
    }

    fn leads(&self, state: &State, user: &BareJid) -> bool {
        state.user(user).is_some_and(|u| self.led[u.register.index()])
    }

    fn leads_session(&self, state: &State, id: &SmId) -> bool {
        state.session(*id).is_some_and(|s| self.leads(state, &s.user))
    }
}

/// Whether a record puts users into another group. None is left of a tail, so none is applied before what stands behind
/// it is judged: who leads the group that a user stays in leads the user.
pub fn moves(record: &Record) -> bool {
    matches!(record, Record::HandOver { .. } | Record::Absorb { .. })
}

/// The forwards that an effect makes have their places in the new frame.
fn take_places(effect: &Effect, new: &mut Place) {
    let forwards = match effect {
        Effect::Forward(_) | Effect::Offer(_) => 1,
        Effect::FanOut { to, .. } => to.len(),
        _ => 0,
    };
    (0..forwards).for_each(|_| _ = new.next_forward());
}

/// A stanza for a user of the other node: it may be there already if it comes from a void branch. Who was available in
/// that is not so here on. A question of a merge before is asked once more.
fn sent(forward: Forward, of: Of) -> Option<Effect> {
    match of {
        Of::Valid => Some(Effect::Forward(forward)),
        Of::Told if availability(&forward.stanza).is_some() => None,
        Of::Told if is_question(&forward) => Some(Effect::Forward(forward)),
        Of::Told => Some(Effect::Offer(words::to_the_speaker(forward))),
        Of::Untold => None,
    }
}

fn kept(mask: u8, stanza: StanzaId, spot: Spot, effects: Vec<Effect>) -> Vec<Kept> {
    match effects.is_empty() {
        true => Vec::new(),
        false => vec![(mask, Record::Kept { stanza, at_ms: spot.at_ms, effects })],
    }
}

fn stanza_of(record: &Record) -> StanzaId {
    match record {
        Record::SmIn { session, number, .. } => StanzaId { session: *session, number: *number },
        Record::End { session, .. } | Record::Lapse { session, .. } | Record::Bind { session, .. } => {
            StanzaId { session: *session, number: 0 }
        }
        _ => StanzaId::default(),
    }
}

fn with_effects(record: &Record, new: Vec<Effect>) -> Record {
    let mut record = record.clone();
    if let Record::SmIn { effects, .. }
    | Record::End { effects, .. }
    | Record::Lapse { effects, .. }
    | Record::Bind { effects, .. }
    | Record::UserRemove { effects, .. } = &mut record
    {
        *effects = new;
    }
    record
}

/// To whom a stanza in a session's queue was sent, if the other node should have it: messages of people, and requests
/// that somebody waits for. Answers too, if who gave them is led here.
fn addressee(stanza: &bytes::Bytes, user: &BareJid, of: Of) -> Option<Jid> {
    let stanza = Stanza::from_bytes(stanza.clone()).ok()?;
    let head = &stanza.head;
    let type_ = head.type_.as_deref();
    let wanted = match head.kind {
        Kind::Message => {
            type_ != Some("error") && !head.has_child(CARBONS, "sent") && !head.has_child(CARBONS, "received")
        }
        // A roster push is the server's own: the winner's roster is another.
        Kind::Iq if head.has_child(ROSTER, "query") => false,
        // Who was asked before the partition and is led here answers once, and the asker waits where it is led now.
        Kind::Iq => matches!(type_, Some("get" | "set")) || of == Of::Valid,
        Kind::Presence | Kind::Other => false,
    };
    wanted.then(|| head.to.clone().unwrap_or_else(|| (**user).clone()))
}

/// Groups of the users that these effects touch, as a bit mask.
pub(crate) fn mask_of(state: &State, effects: &[Effect]) -> u8 {
    let of_user = |user: &BareJid| state.user(user).map_or(0, |u| 1 << u.register.index());
    let of_session = |id: &SmId| state.session(*id).map_or(0, |s| of_user(&s.user));
    effects.iter().fold(0, |mask, effect| {
        mask | match effect {
            Effect::Out { to: session, .. }
            | Effect::Presence { session, .. }
            | Effect::Flag { session, .. }
            | Effect::Directed { session, .. }
            | Effect::FlushOffline { session, .. } => of_session(session),
            Effect::Gap { to, .. } => to.iter().fold(0, |mask, session| mask | of_session(session)),
            Effect::Offline { user, .. } | Effect::Roster { user, .. } => of_user(user),
            Effect::Forward(_) | Effect::Offer(_) | Effect::FanOut { .. } => 0,
        }
    })
}

#[cfg(test)]
mod tests;
