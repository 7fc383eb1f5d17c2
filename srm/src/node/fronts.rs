//! Clients whose socket is on one node and whose session is on the other (D5), as far as the node carries what the two
//! engines say to each other.

use presence_engine::engine::Output;
use presence_engine::front::Fronted;
use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::{Node, Out};

/// Elements of the peer's clients that one turn takes at most.
const RELAYED_PER_TURN: usize = 4_096;

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

    /// Input of the peer's clients, as long as ours would be read too (D9).
    pub(super) fn take_relayed(&mut self) {
        if self.driver.clients_may_send() {
            let count = self.relayed.len().min(RELAYED_PER_TURN);
            self.inbox.extend(self.relayed.drain(..count));
        }
    }
}
