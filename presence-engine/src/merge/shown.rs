//! What contacts believe of each other where two branches meet. The owner of a watcher and the owner of whom they watch
//! may be two nodes, and each has let its own branch of both talk: the watcher was shown a branch that is void, and has not
//! been shown the one that stands.
//!
//! In the end every watcher believes what the merged state says:
//!
//! - What a watcher believes is what stood where the branches parted, and on top of it what the branch of the watcher's
//!   own node showed. Who did not change in either branch is believed to be what they are: nothing is said.
//! - Who changed in the branch that stands did so in the tail of their owner, which showed it to void copies of the
//!   watchers. With the last change of a session in the tail goes a fan-out to all contacts of the other group, also to those
//!   who had no session here.
//! - Who changed in the void branch, and whom it was shown: the watcher's node asks for that one full JID, in the frame that
//!   showed it. The owner answers with what it holds then. An answer cannot be overtaken by what was shown before: it comes
//!   with a later frame of the owner's log, and the watcher's node meets that behind its whole tail.
//! - Fan-outs, answers and later changes stand in one log, the owner's, in the order of the states that they tell, and are done
//!   in that order. So the last that a watcher hears is the state that stands.
//!
//! Nothing of this is remembered elsewhere: a node that dies finds question and fan-out in its log, where each is done once.
//! Should the tail be cut again, both are made again from the records that are left. To hear the same twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::Writer;

use super::{Kept, Merge};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Forward, Record};
use crate::state::{Entry, JsmSession, State};

/// What is known of presence in a tail.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Changes of each session's presence that the tail still holds.
    to_come: BTreeMap<SmId, u32>,
    /// Sessions of whom contacts of the other group have yet to be told: they are told the last change only.
    owed: BTreeSet<SmId>,
    /// Users of lost groups who are another in this branch, or let others see them, than where the branches parted.
    changed: BTreeSet<BareJid>,
    /// What was asked for, and for whom.
    asked: BTreeSet<(Jid, BareJid)>,
}

/// A change of a session's presence that its contacts hear of.
struct Change<'a> {
    session: SmId,
    number: Option<u32>,
    /// Available, and the stanza that says so or not; `None`: the session is over, or was given up.
    said: Option<(bool, &'a Bytes)>,
}

impl Shown {
    pub(super) fn foresee(&mut self, record: &Record) {
        if let Some(change) = change(record) {
            *self.to_come.entry(change.session).or_default() += 1;
        }
    }

    /// Whether this is the last change of the session in the tail.
    fn is_last(&mut self, session: SmId) -> bool {
        let left = self.to_come.entry(session).or_insert(1);
        *left = left.saturating_sub(1);
        *left == 0
    }
}

