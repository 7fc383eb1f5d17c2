//! Order among the forwards of one session.

use std::collections::BTreeMap;

use crate::ids::{RecordId, SmId, StanzaId};

/// Puts what each session sent in the order in which it sent it, into the places that it takes among the others'.
pub(super) fn in_sending_order(undone: Vec<(RecordId, StanzaId)>) -> Vec<RecordId> {
    let mut places: BTreeMap<SmId, Vec<usize>> = BTreeMap::new();
    for (place, (_, sent)) in undone.iter().enumerate() {
        places.entry(sent.session).or_default().push(place);
    }
    let mut ordered: Vec<RecordId> = undone.iter().map(|(id, _)| *id).collect();
    for places in places.into_values() {
        let mut own: Vec<(RecordId, u32)> =
            places.iter().map(|place| (undone[*place].0, undone[*place].1.number)).collect();
        // What ends a session has no number. Within one log, and among those of one stanza, the log's order is right.
        own.sort_by(|a, b| match (a.1, b.1) {
            (0, 0) => std::cmp::Ordering::Equal,
            (0, _) => std::cmp::Ordering::Greater,
            (_, 0) => std::cmp::Ordering::Less,
            (a, b) => a.cmp(&b),
        });
        for (place, (id, _)) in places.into_iter().zip(own) {
            ordered[place] = id;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeIx, Position};

    #[test]
    fn what_a_session_sent_before_it_moved_comes_first_whichever_log_it_stands_in() {
        let (moved, other) = (SmId([1; 16]), SmId([2; 16]));
        let at = |log, seq, index| RecordId { log, at: Position { seq, inc: 1 }, index };
        let sent = |session, number| StanzaId { session, number };
        let undone = vec![
            (at(NodeIx::A, 5, 0), sent(moved, 28)),
            (at(NodeIx::A, 5, 1), sent(other, 3)),
            (at(NodeIx::A, 6, 0), sent(moved, 29)),
            (at(NodeIx::A, 7, 0), sent(moved, 0)),
            (at(NodeIx::B, 2, 0), sent(moved, 27)),
            (at(NodeIx::B, 2, 1), sent(moved, 27)),
            (at(NodeIx::B, 3, 0), sent(SmId([3; 16]), 1)),
        ];
        let places = |order: &[RecordId]| -> Vec<usize> {
            order.iter().map(|id| undone.iter().position(|(known, _)| known == id).unwrap_or(99)).collect()
        };
        assert_eq!(places(&in_sending_order(undone.clone())), [4, 1, 5, 0, 2, 3, 6]);
    }
}
