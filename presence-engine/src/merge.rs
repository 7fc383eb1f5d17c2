//! What is kept of the divergent tail of a log (D7): after a partition both nodes may have led both groups alone. The
//! node that leads a group in the end keeps its own branch of that group's sessions; of the other branch only messages
//! that had been acknowledged to their senders are offered to it, never counters, numbers or trims.
//!
//! The loser's log is one file with records of both groups. Its tail is cut where the first void record stands, and
//! what this module makes of it is written in its place: records of groups that this node still leads as they are;
//! what void senders brought to users of those groups as [`Record::Kept`]; messages for users of lost groups as
//! forwards to the node that leads them.

use std::collections::BTreeSet;

use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use crate::ids::{Group, NodeIx, SmId, StanzaId};
use crate::record::{Effect, Forward, Record};
use crate::state::State;

/// Carbons (XEP-0280): copies, which are not offered; the message itself is.
const CARBONS: &str = "urn:xmpp:carbons:2";

/// Turns the records of one tail into those that replace them.
#[derive(Clone, Copy, Debug)]
pub struct Merge {
    /// The node that wrote the tail.
    pub me: NodeIx,
    /// Groups that it leads still, by index.
    pub led: [bool; 2],
    /// Groups whose records in this frame had been let go alone, by index.
    pub released: [bool; 2],
    /// When the frame was written, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Merge {
    /// What is left of a record that is about to be applied to `state`, this branch as it was then; with the groups
    /// that it belongs to as a bit mask.
    pub fn keep(&self, state: &State, record: &Record) -> Option<(u8, Record)> {
        let of_user = |user: &BareJid| state.user(user).map(|u| u.register);
        let of_session = |id: &SmId| state.session(*id).and_then(|s| of_user(&s.user));
        let as_it_is = |group: Option<Group>| {
            let group = group.filter(|g| self.led[g.index()])?;
            Some((1 << group.index(), record.clone()))
        };
        match record {
            Record::SmIn { session, number, effects } => {
                let group = of_session(session)?;
                let id = StanzaId { session: *session, number: *number };
                self.stanza(state, group, id, effects, |effects| Record::SmIn {
                    session: *session,
                    number: *number,
                    effects,
                })
            }
            Record::Done { forward, effects } => {
                let undone = state.undone_forward(*forward)?;
                let group = of_user(&undone.to.to_bare())?;
                self.stanza(state, group, undone.id, effects, |effects| Record::Done {
                    forward: *forward,
                    effects,
                })
            }
            // What was kept once is kept again: it belongs to nobody's branch.
            Record::Kept { stanza, at_ms, effects } => {
                let effects = self.effects(state, effects, true);
                let mask = mask_of(state, &effects);
                Some((mask, Record::Kept { stanza: *stanza, at_ms: *at_ms, effects }))
            }
            // An account is there once it was added; the log that both nodes read first decides between two.
            Record::UserAdd { .. } => Some((0, record.clone())),
            Record::Lead { group, .. } => as_it_is(Some(*group)),
            Record::Idle { .. } => as_it_is(Some(self.me)),
            Record::Bind { user, .. } => as_it_is(of_user(user)),
            Record::Enable { session, .. }
            | Record::Dual { session }
            | Record::Trim { session, .. }
            | Record::Resumed { session, .. }
            | Record::Detached { session, .. }
            | Record::End { session, .. } => as_it_is(of_session(session)),
            // Nobody hands over alone, and what one branch gave or took the other never heard of.
            Record::HandOver { .. } | Record::Absorb { .. } => None,
        }
    }

    /// A stanza with its effects: counted still, or only kept.
    fn stanza(
        &self,
        state: &State,
        group: Group,
        stanza: StanzaId,
        effects: &[Effect],
        counted: impl FnOnce(Vec<Effect>) -> Record,
    ) -> Option<(u8, Record)> {
        let valid = self.led[group.index()];
        let mut effects = self.effects(state, effects, !valid);
        if !valid && !self.released[group.index()] {
            // Its sender was told nothing and sends it again; users here may have been given numbers for it.
            effects.retain(is_visible);
        }
        let mask = mask_of(state, &effects);
        if valid {
            return Some((mask | 1 << group.index(), counted(effects)));
        }
        (!effects.is_empty()).then_some((mask, Record::Kept { stanza, at_ms: self.at_ms, effects }))
    }

