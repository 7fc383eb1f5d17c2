//! What a front says waits for its node's frames, which the owner reads before: none of it is let go any more when the session
//! has come to the front's node meanwhile (D5).

use presence_engine::front::Relay;
use presence_engine::ids::Conn;
use xmpp_core::stanza::Stanza;

use super::sides::{Side, pair, settle};
use super::*;

const ROMEO: Conn = Conn { node: NodeIx::B, number: 1 };
const BIND: &str =
    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn romeo() -> BareJid {
    jid("romeo")
}

/// He logs in at B, which is his front.
fn log_in(b: &mut Side) {
    let element = |xml: &str| {
        let stanza = Stanza::parse(xml.as_bytes()).unwrap();
        Input::Element { conn: ROMEO, stanza }
    };
    let (user, salt, entropy) = (romeo(), Bytes::new(), [1; 16]);
    let opened = Input::Opened { conn: ROMEO, user, salt, entropy, token: None };
    b.driver.turn(0, vec![opened, element(BIND), element(ENABLE)], &mut b.disk);
}

fn hand_over(side: &mut Side) {
    side.driver.turn(0, vec![Input::HandOver { user: romeo() }], &mut side.disk);
}

/// Who owns him, as this node knows.
fn owner(side: &Side) -> Option<NodeIx> {
    side.driver.engine().state().owner_of(&romeo())
}

/// Both go on until nothing moves. What B says as a front meanwhile.
fn said(a: &mut Side, b: &mut Side) -> Vec<Relay> {
    let mut said = Vec::new();
    for _ in 0..2_000 {
        let mut moved = a.run();
        moved |= b.run();
        for what in a.driver.take() {
            match what {
                Do::Send(Link::Out, msg) => _ = b.driver.on_in(msg, &mut b.disk),
                Do::Send(Link::In, msg) => b.driver.on_out(msg, &mut b.disk),
                _ => continue,
            }
            moved = true;
        }
        for what in b.driver.take() {
            match what {
                Do::Send(Link::Out, msg) => _ = a.driver.on_in(msg, &mut a.disk),
                Do::Send(Link::In, msg) => a.driver.on_out(msg, &mut a.disk),
                Do::Release(Output::Relay(relay)) => {
                    said.push(relay);
                    continue;
                }
                _ => continue,
            }
            moved = true;
        }
        if !moved {
            return said;
        }
    }
    panic!("it does not end");
}

#[test]
fn what_a_front_said_is_not_let_go_behind_a_way_there_and_back() {
    for goes in [false, true] {
        let [mut a, mut b] = pair(&[]);
        a.add("romeo");
        settle(&mut a, &mut b);
        // It is on its way, and everything behind it waits.
        b.add("nurse");
        log_in(&mut b);
        if goes {
            hand_over(&mut a);
            for what in a.driver.take() {
                if let Do::Send(Link::Out, msg) = what {
                    b.driver.on_in(msg, &mut b.disk);
                }
            }
            b.driver.turn(0, Vec::new(), &mut b.disk);
            assert_eq!(owner(&b), Some(NodeIx::B));
            assert_eq!(b.driver.engine().state().user(&romeo()).unwrap().sessions.len(), 1, "he is bound");
            hand_over(&mut b);
            assert_eq!(owner(&b), Some(NodeIx::A));
            assert_eq!(b.driver.released() + 3, b.driver.own_end().seq, "all of it waits");
        }
        let said = said(&mut a, &mut b);
        assert_eq!((owner(&a), a.digest()), (Some(NodeIx::A), b.digest()));
        let fresh = |relay: &&Relay| matches!(relay, Relay::Open { attach: None, .. });
        let elements = |relay: &&Relay| matches!(relay, Relay::Element { .. });
        let counts = (said.iter().filter(fresh).count(), said.iter().filter(elements).count());
        assert_eq!(counts, if goes { (0, 0) } else { (1, 2) }, "{said:?}");
        if goes {
            // The owner may have heard of the name that is given up; under the new one he has his session.
            let [Relay::Closed { conn, clean: false }, Relay::Open { conn: new, attach: Some(_), .. }] =
                &said[..]
            else {
                panic!("{said:?}");
            };
            assert!(conn.number < new.number);
        }
    }
}
