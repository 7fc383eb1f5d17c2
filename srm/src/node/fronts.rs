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

use super::{Event, FAIL_OVER, Node, Out};

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
/// A peer that was asked to hand its users over is not asked again before (a minute), in ticks.
const ASK_AGAIN_TICKS: u64 = 240;
/// That this node was asked to, and does not, is told again after this (ten minutes), in ticks.
const REFUSED_AGAIN_TICKS: u64 = 2_400;

/// Why this node does not fail over for clients.
const ANSWERS: &str = "this node answers clients";
const STOPPED: &str = "the operator stopped a critical service of this node, and that has a delay of its own: start it, or fail over by hand";

/// Accounts of the peer whose clients call here with sessions that they had there, and get no answer of it.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// Those who called since the peer is silent.
    lost: BTreeSet<BareJid>,
    /// While it is heard: since when each waits, and when it was seen to wait last, in ticks.
    waiting: BTreeMap<BareJid, (u64, u64)>,
    /// Answers of the peer to clients that log in here, and when there was one more, in ticks.
    answers: (u64, u64),
    /// The same of this node, to whomever.
    granted: (u64, u64),
    /// When the peer was last asked to hand its users over, in ticks.
    asked: Option<u64>,
    /// It was told of those who wait.
    told: bool,
    /// When it was last told that this node was asked to, and does not, in ticks; for each reason.
    refused: BTreeMap<&'static str, u64>,
}

impl Callers {
    /// These wait now.
    fn wait(&mut self, now_waiting: BTreeSet<BareJid>, now: u64) {
        for user in now_waiting {
            self.waiting.entry(user).or_insert((now, now)).1 = now;
        }
        self.waiting.retain(|_, (_, seen)| now - *seen < GONE_TICKS);
    }

    /// So many answers of the peer there were.
    fn answered(&mut self, answers: u64, now: u64) {
        if self.answers.0 != answers {
            self.answers = (answers, now);
        }
    }

    /// How many wait at this moment, and have for so long, while the peer answered nobody.
    fn overdue(&self, patience: u64, now: u64) -> usize {
        let waits = |since: u64| now - since.max(self.answers.1) >= patience;
        self.waiting.values().filter(|(since, seen)| *seen == now && waits(*since)).count()
    }

