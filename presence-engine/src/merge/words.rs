//! What a user did to the own roster in a void branch, and was told is done. It is said again to whoever owns the user, as
//! that user's own words (RFC 6121 2.3 to 2.5 and 3.1.2 to 3.4.2): what follows from them at the contact's end happens there
//! by the tables of subscription, whatever became of either end meanwhile. Each word bears the time that it was said at
//! (XEP-0203): of two on the same contact, one in each branch, the later stands, by the clocks of the nodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::Writer;

use super::ROSTER;
use crate::engine::ask_stanza;
use crate::record::{Effect, Forward, Record};
use crate::state::{Item, State, with_delay};
use crate::subscription::Ask;

/// What a user says to the own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// How a contact and the user see each other.
    Ask(Ask),
    /// Name and groups.
    Set,
    /// The contact is to go.
    Remove,
}

/// When a user last did something about a contact, in milliseconds since 1970: to name and groups, to whether the user sees
/// the contact, and to whether the contact sees the user.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last([u64; 3]);

impl Last {
    pub(super) fn note(&mut self, word: Word, at_ms: u64) {
        for part in word.parts() {
            self.0[part] = at_ms.max(self.0[part]);
        }
    }

    /// When the user last did something that this word is about.
    pub(super) fn of(&self, word: Word) -> u64 {
        word.parts().map(|part| self.0[part]).max().unwrap_or_default()
    }
}

impl Word {
    /// Whether the contact is in the roster behind it.
    pub(crate) fn lists(self) -> bool {
        matches!(self, Word::Set | Word::Ask(Ask::Subscribe | Ask::Subscribed))
    }

    fn parts(self) -> std::ops::Range<usize> {
        match self {
            Word::Set => 0..1,
            Word::Ask(Ask::Subscribe | Ask::Unsubscribe) => 1..2,
            Word::Ask(Ask::Subscribed | Ask::Unsubscribed) => 2..3,
            Word::Remove => 0..3,
        }
    }

    /// What is said by this word alone: with a removal goes each thing that it ends, in a word of its own.
    fn own_parts(self) -> std::ops::Range<usize> {
        match self {
            Word::Remove => Word::Set.parts(),
            word => word.parts(),
        }
    }
}

/// Delayed delivery (XEP-0203).
pub(super) const DELAY: &str = "urn:xmpp:delay";

/// The word that an offer to `to` brings, and of which contact; `None`: it is no word of a user to the own account.
pub fn word(stanza: &Stanza, to: &Jid) -> Option<(Word, BareJid)> {
    let head = &stanza.head;
    if head.from.as_ref() != Some(to) || !to.is_bare() {
        return None;
    }
    match head.kind {
        Kind::Presence => Some((Word::Ask(ask(stanza)?), head.to.as_ref()?.to_bare())),
        Kind::Iq => {
            let query = stanza.payload().filter(|query| query.is(ROSTER, "query"))?;
            let item = query.children_named(ROSTER, "item").next()?;
            let word = if item.attr("subscription") == Some("remove") { Word::Remove } else { Word::Set };
            Some((word, BareJid::parse(item.attr("jid")?).ok()?))
        }
        Kind::Message | Kind::Other => None,
    }
}

/// When a word was said, as a stamp of this server; no client can forge one (S43).
pub(super) fn said_at(stanza: &Stanza, user: &BareJid) -> Option<String> {
    let element = stanza.element();
    let delays = element.children_named(DELAY, "delay");
    let stamp = delays
        .filter(|delay| delay.attr("from") == Some(user.domain()))
        .find_map(|delay| delay.attr("stamp"));
    stamp.map(str::to_owned)
}

/// A word of `user` with the time that it was said at, if it has none yet.
pub(super) fn stamped(forward: &mut Forward, user: &BareJid, at_ms: u64) {
    let Ok(stanza) = Stanza::from_bytes(forward.stanza.clone()) else { return };
    if word(&stanza, &forward.to).is_some() && said_at(&stanza, user).is_none() {
        forward.stanza = with_delay(&forward.stanza, user.domain(), at_ms);
    }
}

/// A word on subscriptions goes to its speaker's owner, who passes it on.
pub(super) fn to_the_speaker(forward: Forward) -> Forward {
    let stanza = Stanza::from_bytes(forward.stanza.clone()).ok();
    let speaker = stanza.filter(|stanza| ask(stanza).is_some()).and_then(|stanza| stanza.head.from);
    match speaker {
        Some(speaker) => Forward { to: (*speaker.to_bare()).clone(), ..forward },
        None => forward,
    }
}

/// What the user of a session said in a record that is about to be applied to `state`, beside what it passed on to contacts.
pub(super) fn words(state: &State, record: &Record) -> Vec<Bytes> {
    let Record::SmIn { session, effects, .. } = record else { return Vec::new() };
    let Some(user) = state.session(*session).map(|s| s.user.clone()) else { return Vec::new() };
    let Some(u) = state.user(&user) else { return Vec::new() };
    let changed = effects.iter().filter_map(|effect| match effect {
        Effect::Roster { user: whose, contact, item, .. } if *whose == user => Some((contact, item.as_ref())),
        _ => None,
    });
    changed
        .flat_map(|(contact, after)| {
            let none = Item::default();
            let before = u.roster.items.get(contact).unwrap_or(&none);
            let after = after.unwrap_or(&none);
            let word = match (before.listed, after.listed) {
                (true, false) => set(&user, contact, None),
                _ if passed(effects, contact).next().is_some() => return Vec::new(),
                (_, true) if after.approved != before.approved => {
                    ask_stanza(beforehand(after), &user, contact)
                }
                (_, true) => set(&user, contact, Some(after)),
                _ => return Vec::new(),
            };
            vec![word]
        })
        .collect()
}

