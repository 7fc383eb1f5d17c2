//! What driver and engine put out: what the shell has to do of it, and what concerns the node itself.

use presence_engine::engine::Output;
use session_mover::driver::Do;
use xmpp_core::dual::Dual;

use super::{Disk, Event, MOST_ROOM, Node, Out, Reply};

impl Node {
    /// What the driver wants done becomes what the shell does; what concerns the node stays here.
    pub(super) fn drain_driver(&mut self, disk: &mut dyn Disk) {
        let mut dos = std::mem::take(&mut self.dos);
        self.driver.take_into(&mut dos);
        for item in dos.drain(..) {
            match item {
                Do::Send(link, msg) => self.outs.push(Out::Link(link, msg)),
                Do::Close(link, why) => self.outs.push(Out::CloseLink(link, why)),
                Do::Release(output) => self.released(output),
                Do::Control(bytes) => self.control(&bytes, disk),
                Do::SetAside(which, frames, released, kept) => {
                    self.outs.push(Out::Event(Event::SetAside(which, frames, released, kept)));
                }
                Do::Checked(report) => self.checked(report),
                Do::Resynced(own, peer) => self.outs.push(Out::Event(Event::Resynced(own, peer))),
            }
        }
        dos.shrink_to(MOST_ROOM);
        self.dos = dos;
    }

    pub(super) fn released(&mut self, output: Output) {
        let Some(output) = self.send_to_peer(output) else { return };
        match output {
            Output::Deliver(conn, bytes) => self.outs.push(Out::Deliver(conn, bytes)),
            Output::Credit(conn) => self.outs.push(Out::Credit(conn)),
            Output::Close(conn, last, end) => self.outs.push(Out::Close(conn, last, end)),
            Output::Vouch(conn, nonce) => {
                // It waited for the log like everything else: a node whose log stands still vouches for nobody.
                let mac = self.cfg.secret.vouch(self.me, &nonce).into();
                self.outs.push(Out::Deliver(conn, Dual::Vouched { nonce, mac }.to_bytes()));
            }
            Output::Report { conn, id, mac } => {
                if id == self.nonce.to_string() {
                    let question = self.evidence.question().unwrap_or_default();
                    let proof =
                        mac.is_some_and(|mac| self.cfg.secret.vouched(self.me.peer(), question, &mac));
                    self.evidence.report(conn.number, proof);
                }
            }
            Output::MainLost(_) => self.look(),
            Output::Poison(print) => self.outs.push(Out::Event(Event::Poison(print.0))),
            Output::RosterFull(user, contact) => {
                self.outs.push(Out::Event(Event::RosterFull(user, contact)));
            }
            Output::Parked(session, on) => self.driver.tell_parked(session, on),
            Output::Account(user, verifiers) => {
                if let Some(number) = self.changing.remove(&user) {
                    self.outs.push(Out::Reply(number, Reply::Done));
                }
                self.outs.push(Out::Account(user, verifiers));
            }
            Output::Probed(number) => self.outs.push(Out::Probed(number)),
            Output::Noticed(number, taken) => self.noticed(number, taken),
            Output::Record { .. } | Output::Relay(_) | Output::Tell(_) | Output::Fronted(_) => {}
        }
    }
}
