//! Changes of accounts that operators ask for: done by the node that serves the account, asked of either.

use presence_engine::record::Verifiers;
use xmpp_core::jid::BareJid;

use super::accounts::derive;
use super::ops::{Answer, Ask, Operations, stopping};
use super::random;
use crate::admin::Refusal;
use crate::node::{Op, Reply};

fn bad(error: String, hint: &str) -> Refusal {
    Refusal { error, hint: hint.to_owned(), ..Refusal::default() }
}

/// Computed elsewhere than on the node's thread: it takes milliseconds.
async fn verifiers_of(password: &str) -> Result<Box<Verifiers>, Refusal> {
    let password = password.to_owned();
    let verifiers = tokio::task::spawn_blocking(move || derive(&password, random())).await;
    let Ok(Ok(verifiers)) = verifiers else {
        return Err(bad(
            "the password holds characters that SCRAM cannot carry".to_owned(),
            "choose another",
        ));
    };
    Ok(Box::new(verifiers))
}

impl Operations {
    /// Adds an account on this node; `Reply::NotHere` if the other must.
    pub(super) async fn add_here(
        &self,
        user: &str,
        password: &str,
        home: Option<String>,
    ) -> Result<Reply, Refusal> {
        let jid = self.account(user)?;
        let home = match home {
            Some(name) => match self.index(&name) {
                Some(node) => Some(node),
                None => {
                    let hint = "see `tandem status` for the names";
                    return Err(bad(format!("there is no node {name:?}"), hint));
                }
            },
            None => None,
        };
        let verifiers = verifiers_of(password).await?;
        self.account_op(Op::UserAdd(jid, home, verifiers)).await
    }

    /// Changes a password; `Reply::NotHere` if the other node must.
    pub(super) async fn passwd_here(&self, user: &str, password: &str) -> Result<Reply, Refusal> {
        let jid = self.account(user)?;
        let verifiers = verifiers_of(password).await?;
        self.account_op(Op::UserPasswd(jid, verifiers)).await
    }

    /// Removes an account; `Reply::NotHere` if the other node must.
    pub(super) async fn remove_here(&self, user: &str) -> Result<Reply, Refusal> {
        let jid = self.account(user)?;
        self.account_op(Op::UserRemove(jid)).await
    }

    pub(super) fn account(&self, user: &str) -> Result<BareJid, Refusal> {
        let domain = &self.config.node.domains[0];
        let text = if user.contains('@') { user.to_owned() } else { format!("{user}@{domain}") };
        let jid = BareJid::parse(&text).ok().filter(|j| j.local().is_some() && j.domain() == domain);
        jid.ok_or_else(|| bad(format!("{user:?} is no account of {domain}"), "give a name, or NAME@DOMAIN"))
    }

    async fn account_op(&self, op: Op) -> Result<Reply, Refusal> {
        match self.op(op).await {
            Some(Reply::Refused(refused)) => Err(self.refusal(refused.error, refused.hint).await),
            Some(reply) => Ok(reply),
            None => Err(stopping()),
        }
    }

    /// What this node cannot do it asks of the other.
    pub(super) async fn here_or_there(&self, here: Reply, ask: Ask) -> Result<(), Refusal> {
        if here != Reply::NotHere {
            return Ok(());
        }
        match self.ask_peer(ask).await {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Refused(refusal)) => Err(refusal),
            _ => Err(unanswered(&self.names[self.me.peer().index()])),
        }
    }
}

/// The other node was to do it. A single one has none, which has no name.
fn unanswered(peer: &str) -> Refusal {
    if peer.is_empty() {
        return bad(
            "this node cannot do it now, and has no peer".to_owned(),
            "see `tandem status`, and ask again",
        );
    }
    let error = format!("node {peer} does not answer");
    bad(error, "whether it was done is not known: look, and ask again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_there_is_not_said_not_to_answer() {
        assert_eq!(unanswered("b").error, "node b does not answer");
        assert_eq!(unanswered("").error, "this node cannot do it now, and has no peer");
    }
}
