//! The state as keys and values, for a store: what a record touches, what stands under a key, and a state read back.
//!
//! A key begins with a letter for its kind. Values are written by `postcard`; they have no format of their own to keep,
//! because a store can always be built again from the logs. But the peer may be of the version before or after: a value
//! grows at its end only. What is longer than expected is read as far as it is known; what is shorter gets what was so
//! before there was more.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::Bound;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use xmpp_core::jid::BareJid;

use super::{EarlyOnes, GroupInfo, Place, State};
use crate::ids::{Group, NodeIx, Position, RecordId, SmId, StanzaId};
use crate::record::{Effect, Record};

/// What stands under one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// Registers and marks of both groups.
    Groups,
    /// An account with its roster and its offline messages.
    User(BareJid),
    /// A session.
    Session(SmId),
    /// A forward that is not done.
    Forward(RecordId),
    /// A stanza that a void branch brought (D7).
    Kept(StanzaId),
}

/// A pair that no state wrote: the store is to be built again from the logs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the store holds a pair that cannot be read ({0})")]
pub struct PairError(&'static str);

/// Keys whose values changed and were not taken yet; no part of what a state is.
#[derive(Clone, Default, Debug)]
pub(super) struct Touched(Option<BTreeSet<Key>>);

impl Touched {
    pub(super) fn add(&mut self, key: Key) {
        if let Some(keys) = &mut self.0 {
            keys.insert(key);
        }
    }
}

impl PartialEq for Touched {
    fn eq(&self, _: &Touched) -> bool {
        true
    }
}

impl Eq for Touched {}

impl Hash for Touched {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Key {
    /// The bytes that a store sorts by.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Key::Groups => vec![b'g'],
            Key::User(user) => [b"u", user.as_str().as_bytes()].concat(),
            Key::Session(id) => [&b"s"[..], &id.0].concat(),
            Key::Forward(id) => {
                let (log, at, index) = (id.log.index() as u8, id.at, id.index);
                let parts = [&b"f"[..], &[log], &at.seq.to_be_bytes(), &at.inc.to_be_bytes()];
                [&parts.concat()[..], &index.to_be_bytes()].concat()
            }
            Key::Kept(id) => [&b"k"[..], &id.session.0, &id.number.to_be_bytes()].concat(),
        }
    }

    fn read(bytes: &[u8]) -> Option<Key> {
        let (kind, rest) = bytes.split_first()?;
        Some(match kind {
            b'g' if rest.is_empty() => Key::Groups,
            b'u' => Key::User(BareJid::parse(std::str::from_utf8(rest).ok()?).ok()?),
            b's' => Key::Session(SmId(rest.try_into().ok()?)),
            b'f' if rest.len() == 21 => {
                let number =
                    |from: usize| u64::from_be_bytes(rest[from..from + 8].try_into().expect("eight"));
                let at = Position { seq: number(1), inc: number(9) };
                let index = u32::from_be_bytes(rest[17..].try_into().expect("four bytes"));
                Key::Forward(RecordId { log: NodeIx::from_index(rest[0].into())?, at, index })
            }
            b'k' if rest.len() == 20 => {
                let (session, number) = rest.split_at(16);
                let number = u32::from_be_bytes(number.try_into().expect("four bytes"));
                Key::Kept(StanzaId { session: SmId(session.try_into().expect("sixteen bytes")), number })
            }
            _ => return None,
        })
    }
}

