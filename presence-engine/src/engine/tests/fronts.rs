//! A client's socket on one node, its session on the other (D5).

use super::*;
use crate::ids::Away;

pub(super) const ROMEO: &str = "romeo@example.org/orchard";
const PHONE: &str = "romeo@example.org/phone";
pub(super) const JULIET: &str = "juliet@example.org/balcony";

pub(super) fn say(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat'><body>{body}</body></message>")
}

/// Bodies of the messages that came, in order.
pub(super) fn bodies(got: &[String]) -> Vec<String> {
    let stanzas = got.iter().map(|s| Stanza::parse(s.as_bytes()).unwrap());
    stanzas.filter_map(|s| s.child("jabber:client", "body")).map(|b| b.text.to_string()).collect()
}

#[test]
fn a_laptop_and_a_phone_of_one_user_are_on_different_nodes() {
    let mut duo = Duo::new();
    let laptop = duo.login_at(A, ROMEO);
    let phone = duo.login_at(B, PHONE);
    let juliet = duo.login_at(A, JULIET);
    duo.got(laptop);
    duo.send(juliet, &say("romeo@example.org", "both"));
    duo.send(juliet, &say(PHONE, "the phone"));
    assert_eq!(bodies(&duo.got(laptop)), ["both"]);
    assert_eq!(bodies(&duo.got(phone)), ["both", "the phone"]);
    duo.send(phone, &say("juliet@example.org", "from the phone"));
    assert_eq!(bodies(&duo.got(juliet)), ["from the phone"]);
    assert!(duo.closed(phone).is_none() && duo.closed(juliet).is_none());
}

#[test]
fn the_front_goes_on_when_the_owner_dies_and_feeds_itself_what_was_not_counted() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.send(romeo, &say(JULIET, "1"));
    assert_eq!(bodies(&duo.got(juliet)), ["1"]);
    duo.got(romeo);
    // Relayed, and lost with the owner.
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "2"));
    duo.send(romeo, &say(JULIET, "3"));
    duo.hold_off_and_lose(A);
    assert_eq!(bodies(&duo.got(juliet)), ["2", "3"]);
    duo.send(romeo, "<r xmlns='urn:xmpp:sm:3'/>");
    assert!(duo.all(romeo).iter().any(|s| s.contains("h='4'")), "presence and three messages");
    duo.send(juliet, &say(ROMEO, "4"));
    assert_eq!(bodies(&duo.got(romeo)), ["4"]);
    assert!(duo.closed(romeo).is_none());
}

#[test]
fn what_the_owner_counted_before_it_died_is_not_done_again() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "1"));
    duo.deliver_mail(A);
    // The owner's frame is on its way; its credit and its answers are lost with it.
    duo.drop_mail(B);
    duo.hold_off_and_lose(A);
    assert_eq!(bodies(&duo.got(juliet)), ["1"]);
    duo.send(romeo, "<r xmlns='urn:xmpp:sm:3'/>");
    assert!(duo.all(romeo).iter().any(|s| s.contains("h='2'")));
}

#[test]
fn what_the_owner_let_go_and_the_front_did_not_get_is_written_by_the_next_owner() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.send(juliet, &say(ROMEO, "1"));
    assert_eq!(bodies(&duo.got(romeo)), ["1"]);
    duo.hold(true);
    duo.send(juliet, &say(ROMEO, "2"));
    duo.deliver_frames(A);
    duo.drop_mail(B);
    duo.hold_off_and_lose(A);
    assert_eq!(bodies(&duo.got(romeo)), ["2"], "once, and not the first again");
    let sent = duo.session(ROMEO).unwrap().sent();
    duo.send(romeo, &format!("<a xmlns='urn:xmpp:sm:3' h='{sent}'/>"));
    assert!(duo.closed(romeo).is_none(), "both count the same");
    assert!(duo.session(ROMEO).unwrap().out.is_empty());
}