impl Merge {
    /// What goes along with a record that is about to be applied to `state`, and of which `kept` is left.
    pub(super) fn presence(&mut self, state: &State, record: &Record, kept: &[Kept]) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.tell_directed(state, record, &mut effects);
        self.tell_change(state, record, &mut effects);
        self.note_changed(state, record);
        for (about, watcher) in self.shown(state, record, kept) {
            let lost = about.resource().is_some() && self.shown.changed.contains(&about.to_bare());
            if lost && self.shown.asked.insert((about.clone(), watcher.clone())) {
                let stanza = probe(&watcher, &about);
                effects.push(Effect::Forward(Forward { to: about, id: StanzaId::default(), stanza }));
            }
        }
        effects
    }

    /// To contacts of the other group, the presence of a session that is led here on.
    fn tell_change(&mut self, state: &State, record: &Record, effects: &mut Vec<Effect>) {
        let Some(Change { session, number, said }) = change(record) else { return };
        let last = self.shown.is_last(session);
        let Some(s) = state.session(session).filter(|s| self.leads(state, &s.user)) else { return };
        let available = said.is_some_and(|(available, _)| available);
        if !available && !s.visible && !self.shown.owed.contains(&session) {
            return;
        }
        if !last {
            self.shown.owed.insert(session);
            return;
        }
        self.shown.owed.remove(&session);
        let (Some(user), Some(from)) = (state.user(&s.user), address(s)) else { return };
        let told = |contact: &BareJid| {
            let by = |e: &Effect| matches!(e, Effect::FanOut { to, .. } if to.contains(contact));
            record.effects().iter().any(by)
        };
        let seen = user.roster.items.iter().filter(|(_, item)| item.subscription.is_seen());
        let lost = |contact: &BareJid| state.user(contact).is_some() && !self.leads(state, contact);
        let to: Vec<BareJid> =
            seen.map(|(contact, _)| contact.clone()).filter(|c| lost(c) && !told(c)).collect();
        if !to.is_empty() {
            let stanza = said.map_or_else(|| unavailable(&from, None), |(_, stanza)| stanza.clone());
            effects.push(Effect::FanOut { id: id_of(session, number, s), to, stanza });
        }
    }

    /// Directed presence (RFC 6121 4.6) of a session that is led here on, to whoever is not: each as it was said, and at
    /// the end, that it is over, also where no session was there to hear it.
    fn tell_directed(&self, state: &State, record: &Record, effects: &mut Vec<Effect>) {
        let (session, number) = match record {
            Record::SmIn { session, number, .. } => (*session, Some(*number)),
            Record::End { session, .. } | Record::Lapse { session, .. } => (*session, None),
            _ => return,
        };
        let Some(s) = state.session(session).filter(|s| self.leads(state, &s.user)) else { return };
        let lost = |to: &Jid| {
            let user = to.to_bare();
            state.user(&user).is_some() && !self.leads(state, &user)
        };
        let mut told = BTreeSet::new();
        let id = id_of(session, number, s);
        let mut tell = |to: &Jid, stanza: Bytes| {
            if lost(to) && told.insert(to.clone()) {
                effects.push(Effect::Forward(Forward { to: to.clone(), id, stanza }));
            }
        };
        for effect in record.effects() {
            if let Effect::Out { stanza, .. } = effect
                && let Some((_, Some(to))) = availability(stanza)
            {
                tell(&to, stanza.clone());
            }
        }
        let over = change(record).is_some_and(|change| change.said.is_none_or(|(available, _)| !available));
        if let Some(from) = address(s).filter(|_| over) {
            s.directed.iter().for_each(|to| tell(to, unavailable(&from, Some(to))));
        }
    }

    fn note_changed(&mut self, state: &State, record: &Record) {
        let of_session = |id: &SmId| state.session(*id).map(|s| s.user.clone());
        let mut users: Vec<BareJid> = match record {
            Record::End { session, .. } | Record::Lapse { session, .. } => {
                of_session(session).into_iter().collect()
            }
            Record::Bind { user, .. } | Record::UserRemove { user, .. } => vec![user.clone()],
            _ => Vec::new(),
        };
        users.extend(record.effects().iter().filter_map(|effect| match effect {
            Effect::Presence { session, .. } | Effect::Directed { session, .. } => of_session(session),
            Effect::Roster { user, .. } => Some(user.clone()),
            _ => None,
        }));
        users.retain(|user| !self.leads(state, user));
        self.shown.changed.extend(users);
    }

    /// Whose presence users of this node are shown by what is left of a record: (full JID, user).
    fn shown(&self, state: &State, record: &Record, kept: &[Kept]) -> Vec<(Jid, BareJid)> {
        let mut shown = Vec::new();
        let user_of = |id: &SmId| state.session(*id).map(|s| s.user.clone());
        for effect in kept.iter().flat_map(|(_, record)| record.effects()) {
            match effect {
                Effect::Gap { about: Some(about), to } => {
                    shown.extend(to.iter().filter_map(user_of).map(|user| (about.clone(), user)));
                }
                Effect::Out { to, stanza, .. } => {
                    let about = availability(stanza).map(|(from, _)| from);
                    shown.extend(about.zip(user_of(to)));
                }
                _ => {}
            }
        }
        // Who comes back is told what stands in the place of gaps.
        if let Record::Resumed { session, .. } | Record::Reattached { session, .. } = record
            && let Some(s) = state.session(*session).filter(|s| self.leads(state, &s.user))
        {
            let gaps = s.out.iter().filter_map(|entry| match entry {
                Entry::Gap { about } => about.as_ref(),
                Entry::Stanza { .. } => None,
            });
            shown.extend(gaps.chain(&s.missed).map(|about| (about.clone(), s.user.clone())));
        }
        shown
    }
}

fn change(record: &Record) -> Option<Change<'_>> {
    match record {
        Record::SmIn { session, number, effects } => effects.iter().find_map(|effect| match effect {
            Effect::Presence { session: whose, priority, stanza } if whose == session => {
                let said = Some((priority.is_some(), stanza));
                Some(Change { session: *session, number: Some(*number), said })
            }
            _ => None,
        }),
        Record::End { session, .. } | Record::Lapse { session, .. } => {
            Some(Change { session: *session, number: None, said: None })
        }
        _ => None,
    }
}

/// What a session's own end says bears the number after its last stanza.
fn id_of(session: SmId, number: Option<u32>, s: &JsmSession) -> StanzaId {
    StanzaId { session, number: number.unwrap_or_else(|| s.inbound.wrapping_add(1)) }
}

fn address(s: &JsmSession) -> Option<Jid> {
    s.user.with_resource(&s.resource).ok().map(Jid::from)
}

/// Who is available or not any more, and who is told by address.
pub(super) fn availability(stanza: &Bytes) -> Option<(Jid, Option<Jid>)> {
    let head = Stanza::from_bytes(stanza.clone()).ok()?.head;
    let says = head.kind == Kind::Presence && matches!(head.type_.as_deref(), None | Some("unavailable"));
    Some((head.from.filter(|_| says)?, head.to))
}

pub(crate) fn probe(from: &BareJid, to: &Jid) -> Bytes {
    let mut w = Writer::new();
    w.open("presence", ns::CLIENT).attr("from", from).attr("to", to).attr("type", "probe");
    w.finish()
}

fn unavailable(from: &Jid, to: Option<&Jid>) -> Bytes {
    let mut w = Writer::new();
    w.open("presence", ns::CLIENT).attr("from", from).attr_opt("to", to).attr("type", "unavailable");
    w.finish()
}
