//! Rosters (RFC 6121 2): who a user knows, and who may see whom.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::BareJid;

use crate::ids::{Epoch, Position};
use crate::subscription::Subscription;

/// Version of a roster (RFC 6121 2.6). It names the one change that made it, so two versions that are written alike are
/// alike, on either node and after any failover (D8); a client may only compare it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RosterVersion {
    /// Epoch of the user at the change.
    pub epoch: Epoch,
    /// Frame that holds the change.
    pub at: Position,
    /// Which change of that frame, from 1; 0: the roster was never changed.
    pub number: u32,
}

impl fmt::Display for RosterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (term, moves) = (self.epoch.term, self.epoch.moves);
        write!(f, "{term:x}.{moves:x}-{:x}.{:x}-{:x}", self.at.seq, self.at.inc, self.number)
    }
}

/// What a user's roster says of one contact.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Item {
    /// Handle given by the user; empty if none.
    pub name: CompactString,
    /// Groups in the order that the client gave.
    pub groups: Vec<CompactString>,
    /// Who sees whom.
    pub subscription: Subscription,
    /// Clients see the item. A contact who only asks is known, and not in the roster (RFC 6121 3.1.3).
    pub listed: bool,
    /// The user granted a request that has not come yet (RFC 6121 3.4).
    pub approved: bool,
    /// The contact's request, kept until it is answered; empty where none waits.
    pub request: Bytes,
}

impl Item {
    /// Whether clients see the same of both: of requests and of consent given beforehand, only what the roster shows.
    pub fn looks_like(&self, other: &Item) -> bool {
        let shown = |item: &Item| {
            let subscription = (item.subscription.attribute(), item.subscription.pending_out());
            (item.listed, subscription, item.approved, item.name.clone(), item.groups.clone())
        };
        shown(self) == shown(other)
    }
}

/// A roster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Roster {
    /// By contact.
    pub items: BTreeMap<BareJid, Item>,
    /// Of the last change that clients can see.
    pub version: RosterVersion,
}

impl Roster {
    /// What it says of a contact; nothing known is `Subscription::None`.
    pub fn subscription(&self, contact: &BareJid) -> Subscription {
        self.items.get(contact).map_or(Subscription::None, |item| item.subscription)
    }

    /// Items that clients see.
    pub fn listed(&self) -> impl Iterator<Item = (&BareJid, &Item)> {
        self.items.iter().filter(|(_, item)| item.listed)
    }

    /// Sets or removes an item. `version`: of the change, if clients can see it.
    pub(super) fn set(&mut self, contact: &BareJid, item: Option<&Item>, version: Option<RosterVersion>) {
        match item {
            Some(item) => _ = self.items.insert(contact.clone(), item.clone()),
            None => _ = self.items.remove(contact),
        }
        if let Some(version) = version {
            self.version = version;
        }
    }
}
