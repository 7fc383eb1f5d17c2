//! The two ends of a subscription after a merge (D7). The contact's node asks, behind all that its tail says of the two
//! (`merge/ends.rs`), for the end of a user of this node.
//!
//! A question waits while anything is on its way between the two, in either log: a word that is offered to one of them, a stanza
//! that one has passed on to the other. Answered earlier it would find an end without what that is about to hear, maybe of this
//! node itself. Where the ends differ then, nothing that is on its way makes them one.
//!
//! Only what the contact says meanwhile is not known here. So a node changes the rosters of its own users, as if the contact had
//! said so, and leaves the contact's to the contact's node: that is asked in turn, and knows what its user has said since. The
//! contact is told two things only, a request and a consent: what the contact says once meanwhile leaves both ends agreed. (A request
//! behind a cancellation may cross a consent to the one before, as it may in ordinary service, and waits for the user then.)
//!
//! A question that waits is an undone forward, and nothing else: whoever starts anew or takes over finds it there. To be
//! asked twice changes nothing, and a node of a version before does not answer.

use std::collections::{BTreeMap, BTreeSet};

use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::presence::{full_jid, unavailable};
use super::route::Route;
use super::subscribe::ask_stanza;
use super::{Engine, Output};
use crate::ids::{RecordId, StanzaId};
use crate::merge::{Pair, between, pair, probe, question};
use crate::state::Item;
use crate::subscription::{Ask, Direction, Subscription, step};

/// Questions for ends of users of this node, and behind what each waits; `None`: it is to be looked at. No part of the state:
/// they are found among what is undone.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<RecordId, Option<RecordId>>);

impl Questions {
    pub(super) fn note(&mut self, id: RecordId) {
        self.0.insert(id, None);
    }
}

impl Engine {
    /// Questions that may be answered now; `all`: forwards are about to be processed, and others may be free then.
    pub(super) fn questions_due(&self, all: bool) -> impl Iterator<Item = RecordId> {
        let state = &self.state;
        let due =
            move |behind: Option<RecordId>| all || behind.is_none_or(|id| state.undone_forward(id).is_none());
        self.questions.0.iter().filter(move |(_, behind)| due(**behind)).map(|(id, _)| *id)
    }

    /// Answers the questions that wait for nothing any more.
    pub(super) fn answer_questions(&mut self, out: &mut Vec<Output>) {
        loop {
            let free = self.free_questions();
            if free.is_empty() {
                return;
            }
            for id in free {
                let Some(forward) = self.state.undone_forward(id).cloned() else { continue };
                if let Ok(stanza) = Stanza::from_bytes(forward.stanza.clone()) {
                    self.handle_forward(id, &forward, &stanza, out);
                }
            }
        }
    }

    fn free_questions(&mut self) -> Vec<RecordId> {
        let due: Vec<RecordId> = self.questions_due(false).collect();
        if due.is_empty() {
            return due;
        }
        let mut asked: BTreeMap<Pair, Vec<RecordId>> = BTreeMap::new();
        for id in due {
            self.questions.0.remove(&id);
            if let Some(pair) = self.asked_of(id) {
                asked.entry(pair).or_default().push(id);
            }
        }
        let on_its_way = self.on_its_way(&asked);
        let mut free = Vec::new();
        for (pair, ids) in asked {
            let (behind, waiting) = match (on_its_way.get(&pair), ids.split_first()) {
                (Some(first), _) => (*first, &ids[..]),
                // What follows from the answer to one comes before the next.
                (None, Some((first, rest))) => {
                    free.push(*first);
                    (*first, rest)
                }
                (None, None) => continue,
            };
            waiting.iter().for_each(|id| _ = self.questions.0.insert(*id, Some(behind)));
        }
        free
    }

    /// Between whom a question is, if it is for this node. Whoever comes to serve the user finds it anew.
    fn asked_of(&self, id: RecordId) -> Option<Pair> {
        let forward = self.state.undone_forward(id).filter(|forward| self.processes(id, forward))?;
        let stanza = Stanza::from_bytes(forward.stanza.clone()).ok()?;
        Some(pair(question(&stanza, &forward.to)?, forward.to.to_bare()))
    }

    /// The first that is on its way between two of these users.
    fn on_its_way(&self, asked: &BTreeMap<Pair, Vec<RecordId>>) -> BTreeMap<Pair, RecordId> {
        let users: BTreeSet<&str> =
            asked.keys().flat_map(|(one, other)| [one.as_str(), other.as_str()]).collect();
        let mut found = BTreeMap::new();
        for (id, forward) in self.state.undone().filter(|(_, forward)| users.contains(forward.to.as_str())) {
            if let Some(pair) = between(forward).filter(|pair| asked.contains_key(pair)) {
                found.entry(pair).or_insert(id);
            }
        }
        found
    }

