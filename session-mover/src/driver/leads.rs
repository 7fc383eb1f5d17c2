//! Who began to lead a group when, and how much of the other log it had then: what tells history from a void tail (D8).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use presence_engine::ids::{Group, Mode, NodeIx, Term};
use presence_engine::record::Record;
use serde::{Deserialize, Serialize};

use crate::frame::Frame;

/// The `Lead` records of one log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Leads(Vec<Lead>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lead {
    group: Group,
    term: Term,
    mode: Mode,
    /// How much of the other log the writer had.
    had: u64,
    /// Where it stands in its own.
    at: u64,
}

impl Leads {
    /// One more frame of the log that `writer` writes.
    pub(super) fn note(&mut self, writer: NodeIx, frame: &Frame) {
        for record in &frame.records {
            if let Record::Lead { group, reg, .. } = record
                && reg.primary == writer
            {
                let (had, at) = (frame.applied_peer.seq, frame.at.seq);
                self.0.push(Lead { group: *group, term: reg.term, mode: reg.mode, had, at });
            }
        }
    }

    /// Term of the last value in Solo.
    pub(super) fn last_solo(&self, group: Group) -> Term {
        let solo = |lead: &&Lead| lead.group == group && lead.mode == Mode::Solo;
        self.0.iter().rev().find(solo).map_or(Term(0), |lead| lead.term)
    }

    /// Those in frames up to `seq`.
    pub(super) fn up_to(&self, seq: u64) -> Leads {
        Leads(self.0.iter().filter(|lead| lead.at <= seq).cloned().collect())
    }

    /// How much of the other log the writer had when it first led the group after this term; `None`: it did not, as far
    /// as is known.
    pub(super) fn had_after(&self, group: Group, term: Term) -> Option<u64> {
        let mut later = self.0.iter().filter(|l| l.group == group && l.term > term);
        later.next().map(|l| l.had)
    }
}
