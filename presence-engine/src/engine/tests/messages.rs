//! Messages (RFC 6121 8.5), offline storage (XEP-0160), carbons (XEP-0280), bounds (S8, S28).

use super::{A, B, Client, Duo, Limits, bare};
use crate::engine::delivery::{Account, Delivery, Named, TABLE, Type};

const ROMEO: &str = "romeo@example.org";
const ORCHARD: &str = "romeo@example.org/orchard";

fn message(to: &str, type_: &str, body: &str) -> String {
    let type_ = if type_.is_empty() { String::new() } else { format!(" type='{type_}'") };
    format!("<message to='{to}' id='{body}'{type_}><body>{body}</body></message>")
}

fn bodies(got: &[String]) -> Vec<String> {
    let body = |s: &String| Some(s.split("<body>").nth(1)?.split('<').next()?.to_owned());
    got.iter().filter(|s| !s.contains("urn:xmpp:carbons:2")).filter_map(body).collect()
}

fn has(got: &[String], what: &str) -> bool {
    got.iter().any(|s| s.contains(what))
}

const TYPES: [(Type, &str); 5] = [
    (Type::Normal, ""),
    (Type::Chat, "chat"),
    (Type::Groupchat, "groupchat"),
    (Type::Headline, "headline"),
    (Type::Error, "error"),
];

#[test]
fn every_cell_of_the_table_of_deliveries() {
    for (column, (type_, attribute)) in TYPES.into_iter().enumerate() {
        assert_eq!((Type::of(Some(attribute)), type_ as usize), (type_, column));
        for (account, named, row) in TABLE {
            for name in ["juliet", "mercutio"] {
                cell(name, account, named, attribute, row[column]);
            }
        }
    }
}

/// One cell, with the addressee on the other node or on this one.
fn cell(name: &str, account: Account, named: Named, type_: &str, expected: Delivery) {
    let at = format!("{account:?} {named:?} {type_} -> {expected:?} ({name})");
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let user =
        if account == Account::Missing { "nobody@example.org".into() } else { format!("{name}@example.org") };
    let mut devices: Vec<Client> = Vec::new();
    let priorities: &[Option<i8>] = match account {
        Account::Missing => &[],
        Account::Away if named == Named::Resource => &[None],
        Account::Away => &[],
        Account::Negative => &[Some(-1), Some(-128)],
        Account::Present => &[Some(-1), Some(0), Some(5)],
    };
    for (i, priority) in priorities.iter().enumerate() {
        let device = duo.bind_sm(&format!("{user}/d{i}"));
        if let Some(priority) = priority {
            duo.send(device, &format!("<presence><priority>{priority}</priority></presence>"));
        }
        devices.push(device);
    }
    devices.iter().for_each(|d| drop(duo.got(*d)));
    let to = match named {
        Named::Bare => user.clone(),
        Named::Resource => format!("{user}/d0"),
        Named::NoResource => format!("{user}/elsewhere"),
    };
    duo.send(romeo, &message(&to, type_, "x"));
    let got: Vec<bool> = devices.iter().map(|d| has(&duo.got(*d), "<body>x</body>")).collect();
    let delivered: Vec<bool> = (0..devices.len())
        .map(|i| match expected {
            Delivery::One => i == 0,
            Delivery::All => priorities[i].is_some_and(|p| p >= 0),
            _ => false,
        })
        .collect();
    assert_eq!(got, delivered, "{at}");
    assert_eq!(has(&duo.got(romeo), "service-unavailable"), expected == Delivery::Bounce, "{at}");
    let stored = duo.state().user(&bare(&user)).map_or(0, |u| u.offline.len());
    assert_eq!(stored == 1, expected == Delivery::Store, "{at}");
}

#[test]
fn a_stored_message_comes_with_its_delay_and_survives_a_failover() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    duo.send(romeo, &message("mercutio@example.org", "chat", "1"));
    duo.send(romeo, &message("mercutio@example.org", "", "2"));
    duo.kill(A);
    let mercutio = duo.login_raw("mercutio@example.org/street");
    let got = duo.got(mercutio);
    assert_eq!(bodies(&got), ["1", "2"]);
    assert!(has(&got, "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2023-11-14T22:13:20.000Z'/>"));
}

