//! What a dual client is told of its epoch, and when: before anything that counts under it (D6).

use super::*;

const ROMEO: &str = "romeo@example.org/orchard";
const JULIET: &str = "juliet@example.org/balcony";

fn say(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat'><body>{body}</body></message>")
}

/// Romeo, with his socket at `node`, asked for a second stream.
fn dual(duo: &mut Duo, node: NodeIx) -> Client {
    let romeo = duo.login_at(node, ROMEO);
    duo.ack(romeo, ROMEO);
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    assert_eq!(words(&duo.all(romeo)), ["offer 2.0"]);
    romeo
}

fn solo() -> Reg {
    Reg { term: Term(12), primary: A, mode: Mode::Solo, settled: Term(0) }
}

/// What came, by names of elements; with the epoch of an offer, and without questions for a count.
fn words(got: &[String]) -> Vec<String> {
    let stanzas = got.iter().map(|s| Stanza::parse(s.as_bytes()).unwrap());
    let word = |s: Stanza| match xmpp_core::dual::Dual::parse(&s) {
        Ok(Some(xmpp_core::dual::Dual::Offer { epoch, .. })) => format!("offer {epoch}"),
        _ => s.head.name.to_string(),
    };
    stanzas.map(word).filter(|word| word != "r").collect()
}

fn resume(duo: &mut Duo) -> Client {
    resume_from(duo, "2.0")
}

/// Romeo was last told this epoch.
fn resume_from(duo: &mut Duo, epoch: &str) -> Client {
    resume_of(duo, ROMEO, &format!("d:epoch='{epoch}'"))
}

fn resume_of(duo: &mut Duo, full: &str, told: &str) -> Client {
    let (id, h) = (duo.sm_id(full), duo.session(full).unwrap().acked);
    let client = duo.open(full.split('/').next().unwrap());
    let dual = format!("xmlns:d='urn:tandem:dual:0' {told}");
    duo.send(client, &format!("<resume xmlns='urn:xmpp:sm:3' {dual} previd='{id}' h='{h}'/>"));
    client
}

#[test]
fn a_resumed_client_hears_the_epoch_before_what_waited_for_it() {
    let mut duo = Duo::new();
    let (romeo, juliet) = (dual(&mut duo, A), duo.login(JULIET));
    duo.drop_tcp(romeo);
    duo.send(juliet, &say(ROMEO, "1"));
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    let romeo = resume(&mut duo);
    assert_eq!(words(&duo.all(romeo)), ["offer 12.0", "resumed", "message"]);
}

/// It waited on the way, and its client has gone on elsewhere since. Resumed again, the session would number anew what the client
/// has counted, and would take for delivered what it has not.
#[test]
fn an_attempt_that_comes_behind_a_later_one_takes_nothing_away() {
    let mut duo = Duo::new();
    let (romeo, juliet) = (dual(&mut duo, A), duo.login(JULIET));
    duo.drop_tcp(romeo);
    duo.send(juliet, &say(ROMEO, "1"));
    let second = resume_of(&mut duo, ROMEO, "d:epoch='2.0' d:try='2'");
    assert_eq!(words(&duo.all(second)), ["offer 2.0", "resumed", "message"]);
    let first = resume_of(&mut duo, ROMEO, "d:epoch='2.0' d:try='1'");
    assert!(duo.closed(first).is_some_and(|last| last.contains("conflict")));
    duo.send(juliet, &say(ROMEO, "2"));
    assert_eq!(words(&duo.all(second)), ["message"], "its stream goes on");
    let third = resume_of(&mut duo, ROMEO, "d:epoch='2.0' d:try='3'");
    assert_eq!(words(&duo.all(third)), ["offer 2.0", "resumed", "message", "message"]);
    // Who does not number them is taken at its word.
    let plain = resume_of(&mut duo, ROMEO, "d:epoch='2.0'");
    assert_eq!(words(&duo.all(plain)), ["offer 2.0", "resumed", "message", "message"]);
}

