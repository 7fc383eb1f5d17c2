//! Presence where branches meet: romeo, who is led here on, and juliet, who is not, see each other.

use super::*;
use crate::state::{Item, RosterVersion};
use crate::subscription::Subscription;

fn friends() -> State {
    let mut state = both_led();
    for (user, contact) in [("romeo", "juliet"), ("juliet", "romeo")] {
        let item = Item { subscription: Subscription::Both, listed: true, ..Item::default() };
        let (user, contact, version) = (jid(user), jid(contact), Some(RosterVersion::default()));
        let effects = vec![Effect::Roster { user, contact, item: Some(item), version }];
        state.apply(&mut place(1), &said(NURSE, 1, effects));
    }
    for (session, name) in [(ROMEO, "romeo"), (JULIET, "juliet")] {
        state.apply(&mut place(1), &shown(session, name, 1, "0", &[]));
    }
    state
}

fn presence(from: &str, type_: &str, status: &str) -> Bytes {
    let ns = "xmlns='jabber:client'";
    Bytes::from(format!("<presence {ns} from='{from}@d/r'{type_}><status>{status}</status></presence>"))
}

fn gap(about: &str, to: &[SmId]) -> Effect {
    Effect::Gap { about: Some(Jid::parse(&format!("{about}@d/r")).unwrap()), to: to.to_vec() }
}

/// A broadcast.
fn shown(session: SmId, name: &str, number: u32, status: &str, to: &[SmId]) -> Record {
    let own = Effect::Presence { session, priority: Some(0), stanza: presence(name, "", status) };
    let gap = (!to.is_empty()).then(|| gap(name, to));
    said(session, number, gap.into_iter().chain([own]).collect())
}

/// What is left of a tail, a record a frame.
fn play(state: &mut State, tail: &[Record]) -> Vec<Record> {
    let mut merge = merge();
    tail.iter().for_each(|record| merge.foresee(state, TOLD, record));
    let mut left = Vec::new();
    for (seq, record) in (5..).zip(tail) {
        let mut new = place(seq);
        let kept = merge.keep(state, TOLD, place(seq), &mut new, record);
        let forwards = |effect: &Effect| match effect {
            Effect::Forward(_) | Effect::Offer(_) => 1,
            Effect::FanOut { to, .. } => to.len(),
            _ => 0,
        };
        let named: usize = kept.iter().flat_map(|(_, record)| record.effects()).map(forwards).sum();
        assert_eq!(new.forwards as usize, named, "each forward has its place: {kept:?}");
        left.extend(kept.into_iter().map(|(_, record)| record));
        state.apply(&mut place(seq), record);
    }
    left
}

/// Goes along with a record.
fn with_it(effects: Vec<Effect>) -> Record {
    Record::Kept { stanza: StanzaId::default(), at_ms: 7, effects }
}

fn told(number: u32, stanza: Bytes) -> Record {
    with_it(vec![Effect::FanOut { id: id(ROMEO, number), to: vec![jid("juliet")], stanza }])
}

fn asked() -> Record {
    let probe = b"<presence xmlns='jabber:client' from='romeo@d' to='juliet@d/r' type='probe'/>";
    with_it(vec![Effect::Forward(forward("juliet", StanzaId::default(), Bytes::from_static(probe)))])
}

/// Juliet's client was at the other node: no session of hers need have been here.
#[test]
fn the_last_presence_of_ours_is_told_to_contacts_of_the_lost_group() {
    let tail = [shown(ROMEO, "romeo", 2, "1", &[JULIET]), shown(ROMEO, "romeo", 3, "2", &[])];
    let left = play(&mut friends(), &tail);
    let without = shown(ROMEO, "romeo", 2, "1", &[]);
    assert_eq!(left, [without, tail[1].clone(), told(3, presence("romeo", "", "2"))]);
}

#[test]
fn the_end_of_a_session_of_ours_is_told_once() {
    let gone = presence("romeo", " type='unavailable'", "x");
    let effects = vec![Effect::Presence { session: ROMEO, priority: None, stanza: gone.clone() }];
    let unavailable = said(ROMEO, 2, effects);
    let end = Record::End { session: ROMEO, at_ms: 9, effects: Vec::new() };
    let left = play(&mut friends(), &[unavailable.clone(), end.clone()]);
    let over = Bytes::from_static(b"<presence xmlns='jabber:client' from='romeo@d/r' type='unavailable'/>");
    assert_eq!(left, [unavailable.clone(), end, told(3, over)]);
    let left = play(&mut friends(), std::slice::from_ref(&unavailable));
    assert_eq!(left, [unavailable, told(2, gone)]);
}

