//! What comes late: an attachment or an attempt to resume that something else has overtaken (D5).

use super::fronts::{JULIET, ROMEO, bodies, say};
use super::*;

#[test]
fn an_attachment_from_before_is_nobodys_any_more() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hold(true);
    duo.send(juliet, &say(ROMEO, "1"));
    duo.deliver_frames(A);
    // Let go for the old name, and late: behind a break that only the front has seen.
    let late = duo.take_mail(B);
    duo.turn(B, vec![Input::PeerUp(false), Input::PeerUp(true)], true);
    duo.hold(false);
    assert_eq!(bodies(&duo.got(romeo)), ["1"]);
    duo.turn(B, late, true);
    duo.settle();
    assert_eq!(bodies(&duo.got(romeo)), Vec::<String>::new());
}

/// What a front says waits for its node's frames, which the owner reads before: so it may come behind a way there and back.
#[test]
fn an_attachment_from_before_the_front_had_the_session_itself_takes_nothing_away() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hold(true);
    duo.turn(B, vec![Input::PeerUp(false), Input::PeerUp(true)], true);
    let late = duo.take_mail(A);
    duo.hold(false);
    duo.hand_over("romeo@example.org");
    duo.send(juliet, &say(ROMEO, "1"));
    assert_eq!(bodies(&duo.got(romeo)), ["1"]);
    duo.send(
        juliet,
        &format!(
            "<message to='{ROMEO}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
        ),
    );
    duo.got(romeo);
    duo.send(juliet, &say(ROMEO, "1b"));
    assert_eq!(bodies(&duo.got(romeo)), ["1b"]);
    let sent = duo.session(ROMEO).unwrap().sent();
    duo.hold(true);
    duo.hand_over("romeo@example.org");
    duo.deliver_frames(A);
    duo.turn(A, late, true);
    assert_eq!(duo.session(ROMEO).unwrap().sent(), sent, "the numbers that he was given hold");
    duo.hold(false);
    duo.send(juliet, &say(ROMEO, "2"));
    assert_eq!(bodies(&duo.got(romeo)), ["2"]);
}

const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource>\
                    </bind></iq>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// Romeo goes to B and back while what B says waits for its frames: of what it has said as the front of his streams before,
/// nothing is let go behind that.
fn goes_there_and_back(duo: &mut Duo) {
    duo.hand_over("romeo@example.org");
    assert_eq!(duo.node_of(&bare("romeo@example.org")), B);
    duo.hand_over("romeo@example.org");
    assert_eq!(duo.node_of(&bare("romeo@example.org")), A);
    duo.let_go(B);
    duo.settle();
}

#[test]
fn what_a_login_brought_that_went_there_and_back_meanwhile_is_done_once() {
    let mut duo = Duo::new();
    let juliet = duo.login_at(B, JULIET);
    duo.stick(B);
    let romeo = duo.open_at("romeo@example.org", B);
    for xml in [BIND, ENABLE, &say(JULIET, "1")] {
        duo.send(romeo, xml);
    }
    goes_there_and_back(&mut duo);
    assert_eq!(bodies(&duo.got(juliet)), ["1"], "once");
    let got = duo.all(romeo);
    assert_eq!(got.iter().filter(|s| s.contains("type='result'")).count(), 1, "{got:?}");
    assert_eq!(got.iter().filter(|s| s.contains("<enabled ")).count(), 1, "{got:?}");
    // And nothing is taken for what was done already.
    duo.send(romeo, &say(JULIET, "2"));
    duo.send(juliet, &say(ROMEO, "3"));
    assert_eq!(bodies(&duo.got(juliet)), ["2"]);
    assert_eq!(bodies(&duo.got(romeo)), ["3"]);
    assert_eq!(duo.session(ROMEO).unwrap().inbound, 2);
    assert!(duo.closed(romeo).is_none());
}

