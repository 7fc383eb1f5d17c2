//! Critical services that stop, and start again.

use srm::node::{Automatics, Health, In, Service};
use xmpp_core::stanza::Stanza;

use super::world::{Event, World};

/// From the restart of a service to its next probe, in milliseconds.
const PROBE_MS: u64 = 5_000;
/// What a node says to itself.
const PING: &[u8] = b"<iq xmlns='jabber:client' type='get' id='1' to='d'><ping xmlns='urn:xmpp:ping'/></iq>";

impl World {
    /// A service of this run of a node is in this way from now on.
    pub(super) fn service(&mut self, node: usize, service: Service, health: Health) {
        let host = &mut self.hosts[node];
        let Some(process) = &host.process else { return };
        let boot = process.boot;
        match health {
            Health::Fails => _ = host.failing.insert(service, None),
            Health::Runs | Health::Stopped | Health::Dead => _ = host.failing.remove(&service),
        }
        self.at(0, Event::Feed(node, boot, Box::new(In::Service(service, health))));
    }

    /// The services of a node are to be started: those that can be, are. One that fails is restarted, which may help or not.
    pub(super) fn start_services(&mut self, node: usize) {
        let next = self.now + PROBE_MS;
        for service in Service::ALL {
            if let Some(due) = self.hosts[node].failing.get_mut(&service) {
                *due = Some(next);
                self.feed_later(node, In::Restart(service));
            } else if !self.stubborn[node] {
                self.service(node, service, Health::Runs);
            }
        }
    }

    /// Those that were restarted are probed: whatever can be started does its work now.
    fn probe_restarted(&mut self, node: usize) {
        let (now, mended) = (self.now, !self.stubborn[node]);
        for service in Service::ALL {
            let Some(due) = self.hosts[node].failing.get_mut(&service) else { continue };
            if due.is_none_or(|due| due > now) {
                continue;
            }
            *due = None;
            if mended {
                self.service(node, service, Health::Runs);
            }
        }
    }

    /// What a real node does every five seconds to see that its database and its router work.
    pub(super) fn probe_services(&mut self, node: usize) {
        self.probe_restarted(node);
        if self.profile.services && self.now / 250 % 20 == 7 * node as u64 {
            self.feed_later(node, In::Commit(0));
            self.feed_later(node, In::Loop(Stanza::parse(PING).expect("it is one")));
        }
    }

    /// One stops for so long; a run that has ended by then has none that is stopped.
    pub(super) fn stop_service(&mut self, node: usize, service: Service, for_ms: u64) {
        let Some(process) = &self.hosts[node].process else { return };
        let boot = process.boot;
        self.coverage.services += 1;
        self.service(node, service, Health::Stopped);
        self.at(for_ms, Event::Feed(node, boot, Box::new(In::Service(service, Health::Runs))));
    }

    /// What clients say waits for services, as it does before a real node's thread.
    pub(super) fn must_not_wait(&mut self, node: usize, input: In) -> Option<In> {
        let process = self.hosts[node].process.as_mut()?;
        let waits = !process.deferred.is_empty() || !process.node.clients_may_send();
        if self.profile.services && waits && matches!(input, In::Client(_)) {
            process.deferred.push(input);
            return None;
        }
        Some(input)
    }

    /// With services that stop nodes fail over by themselves, after some seconds.
    pub(super) fn automatics_of_profile(&mut self) {
        if self.profile.services {
            let delay = [4, 20, 60][self.rng.below(3)];
            self.automatics = Automatics { delay, failovers_per_hour: 2, ..Automatics::default() };
        }
    }
}
