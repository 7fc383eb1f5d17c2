//! What the other node offers after a partition: taken once, or not at all (D7).

use super::*;
use crate::ids::StanzaId;
use crate::record::{Effect, Forward};
use crate::state::Place;
use crate::subscription::{Ask, Subscription};

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";

fn message(id: &str) -> Bytes {
    let text = format!(
        "<message xmlns='jabber:client' from='juliet@example.org/r' to='romeo@example.org' id='{id}'><body>x</body></message>"
    );
    Bytes::from(text)
}

fn stanza(number: u32) -> StanzaId {
    StanzaId { session: SmId([9; 16]), number }
}

/// Node B offers romeo a message from a branch that is void.
fn offered(duo: &mut Duo, number: u32, id: &str) {
    let forward =
        Forward { to: Jid::parse("romeo@example.org").unwrap(), id: stanza(number), stanza: message(id) };
    bring(duo, Record::Kept { stanza: stanza(number), at_ms: 1, effects: vec![Effect::Offer(forward)] });
}

/// A record of node B's log.
fn bring(duo: &mut Duo, record: Record) {
    write(duo, B, &record);
    duo.settle();
}

/// A record of this node's log, which is on its way.
fn write(duo: &mut Duo, node: NodeIx, record: &Record) {
    duo.ends[node.index()] += 1;
    let at = Position { seq: duo.ends[node.index()], inc: 1 };
    let engine = duo.engines[node.index()].as_mut().unwrap();
    engine.state.apply(&mut Place { log: node, at, forwards: 0 }, record);
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    duo.queues[node.peer().index()].push_back((at, Bytes::from(bytes)));
}

fn waiting(duo: &Duo) -> usize {
    duo.state().user(&bare("romeo@example.org")).unwrap().offline.len()
}

#[test]
fn an_offer_is_taken_if_it_is_not_there() {
    let mut duo = Duo::new();
    offered(&mut duo, 4, "a");
    assert_eq!(waiting(&duo), 1);
    assert_eq!(duo.state().undone().count(), 0);
}

#[test]
fn an_offer_that_the_own_branch_took_from_its_client_is_not_taken_again() {
    let mut duo = Duo::new();
    let own = Record::SmIn {
        session: SmId([9; 16]),
        number: 4,
        effects: vec![Effect::Offline {
            user: bare("romeo@example.org"),
            id: stanza(4),
            at_ms: 1,
            open: true,
            due: Default::default(),
            stanza: message("b"),
        }],
    };
    duo.engines[A.index()].as_mut().unwrap().seen().note(&own, 1);
    offered(&mut duo, 4, "resent");
    offered(&mut duo, 7, "b");
    assert_eq!(waiting(&duo), 0, "by its number, and by its names");
    offered(&mut duo, 8, "c");
    assert_eq!(waiting(&duo), 1);
    assert_eq!(duo.state().undone().count(), 0, "each is done");
}

#[test]
fn what_a_void_branch_brought_is_not_brought_again_by_the_valid_one() {
    let mut duo = Duo::new();
    let user = bare("romeo@example.org");
    let kept = Record::Kept {
        stanza: stanza(4),
        at_ms: 1,
        effects: vec![Effect::Offline {
            user,
            id: stanza(4),
            at_ms: 1,
            open: true,
            due: Default::default(),
            stanza: message("a"),
        }],
    };
    duo.ends[A.index()] += 1;
    let at = Position { seq: duo.ends[A.index()], inc: 1 };
    for node in NodeIx::BOTH {
        let engine = duo.engines[node.index()].as_mut().unwrap();
        engine.state.apply(&mut Place { log: A, at, forwards: 0 }, &kept);
    }
    assert_eq!(waiting(&duo), 1);
    offered(&mut duo, 4, "other");
    assert_eq!(waiting(&duo), 1, "romeo has it");
}

/// Node B asks for romeo's sessions what juliet should believe, who was shown another branch of them.
fn asked(duo: &mut Duo, about: &str) {
    bring(duo, question(JULIET, about));
}

fn question(asker: &str, about: &str) -> Record {
    let text = format!("<presence xmlns='jabber:client' from='{asker}' to='{about}' type='probe'/>");
    let forward =
        Forward { to: Jid::parse(about).unwrap(), id: StanzaId::default(), stanza: Bytes::from(text) };
    let effects = vec![Effect::Forward(forward)];
    Record::Kept { stanza: StanzaId::default(), at_ms: 1, effects }
}

