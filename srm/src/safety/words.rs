//! The words of the safety core: its settings, what it is told and what it says.

use presence_engine::ids::{NodeIx, Reg, Term};

use super::RegisterKind;

/// Settings of one core; the same on both nodes but for `me`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeIx,
    /// The group's home node.
    pub home: NodeIx,
    /// There is no peer: the node is its group's only member.
    pub single: bool,
    /// Where the register lives and what may change it.
    pub register: RegisterKind,
    /// `commit = "peer-and-disk"`: what a backup acknowledged survives its power loss.
    pub peer_disk: bool,
    /// Length of the lease in ticks (3 s = 12). Must be below half of the grace for silence (R3).
    pub lease: u16,
}

/// What a node is to the group now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Leads: acknowledges and releases, within [`super::Core::release`].
    Primary,
    /// Holds the standby copy.
    Backup,
    /// May do neither until it knows more.
    Fenced,
}

/// What the commit rule needs before it releases a frame with records of the group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Release {
    /// Nothing is acknowledged or delivered.
    Nothing,
    /// Our own disk and the peer (R8).
    Both,
    /// Our own disk.
    Alone,
}

/// The group's part of a beacon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Beacon {
    /// Sender's copy of the register, as it is on its disk.
    pub reg: Reg,
    /// Sender's role.
    pub role: Role,
    /// Highest beacon number of the receiver that the sender acknowledges; `None` while it asks for promotion (R4).
    pub ack: Option<u32>,
    /// Primary, or who would be, to backup: "your present boot holds everything that I acknowledged" (R6).
    pub holds: bool,
    /// The sender acknowledged something alone under `reg` (R0).
    pub alone: bool,
    /// The sender leads the *other* group although the receiver is its home (R0, two Solo copies meet).
    pub took_other: bool,
    /// The sender met a second Solo copy and has stopped: its `alone` is final.
    pub stopped: bool,
}

/// Inputs of [`super::Core::on`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum In {
    /// Time went on by so many ticks of 250 ms. More than one at a time: this process was paused (R5).
    Ticks(u16),
    /// A beacon numbered so was sent at this moment (R3: the lease runs from the sending).
    Sent(u32),
    /// A beacon numbered so came from the peer's present boot: told before `Beacon` of the same datagram.
    Heard(u32),
    /// The group's part of a beacon came from the peer. The shell has dropped what is older than a beacon it already
    /// took, and cleared `ack` and `holds` where they were written to an earlier boot of this node.
    Beacon(Beacon),
    /// The evidence rule (R9) says that the peer is dead or silent. It may be wrong. Told again while the evidence
    /// stands: a stale beacon may have undone what it did.
    PeerGone,
    /// This process has not found who leads since it started, and the peer was silent for the initialization timeout.
    InitTimeout,
    /// The restarted owner has the end of its own log on its disk, the peer's copy compared over the link, whose hello
    /// told both nodes each other's boot and register (R6). Asked for by [`super::Core::wants_fetch`].
    Fetched,
    /// The peer's present boot is connected, is backup, and lags so little that joining is worth while.
    Near(bool),
    /// The peer's present boot holds everything that was acknowledged alone, and all before it (R1).
    PeerHolds,
    /// The peer process restarted: nothing said about its holdings counts any longer.
    PeerRestarted,
    /// Something was acknowledged alone under the present register value (told before the acknowledgement).
    AckedAlone,
    /// This node leads the other group although the peer is its home.
    TookOther(bool),
    /// The highest term seen anywhere: what is issued from now on lies above it.
    Floor(Term),
    /// What the witness holds. It may be older than what it holds now.
    Held(Reg),
    /// Answer of the register to the request of that number (R7). The shell has dropped answers to earlier boots.
    CasReply(u32, CasResult),
    /// The operator's word: serve although the rules say wait (`force-active`, also the way out of `strict`).
    ForceActive {
        /// Also without the register's word: the operator takes the place of a witness that cannot be reached.
        overrule: bool,
    },
    /// The operator's word again: do not serve, whatever the rules allow, until a word to the contrary or until the other
    /// node leads (`force-inactive`; and a start while automatics are disabled).
    Hold(bool),
    /// Give the register to its home node, which holds everything (fallback after a takeover).
    GiveBack,
}

/// What a register answers to a compare-and-set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CasResult {
    /// The new value stands.
    Won,
    /// This other value stands.
    Lost(Reg),
    /// No answer: the change may have been made or not.
    Unknown,
    /// The register cannot be reached, and this request was never on its way: the change was not made.
    NotSent,
}

/// Outputs of [`super::Core::on`], in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Out {
    /// Put this on disk before anything that follows leaves the process.
    Persist(Reg),
    /// Tell the peer soon: something that it waits for has changed.
    BeaconNow,
    /// Ask the register: `cas(expected, new)` as request number so.
    Cas(u32, Reg, Reg),
    /// The data received so far must be on disk before the request that follows (R8).
    SyncReceived,
    /// The group went Solo by policy, on this node's copy alone: alarm "unprotected".
    Unprotected,
}

/// What a change of the register rests on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// Evidence that the peer is gone (R9).
    PeerGone,
    /// The primary's lease ran out (R3).
    LeaseLost,
    /// Nobody was heard while starting.
    InitTimeout,
    /// The peer holds everything: back to Pair (R1).
    PeerHolds,
    /// The primary hands the register to the home node.
    GiveBack,
    /// Both nodes compared their copies and agree (R0).
    Settled,
    /// The operator's word.
    Operator,
    /// The operator's word, in the place of the register's.
    Overruled,
    /// A group of one node.
    OnlyMember,
}