fn behind<T>(key: Option<T>) -> (Bound<T>, Bound<T>) {
    (key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

fn write(value: &impl Serialize) -> Bytes {
    Bytes::from(postcard::to_stdvec(value).expect("plain data can be written"))
}

/// A value that ended before `more` in the version before.
fn parse_grown<T: DeserializeOwned>(bytes: &[u8], more: &impl Serialize) -> Result<T, PairError> {
    parse(bytes).or_else(|_| parse(&[bytes, &write(more)].concat()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PairError> {
    postcard::from_bytes(bytes).map_err(|_| PairError("value"))
}

impl State {
    /// From now on it is noted what changes, for a store.
    pub fn note_changes(&mut self) {
        self.touched.0.get_or_insert_default();
    }

    /// Everything counts as changed: whoever takes the changes next takes the whole state.
    pub fn note_all(&mut self) {
        let Some(touched) = &mut self.touched.0 else { return };
        touched.insert(Key::Groups);
        touched.extend(self.users.keys().cloned().map(Key::User));
        touched.extend(self.sessions.keys().copied().map(Key::Session));
        touched.extend(self.undone.keys().copied().map(Key::Forward));
        touched.extend(self.kept.keys().copied().map(Key::Kept));
    }

    /// Keys whose values changed since the last call, in order.
    pub fn take_changes(&mut self) -> BTreeSet<Key> {
        self.touched.0.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether anything changed since.
    pub fn has_changes(&self) -> bool {
        self.touched.0.as_ref().is_some_and(|keys| !keys.is_empty())
    }

    /// Whether what stands under the key has changed since.
    pub fn has_changed(&self, key: &[u8]) -> bool {
        let (Some(touched), Some(key)) = (&self.touched.0, Key::read(key)) else { return false };
        touched.contains(&key)
    }

    /// All keys behind this one, in the order of their bytes.
    pub fn keys_after(&self, after: &[u8]) -> impl Iterator<Item = Key> {
        let (mut forward, mut stanza, mut session, mut user) = (None, None, None, None);
        match Key::read(after) {
            Some(Key::Forward(id)) => forward = Some(id),
            Some(Key::Kept(id)) => stanza = Some(id),
            Some(Key::Session(id)) => session = Some(id),
            Some(Key::User(jid)) => user = Some(jid),
            Some(Key::Groups) | None => {}
        }
        // Of the kinds before that of `after` nothing is left; of those behind it, everything.
        let left = |kind: u8| after.first().is_none_or(|first| *first <= kind);
        let forwards =
            left(b'f').then(|| self.undone.range(behind(forward)).map(|(id, _)| Key::Forward(*id)));
        let groups = (after < &b"g"[..]).then_some(Key::Groups);
        let kept = left(b'k').then(|| self.kept.range(behind(stanza)).map(|(id, _)| Key::Kept(*id)));
        let sessions = left(b's').then(|| self.sessions.range(behind(session)).map(Key::Session));
        let users = left(b'u').then(|| self.users.range(behind(user)).map(|(jid, _)| Key::User(jid.clone())));
        let (forwards, kept) = (forwards.into_iter().flatten(), kept.into_iter().flatten());
        let (sessions, users) = (sessions.into_iter().flatten(), users.into_iter().flatten());
        forwards.chain(groups).chain(kept).chain(sessions).chain(users)
    }

    /// What stands under a key; `None`: nothing.
    pub fn value(&self, key: &Key) -> Option<Bytes> {
        match key {
            Key::Groups => Some(write(&(self.leads, self.away, &self.ways, &self.group))),
            Key::User(user) => self.users.get(user).map(write),
            Key::Session(id) => self.sessions.get(id).map(write),
            Key::Forward(id) => self.undone.get(id).map(|f| write(&(f, self.offers.contains(id)))),
            Key::Kept(id) => self.kept.get(id).map(write),
        }
    }

    /// Takes a pair that an earlier state gave.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), PairError> {
        match Key::read(key).ok_or(PairError("key"))? {
            Key::Groups => {
                (self.leads, self.away, self.ways, self.group) = parse_grown(value, &GroupInfo::default())?;
            }
            Key::User(user) => _ = self.users.insert(user, parse_grown(value, &true)?),
            Key::Session(id) => {
                self.sessions.insert(id, parse_grown(value, &(0u32, EarlyOnes::default()))?);
            }
            Key::Forward(id) => {
                let (forward, offer) = parse(value)?;
                self.undone.insert(id, forward);
                if offer {
                    self.offers.insert(id);
                }
            }
            Key::Kept(id) => _ = self.kept.insert(id, parse(value)?),
        }
        Ok(())
    }

    /// Notes what a record that is about to be applied changes; copies that a count of another resource marks as seen
    /// are noted where that is done. It may name more than changes, never less.
    pub(super) fn note(&mut self, place: Place, record: &Record) {
        let Some(mut touched) = self.touched.0.take() else { return };
        self.touches(place, record, &mut touched);
        self.touched.0 = Some(touched);
    }

    fn touches(&self, place: Place, record: &Record, keys: &mut BTreeSet<Key>) {
        match record {
            Record::Lead { group, reg, .. } => {
                keys.insert(Key::Groups);
                keys.extend(self.kept.keys().map(|id| Key::Kept(*id)));
                if self.lead(*group) != Some(*reg) {
                    self.members_of(*group, keys);
                }
            }
            Record::Absorb { from, .. } => self.members_of(*from, keys),
            Record::Away { .. } | Record::Group(_) => _ = keys.insert(Key::Groups),
            Record::UserAdd { user, .. } | Record::UserPasswd { user, .. } | Record::Assign { user, .. } => {
                keys.insert(Key::User(user.clone()));
            }
            Record::HandOver { user, .. } => self.user_and_sessions(user, keys),
            Record::UserRemove { user, effects } => {
                self.user_and_sessions(user, keys);
                self.effects(place, effects, keys);
            }
            Record::Bind { session, user, resource, effects, .. } => {
                keys.insert(Key::Session(*session));
                keys.insert(Key::User(user.clone()));
                let before = self.users.get(user).and_then(|u| u.sessions.get(resource));
                keys.extend(before.map(|id| Key::Session(*id)));
                self.effects(place, effects, keys);
            }
            Record::Enable { session, .. }
            | Record::Dual { session }
            | Record::Token { session, .. }
            | Record::Trim { session, .. }
            | Record::Resumed { session, .. }
            | Record::Reattached { session, .. }
            | Record::Detached { session, .. } => {
                keys.insert(Key::Session(*session));
            }
            Record::SmIn { session, effects, .. } => {
                keys.insert(Key::Session(*session));
                self.effects(place, effects, keys);
            }
            Record::Flush { session, .. } => {
                keys.insert(Key::Session(*session));
                if let Some(s) = self.sessions.get(session) {
                    keys.insert(Key::User(s.user.clone()));
                }
            }
            Record::Lapse { session, effects } => {
                keys.insert(Key::Session(*session));
                self.effects(place, effects, keys);
            }
            Record::End { session, effects, .. } => {
                keys.insert(Key::Session(*session));
                if let Some(s) = self.sessions.get(session) {
                    keys.insert(Key::User(s.user.clone()));
                }
                self.effects(place, effects, keys);
            }
            Record::Done { forward, effects } | Record::Cancel { forward, effects } => {
                keys.insert(Key::Forward(*forward));
                self.effects(place, effects, keys);
            }
            record if record.says_nothing() => {}
            Record::Kept { stanza, effects, .. } => {
                keys.insert(Key::Kept(*stanza));
                self.effects(place, effects, keys);
            }
        }
    }

    fn effects(&self, mut place: Place, effects: &[Effect], keys: &mut BTreeSet<Key>) {
        for effect in effects {
            match effect {
                Effect::Out { to: session, .. }
                | Effect::Presence { session, .. }
                | Effect::Flag { session, .. }
                | Effect::Directed { session, .. } => _ = keys.insert(Key::Session(*session)),
                Effect::Gap { to, .. } => keys.extend(to.iter().map(|id| Key::Session(*id))),
                Effect::Offline { user, .. } | Effect::Roster { user, .. } => {
                    keys.insert(Key::User(user.clone()));
                }
                Effect::Forward(_) | Effect::Offer(_) => _ = keys.insert(Key::Forward(place.next_forward())),
                Effect::FanOut { to, .. } => {
                    keys.extend(to.iter().map(|_| Key::Forward(place.next_forward())));
                }
                Effect::FlushOffline { session, .. } => {
                    keys.insert(Key::Session(*session));
                    if let Some(s) = self.sessions.get(session) {
                        keys.insert(Key::User(s.user.clone()));
                    }
                }
            }
        }
    }

    fn members_of(&self, group: Group, keys: &mut BTreeSet<Key>) {
        for (jid, user) in self.users.iter().filter(|(_, u)| u.register == group) {
            keys.insert(Key::User(jid.clone()));
            keys.extend(user.sessions.values().map(|id| Key::Session(*id)));
        }
    }

    fn user_and_sessions(&self, user: &BareJid, keys: &mut BTreeSet<Key>) {
        keys.insert(Key::User(user.clone()));
        if let Some(u) = self.users.get(user) {
            keys.extend(u.sessions.values().map(|id| Key::Session(*id)));
        }
    }
}
