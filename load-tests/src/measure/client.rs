//! What a client says and waits for: the same for every server.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use client_sim::conn::{Account, Conn, Dialer};
use client_sim::fleet::{in_turn, user_name};
use client_sim::plain::{Outcome, establish};
use rustls::pki_types::ServerName;
use srm::demo::pair::{DOMAIN, PASSWORD};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use xmpp_core::dual::{Dual, Peer, Told};
use xmpp_core::sasl::KeyCache;
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::xml::Writer;
use xmpp_core::{Kind, Stanza, ns};

use super::floor;

/// How long anything may take that is not the load itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// How clients reach a server.
#[derive(Clone)]
pub struct Access {
    /// Where it listens: one place for each node.
    pub places: Vec<Peer>,
    /// Trust, and the one mechanism.
    pub dialer: Dialer,
    /// Whether it is the floor, which knows no XMPP.
    pub floor: bool,
    /// Keys of passwords, so that a second login costs a client nothing.
    pub keys: Arc<KeyCache>,
    /// The addresses that clients come from, in turn; none: the one that the system takes.
    pub from: Vec<IpAddr>,
}

/// A session: stream management is on and presence was sent.
pub struct Client {
    pub(super) conn: Conn,
    pub(super) user: usize,
    /// Stanzas that were handled.
    pub(super) inbound: u32,
    pub(super) sm_id: Option<String>,
    /// The epochs that the stream told.
    pub(super) told: Option<Told>,
    /// The re-login limits that it told last, in seconds.
    pub(super) limits: Option<(u32, u32)>,
}

impl Client {
    pub(super) fn new(conn: Conn, user: usize, inbound: u32, sm_id: Option<String>) -> Client {
        Client { conn, user, inbound, sm_id, told: None, limits: None }
    }
}

impl Access {
    fn account(&self, user: usize) -> Account {
        Account {
            user: user_name(user),
            domain: DOMAIN.into(),
            password: PASSWORD.into(),
            resource: Some("measure".into()),
            keys: Arc::clone(&self.keys),
        }
    }

    fn place(&self, node: usize) -> &Peer {
        &self.places[node % self.places.len()]
    }

    fn dialer_of(&self, user: usize) -> Dialer {
        let mut dialer = self.dialer.clone();
        dialer.from = in_turn(&self.from, self.places.len(), user);
        dialer
    }

    /// Connects, logs in, binds, turns stream management on, sends presence, and waits until the server has counted it.
    pub async fn log_in(&self, user: usize, node: usize) -> anyhow::Result<Client> {
        let login = async {
            if self.floor {
                return self.greet_floor(user).await;
            }
            let at = self.place(node).clone();
            let account = self.account(user);
            let made = establish(&self.dialer_of(user), &self.places, at, &account, None, None).await?;
            let Outcome::Bound { sm_id: Some(sm_id), early, .. } = made.outcome else {
                bail!("the server does not offer stream management with resumption");
            };
            let mut client = Client::new(made.conn, user, early.len() as u32, Some(sm_id));
            let mut presence = Writer::new();
            presence.open("presence", "");
            client.conn.send(&presence.finish());
            client.conn.send(&Sm::Request.to_bytes());
            client.until(|heard| matches!(heard, Heard::Acknowledged(1..))).await?;
            Ok(client)
        };
        timeout(PATIENCE, login).await.context("the login takes too long")?.context(user_name(user))
    }

    async fn greet_floor(&self, user: usize) -> anyhow::Result<Client> {
        let place = self.place(0);
        let tcp = TcpStream::connect((place.host.as_str(), place.port)).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(self.dialer.tls());
        let tls = tls.connect(ServerName::try_from(DOMAIN)?, tcp).await?;
        let mut conn = Conn::over(tls);
        conn.send(floor::greeting(user).as_bytes());
        conn.recv().await?;
        Ok(Client::new(conn, user, 0, None))
    }

