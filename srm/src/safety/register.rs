//! Where the register of a group lives: with the two nodes (consent of the peer), or with a witness.

use super::Why;

/// What the register says to a change that a node wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Decision {
    /// The node's own durable copy is enough: the change stands once it is on disk.
    Granted,
    /// Ask the register and wait for its answer; meanwhile nothing is acknowledged (R4).
    Ask,
    /// Not without the operator.
    Refused,
}

/// A versioned register with one operation, `cas(expected, new)`: the rule by which a change of a given reason may be
/// made. The transport of the question is the shell's; the answer comes back as `In::CasReply`.
pub trait Register {
    /// How a change for this reason is decided.
    fn decide(&self, why: Why) -> Decision;
}

/// Without a witness each node's durable copy is the register. Both proposing Pair and giving the register away bind
/// only the node that does it until the peer has the new value on its own disk, which is its consent; so the own copy
/// may go first. Only Pair to Solo is one-sided, and that is the policy's to allow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Consent {
    /// `available`: going Solo on evidence needs nobody. Otherwise (`strict`) it needs the operator.
    pub available: bool,
}

impl Register for Consent {
    fn decide(&self, why: Why) -> Decision {
        match why {
            Why::PeerGone | Why::LeaseLost | Why::InitTimeout if !self.available => Decision::Refused,
            _ => Decision::Granted,
        }
    }
}

/// One register held by a third party: every change is asked there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Witness;

impl Register for Witness {
    fn decide(&self, why: Why) -> Decision {
        match why {
            Why::OnlyMember | Why::Overruled => Decision::Granted,
            _ => Decision::Ask,
        }
    }
}

/// The register of a configuration; `Copy` so that a core's settings stay plain data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RegisterKind {
    /// Consent of the peer.
    Consent(Consent),
    /// A witness.
    Witness(Witness),
}

impl Register for RegisterKind {
    fn decide(&self, why: Why) -> Decision {
        match self {
            RegisterKind::Consent(register) => register.decide(why),
            RegisterKind::Witness(register) => register.decide(why),
        }
    }
}