/// What a stanza of a user's session said of the own roster: user, contact, and what.
pub(super) fn done(effects: &[Effect]) -> Vec<(BareJid, BareJid, Word)> {
    let mut words = Vec::new();
    for effect in effects {
        match effect {
            Effect::Forward(f) => {
                let Ok(stanza) = Stanza::from_bytes(f.stanza.clone()) else { continue };
                if let (Some(said), Some(from)) = (ask(&stanza), &stanza.head.from) {
                    words.push((from.to_bare(), f.to.to_bare(), Word::Ask(said)));
                }
            }
            Effect::Roster { user, contact, item, version } => {
                // Of a request that is refused clients see nothing: that is no removal.
                let gone = item.as_ref().is_none_or(|item| !item.listed) && version.is_some();
                let unseen = version.is_none();
                let word = match item {
                    _ if gone => Word::Remove,
                    Some(item) if !was_set(effects) => Word::Ask(beforehand(item)),
                    _ => Word::Set,
                };
                let passed = || passed(effects, contact).next().is_some();
                words.extend((gone || !unseen && !passed()).then(|| (user.clone(), contact.clone(), word)));
            }
            _ => {}
        }
    }
    words
}

/// Consent that nobody asked for yet (RFC 6121 3.4), given or taken back: it is passed on to nobody.
fn beforehand(item: &Item) -> Ask {
    if item.approved { Ask::Subscribed } else { Ask::Unsubscribed }
}

/// Whether a client wrote into its roster, which has a result; otherwise it sent presence.
fn was_set(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        let Effect::Out { stanza, .. } = effect else { return false };
        let stanza = Stanza::from_bytes(stanza.clone()).ok();
        stanza.is_some_and(|s| s.head.kind == Kind::Iq && s.head.type_.as_deref() == Some("result"))
    })
}

/// Of the words of a tail that are said again the last one, by user, contact and what it is about: no other is. Said one after
/// the other to somebody who knows the end already, they would part the two.
#[derive(Clone, Debug, Default)]
pub(super) struct ToCome {
    /// The stanza of the tail that brought it, counted from the first.
    last: BTreeMap<(BareJid, BareJid), [u64; 3]>,
    foreseen: u64,
    at_hand: u64,
}

impl ToCome {
    /// `told`: whether a user was told that this is safe. What nobody was told of is not said again.
    pub(super) fn foresee(&mut self, record: &Record, told: impl Fn(&BareJid) -> bool) {
        match record {
            Record::SmIn { effects, .. } => {
                self.foreseen += 1;
                let number = self.foreseen;
                for (user, contact, word) in done(effects).into_iter().filter(|(user, ..)| told(user)) {
                    let last = self.last.entry((user, contact)).or_default();
                    word.own_parts().for_each(|part| last[part] = number);
                }
            }
            // What was said before was let go with another group, which is not known here: each word stands for itself.
            Record::HandOver { user, .. } => self.last.retain(|(speaker, _), _| speaker != user),
            Record::Absorb { .. } => self.last.clear(),
            _ => {}
        }
    }

    /// What this record says is at hand.
    pub(super) fn pass(&mut self, record: &Record) {
        self.at_hand += u64::from(matches!(record, Record::SmIn { .. }));
    }

    /// Whether everything that a word to the own account is about is said anew behind it.
    pub(super) fn supersede(&self, to: &Jid, stanza: &Bytes) -> bool {
        let word = Stanza::from_bytes(stanza.clone()).ok().and_then(|stanza| word(&stanza, to));
        word.is_some_and(|(word, contact)| {
            let last = self.last.get(&(to.to_bare(), contact));
            last.is_some_and(|last| word.own_parts().all(|part| last[part] > self.at_hand))
        })
    }
}

/// What was passed on to a contact of how the two see each other.
fn passed(effects: &[Effect], contact: &BareJid) -> impl Iterator<Item = Ask> {
    effects.iter().filter_map(move |effect| match effect {
        Effect::Forward(f) if f.to == **contact => ask(&Stanza::from_bytes(f.stanza.clone()).ok()?),
        _ => None,
    })
}

/// What a stanza says of how two users see each other.
pub(super) fn ask(stanza: &Stanza) -> Option<Ask> {
    let type_ = stanza.head.type_.as_deref().filter(|_| stanza.head.kind == Kind::Presence);
    type_.and_then(Ask::of)
}

/// A roster set without an id: nobody waits for its result. `None`: the contact is removed.
fn set(user: &BareJid, contact: &BareJid, item: Option<&Item>) -> Bytes {
    let mut w = Writer::new();
    w.open("iq", ns::CLIENT).attr("type", "set").attr("from", user).attr("to", user);
    w.open("query", ROSTER).open("item", "").attr("jid", contact);
    match item {
        None => _ = w.attr("subscription", "remove"),
        Some(item) => {
            w.attr_opt("name", Some(&item.name).filter(|name| !name.is_empty()));
            for group in &item.groups {
                w.open("group", "").text(group).close();
            }
        }
    }
    w.finish()
}
