//! What comes over the two connections of the link, and what their ends mean.

use presence_engine::engine::Input;
use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::{Disk, Node};

impl Node {
    pub(super) fn link_msg(&mut self, link: Link, msg: Msg, disk: &mut dyn Disk) {
        if let Msg::Hello(hello) = &msg {
            self.evidence.link_up();
            // Whoever greets on a connection is there now, whatever a datagram that was late has made of it.
            self.old_boots.retain(|old| *old != hello.boot);
            self.meet_boot(hello.boot, disk);
        }
        if let (Link::In, Msg::Frame(bytes)) = (link, &msg) {
            self.void_relayed(bytes);
        }
        match link {
            Link::Out => self.driver.on_out(msg, disk),
            Link::In => match self.driver.on_in(msg, disk) {
                // The peer's clients are throttled as ours are (D9), all that a front says in its order.
                Some(input @ Input::Relay(_)) => self.relayed.push_back(input),
                input => self.inbox.extend(input),
            },
        }
    }

    pub(super) fn link_down(&mut self, link: Link, closed: bool) {
        self.link_up[link as usize] = false;
        match link {
            Link::Out => self.driver.disconnected(),
            Link::In => {
                // What a front said and nobody has read: it says it again, of clients that are still there.
                self.relayed.clear();
                self.driver.peer_gone();
            }
        }
        self.told_parked = false;
        if closed {
            self.evidence.link_ended();
            if self.evidence.may_probe() && !self.cfg.single {
                self.probe();
            }
        }
    }
}
