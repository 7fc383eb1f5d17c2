//! Words of one node to the other on the link, beside the logs.

use bytes::Bytes;
use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::{Disk, Node, Out};

/// This node leaves: nothing comes behind it.
pub(super) const GOODBYE: u8 = 0;
/// For the peer's daemon.
pub(super) const DAEMON: u8 = 1;
/// Inputs at which processes of this node ended.
pub(super) const CRASHES: u8 = 2;
/// This node is restarted, and comes back.
pub(super) const RESTARTING: u8 = 3;
/// The operator wants services started.
pub(super) const START_SERVICES: u8 = 4;
/// The operator ends the failed mode.
pub(super) const RECOVER: u8 = 5;
/// This node begins to hand all its users over: it is to be given nobody.
pub(super) const STOPS: u8 = 6;
/// Clients of the other node wait here, and it answers none of them: it should hand its users over. Older versions do not
/// know it.
pub(super) const FAIL_OVER: u8 = 7;

pub(super) fn is_goodbye(msg: &Msg) -> bool {
    matches!(msg, Msg::Control(bytes) if bytes.first() == Some(&GOODBYE))
}

impl Node {
    /// Something that the peer's daemon should get.
    pub fn send_control(&mut self, bytes: &[u8]) -> bool {
        let mut all = vec![DAEMON];
        all.extend_from_slice(bytes);
        let up = self.link_up[Link::Out as usize];
        if up {
            self.outs.push(Out::Link(Link::Out, Msg::Control(all.into())));
        }
        up
    }

    pub(super) fn control(&mut self, bytes: &Bytes, disk: &mut dyn Disk) {
        match bytes.first() {
            Some(&GOODBYE) => {
                self.peer_leaving = true;
                let gone = self.evidence.dead();
                self.peer_gone(gone, disk);
            }
            Some(&RESTARTING) => self.peer_restarts(),
            Some(&STOPS) => self.peer_stops(),
            Some(&START_SERVICES) => self.outs.push(Out::StartServices),
            Some(&RECOVER) => self.recovered(),
            Some(&FAIL_OVER) => self.fail_over_for_clients(),
            Some(&DAEMON) => self.outs.push(Out::Control(bytes.slice(1..))),
            Some(&CRASHES) => self.hear_crashes(&bytes.slice(1..), disk),
            _ => {}
        }
    }
}