    /// Effects on users that are led here stay; messages for the others go to the node that leads them. `void`: their
    /// sender's branch is void, so that the winner may have them already.
    fn effects(&self, state: &State, effects: &[Effect], void: bool) -> Vec<Effect> {
        let led = |user: &BareJid| state.user(user).is_some_and(|u| self.led[u.register.index()]);
        let led_session = |id: &SmId| state.session(*id).is_some_and(|s| led(&s.user));
        let mut told = BTreeSet::new();
        let mut kept = Vec::new();
        for effect in effects {
            match effect {
                Effect::Out { to, id, stanza, .. } if !led_session(to) => {
                    let Some(user) = state.session(*to).map(|s| s.user.clone()) else { continue };
                    if let Some(address) = addressee(stanza, &user).filter(|_| told.insert((*id, user))) {
                        let forward = Forward { to: address, id: *id, stanza: stanza.clone() };
                        kept.push(if void { Effect::Offer(forward) } else { Effect::Forward(forward) });
                    }
                }
                Effect::Offline { user, id, stanza, .. } if !led(user) => {
                    if told.insert((*id, user.clone())) {
                        let forward = Forward { to: (**user).clone(), id: *id, stanza: stanza.clone() };
                        kept.push(if void { Effect::Offer(forward) } else { Effect::Forward(forward) });
                    }
                }
                Effect::Gap { to: session }
                | Effect::Presence { session, .. }
                | Effect::FlushOffline { session }
                    if !led_session(session) => {}
                Effect::Forward(forward) if void => kept.push(Effect::Offer(forward.clone())),
                Effect::Out { .. }
                | Effect::Gap { .. }
                | Effect::Offline { .. }
                | Effect::Forward(_)
                | Effect::Offer(_)
                | Effect::Presence { .. }
                | Effect::FlushOffline { .. } => kept.push(effect.clone()),
            }
        }
        kept
    }
}

/// To whom a stanza in a session's queue was sent, if the other node should have it: messages of people, and requests
/// that somebody waits for.
fn addressee(stanza: &bytes::Bytes, user: &BareJid) -> Option<Jid> {
    let stanza = Stanza::from_bytes(stanza.clone()).ok()?;
    let head = &stanza.head;
    let type_ = head.type_.as_deref();
    let wanted = match head.kind {
        Kind::Message => {
            type_ != Some("error") && !head.has_child(CARBONS, "sent") && !head.has_child(CARBONS, "received")
        }
        Kind::Iq => matches!(type_, Some("get" | "set")),
        Kind::Presence | Kind::Other => false,
    };
    wanted.then(|| head.to.clone().unwrap_or_else(|| (**user).clone()))
}

/// Groups of the users whose sessions and offline messages these effects touch, as a bit mask.
fn mask_of(state: &State, effects: &[Effect]) -> u8 {
    let of_user = |user: &BareJid| state.user(user).map_or(0, |u| 1 << u.register.index());
    let of_session = |id: &SmId| state.session(*id).map_or(0, |s| of_user(&s.user));
    effects.iter().fold(0, |mask, effect| {
        mask | match effect {
            Effect::Out { to: session, .. }
            | Effect::Gap { to: session }
            | Effect::Presence { session, .. }
            | Effect::FlushOffline { session } => of_session(session),
            Effect::Offline { user, .. } => of_user(user),
            Effect::Forward(_) | Effect::Offer(_) => 0,
        }
    })
}

/// Stanzas that a branch took from its clients: what an offer is compared with. Bytes are never compared, because
/// clients add a delay stamp when they send again.
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
            Record::Kept { stanza, effects, .. } => {
                if effects.iter().any(is_visible) {
                    self.ids.insert(*stanza);
                }
                effects
            }
            Record::Done { effects, .. } => effects,
            _ => return,
        };
        for effect in effects {
            if let Effect::Out { stanza, .. } | Effect::Offline { stanza, .. } = effect {
                self.named.extend(name(stanza));
            } else if let Effect::Forward(forward) = effect {
                self.named.extend(name(&forward.stanza));
            }
        }
    }

    /// Whether the same stanza was noted: by its sender's session and number there, or by sender, addressee and id.
    pub fn has(&self, offer: &Forward) -> bool {
        self.ids.contains(&offer.id) || name(&offer.stanza).is_some_and(|name| self.named.contains(&name))
    }
}

/// Whether an effect reached a user of the node that wrote it.
pub(crate) fn is_visible(effect: &Effect) -> bool {
    !matches!(effect, Effect::Forward(_) | Effect::Offer(_))
}

fn name(stanza: &bytes::Bytes) -> Option<(String, String, String)> {
    let head = Stanza::from_bytes(stanza.clone()).ok()?.head;
    let (from, to) = (head.from?, head.to?);
    Some((from.to_string(), to.to_bare().to_string(), head.id?.to_string()))
}