/// It is nobody's any more: bound anew it would be a session that nobody has, and speak.
#[test]
fn a_session_that_began_and_ended_meanwhile_does_not_begin_again() {
    let mut duo = Duo::new();
    let juliet = duo.login_at(B, JULIET);
    duo.stick(B);
    let romeo = duo.open_at("romeo@example.org", B);
    for xml in [BIND, &say(JULIET, "1")] {
        duo.send(romeo, xml);
    }
    duo.hand_over("romeo@example.org");
    duo.close(romeo);
    duo.hand_over("romeo@example.org");
    duo.let_go(B);
    duo.settle();
    assert_eq!(bodies(&duo.got(juliet)), ["1"], "once");
    assert!(duo.session(ROMEO).is_none());
}

#[test]
fn an_attempt_to_resume_that_went_there_and_back_meanwhile_is_one() {
    let (mut duo, mercutio, id, h) = lost();
    let before = duo.state().session(id).unwrap().streams;
    duo.stick(B);
    let romeo = resume_at(&mut duo, B, id, h);
    duo.send(romeo, &say("mercutio@example.org", "1"));
    goes_there_and_back(&mut duo);
    assert_eq!(bodies(&duo.got(mercutio)), ["1"], "once");
    assert_eq!(duo.state().session(id).unwrap().streams, before + 1);
    assert!(is_resumed(&mut duo, romeo));
    assert!(duo.closed(romeo).is_none());
    duo.send(mercutio, &say(ROMEO, "2"));
    assert_eq!(bodies(&duo.got(romeo)), ["2"]);
}

/// The link breaks before he goes, and is there again: what B had said was to be said again, under another name.
#[test]
fn the_same_behind_a_break_of_the_link() {
    let mut duo = Duo::new();
    let juliet = duo.login_at(B, JULIET);
    duo.stick(B);
    let romeo = duo.open_at("romeo@example.org", B);
    for xml in [BIND, ENABLE, &say(JULIET, "1")] {
        duo.send(romeo, xml);
    }
    duo.cut_link();
    duo.mend_link();
    goes_there_and_back(&mut duo);
    assert_eq!(bodies(&duo.got(juliet)), ["1"], "once");
    assert_eq!(duo.session(ROMEO).unwrap().inbound, 1);
    assert!(duo.closed(romeo).is_none());
}

/// He came by a front, and the node that bound him died before he heard of it: the takeover holds the session to be without a stream.
#[test]
fn who_was_bound_by_a_node_that_died_before_it_said_so_has_a_stream() {
    let mut duo = Duo::new();
    let juliet = duo.login_at(B, JULIET);
    let romeo = duo.open_at("romeo@example.org", B);
    duo.hold(true);
    duo.send(romeo, BIND);
    let asked = duo.take_mail(A);
    duo.turn(A, asked, true);
    duo.deliver_frames(B);
    duo.lose(A);
    duo.hold(false);
    duo.send(romeo, ENABLE);
    assert!(duo.all(romeo).iter().any(|xml| xml.starts_with("<enabled")));
    let before = duo.got(romeo).len();
    duo.send(romeo, "<presence/>");
    duo.send(juliet, &say(ROMEO, "1"));
    let seen = duo.got(romeo).len() - before;
    let s = duo.session(ROMEO).unwrap();
    assert_eq!((s.sent() as usize, s.detached_ms), (seen, None), "all that he was given has a number");
    assert_eq!(seen, 2, "his own presence, and the message");
}

/// A list without its connections says that there are none: a session that does not outlive its stream would end of it.
#[test]
fn a_list_of_streams_on_a_path_that_is_gone_is_not_told() {
    let mut duo = Duo::new();
    let juliet = duo.login_at(B, JULIET);
    let romeo = duo.open_at("romeo@example.org", B);
    for xml in [BIND, "<enable xmlns='urn:xmpp:sm:3'/>"] {
        duo.send(romeo, xml);
    }
    duo.all(romeo);
    duo.stick(B);
    for _ in 0..2 {
        duo.cut_link();
        duo.mend_link();
    }
    duo.let_go(B);
    duo.settle();
    assert!(duo.session(ROMEO).is_some() && duo.closed(romeo).is_none());
    duo.send(juliet, &say(ROMEO, "1"));
    assert_eq!(bodies(&duo.got(romeo)), ["1"]);
}

