//! What a node is told, what it asks of its disk, and what it says.

use bytes::Bytes;
use presence_engine::engine::Input;
use presence_engine::ids::{Conn, Group, NodeIx, Position, Reg, StanzaId};
use presence_engine::record::Verifiers;
use session_mover::driver::check::Report;
use session_mover::driver::{Link, Why};
use session_mover::log::{Storage, Which};
use session_mover::msg::Msg;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::crashes::Crashes;
use super::group::{Check, GroupOp};
use super::guard::Failovers;
use super::moves::{Progress, Refused};
use super::room::Room;
use super::services::{Health, Service};
use crate::evidence::{Gone, Probe};
use crate::pause::Pause;
use crate::view::{Cause, Shown};
use crate::witness::client::Said;
use crate::witness::words::Ask;

/// What a node keeps of a group's register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterCopy {
    /// The register.
    pub reg: Reg,
    /// This node took the group over so late that the other may have acknowledged alone before (D6). Until the record that
    /// says so is in the log, it is known from here only.
    pub late: bool,
    /// The operator forced this node inactive, and nobody has led the group since.
    pub held: bool,
    /// Why this node has taken the group over; nothing if it has not.
    pub cause: Cause,
    /// The run of the peer that it took for lost then, until the peer is heard again: another one that comes back tells that it
    /// was restarted.
    pub lost: Option<u64>,
}

/// What an operator forces a node to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// It serves all users although its rules say wait.
    Active,
    /// It serves nobody although its rules allow it.
    Inactive,
}

impl Force {
    /// The command.
    pub fn command(self) -> &'static str {
        match self {
            Force::Active => "force-active",
            Force::Inactive => "force-inactive",
        }
    }
}

/// A disk with both logs and the cores' durable structs.
pub trait Disk: Storage {
    /// Makes a register copy durable; on disk when it returns.
    fn persist(&mut self, group: Group, copy: RegisterCopy);
    /// Keeps what is known of crashes. Durable when it returns.
    fn keep_crashes(&mut self, crashes: &Crashes);
    /// Keeps the failovers that the flap guard counts, and whether users went back in vain. Durable when it returns, as far as
    /// the disk can.
    fn keep_failovers(&mut self, failovers: &Failovers);
    /// The peer is not there, or began anew: from now on nobody serves if this node ends because of its disk.
    fn peer_is_gone(&mut self) {}
}

/// Inputs.
#[derive(Clone, Debug)]
pub enum In {
    /// So many ticks of 250 ms passed; more than two: this process was paused.
    Ticks(u16),
    /// For the engine.
    Client(Input),
    /// A datagram came to the beacon port.
    Datagram(Bytes),
    /// A connection of the link is up.
    LinkUp(Link),
    /// A message of the peer.
    LinkMsg(Link, Msg),
    /// A connection of the link is gone; `closed`: by FIN or RST, not by a time-out.
    LinkDown(Link, bool),
    /// A write or fdatasync is complete.
    Stored(Which, Position, bool),
    /// A checkpoint is durable, or (why) the store failed and begins anew.
    Checkpointed(Result<(), String>),
    /// Both probes are back.
    Probed([Probe; 2]),
    /// News of the witness.
    Witness(Said),
    /// The operator asks; answered by [`Out::Reply`] with the number.
    Op(u64, Op),
    /// News of a critical service of this node.
    Service(Service, Health),
    /// A critical service begins anew.
    Restart(Service),
    /// A commit to the own log is wanted; answered by [`Out::Probed`] with the number.
    Commit(u64),
    /// A stanza of this node to itself; the answer is delivered to the connection that it has with itself.
    Loop(Stanza),
    /// What only the shell sees of the checks before high availability, when [`Out::Checks`] asked for it.
    Checks(Vec<Check>),
    /// What is measured of logins.
    Logins {
        /// So many this node can take in a second.
        per_second: u32,
        /// More come.
        crowded: bool,
    },
    /// The own disk; `None`: it cannot be looked at.
    Room(Option<Room>),
}

/// What an operator may ask for.
#[derive(Clone, Debug)]
pub enum Op {
    /// Hand this node's users to the peer.
    Failover(By),
    /// Hand the peer's users back to it.
    Fallback(By),
    /// End the failed mode of both nodes.
    Recover,
    /// Add an account; without a home, the node with fewer users gets it.
    UserAdd(BareJid, Option<NodeIx>, Box<Verifiers>),
    /// Give an account another password and end its sessions.
    UserPasswd(BareJid, Box<Verifiers>),
    /// Remove an account.
    UserRemove(BareJid),
    /// Assign a user to another home, or to none.
    Assign(BareJid, Option<NodeIx>),
    /// Move users until each node has its share.
    Rebalance,
    /// Check the store, and the peer's copies of this node's users.
    Check,
    /// Change the group, or switch high availability.
    Group(GroupOp),
    /// Say what is looked at before high availability is enabled.
    HaChecks,
    /// Serve all users, or nobody, whatever the rules say; unless confirmed, only say what that means.
    Force {
        /// Which.
        to: Force,
        /// The operator was told what it means and wants it.
        confirmed: bool,
    },
    /// Take back the word by which this node waits: the operator was told that nothing else is done, and wants that.
    TakeBack,
    /// A message of the server to one of its accounts.
    Notice(StanzaId, Box<Stanza>),
    /// End and begin anew at once; nobody takes over meanwhile.
    Restart,
    /// Hand everything over and leave (SIGTERM).
    Leave,
}

