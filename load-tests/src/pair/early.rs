//! What clients are given between their binding and their `<enable/>`. Until its node has that, each is a client without stream
//! management: of what is on its way to its full JID when the node dies, or another leads in its place, nothing is promised.

use presence_engine::ids::{Mode, NodeIx};
use presence_engine::state::JsmSession;
use srm::node::Event as News;
use srm::safety::Release;
use xmpp_core::stanza::Stanza;

use super::ledger;
use super::world::World;

impl World {
    /// A node dies, or starts with what its log has of the run before.
    pub(super) fn end_early(&mut self, node: usize) {
        self.end_early_of(node, &NodeIx::BOTH);
    }

    /// A node leads a group alone whose leader may live, and does not lead on.
    pub(super) fn replace_early(&mut self, node: usize, news: &News) {
        let News::Register(group, reg) = news else { return };
        let other = 1 - node;
        let leads_on = self.hosts[other].node().is_some_and(|n| n.core(*group).release() == Release::Alone);
        if reg.primary.index() == node && reg.mode == Mode::Solo && !leads_on {
            self.end_early_of(other, &[*group]);
        }
    }

    /// What its sessions were given that have not enabled stream management may be lost.
    fn end_early_of(&mut self, node: usize, groups: &[NodeIx]) {
        let mut given = Vec::new();
        if let Some(state) = self.hosts[node].node().map(|n| n.driver().engine().state()) {
            for (_, s) in state.sessions().filter(|(_, s)| s.enabled_at.is_none()) {
                let led = state.user(&s.user).filter(|u| groups.contains(&u.register));
                if led.and_then(|u| state.owner(u)).is_some_and(|owner| owner.index() == node) {
                    given.extend(self.given_early(s));
                }
            }
        }
        given.iter().for_each(|id| self.ledger.given_early(id));
    }

    /// The messages that are addressed to this very session.
    fn given_early(&self, s: &JsmSession) -> Vec<String> {
        let to_itself = |id: &String| {
            let client = ledger::parse(id).and_then(|(_, to, _)| self.clients.get(to));
            client.is_some_and(|c| c.user == s.user && s.resource == c.resource)
        };
        let ids = s.early.iter().filter_map(|early| Stanza::from_bytes(early.stanza.clone()).ok()?.head.id);
        ids.map(|id| id.to_string()).filter(to_itself).collect()
    }
}
