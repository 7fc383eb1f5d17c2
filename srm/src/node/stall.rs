//! A disk that does not answer. What is written there is released to nobody, and in Pair the peer has all of it: so a node
//! whose disk stands still for longer than the lease gives its users to the peer instead of letting them wait. A standby
//! whose disk stands still keeps the peer's users waiting, who wait for its acknowledgement: it leaves them to the peer. But
//! only where the peer serves everybody then: who is served late is better off than who is served by nobody.

use presence_engine::ids::{Mode, NodeIx, Reg};
use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::waits::DISK_STALLS;
use super::{Event, GOODBYE, Node, Out};
use crate::beacon::Held;
use crate::safety::{Beacon, Consent, RegisterKind, Role};

/// From here on it is an alarm (3 s).
const ALARM_TICKS: u32 = 12;
/// From here on the node gives up (5 s).
const GIVE_UP_TICKS: u32 = 20;

/// How long what waits for the own disk has not got on, and what is known of the peer's present run, for each group.
#[derive(Debug, Default)]
pub(super) struct Stall {
    own: Still,
    copy: Still,
    peer: [Standby; 2],
}

/// The peer's present run and one group.
#[derive(Debug, Default)]
struct Standby {
    /// What it said last.
    said: Option<Beacon>,
    /// The first beacon that told it that it holds everything, and under which value.
    told: Option<(Reg, u32)>,
}

impl Stall {
    /// The peer's run begins: nothing that was said to the one before, or by it, counts.
    pub(super) fn peer_begins(&mut self) {
        self.peer = Default::default();
    }

    /// The peer's present run says this of a group, to this run.
    pub(super) fn heard(&mut self, group: NodeIx, said: Beacon) {
        self.peer[group.index()].said = Some(said);
    }

    /// This node says this of a group to the peer's present run, in a beacon of this number.
    pub(super) fn says(&mut self, group: NodeIx, number: u32, beacon: Beacon) {
        let told = &mut self.peer[group.index()].told;
        if !beacon.holds {
            *told = None;
        } else if told.is_none_or(|(reg, _)| reg != beacon.reg) {
            *told = Some((beacon.reg, number));
        }
    }
}

impl Standby {
    /// It has heard that it holds everything under this value.
    fn knows(&self, reg: Reg) -> bool {
        let told = self.told.filter(|(of, _)| *of == reg);
        let heard = self.said.and_then(|said| said.ack);
        told.zip(heard).is_some_and(|((_, number), heard)| heard >= number)
    }

    fn leads(&self) -> bool {
        self.said.is_some_and(|said| said.role == Role::Primary)
    }
}

/// How far a log was kept, and for how many ticks what came behind has waited.
#[derive(Debug, Default)]
struct Still {
    kept: u64,
    ticks: u32,
}

impl Still {
    fn watch(&mut self, kept: u64, end: u64, ticks: u16) {
        if kept >= end || kept != self.kept {
            *self = Still { kept, ticks: 0 };
        } else {
            // A process that stood still itself has learned nothing about its disk.
            self.ticks += u32::from(ticks.min(2));
        }
    }
}

impl Node {
    /// Counts how long the own disk has not answered, and gives up where the peer can go on.
    pub(super) fn watch_disk(&mut self, ticks: u16) {
        let before = (self.stall.own.ticks, self.stall.copy.ticks);
        self.stall.own.watch(self.driver.own_synced(), self.driver.own_end().seq, ticks);
        self.stall.copy.watch(self.driver.copy_stored(), self.driver.peer_end().seq, ticks);
        let now = (self.stall.own.ticks, self.stall.copy.ticks);
        let passed = |limit: u32, before: u32, now: u32| before < limit && now >= limit;
        if passed(ALARM_TICKS, before.0.max(before.1), now.0.max(now.1)) {
            self.outs.push(Out::Event(Event::DiskStalled));
        }
        // The peer may be ready later than that.
        let gives_up = |own: bool, ticks: u32| ticks >= GIVE_UP_TICKS && self.keeps_waiting(own);
        if (gives_up(true, now.0) || gives_up(false, now.1)) && self.peer_would_go_on() {
            // Nothing leaves this node after its goodbye: the process ends.
            self.outs.push(Out::Link(Link::Out, Msg::Control(vec![GOODBYE].into())));
            self.outs.push(Out::GiveUp("its disk has not answered for 5 s, and the peer can go on"));
        }
    }