/// Who asks for a move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// An operator, at this node.
    Here,
    /// An operator, at the other node.
    Peer,
    /// A rule of the operator.
    Rule,
}

/// Answers to [`Op`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done.
    Done,
    /// Begun; the snapshot tells how far it is.
    Begun(Progress),
    /// Not done yet: this may be missing here, or is not served then, one sentence each.
    MayMiss(Vec<String>),
    /// Done; this may be missing here, or is not served now, one sentence each.
    Forced(Vec<String>),
    /// The word that made this node inactive is taken back, and nothing is forced: to be done, or done.
    TakesBack(bool),
    /// What was looked at.
    Checks(Vec<Check>),
    /// The other node must do it.
    NotHere,
    /// Not done: a critical service of this node is down, and users would come there.
    Lacks(NodeIx),
    /// Not now.
    Refused(Refused),
}

/// What the shell does, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// A message for the peer.
    Link(Link, Msg),
    /// End a connection of the link.
    CloseLink(Link, Why),
    /// Bytes for a client.
    Deliver(Conn, Bytes),
    /// The client may send one more element.
    Credit(Conn),
    /// Last bytes, then the end of a client's stream.
    Close(Conn, Bytes, bool),
    /// An account's verifiers, for logins; `None`: it is gone.
    Account(BareJid, Option<Verifiers>),
    /// A beacon for the peer.
    Beacon(Bytes),
    /// Probe the peer twice, 20 ms apart.
    Probe,
    /// A probe of the engine or of the log has come through.
    Probed(u64),
    /// Start the critical services that do not run.
    StartServices,
    /// High availability begins: look at what the node does not see, versions and clocks.
    Checks,
    /// For the witness.
    Witness(Ask),
    /// The answer to an operator.
    Reply(u64, Reply),
    /// A message of the peer's daemon.
    Control(Bytes),
    /// Something an operator should know.
    Event(Event),
    /// The peer knows: end the process and begin anew.
    Restart,
    /// Nobody takes over what is here: clients are told that the server is shut down.
    Shut,
    /// Everything is handed over: end the process.
    Leave,
    /// This node cannot go on, and the peer can: end the process at once, as if it had died. The text says why.
    GiveUp(&'static str),
}

/// Users on their way from home or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whose home it is.
    pub group: Group,
    /// Back home.
    pub back: bool,
    /// How far it is.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
    /// The node at which an operator asked for it, if one did.
    pub asked: Option<NodeIx>,
    /// How many users the home node has.
    pub users: u64,
    /// Milliseconds since it began, or since a dead node was heard last; `None`: not known here.
    pub took_ms: Option<u64>,
}

/// How far a move of users is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has begun.
    Began,
    /// It is complete.
    Complete,
    /// It came to nothing.
    Ended,
    /// It was complete before this process began.
    Found,
}

/// Numbered news for operators.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The group is led alone, by this node's own copy of the register.
    Unprotected(Group),
    /// Another row of the table of states holds.
    Row(Shown),
    /// The users of a home node are on their way, or have arrived.
    Moved(Moved),
    /// The peer is restarted, and says so.
    PeerRestarts,
    /// The operator ended the failed mode.
    Recovered,
    /// High availability was switched on or off.
    Ha(bool),
    /// The peer is held to be gone because so many of its clients call here.
    Called(u32),
    /// The peer is heard, and has answered none of so many accounts that call here: it is asked to hand its users over.
    Unanswered(u32),
    /// The peer says that this node answers none of its clients that wait there, and this node does not hand its users over: why.
    NotForClients(&'static str),
    /// A move of users, by its name, pauses for this, or (`None`) goes on.
    Paused(&'static str, Option<Pause>),
    /// A rebalance has ended: users that moved, and that should have.
    Rebalanced(Progress),
    /// A check has come to its end.
    Checked(Report),
    /// The peer is heard, and the link is up in both directions.
    PeerUp,
    /// The register changed.
    Register(Group, Reg),
    /// The peer is held to be gone, and for how many milliseconds it had not been heard.
    PeerGone(Gone, Option<u64>),
    /// The tail of a log was set aside: which, frames, how many of them had been released alone, and frames that were
    /// written in its place (D7).
    SetAside(Which, u64, u64, u64),
    /// Clients prove that the peer lives although it is not heard here.
    OnlyPathDown,
    /// The operator made this node active or inactive by force; this may be missing here, or is not served.
    Forced(Force, Vec<String>),
    /// The operator took back the word that made this node inactive.
    TakenBack,
    /// The store failed and begins anew: this node serves on from its logs.
    StoreFailed(String),
    /// Everything came from the peer: ends of the own log and of the peer's in it.
    Resynced(u64, u64),
    /// The own disk does not answer for longer than the lease.
    DiskStalled,
    /// What this user said of this contact at the node that yielded found no room in the roster, and is not there (D7).
    RosterFull(BareJid, BareJid),
    /// An input was refused that was being handled when nodes crashed (D15); its name, which says nothing of whose it is.
    Poison(u64),
}
