//! Clients whose socket is on one node and whose session is on the other (D5), as far as the node carries what the two
//! engines say to each other.

use bytes::Bytes;
use presence_engine::engine::{Input, Output};
use presence_engine::front::{Fronted, Relay};
use presence_engine::record::Record;
use session_mover::driver::Link;
use session_mover::frame::Frame;
use session_mover::msg::Msg;
use xmpp_core::jid::BareJid;

use super::{Node, Out};

/// Elements of the peer's clients that one turn takes at most.
const RELAYED_PER_TURN: usize = 4_096;
/// A peer that is silent for so long (2 s) does not answer clients either, in ticks.
const SILENT_TICKS: u32 = 8;

impl Node {
    /// Sends the peer what is for it; gives back what stays here.
    pub(super) fn send_to_peer(&mut self, output: Output) -> Option<Output> {
        let me = self.me;
        let msg = match output {
            Output::Deliver(conn, bytes) if conn.node != me => Msg::Fronted(Fronted::Deliver(conn, bytes)),
            Output::Credit(conn) if conn.node != me => Msg::Fronted(Fronted::Credit(conn)),
            Output::Close(conn, last, end) if conn.node != me => {
                Msg::Fronted(Fronted::Close(conn, last, end))
            }
            Output::Tell(told) => Msg::Fronted(told),
            Output::Relay(relay) => Msg::Relay(relay),
            here => return Some(here),
        };
        // What does not reach the peer is told again when its link is there again.
        if self.driver.is_linked() {
            self.outs.push(Out::Link(Link::Out, msg));
        }
        None
    }

    /// The peer hands users over: what waits here of their streams it has said before, when this node owned them, and since
    /// then they may have gone on elsewhere. It opens them anew behind this frame.
    pub(super) fn void_relayed(&mut self, frame: &Bytes) {
        if self.relayed.is_empty() {
            return;
        }
        let Ok(frame) = Frame::decode(frame) else { return };
        let users: Vec<BareJid> = frame
            .records
            .into_iter()
            .filter_map(|record| match record {
                Record::HandOver { user, to, .. } if to == self.me => Some(user),
                _ => None,
            })
            .collect();
        if !users.is_empty() {
            let void = |input: &Input| matches!(input, Input::Relay(Relay::Open { user, .. }) if users.contains(user));
            self.relayed.retain(|input| !void(input));
        }
    }

    /// Clients that lost the peer and call here with their sessions, while it is silent.
    pub(super) fn watch_callers(&mut self) {
        if self.cfg.evidence.callers == 0 || self.evidence.silent().is_none_or(|ticks| ticks < SILENT_TICKS) {
            self.callers.clear();
            return;
        }
        self.callers.extend(self.driver.engine().callers());
        self.evidence.called(u32::try_from(self.callers.len()).unwrap_or(u32::MAX));
    }

    /// Input of the peer's clients, as long as ours would be read too (D9).
    pub(super) fn take_relayed(&mut self) {
        if self.clients_may_send() {
            let count = self.relayed.len().min(RELAYED_PER_TURN);
            self.inbox.extend(self.relayed.drain(..count));
        }
    }
}
