//! What juliet, who is lost, did to her roster in the tail.

use super::*;
use crate::ids::Epoch;
use crate::state::{Item, RosterVersion};
use crate::subscription::{Ask, Subscription};

const NS: &str = "xmlns='jabber:client'";

fn roster(user: &str, contact: &str, item: Option<Item>) -> Effect {
    Effect::Roster { user: jid(user), contact: jid(contact), item, version: Some(RosterVersion::default()) }
}

fn named(name: &str, groups: &[&str]) -> Item {
    let groups = groups.iter().map(|group| (*group).into()).collect();
    Item { name: name.into(), groups, listed: true, ..Item::default() }
}

fn ask(ask: Ask, from: &str, to: &str) -> Bytes {
    Bytes::from(format!("<presence {NS} from='{from}@d' to='{to}@d' type='{}'/>", ask.name()))
}

fn to_bare(user: &str, number: u32, stanza: Bytes) -> Forward {
    Forward { to: (*jid(user)).clone(), id: id(JULIET, number), stanza }
}

/// With the time that it was said at.
fn at_7(word: &str) -> String {
    let stamp = "<delay xmlns='urn:xmpp:delay' from='d' stamp='1970-01-01T00:00:00.007Z'/>";
    match word.strip_suffix("/>") {
        Some(empty) => format!("{empty}>{stamp}</presence>"),
        None => word.replace("</iq>", &format!("{stamp}</iq>")),
    }
}

/// By a roster set.
fn called(name: &str) -> Vec<Effect> {
    let result = "<iq xmlns='jabber:client' type='result' id='s' to='juliet@d/r'/>";
    vec![roster("juliet", "nurse", Some(named(name, &[]))), out(JULIET, id(JULIET, 9), result.into())]
}

/// Juliet says how she and the nurse see each other.
fn to_nurse(said_: Ask) -> Record {
    let stanza = ask(said_, "juliet", "nurse");
    let forward = Forward { to: (*jid("nurse")).clone(), id: id(JULIET, 9), stanza };
    said(JULIET, 9, vec![Effect::Forward(forward)])
}

/// For romeo, what juliet's roster says of him.
fn asks_for_the_end(forward: &Forward) -> bool {
    let probe = format!("<presence {NS} from='romeo@d' to='juliet@d' type='probe'/>");
    forward.to == *jid("juliet") && forward.stanza == probe
}

/// What juliet's node offers to her owner of a record.
fn offered(state: &State, spot: Spot, record: &Record) -> Vec<String> {
    let mut new = place(3);
    let left = merge().keep(state, spot, place(5), &mut new, record);
    let effects: Vec<Effect> = left.iter().flat_map(|(_, record)| record.effects()).cloned().collect();
    assert_eq!(new.forwards as usize, effects.len(), "each offer has its place");
    let text = |effect: &Effect| match effect {
        Effect::Offer(f) if f.to == *jid("juliet") && f.id == id(JULIET, 9) => {
            Some(String::from_utf8(f.stanza.to_vec()).unwrap())
        }
        Effect::Forward(f) if asks_for_the_end(f) => None,
        other => panic!("{other:?}"),
    };
    effects.iter().filter_map(text).collect()
}

#[test]
fn a_void_roster_change_that_the_user_was_told_of_is_said_again_to_the_owner() {
    let mut state = both_led();
    let set = |item: &str| {
        format!(
            "<iq {NS} type='set' from='juliet@d' to='juliet@d'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
        )
    };
    let steps = [
        (
            Some(named("Nanny", &["Staff"])),
            set("<item jid='nurse@d' name='Nanny'><group>Staff</group></item>"),
        ),
        (
            Some(named("Nurse", &["Staff"])),
            set("<item jid='nurse@d' name='Nurse'><group>Staff</group></item>"),
        ),
        (
            Some(Item { approved: true, ..named("Nurse", &["Staff"]) }),
            format!("<presence {NS} from='juliet@d' to='nurse@d' type='subscribed'/>"),
        ),
        (
            Some(named("Nurse", &["Staff"])),
            format!("<presence {NS} from='juliet@d' to='nurse@d' type='unsubscribed'/>"),
        ),
        (None, set("<item jid='nurse@d' subscription='remove'/>")),
        (Some(named("", &[])), set("<item jid='nurse@d'/>")),
    ];
    for (item, word) in steps {
        let record = said(JULIET, 9, vec![roster("juliet", "nurse", item)]);
        assert_eq!(offered(&state, UNTOLD, &record), [""; 0], "the client says it again itself");
        assert_eq!(offered(&state, TOLD, &record), [at_7(&word)]);
        state.apply(&mut place(5), &record);
    }
    let record = said(JULIET, 9, vec![roster("juliet", "nurse", Some(named("", &[])))]);
    assert_eq!(offered(&state, TOLD, &record), [at_7(&set("<item jid='nurse@d'/>"))], "said once more");
}