#[test]
fn a_cut_of_the_link_costs_nothing_and_doubles_nothing() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "1"));
    duo.send(juliet, &say(ROMEO, "2"));
    duo.deliver_frames(A);
    duo.deliver_mail(A);
    duo.cut_link();
    duo.hold(false);
    duo.send(romeo, &say(JULIET, "3"));
    duo.mend_link();
    assert_eq!(bodies(&duo.got(juliet)), ["1", "3"]);
    assert_eq!(bodies(&duo.got(romeo)), ["2"]);
    duo.ack(romeo, ROMEO);
    assert!(duo.closed(romeo).is_none());
}

#[test]
fn a_login_that_the_owner_answered_to_nobody_is_answered_by_the_next() {
    for steps in 0..3 {
        let mut duo = Duo::new();
        let romeo = duo.open_at("romeo@example.org", B);
        let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource>\
                    </bind></iq>";
        let all = [bind, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>", &say("nurse@example.org", "1")];
        duo.hold(true);
        for xml in &all[..=steps] {
            duo.send(romeo, xml);
        }
        duo.deliver_mail(A);
        duo.drop_mail(B);
        duo.hold_off_and_lose(A);
        for xml in &all[steps + 1..] {
            duo.send(romeo, xml);
        }
        let got = duo.all(romeo);
        assert_eq!(got.iter().filter(|s| s.contains("type='result'")).count(), 1, "{got:?}");
        assert_eq!(got.iter().filter(|s| s.contains("<enabled")).count(), 1, "{got:?}");
        assert_eq!(duo.session(ROMEO).unwrap().inbound, 1, "{steps}");
    }
}

#[test]
fn what_came_behind_a_binding_that_nobody_heard_of_is_given_by_the_next_owner() {
    let mut duo = Duo::new();
    let mercutio = duo.login_at(A, "mercutio@example.org/sword");
    let romeo = duo.open_at("romeo@example.org", B);
    duo.hold(true);
    duo.send(
        romeo,
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>",
    );
    duo.deliver_mail(A);
    // He is bound, without stream management, and has a message; neither the answer nor the message comes to him.
    duo.send(mercutio, &say(ROMEO, "1"));
    duo.drop_mail(B);
    duo.hold_off_and_lose(A);
    let got = duo.got(romeo);
    assert_eq!(got.iter().filter(|s| s.contains("type='result'")).count(), 1, "{got:?}");
    assert_eq!(bodies(&got), ["1"], "behind the answer, and once");
    duo.close(romeo);
    let romeo = duo.login_raw(ROMEO);
    assert_eq!(bodies(&duo.got(romeo)), [""; 0], "he has it");
}

#[test]
fn a_hand_over_leaves_a_plain_stream_open_and_a_leave_closes_it() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(A, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hand_over("romeo@example.org");
    assert!(duo.closed(romeo).is_none(), "its node is its front now");
    duo.send(romeo, &say(JULIET, "1"));
    duo.send(juliet, &say(ROMEO, "2"));
    assert_eq!(bodies(&duo.got(juliet)), ["1"]);
    assert_eq!(bodies(&duo.got(romeo)), ["2"]);
    duo.hand_over("romeo@example.org");
    duo.send(romeo, &say(JULIET, "3"));
    assert_eq!(bodies(&duo.got(juliet)), ["3"], "and back: its node is the owner again");
    duo.hand_over("romeo@example.org");
    duo.input(A, Input::Leaving);
    assert_eq!(duo.closed(romeo), Some(""), "without a word: it resumes elsewhere");
    assert!(duo.session(ROMEO).unwrap().detached_ms.is_some());
}

#[test]
fn a_stream_whose_client_went_elsewhere_does_not_come_back() {
    let mut duo = Duo::new();
    let old = duo.login_at(B, ROMEO);
    let id = duo.sm_id(ROMEO);
    duo.cut_link();
    let sent = duo.session(ROMEO).unwrap().sent();
    let (new, _) = duo.resume(id, "romeo@example.org", sent);
    duo.mend_link();
    assert!(duo.closed(new).is_none());
    assert!(duo.closed(old).is_some(), "its session goes on at another stream");
    let juliet = duo.login_at(B, JULIET);
    duo.send(juliet, &say(ROMEO, "1"));
    assert_eq!(bodies(&duo.got(new)), ["1"]);
}

#[test]
fn an_element_that_is_missing_ends_the_attachment() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "1"));
    duo.drop_mail(A);
    duo.send(romeo, &say(JULIET, "2"));
    duo.hold(false);
    assert!(duo.closed(romeo).is_some());
    assert_eq!(duo.session(ROMEO).unwrap().inbound, 1, "the presence; nothing behind the hole");
}

