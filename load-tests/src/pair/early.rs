//! What clients are given between their binding and their `<enable/>`. Until its node has that, each is a client without stream
//! management: of what is on its way to its full JID when the node dies, another leads in its place, or its stream breaks, nothing is
//! promised.

use std::collections::BTreeMap;

use presence_engine::front::Fronted;
use presence_engine::ids::{Mode, NodeIx, StanzaId};
use presence_engine::state::JsmSession;
use session_mover::msg::Msg;
use srm::node::{Event as News, Out};
use srm::safety::{Release, Role};
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::ledger;
use super::world::World;

/// What a session without stream management was given: the messages that are addressed to it.
#[derive(Debug)]
pub struct Given {
    user: BareJid,
    messages: BTreeMap<StanzaId, Message>,
}

/// Its id, and whether it left the node for the client, or for the client's front.
#[derive(Debug)]
struct Message {
    name: String,
    let_go: bool,
}

impl World {
    /// A node has made a step; what it says comes next.
    pub(super) fn note_early(&mut self, node: usize) {
        let Some(state) = self.hosts[node].node().map(|n| n.driver().engine().state()) else { return };
        let mut given = std::mem::take(&mut self.early[node]);
        for (session, s) in state.sessions().filter(|(_, s)| s.enabled_at.is_none() && !s.early.is_empty()) {
            let new = || Given { user: s.user.clone(), messages: BTreeMap::new() };
            let messages = &mut given.entry(session).or_insert_with(new).messages;
            for (id, name) in self.given_early(s) {
                messages.entry(id).or_insert(Message { name, let_go: false });
            }
        }
        self.early[node] = given;
    }

    /// A node says this.
    pub(super) fn let_go_early(&mut self, node: usize, out: &Out) {
        let bytes = match out {
            Out::Deliver(_, bytes) | Out::Link(_, Msg::Fronted(Fronted::Deliver(_, bytes))) => bytes,
            _ => return,
        };
        if self.early[node].is_empty() {
            return;
        }
        let Some(id) = Stanza::from_bytes(bytes.clone()).ok().and_then(|s| s.head.id) else { return };
        let messages = self.early[node].values_mut().flat_map(|given| given.messages.values_mut());
        messages.filter(|m| m.name == *id).for_each(|m| m.let_go = true);
    }

    /// It has said all of that. Where the streams of users whom it leads ended without stream management, what it let go to them is
    /// where nobody can say.
    pub(super) fn end_early_streams(&mut self, node: usize) {
        let Some(state) = self.hosts[node].node().map(|n| n.driver().engine().state()) else { return };
        let mut lost = Vec::new();
        self.early[node].retain(|session, given| {
            let s = state.session(*session);
            let lasts = s.is_some_and(|s| s.detached_ms.is_none());
            if !lasts && state.owner_of(&given.user).is_some_and(|owner| owner.index() == node) {
                lost.extend(let_go(given));
            }
            lasts && s.is_some_and(|s| s.enabled_at.is_none())
        });
        lost.iter().for_each(|id| self.ledger.given_early(id));
    }

    /// A node dies: what it let go last is where nobody can say.
    pub(super) fn end_early(&mut self, node: usize) {
        let given = std::mem::take(&mut self.early[node]);
        given.values().flat_map(let_go).for_each(|id| self.ledger.given_early(&id));
    }

    /// A node starts with what its log has of the run before: what that let go is not known.
    pub(super) fn begin_early(&mut self, node: usize) {
        for group in NodeIx::BOTH {
            let other = self.hosts[1 - node].node();
            if other.is_none_or(|other| other.core(group).role() != Role::Primary) {
                self.take_early(node, group, node);
            }
        }
    }

    /// A node leads a group alone whose leader may live, and does not lead on.
    pub(super) fn replace_early(&mut self, node: usize, news: &News) {
        let News::Register(group, reg) = news else { return };
        let other = 1 - node;
        let leads_on = self.hosts[other].node().is_some_and(|n| n.core(*group).release() == Release::Alone);
        if reg.primary.index() == node && reg.mode == Mode::Solo && !leads_on {
            self.take_early(node, *group, other);
            let lost: Vec<String> = self.early[other].values().flat_map(let_go).collect();
            lost.iter().for_each(|id| self.ledger.given_early(id));
        }
    }

    /// A node has these users' sessions from the log of a run, of which it does not know what that let go.
    fn take_early(&mut self, node: usize, group: NodeIx, owner: usize) {
        let Some(state) = self.hosts[node].node().map(|n| n.driver().engine().state()) else { return };
        let mut given = Vec::new();
        for (_, s) in state.sessions().filter(|(_, s)| s.enabled_at.is_none()) {
            let led = state.user(&s.user).filter(|u| u.register == group);
            if led.and_then(|u| state.owner(u)).is_some_and(|of| of.index() == owner || of.index() == node) {
                given.extend(self.given_early(s));
            }
        }
        given.iter().for_each(|(_, id)| self.ledger.given_early(id));
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

/// What of it was let go.
fn let_go(given: &Given) -> impl Iterator<Item = String> {
    given.messages.values().filter(|message| message.let_go).map(|message| message.name.clone())
}
