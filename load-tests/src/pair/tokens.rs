//! One-time tokens of clients on the virtual clock: kept as they are told, used to park always and to resume half the time.

use bytes::Bytes;
use presence_engine::engine::Token;
use presence_engine::ids::SmId;
use xmpp_core::dual::Dual;
use xmpp_core::sasl::TokenKey;

use super::client::Client;
use super::world::World;

/// What the tokens of both nodes are derived from.
pub(super) fn key() -> TokenKey {
    TokenKey::new(&[9; 32])
}

impl Client {
    /// Keeps the token that is told, which is of this client's session.
    pub(super) fn take_token(&mut self, said: &Dual) {
        if let Dual::Offer { token: Some(token), .. } | Dual::Parked { token: Some(token), .. } = said {
            let number = token.split_once('.').and_then(|(number, _)| number.parse().ok());
            let session = self.sm_id.as_deref().and_then(SmId::parse);
            self.token = session.zip(number).map(|(session, number)| Token { session, number });
        }
    }
}

impl World {
    /// By what a client logs in on a socket: the salt of its password, and its token if it uses one.
    pub(super) fn credentials(&mut self, c: usize, socket: usize) -> (Bytes, Option<Token>) {
        let client = &self.clients[c];
        let session = client.sm_id.as_deref().and_then(SmId::parse);
        let wants =
            client.is_parking_on(socket) || client.seek.socket == Some(socket) && socket.is_multiple_of(2);
        let token = client.token.filter(|token| wants && session == Some(token.session));
        self.coverage.tokens += u32::from(token.is_some());
        (Bytes::new(), token)
    }

    /// A stream ended with these words: a token that is refused is of no more use.
    pub(super) fn forget_token(&mut self, c: usize, last: &Bytes) {
        if last.windows(15).any(|part| part == b"<not-authorized") {
            self.clients[c].token = None;
        }
    }
}