#[test]
fn a_session_that_may_have_gone_on_elsewhere_is_not_taken_over_with_its_stream() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    duo.lose_late(A);
    assert!(duo.closed(romeo).is_some(), "its client decides by its resume (D6)");
}

#[test]
fn a_resource_in_use_through_a_front_is_taken_over_and_its_stream_ends_with_conflict() {
    let mut duo = Duo::new();
    let old = duo.login_at(B, ROMEO);
    let new = duo.login_at(A, ROMEO);
    assert!(duo.closed(old).is_some_and(|last| last.contains("conflict")));
    let newest = duo.login_at(B, ROMEO);
    assert!(duo.closed(new).is_some_and(|last| last.contains("conflict")));
    assert!(duo.closed(newest).is_none());
}

#[test]
fn a_client_that_closes_its_stream_at_the_front_ends_its_session() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "last words"));
    duo.close(romeo);
    duo.hold(false);
    assert_eq!(bodies(&duo.got(juliet)), ["last words"]);
    assert!(duo.session(ROMEO).is_none());
}

#[test]
fn a_front_that_is_silent_for_long_leaves_its_sessions_to_be_resumed() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    duo.cut_link();
    duo.after(4_000);
    assert!(duo.session(ROMEO).unwrap().detached_ms.is_none(), "a break of the link is no loss");
    duo.after(6_000);
    assert!(duo.session(ROMEO).unwrap().detached_ms.is_some());
    duo.after(20_000);
    assert_eq!(duo.closed(romeo), Some(""), "and the front lets its client look elsewhere");
}

#[test]
fn what_was_lost_with_the_link_is_relayed_again() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let juliet = duo.login_at(B, JULIET);
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "1"));
    duo.send(romeo, &say(JULIET, "2"));
    duo.cut_link();
    duo.hold(false);
    assert_eq!(bodies(&duo.got(juliet)), Vec::<String>::new());
    duo.mend_link();
    assert_eq!(bodies(&duo.got(juliet)), ["1", "2"]);
    assert!(duo.closed(romeo).is_none());
}

#[test]
fn what_was_answered_and_lost_its_credit_is_not_answered_again() {
    let mut duo = Duo::new();
    let (romeo, answer) = duo.ask_at(B, ROMEO);
    assert!(answer.contains("type='result'"), "{answer}");
    duo.hold(true);
    duo.send(romeo, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    duo.deliver_mail(A);
    let mut answers = duo.take_mail(B);
    assert!(matches!(answers.pop(), Some(Input::Fronted(Fronted::Credit(_)))));
    duo.turn(B, answers, false);
    duo.cut_link();
    duo.hold(false);
    duo.mend_link();
    assert_eq!(duo.all(romeo).iter().filter(|s| s.contains("<enabled ")).count(), 1);
    assert!(duo.closed(romeo).is_none());
}

/// The owner's credit is for a name that is given up: without this one the client would send nothing more.
#[test]
fn what_was_answered_and_lost_its_credit_gets_it_when_its_node_comes_to_own_the_session() {
    let mut duo = Duo::new();
    let (romeo, answer) = duo.ask_at(B, ROMEO);
    assert!(answer.contains("type='result'"), "{answer}");
    let credits = |duo: &Duo| duo.credits.get(&romeo.conn).copied().unwrap_or(0);
    assert_eq!(credits(&duo), 1);
    duo.hold(true);
    duo.send(romeo, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    duo.deliver_mail(A);
    let mut answers = duo.take_mail(B);
    assert!(matches!(answers.pop(), Some(Input::Fronted(Fronted::Credit(_)))));
    duo.turn(B, answers, false);
    assert_eq!(credits(&duo), 1);
    duo.hand_over("romeo@example.org");
    duo.hold(false);
    assert_eq!(credits(&duo), 2, "once");
    assert_eq!(duo.all(romeo).iter().filter(|s| s.contains("<enabled ")).count(), 1);
    duo.send(romeo, &say("juliet@example.org", "1"));
    assert_eq!(credits(&duo), 3);
    assert!(duo.closed(romeo).is_none());
}

#[test]
fn a_missing_element_without_a_number_ends_the_attachment_too() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    duo.hold(true);
    duo.send(romeo, "<r xmlns='urn:xmpp:sm:3'/>");
    duo.drop_mail(A);
    duo.send(romeo, "<r xmlns='urn:xmpp:sm:3'/>");
    duo.hold(false);
    assert!(duo.closed(romeo).is_some());
    assert!(duo.session(ROMEO).unwrap().detached_ms.is_some(), "and its session waits to be resumed");
}

#[test]
fn a_stanza_that_comes_before_its_turn_ends_the_stream() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    let before = duo.session(ROMEO).unwrap().inbound;
    duo.hold(true);
    duo.send(romeo, &say(JULIET, "1"));
    for mail in &mut duo.mail[A.index()] {
        if let Input::Relay(Relay::Element { number, .. }) = mail {
            *number = number.map(|n| n + 1);
        }
    }
    duo.hold(false);
    assert!(duo.closed(romeo).is_some_and(|last| last.contains("a part of the stream is missing")));
    assert_eq!(duo.session(ROMEO).unwrap().inbound, before);
}