#[test]
fn dual_clients_hear_of_other_re_login_limits_and_nobody_else() {
    for socket in [A, B] {
        let mut duo = Duo::new();
        let (romeo, juliet) = (dual(&mut duo, socket), duo.login(JULIET));
        duo.engines.iter_mut().flatten().for_each(|engine| engine.set_relogin((10, 77)));
        duo.input(A, Input::OfferAgain);
        duo.input(B, Input::OfferAgain);
        let got = duo.all(romeo);
        assert_eq!(words(&got), ["offer 2.0"]);
        assert!(got[0].contains("lower='10'") && got[0].contains("upper='77'"), "{got:?}");
        assert!(words(&duo.all(juliet)).is_empty());
    }
}

#[test]
fn who_leads_said_once_more_tells_nobody_anything() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    let said = |duo: &Duo| {
        let lead = |record: &&Record| matches!(record, Record::Lead { reg, .. } if *reg == solo());
        duo.log.iter().filter(lead).count()
    };
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    assert_eq!((words(&duo.all(romeo)), said(&duo)), (vec!["offer 12.0".to_owned()], 1));
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    assert_eq!((words(&duo.all(romeo)), said(&duo)), (vec![], 2));
}

#[test]
fn a_stream_that_is_attached_again_hears_the_epoch_before_what_waited_for_it() {
    let mut duo = Duo::new();
    let (romeo, juliet) = (dual(&mut duo, B), duo.login(JULIET));
    duo.cut_link();
    duo.send(juliet, &say(ROMEO, "1"));
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    assert!(words(&duo.all(romeo)).is_empty(), "there is no way to it");
    duo.mend_link();
    assert_eq!(words(&duo.all(romeo)), ["offer 12.0", "message"]);
}

#[test]
fn a_stream_that_is_handed_over_hears_of_a_new_term_before_what_waits_for_it_and_not_when_it_has_left() {
    for is_parked in [true, false] {
        let mut duo = Duo::new();
        let romeo = dual(&mut duo, A);
        if is_parked {
            let parked = duo.open_at("romeo@example.org", B);
            let id = duo.sm_id(ROMEO);
            duo.send(parked, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
            assert_eq!(words(&duo.all(parked)), ["parked"]);
        } else {
            // This one is closed, when its hand-over is let go.
            duo.input(A, Input::Leaving);
        }
        duo.hold(true);
        duo.hand_over("romeo@example.org");
        let engine = duo.engines[A.index()].as_mut().unwrap();
        let told = |told: Vec<Output>| {
            let offer = b"<offer xmlns='urn:tandem:dual:0' epoch='12.1'";
            told.iter().any(|o| matches!(o, Output::Deliver(conn, said) if *conn == romeo.conn && said.starts_with(offer)))
        };
        assert!(told(engine.announcement(A, solo(), 0)), "what was given before may still wait");
        assert!(!told(engine.announcement(A, solo(), u64::MAX)), "it has left: the other node's word counts");
    }
}

#[test]
fn between_the_announcement_of_a_term_and_its_record_the_new_epoch_is_told() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    let told = duo.engines[A.index()].as_mut().unwrap().announcement(A, solo(), 0);
    assert_eq!(told, [], "it has no stream");
    let romeo = resume(&mut duo);
    assert_eq!(words(&duo.all(romeo)), ["offer 12.0", "resumed"]);
}

/// Both nodes led B's group alone; B's copy of its register goes on, and A's, up to term 10, is void.
fn settled() -> Input {
    let reg = Reg { term: Term(13), primary: B, mode: Mode::Solo, settled: Term(10) };
    Input::Lead { group: B, reg, late: false }
}

#[test]
fn who_was_handed_over_before_the_receiving_group_was_settled_may_have_been_served_elsewhere() {
    let epoch = |text: &str| text.parse().unwrap();
    for settled_first in [false, true] {
        let mut duo = Duo::new();
        dual(&mut duo, A);
        duo.hold(true);
        if settled_first {
            duo.input(B, settled());
            duo.deliver(A);
        }
        duo.input(A, Input::HandOver { user: bare("romeo@example.org") });
        if !settled_first {
            duo.input(B, settled());
        }
        // Both nodes come to hold the same, whichever record they met first.
        duo.hold(false);
        let branch = duo.session(ROMEO).unwrap().uncertain.clone();
        assert_eq!(branch.is_none(), settled_first, "the giver knew");
        if let Some(branch) = branch {
            assert!(branch.has(epoch("3.1")), "told when it was handed over");
            assert!(!branch.has(epoch("10.0")), "told by the node whose copy is void");
            assert!(branch.has(epoch("13.0")), "told by its owner since");
        }
    }
}

