//! What this node said as a front and has not let go, and must not say any more though it is safe now.
//!
//! Outputs wait until the frames before them are safe. Meanwhile this node may come to own a session and give it back, or
//! the path to the owner may break and return: then the owner would hear old words last.

use std::collections::BTreeMap;

use xmpp_core::jid::BareJid;

use super::Output;
use crate::front::Relay;
use crate::ids::Conn;

/// Names and lists of connections that are not to be told the owner.
#[derive(Debug, Default)]
pub(super) struct Void {
    /// Names that this node has given up, and the last frame with which something waits that it said under them.
    names: BTreeMap<Conn, u64>,
    /// Names of connections whose client has gone, and whose users they were: given up once this node serves these.
    gone: Vec<(Conn, BareJid, u64)>,
    /// Lists of all connections that were said, how many of the first of them are void, and how many were let go or dropped.
    lists: (u64, u64, u64),
}

impl Void {
    /// Nothing is said under this name from the frame `at` on.
    pub(super) fn give_up(&mut self, name: Conn, at: u64) {
        self.names.insert(name, at);
    }

    /// The client of a connection has gone, and what it said is still to be heard.
    pub(super) fn client_gone(&mut self, name: Conn, user: BareJid, at: u64) {
        self.gone.push((name, user, at));
    }

    /// This node has these users' sessions itself.
    pub(super) fn serve(&mut self, serves: impl Fn(&BareJid) -> bool) {
        let (given_up, gone) =
            std::mem::take(&mut self.gone).into_iter().partition(|(_, user, _)| serves(user));
        self.gone = gone;
        self.names.extend(Vec::from_iter(given_up).into_iter().map(|(name, _, at)| (name, at)));
    }

    pub(super) fn list(&mut self) {
        self.lists.0 += 1;
    }

    /// What was said of all connections until now was said on a path that is gone.
    pub(super) fn path_gone(&mut self) {
        self.lists.1 = self.lists.0;
    }

    /// Outputs of turns before this frame were let go; others wait, or none does (`u64::MAX`).
    pub(super) fn holds_from(&mut self, seq: u64) {
        self.names.retain(|_, last| *last >= seq);
        self.gone.retain(|(_, _, last)| *last >= seq);
    }

    /// Asked of each output once, in the order in which they are let go.
    pub(super) fn has(&mut self, output: &Output) -> bool {
        match output {
            Output::Relay(Relay::Open { conn, .. } | Relay::Element { conn, .. }) => {
                self.names.contains_key(conn)
            }
            // A list without the connections that it was made of would say that there are none.
            Output::Relay(Relay::List(begins)) => {
                let void = self.lists.2 < self.lists.1;
                self.lists.2 += u64::from(!begins);
                void
            }
            _ => false,
        }
    }
}
