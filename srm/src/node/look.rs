//! Looks at the peer: its ports are probed, and parked clients are asked (R9).

use presence_engine::ids::Conn;
use xmpp_core::dual::Dual;

use super::{Node, Out};

/// Time between two looks at the peer because of clients that lost it, in ticks (1 s).
pub(super) const LOOK_TICKS: u64 = 4;

impl Node {
    /// A parked client reports that its main stream is lost: a look at the peer now, not at the next sign of its own
    /// (R9). Many clients report at once; one look a second is enough.
    pub(super) fn look(&mut self) {
        let seen = self.looked.is_some_and(|at| self.ticks < at + LOOK_TICKS);
        if !self.cfg.single && !seen && self.evidence.may_look() {
            self.looked = Some(self.ticks);
            self.probe();
        }
    }

    pub(super) fn probe(&mut self) {
        if self.peer_restarts {
            return;
        }
        self.ask_clients();
        self.outs.push(Out::Probe);
    }

    /// Asks every parked client whether its main stream lives (R9).
    pub(super) fn ask_clients(&mut self) {
        self.nonce += 1;
        let nonce = self.cfg.nonce_key.vouch(self.me, &self.nonce.to_string());
        let id = self.nonce.to_string();
        let parked: Vec<Conn> = self.driver.engine().parked().map(|(conn, _)| conn).collect();
        for conn in &parked {
            let query = Dual::Query { id: id.as_str().into(), nonce: nonce.as_str().into() };
            self.outs.push(Out::Deliver(*conn, query.to_bytes()));
        }
        self.evidence.begin(nonce, parked.len());
    }
}
