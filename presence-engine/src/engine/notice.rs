//! Messages of the server itself to its own accounts: what administrators are told. They are routed, kept and forwarded as
//! a user's are, and belong to no session.

use xmpp_core::stanza::{Kind, Stanza};

use super::route::Route;
use super::{Engine, Output};
use crate::ids::StanzaId;
use crate::record::Record;
use crate::state::User;

/// A message of the server.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Comes back in [`Output::Noticed`].
    pub number: u64,
    /// Names the message for ever: the same one is kept once, however often it is tried.
    pub id: StanzaId,
    /// The message, from the server's domain to a bare JID.
    pub stanza: Stanza,
}

/// Why a message of the server was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    /// This node does not serve the account now; the other may.
    NotHere,
    /// There is no such account.
    NoAccount,
    /// Half of what may be stored for the account is stored, and nobody is there to take it. The other half is for people.
    Full,
}

impl Engine {
    /// Told when the message is safe, or at once that it was not taken.
    pub(super) fn notice(&mut self, notice: &Notice, out: &mut Vec<Output>) {
        let taken = self.take_notice(notice, out);
        out.push(Output::Noticed(notice.number, taken));
    }

    fn take_notice(&mut self, notice: &Notice, out: &mut Vec<Output>) -> Result<(), Unsent> {
        let Notice { id, stanza, .. } = notice;
        let to = stanza.head.to.as_ref().filter(|_| stanza.head.kind == Kind::Message);
        let to = to.ok_or(Unsent::NoAccount)?;
        let user = to.to_bare();
        // Only who leads the account knows whether it has the message already: one that is forwarded is tried again before
        // it is known to have arrived.
        if !self.serves(&user) {
            return Err(Unsent::NotHere);
        }
        let account = self.state.user(&user).ok_or(Unsent::NoAccount)?;
        if self.state.was_kept(*id, &user) {
            return Ok(());
        }
        if self.is_half_full(account) && !self.takes_now(account) {
            return Err(Unsent::Full);
        }
        let mut route = Route::default();
        self.route(stanza, to, *id, &mut route);
        let record = Record::Kept { stanza: *id, at_ms: self.turn.now_ms, effects: route.effects };
        self.emit_with(record, route.volatile, out);
        Ok(())
    }

    fn is_half_full(&self, account: &User) -> bool {
        let limits = &self.cfg.limits;
        account.offline.len() >= limits.offline_messages / 2
            || account.offline.bytes() > limits.offline_bytes / 2
    }

    /// A session of the account would be given the message.
    fn takes_now(&self, account: &User) -> bool {
        let mut priorities = account.sessions.values().filter_map(|id| self.state.session(*id)?.priority);
        priorities.any(|priority| priority >= 0)
    }
}