#[test]
fn who_is_asked_for_after_a_merge_is_told_as_they_are_now() {
    const ORCHARD: &str = "romeo@example.org/orchard";
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    asked(&mut duo, ORCHARD);
    assert_eq!(presences(&duo.got(juliet)), [format!("unavailable {ORCHARD}")], "she may not see him");
    duo.befriend(romeo, juliet, ["romeo@example.org", "juliet@example.org"]);
    duo.send(romeo, "<presence><show>dnd</show></presence>");
    let _ = (duo.got(romeo), duo.got(juliet));
    asked(&mut duo, ORCHARD);
    let got = duo.got(juliet);
    assert_eq!(presences(&got), [format!("+ {ORCHARD}")]);
    assert!(got[0].contains("<show>dnd</show>"), "{got:?}");
    asked(&mut duo, "romeo@example.org/gone");
    assert_eq!(presences(&duo.got(juliet)), ["unavailable romeo@example.org/gone"]);
    assert_eq!(duo.got(romeo), [""; 0], "and the client is not asked");
}

#[test]
fn directed_presence_that_stands_is_not_taken_back_after_a_merge() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    let juliet = duo.login("juliet@example.org/balcony");
    duo.send(romeo, "<presence to='juliet@example.org'/>");
    duo.got(juliet);
    asked(&mut duo, "romeo@example.org/orchard");
    assert_eq!(presences(&duo.got(juliet)), ["+ romeo@example.org/orchard"]);
}

#[test]
fn presence_is_told_though_the_void_branch_had_another_stanza_of_this_number() {
    let mut duo = Duo::new();
    let juliet = duo.login("juliet@example.org/balcony");
    let romeo = duo.login("romeo@example.org/orchard");
    duo.befriend(romeo, juliet, ["romeo@example.org", "juliet@example.org"]);
    let _ = (duo.got(romeo), duo.got(juliet));
    let number = duo.session("juliet@example.org/balcony").unwrap().inbound + 1;
    let id = StanzaId { session: duo.sm_id("juliet@example.org/balcony"), number };
    let to = duo.sm_id("romeo@example.org/orchard");
    let effects = vec![Effect::Out { to, id, keep: true, stanza: message("a") }];
    bring(&mut duo, Record::Kept { stanza: id, at_ms: 1, effects });
    duo.send(juliet, "<presence><show>xa</show></presence>");
    assert_eq!(presences(&duo.got(romeo)), ["+ juliet@example.org/balcony"]);
}

/// Node B offers what romeo said to his own account in a branch that is void.
fn said(duo: &mut Duo, number: u32, word: String) {
    let forward =
        Forward { to: Jid::parse("romeo@example.org").unwrap(), id: stanza(number), stanza: word.into() };
    bring(duo, Record::Kept { stanza: stanza(number), at_ms: 1, effects: vec![Effect::Offer(forward)] });
}

fn set(item: &str) -> String {
    let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
    format!(
        "<iq xmlns='jabber:client' type='set' from='romeo@example.org' to='romeo@example.org'>{query}</iq>"
    )
}

fn asks(type_: &str) -> String {
    format!(
        "<presence xmlns='jabber:client' from='romeo@example.org' to='juliet@example.org' type='{type_}'/>"
    )
}

#[test]
fn what_a_user_did_to_the_own_roster_in_a_void_branch_is_done_by_the_owner() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    let juliet = duo.login("juliet@example.org/balcony");
    for client in [romeo, juliet] {
        duo.send(client, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        duo.got(client);
    }
    let item = |duo: &Duo| {
        let user = bare("romeo@example.org");
        duo.state().user(&user).unwrap().roster.items.get(&bare("juliet@example.org")).cloned()
    };
    said(&mut duo, 1, set("<item jid='juliet@example.org' name='J'><group>Friends</group></item>"));
    let got = duo.got(romeo).concat();
    assert!(got.contains("name='J'") && got.contains("<group>Friends</group>"), "he is pushed it: {got}");
    said(&mut duo, 2, asks("subscribe"));
    assert!(item(&duo).unwrap().subscription.pending_out());
    assert!(duo.got(juliet).concat().contains("type='subscribe'"), "and she is asked");
    duo.send(juliet, "<presence to='romeo@example.org' type='subscribed'/>");
    assert!(item(&duo).unwrap().subscription.sees());
    assert_eq!(item(&duo).unwrap().name, "J");
    duo.got(romeo);
    said(&mut duo, 3, set("<item jid='juliet@example.org' subscription='remove'/>"));
    assert_eq!(item(&duo), None);
    assert!(duo.got(romeo).concat().contains("subscription='remove'"));
    said(&mut duo, 4, set("<item jid='juliet@example.org' subscription='remove'/>"));
    assert_eq!(duo.got(romeo), [""; 0], "what cannot be done is answered to nobody");
    assert_eq!(duo.state().undone().count(), 0, "each is done");
}

