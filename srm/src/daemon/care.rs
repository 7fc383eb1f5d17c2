//! What operators do to a node that is there: restart it, stop it, start and stop its services, end the failed mode.

use std::time::Duration;

use super::ops::{Answer, Ask, Operations, stopping};
use crate::admin::{Refusal, ServiceAction, ServiceStatus, Stop, Stopped};
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

    /// Where the other node takes everybody over nobody is waited for: the hand-over disturbs less than a refused login.
    pub(super) async fn stop_here(&self, stop: &Stop) -> Result<Stopped, Refusal> {
        let Some(snapshot) = self.snapshot().await else { return Err(stopping()) };
        let hands_over = snapshot.taken_over;
        let drain = stop.drain_s.filter(|_| !hands_over).map(Duration::from_secs);
        let streams = self.live.stopping.streams() as u64;
        self.live.stopping.ask(stop.text.as_deref(), drain);
        Ok(Stopped { hands_over, streams })
    }

    pub(super) async fn stop_at(&self, node: &str, stop: Stop) -> Result<Stopped, Refusal> {
        self.asked(&format!("stop of {node}"));
        if self.index(node).unwrap_or(self.me) == self.me {
            return self.stop_here(&stop).await;
        }
        match self.ask_peer(Ask::Stop(stop)).await {
            Some(Answer::Stopped(stopped)) => Ok(stopped),
            Some(Answer::Refused(refusal)) => Err(refusal),
            _ => {
                let hint = "ask it itself, on its machine, or repair the path between the nodes";
                Err(self.refusal(format!("node {node} does not answer"), hint.to_owned()).await)
            }
        }
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