    /// Whether the peer serves everybody if this node ends now: by itself it takes nobody over where that is switched off, and
    /// those whom it leads already it serves alone.
    pub fn peer_would_go_on(&self) -> bool {
        let told = self.peer_told();
        // Two nodes may have one disk between them.
        if !self.loses_nothing() || !self.peer_may_be_alone() || told.disk_stalls || !self.peer_is_settled() {
            return false;
        }
        if self.leads().next().is_none() {
            return self.keeps_waiting(false);
        }
        let off = self.cfg.automatics.disabled || self.disarmed() || !self.ha();
        !off && told.held == Held::No && !told.lacks_service
    }

    /// Whether somebody waits until this node has written its own log, or the copy of the peer's: those whom it leads, or the
    /// peer's, in Pair, who would not wait without it.
    fn keeps_waiting(&self, own: bool) -> bool {
        let led = |g: NodeIx| self.cores[g.index()].reg().primary == self.me.peer();
        if own {
            return self.leads().next().is_some();
        }
        NodeIx::BOTH.into_iter().any(|g| led(g) && self.in_pair(g))
    }

    /// The peer is there and stays, and has all that was released here.
    fn loses_nothing(&self) -> bool {
        let stays = !self.peer_leaves() && !self.peer_restarts;
        let link = self.link_up[Link::Out as usize] && self.peer_up && stays;
        !self.cfg.single && link && self.leads().all(|g| self.in_pair(g))
    }

    /// Whether the peer leads what it is to lead, and has heard that it holds everything of what is led here: one that has just started
    /// does not take it before (R6), and learns neither from a node that has ended.
    fn peer_is_settled(&self) -> bool {
        NodeIx::BOTH.into_iter().all(|g| {
            let (core, peer) = (&self.cores[g.index()], &self.stall.peer[g.index()]);
            match core.role() {
                Role::Primary => core.beacon().holds && peer.knows(core.reg()),
                _ => core.reg().primary == self.me || peer.leads(),
            }
        })
    }

    /// Whether who is left may lead alone without the operator. What the peer sees of the witness is not known; what this node
    /// sees is.
    fn peer_may_be_alone(&self) -> bool {
        match self.cfg.register {
            RegisterKind::Consent(Consent { available }) => {
                let at_home = self.cores[self.me.index()].reg().primary == self.me;
                goes_on_alone(available, self.ha(), at_home)
            }
            RegisterKind::Witness(_) => self.witness_decides() == Some(true),
        }
    }

    /// Whom this node leads.
    pub(super) fn leads(&self) -> impl Iterator<Item = NodeIx> {
        NodeIx::BOTH.into_iter().filter(|g| self.cores[g.index()].role() == Role::Primary)
    }

    fn in_pair(&self, g: NodeIx) -> bool {
        self.cores[g.index()].reg().mode == Mode::Pair
    }

    /// For the operator.
    pub(super) fn disk_alarm(&self) -> Option<String> {
        let (own, copy) = (self.stall.own.ticks, self.stall.copy.ticks);
        let whose =
            if own >= copy { "its users" } else { "the other node's users while this is their standby" };
        let seconds = own.max(copy) / 4;
        (own.max(copy) >= ALARM_TICKS).then(|| {
            let stays = !self.cfg.single && self.keeps_waiting(own >= copy) && !self.peer_would_go_on();
            let peer = &self.cfg.names[self.me.peer().index()];
            let then = match stays {
                true => format!("; {peer} would not serve in its place, so it waits for its disk"),
                false => String::new(),
            };
            format!(
                "{DISK_STALLS} has not answered for {seconds} s: nothing of {whose} is acknowledged{then}"
            )
        })
    }
}

/// Whether a node without a witness leads alone. Without high availability each serves its own users, whatever becomes of the
/// other; but nobody brings those back whom the peer has already: `at_home` are those of the node that ends.
fn goes_on_alone(available: bool, ha: bool, at_home: bool) -> bool {
    available || !ha && at_home
}

#[cfg(test)]
mod tests {
    use presence_engine::engine::Input;
    use presence_engine::state::GroupInfo;

    use super::super::tests::{Memory, acknowledge, config, copy, hear, hear_of, link_up, pair, started};
    use super::super::{Automatics, In};
    use super::*;
    use crate::beacon::{Activity, Told};
    use crate::safety::Witness;
    use crate::witness::client::Said;

    /// The peer has all of our log, was told so, and has heard it.
    fn stand_by(node: &mut Node, disk: &mut Memory) {
        link_up(node, disk);
        acknowledge(node, disk);
        hear(node, disk, node.last_number + 1);
    }

