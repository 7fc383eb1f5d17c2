//! A hostile client, as its socket sees it.

use std::collections::BTreeSet;

use bytes::Bytes;
use presence_engine::engine::Input;
use presence_engine::ids::{Conn, SmId};
use presence_engine::state::State;
use xmpp_core::dual::Dual;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::{Event, Framer, Limits};

use super::{DOMAIN, Game, Said};

/// With prefixes that its stanzas may use, and a language.
const HEADER: &[u8] = b"<stream:stream to='example.org' version='1.0' xml:lang='de' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x' xmlns:D='urn:tandem:dual:0'>";

/// One of two devices of a user.
pub(super) struct Client {
    pub(super) user: &'static str,
    pub(super) conn: Option<Conn>,
    framer: Framer,
    /// Elements that its connection wrote and did not get back the credit for.
    pub(super) uncredited: u32,
    /// The server ended the stream.
    pub(super) closed: bool,
    session: Option<SmId>,
    /// Number of the last stanza that it was given; `None` where nobody counts.
    given: Option<u32>,
    /// What it said when it resumed.
    resumes: u32,
}

impl Client {
    pub(super) fn new(user: &'static str) -> Client {
        Client {
            user,
            conn: None,
            framer: Framer::new(Limits::C2S),
            uncredited: 0,
            closed: false,
            session: None,
            given: None,
            resumes: 0,
        }
    }

    /// Its connection has ended.
    pub(super) fn gone(&mut self) {
        let (session, given) = (self.session, self.given);
        *self = Client { session, resumes: given.unwrap_or(self.resumes), ..Client::new(self.user) };
    }

    /// It is given something.
    pub(super) fn hear(&mut self, said: Said, writer: Option<&str>, bound: &mut BTreeSet<String>) {
        // A credit is for elements that were read before the end.
        assert!(!self.closed || matches!(said, Said::Credit), "{said:?} after the end of the stream");
        match said {
            Said::Credit => {
                self.uncredited = self.uncredited.checked_sub(1).expect("a credit for nothing");
            }
            Said::Bytes(bytes) => self.take(&bytes, writer, bound),
            Said::Close(last) => {
                if !last.is_empty() {
                    element(&last);
                }
                self.closed = true;
            }
        }
    }

    fn take(&mut self, bytes: &Bytes, writer: Option<&str>, bound: &mut BTreeSet<String>) {
        let stanza = element(bytes);
        if stanza.head.has_child(ns::BIND, "bind") && stanza.head.type_.as_deref() == Some("result") {
            let jid =
                stanza.child(ns::BIND, "bind").and_then(|b| b.child(ns::BIND, "jid").map(|j| j.text.clone()));
            let jid = jid.expect("a full JID");
            assert!(Jid::parse(&jid).is_ok_and(|jid| jid.bare_str() == self.user), "bound {jid}");
            bound.insert(jid);
            let conn = self.conn.expect("it hears by one");
            self.session = Some(SmId(entropy(conn)));
            return;
        }
        match (Sm::parse(&stanza), Dual::parse(&stanza)) {
            (Ok(Some(Sm::Enabled { .. })), _) => self.given = Some(0),
            (Ok(Some(Sm::Resumed { .. })), _) => self.given = Some(self.resumes),
            // It has become the parked stream.
            (_, Ok(Some(Dual::Moving { .. }))) => {
                (self.resumes, self.given) = (self.given.unwrap_or(0), None)
            }
            (Err(_), _) | (_, Err(_)) => panic!("nonsense: {bytes:?}"),
            _ => {}
        }
        if stanza.head.kind != Kind::Other {
            self.given = self.given.map(|given| given.wrapping_add(1));
            self.judge(&stanza, writer, bound);
        }
    }

    /// S18: it is for this client, and from whom it says.
    fn judge(&self, stanza: &Stanza, writer: Option<&str>, bound: &BTreeSet<String>) {
        let head = &stanza.head;
        let whole = || String::from_utf8_lossy(&stanza.bytes).into_owned();
        assert!(!head.jid_malformed, "{}", whole());
        assert!(head.to.as_ref().is_none_or(|to| to.bare_str() == self.user), "for another: {}", whole());
        let Some(from) = head.from.as_ref().filter(|_| head.type_.as_deref() != Some("error")) else {
            return;
        };
        let known =
            from.as_str() == DOMAIN || super::USERS.contains(&from.as_str()) || bound.contains(from.as_str());
        assert!(known, "from nobody: {}", whole());
        // What somebody else's device writes comes from that account. What waited is stamped, and may be from anybody.
        let Some(writer) = writer.filter(|writer| *writer != self.user) else { return };
        if matches!(head.kind, Kind::Message | Kind::Iq) && !head.has_child("urn:xmpp:delay", "delay") {
            let good = [writer, self.user, DOMAIN].contains(&from.bare_str());
            assert!(good, "{writer} wrote: {}", whole());
        }
    }

