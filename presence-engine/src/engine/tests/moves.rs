//! Presence across failovers, hand-overs, resumes and the hold (D2, D11, D14): no flicker, no repeat, nothing missed.

use super::{A, B, Client, Duo, Input, presences};

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";
const ORCHARD: &str = "romeo@example.org/orchard";
const BALCONY: &str = "juliet@example.org/balcony";

fn friends() -> (Duo, Client, Client) {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login(BALCONY);
    duo.befriend(romeo, juliet, [ROMEO, JULIET]);
    (duo, romeo, juliet)
}

#[test]
fn a_takeover_shows_contacts_nothing_and_the_resumed_session_nothing_new() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(romeo, ORCHARD);
    let (id, h) = (duo.sm_id(ORCHARD), duo.session(ORCHARD).unwrap().sent());
    duo.kill(A);
    assert!(duo.got(juliet).is_empty(), "no flicker while the session waits");
    let (romeo, told) = duo.resume(id, ROMEO, h);
    assert!(told.is_empty(), "{told:?}");
    assert!(duo.got(juliet).is_empty(), "no repeat when it is back");
    duo.send(juliet, "<presence><show>away</show></presence>");
    assert_eq!(presences(&duo.got(romeo)), ["+ juliet@example.org/balcony"], "the subscription lives on");
    duo.send(romeo, "<presence><show>dnd</show></presence>");
    assert_eq!(presences(&duo.got(juliet)).first().unwrap(), "+ juliet@example.org/balcony");
}

#[test]
fn a_hand_over_shows_contacts_nothing() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(romeo, ORCHARD);
    let (id, h) = (duo.sm_id(ORCHARD), duo.session(ORCHARD).unwrap().sent());
    duo.hand_over(ROMEO);
    let (romeo, told) = duo.resume(id, ROMEO, h);
    assert!(told.is_empty() && duo.got(juliet).is_empty());
    duo.send(romeo, "<presence><show>dnd</show></presence>");
    assert_eq!(presences(&duo.got(juliet)), ["+ romeo@example.org/orchard"]);
}

#[test]
fn a_resumed_session_is_told_the_present_and_not_the_past() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(juliet, BALCONY);
    let (id, h) = (duo.sm_id(BALCONY), duo.session(BALCONY).unwrap().sent());
    // One change is on its way when the stream dies, two more come while it is away, with a message in between.
    duo.send(romeo, "<presence><show>away</show></presence>");
    duo.drop_tcp(juliet);
    duo.send(romeo, "<presence><show>dnd</show></presence>");
    duo.send(romeo, "<message to='juliet@example.org' type='chat'><body>hi</body></message>");
    duo.send(romeo, "<presence><show>xa</show></presence>");
    let (juliet, told) = duo.resume(id, JULIET, h);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("<body>hi</body>"), "{told:?}");
    assert!(told[1].contains("<show>xa</show>") && told[1].contains("to='juliet@example.org'"), "{told:?}");
    // The numbers hold: both are counted, and what is acknowledged is not told again.
    let sent = duo.session(BALCONY).unwrap().sent();
    assert_eq!(sent, h + 2);
    duo.ack(juliet, BALCONY);
    duo.drop_tcp(juliet);
    let (_, told) = duo.resume(id, JULIET, sent);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn what_was_told_on_resuming_and_lost_again_is_told_again() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(juliet, BALCONY);
    let (id, h) = (duo.sm_id(BALCONY), duo.session(BALCONY).unwrap().sent());
    duo.drop_tcp(juliet);
    duo.close(romeo);
    for node in [None, Some(B)] {
        if let Some(node) = node {
            duo.kill(node);
        }
        let (juliet, told) = duo.resume(id, JULIET, h);
        assert_eq!(presences(&told), ["unavailable romeo@example.org/orchard"]);
        duo.drop_tcp(juliet);
    }
}

