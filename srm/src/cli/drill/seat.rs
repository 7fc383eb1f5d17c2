//! A client of the test user: one stream, asked and answered step by step.

use std::time::Duration;

use client_sim::conn::{Account, Conn, Dialer};
use tokio::time::timeout;
use xmpp_core::dual::Peer;
use xmpp_core::ns;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::Writer;

/// RFC 6121 2.
const ROSTER: &str = "jabber:iq:roster";
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(15);

/// A resource that is logged in.
pub(super) struct Seat {
    conn: Conn,
    jid: String,
    next: u32,
}

impl Seat {
    /// Logs in through a node, and binds a resource.
    pub(super) async fn take(dialer: &Dialer, at: &Peer, account: &Account) -> Result<Seat, String> {
        let login = dialer.login(at, account);
        let (conn, _) = login.await.map_err(|error| format!("login through {}: {error}", at.node))?;
        let mut seat = Seat { conn, jid: String::new(), next: 0 };
        let answer = seat.ask("set", |w| {
            w.open("bind", ns::BIND);
            w.close();
        });
        let answer = answer.await.map_err(|why| format!("session through {}: {why}", at.node))?;
        let jid =
            answer.child(ns::BIND, "bind").and_then(|bind| Some(bind.child(ns::BIND, "jid")?.text.clone()));
        seat.jid = jid.ok_or("a session without an address")?.to_string();
        let mut presence = Writer::new();
        presence.open("presence", "");
        seat.conn.send(&presence.finish());
        Ok(seat)
    }

    /// An IQ, and its result.
    async fn ask(&mut self, kind: &str, payload: impl FnOnce(&mut Writer)) -> Result<Stanza, String> {
        self.next += 1;
        let id = format!("drill-{}", self.next);
        let mut w = Writer::new();
        w.open("iq", "").attr("type", kind).attr("id", &id);
        payload(&mut w);
        self.conn.send(&w.finish());
        let answer = self
            .until(|stanza| stanza.head.kind == Kind::Iq && stanza.head.id.as_deref() == Some(id.as_str()));
        let answer = answer.await?;
        match answer.head.type_.as_deref() {
            Some("result") => Ok(answer),
            _ => Err(format!("refused: {}", answer.inside())),
        }
    }

    /// Reads until there is what is wanted.
    async fn until(&mut self, fits: impl Fn(&Stanza) -> bool) -> Result<Stanza, String> {
        let read = async {
            loop {
                let stanza = self.conn.recv().await.map_err(|error| error.to_string())?;
                if fits(&stanza) {
                    return Ok(stanza);
                }
            }
        };
        timeout(LIMIT, read).await.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
    }

    /// The name of a contact in the roster; `None`: it is not there.
    pub(super) async fn contact(&mut self, contact: &str) -> Result<Option<String>, String> {
        let answer = self.ask("get", |w| {
            w.open("query", ROSTER);
            w.close();
        });
        let answer = answer.await.map_err(|why| format!("roster: {why}"))?;
        let Some(query) = answer.child(ROSTER, "query") else { return Ok(None) };
        let mut items = query.children_named(ROSTER, "item");
        let found = items.find(|item| item.attr("jid") == Some(contact));
        Ok(found.map(|item| item.attr("name").unwrap_or_default().to_owned()))
    }

    /// Writes a contact into the roster; without a name it is removed.
    pub(super) async fn set_contact(&mut self, contact: &str, name: Option<&str>) -> Result<(), String> {
        let set = self.ask("set", |w| {
            w.open("query", ROSTER).open("item", "").attr("jid", contact).attr_opt("name", name);
            w.attr_opt("subscription", name.is_none().then_some("remove"));
            w.close().close();
        });
        set.await.map(|_| ()).map_err(|why| format!("roster: {why}"))
    }

    /// A message to another resource of the user, which reads it.
    pub(super) async fn tell(&mut self, other: &mut Seat, body: &str) -> Result<(), String> {
        let mut w = Writer::new();
        w.open("message", "").attr("to", &other.jid).attr("type", "chat").open("body", "").text(body);
        self.conn.send(&w.finish());
        let flushed = self.conn.flush().await;
        flushed.map_err(|error| error.to_string())?;
        let came = other.until(|stanza| {
            let text = stanza.child("jabber:client", "body").map(|found| found.text.to_string());
            stanza.head.kind == Kind::Message && text.as_deref() == Some(body)
        });
        came.await.map(|_| ()).map_err(|why| format!("a message: {why}"))
    }

    /// Logs out.
    pub(super) async fn leave(self) {
        self.conn.close(Duration::from_secs(1)).await;
    }
}
