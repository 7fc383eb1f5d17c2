//! What users write into their rosters in the simulation, whichever node they see: in the end their rosters say what they
//! said last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use client_sim::sm::Outgoing;
use presence_engine::state::Roster;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::{Kind, Stanza};

use super::rng::Rng;
use super::world::World;

/// Contacts whom a user names and forgets, and who are nobody.
const CONTACTS: usize = 3;

/// What each client wrote down last.
#[derive(Debug)]
pub struct Names {
    /// Chance of its own, so that a run without names is the same run.
    rng: Rng,
    /// By client and contact: in which stanza, and the name; `None`: removed.
    last: BTreeMap<(usize, usize), (u64, Option<String>)>,
    /// Who asked whom to be seen.
    asked: BTreeSet<(usize, usize)>,
    said: u64,
}

impl Names {
    /// Nobody yet.
    pub fn new(seed: u64) -> Names {
        let rng = Rng::new(seed ^ 0x006e_616d_6573);
        Names { rng, last: BTreeMap::new(), asked: BTreeSet::new(), said: 0 }
    }

    /// A client asks to see another; whether it has not done so before.
    pub(super) fn asks(&mut self, c: usize, other: usize) -> bool {
        self.asked.insert((c, other))
    }
}

fn contact(k: usize) -> String {
    format!("nobody{k}@d")
}

impl World {
    /// A client that talks may write something down too.
    pub(super) fn names_talk(&mut self, c: usize) {
        if !self.profile.names || !self.names.rng.chance(25) {
            return;
        }
        if self.names.rng.chance(15) {
            return self.names_ask(c);
        }
        let k = self.names.rng.below(CONTACTS);
        let known = self.names.last.get(&(c, k)).is_some_and(|(_, name)| name.is_some());
        let name = (!known || self.names.rng.chance(70)).then(|| format!("v{}", self.names.said));
        let item = match &name {
            Some(name) => format!("<item jid='{}' name='{name}'/>", contact(k)),
            None => format!("<item jid='{}' subscription='remove'/>", contact(k)),
        };
        self.names.last.insert((c, k), (self.names.said, name));
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        self.names_say(c, format!("<iq type='set' id='n{}'>{query}</iq>", self.names.said));
    }

    fn names_ask(&mut self, c: usize) {
        let other = self.names.rng.below(self.clients.len());
        if other != c && self.names.asks(c, other) {
            self.names_say(c, format!("<presence to='{}' type='subscribe'/>", self.clients[other].user));
        }
    }

    fn names_say(&mut self, c: usize, text: String) {
        self.names.said += 1;
        self.coverage.words += 1;
        let stanza = Outgoing { id: String::new(), bytes: Bytes::from(text), survives: true };
        self.clients[c].sm.push(stanza);
    }

    /// A client was told that something could not be done: who is to go may be in the other node's roster only.
    pub(super) fn names_show(&mut self, c: usize, stanza: &Stanza) {
        let head = &stanza.head;
        let failed = head.kind == Kind::Iq && head.type_.as_deref() == Some("error");
        let number = head.id.as_deref().and_then(|id| id.strip_prefix('n')?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| failed) {
            self.names.last.retain(|(who, _), (said, _)| *who != c || *said != number);
        }
    }

    /// A roster that says something else than its user.
    pub(super) fn misnamed(&self) -> Option<String> {
        let node = self.hosts[0].node().filter(|_| self.profile.names)?;
        let state = node.driver().engine().state();
        let roster = |c: usize| state.user(&self.clients[c].user).map(|u| &u.roster);
        let listed = |roster: &Roster, k: usize| {
            let item = roster.items.get(&BareJid::parse(&contact(k)).ok()?)?;
            item.listed.then(|| item.name.to_string())
        };
        for ((c, k), (_, name)) in &self.names.last {
            let says = listed(roster(*c)?, *k);
            if says != *name {
                return Some(format!("u{c} calls {} {name:?}, the roster says {says:?}", contact(*k)));
            }
        }
        let unseen = self.names.asked.iter().find(|(c, other)| {
            let contact = &self.clients[*other].user;
            roster(*c).is_some_and(|roster| !roster.subscription(contact).sees())
        });
        unseen.map(|(c, other)| format!("u{c} asked to see u{other}, and does not"))
    }
}