/// Somebody who knows the end already would go through all of it once more.
#[test]
fn of_what_a_user_said_of_one_thing_only_the_last_is_said_again() {
    let mut state = both_led();
    let call = |name| said(JULIET, 9, called(name));
    let gone = said(JULIET, 9, vec![roster("juliet", "nurse", None)]);
    let tail = [
        (to_nurse(Ask::Subscribe), 0),
        (call("a"), 0),
        (to_nurse(Ask::Unsubscribe), 1),
        (call("b"), 0),
        (gone, 0),
        (call("c"), 1),
        (to_nurse(Ask::Subscribed), 1),
    ];
    let mut merge = merge();
    tail.iter().for_each(|(record, _)| merge.foresee(&state, TOLD, record));
    // What a removal ends is said in words of its own.
    for (seq, (record, wanted)) in (5..).zip(&tail) {
        let left = merge.keep(&state, TOLD, place(seq), &mut place(seq), record);
        let offers = left.iter().flat_map(|(_, record)| record.effects()).count();
        assert_eq!(offers, *wanted, "{record:?}");
        state.apply(&mut place(seq), record);
    }
}

/// It is said again by nobody. So it is if the speaker's group came to be another since, which was led alone then.
#[test]
fn a_word_that_its_speaker_was_not_told_of_takes_the_place_of_none() {
    let words = [Ask::Subscribe, Ask::Unsubscribe].map(to_nurse);
    let of_romeos_group = Spot { released: [true, false], ..TOLD };
    let hand_over = Record::HandOver {
        user: jid("juliet"),
        to: NodeIx::A,
        epoch: Epoch { term: 6, moves: 1 },
        applied_peer: Position::default(),
        counters: Vec::new(),
    };
    for (later, moves, offers) in
        [(TOLD, false, 0), (UNTOLD, false, 1), (of_romeos_group, false, 1), (of_romeos_group, true, 1)]
    {
        let (state, mut ended, mut merge) = (both_led(), both_led(), merge());
        let moves = moves.then_some(&hand_over);
        moves.into_iter().for_each(|record| ended.apply(&mut place(7), record));
        merge.foresee(&ended, TOLD, &words[0]);
        merge.foresee(&ended, later, &words[1]);
        moves.into_iter().for_each(|record| merge.foresee(&ended, TOLD, record));
        let left = merge.keep(&state, TOLD, place(5), &mut place(5), &words[0]);
        let left = left.iter().flat_map(|(_, record)| record.effects()).count();
        assert_eq!(left, offers, "{later:?} {moves:?}");
    }
}

/// The speaker's owner passes it on: the contact must not have it from two sides, nor without the speaker's own roster.
#[test]
fn a_word_on_subscriptions_goes_to_its_speaker_and_not_to_the_contact() {
    let mut state = both_led();
    let asks = Item { subscription: Subscription::NoneOut, listed: true, ..Item::default() };
    for contact in ["nurse", "romeo"] {
        let stanza = ask(Ask::Subscribe, "juliet", contact);
        let forward = Effect::Forward(Forward { to: (*jid(contact)).clone(), id: id(JULIET, 9), stanza });
        let record = said(JULIET, 9, vec![roster("juliet", contact, Some(asks.clone())), forward.clone()]);
        let word = String::from_utf8(ask(Ask::Subscribe, "juliet", contact).to_vec()).unwrap();
        assert_eq!(offered(&state, TOLD, &record), [at_7(&word)]);
        state.apply(&mut place(5), &record);
        assert_eq!(offered(&state, TOLD, &said(JULIET, 9, vec![forward])), [at_7(&word)], "asked once more");
    }
}

/// Romeo, who is led here on, has answered what juliet asked: her own roster does not know of it yet.
#[test]
fn what_the_contact_has_done_already_does_not_end_what_is_said_again() {
    let mut state = both_led();
    let stanza = ask(Ask::Subscribe, "juliet", "romeo");
    let forward = Effect::Forward(Forward { to: (*jid("romeo")).clone(), id: id(JULIET, 9), stanza });
    let record = said(JULIET, 9, vec![forward]);
    let (mut merge, mut new) = (merge(), place(3));
    let left = merge.keep(&state, TOLD, place(5), &mut new, &record);
    assert_eq!(left.len(), 2, "the word, and a question: {left:?}");
    state.apply(&mut place(5), &record);
    let was = RecordId { log: NodeIx::A, at: Position { seq: 5, inc: 1 }, index: 0 };
    let effects = vec![out(ROMEO, id(JULIET, 9), ask(Ask::Subscribe, "juliet", "romeo"))];
    let done = Record::Done { forward: was, effects: effects.clone() };
    let left = merge.keep(&state, TOLD, place(5), &mut new, &done);
    assert_eq!(left, [(0b01, Record::Kept { stanza: id(JULIET, 9), at_ms: 7, effects })]);
}