#[test]
fn what_is_known_of_a_branch_does_not_hang_on_the_other_groups_way() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    duo.hold(true);
    let reg = |group, reg| Input::Lead { group, reg, late: false };
    let other = Reg { term: Term(17), primary: B, mode: Mode::Pair, settled: Term(0) };
    duo.input(A, reg(A, Reg { term: Term(14), settled: Term(13), ..solo() }));
    duo.input(B, reg(B, other));
    // Each meets the records in another order, and both come to hold the same.
    duo.hold(false);
    let branch = duo.session(ROMEO).unwrap().uncertain.clone().unwrap();
    assert!(!branch.has("13.0".parse().unwrap()), "told by the node whose copy is void");
}

#[test]
fn who_was_told_what_is_not_known_here_resumes_when_it_is_heard_of() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    let romeo = resume_from(&mut duo, "13.0");
    duo.after(10_000);
    assert!(words(&duo.all(romeo)).is_empty(), "the link is up: it will be heard of");
    let given_back = Reg { term: Term(13), mode: Mode::Pair, ..solo() };
    duo.input(A, Input::Lead { group: A, reg: given_back, late: false });
    assert_eq!(words(&duo.all(romeo)), ["offer 13.0", "resumed"]);
}

#[test]
fn who_was_told_the_epoch_of_a_branch_that_becomes_void_is_refused() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    let romeo = resume_from(&mut duo, "13.0");
    assert!(words(&duo.all(romeo)).is_empty(), "nobody knows yet which branch goes on");
    let reg = Reg { term: Term(14), settled: Term(13), ..solo() };
    duo.input(A, Input::Lead { group: A, reg, late: false });
    assert_eq!(words(&duo.all(romeo)), ["failed"]);
}

/// An attempt that its client had given up came late, and nobody read the grant.
#[test]
fn who_was_told_the_epoch_of_a_void_branch_is_refused_after_a_grant_that_nobody_read() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    let reg = Reg { term: Term(14), settled: Term(13), ..solo() };
    duo.input(A, Input::Lead { group: A, reg, late: false });
    for _ in 0..2 {
        let late = resume_from(&mut duo, "2.0");
        assert_eq!(words(&duo.all(late)), ["offer 14.0", "resumed"]);
        duo.drop_tcp(late);
        let romeo = resume_from(&mut duo, "13.0");
        assert_eq!(words(&duo.all(romeo)), ["failed"]);
        duo.drop_tcp(romeo);
    }
    let read = resume_from(&mut duo, "14.0");
    assert_eq!(words(&duo.all(read)), ["offer 14.0", "resumed"]);
    duo.drop_tcp(read);
    let later = Reg { term: Term(16), mode: Mode::Pair, ..reg };
    duo.input(A, Input::Lead { group: A, reg: later, late: false });
    let again = resume_from(&mut duo, "14.0");
    assert_eq!(words(&duo.all(again)), ["offer 16.0", "resumed"]);
}

#[test]
fn a_node_that_is_cut_off_lets_go_of_who_was_told_what_it_cannot_hear_of() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    duo.cut_link();
    let unknown = resume_from(&mut duo, "13.0");
    duo.after(10_000);
    assert!(words(&duo.all(unknown)).is_empty(), "it does not lead alone: the other may yet lead");
    duo.input(A, Input::Lead { group: A, reg: solo(), late: false });
    duo.after(3_000);
    assert_eq!(words(&duo.all(unknown)), ["failed"], "a new session may be bound");
    let known = resume_from(&mut duo, "12.0");
    assert_eq!(words(&duo.all(known)), ["offer 12.0", "resumed"]);
}

#[test]
fn an_epoch_of_the_group_that_a_user_came_from_is_no_news() {
    let mut duo = juliet_was_handed_over();
    // Announced to her stream, which had left B with the hand-over.
    let reg = Reg { term: Term(13), primary: B, mode: Mode::Solo, settled: Term(0) };
    duo.input(B, Input::Lead { group: B, reg, late: false });
    let juliet = resume_of(&mut duo, JULIET, "d:epoch='13.0'");
    assert_eq!(words(&duo.all(juliet))[..2], ["offer 3.1", "resumed"]);
}

