//! Messages of the server to its own accounts: the shell asks as an operator would, and hears when one is safe.

use presence_engine::engine::{Input, Notice, Unsent};
use presence_engine::ids::StanzaId;
use xmpp_core::stanza::Stanza;

use super::moves::refused;
use super::{Node, Out, Reply};

impl Node {
    /// The reply comes when the message is safe.
    pub(super) fn notice(&mut self, number: u64, id: StanzaId, stanza: Stanza) {
        self.inbox.push(Input::Notice(Box::new(Notice { number, id, stanza })));
    }

    pub(super) fn noticed(&mut self, number: u64, taken: Result<(), Unsent>) {
        let reply = match taken {
            Ok(()) => Reply::Done,
            Err(Unsent::NotHere) => Reply::NotHere,
            Err(Unsent::NoAccount) => refused("there is no such account", "see `tandem user list`"),
            Err(Unsent::Full) => refused(
                "too many messages wait for this account already",
                "log in to it and read them, or name another",
            ),
        };
        self.outs.push(Out::Reply(number, reply));
    }
}
