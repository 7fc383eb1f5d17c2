//! Deaths at every step: what the nodes do from some moment on is written down, and when the same is played again a node dies at
//! one of these steps. Whoever makes the step dies instead of it, so that what it was about to say, to hear or to keep is nobody's; the
//! other node dies right behind it, while what it is told is on its way.

use presence_engine::ids::NodeIx;
use session_mover::log::Which;
use session_mover::msg::Msg;
use srm::node::{In, Out, Reply};

use super::rows::Stage;
use super::world::{Event, World};

/// A node that died here is started again after so long.
pub const BACK: u64 = 1_000;
/// What is no step.
pub(super) const NO_STEP: usize = usize::MAX;

/// What a node does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// It keeps a register, or what the flap guard counts.
    Save,
    /// It hears that its disk has frames.
    Written,
    /// It sends a frame of its log.
    Frame,
    /// It says something else to its peer, or ends a connection to it.
    Link,
    /// It asks the witness.
    Asked,
    /// It hears the witness.
    Heard,
    /// It answers its operator.
    Reply,
    /// It tells what it has done: a row, a register, a move.
    Told,
    /// It says something to a client, or ends its stream.
    Client,
    /// It sends a beacon.
    Beacon,
    /// It has its shell do something.
    Shell,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose.
    pub node: usize,
    /// What it does.
    pub what: What,
}

/// What is written down, and who dies at which step.
#[derive(Debug, Default)]
pub struct Deaths {
    on: bool,
    steps: Vec<Step>,
    at: Option<(usize, usize)>,
    died: Option<(usize, u64)>,
    spared: bool,
    /// Answers to operators before.
    replies: usize,
}

fn said(out: &Out) -> Option<What> {
    match out {
        Out::Link(_, Msg::Frame(_)) => Some(What::Frame),
        Out::Link(..) | Out::CloseLink(..) => Some(What::Link),
        Out::Witness(_) => Some(What::Asked),
        Out::Reply(..) => Some(What::Reply),
        Out::Event(_) => Some(What::Told),
        Out::Deliver(..) | Out::Close(..) => Some(What::Client),
        Out::Beacon(_) => Some(What::Beacon),
        Out::StartServices | Out::Checks | Out::Restart | Out::Shut | Out::Leave => Some(What::Shell),
        Out::Credit(_)
        | Out::Account(..)
        | Out::Probe
        | Out::Probed(_)
        | Out::Control(_)
        | Out::GiveUp(_) => None,
    }
}

fn heard(input: &In) -> Option<What> {
    match input {
        In::Stored(..) => Some(What::Written),
        In::Witness(_) => Some(What::Heard),
        _ => None,
    }
}

impl World {
    /// Disks lose nothing while deaths are placed: that would be another fault.
    pub(super) fn places_deaths(&self) -> bool {
        self.deaths.on
    }

    /// A node is about to say this; the number of the step, or `None` if it dies instead.
    pub(super) fn about_to_say(&mut self, node: usize, out: &Out) -> Option<usize> {
        said(out).map_or(Some(NO_STEP), |what| self.step_begins(node, what))
    }

    /// The same of what it is about to hear.
    pub(super) fn about_to_hear(&mut self, node: usize, input: &In) -> Option<usize> {
        heard(input).map_or(Some(NO_STEP), |what| self.step_begins(node, what))
    }

    /// What a node kept in the turn that it has made. Who dies instead has died on its disk.
    pub(super) fn has_kept(&mut self, node: usize) {
        for _ in 0..std::mem::take(&mut self.hosts[node].disk.saves) {
            let number = self.step_begins(node, What::Save);
            self.step_is_made(number.unwrap_or(NO_STEP));
        }
    }

    fn step_begins(&mut self, node: usize, what: What) -> Option<usize> {
        let deaths = &mut self.deaths;
        let over = !deaths.on || deaths.spared || deaths.died.is_some();
        if over || self.hosts[node].process.is_none() {
            return Some(NO_STEP);
        }
        let number = deaths.steps.len();
        deaths.steps.push(Step { node, what });
        let dies = deaths.at == Some((number, node));
        self.trace(|| format!("STEP {number}: {} {what:?}", ["a", "b"][node]));
        if dies && self.meets_death(node) {
            return None;
        }
        Some(number)
    }

