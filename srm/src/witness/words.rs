//! What nodes and witness say to each other: one JSON value on a line of at most [`LINE_BYTES`] bytes.

use presence_engine::ids::{Group, Reg};
use serde::{Deserialize, Serialize};

use crate::safety::CasResult;

/// Version of these words.
pub const VERSION: u32 = 1;
/// Longest line, in bytes.
pub const LINE_BYTES: usize = 4_096;

/// From a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToWitness {
    /// The first line.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Identity of the cluster: 16 hexadecimal digits.
        cluster: String,
        /// The node, whose certificate bears this name.
        node: String,
        /// The other one.
        peer: String,
    },
    /// Everything else.
    Ask(Ask),
}

/// What a node asks once it is welcome.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Its present copies of both registers; answered by [`FromWitness::Held`].
    Report([Reg; 2]),
    /// Change a register if it still is as expected.
    Cas {
        /// Whose register.
        group: Group,
        /// Number of the request in this run of the node.
        request: u32,
        /// What it must be.
        expected: Reg,
        /// What it becomes.
        new: Reg,
    },
}

/// From the witness.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromWitness {
    /// The node is known.
    Welcome {
        /// The version that is spoken.
        version: u32,
    },
    /// The node is not welcome; the connection ends.
    Refused {
        /// Why, for the operator.
        why: String,
    },
    /// What it holds, and what keeps it from deciding.
    Held {
        /// Both registers; `None`: it has none yet.
        regs: [Option<Reg>; 2],
        /// Why it does not decide about a group, for the operator.
        undecided: [Option<String>; 2],
    },
    /// The answer to a request.
    Answer {
        /// Whose register.
        group: Group,
        /// Number of the request.
        request: u32,
        /// What became of it.
        verdict: Verdict,
    },
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The register is as asked for.
    Won,
    /// It is this.
    Lost(Reg),
    /// The witness does not know what the register is, and has not changed it.
    Undecided,
}

impl Verdict {
    /// For the safety core.
    pub fn result(self) -> CasResult {
        match self {
            Verdict::Won => CasResult::Won,
            Verdict::Lost(reg) => CasResult::Lost(reg),
            Verdict::Undecided => CasResult::NotSent,
        }
    }
}