    /// It was given exactly what its session numbered.
    pub(super) fn check_number(&self, state: &State) {
        let (Some(given), Some(session), Some(_)) = (self.given, self.session, self.conn) else { return };
        let session = state.session(session).filter(|s| s.detached_ms.is_none());
        if let Some(s) = session {
            assert_eq!(given, s.sent(), "given to {}/{}", s.user, s.resource);
        }
    }
}

/// The one element that bytes for a client must be. A carbon copy is deeper than what is copied.
fn element(bytes: &[u8]) -> Stanza {
    let limits = Limits { depth: Limits::S2S.depth + 3, elements: Limits::S2S.elements + 3, ..Limits::S2S };
    let mut framer = Framer::new(limits);
    framer.feed(HEADER);
    framer.feed(bytes);
    let (opened, found, end) = (framer.next(), framer.next(), framer.next());
    assert!(matches!((opened, end), (Ok(Some(Event::StreamOpen(_))), Ok(None))) && framer.buffered() == 0);
    match found {
        Ok(Some(Event::Stanza(stanza))) => stanza,
        other => panic!("{other:?}: given {}", bytes.escape_ascii()),
    }
}

/// What becomes the session's id if the connection binds.
fn entropy(conn: Conn) -> [u8; 16] {
    [conn.number.to_le_bytes(), *b"tandem!!"].concat().try_into().expect("sixteen bytes")
}

impl Game {
    /// A new connection to the node that serves the account, or to the `other`.
    pub(super) fn connect(&mut self, i: usize, other: bool) {
        self.lose(i, false);
        self.look();
        let user = self.clients[i].user;
        let Some(owner) = self.duo.owner(user) else { return };
        let node = if other { owner.peer() } else { owner };
        let node = if self.duo.lives(node) { node } else { node.peer() };
        self.conns += 1;
        let conn = Conn { node, number: self.conns };
        let client = &mut self.clients[i];
        client.framer = Framer::new(Limits::C2S);
        client.framer.feed(HEADER);
        assert!(matches!(client.framer.next(), Ok(Some(Event::StreamOpen(_)))));
        client.conn = Some(conn);
        let user = BareJid::parse(user).expect("one of ours");
        self.duo.input(
            node,
            Input::Opened { conn, user, salt: Bytes::new(), token: None, entropy: entropy(conn) },
        );
    }

    /// The connection ends.
    pub(super) fn lose(&mut self, i: usize, clean: bool) {
        if let Some(conn) = self.clients[i].conn {
            self.clients[i].gone();
            self.duo.input(conn.node, Input::Closed { conn, clean });
        }
    }

    /// A client writes these bytes.
    pub(super) fn write(&mut self, i: usize, bytes: &[u8]) {
        if self.clients[i].conn.is_none() {
            self.connect(i, false);
        }
        self.clients[i].framer.feed(bytes);
        while let Some(conn) = self.clients[i].conn {
            let client = &mut self.clients[i];
            match client.framer.next() {
                Ok(Some(Event::Stanza(stanza))) => {
                    if let Ok(Some(Sm::Resume { previd, h, .. })) = Sm::parse(&stanza) {
                        client.resumes = h.0;
                        client.session = SmId::parse(&previd);
                    }
                    client.uncredited += 1;
                    self.writer = Some(client.user).filter(|_| !self.late);
                    self.duo.input(conn.node, Input::Element { conn, stanza });
                    self.look();
                    self.writer = None;
                }
                Ok(Some(_)) => self.lose(i, true),
                Ok(None) => return,
                Err(_) => self.lose(i, false),
            }
        }
    }

    /// The usual login.
    pub(super) fn bind(&mut self, i: usize) {
        if self.clients[i].conn.is_none() {
            self.connect(i, false);
        }
        let resource = ["desk", "hand"][i % 2];
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='{}'><resource>{resource}</resource></bind></iq>\
             <enable xmlns='{}' resume='true'/><iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>",
            ns::BIND,
            ns::SM
        );
        if !self.duo.is_whole() {
            // It waits, and may be bound and gone again before anybody looks.
            self.bound.insert(format!("{}/{resource}", self.clients[i].user));
        }
        self.write(i, bind.as_bytes());
    }

    /// Comes back to its session with the number that it knows.
    pub(super) fn resume(&mut self, i: usize) {
        let Some(session) = self.clients[i].session else { return };
        if self.clients[i].given.is_some() {
            self.lose(i, false);
        }
        let h = self.clients[i].resumes;
        self.write(i, format!("<resume xmlns='{}' previd='{session}' h='{h}'/>", ns::SM).as_bytes());
    }

    /// Its connection is lost, and the next one parks at the other node.
    pub(super) fn park(&mut self, i: usize) {
        let Some(session) = self.clients[i].session else { return };
        let to = (i ^ 1).min(7);
        // The other device of the user carries it: a stream more for the same account.
        self.connect(to, true);
        self.write(to, format!("<standby xmlns='{}' sm-id='{session}'/>", xmpp_core::dual::NS).as_bytes());
    }

    /// Says how much it has handled.
    pub(super) fn acknowledge(&mut self, i: usize) {
        if let Some(h) = self.clients[i].given {
            self.write(i, format!("<a xmlns='{}' h='{h}'/>", ns::SM).as_bytes());
        }
    }
}