    /// The effect of a step is there.
    pub(super) fn step_is_made(&mut self, number: usize) {
        let over = self.deaths.spared || self.deaths.died.is_some();
        match self.deaths.at {
            Some((at, who)) if at == number && !over => _ = self.meets_death(who),
            _ => {}
        }
    }

    /// Nobody dies who does not run, or whose death belongs to another profile.
    fn meets_death(&mut self, node: usize) -> bool {
        if self.hosts[node].process.is_none() || !self.may_kill(node) {
            self.deaths.spared = true;
            return false;
        }
        self.has_died(node);
        self.restart(node, BACK);
        self.die(node, false);
        true
    }

    /// A node dies at its step.
    pub(super) fn has_died(&mut self, node: usize) {
        self.deaths.died = Some((node, self.now));
    }
}

impl Stage {
    /// From now on every step is written down.
    pub fn listen(&mut self) {
        let replies = self.world.replies.len();
        self.world.deaths = Deaths { on: true, replies, ..Deaths::default() };
    }

    /// What was written down: all, or up to a death.
    pub fn steps(&self) -> &[Step] {
        &self.world.deaths.steps
    }

    /// A node is to die at a step of those that were written down when the same was played before.
    pub fn dies_at(&mut self, steps: &[Step], number: usize, who: usize) {
        let step = steps[number];
        if step.what == What::Save && step.node == who {
            let before = steps[..number].iter().filter(|other| **other == step).count();
            self.world.hosts[who].back = BACK;
            self.world.hosts[who].disk.dies_at_save = Some(before);
        } else {
            self.world.deaths.at = Some((number, who));
        }
    }

    /// Who died at a step, and when.
    pub fn died(&self) -> Option<(usize, u64)> {
        self.world.deaths.died
    }

    /// The step came, and the node did not run then, or its death would belong to another profile.
    pub fn spared(&self) -> bool {
        self.world.deaths.spared
    }

    /// Whether what operators asked for since was granted.
    pub fn answered(&self) -> bool {
        let replies = &self.world.replies[self.world.deaths.replies..];
        replies.iter().any(|(_, reply)| !matches!(reply, Reply::Refused(_) | Reply::NotHere))
    }

    /// `kill -9`, and a start after a second.
    pub fn dies_now(&mut self, node: usize) {
        self.world.restart(node, BACK);
        self.world.die(node, false);
    }

    /// Whether the other node has more of a dead node's log than that has on its own disk.
    pub fn copy_is_ahead(&self, node: usize) -> bool {
        let copy = self.world.hosts[1 - node].node().map(|other| other.driver().peer_end().seq);
        copy.is_some_and(|copy| copy > self.world.hosts[node].disk.log.appended(Which::Own))
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.world.now
    }

    /// Clients say something for so long.
    pub fn talk(&mut self, for_ms: u64) {
        self.world.talk_until = self.world.now + for_ms;
        (0..self.world.clients.len()).for_each(|client| self.world.at(100, Event::Talk(client)));
    }

    /// They stop after so long.
    pub fn hush(&mut self, after_ms: u64) {
        self.world.talk_until = self.world.now + after_ms;
    }

    /// What is not as it is in a pair that is well and where nobody talks; the first thing found.
    pub fn unwell(&self) -> Option<String> {
        if let Some(group) = NodeIx::BOTH.into_iter().find(|group| !self.world.is_pair(*group)) {
            return Some(format!("group {group:?} is not in Pair"));
        }
        if let Some(client) = self.world.clients.iter().find(|client| !client.is_settled()) {
            return Some(format!("the client of {} is not settled", client.user));
        }
        let open = self.open();
        if !open.is_empty() {
            return Some(format!("not acknowledged or not shown: {open:?}"));
        }
        let [a, b] = [0, 1]
            .map(|node| self.world.hosts[node].node().map(|node| node.driver().engine().state().digest()));
        (a != b).then(|| "the nodes hold different states".to_owned())
    }
}