/// Its client has gone by then, and said it again on another stream.
#[test]
fn an_attempt_that_was_given_up_and_made_again_there_does_not_come_behind_the_way_back() {
    let (mut duo, mercutio, id, h) = lost();
    let before = duo.session(ROMEO).unwrap().inbound;
    duo.stick(B);
    let first = resume_at(&mut duo, B, id, h);
    duo.send(first, &say("mercutio@example.org", "1"));
    duo.drop_tcp(first);
    duo.hand_over("romeo@example.org");
    let second = resume_at(&mut duo, B, id, h);
    duo.send(second, &say("mercutio@example.org", "1"));
    duo.hand_over("romeo@example.org");
    duo.let_go(B);
    duo.settle();
    assert_eq!(bodies(&duo.got(mercutio)), ["1"], "once");
    assert_eq!(duo.session(ROMEO).unwrap().inbound, before.wrapping_add(1));
    assert!(duo.closed(second).is_none());
}

fn resume_at(duo: &mut Duo, node: NodeIx, id: SmId, h: u32) -> Client {
    let client = duo.open_at("romeo@example.org", node);
    duo.send(client, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    client
}

fn is_resumed(duo: &mut Duo, client: Client) -> bool {
    duo.all(client).first().is_some_and(|first| first.starts_with("<resumed"))
}

/// A session that lost its stream, and somebody who writes to it at its node.
fn lost() -> (Duo, Client, SmId, u32) {
    let mut duo = Duo::new();
    let mercutio = duo.login_at(A, "mercutio@example.org/street");
    let (id, h) = log_in_and_lose(&mut duo);
    (duo, mercutio, id, h)
}

fn log_in_and_lose(duo: &mut Duo) -> (SmId, u32) {
    let romeo = duo.login_at(A, ROMEO);
    duo.ack(romeo, ROMEO);
    duo.drop_tcp(romeo);
    (duo.sm_id(ROMEO), duo.session(ROMEO).unwrap().acked)
}

/// It was late on its way from the front, and its client gave it up and went on at the other node. Granted, it would number anew
/// what the client has counted, without the chat state, and the next message would count as delivered.
#[test]
fn an_attempt_that_comes_behind_one_that_its_front_did_not_know_of_takes_nothing_away() {
    for (state, breaks) in [(true, false), (true, true), (false, false), (false, true)] {
        let (mut duo, mercutio, id, h) = lost();
        duo.hold(true);
        let first = resume_at(&mut duo, B, id, h);
        let (second, _) = duo.resume(id, "romeo@example.org", h);
        if state {
            let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
            duo.send(mercutio, &format!("<message to='{ROMEO}' type='chat'>{composing}</message>"));
        }
        duo.send(mercutio, &say(ROMEO, "1"));
        let seen = duo.got(second);
        assert_eq!(bodies(&seen), ["1"]);
        if breaks {
            duo.drop_tcp(second);
        }
        duo.hold(false);
        // Without a chat state no number changes, and nobody else has the session.
        let granted = breaks && !state;
        assert_eq!(is_resumed(&mut duo, first), granted, "{state} {breaks}");
        // Without a word: its client, if it is there, comes again.
        assert_eq!(duo.closed(first), (!granted).then_some(""), "{state} {breaks}");
        assert!(duo.closed(second).is_none(), "no conflict: {state} {breaks}");
        duo.send(mercutio, &say(ROMEO, "2"));
        let (_, told) = duo.resume(id, "romeo@example.org", h + seen.len() as u32);
        assert_eq!(bodies(&told), ["2"], "{state} {breaks}");
    }
}

/// The front's node led the session before, and granted it once more in a tail of its log that is void: it counts as many grants as
/// the owner, and has not heard of the owner's last. Seen with a node that had been taken over, and had not compared its log yet.
#[test]
fn an_attempt_by_a_front_that_counts_by_a_tail_that_is_void_takes_nothing_away() {
    for doubted in [false, true] {
        let (mut duo, mercutio, id, h) = lost();
        duo.hold(true);
        let first = resume_at(&mut duo, B, id, h);
        let (second, _) = duo.resume(id, "romeo@example.org", h);
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        duo.send(mercutio, &format!("<message to='{ROMEO}' type='chat'>{composing}</message>"));
        duo.send(mercutio, &say(ROMEO, "1"));
        let streams = duo.state().session(id).unwrap().streams;
        for input in &mut duo.mail[A.index()] {
            let Input::Relay(relay) = input else { continue };
            if let Relay::Element { number, .. } = relay {
                *number = Some(streams);
            }
            if doubted {
                relay.count_no_attempts();
            }
        }
        duo.hold(false);
        assert_eq!(is_resumed(&mut duo, first), !doubted);
        assert_eq!(duo.closed(second).is_none(), doubted, "no conflict");
        assert_eq!(duo.closed(first), doubted.then_some(""), "its client, if it is there, comes again");
    }
}

/// The session was bound behind what the front has of its owner's log.
#[test]
fn an_attempt_by_a_front_that_had_not_heard_of_the_session_takes_nothing_away() {
    for went_on in [true, false] {
        let mut duo = Duo::new();
        let mercutio = duo.login_at(A, "mercutio@example.org/street");
        duo.hold(true);
        let (id, h) = log_in_and_lose(&mut duo);
        let first = resume_at(&mut duo, B, id, h);
        let second = went_on.then(|| duo.resume(id, "romeo@example.org", h).0);
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        duo.send(mercutio, &format!("<message to='{ROMEO}' type='chat'>{composing}</message>"));
        duo.send(mercutio, &say(ROMEO, "1"));
        let seen = second.map(|second| duo.got(second));
        duo.hold(false);
        // One that was never resumed before cannot have been resumed elsewhere since.
        assert_eq!(is_resumed(&mut duo, first), !went_on);
        let (Some(second), Some(seen)) = (second, seen) else { continue };
        assert_eq!(bodies(&seen), ["1"]);
        assert!(duo.closed(second).is_none(), "no conflict");
        duo.send(mercutio, &say(ROMEO, "2"));
        let (_, told) = duo.resume(id, "romeo@example.org", h + seen.len() as u32);
        assert_eq!(bodies(&told), ["2"]);
    }
}

#[test]
fn the_later_of_two_attempts_by_one_front_is_granted_although_that_knew_of_neither() {
    let (mut duo, mercutio, id, h) = lost();
    duo.hold(true);
    let first = resume_at(&mut duo, B, id, h);
    let second = resume_at(&mut duo, B, id, h);
    duo.hold(false);
    assert!(duo.closed(first).is_some_and(|last| last.contains("conflict")));
    duo.send(mercutio, &say(ROMEO, "1"));
    let got = duo.all(second);
    assert!(got.first().is_some_and(|first| first.starts_with("<resumed")), "{got:?}");
    assert!(got.iter().any(|s| s.contains("<body>1</body>")), "{got:?}");
}

#[test]
fn an_attempt_whose_answer_was_lost_with_the_link_is_granted_again() {
    let (mut duo, _, id, h) = lost();
    duo.hold(true);
    let romeo = resume_at(&mut duo, B, id, h);
    duo.deliver_mail(A);
    duo.drop_mail(B);
    duo.cut_link();
    duo.hold(false);
    duo.mend_link();
    assert!(is_resumed(&mut duo, romeo));
    assert!(duo.closed(romeo).is_none());
}

/// The front knows of the stream that was granted meanwhile: what comes to it then is later.
#[test]
fn an_attempt_of_somebody_who_was_elsewhere_is_granted_at_once() {
    let (mut duo, mercutio, id, h) = lost();
    let (second, _) = duo.resume(id, "romeo@example.org", h);
    duo.send(mercutio, &say(ROMEO, "1"));
    assert_eq!(bodies(&duo.got(second)), ["1"]);
    // Nobody has noticed yet that its client is gone.
    let third = resume_at(&mut duo, B, id, h);
    assert!(is_resumed(&mut duo, third));
    assert!(duo.closed(second).is_some_and(|last| last.contains("conflict")));
}
