//! Probes of the database and of the router: a commit to the own log, and a stanza of this node to itself. What users' traffic
//! has committed meanwhile counts, so that an idle disk is written to no more often than there are probes.

use presence_engine::engine::Input;
use session_mover::log::Which;
use xmpp_core::stanza::Stanza;

use super::{Disk, Node, Out};

/// A log to which nothing was added for so long (4 s) gets a record with the next stanza to itself, in ticks.
const IDLE_TICKS: u64 = 16;

/// What waits, and what was seen.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// How far the own log was durable when a commit was last answered.
    seen: u64,
    /// Commits that wait for the next turn.
    asked: Vec<u64>,
    /// Commits that wait for a disk: the question, and the frame.
    waiting: Vec<(u64, Which, u64)>,
    /// The own log's end, and since when it is there.
    end: (u64, u64),
    /// A stanza to itself waits for the next turn.
    looping: bool,
    /// The frame behind which the last one is let go.
    looped: u64,
}

impl Node {
    /// Answered by [`Out::Probed`] as soon as something was committed since the last answer: what clients say, or, if
    /// nobody says anything, a record that says nothing.
    pub(super) fn probe_commit(&mut self, number: u64) {
        let (synced, end) = (self.driver.own_synced(), self.driver.own_end().seq);
        if synced > self.probes.seen {
            self.probes.seen = synced;
            return self.outs.push(Out::Probed(number));
        }
        if end <= synced {
            self.inbox.push(Input::Nothing);
        }
        self.probes.asked.push(number);
    }

    /// A stanza of this node to itself begins its way.
    pub(super) fn probe_loop(&mut self, stanza: Stanza) {
        if self.ticks >= self.probes.end.1 + IDLE_TICKS {
            self.inbox.push(Input::Nothing);
        }
        self.inbox.push(Input::Loop(stanza));
        self.probes.looping = true;
    }

    /// Whether the last one waited neither for a disk nor for the peer: if it has not come, it is lost.
    pub fn loop_is_let_go(&self) -> bool {
        !self.probes.looping && self.driver.is_done(self.probes.looped)
    }

    /// A turn was made of all that was asked.
    pub(super) fn probes_began(&mut self, disk: &mut dyn Disk) {
        let end = self.driver.own_end().seq;
        if std::mem::take(&mut self.probes.looping) {
            self.probes.looped = end;
        }
        if self.probes.asked.is_empty() {
            return;
        }
        // One that leads nothing writes nothing: its disk has what the peer writes.
        let own = self.serving[self.me.index()] || end > self.driver.own_synced();
        let (which, frame) = if own { (Which::Own, end) } else { (Which::Peer, self.driver.peer_end().seq) };
        if which == Which::Peer {
            disk.sync_soon(Which::Peer);
        }
        let asked = std::mem::take(&mut self.probes.asked);
        self.probes.waiting.extend(asked.into_iter().map(|number| (number, which, frame)));
        self.answer_commits();
    }

    /// Answers what has become durable; or was cut from its log, which is durable too.
    pub(super) fn answer_commits(&mut self) {
        if self.probes.waiting.is_empty() {
            return;
        }
        let (own, copy) = (self.driver.own_end().seq, self.driver.peer_end().seq);
        let (own_synced, copy_synced) = (self.driver.own_synced(), self.driver.copy_synced());
        let there = |which: &Which, frame: &u64| match which {
            Which::Own => own_synced >= (*frame).min(own),
            Which::Peer => copy_synced >= (*frame).min(copy),
        };
        let Node { probes, outs, .. } = self;
        probes.waiting.retain(|(number, which, frame)| {
            let done = there(which, frame);
            if done {
                outs.push(Out::Probed(*number));
            }
            !done
        });
        probes.seen = own_synced;
    }

    /// Notes whether anything is written.
    pub(super) fn watch_commits(&mut self) {
        let end = self.driver.own_end().seq;
        if end != self.probes.end.0 {
            self.probes.end = (end, self.ticks);
        }
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Conn, Mode, NodeIx};

    use super::super::In;
    use super::super::tests::{Memory, acknowledge, add, config, hear, link_up, started};
    use super::super::{Config, RegisterCopy};
    use super::*;

    const PING: &str =
        "<iq xmlns='jabber:client' type='get' id='1' to='d'><ping xmlns='urn:xmpp:ping'/></iq>";

    /// Node b, which serves its users in Pair.
    fn serving() -> (Node, Memory) {
        let (mut node, mut disk) = started(true);
        link_up(&mut node, &mut disk);
        hear(&mut node, &mut disk, 2);
        node.step(0, &mut disk);
        stored(&mut node, &mut disk);
        acknowledge(&mut node, &mut disk);
        node.take();
        (node, disk)
    }