#[test]
fn a_removal_is_said_again_with_what_it_ends() {
    let mut state = both_led();
    let both = Item { subscription: Subscription::Both, listed: true, ..Item::default() };
    state.apply(&mut place(2), &said(JULIET, 8, vec![roster("juliet", "nurse", Some(both))]));
    let to = |ask_| {
        let stanza = ask(ask_, "juliet", "nurse");
        Effect::Forward(Forward { to: (*jid("nurse")).clone(), id: id(JULIET, 9), stanza })
    };
    let effects = vec![roster("juliet", "nurse", None), to(Ask::Unsubscribed), to(Ask::Unsubscribe)];
    let offered = offered(&state, TOLD, &said(JULIET, 9, effects));
    assert_eq!(offered.len(), 3, "{offered:?}");
    assert!(offered[2].contains("subscription='remove'"), "{offered:?}");
}

#[test]
fn the_roster_of_who_is_led_here_on_stays_and_is_not_said_again() {
    let record = said(ROMEO, 9, vec![roster("romeo", "nurse", Some(named("Nanny", &[])))]);
    assert_eq!(keep(TOLD, &record), [(0b01, record.clone())]);
}

#[test]
fn what_is_said_again_stays_so_if_the_tail_is_cut_once_more() {
    let stanza = ask(Ask::Subscribe, "juliet", "nurse");
    let record = Record::Kept {
        stanza: id(JULIET, 9),
        at_ms: 7,
        effects: vec![Effect::Offer(to_bare("juliet", 9, stanza))],
    };
    assert_eq!(keep(TOLD, &record), [(0, record.clone())]);
}

#[test]
fn of_two_words_on_the_same_contact_the_later_stands() {
    let word = |contact, at_ms| {
        let mut forward = to_bare("juliet", 9, ask(Ask::Subscribe, "juliet", contact));
        crate::merge::words::stamped(&mut forward, &jid("juliet"), at_ms);
        forward
    };
    let mut seen = Seen::default();
    for at_ms in [9, 20, 15] {
        seen.note(&said(SmId([8; 16]), 1, vec![roster("juliet", "nurse", None)]), at_ms);
    }
    assert!(seen.has(&word("nurse", 19)) && seen.has(&word("nurse", 20)));
    assert!(!seen.has(&word("nurse", 21)), "it was said later");
    assert!(!seen.has(&word("romeo", 19)), "another contact");
    let mut seen = Seen::default();
    let stanza = ask(Ask::Subscribed, "juliet", "nurse");
    let granted = Effect::Forward(Forward { to: (*jid("nurse")).clone(), id: id(JULIET, 1), stanza });
    let effects = vec![roster("juliet", "nurse", Some(named("", &[]))), granted];
    seen.note(&said(SmId([8; 16]), 1, effects), 20);
    assert!(!seen.has(&word("nurse", 19)), "to see somebody is another thing than to be seen");
    let mut seen = Seen::default();
    let by_contact = vec![roster("juliet", "nurse", None)];
    let forward = RecordId { log: NodeIx::B, at: Position { seq: 4, inc: 1 }, index: 0 };
    seen.note(&Record::Done { forward, effects: by_contact }, 20);
    assert!(!seen.has(&word("nurse", 19)), "what a contact did is not what the user did");
}

/// Of a request that is refused clients see no change of the roster: the contact was never in it.
#[test]
fn a_request_that_is_refused_is_no_removal() {
    let mut refused = roster("juliet", "nurse", None);
    if let Effect::Roster { version, .. } = &mut refused {
        *version = None;
    }
    assert_eq!(crate::merge::words::done(&[refused]), []);
    let removed = roster("juliet", "nurse", None);
    assert_eq!(crate::merge::words::done(&[removed]), [(jid("juliet"), jid("nurse"), Word::Remove)]);
}