#[test]
fn what_a_user_did_in_both_branches_stands_as_in_the_one_that_goes_on() {
    let mut duo = Duo::new();
    let (user, contact) = (bare("romeo@example.org"), bare("juliet@example.org"));
    let version = Some(crate::state::RosterVersion::default());
    let effects = vec![Effect::Roster { user: user.clone(), contact, item: None, version }];
    let own = Record::SmIn { session: SmId([8; 16]), number: 1, effects };
    duo.engines[A.index()].as_mut().unwrap().seen().note(&own, 1);
    said(&mut duo, 1, set("<item jid='juliet@example.org' name='J'/>"));
    said(&mut duo, 2, asks("subscribe"));
    said(&mut duo, 3, set("<item jid='nurse@example.org' name='N'/>"));
    let roster = &duo.state().user(&user).unwrap().roster;
    assert_eq!(roster.items.keys().cloned().collect::<Vec<_>>(), [bare("nurse@example.org")]);
    assert_eq!(duo.state().undone().count(), 0, "each is done");
}

/// Nobody but a void branch of one's own says anything to an account in that way.
#[test]
fn a_word_that_is_no_offer_changes_no_roster() {
    let mut duo = Duo::new();
    let to = Jid::parse("romeo@example.org").unwrap();
    let word = set("<item jid='juliet@example.org' name='J'/>");
    let effects = vec![Effect::Forward(Forward { to, id: stanza(1), stanza: word.into() })];
    bring(&mut duo, Record::SmIn { session: SmId([9; 16]), number: 1, effects });
    assert!(duo.state().user(&bare("romeo@example.org")).unwrap().roster.items.is_empty());
}

/// Romeo granted in the void branch what juliet asked there, and his answer came before she had asked where she is led.
#[test]
fn who_asks_again_for_what_was_granted_in_a_void_branch_is_answered() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    let juliet = duo.login("juliet@example.org/balcony");
    let (user, contact) = (bare("romeo@example.org"), bare("juliet@example.org"));
    let item = crate::state::Item {
        subscription: crate::subscription::Subscription::From,
        listed: true,
        ..Default::default()
    };
    let number = duo.session("juliet@example.org/balcony").unwrap().inbound + 1;
    let id = StanzaId { session: duo.sm_id("juliet@example.org/balcony"), number };
    let to = duo.sm_id("romeo@example.org/orchard");
    let roster = Effect::Roster { user, contact, item: Some(item), version: None };
    let effects = vec![Effect::Out { to, id, keep: false, stanza: asks("subscribe").into() }, roster];
    bring(&mut duo, Record::Kept { stanza: id, at_ms: 1, effects });
    duo.got(romeo);
    duo.send(juliet, "<presence to='romeo@example.org' type='subscribe'/>");
    let roster = &duo.state().user(&bare("juliet@example.org")).unwrap().roster;
    assert!(roster.subscription(&bare("romeo@example.org")).sees());
}

/// What the branch that goes on took is known by its records, as they are: consent was given beforehand there, and taken back.
#[test]
fn consent_given_beforehand_in_a_void_branch_is_not_given_again_if_it_was_taken_back_since() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    for type_ in ["subscribed", "unsubscribed"] {
        duo.send(romeo, &format!("<presence to='juliet@example.org' type='{type_}'/>"));
    }
    let set_nurse = "<query xmlns='jabber:iq:roster'><item jid='nurse@example.org' name='N'/></query>";
    duo.send(romeo, &format!("<iq type='set' id='s'>{set_nurse}</iq>"));
    let log = std::mem::take(&mut duo.log);
    let seen = duo.engines[A.index()].as_mut().unwrap().seen();
    log.iter().for_each(|record| seen.note(record, 1));
    let words = [
        asks("subscribed"),
        set("<item jid='juliet@example.org' name='J'/>"),
        set("<item jid='nurse@example.org' name='other'/>"),
        asks("subscribed").replace("juliet", "nurse"),
    ];
    for (number, word) in (1..).zip(words) {
        let stamped = crate::state::with_delay(&word.into(), "example.org", 1);
        said(&mut duo, number, String::from_utf8(stamped.to_vec()).unwrap());
    }
    let roster = &duo.state().user(&bare("romeo@example.org")).unwrap().roster;
    let item = |name: &str| {
        let item = &roster.items[&bare(&format!("{name}@example.org"))];
        (item.name.to_string(), item.approved)
    };
    assert_eq!(item("juliet"), ("J".to_owned(), false));
    assert_eq!(item("nurse"), ("N".to_owned(), true), "a name is another thing");
}

