//! Messages that wait for their user (XEP-0160), and who is to get which when a user has several devices.
//!
//! A message that was given to resources and not acknowledged by them goes offline when their sessions end. The rule:
//!
//! 1. **A resource gets a message once**, as far as it can be known: what a resource acknowledged is never given to it
//!    again.
//! 2. **No device eats what another must get.** A resource that was given a message and did not acknowledge it is *due*:
//!    the message waits for the resource to be bound again, whatever the other devices got meanwhile.
//! 3. **Somebody gets it.** While no resource has acknowledged the message and none holds it in its queue, it is *open*:
//!    the next resource that becomes available takes it, due or not.
//!
//! So: given to a laptop and a phone, acknowledged by the laptop, unacknowledged by the phone whose session ended: the
//! message waits for the phone alone; the laptop never sees it again. Acknowledged by neither: whoever comes first takes
//! it, and the other gets it when it comes. The first takes it into its queue; if it does not acknowledge it either, the
//! message is open again.
//!
//! A resource that has older messages to take than its queue has room for takes them as it acknowledges; what comes
//! for it meanwhile waits behind them, so that it is shown in order.
//!
//! What is not open has been seen by its user. A device that never comes back must not fill the store with it: of such
//! messages the newest [`MOST_DUE`] are kept for each user.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::ids::StanzaId;

/// Messages that wait for one of their user's devices although another has seen them, at most. A constant, not
/// configuration: both nodes must drop the same.
pub const MOST_DUE: usize = 200;

/// A message that waits for its user.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Offline {
    /// Whose stanza.
    pub id: StanzaId,
    /// When it was stored, in milliseconds since 1970.
    pub at_ms: u64,
    /// No resource has it: whichever comes first takes it.
    pub open: bool,
    /// Resources that were given it and did not acknowledge it.
    pub due: BTreeSet<CompactString>,
    /// As it will be delivered, without the delay stamp.
    pub stanza: Bytes,
}

impl Offline {
    /// Whether a resource gets it.
    pub fn is_for(&self, resource: &str) -> bool {
        self.open || self.due.contains(resource)
    }
}

/// The queue of one user, oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct OfflineQueue {
    messages: VecDeque<Offline>,
    bytes: u64,
}

impl OfflineQueue {
    /// All messages, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Offline> {
        self.messages.iter()
    }

    /// The one that was stored last.
    pub fn newest(&self) -> Option<&Offline> {
        self.messages.back()
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Size of the stanzas, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A message to be kept.
    pub(super) fn store(&mut self, message: Offline) {
        self.bytes += message.stanza.len() as u64;
        self.messages.push_back(message);
    }

    /// Messages that a resource would get, oldest first.
    pub fn of<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Offline> {
        self.messages.iter().filter(move |m| m.is_for(resource))
    }

    /// A message comes back from the queue of a resource that ended. `open`: nobody acknowledged it, nobody holds it.
    pub(super) fn give_back(
        &mut self,
        id: StanzaId,
        resource: &CompactString,
        open: bool,
        at_ms: u64,
        stanza: Bytes,
    ) {
        match self.messages.iter_mut().find(|m| m.id == id) {
            Some(message) => {
                message.open |= open;
                message.due.insert(resource.clone());
            }
            None => {
                let due = BTreeSet::from([resource.clone()]);
                self.store(Offline { id, at_ms, open, due, stanza });
            }
        }
        let seen = |m: &Offline| !m.open;
        if self.messages.iter().filter(|m| seen(m)).count() > MOST_DUE
            && let Some(oldest) = self.messages.iter().position(seen)
            && let Some(dropped) = self.messages.remove(oldest)
        {
            self.bytes -= dropped.stanza.len() as u64;
        }
    }

    /// A resource takes what is for it, `count` messages at most. What other resources are due stays for them.
    pub(super) fn take(&mut self, resource: &str, count: u32) -> Vec<Offline> {
        let mut taken = Vec::new();
        let mut left = VecDeque::new();
        for mut message in std::mem::take(&mut self.messages) {
            if taken.len() < count as usize && message.is_for(resource) {
                taken.push(message.clone());
                message.open = false;
                message.due.remove(resource);
                if message.due.is_empty() {
                    self.bytes -= message.stanza.len() as u64;
                    continue;
                }
            }
            left.push_back(message);
        }
        self.messages = left;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> StanzaId {
        StanzaId { number, ..StanzaId::default() }
    }

    fn open(number: u32) -> Offline {
        let stanza = Bytes::from_static(b"<message/>");
        Offline { id: id(number), at_ms: 0, open: true, due: BTreeSet::new(), stanza }
    }

    fn bodies(taken: &[Offline]) -> Vec<u32> {
        taken.iter().map(|m| m.id.number).collect()
    }

    #[test]
    fn what_nobody_had_goes_to_whoever_comes_first() {
        let mut queue = OfflineQueue::default();
        queue.store(open(1));
        assert_eq!(bodies(&queue.take("laptop", 1_000)), [1]);
        assert_eq!(bodies(&queue.take("phone", 1_000)), [0u32; 0]);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn seen_on_the_laptop_and_not_on_the_phone_waits_for_the_phone_alone() {
        let mut queue = OfflineQueue::default();
        queue.give_back(id(1), &"phone".into(), false, 0, Bytes::from_static(b"<message/>"));
        assert_eq!(bodies(&queue.take("laptop", 1_000)), [0u32; 0]);
        assert_eq!(bodies(&queue.take("phone", 1_000)), [1]);
        assert!(queue.is_empty());
    }

    #[test]
    fn seen_on_neither_is_shown_on_both_once() {
        let mut queue = OfflineQueue::default();
        queue.give_back(id(1), &"phone".into(), false, 0, Bytes::from_static(b"<message/>"));
        queue.give_back(id(1), &"laptop".into(), true, 0, Bytes::from_static(b"<message/>"));
        assert_eq!(bodies(&queue.take("tablet", 1_000)), [1], "open: somebody gets it");
        assert_eq!(bodies(&queue.take("tablet", 1_000)), [0u32; 0]);
        assert_eq!(bodies(&queue.take("phone", 1_000)), [1]);
        assert_eq!(bodies(&queue.take("laptop", 1_000)), [1]);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn devices_that_never_return_do_not_fill_the_store() {
        let mut queue = OfflineQueue::default();
        queue.store(open(0));
        for number in 1..=2 * MOST_DUE as u32 {
            queue.give_back(id(number), &"gone".into(), false, 0, Bytes::from_static(b"<message/>"));
        }
        assert_eq!(queue.len(), MOST_DUE + 1);
        let left = queue.take("gone", 1_000);
        assert_eq!(left.first().map(|m| m.id), Some(id(0)), "what nobody has seen is never dropped");
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_resource_takes_no_more_than_it_has_room_for_and_the_rest_in_order() {
        let mut queue = OfflineQueue::default();
        (1..=5).for_each(|n| queue.store(open(n)));
        queue.give_back(id(6), &"phone".into(), false, 0, Bytes::from_static(b"<message/>"));
        assert_eq!(bodies(&queue.take("laptop", 2)), [1, 2]);
        assert_eq!(bodies(&queue.take("phone", 2)), [3, 4]);
        assert_eq!(bodies(&queue.take("phone", 9)), [5, 6]);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }
}