#[test]
fn a_resumed_session_is_told_what_was_said_at_the_parting() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(juliet, BALCONY);
    let (id, h) = (duo.sm_id(BALCONY), duo.session(BALCONY).unwrap().sent());
    duo.drop_tcp(juliet);
    duo.send(romeo, "<presence type='unavailable'><status>Asleep</status></presence>");
    // Nobody is told this one, nor is she.
    duo.send(romeo, "<presence type='unavailable'><status>Still asleep</status></presence>");
    let (_, told) = duo.resume(id, JULIET, h);
    assert_eq!(presences(&told), ["unavailable romeo@example.org/orchard"]);
    assert!(told[0].contains("<status>Asleep</status>"), "{told:?}");
}

#[test]
fn whose_subscription_ended_meanwhile_is_not_shown_on_resuming() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(juliet, BALCONY);
    let (id, h) = (duo.sm_id(BALCONY), duo.session(BALCONY).unwrap().sent());
    duo.drop_tcp(juliet);
    duo.send(romeo, "<presence to='juliet@example.org' type='unsubscribed'/>");
    let (_, told) = duo.resume(id, JULIET, h);
    let mut told = presences(&told);
    told.sort();
    assert_eq!(told, ["unavailable romeo@example.org/orchard", "unsubscribed romeo@example.org"]);
}

#[test]
fn the_hold_ends_with_exactly_one_unavailable() {
    for other_died in [false, true] {
        let (mut duo, romeo, juliet) = friends();
        duo.drop_tcp(romeo);
        duo.after(299_000);
        assert!(duo.got(juliet).is_empty());
        if other_died {
            // The session's owner dies in the hold: the hold begins anew nowhere, and nothing is said twice.
            duo.kill(A);
            assert!(duo.got(juliet).is_empty());
        }
        duo.after(2_000);
        duo.after(300_000);
        assert_eq!(presences(&duo.got(juliet)), ["unavailable romeo@example.org/orchard"]);
    }
}

#[test]
fn a_new_binding_of_the_resource_within_the_hold_suppresses_the_unavailable() {
    let (mut duo, romeo, juliet) = friends();
    duo.drop_tcp(romeo);
    duo.after(10_000);
    let romeo = duo.bind_sm(ORCHARD);
    assert!(duo.got(juliet).is_empty(), "the old session ended, and nobody was told");
    duo.send(romeo, "<presence><show>away</show></presence>");
    assert_eq!(presences(&duo.got(juliet)), ["+ romeo@example.org/orchard"]);
    // The same, and the new session ends without ever being available: the contacts are not left in error.
    duo.drop_tcp(romeo);
    let romeo = duo.bind(ORCHARD);
    duo.close(romeo);
    assert_eq!(presences(&duo.got(juliet)), ["unavailable romeo@example.org/orchard"]);
}

#[test]
fn a_new_binding_that_never_sends_presence_lapses() {
    let (mut duo, romeo, juliet) = friends();
    duo.drop_tcp(romeo);
    let _romeo = duo.bind_sm(ORCHARD);
    duo.after(299_000);
    assert!(duo.got(juliet).is_empty());
    duo.after(2_000);
    assert_eq!(presences(&duo.got(juliet)), ["unavailable romeo@example.org/orchard"]);
    duo.after(300_000);
    assert!(duo.got(juliet).is_empty());
}

/// The clock of the node that takes over is two hours ahead since its start, or nobody was there for two hours: whoever was waited for
/// then is waited for once more. The node that has seen it wait ends it in time.
#[test]
fn a_session_whose_time_is_over_at_first_sight_is_waited_for_from_there_on() {
    for starts in [true, false] {
        let (mut duo, romeo, _) = friends();
        duo.drop_tcp(romeo);
        duo.after(1_000);
        if starts {
            duo.engines[B.index()].as_mut().unwrap().waiting_since.clear();
        }
        duo.now_ms += 7_200_000;
        duo.lose(A);
        duo.input(B, Input::Tick);
        assert_eq!(duo.session(ORCHARD).is_some(), starts);
        duo.after(299_000);
        assert_eq!(duo.session(ORCHARD).is_some(), starts);
        duo.after(2_000);
        assert!(duo.session(ORCHARD).is_none());
    }
}

