//! Messages of this server to its own accounts, for those who are told of events: given to the node, or through the link
//! to the other where this one writes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};

use presence_engine::ids::{SmId, StanzaId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::accounts::Accounts;
use super::ops::{Answer, Ask, Operations, stopping};
use super::worker::ToNode;
use crate::admin::{BoxFuture, Refusal};
use crate::node::{Op, Reply};
use crate::notify::{Message, Post, Unposted};

/// A message on its way to the other node.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub(super) struct Posted {
    name: [u8; 16],
    stanza: String,
}

/// Takes the messages of the notifier.
pub(super) struct Notices {
    accounts: Arc<Accounts>,
    /// The node has found its place: it knows all accounts.
    ready: Arc<AtomicBool>,
    to_node: Sender<ToNode>,
    /// The way to the other node, once it is there.
    operations: OnceLock<Weak<Operations>>,
}

impl Notices {
    pub(super) fn new(
        accounts: Arc<Accounts>,
        ready: Arc<AtomicBool>,
        to_node: Sender<ToNode>,
    ) -> Arc<Notices> {
        Arc::new(Notices { accounts, ready, to_node, operations: OnceLock::new() })
    }

    /// What this node does not write, the other is asked for from now on.
    pub(super) fn reach(&self, operations: &Arc<Operations>) {
        let _ = self.operations.set(Arc::downgrade(operations));
    }

    async fn post_now(&self, message: Message) -> Result<(), Unposted> {
        if self.misses(&message.to) {
            return Err(Unposted::NoAccount);
        }
        let posted = Posted { name: message.name, stanza: message.stanza };
        let (tell, told) = oneshot::channel();
        let op = op(&posted).map_err(Unposted::NotNow)?;
        let _ = self.to_node.send(ToNode::Op(op, tell));
        let reply = told.await.ok();
        if reply != Some(Reply::NotHere) {
            return done(reply).map_err(|refusal| Unposted::NotNow(refusal.error));
        }
        let operations = self.operations.get().and_then(Weak::upgrade);
        let asked = match operations {
            Some(operations) => operations.ask_peer(Ask::Notice(posted)).await,
            None => None,
        };
        match asked {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Refused(refusal)) => Err(Unposted::NotNow(refusal.error)),
            _ => Err(Unposted::NotNow("this node may write nothing now, and the other does not".to_owned())),
        }
    }
}

impl Post for Notices {
    fn post(&self, message: Message) -> BoxFuture<'_, Result<(), Unposted>> {
        Box::pin(self.post_now(message))
    }

    fn misses(&self, account: &BareJid) -> bool {
        self.ready.load(Ordering::Relaxed) && !self.accounts.has(account)
    }
}

impl Operations {
    /// The other node's message, which only this node can write.
    pub(super) async fn notice_here(&self, posted: &Posted) -> Result<Reply, Refusal> {
        let error = |error| Refusal { error, ..Refusal::default() };
        let op = op(posted).map_err(error)?;
        done(self.op(op).await).map(|()| Reply::Done)
    }
}

fn op(posted: &Posted) -> Result<Op, String> {
    let stanza = Stanza::parse(posted.stanza.as_bytes());
    let stanza = stanza.map_err(|error| format!("the message cannot be sent: {error}"))?;
    Ok(Op::Notice(StanzaId { session: SmId(posted.name), number: 0 }, Box::new(stanza)))
}

fn done(reply: Option<Reply>) -> Result<(), Refusal> {
    match reply {
        Some(Reply::Done) => Ok(()),
        Some(Reply::Refused(refused)) => {
            let error = format!("{}; {}", refused.error, refused.hint);
            Err(Refusal { error, ..Refusal::default() })
        }
        _ => Err(stopping()),
    }
}
