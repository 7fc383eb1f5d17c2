//! What of a tail had been let go alone: that is offered, and said again (D7).

use presence_engine::ids::Mode;
use presence_engine::record::Forward;
use xmpp_core::jid::Jid;
use xmpp_core::stanza::Stanza;

use super::moves::{JULIET, NURSE, lead, left, said};
use super::*;

/// Groups of a frame, those that were led alone when it was written, and its records.
type Written = (u8, u8, Vec<Record>);

/// Node a leads juliet's group alone.
fn alone() -> Written {
    (2, 2, vec![lead(NodeIx::B, 6, Mode::Solo)])
}

/// Juliet says how she and the nurse see each other.
fn asks(solo: u8, number: u32, word: &str) -> Written {
    let stanza = format!("<presence xmlns='jabber:client' from='juliet@d' to='nurse@d' type='{word}'/>");
    let id = StanzaId { session: JULIET, number };
    let forward = Forward { to: Jid::parse("nurse@d").unwrap(), id, stanza: stanza.into() };
    (2, solo, vec![Record::SmIn { session: JULIET, number, effects: vec![Effect::Forward(forward)] }])
}

/// Types of what is offered of a tail, in order.
fn offered(tail: Vec<Written>) -> Vec<String> {
    let left = left(tail);
    let effects = left.iter().flat_map(|(_, records)| records).flat_map(|record| record.effects());
    let type_ = |effect: &Effect| {
        let Effect::Offer(forward) = effect else { return None };
        let stanza = Stanza::from_bytes(forward.stanza.clone()).unwrap();
        Some(stanza.head.type_.as_deref().unwrap_or("message").to_owned())
    };
    effects.filter_map(type_).collect()
}

/// Of what waited then the frames do not say it.
#[test]
fn only_the_last_word_is_said_again_also_of_those_that_waited_when_the_group_went_solo() {
    let (asked, ended) = (|solo| asks(solo, 1, "subscribe"), |solo| asks(solo, 2, "unsubscribe"));
    for tail in [
        vec![alone(), asked(2), ended(2)],
        vec![asked(0), alone(), ended(2)],
        vec![asked(0), ended(0), alone()],
    ] {
        assert_eq!(offered(tail.clone()), ["unsubscribe"], "{tail:?}");
    }
}

/// The peer had come back, and only the other group was led alone still.
#[test]
fn a_word_that_was_not_let_go_takes_the_place_of_none() {
    for solo in [0, 1] {
        let tail = vec![alone(), asks(2, 1, "subscribe"), asks(solo, 2, "unsubscribe")];
        assert_eq!(offered(tail), ["subscribe"], "led alone: {solo}");
    }
}

#[test]
fn what_waited_for_a_join_that_was_called_off_is_offered() {
    let joining = || (2, 0, vec![said(JULIET, 1, NURSE)]);
    assert_eq!(offered(vec![alone(), joining(), alone()]), ["message"]);
    assert_eq!(offered(vec![alone(), joining()]), [""; 0], "nobody was told of it");
}

/// In the log of either node, and of that group only.
#[test]
fn what_waited_when_the_group_went_solo_counts_among_what_was_let_go_alone() {
    let waited = || asks(0, 1, "subscribe");
    let of_a = (1, 0, vec![said(JULIET, 1, NURSE)]);
    for (tail, count) in [
        (vec![waited()], 0),
        (vec![waited(), alone()], 2),
        (vec![waited(), of_a, alone(), asks(2, 2, "unsubscribe"), asks(0, 3, "subscribe")], 3),
    ] {
        for which in [Which::Own, Which::Peer] {
            let mut log = MemoryLog::default();
            for (seq, (groups, solo, records)) in (1..).zip(tail.clone()) {
                let frame = Frame { groups, solo, records, ..frame(seq, 0) };
                log.append(which, frame.at, frame.encode());
            }
            log.sync(which);
            let mut driver = driver(NodeIx::A, 1, &mut log);
            assert_eq!(driver.released_alone(which, 0, &mut log), count, "{which:?}: {tail:?}");
        }
    }
}
