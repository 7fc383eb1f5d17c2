//! Who began to lead a group when, and how much of the other log it had then: what tells history from a void tail (D8).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use presence_engine::ids::{Group, Mode, NodeIx, Position, Reg, Term};
use presence_engine::record::Record;
use serde::{Deserialize, Serialize};

use crate::frame::Frame;
use crate::runs::Runs;

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
    /// Which run of the other log the last was of that it had; 0: not known. A mark keeps its form: there the runs tell it.
    #[serde(skip)]
    inc: u64,
}

/// Whether the writer of a lead, which had the other log up to `last`, had the frame `at` of it. `logs`: that log and a copy of it,
/// of which each may have lost what the other has. If neither has anything left of that run the number decides.
pub(super) fn had(logs: [&Runs; 2], last: Position, at: Position) -> bool {
    logs.into_iter().find_map(|runs| runs.had_seen(last, at)).unwrap_or(at.seq <= last.seq)
}

impl Leads {
    /// One more frame of the log that `writer` writes.
    pub(super) fn note(&mut self, writer: NodeIx, frame: &Frame) {
        for record in &frame.records {
            if let Record::Lead { group, reg, .. } = record
                && reg.primary == writer
                && !self.ends_with(*group, *reg)
            {
                let (Position { seq: had, inc }, at) = (frame.applied_peer, frame.at.seq);
                self.0.push(Lead { group: *group, term: reg.term, mode: reg.mode, had, at, inc });
            }
        }
    }

    /// They come out of a mark, which has these runs of the other log.
    pub(super) fn find_in(&mut self, other: &Runs) {
        self.0.iter_mut().for_each(|lead| lead.inc = other.at(lead.had).map_or(0, |at| at.inc));
    }

    /// What is said once more says nothing new of when the writer began to lead.
    fn ends_with(&self, group: Group, reg: Reg) -> bool {
        let last = self.0.iter().rfind(|lead| lead.group == group);
        last.is_some_and(|last| (last.term, last.mode) == (reg.term, reg.mode))
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
    pub(super) fn had_after(&self, group: Group, term: Term) -> Option<Position> {
        let mut later = self.0.iter().filter(|l| l.group == group && l.term > term);
        later.next().map(|l| Position { seq: l.had, inc: l.inc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of the other log.
    fn of_other(seq: u64) -> Option<Position> {
        Some(Position { seq, inc: 2 })
    }

    /// A frame in which a group gets this register, written when so much of the other log was there.
    fn frame(seq: u64, had: u64, group: Group, (term, primary, mode): (u64, NodeIx, Mode)) -> Frame {
        let reg = Reg { term: Term(term), primary, mode, settled: Term(0) };
        Frame {
            groups: 1 << group.index(),
            solo: 0,
            terms: [Term(0); 2],
            at: Position { seq, inc: 1 },
            prev: Position::default(),
            applied_peer: Position { seq: had, inc: 2 },
            now_ms: 0,
            records: vec![Record::Lead { group, reg, at_ms: 0, late: false }],
        }
    }

    /// Those of node a: it led b's group alone, then with the peer, and its own alone. In between it wrote who else led.
    fn leads() -> Leads {
        let mut leads = Leads::default();
        for frame in [
            frame(1, 3, NodeIx::B, (5, NodeIx::A, Mode::Solo)),
            frame(2, 4, NodeIx::B, (6, NodeIx::B, Mode::Solo)),
            frame(3, 6, NodeIx::B, (9, NodeIx::A, Mode::Pair)),
            frame(4, 8, NodeIx::A, (7, NodeIx::A, Mode::Solo)),
        ] {
            leads.note(NodeIx::A, &frame);
        }
        leads
    }

    #[test]
    fn what_the_writer_had_is_told_of_its_first_lead_after_a_term() {
        let leads = leads();
        assert_eq!(leads.had_after(NodeIx::B, Term(4)), of_other(3));
        assert_eq!(
            leads.had_after(NodeIx::B, Term(5)),
            of_other(6),
            "what the writer wrote under it is not void"
        );
        assert_eq!(leads.had_after(NodeIx::B, Term(9)), None);
        assert_eq!(leads.had_after(NodeIx::A, Term(4)), of_other(8), "each group has its own");
    }

    #[test]
    fn the_last_lead_alone_is_known_for_each_group() {
        let leads = leads();
        assert_eq!(NodeIx::BOTH.map(|group| leads.last_solo(group)), [Term(7), Term(5)]);
        assert_eq!(Leads::default().last_solo(NodeIx::A), Term(0));
    }

    #[test]
    fn a_lead_that_is_said_once_more_is_the_one_that_was_said_first() {
        let (mut leads, once) = (leads(), leads());
        leads.note(NodeIx::A, &frame(5, 9, NodeIx::B, (9, NodeIx::A, Mode::Pair)));
        leads.note(NodeIx::A, &frame(6, 9, NodeIx::A, (7, NodeIx::A, Mode::Solo)));
        assert_eq!(leads, once);
        leads.note(NodeIx::A, &frame(7, 9, NodeIx::B, (11, NodeIx::A, Mode::Pair)));
        assert_eq!(leads.had_after(NodeIx::B, Term(9)), of_other(9));
    }

    /// Whoever reads a mark that was written before knows what is in it, and who wrote that reads what is written now.
    #[test]
    fn a_mark_keeps_the_form_that_it_had_and_its_runs_tell_the_rest() {
        let bytes = postcard::to_stdvec(&leads()).unwrap();
        let form: Vec<(Group, Term, Mode, u64, u64)> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(
            form[..2],
            [(NodeIx::B, Term(5), Mode::Solo, 3, 1), (NodeIx::B, Term(9), Mode::Pair, 6, 3)]
        );
        let mut read: Leads = postcard::from_bytes(&bytes).unwrap();
        let mut other = Runs::default();
        (1..=6).for_each(|seq| other.push(Position { seq, inc: 2 }));
        read.find_in(&other);
        assert_eq!(read.had_after(NodeIx::B, Term(4)), of_other(3));
        let cut = Position { seq: 8, inc: 0 };
        assert_eq!(read.had_after(NodeIx::A, Term(4)), Some(cut), "nobody knows what was there");
    }

    #[test]
    fn what_a_lead_was_written_upon_is_asked_of_either_log() {
        let log = |inc| {
            let mut runs = Runs::default();
            runs.push(Position { seq: 1, inc: 1 });
            runs.push(Position { seq: 2, inc });
            runs
        };
        let (log, copy, at) = (log(3), log(2), |seq, inc| Position { seq, inc });
        let asked = |last, frame| had([&log, &copy], last, frame);
        assert!(asked(at(2, 1), at(1, 1)) && asked(at(2, 3), at(2, 3)), "the log tells");
        assert!(!asked(at(2, 2), at(2, 3)), "the copy does");
        assert!(asked(at(2, 2), at(1, 1)));
        assert!(asked(at(2, 9), at(2, 3)) && !asked(at(1, 9), at(2, 3)), "neither does");
    }

    #[test]
    fn a_shorter_log_has_what_stands_in_it() {
        let short = leads().up_to(3);
        assert_eq!(short.had_after(NodeIx::B, Term(5)), of_other(6), "in its last frame");
        assert_eq!(short.had_after(NodeIx::A, Term(4)), None);
    }
}
