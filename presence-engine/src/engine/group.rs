//! The presence redundancy group: described anew, high availability on and off, users assigned to another home.

use xmpp_core::dual::{Dual, Failure};
use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::jid::BareJid;

use super::edge::Phase;
use super::{Engine, Output};
use crate::ids::{NodeIx, SmId};
use crate::record::Record;
use crate::state::GroupInfo;

impl Engine {
    /// Writes down what operators say of the group.
    pub(super) fn describe_group(&mut self, group: GroupInfo, out: &mut Vec<Output>) {
        if self.serving[self.cfg.me.index()] {
            self.emit(Record::Group(group), out);
        }
    }

    /// Gives a user another home, and hands the sessions over to it; `None`: to none, and the sessions end.
    pub(super) fn assign(&mut self, user: &BareJid, home: Option<NodeIx>, out: &mut Vec<Output>) {
        let Some(u) = self.state.user(user).filter(|_| self.serves(user)) else { return };
        let (register, keeps) = (u.register, u.home == u.register);
        if home == Some(u.home) && u.assigned {
            return;
        }
        let moves = home.is_some_and(|home| home != register);
        let receiver = home.unwrap_or(register);
        let leads = self.state.lead(receiver).is_some_and(|reg| reg.primary == receiver);
        if moves && (!leads || !keeps || receiver == self.cfg.me) {
            return;
        }
        if home.is_none() {
            self.show_out(user, &not_assigned(), out);
            self.end_sessions(user, out);
        }
        self.emit(Record::Assign { user: user.clone(), home }, out);
        if moves {
            self.hand_over(user, out);
        }
    }

    /// What follows for streams of this node when high availability was switched on or off, by whichever node: there are
    /// standby connections, or there are none.
    pub(super) fn follow_group(&mut self, out: &mut Vec<Output>) {
        let on = self.state.group().ha;
        if std::mem::replace(&mut self.ha_told, on) == on {
            return;
        }
        let dual = |session: &SmId| self.state.session(*session).is_some_and(|s| s.dual);
        let main: Vec<_> = self.edge.bound().filter(|(_, session)| dual(session)).collect();
        for (conn, session) in main {
            if on {
                self.offer(session, out);
            } else {
                out.push(Output::Deliver(conn, Dual::Failed(Failure::HaDisabled).to_bytes()));
            }
        }
        if on {
            return;
        }
        let error = StreamError::new(StreamCondition::Reset).with_text("high availability was disabled");
        let parked: Vec<_> = self.edge.parked().map(|(conn, _)| conn).collect();
        for conn in parked {
            if let Some(Phase::Parked { session, .. }) = self.edge.remove(conn) {
                out.push(Output::Parked(session, false));
            }
            out.push(Output::Close(conn, error.to_bytes(), true));
        }
    }
}

/// The account is there, and no node serves it (RFC 6120 4.9.3.14).
pub(super) fn not_assigned() -> StreamError {
    StreamError::new(StreamCondition::PolicyViolation)
        .with_text("the account is not assigned to a node; ask your administrator")
}
