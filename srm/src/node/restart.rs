//! A restart that is announced: the peer waits for the new run, and the states of both nodes stay as they are (rows 5 to 9).
//! It waits no longer than the keep-alive time-out; from then on the node is one that is not heard.

use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::moves::refused;
use super::{Event, Node, Out, RESTARTING, Reply};

impl Node {
    /// The operator has this node restarted. Its users stay its own: their clients resume when it is back.
    pub(super) fn restart(&mut self) -> Reply {
        if self.moving.is_some() {
            return refused("a move is under way", "wait until it is complete: see `tandem status`");
        }
        if self.link_up[Link::Out as usize] {
            self.outs.push(Out::Link(Link::Out, Msg::Control(vec![RESTARTING].into())));
        }
        self.outs.push(Out::Restart);
        Reply::Done
    }

    /// The peer says that it is restarted.
    pub(super) fn peer_restarts(&mut self) {
        self.peer_restarts = true;
        self.outs.push(Out::Event(Event::PeerRestarts));
    }
}
