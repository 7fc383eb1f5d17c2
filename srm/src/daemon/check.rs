//! `POST /v1/check`, and what a node's status says of checks.

use super::ops::{Answer, Ask, Operations};
use crate::admin::{CheckStatus, Refusal};
use crate::node::{Checks, Op, Reply};

impl Operations {
    /// Nodes of two versions write what they hold differently.
    pub(super) async fn check_here(&self) -> Result<Reply, Refusal> {
        self.same_version().await?;
        self.reply_of(Op::Check).await
    }

    pub(super) async fn check_anywhere(&self) -> Result<Vec<String>, Refusal> {
        self.check_here().await?;
        let mut nodes = vec![self.names[self.me.index()].clone()];
        match self.ask_peer(Ask::Check).await {
            Some(Answer::Done) => nodes.push(self.names[self.me.peer().index()].clone()),
            Some(Answer::Refused(refusal)) => return Err(refusal),
            _ => {}
        }
        nodes.sort();
        self.asked("a check");
        Ok(nodes)
    }
}

pub(super) fn check_status(checks: &Checks) -> CheckStatus {
    let (ended_ms, report) = checks.last.clone().map(|(at, report)| (Some(at), report)).unwrap_or_default();
    CheckStatus {
        running: checks.running,
        ended: checks.ended,
        ended_ms,
        users: report.users,
        different: report.different,
        named: report.named,
        pairs: report.pairs,
        wrong: report.wrong,
    }
}