/// Romeo's end, and juliet's.
fn ends(duo: &Duo) -> (Subscription, Subscription) {
    (duo.subscription(ROMEO, JULIET), duo.subscription(JULIET, ROMEO))
}

fn agree((one, other): (Subscription, Subscription)) -> bool {
    let told = (other.is_seen(), other.pending_in(), other.sees(), other.pending_out());
    (one.sees(), one.pending_out(), one.is_seen(), one.pending_in()) == told
}

/// Juliet's node asks for romeo's end after a merge, whatever either roster says.
#[test]
fn both_ends_of_a_subscription_agree_after_the_owner_of_one_was_asked() {
    for romeos in Subscription::ALL {
        for juliets in Subscription::ALL {
            let mut duo = Duo::new();
            duo.put(ROMEO, JULIET, romeos);
            duo.put(JULIET, ROMEO, juliets);
            asked(&mut duo, ROMEO);
            let at = format!("{romeos:?} and {juliets:?} became {:?}", ends(&duo));
            assert!(agree(ends(&duo)), "{at}");
            let agreed = agree((romeos, juliets));
            assert!(!agreed || ends(&duo) == (romeos, juliets), "nothing is to be done: {at}");
            assert_eq!(duo.state().undone().count(), 0, "{at}");
        }
    }
}

/// Juliet says something before her node hears what romeo's has found.
fn said_meanwhile(romeos: Subscription, juliets: Subscription, ask: Ask) {
    let mut duo = Duo::new();
    let juliet = duo.login("juliet@example.org/balcony");
    duo.put(ROMEO, JULIET, romeos);
    duo.put(JULIET, ROMEO, juliets);
    duo.hold(true);
    write(&mut duo, B, &question(JULIET, ROMEO));
    duo.deliver(A);
    duo.send(juliet, &format!("<presence to='{ROMEO}' type='{}'/>", ask.name()));
    duo.hold(false);
    let (one, other) = ends(&duo);
    let at = format!("{romeos:?} and {juliets:?}, {ask:?}: {one:?} and {other:?}");
    assert!(agree((one, other)), "{at}");
    let stands = match ask {
        Ask::Subscribe => other.sees() || other.pending_out(),
        Ask::Unsubscribe => !other.sees() && !other.pending_out(),
        // She lets him see her if he asks.
        Ask::Subscribed => one.sees() || !romeos.pending_out(),
        // He may ask anew.
        Ask::Unsubscribed => !other.is_seen(),
    };
    assert!(stands, "{at}");
    assert_eq!(duo.state().undone().count(), 0, "{at}");
}

#[test]
fn what_a_contact_says_meanwhile_is_not_undone() {
    for romeos in Subscription::ALL {
        for juliets in Subscription::ALL {
            Ask::ALL.into_iter().for_each(|ask| said_meanwhile(romeos, juliets, ask));
        }
    }
}

/// Juliet asked romeo in a branch that is void: the word to her own account.
fn offered_word(number: u32) -> Record {
    let word = format!("<presence xmlns='jabber:client' from='{JULIET}' to='{ROMEO}' type='subscribe'/>");
    let forward = Forward { to: Jid::parse(JULIET).unwrap(), id: stanza(number), stanza: word.into() };
    Record::Kept { stanza: stanza(number), at_ms: 1, effects: vec![Effect::Offer(forward)] }
}

/// Each node yielded one group. Juliet asked romeo at his: so his roster says, and her node is offered it. That one asks for
/// romeo's end, and has not heard of it yet.
#[test]
fn a_question_waits_for_what_is_offered_by_the_node_that_is_asked() {
    for dies in [None, Some(A), Some(B)] {
        let mut duo = Duo::new();
        duo.put(ROMEO, JULIET, Subscription::NoneIn);
        duo.hold(true);
        write(&mut duo, A, &offered_word(9));
        for _ in 0..2 {
            write(&mut duo, B, &question(JULIET, ROMEO));
        }
        duo.deliver(A);
        assert_eq!(ends(&duo), (Subscription::NoneIn, Subscription::None), "her request stands");
        assert_eq!(duo.state().undone().count(), 3, "the offer, and what waits for it");
        match dies {
            // It starts anew, or takes over and does the offer itself.
            Some(A) => duo.rebuild(A),
            Some(B) => duo.lose(B),
            None => {}
        }
        duo.hold(false);
        assert_eq!(ends(&duo), (Subscription::NoneIn, Subscription::NoneOut), "{dies:?}");
        assert_eq!(duo.state().undone().count(), 0, "{dies:?}");
    }
}

