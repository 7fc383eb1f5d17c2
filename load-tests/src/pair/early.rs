//! What clients are given between their binding and their `<enable/>`. Until its node has that, each is a client without stream
//! management: of what is on its way to its full JID when the node dies, another leads in its place, or its stream breaks, nothing is
//! promised.

use std::collections::BTreeMap;

use presence_engine::ids::{Mode, NodeIx, StanzaId};
use presence_engine::state::{JsmSession, State};
use srm::node::Event as News;
use srm::safety::Release;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::ledger;
use super::world::World;

/// What a session without stream management was given: the messages that are addressed to it.
#[derive(Debug)]
pub struct Given {
    user: BareJid,
    messages: BTreeMap<StanzaId, String>,
}

impl World {
    /// After each step of a node: where the streams of users whom it leads ended without stream management, what it let go to them is
    /// where nobody can say, unless it kept it.
    pub(super) fn keep_early(&mut self, node: usize) {
        let Some(state) = self.hosts[node].node().map(|n| n.driver().engine().state()) else { return };
        let mut lost = Vec::new();
        let mut given = std::mem::take(&mut self.early[node]);
        given.retain(|session, given| {
            let s = state.session(*session);
            let lasts = s.is_some_and(|s| s.detached_ms.is_none());
            if !lasts && state.owner_of(&given.user).is_some_and(|owner| owner.index() == node) {
                let gone = given.messages.iter().filter(|(id, _)| !is_stored(state, **id));
                lost.extend(gone.map(|(_, name)| name.clone()));
            }
            lasts && s.is_some_and(|s| s.enabled_at.is_none())
        });
        for (session, s) in state.sessions().filter(|(_, s)| s.enabled_at.is_none() && !s.early.is_empty()) {
            let new = || Given { user: s.user.clone(), messages: BTreeMap::new() };
            given.entry(session).or_insert_with(new).messages.extend(self.given_early(s));
        }
        self.early[node] = given;
        lost.iter().for_each(|id| self.ledger.given_early(id));
    }

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
        given.iter().for_each(|(_, id)| self.ledger.given_early(id));
        self.early[node].clear();
    }

    /// The messages that are addressed to this very session.
    fn given_early(&self, s: &JsmSession) -> Vec<(StanzaId, String)> {
        let to_itself = |id: &String| {
            let client = ledger::parse(id).and_then(|(_, to, _)| self.clients.get(to));
            client.is_some_and(|c| c.user == s.user && s.resource == c.resource)
        };
        let names = s.early.iter().filter_map(|early| {
            let name = Stanza::from_bytes(early.stanza.clone()).ok()?.head.id?;
            Some((early.id, name.to_string()))
        });
        names.filter(|(_, name)| to_itself(name)).collect()
    }
}

/// Whether a message waits for its user, in offline storage or with one of its sessions.
fn is_stored(state: &State, id: StanzaId) -> bool {
    state.users().any(|(_, user)| user.offline.iter().any(|message| message.id == id))
        || state.sessions().any(|(_, s)| s.holds(id) || s.early.holds(id))
}
