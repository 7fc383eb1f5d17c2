//! Contacts and presence in the simulation: clients subscribe to each other and change their presence while things go
//! wrong; nobody may be shown a flicker or a repeat, and in the end everybody must have been shown the present.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use client_sim::presence::{Content, PresenceRecord};
use client_sim::sm::Outgoing;
use xmpp_core::stanza::{Kind, Stanza};

use super::rng::Rng;
use super::world::World;

/// What the clients said of themselves and were shown of each other.
#[derive(Debug)]
pub struct People {
    /// Chance of its own, so that a run without people is the same run.
    rng: Rng,
    record: PresenceRecord,
    /// What each client was last shown, by full JID; `None`: unavailable.
    seen: Vec<BTreeMap<String, Option<Content>>>,
    /// What each client last said.
    said: Vec<Content>,
    introduced: Vec<bool>,
    changes: u64,
    /// What was wrong while it was excused.
    excused: u64,
    /// Whom each client may be shown once more, since no node ran: see
    /// [`Ledger::nobody_runs`](super::ledger::Ledger::nobody_runs).
    twice: BTreeSet<(usize, String)>,
    /// Of whom each client may be shown once more what they had said last then: see [`People::crossed`].
    crossed: BTreeMap<(usize, String), Content>,
}

impl People {
    /// Nobody yet.
    pub fn new(seed: u64) -> People {
        People {
            rng: Rng::new(seed ^ 0x70656f706c65),
            record: PresenceRecord::new(),
            seen: Vec::new(),
            said: Vec::new(),
            introduced: Vec::new(),
            changes: 0,
            excused: 0,
            twice: BTreeSet::new(),
            crossed: BTreeMap::new(),
        }
    }

    fn meet(&mut self, count: usize) {
        self.seen.resize(count, BTreeMap::new());
        self.said.resize(count, Content::empty());
        self.introduced.resize(count, false);
    }

    /// Both nodes are dead: what the one that is back first had not written down of the other may be told again.
    pub fn nobody_runs(&mut self) {
        self.twice.extend(self.everybody());
    }

    /// This client says once more that it would like to see the other.
    pub fn asked_again(&mut self, c: usize, other: usize) {
        self.twice.insert((c, full(other)));
    }

    /// Each node, cut off from the other and for a while from the witness, took the other's users over: what a node had shown
    /// its new users of its old ones, and had acknowledged to nobody, those say again to the node that leads them now.
    pub fn crossed(&mut self) {
        for (c, of) in self.everybody() {
            let last = self.said_by(&of).unwrap_or_else(Content::empty);
            self.crossed.insert((c, of), last);
        }
    }

    /// What this full JID said last.
    fn said_by(&self, jid: &str) -> Option<Content> {
        (0..self.said.len()).find(|c| full(*c) == jid).map(|c| self.said[c])
    }

    /// Who was shown whom.
    fn everybody(&self) -> Vec<(usize, String)> {
        let shown = |(c, seen): (usize, &BTreeMap<String, _>)| -> Vec<(usize, String)> {
            seen.keys().map(|of| (c, of.clone())).collect()
        };
        self.seen.iter().enumerate().flat_map(shown).collect()
    }

    /// Presence stanzas that were shown.
    pub fn shown(&self) -> u64 {
        self.record.report().shown
    }
}

fn full(c: usize) -> String {
    format!("u{c}@d/r")
}

impl World {
    /// A new session of this client, whose first stanza is `<presence/>`.
    pub(super) fn people_begin(&mut self, c: usize) {
        if !self.profile.people {
            return;
        }
        self.people.meet(self.clients.len());
        self.people.record.begins(&format!("u{c}@d"));
        self.people.record.logs_in(&full(c), Content::empty());
        self.people.seen[c].clear();
        self.people.said[c] = Content::empty();
        if std::mem::replace(&mut self.people.introduced[c], true) {
            return;
        }
        for other in 0..self.clients.len() {
            if other != c && self.people.rng.chance(60) {
                self.names.asks(c, other);
                self.people_say(c, format!("<presence to='u{other}@d' type='subscribe'/>"), true);
            }
        }
    }