/// Who comes to serve does what is undone of one session in the order of its numbers: the offer comes behind the question.
#[test]
fn a_question_is_answered_after_the_offer_that_it_stands_behind() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    duo.put(ROMEO, JULIET, Subscription::NoneIn);
    duo.hold(true);
    duo.input(B, Input::Serving { group: B, on: false });
    let earlier =
        Forward { to: Jid::parse(ROMEO).unwrap(), id: stanza(4), stanza: message("before the cut") };
    let effects = vec![Effect::Forward(earlier)];
    write(&mut duo, B, &Record::Kept { stanza: stanza(4), at_ms: 1, effects });
    write(&mut duo, A, &offered_word(9));
    write(&mut duo, A, &question(ROMEO, JULIET));
    duo.deliver(B);
    duo.input(B, Input::Serving { group: B, on: true });
    duo.hold(false);
    assert_eq!(ends(&duo), (Subscription::NoneIn, Subscription::NoneOut));
    assert_eq!(presences(&duo.got(romeo)), [""; 0], "her request is not taken back, nor made anew");
    assert_eq!(duo.state().undone().count(), 0);
}

/// Romeo asked juliet in a void branch, she granted it, and he has removed her since where he is led.
#[test]
fn whose_end_is_left_over_is_told_as_of_any_other_end() {
    let mut duo = Duo::new();
    let juliet = duo.login("juliet@example.org/balcony");
    let romeo = duo.login("romeo@example.org/orchard");
    duo.put("juliet@example.org", "romeo@example.org", Subscription::From);
    asked(&mut duo, "romeo@example.org");
    let got = duo.got(juliet);
    assert_eq!(presences(&got), ["unsubscribe romeo@example.org"]);
    let push = got.iter().find(|s| s.contains("jabber:iq:roster"));
    assert!(push.is_some_and(|s| s.contains("jid='romeo@example.org' subscription='none'")), "{got:?}");
    duo.got(romeo);
    asked(&mut duo, "romeo@example.org");
    assert_eq!((duo.got(juliet), duo.got(romeo)), (Vec::new(), Vec::new()), "they agree");
}

/// Juliet granted it to romeo in a void branch; where he is led his account was removed. Or hers was, after her node asked.
#[test]
fn nobody_inherits_a_subscription_by_the_name_of_an_account_that_is_gone() {
    for (gone, stays) in [(ROMEO, JULIET), (JULIET, ROMEO)] {
        for end in Subscription::ALL {
            let mut duo = Duo::new();
            duo.input(if gone == ROMEO { A } else { B }, Input::UserRemove { user: bare(gone) });
            duo.settle();
            duo.put(stays, gone, end);
            asked(&mut duo, ROMEO);
            // What one still asks the other is for whoever has the name next to grant.
            let left = if end.pending_out() { Subscription::NoneOut } else { Subscription::None };
            assert_eq!(duo.subscription(stays, gone), left, "{end:?} of {stays}");
            assert_eq!(duo.state().undone().count(), 0);
        }
    }
}

/// Romeo asked juliet in a void branch, and she granted it; where he is led somebody else has taken the last place.
#[test]
fn what_finds_no_room_in_a_roster_is_told_and_the_other_end_agrees() {
    let mut duo = Duo::with(Limits { roster_items: 1, ..Limits::DEFAULT });
    let [romeo, juliet] = ["romeo@example.org", "juliet@example.org"];
    duo.put(juliet, romeo, Subscription::From);
    said(&mut duo, 1, set("<item jid='nurse@example.org' name='N'/>"));
    said(&mut duo, 2, set("<item jid='nurse@example.org' name='Nurse'/>"));
    said(&mut duo, 3, asks("unsubscribed"));
    said(&mut duo, 4, set("<item jid='juliet@example.org' subscription='remove'/>"));
    assert_eq!(duo.no_room, [], "a change of who is there, and what lists nobody, needs no room");
    said(&mut duo, 5, asks("subscribe"));
    assert_eq!(std::mem::take(&mut duo.no_room), [(bare(romeo), bare(juliet))]);
    said(&mut duo, 6, set("<item jid='juliet@example.org' name='J'/>"));
    assert_eq!(duo.no_room, [(bare(romeo), bare(juliet))]);
    asked(&mut duo, romeo);
    let ends = (duo.subscription(romeo, juliet), duo.subscription(juliet, romeo));
    assert_eq!(ends, (Subscription::None, Subscription::None));
}
