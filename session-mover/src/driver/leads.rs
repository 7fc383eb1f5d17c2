//! Who began to lead a group when, and how much of the other log it had then: what tells history from a void tail (D8).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use presence_engine::ids::{Group, NodeIx, Term};
use presence_engine::record::Record;

use crate::frame::Frame;

/// The `Lead` records of one log.
#[derive(Debug, Default)]
pub(super) struct Leads(Vec<(Group, Term, u64)>);

impl Leads {
    /// One more frame of the log that `writer` writes.
    pub(super) fn note(&mut self, writer: NodeIx, frame: &Frame) {
        for record in &frame.records {
            if let Record::Lead { group, reg, .. } = record
                && reg.primary == writer
            {
                self.0.push((*group, reg.term, frame.applied_peer.seq));
            }
        }
    }

    /// How much of the other log the writer had when it first led the group after this term; `None`: it did not, as far
    /// as is known.
    pub(super) fn had_after(&self, group: Group, term: Term) -> Option<u64> {
        let mut later = self.0.iter().filter(|(g, t, _)| *g == group && *t > term);
        later.next().map(|(_, _, had)| *had)
    }
}
