//! Names of nodes, terms, epochs and log positions: the words that every later crate shares.

use std::fmt;

/// One of the two nodes of a group, by the order of their names. Also names a home group: the users homed on that node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeIx {
    /// The node whose name sorts first.
    A,
    /// The other node.
    B,
}

/// A home group is named by its home node.
pub type Group = NodeIx;

impl NodeIx {
    /// Both nodes, in order.
    pub const BOTH: [NodeIx; 2] = [NodeIx::A, NodeIx::B];

    /// The other node.
    pub fn peer(self) -> NodeIx {
        match self {
            NodeIx::A => NodeIx::B,
            NodeIx::B => NodeIx::A,
        }
    }

    /// 0 or 1, for arrays and the wire.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The inverse of [`NodeIx::index`]; anything but 0 and 1 is `None`.
    pub fn from_index(index: usize) -> Option<NodeIx> {
        NodeIx::BOTH.get(index).copied()
    }
}

/// Version of a home group's register: 2 × number + index of the node that issued it, so that two nodes never issue
/// the same. 0 means "never in a group".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Term(pub u64);

impl Term {
    /// The smallest term above both `self` and `floor` that `by` may issue.
    pub fn next(self, floor: Term, by: NodeIx) -> Term {
        let number = self.0.max(floor.0) / 2 + 1;
        Term(2 * number + by.index() as u64)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether a group's primary needs its backup for an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// Both nodes hold what is acknowledged.
    Pair,
    /// The primary acknowledges alone.
    Solo,
}

/// Who may acknowledge for a home group: the value of its register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reg {
    /// Version; every change raises it.
    pub term: Term,
    /// The node that leads.
    pub primary: NodeIx,
    /// Alone or together.
    pub mode: Mode,
    /// Solo copies up to this term were met and settled by this value: they are superseded, whatever they hold.
    pub settled: Term,
}

/// Epoch of a user: changes whenever the user's sessions may be served by another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch {
    /// Term of the takeover that last covered the user.
    pub term: Term,
    /// Hand-overs since.
    pub moves: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.moves)
    }
}

/// Place of a frame in one node's log. `inc` is drawn at random at each start and each truncation, so an equal
/// position means an equal frame; `seq` counts through the whole log from 1. The default is "before the first frame".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// Sequence number.
    pub seq: u64,
    /// Incarnation of the log that wrote the frame.
    pub inc: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:08x}", self.seq, self.inc as u32)
    }
}

/// Identity of one record: whose log, which frame, which record of the frame. The same on both nodes and in replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordId {
    /// The node that wrote it.
    pub log: NodeIx,
    /// Its frame.
    pub at: Position,
    /// Index among the frame's forwards.
    pub index: u32,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:x}-{:x}-{}", self.log, self.at.seq, self.at.inc, self.index)
    }
}
