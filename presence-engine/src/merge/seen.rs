//! What an offer is compared with: stanzas that the winner's own branch took from its clients. Bytes are never
//! compared, because clients add a delay stamp when they send again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::word;
use super::words::{Last, done, said_at};
use crate::ids::StanzaId;
use crate::record::{Effect, Forward, Record};
use crate::state::stamp;

/// Stanzas of one branch.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ids: BTreeSet<StanzaId>,
    named: BTreeSet<(String, String, String)>,
    /// What users did to their own rosters, by user and contact.
    rosters: BTreeMap<(BareJid, BareJid), Last>,
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

    /// Whether the same stanza was noted: by its sender's session and number there, or by sender, addressee and id. Of a
    /// user's own roster, whether the user has said something of the same contact since.
    pub fn has(&self, offer: &Forward) -> bool {
        let named = || name(&offer.stanza).is_some_and(|name| self.named.contains(&name));
        self.ids.contains(&offer.id) || self.has_word(offer).unwrap_or_else(named)
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

fn name(stanza: &Bytes) -> Option<(String, String, String)> {
    let head = Stanza::from_bytes(stanza.clone()).ok()?.head;
    let (from, to) = (head.from?, head.to?);
    Some((from.to_string(), to.to_bare().to_string(), head.id?.to_string()))
}