/// It was given to both devices. The phone will get it again; the laptop has it still, so it is nobody else's.
#[test]
fn what_another_device_still_holds_is_not_given_to_a_third() {
    let mut duo = Duo::new();
    let juliet = duo.login("juliet@example.org/balcony");
    let [laptop, phone] = ["laptop", "phone"].map(|name| duo.login(&format!("romeo@example.org/{name}")));
    duo.send(juliet, &message("romeo@example.org", "chat", "1"));
    assert_eq!([laptop, phone].map(|device| bodies(&duo.got(device))), [["1"], ["1"]]);
    duo.close(phone);
    let tablet = duo.login_raw("romeo@example.org/tablet");
    assert!(bodies(&duo.got(tablet)).is_empty());
    let phone = duo.login_raw("romeo@example.org/phone");
    assert_eq!(bodies(&duo.got(phone)), ["1"]);
}

/// A wall clock that was set back, and that of the node which takes over, may be behind.
#[test]
fn stamps_of_messages_that_wait_never_go_back() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    duo.send(romeo, &message("mercutio@example.org", "chat", "1"));
    duo.now_ms -= 2 * 3_600_000;
    duo.send(romeo, &message("mercutio@example.org", "chat", "2"));
    duo.kill(A);
    duo.now_ms -= 60_000;
    let nurse = duo.login("nurse@example.org/street");
    duo.send(nurse, &message("mercutio@example.org", "chat", "3"));
    let mercutio = duo.login_raw("mercutio@example.org/street");
    let got = duo.got(mercutio);
    assert_eq!(bodies(&got), ["1", "2", "3"]);
    let first = "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2023-11-14T22:13:20.000Z'/>";
    assert_eq!(got.iter().filter(|stanza| stanza.contains(first)).count(), 3, "{got:?}");
}

/// D14: a session without stream management that lost its stream is given nothing, although its end is not written yet.
#[test]
fn what_was_on_its_way_to_a_session_that_cannot_come_back_is_stored_or_returned() {
    let mut duo = Duo::new();
    let balcony = "juliet@example.org/balcony";
    let (romeo, juliet) = (duo.login(ORCHARD), duo.bind(balcony));
    duo.send(juliet, "<presence/>");
    // All of it is in the log of A when B dies without having done anything about it.
    duo.hold(true);
    duo.send(romeo, &message(balcony, "chat", "1"));
    duo.send(romeo, &message("juliet@example.org", "chat", "2"));
    duo.send(romeo, &format!("<iq to='{balcony}' id='q' type='get'><x xmlns='y'/></iq>"));
    duo.lose(B);
    duo.hold(false);
    let answer = duo.got_one(romeo);
    assert!(answer.contains("id='q'") && answer.contains("service-unavailable"), "{answer}");
    let juliet = duo.login_raw(balcony);
    assert_eq!(bodies(&duo.got(juliet)), ["1", "2"]);
}

#[test]
fn what_is_not_stored_is_an_error_or_no_message_of_a_person() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let hint = "<no-store xmlns='urn:xmpp:hints'/>";
    for (inside, bounces) in [
        (format!("<body>x</body>{hint}"), true),
        (format!("<received xmlns='urn:xmpp:receipts' id='1'/>{hint}"), false),
        ("<composing xmlns='http://jabber.org/protocol/chatstates'/>".into(), false),
    ] {
        duo.send(romeo, &format!("<message to='juliet@example.org' type='chat'>{inside}</message>"));
        assert_eq!(has(&duo.got(romeo), "service-unavailable"), bounces, "{inside}");
    }
    assert!(duo.state().user(&bare("juliet@example.org")).unwrap().offline.is_empty());
}

#[test]
fn a_full_offline_store_sends_back_and_loses_nothing() {
    for limits in
        [Limits { offline_messages: 2, ..Limits::DEFAULT }, Limits { offline_bytes: 300, ..Limits::DEFAULT }]
    {
        let mut duo = Duo::with(limits);
        let romeo = duo.login(ORCHARD);
        for body in ["1", "2", "3"] {
            duo.send(romeo, &message("juliet@example.org", "chat", body));
        }
        let back = duo.got(romeo);
        let back = back.iter().filter(|s| s.contains("service-unavailable")).count();
        let juliet = duo.login_raw("juliet@example.org/balcony");
        assert_eq!(bodies(&duo.got(juliet)).len() + back, 3);
        assert!(back > 0);
    }
}

