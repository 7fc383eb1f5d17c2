//! What users write into their rosters in the simulation, whichever node they see: in the end their rosters say what they
//! said last. Where the clocks of the nodes are apart, a word may stand in the place of a later one, but only of one that was
//! said within the time that they are apart.

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

/// The time of a word is that of the turn in which a node read it, or of its last tick, in milliseconds.
const SLACK: u64 = 1_000;

/// What a client wrote down of a contact.
#[derive(Debug)]
struct Word {
    /// In which stanza.
    number: u64,
    /// `None`: removed.
    name: Option<String>,
    said: u64,
    /// When a node had counted it; from then on it is not sent again.
    counted: Option<u64>,
    /// A later one could not be done: nobody knows whether this stands.
    doubtful: bool,
}

impl Word {
    /// Whether it may stand although `last` was said behind it: each has the time of the node that read it, and these are so far
    /// apart.
    fn may_stand(&self, last: &Word, apart: u64) -> bool {
        apart > 0 && self.counted.is_none_or(|counted| counted + apart + SLACK >= last.said)
    }
}

/// What each client wrote down.
#[derive(Debug)]
pub struct Names {
    /// Chance of its own, so that a run without names is the same run.
    rng: Rng,
    /// By client and contact, in order.
    words: BTreeMap<(usize, usize), Vec<Word>>,
    /// Who asked whom to be seen.
    asked: BTreeSet<(usize, usize)>,
    /// Of those the ones that no node has counted, by stanza.
    open: BTreeMap<u64, (usize, usize)>,
    said: u64,
}

impl Names {
    /// Nobody yet.
    pub fn new(seed: u64) -> Names {
        let rng = Rng::new(seed ^ 0x006e_616d_6573);
        Names { rng, words: BTreeMap::new(), asked: BTreeSet::new(), open: BTreeMap::new(), said: 0 }
    }

    /// A client asks to see another; whether it has not done so before.
    pub(super) fn asks(&mut self, c: usize, other: usize) -> bool {
        self.asked.insert((c, other))
    }
}

fn contact(k: usize) -> String {
    format!("nobody{k}@d")
}

/// Of the stanza with this id, if it is one of ours.
fn number(id: &str) -> Option<u64> {
    id.strip_prefix('n')?.parse().ok()
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
        let before =
            self.names.words.get(&(c, k)).and_then(|words| words.last()).filter(|word| !word.doubtful);
        let known = before.is_some_and(|word| word.name.is_some());
        let name = (!known || self.names.rng.chance(70)).then(|| format!("v{}", self.names.said));
        let item = match &name {
            Some(name) => format!("<item jid='{}' name='{name}'/>", contact(k)),
            None => format!("<item jid='{}' subscription='remove'/>", contact(k)),
        };
        let word = Word { number: self.names.said, name, said: self.now, counted: None, doubtful: false };
        self.names.words.entry((c, k)).or_default().push(word);
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        self.names_say(c, format!("<iq type='set' id='n{}'>{query}</iq>", self.names.said));
    }

    fn names_ask(&mut self, c: usize) {
        let other = self.names.rng.below(self.clients.len());
        if other != c && self.names.asks(c, other) {
            self.names.open.insert(self.names.said, (c, other));
            self.names_say(c, format!("<presence to='{}' type='subscribe'/>", self.clients[other].user));
        }
    }

    fn names_say(&mut self, c: usize, text: String) {
        let id = format!("n{}", self.names.said);
        self.names.said += 1;
        self.coverage.words += 1;
        self.clients[c].sm.push(Outgoing { id, bytes: Bytes::from(text), survives: true });
    }

    /// What this client says again in a new session. Who asks once more to see somebody whom he sees is shown that one's presence by
    /// that too (RFC 6121 3.1.3), beside what a new session is shown.
    pub(super) fn names_again(&mut self, c: usize) {
        let asked = self.names.open.values().filter(|(who, _)| *who == c);
        let again: Vec<usize> = asked.map(|(_, other)| *other).collect();
        again.into_iter().for_each(|other| self.people.asked_again(c, other));
    }

    /// The server has counted a stanza of ours.
    pub(super) fn names_count(&mut self, id: &str) {
        let Some(number) = number(id) else { return };
        self.names.open.remove(&number);
        let mut words = self.names.words.values_mut().flatten();
        if let Some(word) = words.find(|word| word.number == number) {
            word.counted.get_or_insert(self.now);
        }
    }

    /// A client was told that something could not be done: who is to go may be in the other node's roster only.
    pub(super) fn names_show(&mut self, c: usize, stanza: &Stanza) {
        let head = &stanza.head;
        let failed = head.kind == Kind::Iq && head.type_.as_deref() == Some("error");
        let Some(number) = head.id.as_deref().and_then(number).filter(|_| failed) else { return };
        for words in self.names.words.iter_mut().filter(|((who, _), _)| *who == c).map(|(_, words)| words) {
            let of_the_last = words.last().is_some_and(|word| word.number == number);
            words.retain(|word| word.number != number);
            words.iter_mut().for_each(|word| word.doubtful |= of_the_last);
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
        let [a, b] = self.profile.skew;
        let apart = a.abs_diff(b);
        for ((c, k), words) in &self.names.words {
            let Some(last) = words.last().filter(|word| !word.doubtful) else { continue };
            let says = listed(roster(*c)?, *k);
            let stands = |word: &Word| word.name == says && word.may_stand(last, apart);
            if says != last.name && !words.iter().any(stands) {
                let name = &last.name;
                let who = contact(*k);
                return Some(format!("u{c} calls {who} {name:?}, the roster says {says:?}: {words:?}"));
            }
        }
        let unseen = self.names.asked.iter().find(|(c, other)| {
            let contact = &self.clients[*other].user;
            roster(*c).is_some_and(|roster| !roster.subscription(contact).sees())
        });
        unseen.map(|(c, other)| format!("u{c} asked to see u{other}, and does not"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_word_stands_only_if_the_clocks_may_take_it_for_the_later() {
        let word = |said, counted| Word { number: 0, name: None, said, counted, doubtful: false };
        let (first, later, last) =
            (word(1_000, Some(4_000)), word(11_000, None), word(4_000 + 10_000 + SLACK + 1, None));
        assert!(first.may_stand(&later, 10_000));
        assert!(!first.may_stand(&last, 10_000), "it is too old for that");
        assert!(later.may_stand(&last, 10_000), "nobody knows when a node read it");
        assert!(!first.may_stand(&later, 0), "clocks that agree excuse nothing");
    }
}
