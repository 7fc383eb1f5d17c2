//! Names of nodes, terms, epochs and log positions: the words that every later crate shares.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use xmpp_core::dual::Epoch;

/// One of the two nodes of a group, by the order of their names. Also names a home group: the users homed on that node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// The smallest term above both `self` and `floor` that `by` may issue.
    pub fn next(self, floor: Term, by: NodeIx) -> Term {
        let number = self.0.max(floor.0) / 2 + 1;
        Term(2 * number + by.index() as u64)
    }

    /// Who issued it.
    pub fn issuer(self) -> NodeIx {
        NodeIx::BOTH[(self.0 % 2) as usize]
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether a group's primary needs its backup for an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// Both nodes hold what is acknowledged.
    Pair,
    /// The primary acknowledges alone.
    Solo,
}

/// Who may acknowledge for a home group: the value of its register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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

/// Why the users of a home node are served by its backup although the node lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Away {
    /// The operator asked for it.
    Operator,
    /// A critical service was down for longer than its delay.
    Service,
    /// The database was.
    Database,
}

impl Away {
    /// All of them, in the order of their numbers on disk, which begin with 1.
    pub const ALL: [Away; 3] = [Away::Operator, Away::Service, Away::Database];
}

/// Place of a frame in one node's log. `inc` is drawn at random at each start and each truncation, so an equal
/// position means an equal frame; `seq` counts through the whole log from 1. The default is "before the first frame".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// Sequence number.
    pub seq: u64,
    /// Incarnation of the log that wrote the frame.
    pub inc: u64,
}

impl Position {
    /// Whichever of two positions of one log comes later.
    pub fn max_by_seq(self, other: Position) -> Position {
        if other.seq > self.seq { other } else { self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:08x}", self.seq, self.inc as u32)
    }
}

/// Identity of one record: whose log, which frame, which record of the frame. The same on both nodes and in replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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

/// Internal identity of a session and, in hexadecimal, its SM-ID on the wire (XEP-0198): 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SmId(pub [u8; 16]);

impl SmId {
    /// Reads the form of [`fmt::Display`]; anything else names no session.
    pub fn parse(text: &str) -> Option<SmId> {
        let text = text.as_bytes();
        if text.len() != 32 {
            return None;
        }
        let digit = |c: u8| (c as char).to_digit(16).filter(|_| !c.is_ascii_uppercase());
        let mut id = [0; 16];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = (digit(text[2 * i])? * 16 + digit(text[2 * i + 1])?) as u8;
        }
        Some(SmId(id))
    }
}

impl fmt::Display for SmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Identity of a stanza for ever: the session that sent it and its number among that session's stanzas. Both nodes and
/// every replay derive the same (D3), and a stanza that a client sends again after a resume has the same (D7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct StanzaId {
    /// The sender's session.
    pub session: SmId,
    /// Number of the stanza among those of the session, from 1.
    pub number: u32,
}

/// A client connection: the node that holds the socket, and a number that is unique within this run of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn {
    /// The node with the socket.
    pub node: NodeIx,
    /// Counts from 1.
    pub number: u64,
}

impl Conn {
    /// Number of the connection that a node has with itself.
    pub const SELF: u64 = 0;
}
