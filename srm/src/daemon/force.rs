//! A node that is forced to serve, or not to, at the operator's request. It is asked at itself: that must not depend on the link.

use super::ops::{Operations, stopping};
use crate::admin::{Forced, Refusal};
use crate::node::{Force, Op, Reply};

impl Operations {
    pub(super) async fn force_here(&self, node: &str, to: Force, op: Op) -> Result<Forced, Refusal> {
        if self.index(node) != Some(self.me) {
            let me = &self.names[self.me.index()];
            let error = format!("{node} is asked at {node} itself; this is {me}");
            let hint = format!("run `tandem {} {node}` there: it must not depend on the link", to.command());
            return Err(self.refusal(error, hint).await);
        }
        let forced = |missing, done| Forced { node: node.to_owned(), done, takes_back: false, missing };
        match self.op(op).await {
            Some(Reply::TakesBack(done)) => {
                if done {
                    self.asked(&format!("{} {node}", to.command()));
                }
                Ok(Forced { takes_back: true, ..forced(Vec::new(), done) })
            }
            Some(Reply::MayMiss(missing)) => Ok(forced(missing, false)),
            Some(Reply::Forced(missing)) => {
                self.asked(&format!("{} {node}", to.command()));
                Ok(forced(missing, true))
            }
            Some(Reply::Refused(refused)) => Err(self.refusal(refused.error, refused.hint).await),
            _ => Err(stopping()),
        }
    }
}
