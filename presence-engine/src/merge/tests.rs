//! What is left of a tail, record by record: romeo's group is led here on, juliet's is lost.

use bytes::Bytes;

mod shown;
mod words;

use super::*;
use crate::ids::{Mode, Position, Reg, Term};
use crate::record::Verifiers;

const ROMEO: SmId = SmId([1; 16]);
const JULIET: SmId = SmId([2; 16]);
const NURSE: SmId = SmId([3; 16]);
const TOLD: Spot = Spot { released: [true; 2], at_ms: 7 };
const UNTOLD: Spot = Spot { released: [false; 2], at_ms: 7 };

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@d")).unwrap()
}

fn place(seq: u64) -> Place {
    Place { log: NodeIx::A, at: Position { seq, inc: 1 }, forwards: 0 }
}

/// Romeo's home is here, juliet's and the nurse's at the other node; this node led both groups.
fn both_led() -> State {
    let mut state = State::default();
    let mut apply = |record| state.apply(&mut place(1), &record);
    for group in NodeIx::BOTH {
        let reg = Reg { term: Term(6), primary: NodeIx::A, mode: Mode::Solo, settled: Term(0) };
        apply(Record::Lead { group, reg, at_ms: 1, late: false });
    }
    let people = [("romeo", NodeIx::A, ROMEO), ("juliet", NodeIx::B, JULIET), ("nurse", NodeIx::B, NURSE)];
    for (name, home, session) in people {
        apply(Record::UserAdd { user: jid(name), home, verifiers: Verifiers::default() });
        apply(Record::Bind { session, user: jid(name), resource: "r".into(), at_ms: 1, effects: Vec::new() });
        apply(Record::Enable { session, resume_ms: 1_000 });
    }
    state
}

fn message(from: &str, to: &str, id: &str) -> Bytes {
    let text = format!(
        "<message xmlns='jabber:client' from='{from}@d/r' to='{to}@d/r' id='{id}'><body>x</body></message>"
    );
    Bytes::from(text)
}

fn said(session: SmId, number: u32, effects: Vec<Effect>) -> Record {
    Record::SmIn { session, number, effects }
}

fn id(session: SmId, number: u32) -> StanzaId {
    StanzaId { session, number }
}

fn out(to: SmId, id: StanzaId, stanza: Bytes) -> Effect {
    Effect::Out { to, id, keep: true, stanza }
}

fn forward(to: &str, id: StanzaId, stanza: Bytes) -> Forward {
    Forward { to: Jid::parse(&format!("{to}@d/r")).unwrap(), id, stanza }
}

fn merge() -> Merge {
    Merge::new(NodeIx::A, [true, false])
}

fn keep(spot: Spot, record: &Record) -> Vec<Kept> {
    merge().keep(&both_led(), spot, place(5), &mut place(3), record)
}

#[test]
fn a_message_of_ours_for_a_lost_user_goes_to_its_owner() {
    let stanza = message("romeo", "juliet", "a");
    let record = said(ROMEO, 4, vec![out(JULIET, id(ROMEO, 4), stanza.clone())]);
    let forwarded = vec![Effect::Forward(forward("juliet", id(ROMEO, 4), stanza))];
    for spot in [TOLD, UNTOLD] {
        assert_eq!(keep(spot, &record), [(0b01, said(ROMEO, 4, forwarded.clone()))]);
    }
}

#[test]
fn one_stanza_for_two_resources_of_a_lost_user_is_forwarded_once() {
    let mut state = both_led();
    let second = SmId([4; 16]);
    let bind = Record::Bind {
        session: second,
        user: jid("juliet"),
        resource: "phone".into(),
        at_ms: 1,
        effects: Vec::new(),
    };
    state.apply(&mut place(2), &bind);
    let stanza = message("romeo", "juliet", "a");
    let effects = [JULIET, second].map(|to| out(to, id(ROMEO, 4), stanza.clone()));
    let left = merge().keep(&state, TOLD, place(5), &mut place(3), &said(ROMEO, 4, effects.to_vec()));
    let forwarded = vec![Effect::Forward(forward("juliet", id(ROMEO, 4), stanza))];
    assert_eq!(left, [(0b01, said(ROMEO, 4, forwarded))]);
}

#[test]
fn what_a_session_gave_back_to_storage_is_not_offered_once_more() {
    let (mut merge, mut new, state) = (merge(), place(3), both_led());
    let stanza = message("nurse", "juliet", "a");
    let given = said(NURSE, 4, vec![out(JULIET, id(NURSE, 4), stanza.clone())]);
    assert_eq!(merge.keep(&state, TOLD, place(5), &mut new, &given).len(), 1);
    let (user, due) = (jid("juliet"), vec!["r".into()]);
    let back = Effect::Offline { user, id: id(NURSE, 4), at_ms: 1, open: true, due, stanza };
    assert_eq!(merge.keep(&state, TOLD, place(6), &mut new, &said(JULIET, 0, vec![back])), []);
}