/// Node B gave her to A, where her stream had come from and is no more.
fn juliet_was_handed_over() -> Duo {
    let mut duo = Duo::new();
    let juliet = duo.login_at(A, JULIET);
    duo.send(juliet, "<request xmlns='urn:tandem:dual:0'/>");
    duo.drop_tcp(juliet);
    duo.input(B, Input::HandOver { user: bare("juliet@example.org") });
    duo
}

#[test]
fn an_epoch_of_the_group_that_a_user_came_from_is_no_branch_when_the_own_group_is_led_alone() {
    let mut duo = juliet_was_handed_over();
    let lead = |group, term, mode| {
        let reg = Reg { term: Term(term), primary: group, mode, settled: Term(0) };
        Input::Lead { group, reg, late: false }
    };
    // Announced to her stream, which had left B with the hand-over.
    duo.input(B, lead(B, 5, Mode::Solo));
    duo.input(A, lead(A, 8, Mode::Solo));
    let early = resume_of(&mut duo, JULIET, "d:epoch='5.0'");
    assert!(words(&duo.all(early)).is_empty(), "B may have led A's group under it, too");
    duo.drop_tcp(early);
    duo.input(B, lead(B, 7, Mode::Pair));
    duo.kill(B);
    let juliet = resume_of(&mut duo, JULIET, "d:epoch='5.0'");
    assert_eq!(words(&duo.all(juliet))[..2], ["offer 8.0", "resumed"]);
}

/// Node A led juliet's group alone under 10, and B under 9. They meet, and B is about to lead on under 13.
#[test]
fn an_epoch_of_the_other_branch_is_not_heard_of_before_it_is_settled_although_a_later_one_is_announced() {
    let mut duo = Duo::new();
    let juliet = duo.login_at(B, JULIET);
    duo.send(juliet, "<request xmlns='urn:tandem:dual:0'/>");
    duo.drop_tcp(juliet);
    duo.cut_link();
    let reg = |term, settled| Reg { term: Term(term), primary: B, mode: Mode::Solo, settled: Term(settled) };
    duo.input(B, Input::Lead { group: B, reg: reg(9, 0), late: false });
    duo.engines[B.index()].as_mut().unwrap().announcement(B, reg(13, 10), u64::MAX);
    let early = resume_of(&mut duo, JULIET, "d:epoch='10.0'");
    assert!(words(&duo.all(early)).is_empty(), "it waits");
    duo.drop_tcp(early);
    duo.input(B, Input::Lead { group: B, reg: reg(13, 10), late: false });
    let late = resume_of(&mut duo, JULIET, "d:epoch='10.0'");
    assert_eq!(words(&duo.all(late)), ["failed"], "what it counts is not here");
}

#[test]
fn whose_last_word_was_a_hand_over_that_is_here_was_promised_nothing_that_is_not() {
    let mut duo = juliet_was_handed_over();
    // Node B told 13.0, alone, before it let the hand-over go.
    duo.cut_link();
    let other = resume_of(&mut duo, JULIET, "d:epoch='13.0' d:moved='3.2'");
    assert!(words(&duo.all(other)).is_empty(), "a hand-over that never came");
    let juliet = resume_of(&mut duo, JULIET, "d:epoch='13.0' d:moved='3.1'");
    assert_eq!(words(&duo.all(juliet))[..2], ["offer 3.1", "resumed"]);
}

/// Node B died when it had announced that and before it let the hand-over go: to a stream that had left with it.
#[test]
fn who_left_with_a_hand_over_that_is_here_was_promised_nothing_behind_it_under_another_term() {
    let mut duo = juliet_was_handed_over();
    duo.cut_link();
    let reg = Reg { term: Term(8), primary: A, mode: Mode::Solo, settled: Term(0) };
    duo.input(A, Input::Lead { group: A, reg, late: false });
    for told in ["5.0", "5.2"] {
        let other = resume_of(&mut duo, JULIET, &format!("d:epoch='{told}'"));
        assert!(words(&duo.all(other)).is_empty(), "{told}: it left with something else, or with nothing");
        duo.drop_tcp(other);
    }
    let juliet = resume_of(&mut duo, JULIET, "d:epoch='5.1'");
    assert_eq!(words(&duo.all(juliet))[..2], ["offer 8.0", "resumed"]);
}