/// Consent that nobody asked for yet is a word on who sees the user, and none on the name.
#[test]
fn consent_given_beforehand_is_undone_by_a_later_word_and_leaves_nothing() {
    let word = |stanza, at_ms| {
        let mut forward = to_bare("juliet", 9, stanza);
        crate::merge::words::stamped(&mut forward, &jid("juliet"), at_ms);
        forward
    };
    let consent = |at_ms| word(ask(Ask::Subscribed, "juliet", "nurse"), at_ms);
    let query = "<query xmlns='jabber:iq:roster'><item jid='nurse@d' name='N'/></query>";
    let set = || Bytes::from(format!("<iq {NS} type='set' from='juliet@d' to='juliet@d'>{query}</iq>"));
    let mut seen = Seen::default();
    let taken_back = vec![roster("juliet", "nurse", Some(named("", &[])))];
    seen.note(&said(SmId([8; 16]), 1, taken_back), 20);
    assert!(seen.has(&consent(19)), "it was taken back since");
    assert!(!seen.has(&consent(21)), "it was given since");
    assert!(!seen.has(&word(set(), 19)), "the name is another thing");
    let mut seen = Seen::default();
    seen.note(&said(SmId([8; 16]), 1, called("n")), 20);
    assert!(!seen.has(&consent(19)), "so it is the other way round");
    assert!(seen.has(&word(set(), 19)));
}

/// Romeo, who is led here on, has what juliet said in his roster; she may have said something else where she is led.
#[test]
fn behind_the_last_of_two_users_the_contact_asks_for_what_the_others_roster_says() {
    let word = |contact: &str| {
        let stanza = ask(Ask::Subscribe, "juliet", contact);
        let forward = Forward { to: (*jid(contact)).clone(), id: id(JULIET, 9), stanza };
        let asks = Item { subscription: Subscription::NoneOut, listed: true, ..Item::default() };
        said(JULIET, 9, vec![roster("juliet", contact, Some(asks)), Effect::Forward(forward)])
    };
    let was = RecordId { log: NodeIx::A, at: Position { seq: 5, inc: 1 }, index: 0 };
    let heard = |contact: &str| {
        let changed = Some(named("", &[])).filter(|_| contact == "romeo");
        let effects = changed.map(|item| roster("romeo", "juliet", Some(item)));
        Record::Done { forward: was, effects: effects.into_iter().collect() }
    };
    let other = said(ROMEO, 2, vec![roster("romeo", "nurse", Some(named("", &[])))]);
    let own = said(ROMEO, 3, vec![roster("romeo", "juliet", Some(named("J", &[])))]);
    let rest = [other, own];
    for (spot, contact, wanted) in
        [(TOLD, "romeo", [0, 0, 0, 1]), (UNTOLD, "romeo", [0, 0, 0, 1]), (TOLD, "nurse", [0; 4])]
    {
        let tail: Vec<Record> =
            [word(contact), heard(contact)].into_iter().chain(rest.iter().cloned()).collect();
        let (mut state, mut merge) = (both_led(), merge());
        tail.iter().for_each(|record| merge.foresee(&state, spot, record));
        for (seq, (record, wanted)) in (5..).zip(tail.iter().zip(wanted)) {
            let mut new = place(seq);
            let left = merge.keep(&state, spot, place(seq), &mut new, record);
            let effects = || left.iter().flat_map(|(_, record)| record.effects());
            let asked = effects().filter(|e| matches!(e, Effect::Forward(f) if asks_for_the_end(f)));
            assert_eq!(asked.count(), wanted, "{record:?}");
            let named = effects().filter(|e| matches!(e, Effect::Forward(_) | Effect::Offer(_)));
            assert_eq!(new.forwards as usize, named.count(), "each has its place");
            state.apply(&mut place(seq), record);
        }
    }
}

/// The word may stand in front of the cut, or behind it, and the last of what the tail says of the two is the word itself.
#[test]
fn a_question_stays_one_if_the_tail_is_cut_once_more_and_is_asked_behind_what_is_offered_again() {
    let word = Effect::Offer(to_bare("juliet", 9, ask(Ask::Subscribe, "juliet", "romeo")));
    let probe = Bytes::from(format!("<presence {NS} from='romeo@d' to='juliet@d' type='probe'/>"));
    let question = Forward { to: (*jid("juliet")).clone(), id: StanzaId::default(), stanza: probe };
    let effects = [roster("romeo", "juliet", Some(named("", &[]))), word, Effect::Forward(question)];
    let tail = effects.map(|effect| Record::Kept { stanza: id(JULIET, 9), at_ms: 7, effects: vec![effect] });
    let (state, mut merge) = (both_led(), merge());
    tail.iter().for_each(|record| merge.foresee(&state, TOLD, record));
    let asked = (5..).zip(&tail).map(|(seq, record)| {
        let left = merge.keep(&state, TOLD, place(seq), &mut place(seq), record);
        let effects = left.iter().flat_map(|(_, record)| record.effects());
        effects.filter(|e| matches!(e, Effect::Forward(f) if asks_for_the_end(f))).count()
    });
    assert_eq!(asked.collect::<Vec<usize>>(), [0, 1, 1]);
}