    /// Whether the peer may be asked now to hand its users over.
    fn may_ask(&self, now: u64) -> bool {
        self.asked.is_none_or(|asked| now - asked >= ASK_AGAIN_TICKS)
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
    /// heard there is an alarm, and it is asked to fail over in the end.
    pub(super) fn watch_callers(&mut self, ticks: u16) {
        if ticks > 2 {
            // This process was paused: it was not the peer that did not answer.
            self.callers.waiting.clear();
        }
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
                let granted = self.driver.engine().granted();
                if self.callers.granted.0 != granted {
                    self.callers.granted = (granted, self.ticks);
                }
                self.callers.answered(self.driver.engine().answers(), self.ticks);
                self.callers.wait(self.driver.engine().answerable_callers(), self.ticks);
                self.ask_to_fail_over();
            }
            _ => self.callers.lost.clear(),
        }
    }

    /// A peer that is heard and answers nobody, for as long as it might be silent, should hand its users over. Whoever sends
    /// beacons may have answered others and knows what: it is never taken over for that.
    fn ask_to_fail_over(&mut self) {
        let (now, enough) = (self.ticks, self.cfg.evidence.callers);
        let accounts = self.callers.overdue(self.callers_patience(), now);
        let accounts = u32::try_from(accounts).unwrap_or(u32::MAX);
        self.callers.told &= !self.callers.waiting.is_empty();
        if enough == 0 || accounts < enough || !self.callers.may_ask(now) || !self.may_serve_peers() {
            return;
        }
        self.callers.asked = Some(now);
        if !std::mem::replace(&mut self.callers.told, true) {
            self.outs.push(Out::Event(Event::Unanswered(accounts)));
        }
        self.tell_peer(FAIL_OVER);
    }

    /// As long as a node may be silent, and for longer than the alarm.
    fn callers_patience(&self) -> u64 {
        u64::from(self.cfg.evidence.silence).max(3 * UNANSWERED_TICKS)
    }

    /// Whether this node has let a client in, or go on, in the time for which others wait for it: it answers, then.
    fn answers_clients(&self) -> bool {
        self.callers.granted.0 > 0 && self.ticks - self.callers.granted.1 < self.callers_patience()
    }

    /// Why this node keeps its users although clients of it wait at the peer: what would be for it if nothing were against it.
    pub(super) fn keeps_users(&self) -> Option<&'static str> {
        // That one has a delay of its own, and whoever stopped it knows of that. Of one that died nobody need know.
        let stopped = self.has_stopped_service().then_some(STOPPED);
        if self.answers_clients() { Some(ANSWERS) } else { stopped }
    }

    /// For the operator, once in a while: nothing else shows that the peer asks.
    pub(super) fn tell_that_it_keeps_users(&mut self, why: &'static str) {
        let now = self.ticks;
        if self.callers.refused.get(why).is_none_or(|told| now - told >= REFUSED_AGAIN_TICKS) {
            self.callers.refused.insert(why, now);
            self.outs.push(Out::Event(Event::NotForClients(why)));
        }
    }

    /// Whether this node has asked the peer, a moment ago.
    pub(super) fn has_asked_to_fail_over(&self) -> bool {
        !self.callers.may_ask(self.ticks)
    }

    /// Whether this node could serve the peer's users in its place, and nothing explains why that does not answer them.
    fn may_serve_peers(&self) -> bool {
        let able = !self.lacks_service() && self.disk_alarm().is_none();
        let slow = self.peer_told().crowded || self.peer_told().disk_stalls;
        able && !slow && self.would_fail_over() && self.both_normal() && self.shown().row.id == 1
    }

    /// For the operator, long before anything is done about it.
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
    use presence_engine::ids::{Conn, NodeIx};
    use session_mover::log::Which;
    use xmpp_core::stanza::Stanza;

    use super::super::enabling::Enabling;
    use super::super::tests::{Memory, acknowledge, add, config, copy, hear, link_up, pair};
    use super::super::{Action, Automatics, Health, In, Service};
    use super::*;
    use crate::view::Cause;

    fn users(names: &[&str]) -> BTreeSet<BareJid> {
        names.iter().map(|name| BareJid::parse(name).unwrap()).collect()
    }

    #[test]
    fn whoever_waits_for_ten_seconds_for_a_peer_that_is_heard_is_not_answered() {
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

    #[test]
    fn only_those_count_who_wait_while_the_peer_answers_nobody_at_all() {
        const PATIENCE: u64 = 240;
        let mut callers = Callers::default();
        // What was counted before they came is no news.
        callers.answered(7, 1_000);
        let wait = |callers: &mut Callers, from: u64, to: u64| {
            for now in (from..=to).step_by(LOOK_TICKS as usize) {
                callers.wait(users(&["a@d", "b@d"]), now);
            }
        };
        wait(&mut callers, 2_000, 2_000 + PATIENCE - LOOK_TICKS);
        assert_eq!(callers.overdue(PATIENCE, 2_000 + PATIENCE - LOOK_TICKS), 0);
        let now = 2_000 + PATIENCE;
        callers.answered(7, now);
        callers.wait(users(&["a@d"]), now);
        assert_eq!(callers.overdue(PATIENCE, now), 1, "the other may have been answered a moment ago");
        callers.wait(users(&["a@d", "b@d"]), now);
        assert_eq!(callers.overdue(PATIENCE, now), 2);
        // A third one is answered: the peer is slow.
        callers.answered(8, now);
        wait(&mut callers, now, now + PATIENCE - LOOK_TICKS);
        assert_eq!(callers.overdue(PATIENCE, now + PATIENCE - LOOK_TICKS), 0);
        wait(&mut callers, now + PATIENCE, now + PATIENCE);
        assert_eq!(callers.overdue(PATIENCE, now + PATIENCE), 2);
    }

    #[test]
    fn a_peer_that_hands_nobody_over_is_asked_again_after_a_minute() {
        let mut callers = Callers::default();
        assert!(callers.may_ask(1));
        callers.asked = Some(1);
        assert!(!callers.may_ask(1 + ASK_AGAIN_TICKS - 1));
        assert!(callers.may_ask(1 + ASK_AGAIN_TICKS));
    }

    /// Node b is well, as its peer is, and has an account.
    fn well() -> (Node, Memory) {
        let mut cfg = config(true);
        cfg.automatics = Automatics { delay: 360, failovers_per_hour: 1, ..Automatics::default() };
        cfg.evidence.callers = 2;
        let mut disk = Memory::default();
        let mut node = Node::start(cfg, NodeIx::BOTH.map(|g| Some(copy(pair(g)))), 1, &mut disk);
        hear(&mut node, &mut disk, 1);
        link_up(&mut node, &mut disk);
        add(&mut node, &mut disk, "u@d");
        pass(&mut node, &mut disk, 98);
        assert!(node.offers().contains(&Action::Failover));
        (node, disk)
    }

    /// So many ticks, in which the peer is heard and gets everything.
    fn pass(node: &mut Node, disk: &mut Memory, ticks: u32) {
        for _ in 0..ticks {
            let number = node.last_number + 1;
            hear(node, disk, number);
            node.handle(0, In::Ticks(1), disk);
            node.step(0, disk);
            let end = node.driver().own_end();
            node.handle(0, In::Stored(Which::Own, end, true), disk);
            acknowledge(node, disk);
        }
    }

    /// It hears that it answers none of its clients at the peer. Whether it hands its users over, and why.
    fn is_asked(node: &mut Node, disk: &mut Memory) -> Option<Cause> {
        node.handle(0, In::LinkMsg(Link::In, Msg::Control(vec![FAIL_OVER].into())), disk);
        node.moving.as_ref().map(|moving| moving.cause())
    }

    fn hears_of_its_clients(before: impl FnOnce(&mut Node, &mut Memory)) -> Option<Cause> {
        let (mut node, mut disk) = well();
        before(&mut node, &mut disk);
        is_asked(&mut node, &mut disk)
    }

    /// What the node has told of why it keeps its users, since this was asked last.
    fn told(node: &mut Node) -> Vec<&'static str> {
        let why = |out| match out {
            Out::Event(Event::NotForClients(why)) => Some(why),
            _ => None,
        };
        node.take().into_iter().filter_map(why).collect()
    }

    /// Somebody logs in at this node.
    fn logs_in(node: &mut Node, disk: &mut Memory) {
        let conn = Conn { node: NodeIx::B, number: 1 };
        let user = BareJid::parse("u@d").unwrap();
        let opened = Input::Opened { conn, user, salt: Bytes::new(), entropy: [1; 16], token: None };
        let bind = b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        let element = Input::Element { conn, stanza: Stanza::parse(bind).unwrap() };
        for input in [opened, element] {
            node.handle(0, In::Client(input), disk);
        }
        node.step(0, disk);
        assert_eq!(node.driver.engine().granted(), 1);
        acknowledge(node, disk);
    }

    #[test]
    fn a_node_that_lets_clients_in_keeps_its_users_for_as_long_and_says_so_now_and_then() {
        let (mut node, mut disk) = well();
        logs_in(&mut node, &mut disk);
        pass(&mut node, &mut disk, LOOK_TICKS as u32);
        told(&mut node);
        assert_eq!((is_asked(&mut node, &mut disk), told(&mut node)), (None, vec![ANSWERS]));
        assert_eq!((is_asked(&mut node, &mut disk), told(&mut node)), (None, vec![]), "once");
        // It lets nobody in any more: up to then it may be believed to.
        let patience = node.callers_patience();
        assert_eq!(patience, 240);
        while node.ticks - node.callers.granted.1 < patience - 1 {
            pass(&mut node, &mut disk, 1);
        }
        assert_eq!(is_asked(&mut node, &mut disk), None);
        pass(&mut node, &mut disk, 1);
        assert_eq!(is_asked(&mut node, &mut disk), Some(Cause::Clients));
    }

    #[test]
    fn that_it_keeps_its_users_is_told_again_after_ten_minutes() {
        let (mut node, mut disk) = well();
        node.callers.granted = (1, node.ticks);
        assert_eq!((is_asked(&mut node, &mut disk), told(&mut node)), (None, vec![ANSWERS]));
        for (later, news) in [(REFUSED_AGAIN_TICKS - 1, vec![]), (1, vec![ANSWERS])] {
            node.ticks += later;
            node.callers.granted.1 = node.ticks;
            assert_eq!((is_asked(&mut node, &mut disk), told(&mut node)), (None, news), "{later}");
        }
        // Another reason is news at once.
        node.handle(0, In::Service(Service::Router, Health::Stopped), &mut disk);
        node.callers.granted = (0, 0);
        assert_eq!((is_asked(&mut node, &mut disk), told(&mut node)), (None, vec![STOPPED]));
    }

    #[test]
    fn what_the_operator_stopped_is_nobodys_reason_to_move_users_before_its_delay_is_over() {
        let waits_no_longer = [Health::Dead, Health::Fails].map(|health| (health, Some(Cause::Clients)));
        for (health, moves) in [(Health::Stopped, None)].into_iter().chain(waits_no_longer) {
            for service in [Service::Database, Service::PresenceEngine, Service::Router] {
                let (mut node, mut disk) = well();
                told(&mut node);
                node.handle(0, In::Service(service, health), &mut disk);
                assert_eq!(is_asked(&mut node, &mut disk), moves, "{service:?} {health:?}");
                let news = if moves.is_none() { vec![STOPPED] } else { vec![] };
                assert_eq!(told(&mut node), news, "{service:?} {health:?}");
            }
        }
        // One that is not critical brings no failover about either.
        let (mut node, mut disk) = well();
        node.handle(0, In::Service(Service::Authentication, Health::Stopped), &mut disk);
        assert_eq!(is_asked(&mut node, &mut disk), Some(Cause::Clients));
    }

    #[test]
    fn a_node_hands_its_users_over_for_clients_that_wait_unless_it_would_be_of_no_use() {
        assert_eq!(hears_of_its_clients(|_, _| ()), Some(Cause::Clients));
        let peer_too = |node: &mut Node, _: &mut Memory| {
            let (now, both) = (node.ticks, users(&["a@d", "b@d"]));
            node.callers.waiting =
                both.into_iter().map(|user| (user, (now - UNANSWERED_TICKS, now))).collect();
        };
        assert_eq!(hears_of_its_clients(peer_too), None, "the peer answers nobody either");
        let storm = |node: &mut Node, disk: &mut Memory| {
            node.handle(0, In::Logins { per_second: 1, crowded: true }, disk);
        };
        assert_eq!(hears_of_its_clients(storm), None, "it is slow, and knows why");
        let disabled = |node: &mut Node, _: &mut Memory| {
            node.automatics(Automatics { disabled: true, ..node.cfg.automatics });
        };
        assert_eq!(hears_of_its_clients(disabled), None);
        let guarded = |node: &mut Node, _: &mut Memory| {
            node.automatics(Automatics { failovers_per_hour: 0, ..node.cfg.automatics });
        };
        assert_eq!(hears_of_its_clients(guarded), None);
    }

    /// Node b, which is well, and has run for longer than anybody need wait.
    fn patient() -> Node {
        let (mut node, mut disk) = well();
        let patience = node.callers_patience() as u32;
        pass(&mut node, &mut disk, patience);
        node
    }

    /// Two accounts of the peer wait here, and have for long enough.
    fn are_kept_waiting(node: &mut Node) {
        let (now, patience) = (node.ticks, node.callers_patience());
        let both = users(&["a@d", "b@d"]).into_iter();
        node.callers.waiting = both.map(|user| (user, (now - patience, now))).collect();
    }

    /// Whether the peer is asked now to hand its users over, and what is told of that.
    fn asks(node: &mut Node) -> (bool, Vec<u32>) {
        node.take();
        node.ask_to_fail_over();
        let (mut asked, mut told) = (false, Vec::new());
        for out in node.take() {
            match out {
                Out::Event(Event::Unanswered(accounts)) => told.push(accounts),
                Out::Link(Link::Out, Msg::Control(word)) => asked |= word[..] == [FAIL_OVER],
                _ => {}
            }
        }
        (asked, told)
    }

    #[test]
    fn that_clients_wait_is_told_once_and_again_when_others_come_to_wait() {
        let mut node = patient();
        are_kept_waiting(&mut node);
        assert_eq!(asks(&mut node), (true, vec![2]));
        // A minute later they wait still: it is asked again, and that is no news.
        node.callers.asked = None;
        assert_eq!(asks(&mut node), (true, vec![]));
        node.callers.waiting.clear();
        assert_eq!(asks(&mut node), (false, vec![]), "nobody waits any more");
        node.callers.asked = None;
        are_kept_waiting(&mut node);
        assert_eq!(asks(&mut node), (true, vec![2]));
    }

    #[test]
    fn a_peer_is_not_asked_before_both_nodes_are_shown_normal() {
        let mut node = patient();
        are_kept_waiting(&mut node);
        node.enabling = Enabling::begin();
        assert!(node.both_normal() && node.would_fail_over(), "each serves its own users");
        assert_ne!(node.shown().row.id, 1);
        assert_eq!(asks(&mut node), (false, vec![]));
        node.enabling = Enabling::default();
        assert_eq!(asks(&mut node), (true, vec![2]));
    }

    #[test]
    fn whoever_waits_while_this_process_stands_still_waits_for_it() {
        let mut node = patient();
        for (ticks, left) in [(1, 2), (2, 2), (3, 0)] {
            are_kept_waiting(&mut node);
            node.watch_callers(ticks);
            assert_eq!(node.callers.waiting.len(), left, "{ticks}");
        }
    }
}
