//! Which incarnation wrote which part of a log: enough to find out how far two copies of it agree (D8).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use presence_engine::ids::Position;
use presence_engine::record::{CodecError, Cursor};
use serde::{Deserialize, Serialize};

/// Frames `first ..= last` were written by incarnation `inc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The incarnation.
    pub inc: u64,
    /// Its first sequence number.
    pub first: u64,
    /// Its last.
    pub last: u64,
}

/// The runs of one log, in order and without holes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// The last frame; the default position if there is none.
    pub fn end(&self) -> Position {
        self.0.last().map_or(Position::default(), |run| Position { seq: run.last, inc: run.inc })
    }

    /// Position of the frame with this sequence number.
    pub fn at(&self, seq: u64) -> Option<Position> {
        let run = self.0.iter().rev().find(|run| (run.first..=run.last).contains(&seq))?;
        Some(Position { seq, inc: run.inc })
    }

    /// Whether a frame that would be the next was written only after the run of `seen` had been cut back: who had seen
    /// that far had not seen this one, whatever the sequence numbers say.
    pub fn parted(&self, next: Position, seen: Position) -> bool {
        next.inc != seen.inc && self.0.iter().any(|run| run.inc == seen.inc)
    }

    /// Whether who had seen this log up to `seen` had seen the frame `at`, as these runs of it tell. `None`: nothing is here
    /// of the run that `seen` is of.
    pub fn had_seen(&self, seen: Position, at: Position) -> Option<bool> {
        let run = self.0.iter().find(|run| run.inc == seen.inc)?;
        Some(self.at(at.seq) == Some(at) && at.seq <= run.last.min(seen.seq))
    }

    /// One more frame. It must follow the last; a hole is our own bug.
    pub fn push(&mut self, at: Position) {
        debug_assert!(self.0.is_empty() || at.seq == self.end().seq + 1, "a hole in a log");
        match self.0.last_mut() {
            Some(run) if run.inc == at.inc => run.last = at.seq,
            _ => self.0.push(Run { inc: at.inc, first: at.seq, last: at.seq }),
        }
    }

    /// Forgets all after `seq`.
    pub fn truncate(&mut self, seq: u64) {
        self.0.retain(|run| run.first <= seq);
        if let Some(run) = self.0.last_mut() {
            run.last = run.last.min(seq);
        }
    }

    /// The last sequence number up to which both logs hold the same frames.
    pub fn common(&self, other: &Runs) -> u64 {
        let mut common = 0;
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            if mine.inc != theirs.inc || mine.first != theirs.first {
                break;
            }
            common = mine.last.min(theirs.last);
            if mine.last != theirs.last {
                break;
            }
        }
        common
    }

    /// Appends the binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        for run in &self.0 {
            for n in [run.inc, run.first, run.last] {
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
    }

    /// Reads the binary form; runs with holes or overlaps are refused.
    pub fn decode(c: &mut Cursor) -> Result<Runs, CodecError> {
        let count = c.u32()?;
        let mut runs: Vec<Run> = Vec::new();
        for _ in 0..count {
            let run = Run { inc: c.u64()?, first: c.u64()?, last: c.u64()? };
            let next = runs.last().map_or(1, |r| r.last + 1);
            // There is always a next number.
            if run.first != next || run.last < run.first || run.last == u64::MAX {
                return Err(CodecError::Bad("log runs"));
            }
            runs.push(run);
        }
        Ok(Runs(runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_written_after_a_cut_was_not_seen_by_who_saw_beyond_the_cut() {
        let at = |seq, inc| Position { seq, inc };
        let mut runs = Runs::default();
        assert!(!runs.parted(at(1, 7), Position::default()));
        runs.push(at(1, 7));
        runs.push(at(2, 7));
        assert!(!runs.parted(at(3, 7), at(5, 7)));
        assert!(runs.parted(at(3, 8), at(5, 7)), "the run was cut back to 2 and went on as another");
        assert!(!runs.parted(at(3, 8), at(5, 9)), "a later run of which nothing is here");
        runs.push(at(3, 8));
        assert!(!runs.parted(at(4, 8), at(5, 8)));
    }

    #[test]
    fn who_had_seen_an_end_had_seen_nothing_that_was_written_in_its_place() {
        let at = |seq, inc| Position { seq, inc };
        // Frames 4 and 5 of run 7 were lost, and others written.
        let log = runs(&[(6, 2), (7, 1), (8, 4)]);
        let seen = |seq, inc| log.had_seen(at(5, 7), at(seq, inc));
        assert_eq!([seen(2, 6), seen(3, 7)], [Some(true); 2]);
        assert_eq!([seen(4, 8), seen(5, 8), seen(6, 8)], [Some(false); 3], "another frame has the number");
        assert_eq!(seen(5, 7), Some(false), "it is no frame of this log");
        assert_eq!(log.had_seen(at(5, 8), at(5, 8)), Some(true));
        assert_eq!(log.had_seen(at(5, 8), at(6, 8)), Some(false));
        assert_eq!(log.had_seen(at(5, 9), at(1, 6)), None, "a run of which nothing is here");
    }

    fn runs(list: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::default();
        for (inc, count) in list {
            for _ in 0..*count {
                let seq = runs.end().seq + 1;
                runs.push(Position { seq, inc: *inc });
            }
        }
        runs
    }

    #[test]
    fn logs_agree_up_to_where_they_part() {
        let base = runs(&[(1, 5), (2, 3)]);
        assert_eq!(base.common(&runs(&[(1, 5), (2, 3), (3, 9)])), 8);
        assert_eq!(base.common(&runs(&[(1, 5), (2, 2)])), 7);
        assert_eq!(base.common(&runs(&[(1, 5), (9, 2)])), 5);
        assert_eq!(base.common(&runs(&[(1, 4), (2, 9)])), 4);
        assert_eq!(base.common(&runs(&[(7, 4)])), 0);
        assert_eq!(base.common(&Runs::default()), 0);
    }

    #[test]
    fn runs_with_holes_or_overlaps_are_refused() {
        let read = |runs: &[(u64, u64)]| {
            let mut out = (runs.len() as u32).to_le_bytes().to_vec();
            for (inc, (first, last)) in runs.iter().enumerate() {
                let numbers = [inc as u64, *first, *last];
                numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
            }
            Runs::decode(&mut Cursor::new(out.into())).map(|runs| runs.end().seq)
        };
        assert_eq!(read(&[(1, 3), (4, 4)]), Ok(4));
        assert_eq!(read(&[(1, u64::MAX - 1)]), Ok(u64::MAX - 1));
        const MAX: u64 = u64::MAX;
        let bad: [&[(u64, u64)]; 6] = [
            &[(2, 3)],
            &[(1, 3), (5, 6)],
            &[(1, 3), (3, 4)],
            &[(1, 0)],
            &[(1, MAX)],
            &[(1, MAX), (MAX, MAX)],
        ];
        for runs in bad {
            assert_eq!(read(runs), Err(CodecError::Bad("log runs")), "{runs:?}");
        }
    }

    #[test]
    fn truncation_and_the_binary_form() {
        let mut log = runs(&[(1, 5), (2, 3)]);
        log.truncate(5);
        assert_eq!((log.end(), log.at(6)), (Position { seq: 5, inc: 1 }, None));
        log.push(Position { seq: 6, inc: 4 });
        assert_eq!(log.at(6), Some(Position { seq: 6, inc: 4 }));
        let mut out = Vec::new();
        log.encode(&mut out);
        assert_eq!(Runs::decode(&mut Cursor::new(out.into())), Ok(log.clone()));
        log.truncate(0);
        assert_eq!(log, Runs::default());
    }
}