    fn stored(node: &mut Node, disk: &mut Memory) {
        let end = node.driver().own_end();
        node.handle(0, In::Stored(Which::Own, end, true), disk);
    }

    fn commit(node: &mut Node, disk: &mut Memory, number: u64) -> bool {
        node.handle(0, In::Commit(number), disk);
        node.step(0, disk);
        answered(node, number)
    }

    fn answered(node: &mut Node, number: u64) -> bool {
        node.take().contains(&Out::Probed(number))
    }

    #[test]
    fn a_commit_is_one_when_the_disk_says_so_and_the_peer_need_not() {
        let (mut node, mut disk) = serving();
        assert!(commit(&mut node, &mut disk, 1), "its start wrote something");
        let end = node.driver().own_end().seq;
        assert!(!commit(&mut node, &mut disk, 2));
        assert_eq!(node.driver().own_end().seq, end + 1, "an idle log gets a record");
        stored(&mut node, &mut disk);
        assert!(answered(&mut node, 2));
        assert!(node.driver().acked() <= end, "the peer has not acknowledged it");
    }

    #[test]
    fn what_users_wrote_counts_as_the_probe() {
        let (mut node, mut disk) = serving();
        assert!(commit(&mut node, &mut disk, 1));
        add(&mut node, &mut disk, "u@d");
        let end = node.driver().own_end().seq;
        assert!(commit(&mut node, &mut disk, 2));
        assert_eq!(node.driver().own_end().seq, end, "nothing is written for it");
    }

    #[test]
    fn one_that_leads_nothing_writes_nothing() {
        let mut disk = Memory::default();
        let backed: [Option<RegisterCopy>; 2] =
            [NodeIx::A, NodeIx::A].map(|a| Some(super::super::tests::copy(super::super::tests::pair(a))));
        let mut node = Node::start(config(true), backed, 1, &mut disk);
        assert!(commit(&mut node, &mut disk, 1));
        assert_eq!(node.driver().own_end().seq, 0);
        // Nor in vain: what it holds of the peer's log is on its disk.
        assert!(commit(&mut node, &mut disk, 2));
    }

    #[test]
    fn a_stanza_to_itself_waits_for_disk_and_peer_as_all_do_and_is_no_loss_meanwhile() {
        let (mut node, mut disk) = serving();
        for tick in 0..IDLE_TICKS + 2 {
            node.handle(0, In::Ticks(1), &mut disk);
            hear(&mut node, &mut disk, 3 + tick as u32);
        }
        let end = node.driver().own_end().seq;
        let back = |node: &mut Node| {
            let own = Conn { node: NodeIx::B, number: Conn::SELF };
            node.take().iter().any(|out| matches!(out, Out::Deliver(conn, _) if *conn == own))
        };
        node.handle(0, In::Loop(Stanza::parse(PING.as_bytes()).unwrap()), &mut disk);
        assert!(!node.loop_is_let_go(), "its turn has not come");
        node.step(0, &mut disk);
        assert_eq!(node.driver().own_end().seq, end + 1, "through the log");
        assert!(!node.loop_is_let_go() && !back(&mut node));
        stored(&mut node, &mut disk);
        assert!(!node.loop_is_let_go() && !back(&mut node), "the peer has not acknowledged it");
        acknowledge(&mut node, &mut disk);
        assert!(node.loop_is_let_go() && back(&mut node));
        // The log was written to a moment ago.
        node.handle(0, In::Ticks(1), &mut disk);
        node.handle(0, In::Loop(Stanza::parse(PING.as_bytes()).unwrap()), &mut disk);
        node.step(0, &mut disk);
        assert_eq!(node.driver().own_end().seq, end + 1);
        assert!(back(&mut node), "nothing is in its way");
    }

    /// R0: what says nothing to anybody was not acknowledged alone.
    #[test]
    fn a_probe_of_a_node_that_leads_alone_is_nothing_that_it_acknowledged_alone() {
        let mut disk = Memory::default();
        let mut node = Node::start(Config { single: true, ..config(true) }, [None; 2], 1, &mut disk);
        node.handle(0, In::Ticks(1), &mut disk);
        node.step(0, &mut disk);
        stored(&mut node, &mut disk);
        assert_eq!(node.core(NodeIx::B).reg().mode, Mode::Solo);
        commit(&mut node, &mut disk, 1);
        let alone = node.driver().alone_term(NodeIx::B);
        commit(&mut node, &mut disk, 2);
        assert_eq!(node.driver().alone_term(NodeIx::B), alone);
        add(&mut node, &mut disk, "u@d");
        assert_ne!(node.driver().alone_term(NodeIx::B), alone);
    }
}
