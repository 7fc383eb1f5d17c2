//! The search for a node that takes the session, and what comes of it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xmpp_core::dual::Peer;

use super::{Runner, Task};
use crate::conn::ConnError;
use crate::dual::Input;
use crate::plain::{self, Established, Outcome, Resumption, Rotation};
use crate::session::{Event, Options};
use crate::sm::Outgoing;

/// The search for a node that takes the session.
pub(super) struct Seeking {
    rotation: Rotation,
    node: String,
    pub(super) attempt: Task<Established>,
}

impl Runner {
    /// Looks for the session, at first where it was unless something better is known.
    pub(super) fn seek(&mut self, first: Option<&str>) {
        let first = first.unwrap_or(&self.main_node);
        let mut rotation = Rotation::new(&self.options.nodes, Some(first), self.options.pause.clone());
        let Some((place, pause)) = rotation.next(&mut self.rng) else {
            return self.tell(Event::Error("no node to connect to".into()));
        };
        let (node, attempt) = (place.node.to_string(), self.attempt(place, pause));
        self.seeking = Some(Seeking { rotation, node, attempt });
    }

    fn attempt(&mut self, place: Peer, pause: Duration) -> Task<Established> {
        let options = self.options.clone();
        let told = self.machine.told().filter(|_| options.dual);
        let told = self.machine.numbered(told);
        let resumption = self.sm_id.clone().map(|previd| Resumption { previd, h: self.sm.inbound(), told });
        let token = self.by_token();
        Box::pin(async move {
            sleep(pause).await;
            let Options { dialer, nodes, account, .. } = &options;
            plain::establish(dialer, nodes, place, account, resumption.as_ref(), token.as_ref()).await
        })
    }

    pub(super) fn attempt_failed(&mut self, error: &ConnError) {
        let node = self.seeking.as_ref().map(|seeking| seeking.node.clone()).unwrap_or_default();
        self.tell(Event::AttemptFailed { node, reason: error.to_string() });
        if error.ends_session() && self.sm_id.is_some() {
            return self.feed(Input::Gone);
        }
        let Some(Seeking { mut rotation, .. }) = self.seeking.take() else { return };
        if let Some((place, pause)) = rotation.next_after(error, &mut self.rng) {
            let (node, attempt) = (place.node.to_string(), self.attempt(place, pause));
            self.seeking = Some(Seeking { rotation, node, attempt });
        }
        self.feed(Input::ReconnectFailed);
    }

    pub(super) fn established(&mut self, established: Established) {
        let Established { conn, at, features, outcome } = established;
        self.seeking = None;
        self.main = Some(conn);
        (self.read, self.write) = (true, true);
        self.new_stream();
        let to = at.node.to_string();
        let from = std::mem::replace(&mut self.main_node, to.clone());
        let (mut anew, mut sound, mut before) = (false, true, Vec::new());
        match outcome {
            Outcome::Resumed { h, told } => {
                before = told;
                self.tell(Event::Resumed { from, to });
                sound = self.resumed(h);
            }
            Outcome::Bound { jid, sm_id, failed_h, early } => {
                anew = true;
                self.end_session(failed_h);
                self.sm_id = sm_id;
                self.in_session = true;
                let again = std::mem::replace(&mut self.was_bound, true);
                self.tell(Event::Bound { node: to, jid, again });
                if self.options.initial_presence {
                    let presence = Bytes::from_static(b"<presence/>");
                    self.sm.push_first(Outgoing { id: String::new(), bytes: presence, survives: false });
                }
                if self.options.roster {
                    let bytes = plain::ask_for_roster();
                    self.sm.push_first(Outgoing { id: String::new(), bytes, survives: false });
                }
                early.into_iter().for_each(|stanza| self.tell(Event::Stanza(stanza)));
            }
        }
        let dual = features.dual && self.options.dual;
        self.feed(Input::MainUp { at, sm_id: self.sm_id.clone(), anew, dual });
        for said in before {
            self.take_token(&said);
            self.feed(Input::Main(said));
        }
        if !sound {
            self.main_ends("the server cannot count", Input::Gone);
        }
    }
}