#[test]
fn seen_on_one_device_and_expired_on_the_other_it_waits_for_the_other_alone() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let laptop = duo.login("juliet@example.org/laptop");
    let phone = duo.login("juliet@example.org/phone");
    duo.ack(phone, "juliet@example.org/phone");
    duo.drop_tcp(phone);
    duo.send(romeo, &message("juliet@example.org", "chat", "1"));
    duo.ack(laptop, "juliet@example.org/laptop");
    duo.after(301_000);
    assert!(duo.session("juliet@example.org/phone").is_none());
    duo.close(laptop);
    let laptop = duo.login_raw("juliet@example.org/laptop");
    assert!(bodies(&duo.got(laptop)).is_empty(), "shown there already");
    let tablet = duo.login_raw("juliet@example.org/tablet");
    assert!(bodies(&duo.got(tablet)).is_empty(), "seen by its user, and never given to this device");
    let phone = duo.login_raw("juliet@example.org/phone");
    assert_eq!(bodies(&duo.got(phone)), ["1"], "no device eats what another must get");
    duo.ack(phone, "juliet@example.org/phone");
    duo.close(phone);
    let phone = duo.login_raw("juliet@example.org/phone");
    assert!(bodies(&duo.got(phone)).is_empty());
    assert!(duo.state().user(&bare("juliet@example.org")).unwrap().offline.is_empty());
}

#[test]
fn what_a_device_did_not_take_another_that_is_there_takes_at_once() {
    for binds_again in [false, true] {
        let mut duo = Duo::new();
        let romeo = duo.login(ORCHARD);
        let laptop = duo.login("juliet@example.org/laptop");
        let phone = duo.login("juliet@example.org/phone");
        duo.ack(phone, "juliet@example.org/phone");
        duo.drop_tcp(laptop);
        duo.send(romeo, &message("juliet@example.org/laptop", "chat", "1"));
        if binds_again {
            duo.bind_sm("juliet@example.org/laptop");
        } else {
            duo.after(301_000);
        }
        assert_eq!(bodies(&duo.got(phone)), ["1"]);
        duo.send(romeo, &message("juliet@example.org/phone", "chat", "2"));
        assert_eq!(bodies(&duo.got(phone)), ["2"], "not stuck behind anything");
        let laptop = duo.login_raw("juliet@example.org/laptop");
        assert_eq!(bodies(&duo.got(laptop)), ["1"]);
    }
}

#[test]
fn what_comes_before_the_first_presence_waits_behind_what_the_resource_left() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let balcony = "juliet@example.org/balcony";
    let juliet = duo.login(balcony);
    duo.drop_tcp(juliet);
    duo.send(romeo, &message(balcony, "chat", "1"));
    let juliet = duo.bind_sm(balcony);
    duo.send(romeo, &message(balcony, "chat", "2"));
    duo.send(juliet, "<presence/>");
    assert_eq!(bodies(&duo.got(juliet)), ["1", "2"]);
    // Where nothing was left a full JID reaches a resource without presence.
    let hall = duo.bind_sm("juliet@example.org/hall");
    duo.send(romeo, &message("juliet@example.org/hall", "chat", "3"));
    assert_eq!(bodies(&duo.got(hall)), ["3"]);
}

#[test]
fn expired_on_both_it_is_shown_once_on_each() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let devices = ["juliet@example.org/laptop", "juliet@example.org/phone"];
    let clients = devices.map(|d| duo.login(d));
    for (client, device) in clients.into_iter().zip(devices) {
        duo.ack(client, device);
        duo.drop_tcp(client);
    }
    duo.send(romeo, &message("juliet@example.org", "chat", "1"));
    duo.after(301_000);
    for device in devices {
        let client = duo.login_raw(device);
        assert_eq!(bodies(&duo.got(client)), ["1"], "{device}");
        duo.ack(client, device);
    }
    assert!(duo.state().user(&bare("juliet@example.org")).unwrap().offline.is_empty());
}

