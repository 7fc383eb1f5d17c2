//! One-time tokens (D16): what a dual client is told, what lets it in, and when a token is dead.
//!
//! A token lets its client park and resume the one session that it belongs to, on either node, and do nothing else. The
//! number of the highest token that was used is part of the session; lower ones are dead. The one that was used last
//! stays good until the next is used: its client may not have heard of the next.

use bytes::Bytes;
use compact_str::CompactString;
use xmpp_core::dual::Dual;
use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::jid::BareJid;
use xmpp_core::sasl::TokenName;
use xmpp_core::sm::Sm;

use super::{Engine, Output};
use crate::ids::{Conn, SmId};
use crate::record::Record;

const OTHER_SESSION: &str =
    "a one-time token parks or resumes its own session only; log in with the password";
const DEAD: &str = "a later one-time token of this session was used; log in with the password";

/// By which one-time token a client was let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its session.
    pub session: SmId,
    /// Counts the tokens of the session, from 1.
    pub number: u32,
}

impl From<TokenName> for Token {
    fn from(name: TokenName) -> Token {
        Token { session: SmId(name.session), number: name.number }
    }
}

impl From<Token> for TokenName {
    fn from(token: Token) -> TokenName {
        TokenName { session: token.session.0, number: token.number }
    }
}

/// What authentication found out about a connection.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub user: BareJid,
    pub salt: Bytes,
    pub entropy: [u8; 16],
    pub token: Option<Token>,
}

impl Engine {
    /// The peer's version knows of tokens. Before that, clients get none: it could neither read what is written of them
    /// nor let in who uses one.
    pub fn set_peer_knows_tokens(&mut self, knows: bool) {
        self.peer_knows_tokens = Some(knows);
    }

    fn peer_knows_tokens(&self) -> bool {
        self.peer_knows_tokens == Some(true)
    }

    /// Whether the peer can hear of a stream: of one that a token let in, only if its version knows of them.
    pub(super) fn may_relay(&self, conn: Conn) -> bool {
        self.peer_knows_tokens != Some(false) || self.edge.token(conn).is_none()
    }

    /// Number of the highest token of a session that was used, as far as this node knows; 0: none was.
    pub(super) fn last_token(&self, session: SmId) -> u32 {
        let told = self.state.session(session).map_or(0, |s| s.token);
        let parked = self.edge.parked_of(session).and_then(|conn| self.edge.token(conn));
        told.max(parked.map_or(0, |token| token.number))
    }

    /// The same for the peer; nothing for one of a version that knows of none.
    pub fn token_to_tell(&self, session: SmId) -> u32 {
        if self.peer_knows_tokens() { self.last_token(session) } else { 0 }
    }

    /// The token that a dual client is told next.
    pub(super) fn next_token(&self, session: SmId) -> Option<CompactString> {
        let key = self.cfg.tokens.as_ref().filter(|_| self.peer_knows_tokens())?;
        let s = self.state.session(session).filter(|s| s.dual && s.resumable())?;
        let salt = &self.state.user(&s.user)?.verifiers.salt;
        let next = Token { session, number: self.last_token(session).checked_add(1)? };
        Some(key.token(s.user.local().unwrap_or_default(), salt, next.into()).into())
    }

    /// Whether a parked client may resume this session; if not, its stream has ended. Its token may be dead by now, which
    /// is no matter: it let this stream in when it was not.
    pub(super) fn token_allows_resume(&mut self, conn: Conn, previd: &str, out: &mut Vec<Output>) -> bool {
        let Some(token) = self.edge.token(conn) else { return true };
        SmId::parse(previd) == Some(token.session) || self.refuse_token(conn, OTHER_SESSION, out)
    }

    fn refuse_token(&mut self, conn: Conn, why: &'static str, out: &mut Vec<Output>) -> bool {
        self.fail(conn, StreamError::new(StreamCondition::NotAuthorized).with_text(why), out);
        false
    }

    /// Whether a client may say this first; if not, its stream has ended. Who came with a password may.
    pub(super) fn token_allows(
        &mut self,
        conn: Conn,
        sm: Option<&Sm>,
        dual: Option<&Dual>,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(token) = self.edge.token(conn) else { return true };
        let session = match (sm, dual) {
            (Some(Sm::Resume { previd, .. }), _) => SmId::parse(previd),
            (_, Some(Dual::Standby { sm_id })) => SmId::parse(sm_id),
            _ => None,
        };
        if session != Some(token.session) {
            return self.refuse_token(conn, OTHER_SESSION, out);
        }
        let dead = token.number < self.last_token(token.session);
        !dead || self.refuse_token(conn, DEAD, out)
    }

    /// A client was let in by its token, here or at the peer: from now on lower ones are dead. The session's owner writes
    /// that down.
    pub(super) fn token_used(&mut self, session: SmId, number: u32, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session).filter(|s| number > s.token) else { return };
        // Where such a record is in the log already, one more is no harder to read.
        if (self.peer_knows_tokens() || s.token > 0) && self.serves(&s.user.clone()) {
            self.emit(Record::Token { session, number }, out);
        }
    }
}
