//! What an offer is compared with: stanzas that the winner's own branch took from its clients. Bytes are never
//! compared, because clients add a delay stamp when they send again.

use std::collections::BTreeSet;

use bytes::Bytes;
use xmpp_core::stanza::Stanza;

use crate::ids::StanzaId;
use crate::record::{Effect, Forward, Record};

/// Stanzas of one branch.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ids: BTreeSet<StanzaId>,
    named: BTreeSet<(String, String, String)>,
}

impl Seen {
    /// Notes the stanzas of a record.
    pub fn note(&mut self, record: &Record) {
        let effects = match record {
            Record::SmIn { session, number, effects } => {
                self.ids.insert(StanzaId { session: *session, number: *number });
                effects
            }
            Record::Done { effects, .. } | Record::Kept { effects, .. } => effects,
            _ => return,
        };
        for effect in effects {
            match effect {
                Effect::Out { stanza, .. } | Effect::Offline { stanza, .. } => {
                    self.named.extend(name(stanza));
                }
                Effect::Forward(forward) => self.named.extend(name(&forward.stanza)),
                _ => {}
            }
        }
    }

    /// Whether the same stanza was noted: by its sender's session and number there, or by sender, addressee and id.
    pub fn has(&self, offer: &Forward) -> bool {
        self.ids.contains(&offer.id) || name(&offer.stanza).is_some_and(|name| self.named.contains(&name))
    }
}

fn name(stanza: &Bytes) -> Option<(String, String, String)> {
    let head = Stanza::from_bytes(stanza.clone()).ok()?.head;
    let (from, to) = (head.from?, head.to?);
    Some((from.to_string(), to.to_bare().to_string(), head.id?.to_string()))
}
