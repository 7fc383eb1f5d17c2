//! Presence (RFC 6121 4): broadcast, probes, directed, what a resume tells.

use super::{Duo, presences};

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";
const MERCUTIO: &str = "mercutio@example.org";

/// Both directions of a friendship: on one node, and across the two.
fn friends(other: &str) -> (Duo, super::Client, super::Client) {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    let friend = duo.login(&format!("{other}/balcony"));
    duo.befriend(romeo, friend, [ROMEO, other]);
    (duo, romeo, friend)
}

#[test]
fn a_subscriber_sees_initial_presence_change_and_unavailable_once_each() {
    for other in [JULIET, MERCUTIO] {
        let (mut duo, romeo, friend) = friends(other);
        duo.send(romeo, "<presence><show>away</show></presence>");
        let shown = duo.got_one(friend);
        assert!(shown.contains("<show>away</show>") && shown.contains(&format!("to='{other}'")), "{shown}");
        duo.send(romeo, "<presence type='unavailable'><status>gone</status></presence>");
        let shown = duo.got_one(friend);
        assert!(shown.contains("unavailable") && shown.contains("gone"), "{shown}");
        duo.close(romeo);
        assert_eq!(duo.got(friend), Vec::<String>::new(), "unavailable already");
        let romeo = duo.bind_sm("romeo@example.org/orchard");
        assert_eq!(duo.got(friend), Vec::<String>::new(), "bound is not available");
        duo.send(romeo, "<presence/>");
        assert_eq!(presences(&duo.got(friend)), ["+ romeo@example.org/orchard"]);
    }
}
