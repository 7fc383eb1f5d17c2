//! What operators read of sessions, of users with several devices: each device counts, and each user once.

use super::*;

/// A device with its parked stream at the other node.
fn device(duo: &mut Duo, user: &str, name: &str) -> Client {
    let full = format!("{user}@example.org/{name}");
    let client = duo.login(&full);
    duo.ack(client, &full);
    duo.send(client, "<request xmlns='urn:tandem:dual:0'/>");
    assert!(duo.got(client).concat().contains("<offer"));
    let second = duo.open_at(&format!("{user}@example.org"), client.conn.node.peer());
    let id = duo.sm_id(&full);
    duo.send(second, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
    assert!(duo.got_one(second).contains("<parked"));
    client
}

/// At each node: client sessions that are active and parked, composed sessions, users served and held.
fn counted(duo: &Duo) -> [[u64; 5]; 2] {
    [0, 1].map(|node| {
        let c = duo.engines[node].as_ref().unwrap().counters();
        let sessions = [c.jsm_sessions_client, c.jsm_sessions_client_inactive, c.jsm_sessions_composed];
        [sessions[0], sessions[1], sessions[2], c.active_jsm_sessions, c.inactive_jsm_sessions]
    })
}

#[test]
fn each_device_of_a_user_is_a_client_session_and_the_user_is_counted_once() {
    let mut duo = Duo::new();
    assert_eq!(counted(&duo), [[0; 5]; 2]);
    let orchard = device(&mut duo, "romeo", "orchard");
    assert_eq!(counted(&duo), [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]);
    let balcony = device(&mut duo, "romeo", "balcony");
    assert_eq!(counted(&duo), [[2, 0, 1, 1, 0], [0, 2, 0, 0, 1]], "one user with two devices");
    device(&mut duo, "mercutio", "street");
    for name in ["chamber", "church", "tomb"] {
        device(&mut duo, "juliet", name);
    }
    assert_eq!(counted(&duo), [[3, 3, 2, 2, 1], [3, 3, 1, 1, 2]]);
    // A device that is lost for the moment still has its session.
    duo.drop_tcp(orchard);
    assert_eq!(counted(&duo).map(|node| [node[0], node[2], node[3], node[4]]), [[2, 2, 2, 1], [3, 1, 1, 2]]);
    duo.close(balcony);
    assert_eq!(counted(&duo).map(|node| [node[0], node[2], node[3], node[4]]), [[1, 2, 2, 1], [3, 1, 1, 2]]);
    // Without any the user is not there any more.
    duo.after(301_000);
    assert_eq!(counted(&duo).map(|node| [node[0], node[2], node[3], node[4]]), [[1, 1, 1, 1], [3, 1, 1, 1]]);
}

#[test]
fn what_a_client_has_acknowledged_takes_no_room_in_its_queue_any_more() {
    let (mut duo, full) = (Duo::new(), "romeo@example.org/orchard");
    let (romeo, juliet) = (duo.login(full), duo.login("juliet@example.org/balcony"));
    duo.ack(romeo, full);
    let queue = |duo: &Duo| duo.session(full).map(|s| (s.out_stanzas, s.out_bytes));
    assert_eq!(queue(&duo), Some((0, 0)));
    let mut waits = Vec::new();
    for body in ["first", "the second is longer"] {
        duo.send(juliet, &format!("<message to='{full}' type='chat'><body>{body}</body></message>"));
        waits.push(queue(&duo).expect("a session"));
    }
    let [(1, first), (2, both)] = waits[..] else { panic!("{waits:?}") };
    let h = duo.session(full).map_or(0, |s| s.sent()) - 1;
    duo.send(romeo, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    assert_eq!(queue(&duo), Some((1, both - first)), "the second is still there");
    duo.ack(romeo, full);
    assert_eq!(queue(&duo), Some((0, 0)));
}

/// By these a node knows that it answers its clients.
#[test]
fn a_login_and_a_resumption_are_answers_of_the_node_that_serves_the_user() {
    let (mut duo, full) = (Duo::new(), "romeo@example.org/orchard");
    let granted =
        |duo: &Duo| [0, 1].map(|node| duo.engines[node].as_ref().map_or(0, |engine| engine.granted()));
    assert_eq!(granted(&duo), [0, 0]);
    let romeo = duo.login(full);
    assert_eq!(granted(&duo), [1, 0]);
    duo.ack(romeo, full);
    let (id, h) = (duo.sm_id(full), duo.session(full).map_or(0, |s| s.sent()));
    duo.drop_tcp(romeo);
    duo.resume(id, "romeo@example.org", h);
    assert_eq!(granted(&duo), [2, 0]);
}
