//! What the driver tells its engine of what waits: a client without stream management has what was let go to it, and nothing
//! else.

use presence_engine::ids::Conn;
use xmpp_core::stanza::Stanza;

use super::sides::{Side, pair, settle};
use super::*;

const ANNA: Conn = Conn { node: NodeIx::A, number: 1 };
const IDA: Conn = Conn { node: NodeIx::A, number: 2 };

fn element(side: &mut Side, conn: Conn, xml: &str) {
    let stanza = Stanza::parse(xml.as_bytes()).unwrap();
    side.driver.turn(0, vec![Input::Element { conn, stanza }], &mut side.disk);
}

fn bind(side: &mut Side, conn: Conn, name: &str) {
    let (salt, entropy) = (Bytes::new(), [conn.number as u8; 16]);
    let opened = Input::Opened { conn, user: jid(name), salt, entropy, token: None };
    side.driver.turn(0, vec![opened], &mut side.disk);
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind>";
    element(side, conn, &format!("<iq type='set' id='b'>{bind}</iq>"));
}

/// What is in storage for anna.
fn stored(side: &Side) -> Vec<String> {
    let user = side.driver.engine().state().user(&jid("anna")).unwrap();
    user.offline.iter().map(|m| String::from_utf8_lossy(&m.stanza).into_owned()).collect()
}

#[test]
fn what_the_peer_has_yet_to_acknowledge_when_a_stream_ends_is_stored_and_nothing_else() {
    for waits in [true, false] {
        let [mut a, mut b] = pair(&[]);
        a.add("anna");
        a.add("ida");
        settle(&mut a, &mut b);
        bind(&mut a, ANNA, "anna");
        bind(&mut a, IDA, "ida");
        settle(&mut a, &mut b);
        element(&mut a, IDA, "<message to='anna@d/r' type='chat'><body>let go</body></message>");
        settle(&mut a, &mut b);
        assert_eq!(a.driver.commit.waiting_bytes(), 0, "it was let go");
        element(&mut a, IDA, "<message to='anna@d/r' type='chat'><body>waits</body></message>");
        if waits {
            // It is on the own disk, and on its way.
            while a.write() {}
            assert!(a.driver.lacks_peer());
        } else {
            settle(&mut a, &mut b);
        }
        a.driver.turn(0, vec![Input::Closed { conn: ANNA, clean: false }], &mut a.disk);
        settle(&mut a, &mut b);
        let found = stored(&a);
        assert_eq!(found.len(), usize::from(waits), "{found:?}");
        assert!(found.iter().all(|stanza| stanza.contains("<body>waits</body>")), "{found:?}");
        assert_eq!(a.digest(), b.digest());
    }
}
