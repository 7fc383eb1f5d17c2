//! Who asked here for a failover or a fallback, for its events: the node and its peer know at which node it was asked for, and
//! no names.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use presence_engine::ids::Group;

use crate::node::{Moved, Stage};

/// A name, if the request bore one.
type Who = Option<Arc<str>>;

/// For each home whose users are moved.
#[derive(Debug, Default)]
pub(super) struct Movers(Mutex<[Slot; 2]>);

#[derive(Debug, Default)]
struct Slot {
    /// Requests that have no answer yet.
    pending: Vec<(u64, Who)>,
    next: u64,
    /// Of the last one that was begun.
    begun: Who,
}

/// A request without an answer; dropped, it came to nothing, or nobody knows.
pub(super) struct Asking<'a> {
    movers: &'a Movers,
    home: Group,
    number: u64,
}

impl Movers {
    /// An operator is about to ask for a move of this home's users: its first event may come before the answer.
    pub fn ask(&self, home: Group, who: Who) -> Asking<'_> {
        let slot = &mut self.lock()[home.index()];
        slot.next += 1;
        slot.pending.push((slot.next, who));
        Asking { movers: self, home, number: slot.next }
    }

    /// Who asked for the move that this is news of; it was asked for here.
    pub fn of(&self, moved: &Moved) -> Who {
        let slot = &mut self.lock()[moved.group.index()];
        match (moved.stage, slot.pending.as_slice()) {
            (Stage::Began, []) => slot.begun.clone(),
            (Stage::Began, [(_, who)]) => {
                slot.begun.clone_from(who);
                slot.begun.clone()
            }
            // Which of them it was is not known yet: better no name than another's.
            (Stage::Began, _) => {
                slot.begun = None;
                None
            }
            (Stage::Complete | Stage::Ended | Stage::Found, _) => slot.begun.take(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Slot; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// It was begun.
    pub fn begun(self) {
        let slot = &mut self.movers.lock()[self.home.index()];
        let found = slot.pending.iter().find(|(number, _)| *number == self.number);
        slot.begun = found.and_then(|(_, who)| who.clone());
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.movers.lock()[self.home.index()].pending.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Cause;
    use presence_engine::ids::NodeIx;

    const A: Group = NodeIx::A;

    fn told(movers: &Movers, group: Group, stage: Stage) -> Option<String> {
        let (cause, asked) = (Cause::Operator, Some(NodeIx::A));
        let moved = Moved { group, back: false, stage, cause, asked, users: 1, took_ms: None };
        movers.of(&moved).map(|who| who.to_string())
    }

    #[test]
    fn a_move_bears_the_name_of_who_asked_whether_its_first_event_or_the_answer_comes_first() {
        let movers = Movers::default();
        let asking = movers.ask(A, Some("alice".into()));
        assert_eq!(told(&movers, A, Stage::Began).as_deref(), Some("alice"));
        assert_eq!(told(&movers, NodeIx::B, Stage::Began), None, "the other's users");
        asking.begun();
        assert_eq!(told(&movers, A, Stage::Complete).as_deref(), Some("alice"));
        assert_eq!(told(&movers, A, Stage::Complete), None, "once");
        movers.ask(A, Some("bob".into())).begun();
        assert_eq!(told(&movers, A, Stage::Began).as_deref(), Some("bob"));
        assert_eq!(told(&movers, A, Stage::Ended).as_deref(), Some("bob"));
    }

    #[test]
    fn who_was_refused_did_not_ask_for_what_goes_on() {
        let movers = Movers::default();
        movers.ask(A, Some("alice".into())).begun();
        told(&movers, A, Stage::Began);
        drop(movers.ask(A, Some("mallory".into())));
        assert_eq!(told(&movers, A, Stage::Complete).as_deref(), Some("alice"));
        // Nobody knows yet which of them it is.
        let (first, second) = (movers.ask(A, Some("alice".into())), movers.ask(A, Some("bob".into())));
        assert_eq!(told(&movers, A, Stage::Began), None);
        drop(first);
        second.begun();
        assert_eq!(told(&movers, A, Stage::Complete).as_deref(), Some("bob"));
        // A request without a name after one with a name.
        movers.ask(A, Some("alice".into())).begun();
        movers.ask(A, None).begun();
        assert_eq!(told(&movers, A, Stage::Began), None);
    }
}