/// What the old session left bears no stamp before that of what waits already, which another clock may have given; the wait of
/// the new one is no longer for it.
#[test]
fn a_binding_whose_time_is_still_to_come_lapses_as_soon() {
    let (mut duo, romeo, juliet) = friends();
    let phone = duo.login("romeo@example.org/phone");
    let message = "<message to='romeo@example.org' type='chat'><body>hi</body></message>";
    duo.send(juliet, message);
    duo.ack(romeo, ORCHARD);
    // It waits for the phone alone.
    duo.close(phone);
    duo.now_ms -= 12 * 3_600_000;
    duo.send(juliet, message);
    duo.drop_tcp(romeo);
    let _romeo = duo.bind_sm(ORCHARD);
    assert_eq!(duo.session(ORCHARD).unwrap().bound_ms, duo.now_ms + 12 * 3_600_000);
    duo.got(juliet);
    duo.after(1_000);
    duo.after(298_000);
    assert!(duo.got(juliet).is_empty());
    duo.after(3_000);
    assert_eq!(presences(&duo.got(juliet)), ["unavailable romeo@example.org/orchard"]);
    duo.after(12 * 3_600_000);
    duo.after(301_000);
    assert!(duo.got(juliet).is_empty());
}

#[test]
fn presence_that_was_on_its_way_when_a_node_died_arrives() {
    let (mut duo, romeo, juliet) = friends();
    duo.ack(juliet, BALCONY);
    let (id, h) = (duo.sm_id(BALCONY), duo.session(BALCONY).unwrap().sent());
    // Romeo's change is in the log of A when B dies without having told Juliet.
    duo.hold(true);
    duo.send(romeo, "<presence><show>away</show></presence>");
    duo.lose(B);
    duo.hold(false);
    let (_, told) = duo.resume(id, JULIET, h);
    assert!(told.len() == 1 && told[0].contains("<show>away</show>"), "{told:?}");
}

/// D11: every field of a session is there on the node that takes over. Whoever adds a field must name it here.
#[test]
fn every_field_of_a_session_is_on_both_nodes_after_every_input() {
    // `Duo` compares the whole states of both nodes after each input; here each field gets a value that is not its first.
    let (mut duo, romeo, juliet) = friends();
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    duo.send(romeo, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    duo.send(romeo, "<presence to='nurse@example.org'/>");
    duo.send(romeo, "<presence><priority>7</priority></presence>");
    duo.ack(romeo, ORCHARD);
    duo.send(juliet, "<message to='romeo@example.org' type='chat'><body>hi</body></message>");
    duo.drop_tcp(romeo);
    duo.send(juliet, "<presence><show>away</show></presence>");
    duo.know_tokens(true);
    let session = duo.sm_id(ORCHARD);
    duo.input(A, crate::engine::Input::PeerParked { session, on: false, token: 4 });
    let before = duo.session(ORCHARD).unwrap().clone();
    let crate::state::JsmSession {
        user,
        resource,
        inbound,
        enabled_at,
        resume_ms,
        dual,
        acked,
        out,
        out_stanzas,
        out_bytes,
        missed,
        bound_ms,
        priority,
        presence,
        visible,
        directed,
        interested,
        carbons,
        detached_ms,
        uncertain,
        streams,
        token,
        early,
    } = before.clone();
    assert!(user.as_str() == ROMEO && resource == "orchard" && inbound > 0 && acked > 0);
    assert!(
        enabled_at.is_some()
            && resume_ms == 300_000
            && dual
            && out.len() == 1
            && out_stanzas == 1
            && out_bytes > 0
    );
    assert_eq!(missed.iter().map(|jid| jid.as_str()).collect::<Vec<_>>(), [BALCONY]);
    assert!(bound_ms > 0 && priority == Some(7) && presence.starts_with(b"<presence") && visible);
    assert_eq!(directed.iter().map(|jid| jid.as_str()).collect::<Vec<_>>(), ["nurse@example.org"]);
    assert!(
        interested
            && carbons
            && detached_ms.is_some()
            && uncertain.is_none()
            && streams == 0
            && token == 4
            && early.is_empty()
    );
    duo.kill(A);
    assert_eq!(duo.session(ORCHARD), Some(&before), "and the node that takes over goes on with them");
}
