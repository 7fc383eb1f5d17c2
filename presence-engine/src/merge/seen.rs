//! What the other branch brings is compared with: stanzas that this branch took from its clients, and what void senders
//! brought to users who are led here. Bytes are never compared, because clients add a delay stamp when they send again;
//! what a message says is, because a client may begin to count its ids anew.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::tree::Element;

use crate::ids::StanzaId;
use crate::record::{Effect, Forward, Record};

/// Stanzas that are remembered of each kind. Of more the oldest are forgotten, and may come once more.
const MOST: usize = 300_000;
/// When somebody else's stanza was sent at first (XEP-0203).
const DELAY: &str = "urn:xmpp:delay";

/// Stanzas of one branch.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ids: Recent<StanzaId>,
    /// What this branch took, from whomever.
    named: Recent<u128>,
    /// Messages that a sender who is led elsewhere may say once more there: this branch has them from before the branches
    /// parted, or from that sender.
    brought: Recent<u128>,
}

/// The last [`MOST`] of many.
#[derive(Clone, Debug)]
struct Recent<T> {
    all: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent { all: BTreeSet::new(), order: VecDeque::new() }
    }
}

impl<T: Ord + Copy> Recent<T> {
    fn insert(&mut self, one: T) {
        if !self.all.insert(one) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Seen {
    /// Notes the stanzas of a record.
    pub fn note(&mut self, record: &Record) {
        let brought = matches!(record, Record::Kept { .. });
        self.note_those(record, |_| true, brought);
    }

    /// The same of a record from before the branches parted, which both have: of what was said then a client may have
    /// heard nothing, and have said it again. Requests are put anew, and want another answer.
    pub fn note_before(&mut self, record: &Record) {
        self.note_those(record, |kind| kind == Kind::Message, true);
    }

    fn note_those(&mut self, record: &Record, wanted: impl Fn(Kind) -> bool, brought: bool) {
        let effects = match record {
            Record::SmIn { session, number, effects } => {
                self.ids.insert(StanzaId { session: *session, number: *number });
                effects
            }
            Record::Done { effects, .. } | Record::Kept { effects, .. } => effects,
            _ => return,
        };
        for effect in effects {
            let (stanza, here) = match effect {
                Effect::Out { stanza, .. } | Effect::Offline { stanza, .. } => (stanza, true),
                Effect::Forward(forward) => (&forward.stanza, false),
                _ => continue,
            };
            let Some((kind, name)) = name(stanza).filter(|(kind, _)| wanted(*kind)) else { continue };
            self.named.insert(name);
            if brought && here && kind == Kind::Message {
                self.brought.insert(name);
            }
        }
    }

    /// An offer was taken.
    pub fn note_taken(&mut self, offer: &Forward) {
        self.ids.insert(offer.id);
        if let Some((kind, name)) = name(&offer.stanza) {
            self.named.insert(name);
            if kind == Kind::Message {
                self.brought.insert(name);
            }
        }
    }

    /// Whether the same stanza was noted: by its sender's session and number there, or by sender, addressee, id and what it
    /// says.
    pub fn has(&self, offer: &Forward) -> bool {
        self.ids.all.contains(&offer.id)
            || name(&offer.stanza).is_some_and(|(_, name)| self.named.all.contains(&name))
    }

    /// Whether this branch has a message already that its sender, who is led elsewhere, said once more there.
    pub fn was_brought(&self, forward: &Forward) -> bool {
        !self.brought.all.is_empty()
            && name(&forward.stanza).is_some_and(|(_, name)| self.brought.all.contains(&name))
    }
}

/// By what a stanza is known that its client sends again in another session; `None` without an id.
fn name(stanza: &Bytes) -> Option<(Kind, u128)> {
    let stanza = Stanza::from_bytes(stanza.clone()).ok()?;
    let head = &stanza.head;
    let (from, to, id) = (head.from.as_ref()?, head.to.as_ref()?, head.id.as_ref()?);
    let says = stanza.element();
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, from.to_string(), to.to_string(), id.as_str(), head.type_.as_deref()).hash(&mut hasher);
        hash_content(&says, &mut hasher);
        u128::from(hasher.finish())
    };
    Some((head.kind, half(0) << 64 | half(1)))
}

fn hash_content(element: &Element, hasher: &mut DefaultHasher) {
    let is_delay = |child: &&Element| child.name == "delay" && child.ns == DELAY;
    element.text.hash(hasher);
    for child in element.children.iter().filter(|child| !is_delay(child)) {
        (child.name.as_str(), child.ns.as_str(), child.attrs.len()).hash(hasher);
        for attr in &child.attrs {
            (attr.name.as_str(), attr.ns.as_str(), attr.value.as_str()).hash(hasher);
        }
        hash_content(child, hasher);
    }
    0xffu8.hash(hasher);
}