#[test]
fn who_did_not_change_is_not_told_of_and_not_asked_for() {
    let hello = said(ROMEO, 2, vec![out(JULIET, id(ROMEO, 2), message("romeo", "juliet", "a"))]);
    let looks = said(ROMEO, 3, vec![gap("juliet", &[ROMEO])]);
    let left = play(&mut friends(), &[hello, looks.clone()]);
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(left[1], looks, "shown as she was before");
}

#[test]
fn who_was_shown_a_void_presence_asks_once_for_the_one_that_stands() {
    let tail = [2, 3].map(|n| shown(JULIET, "juliet", n, "1", &[ROMEO]));
    let left = play(&mut friends(), &tail);
    let kept = |n| {
        let effects = vec![gap("juliet", &[ROMEO])];
        Record::Kept { stanza: id(JULIET, n), at_ms: 7, effects }
    };
    assert_eq!(left, [kept(2), asked(), kept(3)]);
}

#[test]
fn whoever_looks_around_or_comes_back_behind_a_void_change_asks_too() {
    let silent = shown(JULIET, "juliet", 2, "1", &[]);
    let looks = said(ROMEO, 2, vec![gap("juliet", &[ROMEO])]);
    let left = play(&mut friends(), &[silent.clone(), looks.clone()]);
    assert_eq!(left, [looks.clone(), asked()]);
    let mut state = friends();
    state.apply(&mut place(2), &looks);
    let resumed = Record::Resumed { session: ROMEO, h: 0 };
    let left = play(&mut state, &[silent, resumed.clone()]);
    assert_eq!(left, [resumed, asked()], "a gap is filled with what stood here");
}

#[test]
fn a_void_end_is_asked_for() {
    let end = Record::End { session: JULIET, at_ms: 9, effects: vec![gap("juliet", &[ROMEO])] };
    let left = play(&mut friends(), &[end]);
    assert_eq!(left.last(), Some(&asked()));
}

#[test]
fn directed_presence_of_ours_is_brought_to_a_lost_user_and_taken_back() {
    let to = Jid::parse("nurse@d/r").unwrap();
    let bytes = Bytes::from_static(b"<presence xmlns='jabber:client' from='romeo@d/r' to='nurse@d/r'/>");
    let on = Effect::Directed { session: ROMEO, to, on: true };
    let tail = [said(ROMEO, 2, vec![on.clone(), out(NURSE, id(ROMEO, 2), bytes.clone())])];
    let left = play(&mut friends(), &tail);
    let brought = Effect::Forward(forward("nurse", id(ROMEO, 2), bytes));
    assert_eq!(left, [said(ROMEO, 2, vec![on.clone()]), with_it(vec![brought])]);
    let mut state = friends();
    state.apply(&mut place(2), &said(ROMEO, 2, vec![on]));
    let left = play(&mut state, &[Record::End { session: ROMEO, at_ms: 9, effects: Vec::new() }]);
    let Some(Record::Kept { effects, .. }) = left.last() else { panic!("{left:?}") };
    let back = "<presence xmlns='jabber:client' from='romeo@d/r' to='nurse@d/r' type='unavailable'/>";
    assert_eq!(effects[0], Effect::Forward(forward("nurse", id(ROMEO, 3), Bytes::from(back))));
}

#[test]
fn void_presence_is_never_offered() {
    let shows = forward("nurse", id(JULIET, 2), presence("juliet", "", "1"));
    assert_eq!(play(&mut friends(), &[said(JULIET, 2, vec![Effect::Forward(shows)])]), []);
}

/// A tail that was merged once is cut again before the other node had it.
#[test]
fn a_tail_that_is_cut_again_says_and_asks_the_same() {
    let tail = [shown(JULIET, "juliet", 2, "1", &[ROMEO]), shown(ROMEO, "romeo", 2, "2", &[JULIET])];
    let once = play(&mut friends(), &tail);
    let twice = play(&mut friends(), &once);
    let all = |records: &[Record]| -> Vec<(Jid, Bytes)> {
        let mut all = Vec::new();
        for effect in records.iter().flat_map(|record| record.effects()) {
            match effect {
                Effect::Forward(f) | Effect::Offer(f) => all.push((f.to.clone(), f.stanza.clone())),
                Effect::FanOut { to, stanza, .. } => {
                    all.extend(to.iter().map(|to| ((**to).clone(), stanza.clone())));
                }
                _ => {}
            }
        }
        all
    };
    assert_eq!(all(&once).len(), 2);
    assert_eq!(all(&once), all(&twice));
}
