//! Clients whose socket is on one node and whose session is on the other (D5), as far as the node carries what the two
//! engines say to each other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use presence_engine::engine::{Input, Output};
use presence_engine::front::{Fronted, Relay};
use presence_engine::record::Record;
use session_mover::driver::Link;
use session_mover::frame::Frame;
use session_mover::msg::Msg;
use xmpp_core::jid::BareJid;

use super::{Node, Out};

/// Elements of the peer's clients that one turn takes at most.
const RELAYED_PER_TURN: usize = 4_096;
/// A peer that is silent for so long (2 s) does not answer clients either, in ticks.
const SILENT_TICKS: u32 = 8;

/// How often callers of a peer that is heard are looked for, in ticks (1 s).
const LOOK_TICKS: u64 = 4;
/// Whoever has waited for so long (10 s) for the peer is not answered, in ticks.
const UNANSWERED_TICKS: u64 = 40;
/// Whoever is not seen for so long (5 s) does not wait any more: a client that had no answer comes again sooner.
const GONE_TICKS: u64 = 20;

/// Accounts of the peer whose clients call here with sessions that they had there, and get no answer of it.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// Those who called since the peer is silent.
    lost: BTreeSet<BareJid>,
    /// While it is heard: since when each waits, and when it was seen to wait last, in ticks.
    waiting: BTreeMap<BareJid, (u64, u64)>,
}

impl Callers {
    /// These wait now.
    fn wait(&mut self, now_waiting: BTreeSet<BareJid>, now: u64) {
        for user in now_waiting {
            self.waiting.entry(user).or_insert((now, now)).1 = now;
        }
        self.waiting.retain(|_, (_, seen)| now - *seen < GONE_TICKS);
    }

    /// How many have waited for longer than an answer takes.
    fn unanswered(&self, now: u64) -> usize {
        self.waiting.values().filter(|(since, _)| now - since >= UNANSWERED_TICKS).count()
    }
}

impl Node {
    /// Sends the peer what is for it; gives back what stays here.
    pub(super) fn send_to_peer(&mut self, output: Output) -> Option<Output> {
        let me = self.me;
        let msg = match output {
            Output::Deliver(conn, bytes) if conn.node != me => Msg::Fronted(Fronted::Deliver(conn, bytes)),
            Output::Credit(conn) if conn.node != me => Msg::Fronted(Fronted::Credit(conn)),
            Output::Close(conn, last, end) if conn.node != me => {
                Msg::Fronted(Fronted::Close(conn, last, end))
            }
            Output::Tell(told) => Msg::Fronted(told),
            Output::Relay(relay) => Msg::Relay(relay),
            here => return Some(here),
        };
        // What does not reach the peer is told again when its link is there again.
        if self.driver.is_linked() {
            self.outs.push(Out::Link(Link::Out, msg));
        }
        None
    }

    /// The peer hands users over: what waits here of their streams it has said before, when this node owned them, and since
    /// then they may have gone on elsewhere. It opens them anew behind this frame.
    pub(super) fn void_relayed(&mut self, frame: &Bytes) {
        if self.relayed.is_empty() {
            return;
        }
        let Ok(frame) = Frame::decode(frame) else { return };
        let users: Vec<BareJid> = frame
            .records
            .into_iter()
            .filter_map(|record| match record {
                Record::HandOver { user, to, .. } if to == self.me => Some(user),
                _ => None,
            })
            .collect();
        if !users.is_empty() {
            let void = |input: &Input| matches!(input, Input::Relay(Relay::Open { user, .. }) if users.contains(user));
            self.relayed.retain(|input| !void(input));
        }
    }

    /// Clients that lost the peer and call here with their sessions: while it is silent they are believed, and while it is
    /// heard there is an alarm.
    pub(super) fn watch_callers(&mut self) {
        match self.evidence.silent() {
            Some(ticks) if ticks >= SILENT_TICKS => {
                self.callers.waiting.clear();
                if self.cfg.evidence.callers > 0 {
                    self.callers.lost.extend(self.driver.engine().callers());
                    self.evidence.called(u32::try_from(self.callers.lost.len()).unwrap_or(u32::MAX));
                }
            }
            Some(_) if self.ticks.is_multiple_of(LOOK_TICKS) => {
                self.callers.lost.clear();
                self.callers.wait(self.driver.engine().callers(), self.ticks);
            }
            _ => self.callers.lost.clear(),
        }
    }

    /// For the operator. It brings no failover: whoever sends beacons may have answered others, and knows what.
    pub(super) fn callers_alarm(&self) -> Option<String> {
        let accounts = self.callers.unanswered(self.ticks);
        let peer = &self.cfg.names[self.me.peer().index()];
        (accounts > 0 && accounts >= self.cfg.evidence.callers as usize).then(|| {
            format!(
                "{accounts} accounts of {peer} call here with sessions that they had there, and {peer} is heard but does not \
                 answer them: see `tandem status` and `tandem service list` there; `tandem failover {peer}` if it is offered, \
                 or `tandem restart {peer}`"
            )
        })
    }

    /// Input of the peer's clients, as long as ours would be read too (D9).
    pub(super) fn take_relayed(&mut self) {
        if self.clients_may_send() {
            let count = self.relayed.len().min(RELAYED_PER_TURN);
            self.inbox.extend(self.relayed.drain(..count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_ten_seconds_for_a_peer_that_is_heard_is_not_answered() {
        let users = |names: &[&str]| names.iter().map(|name| BareJid::parse(name).unwrap()).collect();
        let mut callers = Callers::default();
        // Others each second: each was answered in less.
        for second in 0..30 {
            callers.wait(users(&[&format!("u{second}@d")]), second * LOOK_TICKS);
            assert_eq!(callers.unanswered(second * LOOK_TICKS), 0);
        }
        // Two who come again and again, one of them with breaks.
        let begun = 1_000;
        for second in 0..10 {
            let names: &[&str] = if second % 4 == 0 { &["a@d", "b@d"] } else { &["a@d"] };
            callers.wait(users(names), begun + second * LOOK_TICKS);
            assert_eq!(callers.unanswered(begun + second * LOOK_TICKS), 0, "{second}");
        }
        let now = begun + UNANSWERED_TICKS;
        callers.wait(users(&["a@d"]), now);
        assert_eq!(callers.unanswered(now), 2);
        // They are answered.
        callers.wait(users(&[]), now + GONE_TICKS);
        assert_eq!(callers.unanswered(now + GONE_TICKS), 0);
    }
}
