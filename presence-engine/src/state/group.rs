//! The presence redundancy group as operators describe it: one value for both nodes, whoever wrote it.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::ids::NodeIx;

/// Name, description, and whether each node is the other's standby.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Counts the changes; of two values with the same number the one of the first node holds.
    pub number: u64,
    /// Who wrote it.
    pub by: NodeIx,
    /// Its name; empty: there is no group.
    pub name: CompactString,
    /// What operators say of it.
    pub description: CompactString,
    /// High availability: a node takes over its peer's users.
    pub ha: bool,
}

impl Default for GroupInfo {
    /// What a pair begins with.
    fn default() -> GroupInfo {
        let (name, description) = ("DefaultGroup".into(), CompactString::default());
        GroupInfo { number: 0, by: NodeIx::A, name, description, ha: true }
    }
}

impl GroupInfo {
    /// Whether this value takes the place of another.
    pub(super) fn replaces(&self, other: &GroupInfo) -> bool {
        (self.number, std::cmp::Reverse(self.by)) > (other.number, std::cmp::Reverse(other.by))
    }
}