#[test]
fn a_front_proves_that_it_lives_itself_and_not_while_it_is_fenced() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    for serves in [true, false] {
        duo.input(B, Input::Serving { group: B, on: serves });
        let vouch = Stanza::parse(b"<vouch xmlns='urn:tandem:dual:0' nonce='7'/>").unwrap();
        let mut out = Vec::new();
        let engine = duo.engines[B.index()].as_mut().unwrap();
        engine.handle(Input::Element { conn: romeo.conn, stanza: vouch }, &mut out);
        let vouched = out.contains(&Output::Vouch(romeo.conn, "7".into()));
        assert_eq!(vouched, serves, "{out:?}");
        assert!(out.contains(&Output::Credit(romeo.conn)), "it is not relayed: {out:?}");
    }
}

/// Its main stream came by the other node: here it needs no front.
#[test]
fn a_dual_client_that_parks_at_the_owner_comes_home_and_one_that_is_there_stays() {
    for (main, parked) in [(B, A), (A, B)] {
        let mut duo = Duo::new();
        let romeo = duo.login_at(main, ROMEO);
        duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
        let second = duo.open_at("romeo@example.org", parked);
        let id = duo.sm_id(ROMEO);
        duo.send(second, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
        let got = duo.all(second);
        assert!(got.iter().any(|said| said.contains("<parked")), "{got:?}");
        assert_eq!(got.iter().any(|said| said.contains("<take")), main == B, "{got:?}");
    }
}

#[test]
fn nobody_is_called_home_from_where_the_operator_moves_everybody() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    duo.input(A, Input::Away { group: A, why: Some(Away::Operator) });
    let second = duo.open_at("romeo@example.org", A);
    let id = duo.sm_id(ROMEO);
    duo.send(second, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
    let got = duo.all(second);
    assert!(got.iter().any(|said| said.contains("<parked")), "{got:?}");
    assert!(!got.iter().any(|said| said.contains("<take")), "{got:?}");
}

#[test]
fn a_connection_that_the_front_does_not_name_again_is_gone() {
    let mut duo = Duo::new();
    let romeo = duo.login_at(B, ROMEO);
    for on in [true, false] {
        duo.input(A, Input::Relay(Relay::List(on)));
    }
    assert!(duo.session(ROMEO).unwrap().detached_ms.is_some());
    let _ = romeo;
}

impl Duo {
    pub(super) fn take_mail(&mut self, to: NodeIx) -> Vec<Input> {
        self.mail[to.index()].drain(..).collect()
    }

    pub(super) fn drop_mail(&mut self, to: NodeIx) {
        self.mail[to.index()].clear();
    }

    /// What is on its way to this node from its peer's clients and owner arrives; frames do not.
    pub(super) fn deliver_mail(&mut self, to: NodeIx) {
        let frames = std::mem::take(&mut self.queues[to.index()]);
        let mail = self.take_mail(to);
        self.turn(to, mail, true);
        self.queues[to.index()] = frames;
    }

    pub(super) fn deliver_frames(&mut self, to: NodeIx) {
        self.turn(to, Vec::new(), true);
    }

    /// The node dies; frames that it sent arrive.
    fn hold_off_and_lose(&mut self, node: NodeIx) {
        self.held = false;
        self.lose(node);
    }

    fn lose_late(&mut self, node: NodeIx) {
        let heir = node.peer();
        self.engines[node.index()] = None;
        self.input(heir, Input::PeerUp(false));
        let Input::Lead { group, reg, .. } = reg(node, 10 + heir.index() as u64, heir, Mode::Solo) else {
            return;
        };
        self.input(heir, Input::Lead { group, reg, late: true });
    }
}

#[test]
fn clients_that_call_with_a_session_of_a_lost_peer_are_known() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    duo.ack(romeo, "romeo@example.org/orchard");
    let id = duo.sm_id("romeo@example.org/orchard");
    duo.drop_tcp(romeo);
    let callers = |duo: &Duo| duo.engines[B.index()].as_ref().unwrap().callers();
    let juliet = duo.login("juliet@example.org/balcony");
    duo.cut_link();
    // A new login says nothing of the peer; somebody of this node neither.
    let fresh = duo.open_at("romeo@example.org", B);
    duo.send(fresh, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    duo.drop_tcp(juliet);
    assert!(callers(&duo).is_empty());
    let again = duo.open_at("romeo@example.org", B);
    duo.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    assert_eq!(callers(&duo).into_iter().collect::<Vec<_>>(), [bare("romeo@example.org")]);
    let answerable = |duo: &Duo| duo.engines[B.index()].as_ref().unwrap().answerable_callers().len();
    assert_eq!(answerable(&duo), 1);
    duo.drop_tcp(again);
    // What nobody can have told is believed only of a peer that is not heard.
    let term = duo.engines[B.index()].as_ref().unwrap().state().lead(A).unwrap().term.0;
    for (told, may_be) in [("999.0", false), ("TERM.4294967295", false), ("TERM.0", true)] {
        let told = told.replace("TERM", &term.to_string());
        let liar = duo.open_at("romeo@example.org", B);
        let dual = format!("xmlns:d='urn:tandem:dual:0' d:epoch='{told}'");
        duo.send(liar, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0' {dual}/>"));
        assert_eq!((callers(&duo).len(), answerable(&duo)), (1, usize::from(may_be)), "{told}");
        duo.drop_tcp(liar);
    }
    // Nor is a session believed that nobody has.
    for previd in ["x".to_owned(), "0".repeat(32), duo.sm_id(JULIET).to_string()] {
        let liar = duo.open_at("romeo@example.org", B);
        duo.send(liar, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='0'/>"));
        assert!(callers(&duo).is_empty(), "{previd}");
        duo.drop_tcp(liar);
    }
}

#[test]
fn what_the_peer_answers_to_those_who_log_in_here_is_counted_and_what_it_says_later_is_not() {
    let mut duo = Duo::new();
    let answers = |duo: &Duo| duo.engines[B.index()].as_ref().unwrap().answers();
    let romeo = duo.login(ROMEO);
    let juliet = duo.login(JULIET);
    duo.ack(romeo, ROMEO);
    let (id, h) = (duo.sm_id(ROMEO), duo.session(ROMEO).unwrap().acked);
    duo.drop_tcp(romeo);
    assert_eq!(answers(&duo), 0, "clients of the peer itself");
    let again = duo.open_at("romeo@example.org", B);
    duo.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    let answered = answers(&duo);
    assert!(answered > 0);
    duo.got(again);
    duo.send(juliet, &say(ROMEO, "1"));
    assert_eq!(bodies(&duo.got(again)), ["1"]);
    assert_eq!(answers(&duo), answered);
    // It does not know that one, which is an answer too.
    let other = duo.open_at("romeo@example.org", B);
    duo.send(other, "<resume xmlns='urn:xmpp:sm:3' previd='nobody' h='0'/>");
    assert!(answers(&duo) > answered);
}
