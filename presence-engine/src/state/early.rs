//! What a session was given before its client enabled stream management. It has no numbers, and no client ever says that it has it.
//!
//! Whoever serves the session knows what it has let go, and writes that down: it drops these. What is left when stream
//! management is enabled stays until the client says anything that counts: outputs leave in order, so who has heard of the
//! enabling has heard what came before it. If the session ends first, what is left goes offline.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::StanzaId;

/// So many are kept at most. A peer of the version before never drops any: the oldest were let go long ago. A constant, not
/// configuration: both nodes must drop the same.
const MOST: usize = 256;
/// The same in bytes.
const MOST_BYTES: usize = 1 << 20;

/// A message that would go offline if the session ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Early {
    /// Whose.
    pub id: StanzaId,
    /// Another resource of the user has acknowledged it.
    pub seen: bool,
    /// As the client gets it.
    pub stanza: Bytes,
}

/// All of one session, oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct EarlyOnes(VecDeque<Early>);

impl EarlyOnes {
    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Early> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the stanza is among them.
    pub fn holds(&self, stanza: StanzaId) -> bool {
        self.0.iter().any(|early| early.id == stanza)
    }

    pub(super) fn push(&mut self, early: Early) {
        self.0.push_back(early);
        let mut bytes: usize = self.0.iter().map(|early| early.stanza.len()).sum();
        while self.0.len() > MOST || bytes > MOST_BYTES && self.0.len() > 1 {
            bytes -= self.0.pop_front().map_or(0, |dropped| dropped.stanza.len());
        }
    }

    pub(super) fn drop_first(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn mark_seen(&mut self, stanza: StanzaId) -> bool {
        let mut news = false;
        for early in self.0.iter_mut().filter(|early| early.id == stanza && !early.seen) {
            (early.seen, news) = (true, true);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_a_peer_that_never_drops_any_may_cost() {
        let mut ones = EarlyOnes::default();
        let early = |number, len| Early {
            id: StanzaId { number, ..StanzaId::default() },
            seen: false,
            stanza: Bytes::from(vec![b'x'; len]),
        };
        (0..2 * MOST as u32).for_each(|number| ones.push(early(number, 1)));
        assert_eq!(ones.iter().map(|early| early.id.number).next(), Some(MOST as u32));
        assert_eq!(ones.iter().count(), MOST);
        ones.push(early(1_000, MOST_BYTES - 1));
        assert_eq!(ones.iter().count(), 2, "the oldest go first");
    }
}
