//! Sessions by their id, and which of them wait for a time: those are looked through every second, and must be found without
//! looking at all.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::{Bound, Deref, DerefMut};

use super::session::JsmSession;
use crate::ids::SmId;

/// All sessions of a state.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    all: BTreeMap<SmId, JsmSession>,
    /// Those for which [`JsmSession::is_timed`]; no part of what a state is.
    timed: BTreeSet<SmId>,
}

impl PartialEq for Sessions {
    fn eq(&self, other: &Sessions) -> bool {
        self.all == other.all
    }
}

impl Eq for Sessions {}

impl Hash for Sessions {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.all.hash(hasher);
    }
}

impl Sessions {
    pub(super) fn get(&self, id: &SmId) -> Option<&JsmSession> {
        self.all.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SmId, &JsmSession)> {
        self.all.iter()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &SmId> {
        self.all.keys()
    }

    pub(super) fn range(&self, ids: (Bound<SmId>, Bound<SmId>)) -> impl Iterator<Item = SmId> {
        self.all.range(ids).map(|(id, _)| *id)
    }

    /// Sessions that wait for a time, in order of their ids.
    pub(super) fn timed(&self) -> impl Iterator<Item = (SmId, &JsmSession)> {
        self.timed.iter().filter_map(|id| self.all.get(id).map(|s| (*id, s)))
    }

    pub(super) fn insert(&mut self, id: SmId, session: JsmSession) {
        if session.is_timed() {
            self.timed.insert(id);
        } else {
            self.timed.remove(&id);
        }
        self.all.insert(id, session);
    }

    pub(super) fn remove(&mut self, id: &SmId) -> Option<JsmSession> {
        self.timed.remove(id);
        self.all.remove(id)
    }

    /// A session to be changed.
    pub(super) fn get_mut(&mut self, id: &SmId) -> Option<Changing<'_>> {
        let session = self.all.get_mut(id)?;
        Some(Changing { id: *id, was_timed: session.is_timed(), session, timed: &mut self.timed })
    }

    /// Whether those that wait for a time are what a look at all sessions finds.
    #[cfg(test)]
    pub(super) fn agrees(&self) -> bool {
        let timed = self.all.iter().filter(|(_, s)| s.is_timed()).map(|(id, _)| id);
        timed.eq(&self.timed)
    }
}

/// A session that is being changed. What it waits for then is seen when this is dropped.
pub(super) struct Changing<'a> {
    id: SmId,
    was_timed: bool,
    session: &'a mut JsmSession,
    timed: &'a mut BTreeSet<SmId>,
}

impl Deref for Changing<'_> {
    type Target = JsmSession;

    fn deref(&self) -> &JsmSession {
        self.session
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut JsmSession {
        self.session
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        match (self.was_timed, self.session.is_timed()) {
            (false, true) => _ = self.timed.insert(self.id),
            (true, false) => _ = self.timed.remove(&self.id),
            _ => {}
        }
    }
}
