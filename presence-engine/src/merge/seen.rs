//! What an offer is compared with: stanzas that the winner's own branch took from its clients. Bytes are never
//! compared, because clients add a delay stamp when they send again. An id is the client's, who may use it again: what
//! the stanza says counts too, and of so many that are alike so many are taken for the same, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;
use xmpp_core::xml::tree::Element;

use super::word;
use super::words::{DELAY, Last, done, said_at};
use crate::ids::{RecordId, StanzaId};
use crate::record::{Effect, Forward, Record};
use crate::state::{Place, stamp};

/// Stanzas of one branch.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ids: BTreeSet<StanzaId>,
    /// Those that are named alike, and whether an offer was taken for one of them.
    named: BTreeMap<Name, BTreeMap<StanzaId, bool>>,
    /// What users did to their own rosters, by user and contact.
    rosters: BTreeMap<(BareJid, BareJid), Last>,
    /// Offers: the answer to one tells what became of it, and nothing of what the branch took from clients. `None`: it was
    /// compared already.
    offers: BTreeMap<RecordId, Option<(StanzaId, Option<Name>)>>,
}

/// By what a stanza is known that its client sends again in another session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Name {
    from: String,
    to: String,
    id: String,
    says: u64,
}

impl Seen {
    /// Notes the stanzas of a record that was written then, in milliseconds since 1970.
    pub fn note(&mut self, record: &Record, at_ms: u64) {
        let effects = match record {
            Record::SmIn { session, number, effects } => {
                self.ids.insert(StanzaId { session: *session, number: *number });
                for (user, contact, word) in done(effects) {
                    self.rosters.entry((user, contact)).or_default().note(word, at_ms);
                }
                effects
            }
            Record::Done { forward, effects } => {
                if let Some(offer) = self.offers.get_mut(forward) {
                    let offer = offer.take().filter(|_| effects.is_empty());
                    if let Some((id, name)) = offer {
                        self.is_there(id, name);
                    }
                    return;
                }
                effects
            }
            Record::Kept { effects, .. } => effects,
            _ => return,
        };
        for effect in effects {
            let (id, stanza) = match effect {
                Effect::Out { id, stanza, .. } | Effect::Offline { id, stanza, .. } => (id, stanza),
                Effect::Forward(forward) => (&forward.id, &forward.stanza),
                _ => continue,
            };
            if let Some(name) = name(stanza) {
                self.named.entry(name).or_default().entry(*id).or_default();
            }
        }
    }

    /// Notes the offers of a record that stands there, which may have been answered.
    pub fn note_offers(&mut self, place: &mut Place, record: &Record) {
        for effect in record.effects() {
            match effect {
                Effect::Offer(offer) => {
                    let name = name(&offer.stanza).filter(|_| self.has_word(offer).is_none());
                    self.offers.entry(place.next_forward()).or_insert(Some((offer.id, name)));
                }
                Effect::Forward(_) => _ = place.next_forward(),
                Effect::FanOut { to, .. } => to.iter().for_each(|_| _ = place.next_forward()),
                _ => {}
            }
        }
    }

    /// This offer is compared now.
    pub(crate) fn compares(&mut self, offer: RecordId) {
        self.offers.insert(offer, None);
    }

    /// Whether the same stanza was noted: by its sender's session and number there, or by sender, addressee, id and what it
    /// says. Each is asked once: what one offer was taken for, no other is. Of a user's own roster, whether the user has said
    /// something of the same contact since.
    pub fn has(&mut self, offer: &Forward) -> bool {
        match self.has_word(offer) {
            Some(said) => said || self.ids.contains(&offer.id),
            None => self.is_there(offer.id, name(&offer.stanza)),
        }
    }

    fn is_there(&mut self, id: StanzaId, name: Option<Name>) -> bool {
        let mut alike = name.and_then(|name| self.named.get_mut(&name));
        if self.ids.contains(&id) {
            if let Some(taken) = alike.as_mut().and_then(|alike| alike.get_mut(&id)) {
                *taken = true;
            }
            return true;
        }
        let free = alike.and_then(|alike| alike.values_mut().find(|taken| !**taken));
        free.is_some_and(|taken| !std::mem::replace(taken, true))
    }

    /// The same, where all that was noted is older than the offer: what its sender took for lost there, and said again. A later
    /// word of a user to the own account stands.
    pub(super) fn has_older(&mut self, offer: &Forward) -> bool {
        let stanza = Stanza::from_bytes(offer.stanza.clone()).ok();
        match stanza.is_some_and(|stanza| word(&stanza, &offer.to).is_some()) {
            true => self.ids.contains(&offer.id),
            false => self.is_there(offer.id, name(&offer.stanza)),
        }
    }

    /// `None`: it is no word of a user to the own account.
    fn has_word(&self, offer: &Forward) -> Option<bool> {
        let user = offer.to.to_bare();
        let stanza = Stanza::from_bytes(offer.stanza.clone()).ok()?;
        let (word, contact) = word(&stanza, &offer.to)?;
        let since = self.rosters.get(&(user.clone(), contact)).map(|last| stamp(last.of(word)));
        Some(since.is_some_and(|since| said_at(&stanza, &user).is_none_or(|said| said <= since)))
    }
}

/// `None`: it has no id.
fn name(stanza: &Bytes) -> Option<Name> {
    let stanza = Stanza::from_bytes(stanza.clone()).ok()?;
    let head = &stanza.head;
    let (from, to, id) = (head.from.as_ref()?, head.to.as_ref()?, head.id.as_ref()?);
    let mut says = DefaultHasher::new();
    head.type_.hash(&mut says);
    hash_content(&stanza.element(), &mut says);
    let (from, to, id) = (from.to_string(), to.to_bare().to_string(), id.to_string());
    Some(Name { from, to, id, says: says.finish() })
}

/// What is in an element, but for stamps of when it was sent at first.
fn hash_content(element: &Element, hasher: &mut DefaultHasher) {
    for child in element.children.iter().filter(|child| !child.is(DELAY, "delay")) {
        (child.ns.as_str(), child.name.as_str(), child.text.as_str(), child.attrs.len()).hash(hasher);
        for attr in &child.attrs {
            (attr.ns.as_str(), attr.name.as_str(), attr.value.as_str()).hash(hasher);
        }
        hash_content(child, hasher);
    }
    0xff_u8.hash(hasher);
}