#[test]
fn what_stands_before_the_tail_in_the_same_log_is_not_offered_once_more() {
    let mut before = Seen::default();
    before.note(&said(JULIET, 9, Vec::new()), 1);
    let left = |number| {
        let effects = vec![out(NURSE, id(JULIET, number), message("juliet", "nurse", "b"))];
        let mut merge = merge().behind(before.clone());
        merge.keep(&both_led(), TOLD, place(5), &mut place(3), &said(JULIET, number, effects)).len()
    };
    assert_eq!((left(9), left(10)), (0, 1));
}

#[test]
fn what_a_void_sender_brought_to_users_here_keeps_its_number_in_their_queues() {
    let effects = vec![out(ROMEO, id(JULIET, 9), message("juliet", "romeo", "b"))];
    let record = said(JULIET, 9, effects.clone());
    for spot in [TOLD, UNTOLD] {
        let kept = Record::Kept { stanza: id(JULIET, 9), at_ms: 7, effects: effects.clone() };
        assert_eq!(keep(spot, &record), [(0b01, kept)]);
    }
}

#[test]
fn what_a_void_sender_was_told_is_safe_is_offered_and_nothing_else() {
    let stanza = message("juliet", "nurse", "c");
    let record = said(JULIET, 9, vec![out(NURSE, id(JULIET, 9), stanza.clone())]);
    let effects = vec![Effect::Offer(forward("nurse", id(JULIET, 9), stanza))];
    let kept = Record::Kept { stanza: id(JULIET, 9), at_ms: 7, effects };
    assert_eq!(keep(TOLD, &record), [(0, kept)]);
    assert_eq!(keep(UNTOLD, &record), [], "the sender sends it again");
}

#[test]
fn counters_and_numbers_of_void_sessions_are_never_taken() {
    let session = JULIET;
    let user = jid("juliet");
    for record in [
        Record::Trim { session, h: 3 },
        Record::Resumed { session, h: 3 },
        Record::Detached { session, at_ms: 1 },
        Record::Enable { session, resume_ms: 1 },
        Record::Dual { session },
        Record::End { session, at_ms: 1, effects: Vec::new() },
        Record::Bind { session: SmId([9; 16]), user, resource: "new".into(), at_ms: 1, effects: Vec::new() },
        said(session, 10, Vec::new()),
    ] {
        assert_eq!(keep(TOLD, &record), [], "{record:?}");
    }
    let session = ROMEO;
    for record in
        [Record::Trim { session, h: 3 }, Record::Resumed { session, h: 3 }, Record::Dual { session }]
    {
        assert_eq!(keep(TOLD, &record), [(0b01, record.clone())]);
    }
}

#[test]
fn an_account_is_there_whoever_added_it() {
    let add = Record::UserAdd { user: jid("paris"), home: NodeIx::B, verifiers: Verifiers::default() };
    assert_eq!(keep(TOLD, &add), [(0, add.clone())]);
}

#[test]
fn a_forward_of_the_tail_is_done_under_its_new_name() {
    let mut state = both_led();
    let stanza = message("romeo", "romeo", "d");
    let effects = vec![
        out(JULIET, id(ROMEO, 4), message("romeo", "juliet", "a")),
        Effect::Forward(forward("romeo", id(ROMEO, 4), stanza.clone())),
    ];
    let record = said(ROMEO, 4, effects);
    let (mut merge, mut old, mut new) = (merge(), place(5), place(3));
    let first = merge.keep(&state, TOLD, old, &mut new, &record);
    assert_eq!(first.len(), 1);
    state.apply(&mut old, &record);
    let was = RecordId { log: NodeIx::A, at: Position { seq: 5, inc: 1 }, index: 0 };
    let effects = vec![out(ROMEO, id(ROMEO, 4), stanza)];
    let done = Record::Done { forward: was, effects: effects.clone() };
    // The first forward of the new frame is the message for juliet.
    let now = RecordId { log: NodeIx::A, at: Position { seq: 3, inc: 1 }, index: 1 };
    let left = merge.keep(&state, TOLD, old, &mut new, &done);
    assert_eq!(left, [(0b01, Record::Done { forward: now, effects })]);
}

/// It stood in an end of the other log that its writer lost: what was done with it stays with who is led here on.
#[test]
fn what_was_done_with_a_forward_that_is_gone_stays_with_users_led_here() {
    let gone = RecordId { log: NodeIx::B, at: Position { seq: 9, inc: 1 }, index: 0 };
    let stanza = message("juliet", "romeo", "d");
    let here = out(ROMEO, id(JULIET, 4), stanza.clone());
    let there = out(NURSE, id(JULIET, 4), stanza);
    let done = Record::Done { forward: gone, effects: vec![here.clone(), there.clone()] };
    let left = Record::Done { forward: gone, effects: vec![here] };
    assert_eq!(keep(TOLD, &done), [(0b01, left)]);
    assert_eq!(keep(TOLD, &Record::Done { forward: gone, effects: vec![there] }), []);
}