    /// A second stream of a session, parked at the other node. The client that it belongs to must be asked before:
    /// [`Client::ask_for_second`].
    pub async fn park(&self, user: usize, node: usize, sm_id: &str) -> anyhow::Result<Client> {
        let park = async {
            let (mut conn, _) = self.dialer_of(user).login(self.place(node), &self.account(user)).await?;
            conn.send(&Dual::Standby { sm_id: sm_id.into() }.to_bytes());
            loop {
                match Dual::parse(&conn.recv().await?).map_err(|error| anyhow::anyhow!("{error}"))? {
                    Some(Dual::Parked { .. }) => return Ok(Client::new(conn, user, 0, None)),
                    Some(Dual::Failed(why)) => bail!("the second stream was refused: {why:?}"),
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, park).await.context("parking takes too long")?.context(user_name(user))
    }
}

/// What happened to all clients of a chat together.
#[derive(Default)]
pub struct Traffic {
    /// Messages that came.
    pub arrived: AtomicU64,
    /// Times that the server asked for an acknowledgement.
    pub asked: AtomicU64,
}

/// What matters of what was heard.
pub(super) enum Heard {
    Message,
    /// The server asked, and has been answered.
    Asked,
    /// The server has counted so many stanzas of ours.
    Acknowledged(u32),
    Offer,
    Other,
}

impl Client {
    /// Hears one element; stanzas are counted, and requests for an acknowledgement answered.
    pub(super) async fn hear(&mut self) -> anyhow::Result<Heard> {
        let stanza = self.hear_stanza().await?;
        self.understand(&stanza)
    }

    /// Waits for the next element, which [`Client::understand`] must be given at once. Cancel-safe.
    pub(super) async fn hear_stanza(&mut self) -> anyhow::Result<Stanza> {
        Ok(self.conn.recv().await?)
    }

    /// Counts what was heard, and answers a request.
    pub(super) fn understand(&mut self, stanza: &Stanza) -> anyhow::Result<Heard> {
        if stanza.head.kind != Kind::Other {
            self.inbound = self.inbound.wrapping_add(1);
            return Ok(if stanza.head.kind == Kind::Message { Heard::Message } else { Heard::Other });
        }
        if stanza.head.ns != ns::SM {
            let Some(Dual::Offer { epoch, lower_s, upper_s, .. }) = Dual::parse(stanza).ok().flatten() else {
                return Ok(Heard::Other);
            };
            self.told = Some(Told::offered(self.told, epoch));
            self.limits = Some((lower_s, upper_s));
            return Ok(Heard::Offer);
        }
        match Sm::parse(stanza).map_err(|error| anyhow::anyhow!("{error}"))? {
            Some(Sm::Request) => {
                self.conn.send(&Sm::Answer { h: Handled(self.inbound) }.to_bytes());
                Ok(Heard::Asked)
            }
            Some(Sm::Answer { h }) => Ok(Heard::Acknowledged(h.0)),
            _ => Ok(Heard::Other),
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Heard) -> bool) -> anyhow::Result<()> {
        while !wanted(&self.hear().await?) {}
        Ok(())
    }

    /// Asks for a second stream, and gives the id that it must name.
    pub async fn ask_for_second(&mut self) -> anyhow::Result<String> {
        self.conn.send(&Dual::Request.to_bytes());
        let offered = timeout(PATIENCE, self.until(|heard| matches!(heard, Heard::Offer)));
        offered.await.context("no second stream is offered")??;
        self.sm_id.clone().context("a session without an id")
    }

    /// Writes a message to the partner, and asks for an acknowledgement of it. It goes out while something is waited for.
    pub(super) fn write(&mut self, id: &str, body: &str) {
        let mut w = Writer::new();
        w.open("message", "").attr("type", "chat").attr("id", id);
        w.attr("to", format_args!("{}@{DOMAIN}", user_name(self.user ^ 1))).open("body", "").text(body);
        self.conn.send(&w.finish());
        self.conn.send(&Sm::Request.to_bytes());
    }

    /// Writes a message to this very session. It goes out while something is waited for.
    pub(super) fn write_to_itself(&mut self, id: &str) {
        let mut w = Writer::new();
        w.open("message", "").attr("type", "chat").attr("id", id);
        w.attr("to", format_args!("{}@{DOMAIN}/measure", user_name(self.user)));
        w.open("body", "").text("here");
        self.conn.send(&w.finish());
    }

    /// Writes a message to itself and waits until it is here.
    pub(super) async fn echo(&mut self, id: &str) -> anyhow::Result<()> {
        self.write_to_itself(id);
        loop {
            let stanza = self.hear_stanza().await?;
            let own = stanza.head.id.as_deref() == Some(id);
            if matches!(self.understand(&stanza)?, Heard::Message) && own {
                return Ok(());
            }
        }
    }

    /// Of a session that has said nothing since its login: writes a message to itself, waits until the server has
    /// acknowledged it and has delivered it, and counts neither it nor what came meanwhile. So the server must keep it.
    pub(super) async fn leave_unhandled(&mut self, id: &str) -> anyhow::Result<()> {
        let handled = self.inbound;
        self.write_to_itself(id);
        self.conn.send(&Sm::Request.to_bytes());
        let left = async {
            let (mut acknowledged, mut delivered) = (false, false);
            while !(acknowledged && delivered) {
                match self.hear().await? {
                    // Presence is counted too.
                    Heard::Acknowledged(h) => acknowledged |= h >= 2,
                    Heard::Message => delivered = true,
                    _ => {}
                }
                self.inbound = handled;
            }
            Ok::<_, anyhow::Error>(())
        };
        timeout(PATIENCE, left).await.context("a message is not delivered")?
    }

    /// Chats for ever: one message in flight, the next when the partner's comes. `body` characters in each, a request
    /// for an acknowledgement with every `ack_every`th.
    pub async fn chat(mut self, body: usize, ack_every: u32, traffic: &Traffic) -> anyhow::Result<()> {
        let partner = format!("{}@{DOMAIN}", user_name(self.user ^ 1));
        let text = "x".repeat(body);
        let request = Sm::Request.to_bytes();
        // Presence is counted too.
        let (mut sent, mut acknowledged) = (0u32, 1u32);
        loop {
            sent += 1;
            let mut w = Writer::new();
            w.open("message", "").attr("type", "chat").attr("id", format_args!("m{sent}"));
            w.attr("to", &partner).open("body", "").text(&text);
            self.conn.send(&w.finish());
            if sent.is_multiple_of(ack_every) {
                self.conn.send(&request);
            }
            loop {
                match self.hear().await? {
                    Heard::Message => break,
                    Heard::Acknowledged(h) => acknowledged = h,
                    Heard::Asked => _ = traffic.asked.fetch_add(1, Ordering::Relaxed),
                    Heard::Offer | Heard::Other => {}
                }
            }
            traffic.arrived.fetch_add(1, Ordering::Relaxed);
            // A server that does not acknowledge does not do the same work. The floor counts nothing.
            if self.sm_id.is_some() && (sent + 1).saturating_sub(acknowledged) > 10 * ack_every + 10 {
                bail!("{} sent {sent} messages, and {acknowledged} are acknowledged", user_name(self.user));
            }
        }
    }

    /// Does nothing but answer, for ever.
    pub async fn idle(mut self) -> anyhow::Result<()> {
        loop {
            self.hear().await?;
        }
    }

    /// Ends the session in good order.
    pub async fn log_out(self) {
        self.conn.close(PATIENCE).await;
    }
}

/// Logs users in, `at_once` at a time, each at the node that `node` says; in the order of the users.
pub async fn log_in_all(
    access: &Access,
    users: std::ops::Range<usize>,
    at_once: usize,
    node: fn(usize) -> usize,
) -> anyhow::Result<Vec<Client>> {
    let (next, end) = (Arc::new(AtomicUsize::new(users.start)), users.end);
    let mut workers = JoinSet::new();
    for _ in 0..at_once.max(1) {
        let (access, next) = (access.clone(), Arc::clone(&next));
        workers.spawn(async move {
            let mut made = Vec::new();
            loop {
                let user = next.fetch_add(1, Ordering::Relaxed);
                if user >= end {
                    return Ok::<_, anyhow::Error>(made);
                }
                made.push(access.log_in(user, node(user)).await?);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(worker) = workers.join_next().await {
        all.extend(worker.context("a client panicked")??);
    }
    all.sort_by_key(|client: &Client| client.user);
    Ok(all)
}
