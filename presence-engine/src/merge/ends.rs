//! What two users say to each other of their subscriptions, and how a node asks for the end of one of them after a merge (D7):
//! by a probe of the account (RFC 6121 4.3.2). See `engine/ends.rs`.

use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use super::words::{Word, ask, word};
use crate::record::Forward;

/// Two users, in order of their names.
pub(crate) type Pair = (BareJid, BareJid);

/// The two of them.
pub(crate) fn pair(one: BareJid, other: BareJid) -> Pair {
    if one <= other { (one, other) } else { (other, one) }
}

/// Whose subscriptions a stanza changes that one user passes on to the other, or says to the own account.
pub(crate) fn between(forward: &Forward) -> Option<Pair> {
    let stanza = Stanza::from_bytes(forward.stanza.clone()).ok()?;
    let other = match word(&stanza, &forward.to) {
        Some((Word::Ask(_) | Word::Remove, contact)) => contact,
        Some((Word::Set, _)) => return None,
        None => {
            ask(&stanza)?;
            stanza.head.from.as_ref()?.to_bare()
        }
    };
    Some(pair(forward.to.to_bare(), other))
}

/// Who asks for the end of the account that a stanza is for. No client is routed such a stanza, nor can one send it.
pub(crate) fn question(stanza: &Stanza, to: &Jid) -> Option<BareJid> {
    let head = &stanza.head;
    let asks = head.kind == Kind::Presence && head.type_.as_deref() == Some("probe") && to.is_bare();
    head.from.as_ref().filter(|from| asks && from.is_bare()).map(Jid::to_bare)
}