#[test]
fn a_queue_that_nobody_acknowledges_ends_the_session_and_nothing_is_lost() {
    for limits in
        [Limits { queue_stanzas: 6, ..Limits::DEFAULT }, Limits { queue_bytes: 1_000, ..Limits::DEFAULT }]
    {
        for lost in [false, true] {
            let mut duo = Duo::with(limits);
            let romeo = duo.login(ORCHARD);
            let juliet = duo.login("juliet@example.org/balcony");
            duo.ack(juliet, "juliet@example.org/balcony");
            if lost {
                duo.drop_tcp(juliet);
            }
            let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
            for name in &names {
                duo.send(romeo, &message("juliet@example.org", "chat", name));
            }
            assert!(duo.session("juliet@example.org/balcony").is_none());
            if !lost {
                assert!(duo.closed(juliet).unwrap().contains("resource-constraint"));
            }
            // The next session takes it in portions, as it acknowledges, and what comes meanwhile behind it.
            let other = "juliet@example.org/other";
            let juliet = duo.login_raw(other);
            let mut got = bodies(&duo.got(juliet));
            assert!(!got.is_empty() && got.len() < 12, "{got:?}");
            duo.send(romeo, &message("juliet@example.org", "chat", "last"));
            while !got.ends_with(&["last".to_owned()]) {
                duo.ack(juliet, other);
                let more = bodies(&duo.got(juliet));
                assert!(!more.is_empty(), "{got:?}");
                got.extend(more);
            }
            let names: Vec<String> = names.into_iter().chain(["last".to_owned()]).collect();
            assert_eq!(got, names, "in order and complete");
            assert!(duo.closed(juliet).is_none());
            assert!(!has(&duo.got(romeo), "error"));
        }
    }
}

#[test]
fn an_account_has_so_many_resources_and_no_more() {
    let mut duo = Duo::with(Limits { resources: 2, ..Limits::DEFAULT });
    duo.login(ORCHARD);
    duo.login("romeo@example.org/home");
    let third = duo.try_bind("romeo@example.org/third");
    assert!(third.contains("resource-constraint"), "{third}");
    duo.bind(ORCHARD);
    assert_eq!(
        duo.state().user(&bare(ROMEO)).unwrap().sessions.len(),
        2,
        "the same resource again is no third"
    );
}

