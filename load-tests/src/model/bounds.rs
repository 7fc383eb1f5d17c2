//! How much may happen in one search, and what is promised within it.

/// Which register and policy is modelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Consent, policy `available`.
    Available,
    /// Consent, policy `strict`.
    Strict,
    /// A witness.
    Witness,
}

/// How a run begins. The group's home is node A.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Start {
    /// Pair under A.
    Home,
    /// Pair under B, which took over (by the operator's word under `strict`).
    TakenOver,
    /// Solo under A, whose backup follows.
    Solo,
}

/// Faults and commands that may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Left {
    /// `kill -9`, page cache kept.
    pub crashes: u8,
    /// Power losses of one node: what was not synced is gone.
    pub power: u8,
    /// Disks lost, or register copies. A disk whose loss destroys what nobody else has is not lost.
    pub disks: u8,
    /// Pieces of evidence that say "gone" of a node that lives.
    pub lies: u8,
    /// Initialization time-outs.
    pub init: u8,
    /// Pauses of a node for longer than its lease. A Pair primary loses its lease.
    pub pauses: u8,
    /// Fallbacks asked for.
    pub give_back: u8,
    /// Links cut while both nodes live.
    pub cuts: u8,
    /// `force-active`.
    pub force: u8,
    /// `force-active` in the place of a witness that does not answer.
    pub overrule: u8,
    /// Requests that find the witness out of reach, and are taken back.
    pub unsent: u8,
    /// Registers that the witness loses: it begins again, empty.
    pub forgets: u8,
    /// `force-inactive`, until it is taken back.
    pub holds: u8,
}

/// A rule broken on purpose, which a search must notice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Break {
    /// An empty witness takes what the asker builds upon for its register.
    EmptyGrants,
    /// An empty witness takes over what one node says.
    SeededByOne,
    /// A node connects to the witness anew before it has heard what the connection before had brought.
    LateAnswer,
    /// `strict` goes on alone without the operator's word.
    StrictGrants,
    /// A restarted node does not know that it acknowledged alone.
    AloneForgotten,
    /// A restarted node does not know that it was forced inactive.
    HoldForgotten,
}

/// How much may happen in one run of the model, and what must hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Register and policy.
    pub kind: Kind,
    /// How it begins.
    pub start: Start,
    /// Entries that clients write.
    pub writes: u8,
    /// Ticks of each node, but for backups, to which they mean nothing.
    pub ticks: u8,
    /// Lease in ticks.
    pub lease: u16,
    /// `commit = "peer-and-disk"`.
    pub peer_disk: bool,
    /// Whether A, B leads the other group too (R0, two Solo copies meet).
    pub took_other: [bool; 2],
    /// Faults.
    pub left: Left,
    /// Whether one owner, which holds everything acknowledged, is promised at every moment until the operator has a node
    /// serve (`force`, `overrule`). Not so for `available` where both may have led alone; what both acknowledged is then
    /// merged or set aside, never destroyed.
    pub strong: bool,
    /// Whether every state must come back to Pair by itself once the faults end.
    pub heals: bool,
    /// What is broken.
    pub broken: Option<Break>,
}

impl Bounds {
    /// No faults yet; one entry; the strong promise.
    pub const fn new(kind: Kind, start: Start) -> Bounds {
        let left = Left {
            crashes: 0,
            power: 0,
            disks: 0,
            lies: 0,
            init: 0,
            pauses: 0,
            give_back: 0,
            cuts: 0,
            force: 0,
            overrule: 0,
            unsent: 0,
            forgets: 0,
            holds: 0,
        };
        let took_other = [false; 2];
        Bounds {
            kind,
            start,
            writes: 1,
            ticks: 0,
            lease: 2,
            peer_disk: false,
            took_other,
            left,
            strong: true,
            heals: true,
            broken: None,
        }
    }
}