#[test]
fn what_was_done_for_a_lost_user_is_left_to_its_owner() {
    let mut state = both_led();
    let stanza = message("romeo", "juliet", "a");
    let mut peers = Place { log: NodeIx::B, ..place(4) };
    let said = said(ROMEO, 4, vec![Effect::Forward(forward("juliet", id(ROMEO, 4), stanza.clone()))]);
    state.apply(&mut peers, &said);
    let was = RecordId { log: NodeIx::B, at: Position { seq: 4, inc: 1 }, index: 0 };
    let done = Record::Done { forward: was, effects: vec![out(JULIET, id(ROMEO, 4), stanza)] };
    assert_eq!(merge().keep(&state, TOLD, place(5), &mut place(3), &done), []);
}

#[test]
fn an_offer_is_known_by_session_and_number_or_by_its_names() {
    let mut seen = Seen::default();
    seen.note(&said(JULIET, 9, vec![out(NURSE, id(JULIET, 9), message("juliet", "nurse", "c"))]), 1);
    let again = |number, text| forward("nurse", id(JULIET, number), message("juliet", "nurse", text));
    assert!(seen.has(&again(9, "other")), "sent again after a resume");
    assert!(seen.has(&again(2, "c")), "sent again in a new session");
    assert!(!seen.has(&again(2, "other")));
}

fn numbered_1(inner: &str) -> Bytes {
    let head = "<message xmlns='jabber:client' from='juliet@d/r' to='nurse@d/r' id='1'>";
    Bytes::from(format!("{head}{inner}</message>"))
}

/// An id is chosen by the client, and may repeat.
#[test]
fn an_offer_that_says_something_else_is_another_and_one_stanza_is_one_offer() {
    let mut seen = Seen::default();
    // Two devices got it, and it is one.
    let effects = [NURSE, SmId([4; 16])].map(|to| out(to, id(JULIET, 9), numbered_1("<body>x</body>")));
    seen.note(&said(JULIET, 9, effects.to_vec()), 1);
    let offer = |number, inner| forward("nurse", id(ROMEO, number), numbered_1(inner));
    assert!(!seen.has(&offer(1, "<body>y</body>")), "another message under the same id");
    let stamped = "<body>x</body><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>";
    assert!(seen.has(&offer(2, stamped)), "sent again with a stamp");
    assert!(!seen.has(&offer(3, "<body>x</body>")), "it was said twice, and is there once");
}

/// A node that starts between two answers finds the first in its log.
#[test]
fn what_became_of_an_offer_is_not_what_the_branch_took_from_a_client() {
    let stanza = || numbered_1("<body>x</body>");
    let offer = Record::Kept {
        stanza: id(ROMEO, 1),
        at_ms: 1,
        effects: vec![Effect::Offer(forward("nurse", id(ROMEO, 1), stanza()))],
    };
    let answered = RecordId { log: NodeIx::A, at: Position { seq: 5, inc: 1 }, index: 0 };
    for taken in [true, false] {
        let mut seen = Seen::default();
        seen.note_offers(&mut place(5), &offer);
        let effects = match taken {
            true => vec![out(NURSE, id(ROMEO, 1), stanza())],
            false => Vec::new(),
        };
        if !taken {
            seen.note(&said(JULIET, 9, vec![out(NURSE, id(JULIET, 9), stanza())]), 1);
        }
        seen.note(&Record::Done { forward: answered, effects }, 2);
        assert!(!seen.has(&forward("nurse", id(ROMEO, 2), stanza())), "taken: {taken}");
    }
}

#[test]
fn what_a_void_branch_brought_is_remembered_for_its_receiver_only() {
    let mut state = both_led();
    let effects = vec![out(ROMEO, id(JULIET, 9), message("juliet", "romeo", "b"))];
    state.apply(&mut place(6), &Record::Kept { stanza: id(JULIET, 9), at_ms: 7, effects });
    assert!(state.was_kept(id(JULIET, 9), &jid("romeo")));
    assert!(!state.was_kept(id(JULIET, 9), &jid("nurse")));
    assert!(!state.was_kept(id(JULIET, 8), &jid("romeo")));
}

/// A void login ended an older session of the same resource: what that had not answered went back to who had asked.
#[test]
fn a_request_that_a_void_login_returned_keeps_its_number_in_the_askers_queue() {
    let error = Bytes::from_static(
        b"<iq xmlns='jabber:client' from='juliet@d/r' to='romeo@d/r' id='q' type='error'/>",
    );
    let effects = vec![out(ROMEO, id(JULIET, 0), error)];
    let session = SmId([9; 16]);
    let (user, resource) = (jid("juliet"), "r".into());
    let record = Record::Bind { session, user, resource, at_ms: 1, effects: effects.clone() };
    for spot in [TOLD, UNTOLD] {
        let kept = Record::Kept { stanza: id(session, 0), at_ms: 7, effects: effects.clone() };
        assert_eq!(keep(spot, &record), [(0b01, kept)], "and the login itself is void");
    }
}