fn with_carbons(duo: &mut Duo, full: &str) -> Client {
    let client = duo.login(full);
    duo.send(client, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    assert!(duo.got_one(client).contains("type='result'"));
    client
}

/// Romeo with two devices that want copies, Juliet with two.
fn devices() -> (Duo, [Client; 4]) {
    let mut duo = Duo::new();
    let romeo = with_carbons(&mut duo, ORCHARD);
    let home = with_carbons(&mut duo, "romeo@example.org/home");
    let juliet = with_carbons(&mut duo, "juliet@example.org/balcony");
    let hall = with_carbons(&mut duo, "juliet@example.org/hall");
    let all = [romeo, home, juliet, hall];
    all.into_iter().for_each(|c| drop(duo.got(c)));
    (duo, all)
}

#[test]
fn both_sides_of_a_conversation_reach_all_devices_once() {
    let (mut duo, [romeo, home, juliet, hall]) = devices();
    duo.send(romeo, &message("juliet@example.org/balcony", "chat", "hi"));
    assert!(duo.got(romeo).is_empty());
    let sent = duo.got_one(home);
    assert!(
        sent.starts_with(
            "<message xmlns='jabber:client' from='romeo@example.org' to='romeo@example.org/home' type='chat'>\
                          <sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                          <message xmlns='jabber:client'"
        ),
        "{sent}"
    );
    assert!(sent.contains("from='romeo@example.org/orchard'") && sent.contains("<body>hi</body>"), "{sent}");
    assert_eq!(bodies(&duo.got(juliet)), ["hi"]);
    let received = duo.got_one(hall);
    assert!(received.contains("<received xmlns='urn:xmpp:carbons:2'>"), "{received}");
    assert!(received.contains("from='juliet@example.org' to='juliet@example.org/hall'"), "{received}");
    // To the account: everybody who is available has it, so nobody gets a copy.
    duo.send(romeo, &message("juliet@example.org", "chat", "all"));
    assert_eq!(bodies(&duo.got(juliet)), ["all"]);
    assert_eq!(bodies(&duo.got(hall)), ["all"]);
    // With a negative priority a device gets a copy of what it is not given.
    duo.send(hall, "<presence><priority>-1</priority></presence>");
    duo.got(hall);
    duo.send(romeo, &message("juliet@example.org", "chat", "some"));
    assert!(duo.got_one(hall).contains("<received"));
}

#[test]
fn carbons_go_on_after_a_failover_and_off_when_disabled() {
    let (mut duo, [romeo, home, ..]) = devices();
    let (id, sent) =
        (duo.sm_id("romeo@example.org/home"), duo.session("romeo@example.org/home").unwrap().sent());
    let (own, own_sent) = (duo.sm_id(ORCHARD), duo.session(ORCHARD).unwrap().sent());
    let _ = (romeo, home);
    duo.kill(A);
    let (home, _) = duo.resume(id, ROMEO, sent);
    let (romeo, _) = duo.resume(own, ROMEO, own_sent);
    duo.send(romeo, &message("juliet@example.org", "chat", "1"));
    assert!(duo.got_one(home).contains("<sent"));
    duo.send(home, "<iq type='set' id='c'><disable xmlns='urn:xmpp:carbons:2'/></iq>");
    duo.got(home);
    duo.send(romeo, &message("juliet@example.org", "chat", "2"));
    assert!(duo.got(home).is_empty());
}

#[test]
fn what_is_copied_and_what_is_not() {
    let private = "<private xmlns='urn:xmpp:carbons:2'/>";
    let hint = "<no-copy xmlns='urn:xmpp:hints'/>";
    let body = "<body>x</body>";
    let receipt = "<received xmlns='urn:xmpp:receipts' id='1'/>";
    for (type_, inside, sent, received) in [
        ("chat", body.to_owned(), true, true),
        ("chat", "<x xmlns='y'/>".into(), true, true),
        ("normal", body.to_owned(), true, true),
        ("normal", receipt.into(), true, true),
        ("normal", "<x xmlns='y'/>".into(), false, false),
        ("headline", body.to_owned(), false, false),
        ("groupchat", body.to_owned(), false, false),
        ("chat", format!("{body}{private}{hint}"), false, false),
        ("chat", format!("{body}{private}"), false, false),
        ("chat", format!("{body}{hint}"), false, false),
        ("chat", format!("{body}<x xmlns='http://jabber.org/protocol/muc#user'/>"), true, false),
        ("error", "<error type='cancel'/>".into(), false, true),
    ] {
        let (mut duo, [romeo, home, juliet, hall]) = devices();
        duo.send(
            romeo,
            &format!("<message to='juliet@example.org/balcony' type='{type_}' id='1'>{inside}</message>"),
        );
        assert_eq!(duo.got(juliet).len(), 1, "{type_} {inside}");
        assert_eq!(has(&duo.got(home), "<sent"), sent, "{type_} {inside}");
        assert_eq!(has(&duo.got(hall), "<received"), received, "{type_} {inside}");
    }
}

#[test]
fn s20_a_copy_comes_from_the_account_and_nobody_else_can_say_so() {
    let (mut duo, [romeo, _, juliet, hall]) = devices();
    let forged = "<message to='juliet@example.org/balcony' from='juliet@example.org' type='chat'>\
                  <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                  <message xmlns='jabber:client' from='nurse@example.org/x'><body>come</body></message>\
                  </forwarded></received></message>";
    for sender in [romeo, hall] {
        duo.send(sender, forged);
        let got = duo.got_one(juliet);
        let own = got.contains("from='romeo@example.org/orchard'")
            || got.contains("from='juliet@example.org/hall'");
        assert!(own && !got.contains("from='juliet@example.org'"), "{got}");
        duo.got(hall);
    }
}

#[test]
fn a_copy_is_well_formed_whatever_stands_in_the_start_tag() {
    let (mut duo, [romeo, home, juliet, hall]) = devices();
    duo.send(romeo, "<message to='juliet@example.org/balcony' a=\">\" xmlns='jabber:client' type='chat'><body>x</body></message>");
    duo.send(romeo, "<c:message xmlns:c='jabber:client' to='juliet@example.org/balcony' type='chat'><c:body>y</c:body></c:message>");
    for client in [home, juliet, hall] {
        let got = duo.got(client);
        assert_eq!(got.len(), 2, "{got:?}");
        got.iter().for_each(|s| drop(xmpp_core::Stanza::parse(s.as_bytes()).unwrap()));
    }
}

#[test]
fn a_copy_is_as_long_as_what_it_is_a_copy_of() {
    let (mut duo, [romeo, home, juliet, hall]) = devices();
    let text = format!(
        "<message to='juliet@example.org/balcony' type='chat' xmlns:p=\"{}\"><body>a<i/>b{}</body>{}</message>",
        "'".repeat(200),
        ">".repeat(1_000),
        "<p:a><b/></p:a>".repeat(1_000)
    );
    duo.send(romeo, &text);
    let original = duo.got_one(juliet);
    for client in [home, hall] {
        let copy = duo.got_one(client);
        assert!(copy.len() < original.len() + 1_000, "{} bytes of {}", copy.len(), original.len());
        assert!(copy.contains("<body>a<i/>b>>"), "as it was written");
    }
}

#[test]
fn a_note_to_oneself_reaches_each_device_once() {
    let (mut duo, [romeo, home, ..]) = devices();
    duo.send(romeo, &message(ROMEO, "chat", "note"));
    assert_eq!(duo.got(home).len(), 1);
    assert_eq!(duo.got(romeo).len(), 1);
    duo.send(romeo, &message("romeo@example.org/home", "chat", "note"));
    assert_eq!(duo.got(home).len(), 1);
    assert!(duo.got(romeo).is_empty());
}

#[test]
fn chat_states_are_copied_without_being_kept() {
    let (mut duo, [romeo, home, _, hall]) = devices();
    duo.send(
        romeo,
        "<message to='juliet@example.org/balcony' type='chat'>\
         <composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    assert!(has(&duo.got(home), "composing") && has(&duo.got(hall), "composing"));
    let queue = &duo.session("juliet@example.org/hall").unwrap().out;
    assert!(matches!(queue.back(), Some(crate::state::Entry::Gap { about: None })), "{queue:?}");
}

#[test]
fn s43_a_delay_in_the_servers_name_is_taken_out() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    let delay = |from: &str| format!("<delay xmlns='urn:xmpp:delay'{from} stamp='2000-01-01T00:00:00Z'/>");
    let text = format!(
        "<message to='juliet@example.org' type='chat' xml:lang='it'><body>a &lt; b</body>{}{}{}</message>",
        delay(" from='example.org'"),
        delay(""),
        delay(" from='romeo@example.org'")
    );
    duo.send(romeo, &text);
    let got = duo.got_one(juliet);
    assert_eq!(got.matches("<delay").count(), 1, "{got}");
    assert!(got.contains("from='romeo@example.org'") && got.contains("a &lt; b"), "{got}");
    assert!(got.contains("xml:lang='it'") && got.contains("from='romeo@example.org/orchard'"), "{got}");
}

/// What is left is copied, not built anew: it must not become longer than a stanza may be.
#[test]
fn a_long_message_with_a_forged_delay_is_handled() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    let delay = "<delay xmlns='urn:xmpp:delay' stamp='2000-01-01T00:00:00Z'/>";
    let body = ">".repeat(200_000);
    duo.send(
        romeo,
        &format!("<message to='juliet@example.org' type='chat'>{delay}<body>{body}</body></message>"),
    );
    let got = duo.got_one(juliet);
    assert!(got.contains(&body) && !got.contains("<delay"), "{} bytes", got.len());
}

#[test]
fn a_client_is_asked_for_its_count_at_once_and_if_it_gets_much_after_every_few() {
    let mut duo = Duo::new();
    let (romeo, juliet) = (duo.login(ORCHARD), duo.login("juliet@example.org/balcony"));
    let mut number = 0;
    let mut asked = |duo: &mut Duo, messages: u32| {
        let mut asked = Vec::new();
        for _ in 0..messages {
            number += 1;
            duo.send(juliet, &message(ORCHARD, "chat", &number.to_string()));
            let question = duo.all(romeo).iter().any(|s| s.starts_with("<r "));
            if question {
                duo.ack(romeo, ORCHARD);
            }
            asked.push(question);
        }
        asked
    };
    duo.ack(romeo, ORCHARD);
    duo.after(250);
    assert_eq!(asked(&mut duo, 2), [true, false], "nothing was asked for a while");
    duo.after(250);
    assert!(has(&duo.all(romeo), "<r "), "the rest of a burst");
    duo.ack(romeo, ORCHARD);
    let often = asked(&mut duo, 30);
    let places: Vec<usize> = (0..30).filter(|i| often[*i]).collect();
    assert_eq!(places, [9, 19, 29], "not after every one");
}
