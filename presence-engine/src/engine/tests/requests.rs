//! Requests are answered, whichever node or client dies (D10).

use bytes::Bytes;
use xmpp_core::error::StreamError;

use super::{A, B, Client, Conn, Duo, Input, Output, bare};

const ORCHARD: &str = "romeo@example.org/orchard";
const BALCONY: &str = "juliet@example.org/balcony";
const ASK: &str = "<iq to='juliet@example.org/balcony' id='q' type='get'><x xmlns='y'/></iq>";

/// Romeo at A, Juliet at B.
fn two() -> (Duo, Client, Client) {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login(BALCONY);
    (duo, romeo, juliet)
}

/// What came is one error of this condition for `q`.
fn refused(duo: &mut Duo, client: Client, condition: &str) {
    let got = duo.got_one(client);
    assert!(got.starts_with("<iq ") && got.contains("id='q'") && got.contains(condition), "{got}");
    assert!(got.contains("from='juliet@example.org/balcony'"), "{got}");
}

#[test]
fn a_new_owner_gives_the_answer_again_until_it_is_acknowledged() {
    let (mut duo, romeo, _) = two();
    duo.ack(romeo, ORCHARD);
    let h = duo.session(ORCHARD).unwrap().acked;
    let id = duo.sm_id(ORCHARD);
    duo.send(romeo, "<iq id='p' type='get'><ping xmlns='urn:xmpp:ping'/></iq>");
    duo.kill(A);
    let (romeo, got) = duo.resume(id, "romeo@example.org", h);
    assert!(got.len() == 1 && got[0].contains("id='p'") && got[0].contains("type='result'"), "{got:?}");
    duo.ack(romeo, ORCHARD);
    duo.drop_tcp(romeo);
    assert_eq!(
        duo.resume(id, "romeo@example.org", h + 1).1,
        [""; 0],
        "acknowledged once, it is not given again"
    );
}

#[test]
fn a_session_that_times_out_returns_the_requests_that_its_client_never_got() {
    let (mut duo, romeo, juliet) = two();
    duo.drop_tcp(juliet);
    duo.send(romeo, ASK);
    assert_eq!(duo.got(romeo), [""; 0], "her client may come back and answer");
    duo.after(300_001);
    let got: Vec<String> = duo.got(romeo).into_iter().filter(|s| s.starts_with("<iq")).collect();
    assert!(got.len() == 1 && got[0].contains("service-unavailable") && got[0].contains("id='q'"), "{got:?}");
}

#[test]
fn a_resource_that_is_bound_anew_returns_the_requests_of_its_old_session() {
    for nurse in [false, true] {
        let (mut duo, romeo, _) = two();
        // Of a user of the other node, and of one of the same.
        let asker = if nurse { duo.login("nurse@example.org/house") } else { romeo };
        duo.send(asker, ASK);
        duo.bind(BALCONY);
        refused(&mut duo, asker, "service-unavailable");
    }
}

#[test]
fn a_removed_account_returns_requests() {
    let (mut duo, romeo, _) = two();
    duo.send(romeo, ASK);
    duo.input(B, Input::UserRemove { user: bare("juliet@example.org") });
    refused(&mut duo, romeo, "service-unavailable");
}

#[test]
fn what_was_acknowledged_or_is_no_request_is_not_returned() {
    let (mut duo, romeo, juliet) = two();
    duo.send(romeo, ASK);
    duo.ack(juliet, BALCONY);
    duo.send(romeo, "<iq to='juliet@example.org/balcony' id='r' type='result'/>");
    // Her own roster push, and what she asks herself.
    let item = "<item jid='nurse@example.org' name='n'/>";
    duo.send(juliet, &format!("<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
    duo.send(juliet, "<iq to='juliet@example.org/balcony' id='self' type='get'><x xmlns='y'/></iq>");
    duo.got(romeo);
    duo.close(juliet);
    let got: Vec<String> = duo.got(romeo).into_iter().filter(|s| s.starts_with("<iq")).collect();
    assert_eq!(got, [""; 0]);
}

#[test]
fn a_request_to_a_node_that_does_not_answer_is_called_off_and_never_arrives() {
    let (mut duo, romeo, juliet) = two();
    duo.hold(true);
    duo.send(romeo, ASK);
    duo.send(romeo, "<message to='juliet@example.org/balcony' id='m' type='chat'><body>hi</body></message>");
    duo.after(29_000);
    assert_eq!(duo.got(romeo), [""; 0]);
    duo.after(2_000);
    refused(&mut duo, romeo, "remote-server-timeout");
    duo.after(60_000);
    assert_eq!(duo.got(romeo), [""; 0], "called off once");
    duo.hold(false);
    let got = duo.got(juliet);
    assert!(got.len() == 1 && got[0].contains("id='m'"), "a message waits as long as it takes: {got:?}");
    assert_eq!(duo.state().undone().count(), 0);
}

#[test]
fn who_takes_over_answers_what_was_asked_and_does_not_wait_for_the_dead() {
    let (mut duo, romeo, juliet) = two();
    duo.hold(true);
    duo.send(romeo, ASK);
    duo.after(20_000);
    duo.lose(B);
    duo.hold(false);
    duo.after(60_000);
    assert_eq!(duo.got(romeo), [""; 0], "it waits in her session, which may be resumed");
    assert!(duo.session(BALCONY).unwrap().out.iter().any(|e| format!("{e:?}").contains("id='q'")));
    let _ = juliet;
}

#[test]
fn an_owner_that_begins_anew_waits_anew() {
    let (mut duo, romeo, _) = two();
    duo.hold(true);
    duo.send(romeo, ASK);
    duo.after(29_000);
    let engine = duo.engines[0].as_mut().unwrap();
    let state = engine.state().clone();
    engine.rebuilt(state, Vec::new(), &mut Vec::new());
    duo.input(A, Input::Serving { group: A, on: true });
    let answers = |duo: &Duo| {
        let queue = format!("{:?}", duo.session(ORCHARD).unwrap().out);
        queue.matches("remote-server-timeout").count()
    };
    duo.after(29_000);
    assert_eq!(answers(&duo), 0);
    duo.after(2_000);
    assert_eq!(answers(&duo), 1, "it waits in his session");
}

/// D8: a node that loses its role may not say why a stream was to end: the session that was too short on it may be whole
/// where it is led now.
#[test]
fn what_was_judged_by_a_void_state_is_not_told() {
    let (mut duo, _, _) = two();
    let id = duo.sm_id(ORCHARD);
    let engine = duo.engines[0].as_mut().unwrap();
    let (state, conn) = (engine.state().clone(), Conn { node: A, number: 999 });
    let error = StreamError::handled_count_too_high(9, 1).to_bytes();
    let left = Output::Close(conn, Bytes::new(), true);
    let void = vec![Output::Close(conn, error, true), left.clone(), Output::Parked(id, true)];
    let mut out = Vec::new();
    engine.rebuilt(state, void, &mut out);
    let closes: Vec<_> = out.iter().filter(|o| matches!(o, Output::Close(c, ..) if *c == conn)).collect();
    let [Output::Close(_, told, true), bare] = closes[..] else { panic!("{closes:?}") };
    assert!(told.starts_with(b"<stream:error><reset "), "{told:?}");
    assert_eq!(bare, &left, "who ended the stream himself is told nothing");
}
