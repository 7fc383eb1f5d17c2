//! The two ends of a subscription where two branches meet. A word of a void user changed the contact's end at once, if the
//! contact is led on here, and is said again to the user's owner (`words.rs`). If the user has said something later there the
//! word is dropped, and the contact's end stays as it made it.
//!
//! So the contact's node asks, behind the last that its tail says of the two, for what the user's roster says of the contact
//! (RFC 6121 4.3.2: a probe of the account). The owner knows both ends, and waits with the answer until nothing is on its way
//! between them (`engine/ends.rs`). To be asked twice changes nothing, and a node of a version before does not answer.

use std::collections::{BTreeMap, BTreeSet};

use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use super::shown::probe;
use super::words::{Word, ask, word};
use super::{Kept, Merge};
use crate::ids::StanzaId;
use crate::record::{Effect, Forward, Record};
use crate::state::State;

/// Two users, in order of their names.
pub(crate) type Pair = (BareJid, BareJid);

/// What is known of subscriptions in a tail.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// What the tail still says of two users to each other.
    to_come: BTreeMap<Pair, u32>,
    /// Who asks, and for whose end.
    owed: BTreeSet<(BareJid, BareJid)>,
}

impl Ends {
    pub(super) fn foresee(&mut self, record: &Record) {
        for pair in pairs(record) {
            *self.to_come.entry(pair).or_default() += 1;
        }
    }

    /// Whether this is the last that the tail says of the two.
    fn is_last(&mut self, pair: &Pair) -> bool {
        let left = self.to_come.entry(pair.clone()).or_insert(1);
        *left = left.saturating_sub(1);
        *left == 0
    }
}

impl Merge {
    /// What goes along with a record that is about to be applied to `state`, and of which `kept` is left.
    pub(super) fn ends(&mut self, state: &State, record: &Record, kept: &[Kept]) -> Vec<Effect> {
        for (_, left) in kept {
            self.owe_for_rosters(state, left);
        }
        for effect in kept.iter().flat_map(|(_, record)| record.effects()) {
            let Effect::Offer(forward) = effect else { continue };
            let said = Stanza::from_bytes(forward.stanza.clone()).ok().and_then(|s| word(&s, &forward.to));
            if let Some((Word::Ask(_) | Word::Remove, contact)) = said
                && self.leads(state, &contact)
            {
                self.ends.owed.insert((contact, forward.to.to_bare()));
            }
        }
        let mut effects = Vec::new();
        for (one, other) in pairs(record) {
            if !self.ends.is_last(&(one.clone(), other.clone())) {
                continue;
            }
            for (asker, user) in [(one.clone(), other.clone()), (other, one)] {
                if self.ends.owed.remove(&(asker.clone(), user.clone())) {
                    let to = (*user).clone();
                    let stanza = probe(&asker, &to);
                    effects.push(Effect::Forward(Forward { to, id: StanzaId::default(), stanza }));
                }
            }
        }
        effects
    }

    /// What a void user said, or an account by itself, stays in rosters that are led on here though it is not said again: it was told
    /// nobody, or the owner's account says it no more.
    fn owe_for_rosters(&mut self, state: &State, left: &Record) {
        let Record::Kept { effects, .. } = left else { return };
        for effect in effects {
            if let Effect::Roster { user, contact, .. } = effect
                && self.leads(state, user)
                && !self.leads(state, contact)
            {
                self.ends.owed.insert((user.clone(), contact.clone()));
            }
        }
    }
}

/// Users of whom a record says what they are to each other, whoever says it.
fn pairs(record: &Record) -> BTreeSet<Pair> {
    let two = record.effects().iter().filter_map(|effect| match effect {
        Effect::Roster { user, contact, .. } => Some(pair(user.clone(), contact.clone())),
        Effect::Forward(forward) | Effect::Offer(forward) => between(forward),
        _ => None,
    });
    two.collect()
}

/// The two of them.
pub(crate) fn pair(one: BareJid, other: BareJid) -> Pair {
    if one <= other { (one, other) } else { (other, one) }
}

/// Whose subscriptions a stanza changes that one user passes on to the other, or says to the own account.
pub(crate) fn between(forward: &Forward) -> Option<Pair> {
    let stanza = Stanza::from_bytes(forward.stanza.clone()).ok()?;
    let other = match word(&stanza, &forward.to) {
        Some((Word::Ask(_) | Word::Remove, contact)) => contact,
        Some((Word::Set, _)) => return None,
        None => {
            ask(&stanza)?;
            stanza.head.from.as_ref()?.to_bare()
        }
    };
    Some(pair(forward.to.to_bare(), other))
}

/// Who asks for the end of the account that a stanza is for. No client is routed such a stanza, nor can one send it.
pub(crate) fn question(stanza: &Stanza, to: &Jid) -> Option<BareJid> {
    let head = &stanza.head;
    let asks = head.kind == Kind::Presence && head.type_.as_deref() == Some("probe") && to.is_bare();
    head.from.as_ref().filter(|from| asks && from.is_bare()).map(Jid::to_bare)
}

/// Whether a forward is such a question.
pub(super) fn is_question(forward: &Forward) -> bool {
    let stanza = Stanza::from_bytes(forward.stanza.clone());
    stanza.is_ok_and(|stanza| question(&stanza, &forward.to).is_some())
}