    /// One of our users and a contact know each other by two ends that may differ: they are made one, as far as it is for this
    /// node to do.
    pub(super) fn make_ends_agree(&self, user: &BareJid, contact: &BareJid, route: &mut Route) {
        let id = StanzaId::default();
        let end = |of: &BareJid, with: &BareJid| {
            self.state.user(of).map_or(Subscription::None, |u| u.roster.subscription(with))
        };
        let (here, there) = (end(user, contact), end(contact, user));
        let Some(u) = self.state.user(user) else {
            // An account that is gone knows nobody, and whoever has its name next must not be known for it.
            if there != Subscription::None {
                self.forward(contact, id, probe(user, contact), route);
            }
            return;
        };
        let known = u.roster.items.get(contact);
        let Repair { next, heard, said, asks } = repair(here, there);
        for ask in heard {
            let stanza = ask_stanza(ask, contact, user);
            for (session, _) in self.sessions_of(user).filter(|(_, s)| s.interested) {
                route.out(session, id, stanza.clone());
            }
        }
        if next != here {
            let item = Item { subscription: next, ..known.cloned().unwrap_or_default() };
            self.set_item(user, contact, known, item, id, route);
        }
        if here.is_seen() && !next.is_seen() {
            self.hide(user, contact, id, route);
        }
        if here.sees() && !next.sees() {
            self.lose_sight(user, contact, route);
        }
        for ask in said {
            self.forward(contact, id, ask_stanza(ask, user, contact), route);
            if ask == Ask::Subscribed {
                self.show(user, contact, id, route);
            }
        }
        if asks {
            self.forward(contact, id, probe(user, contact), route);
        }
    }

    /// The user may no longer see the contact, whose node does not say so.
    fn lose_sight(&self, user: &BareJid, contact: &BareJid, route: &mut Route) {
        for (_, s) in self.sessions_of(contact).filter(|(_, s)| s.visible) {
            if let Some(about) = full_jid(s) {
                route.presence(&about, self.available(user), unavailable(&about, None));
            }
        }
    }
}

/// How far one user sees another, as an end says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sight {
    Not,
    Asked,
    Sees,
}

impl Sight {
    fn of(sees: bool, pending: bool) -> Sight {
        match (sees, pending) {
            (true, _) => Sight::Sees,
            (false, true) => Sight::Asked,
            (false, false) => Sight::Not,
        }
    }

    /// The roster's owner the contact.
    fn of_owner(end: Subscription) -> Sight {
        Sight::of(end.sees(), end.pending_out())
    }

    /// The contact the roster's owner.
    fn of_contact(end: Subscription) -> Sight {
        Sight::of(end.is_seen(), end.pending_in())
    }
}

/// What a node does about two ends that differ, of which the first is its user's.
#[derive(PartialEq, Eq, Debug)]
struct Repair {
    /// The user's end from now on.
    next: Subscription,
    /// What the contact is taken to have said.
    heard: Vec<Ask>,
    /// What is said to the contact.
    said: Vec<Ask>,
    /// The rest is for the contact's node.
    asks: bool,
}

impl Repair {
    fn hear(&mut self, ask: Ask) {
        self.next = step(Direction::Inbound, ask, self.next).next;
        self.heard.push(ask);
    }
}

/// Whether somebody is seen is theirs to say, and whether they want to see somebody: who asks and is let sees, who is let and
/// does not ask does not, and of a request that one end knows alone the other hears if it is the asker's. Of each half
/// one of the two nodes changes something, and never both.
fn repair(here: Subscription, there: Subscription) -> Repair {
    use Sight::{Asked, Not, Sees};
    let mut repair = Repair { next: here, heard: Vec::new(), said: Vec::new(), asks: false };
    // How far the contact sees the user.
    match (Sight::of_contact(here), Sight::of_owner(there)) {
        (Not, Not) | (Asked, Asked) | (Sees, Sees) => {}
        (Sees, Asked) => repair.said.push(Ask::Subscribed),
        (Sees | Asked, Not) => repair.hear(Ask::Unsubscribe),
        (Not, Asked | Sees) | (Asked, Sees) => repair.asks = true,
    }
    // How far the user sees the contact.
    match (Sight::of_owner(here), Sight::of_contact(there)) {
        (Not, Not) | (Asked, Asked) | (Sees, Sees) => {}
        // The contact has the request, and has not granted it.
        (Sees, Asked) => {
            let ended = step(Direction::Inbound, Ask::Unsubscribed, repair.next).next;
            repair.next = step(Direction::Outbound, Ask::Subscribe, ended).next;
        }
        (Sees, Not) => repair.hear(Ask::Unsubscribed),
        (Asked, Not) => repair.said.push(Ask::Subscribe),
        (Not, Asked | Sees) | (Asked, Sees) => repair.asks = true,
    }
    repair
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_asks_for_the_other_does_and_asks_for_nothing() {
        for here in Subscription::ALL {
            for there in Subscription::ALL {
                let first = repair(here, there);
                let hear = |end, ask: &Ask| step(Direction::Inbound, *ask, end).next;
                let there = first.said.iter().fold(there, hear);
                let second = repair(there, first.next);
                assert!(!second.asks, "{here:?} and {there:?}: {first:?}, {second:?}");
                let none = Repair { next: there, heard: Vec::new(), said: Vec::new(), asks: false };
                assert!(first.asks || second == none, "{here:?} and {there:?}: {first:?}, {second:?}");
            }
        }
    }
}