/// Romeo's main stream at A, and the one that he has parked at B.
fn stand_by(duo: &mut Duo) -> (Client, Client) {
    let main = dual(duo, A);
    let parked = duo.open_at("romeo@example.org", B);
    let id = duo.sm_id(ROMEO);
    duo.send(parked, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
    assert_eq!(words(&duo.all(parked)), ["parked"]);
    (main, parked)
}

/// He believes that his main stream is dead, and has counted so much on it.
fn resume_on(duo: &mut Duo, parked: Client, h: u32) {
    let id = duo.sm_id(ROMEO);
    duo.send(parked, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
}

fn resumptions(duo: &Duo) -> usize {
    duo.log.iter().filter(|record| matches!(record, Record::Resumed { .. })).count()
}

#[test]
fn a_resume_that_waits_is_withdrawn_when_its_socket_closes() {
    let mut duo = Duo::new();
    let (_, parked) = stand_by(&mut duo);
    let h = duo.session(ROMEO).unwrap().sent();
    resume_on(&mut duo, parked, h);
    assert!(duo.all(parked).is_empty(), "a has the session: it waits");
    duo.drop_tcp(parked);
    duo.kill(A);
    assert!(duo.all(parked).is_empty(), "nobody is called or answered there");
    assert_eq!(resumptions(&duo), 0);
    assert!(duo.session(ROMEO).unwrap().detached_ms.is_some(), "the session waits for its client");
    let again = resume(&mut duo);
    assert_eq!(words(&duo.all(again)), ["offer 11.0", "resumed"]);
}

#[test]
fn wait_voids_a_resume_and_the_next_one_names_what_was_counted_since() {
    let mut duo = Duo::new();
    let ((main, parked), juliet) = (stand_by(&mut duo), duo.login(JULIET));
    let before = duo.session(ROMEO).unwrap().sent();
    resume_on(&mut duo, parked, before);
    assert!(duo.all(parked).is_empty(), "a has the session: it waits");
    duo.after(2_001);
    assert_eq!(words(&duo.all(parked)), ["wait"]);
    // The main stream lives after all.
    duo.send(juliet, &say(ROMEO, "1"));
    assert_eq!(words(&duo.all(main)), ["message"]);
    duo.ack(main, ROMEO);
    duo.kill(A);
    assert_eq!(words(&duo.all(parked)), ["take"], "it is called, and the void resume is not answered");
    assert_eq!(resumptions(&duo), 0);
    let now = duo.session(ROMEO).unwrap().acked;
    assert_eq!(now, before + 1);
    resume_on(&mut duo, parked, now);
    assert_eq!(words(&duo.all(parked)), ["offer 11.0", "resumed"], "nothing comes twice");
}

/// Node B leads under 3 and A under 2: what B tells of its users from then on is as late as the hand-over itself.
#[test]
fn who_is_handed_to_a_group_with_a_higher_term_has_an_epoch_of_that_term() {
    let mut duo = Duo::new();
    let romeo = dual(&mut duo, A);
    duo.drop_tcp(romeo);
    duo.hand_over("romeo@example.org");
    let romeo = resume(&mut duo);
    assert_eq!(words(&duo.all(romeo))[..2], ["offer 3.1", "resumed"]);
}

#[test]
fn a_session_is_parked_so_often_in_a_minute_and_not_once_more() {
    let mut duo = Duo::with(Limits { parks_per_minute: 3, ..Limits::DEFAULT });
    let (_, mut parked) = stand_by(&mut duo);
    let park = |duo: &mut Duo| {
        let (client, id) = (duo.open_at("romeo@example.org", B), duo.sm_id(ROMEO));
        duo.send(client, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
        (client, duo.all(client))
    };
    for _ in 0..2 {
        let (next, got) = park(&mut duo);
        assert_eq!(words(&got), ["parked"]);
        assert!(duo.closed(parked).is_some(), "it takes the place of the one before");
        parked = next;
    }
    let (_, got) = park(&mut duo);
    assert!(words(&got) == ["failed"] && got[0].contains("resource-constraint"), "{got:?}");
    assert_eq!(duo.closed(parked), None, "the last one waits on");
    duo.after(60_000);
    assert_eq!(words(&park(&mut duo).1), ["parked"], "a minute later");
}