    #[test]
    fn the_peer_goes_on_in_the_place_of_this_node_if_it_is_there_and_takes_users_over() {
        let (mut node, mut disk) = started(true);
        assert!(!node.peer_would_go_on(), "there is no link");
        stand_by(&mut node, &mut disk);
        assert!(node.leads().next().is_some() && node.peer_would_go_on());
        for disabled in [true, false] {
            node.automatics(Automatics { disabled, ..node.cfg.automatics });
            assert_eq!(node.peer_would_go_on(), !disabled);
        }
        for held in [Held::Forced, Held::No] {
            node.hear_told(Told { held, ..Told::default() });
            assert_eq!(node.peer_would_go_on(), held == Held::No);
        }
        for disk_stalls in [true, false] {
            node.hear_told(Told { disk_stalls, ..Told::default() });
            assert_eq!(node.peer_would_go_on(), !disk_stalls, "they may have one disk between them");
        }
        for lacks_service in [true, false] {
            node.hear_told(Told { lacks_service, ..Told::default() });
            assert_eq!(node.peer_would_go_on(), !lacks_service);
        }
        for stops in [Activity::Leaving, Activity::None] {
            node.peer_activity = stops;
            assert_eq!(
                node.peer_would_go_on(),
                stops == Activity::None,
                "it ends when it has given its users away"
            );
        }
        for restarts in [true, false] {
            node.peer_restarts = restarts;
            assert_eq!(node.peer_would_go_on(), !restarts);
        }
        let group = node.driver().engine().state().group().clone();
        let off = GroupInfo { ha: false, number: group.number + 1, by: node.me, ..group };
        node.handle(0, In::Client(Input::Group(off)), &mut disk);
        node.step(0, &mut disk);
        assert!(!node.ha() && !node.peer_would_go_on(), "it takes nobody over");
    }

    #[test]
    fn the_peer_goes_on_only_where_it_may_lead_alone() {
        let (mut node, mut disk) = started(false);
        stand_by(&mut node, &mut disk);
        assert!(
            node.leads().next().is_some() && !node.peer_would_go_on(),
            "strict: it waits for the operator"
        );
        node.cfg.register = RegisterKind::Witness(Witness);
        assert!(!node.peer_would_go_on(), "the witness was not reached yet");
        node.handle(0, In::Witness(Said::Here([None, None])), &mut disk);
        assert!(node.peer_would_go_on());
        node.handle(0, In::Witness(Said::Here([Some("it has no register yet".into()), None])), &mut disk);
        assert!(!node.peer_would_go_on(), "it decides nothing");
    }

    /// R6: without having heard so it is not promoted, and nobody would be served before it finds out by itself.
    #[test]
    fn the_peer_goes_on_only_when_its_present_run_has_heard_that_it_holds_everything() {
        let (mut node, mut disk) = started(true);
        link_up(&mut node, &mut disk);
        hear(&mut node, &mut disk, 2);
        let holds = |node: &Node| node.cores[NodeIx::B.index()].beacon().holds;
        assert!(node.leads().next().is_some() && !holds(&node));
        assert!(!node.peer_would_go_on(), "it does not have our log yet");
        acknowledge(&mut node, &mut disk);
        assert!(holds(&node) && !node.peer_would_go_on(), "it has, and was not heard to know");
        hear(&mut node, &mut disk, 3);
        assert!(node.peer_would_go_on());
        // It is restarted, which it had announced: the group is in Pair all the time.
        node.peer_restarts = true;
        node.meet_boot(6, &mut disk);
        assert!(node.loses_nothing() && !node.peer_would_go_on(), "what the run before knew does not count");
    }

    #[test]
    fn who_leads_nobody_keeps_those_waiting_whom_the_peer_leads_and_none_takes_over() {
        let mut disk = Memory::default();
        let mut node = Node::start(config(true), [NodeIx::A; 2].map(|a| Some(copy(pair(a)))), 1, &mut disk);
        node.automatics(Automatics { disabled: true, ..node.cfg.automatics });
        hear_of(&mut node, &mut disk, 1, [(pair(NodeIx::A), Role::Primary); 2]);
        link_up(&mut node, &mut disk);
        assert!(node.leads().next().is_none() && node.peer_would_go_on(), "nobody is to take over");
        for (number, role) in [(2, Role::Fenced), (3, Role::Primary)] {
            hear_of(&mut node, &mut disk, number, [(pair(NodeIx::A), role); 2]);
            let leads = role == Role::Primary;
            assert_eq!(node.peer_would_go_on(), leads, "one that has just started waits for its log");
        }
        node.cfg.register = RegisterKind::Consent(Consent { available: false });
        assert!(!node.peer_would_go_on(), "it may not go on alone");
        assert!(
            !goes_on_alone(false, false, false),
            "nor without high availability, with users that are not its own"
        );
        assert!(goes_on_alone(false, false, true) && !goes_on_alone(false, true, true));
    }
}
