//! The group's log on both nodes: writes, disks, shipping, promises to clients.

use presence_engine::ids::NodeIx;
use srm::safety::{Core, In, Release, Role};

use super::bounds::{Bounds, Kind};
use super::world::{Action, World};

/// A few entries, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Log {
    len: u8,
    entries: [u8; 4],
}

impl Log {
    /// How many.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries.
    pub fn entries(&self) -> &[u8] {
        &self.entries[..usize::from(self.len)]
    }

    /// The entries as bits.
    pub fn bits(&self) -> u8 {
        self.entries().iter().fold(0, |bits, e| bits | 1 << e)
    }

    /// Adds one.
    pub fn push(&mut self, entry: u8) {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
    }

    /// Keeps the first `len`, returns the rest as bits.
    pub fn cut(&mut self, len: u8) -> u8 {
        let before = self.bits();
        self.entries[usize::from(len)..].fill(0);
        self.len = self.len.min(len);
        before & !self.bits()
    }

    fn common(&self, other: &Log) -> u8 {
        self.entries().iter().zip(other.entries()).take_while(|(a, b)| a == b).count() as u8
    }
}

impl World {
    /// What data paths may do next.
    pub(super) fn data_actions(&self, b: &Bounds, i: NodeIx, core: &Core, acts: &mut Vec<Action>) {
        let (me, peer) = (&self.nodes[i.index()], &self.nodes[i.peer().index()]);
        let mut offer = |may: bool, act: Action| {
            if may {
                acts.push(act);
            }
        };
        offer(core.role() == Role::Primary && self.next_entry < b.writes, Action::Write(i));
        offer(me.synced < me.log.len(), Action::Fsync(i));
        offer(self.can_connect(i), Action::Connect(i));
        offer(me.session && self.left.cuts > 0, Action::Disconnect(i));
        offer(me.session && me.acked < me.log.len(), Action::Ship(i));
        offer(self.can_promise(i).is_some(), Action::Promise(i));
        offer(self.can_hold(i), Action::Holds(i));
        // The hello of the link tells the peer's boot and its value of the register.
        let agrees = peer.core.as_ref().is_some_and(|p| p.reg().term <= core.reg().term);
        offer(core.wants_fetch() && agrees, Action::Fetch(i));
    }

    /// Everything promised is safe without this node's disk.
    pub(super) fn kept_without(&self, i: NodeIx) -> bool {
        let peer = &self.nodes[i.peer().index()];
        let mut log = peer.log;
        log.cut(peer.synced);
        self.promised & !(log.bits() | peer.aside) == 0
    }

    pub(super) fn can_connect(&self, i: NodeIx) -> bool {
        let (Some(core), Some(peer)) = (self.core(i), self.core(i.peer())) else { return false };
        let leads = core.role() == Role::Primary && peer.accepts_frames();
        let follows = peer.reg().primary == i && peer.reg().term <= core.reg().term;
        !self.nodes[i.index()].session && leads && follows
    }

    /// The shell saw everything acknowledged up to its barrier. Whether that is enough is for the core to say (R1).
    pub(super) fn can_hold(&self, i: NodeIx) -> bool {
        let me = &self.nodes[i.index()];
        let may = self.core(i).is_some_and(|c| c.release() != Release::Nothing || c.waits());
        me.session && may && me.acked >= me.barrier
    }

    /// The first entry that is not promised yet, if the rules allow that it is (R8).
    fn can_promise(&self, i: NodeIx) -> Option<u8> {
        let me = &self.nodes[i.index()];
        let core = me.core.as_ref()?;
        let at = me.log.entries().iter().position(|e| self.promised & 1 << e == 0)?;
        let own = usize::from(me.synced) > at;
        let may = match core.release() {
            Release::Nothing => false,
            Release::Both => own && usize::from(me.acked) > at,
            Release::Alone => own,
        };
        may.then(|| me.log.entries()[at])
    }

    pub(super) fn act_data(&mut self, b: &Bounds, action: Action) {
        match action {
            Action::Write(i) => {
                let entry = self.next_entry;
                self.next_entry += 1;
                self.n(i).log.push(entry);
            }
            Action::Fsync(i) => self.n(i).synced = self.n(i).log.len(),
            Action::Connect(i) => self.connect(b, i),
            Action::Disconnect(i) => {
                self.left.cuts -= 1;
                self.n(i).session = false;
                self.feed(b, i, In::Near(false));
            }
            Action::Ship(i) => self.ship(b, i),
            Action::Promise(i) => {
                let entry = self.can_promise(i).expect("offered only then");
                if self.core(i).is_some_and(|c| c.release() == Release::Alone) {
                    self.feed(b, i, In::AckedAlone);
                }
                self.promised |= 1 << entry;
            }
            Action::Holds(i) => self.feed(b, i, In::PeerHolds),
            Action::Fetch(i) => self.fetch(b, i),
            _ => unreachable!("not of the data path"),
        }
    }

    /// The link handshake: the backup keeps the common prefix and sets the rest aside.
    fn connect(&mut self, b: &Bounds, i: NodeIx) {
        self.hello(b);
        let lead = self.nodes[i.index()].log;
        let peer = self.n(i.peer());
        let common = peer.log.common(&lead);
        let nothing_own = lead.len() == common;
        let tail = peer.log.cut(common);
        peer.synced = peer.synced.min(common);
        peer.aside |= tail;
        let alone = self.core(i).is_some_and(|c| c.beacon().alone);
        // Who overruled the witness may lose to what it granted meanwhile, and is merged (D7). So may who acknowledged alone before it
        // granted the operator's word at the other node: without a witness the two meet first, and settle it.
        let forced = b.kind == Kind::Witness && self.left.force < b.left.force;
        let overruled = forced || self.left.overrule < b.left.overrule;
        if tail & self.promised != 0 && nothing_own && !alone && !overruled {
            self.broken.get_or_insert("set aside although only one node had acknowledged alone (R0)");
        }
        let me = self.n(i);
        me.session = true;
        me.acked = common;
        me.barrier = lead.len();
        self.feed(b, i, In::Near(true));
    }

    /// A frame goes over and is acknowledged. An acknowledgement that is late is a promise that is late.
    fn ship(&mut self, b: &Bounds, i: NodeIx) {
        if !self.core(i.peer()).is_some_and(Core::accepts_frames) {
            return;
        }
        let log = self.nodes[i.index()].log;
        let peer = self.n(i.peer());
        peer.log.push(log.entries()[usize::from(peer.log.len())]);
        if b.peer_disk {
            peer.synced = peer.log.len();
        }
        let acked = peer.log.len();
        self.n(i).acked = acked;
    }

    /// R6: the restarted owner takes the end of its own log from the peer, if the peer has more of the same log.
    fn fetch(&mut self, b: &Bounds, i: NodeIx) {
        self.hello(b);
        let theirs = self.nodes[i.peer().index()].log;
        let me = self.n(i);
        if me.log.common(&theirs) == me.log.len() {
            me.log = theirs;
        }
        me.synced = me.log.len();
        self.feed(b, i, In::Fetched);
    }
}
