//! What operators do to a node that is there: restart it, start and stop its services, end the failed mode.

use super::ops::{Answer, Ask, Operations, stopping};
use crate::admin::{Refusal, ServiceAction, ServiceStatus};
use crate::node::{Op, Reply, Service};

impl Operations {
    pub(super) async fn restart_here(&self) -> Result<Reply, Refusal> {
        match self.op(Op::Restart).await {
            Some(Reply::Done) => Ok(Reply::Done),
            Some(Reply::Refused(refused)) => Err(self.refusal(refused.error, refused.hint).await),
            _ => Err(stopping()),
        }
    }

    pub(super) async fn restart_at(&self, node: &str) -> Result<(), Refusal> {
        let at = self.index(node).unwrap_or(self.me);
        self.asked(&format!("restart of {node}"));
        if at == self.me {
            return self.restart_here().await.map(|_| ());
        }
        self.done_there(node, Ask::Restart).await
    }

    pub(super) async fn service_here(&self, service: &str, action: ServiceAction) -> Result<(), Refusal> {
        let known = Service::named(service).ok_or_else(|| Refusal {
            error: format!("{} knows no service {service}", self.names[self.me.index()]),
            hint: "the nodes run different versions: finish the upgrade".to_owned(),
            ..Refusal::default()
        })?;
        self.services.act(known, action)?;
        if action == ServiceAction::Restart {
            self.services.wait_for(known).await;
        }
        Ok(())
    }

    pub(super) fn services_now(&self) -> Vec<ServiceStatus> {
        self.services.list(self.live.config().srm.enable_authentication_monitoring)
    }

    pub(super) async fn service_at(
        &self,
        node: &str,
        service: Service,
        action: ServiceAction,
    ) -> Result<(), Refusal> {
        let name = service.name();
        self.asked(&format!("{} of {name} at {node}", action.name()));
        if self.index(node).unwrap_or(self.me) == self.me {
            return self.service_here(name, action).await;
        }
        self.done_there(node, Ask::Service { service: name.to_owned(), action }).await
    }

    /// The other node is asked, and has done it.
    async fn done_there(&self, node: &str, ask: Ask) -> Result<(), Refusal> {
        match self.ask_peer(ask).await {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Refused(refusal)) => Err(refusal),
            _ => {
                let hint = "start it, or repair the path between the nodes";
                Err(self.refusal(format!("node {node} does not answer"), hint.to_owned()).await)
            }
        }
    }

    pub(super) async fn recover_both(&self) -> Result<(), Refusal> {
        match self.op(Op::Recover).await {
            Some(Reply::Done) => {
                self.asked("recover");
                Ok(())
            }
            Some(Reply::Refused(refused)) => Err(self.refusal(refused.error, refused.hint).await),
            _ => Err(stopping()),
        }
    }
}
