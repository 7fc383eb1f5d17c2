//! Accounts: added, given another password, removed.
//!
//! Who knows the old password, or had the account, is shown out at once, on both nodes: main streams, parked streams, and
//! streams that are authenticated and no more yet. Sessions end as if their time-out had passed: contacts are told, what
//! waits goes offline.

use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::jid::BareJid;

use super::edge::Phase;
use super::group::not_assigned;
use super::route::Route;
use super::subscribe::ask_stanza;
use super::token::Opened;
use super::{Engine, Output};
use crate::ids::{Conn, NodeIx, SmId, StanzaId};
use crate::record::{Record, Verifiers};
use crate::state::Item;
use crate::subscription::Ask;

/// The credentials that the stream was opened with are no more (RFC 6120 4.9.3.16).
fn password_changed() -> StreamError {
    StreamError::new(StreamCondition::Reset).with_text("the password was changed; log in again")
}

/// There is nobody any more whose stream it could be (RFC 6120 4.9.3.12; XEP-0077 3.2 says the same of a removal).
fn account_removed() -> StreamError {
    StreamError::new(StreamCondition::NotAuthorized).with_text("the account was removed")
}

impl Engine {
    /// A client has authenticated. Its exchange may have begun with a password that was changed meanwhile.
    pub(super) fn opened(&mut self, conn: Conn, opened: Opened, out: &mut Vec<Output>) {
        let user = self.state.user(&opened.user);
        let current = user.is_none_or(|u| u.verifiers.salt == opened.salt);
        self.edge.open(conn, opened);
        if !current {
            self.fail(conn, password_changed(), out);
        }
    }

    pub(super) fn user_add(
        &mut self,
        user: BareJid,
        home: NodeIx,
        verifiers: Verifiers,
        out: &mut Vec<Output>,
    ) {
        if self.state.user(&user).is_none() {
            out.push(Output::Account(user.clone(), Some(verifiers.clone())));
            self.emit(Record::UserAdd { user, home, verifiers }, out);
        }
    }

    /// Another password: nobody stays who came in with the old one.
    pub(super) fn user_passwd(&mut self, user: BareJid, verifiers: Verifiers, out: &mut Vec<Output>) {
        if self.state.user(&user).is_none() || !self.serves(&user) {
            return;
        }
        self.emit(Record::UserPasswd { user: user.clone(), verifiers: verifiers.clone() }, out);
        self.show_out(&user, &password_changed(), out);
        self.end_sessions(&user, out);
        out.push(Output::Account(user, Some(verifiers)));
    }

    /// The account goes: its sessions first, then what it has to do with others.
    pub(super) fn user_remove(&mut self, user: &BareJid, out: &mut Vec<Output>) {
        if self.state.user(user).is_none() || !self.serves(user) {
            return;
        }
        self.show_out(user, &account_removed(), out);
        self.end_sessions(user, out);
        let route = self.last_words(user);
        self.emit(Record::UserRemove { user: user.clone(), effects: route.effects }, out);
        out.push(Output::Account(user.clone(), None));
    }

    /// What a record of the peer's log means for logins and streams at this node.
    pub(super) fn account_of_peer(&mut self, record: &Record, out: &mut Vec<Output>) {
        match record {
            Record::UserAdd { user, verifiers, .. } if self.state.user(user).is_none() => {
                out.push(Output::Account(user.clone(), Some(verifiers.clone())));
            }
            Record::UserPasswd { user, verifiers } => {
                out.push(Output::Account(user.clone(), Some(verifiers.clone())));
                self.show_out(user, &password_changed(), out);
            }
            Record::UserRemove { user, .. } => {
                out.push(Output::Account(user.clone(), None));
                self.show_out(user, &account_removed(), out);
            }
            Record::Assign { user, home: None } => self.show_out(user, &not_assigned(), out),
            _ => {}
        }
    }

    /// Ends every stream of the account at this node.
    pub(super) fn show_out(&mut self, user: &BareJid, error: &StreamError, out: &mut Vec<Output>) {
        for conn in self.edge.of_user(user) {
            if let Some(Phase::Parked { session, .. }) = self.edge.remove(conn) {
                out.push(Output::Parked(session, false));
            }
            out.push(Output::Close(conn, error.to_bytes(), true));
        }
    }

    pub(super) fn end_sessions(&mut self, user: &BareJid, out: &mut Vec<Output>) {
        let sessions: Vec<SmId> = self.sessions_of(user).map(|(id, _)| id).collect();
        for session in sessions {
            self.end_session(session, out);
        }
    }

    /// Contacts must not go on seeing, or waiting for, somebody who is gone: what there was in both directions is taken
    /// back, as if the user had done it (RFC 6121 3.2, 3.3). The item stays in their rosters, without a subscription.
    fn last_words(&self, user: &BareJid) -> Route {
        let mut route = Route::default();
        let Some(u) = self.state.user(user) else { return route };
        // Of no session: the frame names it.
        let mut session = [0; 16];
        session[..8].copy_from_slice(&self.turn.at.seq.to_le_bytes());
        session[8..].copy_from_slice(&self.turn.at.inc.to_le_bytes());
        let mut number = 0;
        for (contact, item) in &u.roster.items {
            for ask in goodbyes(item) {
                number += 1;
                let id = StanzaId { session: SmId(session), number };
                self.forward(contact, id, ask_stanza(ask, user, contact), &mut route);
            }
        }
        route
    }
}

/// What a contact is told at the end, by what there was.
fn goodbyes(item: &Item) -> impl Iterator<Item = Ask> {
    let state = item.subscription;
    let seen = (state.is_seen() || state.pending_in()).then_some(Ask::Unsubscribed);
    let sees = (state.sees() || state.pending_out()).then_some(Ask::Unsubscribe);
    seen.into_iter().chain(sees)
}