    /// This client knows that its session is gone: contacts may be told so.
    pub(super) fn people_end(&mut self, c: usize) {
        if self.profile.people {
            self.people.record.logs_out(&full(c));
        }
    }

    fn people_say(&mut self, c: usize, text: String, survives: bool) {
        let stanza = Outgoing { id: String::new(), bytes: Bytes::from(text), survives };
        self.clients[c].sm.push(stanza);
    }

    /// A client that talks may change its presence too.
    pub(super) fn people_talk(&mut self, c: usize) {
        if !self.profile.people || !self.people.rng.chance(25) {
            return;
        }
        self.people.changes += 1;
        let text = format!("<presence><status>{}</status></presence>", self.people.changes);
        let Ok(stanza) = Stanza::parse(text.as_bytes()) else { return };
        let content = Content::of(&stanza);
        self.people.said[c] = content;
        self.people.record.says(&full(c), content);
        self.people_say(c, text, false);
    }

    /// A client was shown a stanza.
    pub(super) fn people_show(&mut self, c: usize, stanza: &Stanza) {
        if !self.profile.people || stanza.head.kind != Kind::Presence {
            return;
        }
        let Some(from) = stanza.head.from.clone() else { return };
        let content = match stanza.head.type_.as_deref() {
            None => Some(Content::of(stanza)),
            Some("unavailable") => None,
            Some("subscribe") => {
                let text = format!("<presence to='{}' type='subscribed'/>", from.bare_str());
                return self.people_say(c, text, true);
            }
            Some(_) => return,
        };
        self.people.record.shown(&format!("u{c}@d"), stanza);
        self.people.seen[c].insert(from.to_string(), content);
        let crossed = self.says_again_what_was_shown(c, &from.to_string(), content);
        let report = self.people.record.report();
        let (wrong, list) = (report.flickers + report.repeats, report.list.clone());
        let again = wrong > self.people.excused && self.people.twice.remove(&(c, from.to_string()));
        if self.excuses() || again || crossed {
            self.people.excused = wrong;
        } else if wrong > self.people.excused {
            self.fail(format!("u{c} from {from}: {list:?}"));
        }
    }

    /// Whether a contact may be shown something older of somebody, until it is shown what that said after the nodes had crossed.
    fn says_again_what_was_shown(&mut self, c: usize, from: &str, content: Option<Content>) -> bool {
        let (who, present) = ((c, from.to_owned()), self.people.said_by(from));
        let Some(then) = self.people.crossed.get(&who) else { return false };
        if content.is_some_and(|shown| Some(shown) == present && shown != *then) {
            self.people.crossed.remove(&who);
        }
        true
    }

    /// A contact who was not shown the present, or two rosters that disagree.
    pub(super) fn unseen(&self) -> Option<String> {
        let node = self.hosts[0].node().filter(|_| self.profile.people && !self.is_weak())?;
        let state = node.driver().engine().state();
        for (c, client) in self.clients.iter().enumerate() {
            for (o, other) in self.clients.iter().enumerate().filter(|(o, _)| *o != c) {
                let sees = state.user(&client.user)?.roster.subscription(&other.user).sees();
                let seen = state.user(&other.user)?.roster.subscription(&client.user).is_seen();
                if sees != seen {
                    return Some(format!("u{c} sees u{o}: {sees}; u{o} is seen: {seen}"));
                }
                let shown = self.people.seen[c].get(&full(o)).copied().flatten();
                if sees && shown != Some(self.people.said[o]) {
                    return Some(format!(
                        "u{c} was last shown {shown:?} of u{o}, not {:?}",
                        self.people.said[o]
                    ));
                }
            }
        }
        None
    }
}
