//! One client of a script: nobody yet, a session that looks after itself, or a bare stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use xmpp_core::dual::Peer;
use xmpp_core::{Element, Stanza, ns};

use crate::conn::{Account, Conn, ConnError, Dialer};
use crate::session::{Event, Options, Session};
use crate::sm::Outgoing;

/// Ids of the pings behind which nothing can be outstanding.
pub(super) const FENCE: &str = "fence-";
/// Between two attempts to open a stream.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the server has for its half of an orderly end.
const CLOSE: Duration = Duration::from_secs(5);

/// What a client has of the server.
pub(super) enum Link {
    Away,
    Session { session: Session, events: mpsc::UnboundedReceiver<Event> },
    Stream { conn: Box<Conn>, counts: bool, asked: u32 },
}

/// A client of the script.
pub(super) struct Actor {
    pub(super) link: Link,
    pub(super) inbox: VecDeque<Element>,
    /// Fences that have been answered.
    pub(super) fences: Vec<String>,
    /// Full JID of the script's client.
    pub(super) jid: String,
    account: Account,
    dialer: Dialer,
    nodes: Vec<Peer>,
    first: usize,
    dual: bool,
}

impl Actor {
    pub(super) fn new(account: Account, dialer: Dialer, nodes: Vec<Peer>, first: usize, dual: bool) -> Self {
        let jid = format!("{}/{}", account.bare_jid(), account.resource.as_deref().unwrap_or_default());
        let (link, inbox, fences) = (Link::Away, VecDeque::new(), Vec::new());
        Actor { link, inbox, fences, jid, account, dialer, nodes, first, dual }
    }

    /// A session that resumes by itself, if need be at another node.
    pub(super) async fn connect(&mut self, deadline: Instant) -> Result<(), String> {
        let (tell, mut events) = mpsc::unbounded_channel();
        let first = self.nodes.get(self.first).map(|node| node.node.to_string());
        let session = Session::spawn(
            Options {
                first,
                dual: self.dual,
                initial_presence: false,
                answer: false,
                ..Options::new(self.account.clone(), self.dialer.clone(), self.nodes.clone())
            },
            Arc::new(tell),
        );
        let mut last = String::new();
        loop {
            match timeout_at(deadline, events.recv()).await {
                Ok(Some(Event::Bound { jid, .. })) if jid == self.jid => break,
                Ok(Some(Event::Bound { jid, .. })) => return Err(format!("the server calls it {jid}")),
                Ok(Some(Event::AttemptFailed { reason, .. } | Event::Error(reason))) => last = reason,
                Ok(Some(_)) => {}
                Ok(None) => return Err("the client ended".into()),
                Err(_) => return Err(format!("it could not log in in time; last: {last}")),
            }
        }
        self.link = Link::Session { session, events };
        Ok(())
    }

    /// An authenticated stream, at the first node that lets us in.
    pub(super) async fn open(&mut self, deadline: Instant) -> Result<(), String> {
        let mut last = String::new();
        for attempt in 0.. {
            if Instant::now() >= deadline {
                break;
            }
            let Some(place) = self.nodes.get((self.first + attempt) % self.nodes.len().max(1)) else { break };
            match self.dialer.login(place, &self.account).await {
                Ok((conn, _)) => {
                    self.link = Link::Stream { conn: Box::new(conn), counts: false, asked: 0 };
                    return Ok(());
                }
                Err(error) => last = error.to_string(),
            }
            sleep(PAUSE).await;
        }
        Err(format!("it could not open a stream in time; last: {last}"))
    }

    pub(super) async fn disconnect(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.link, Link::Away) {
            Link::Away => return Err("it is not connected".into()),
            Link::Session { session, mut events } => {
                session.stop().await;
                while let Ok(event) = events.try_recv() {
                    self.event(event)?;
                }
            }
            Link::Stream { conn, .. } => conn.close(CLOSE).await,
        }
        Ok(())
    }

    pub(super) fn lose(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.link, Link::Away) {
            Link::Away => Err("it is not connected".into()),
            // A session is dropped with its streams; nobody resumes it.
            Link::Session { .. } | Link::Stream { .. } => Ok(()),
        }
    }

    pub(super) async fn send(&mut self, stanza: &Stanza) -> Result<(), String> {
        match &mut self.link {
            Link::Away => Err("it is not connected".into()),
            Link::Session { session, .. } => {
                session.send(Outgoing { id: String::new(), bytes: stanza.bytes.clone(), survives: false });
                Ok(())
            }
            Link::Stream { conn, asked, .. } => {
                *asked += u32::from(stanza.head.is(ns::SM, "r"));
                conn.send(&stanza.bytes);
                conn.flush().await.map_err(|error| error.to_string())
            }
        }
    }

    /// Whether fences can go from here: by pings, or by requests for an acknowledgement.
    pub(super) fn is_session(&self) -> bool {
        matches!(self.link, Link::Session { .. })
    }

    /// Waits for the answers to pings; what comes before them goes to the inbox.
    pub(super) async fn fenced(&mut self, ids: &[String], deadline: Instant) -> Result<(), String> {
        while !ids.iter().all(|id| self.fences.contains(id)) {
            let Link::Session { events, .. } = &mut self.link else { return Ok(()) };
            let event = timeout_at(deadline, events.recv()).await.map_err(|_| "no answer in time")?;
            if let Some(element) = self.event(event.ok_or("the client ended")?)? {
                self.inbox.push_back(element);
            }
        }
        self.fences.clear();
        Ok(())
    }

    /// A bare stream proves by `<r/>` that nothing is on its way; what it got meanwhile goes to the inbox.
    pub(super) async fn fence_stream(&mut self, deadline: Instant) -> Result<(), String> {
        let Link::Stream { counts: true, .. } = &self.link else { return Ok(()) };
        let request = Stanza::from_bytes(Bytes::from(format!("<r xmlns='{}'/>", ns::SM)));
        self.send(&request.map_err(|error| error.to_string())?).await?;
        loop {
            let got = self.receive(deadline).await?;
            if got.is(ns::SM, "a") {
                return Ok(());
            }
            self.inbox.push_back(got);
        }
    }

    /// The next stanza that the script has to know of, from the wire.
    pub(super) async fn receive(&mut self, deadline: Instant) -> Result<Element, String> {
        loop {
            match &mut self.link {
                Link::Away => return Err("it is not connected".into()),
                Link::Session { events, .. } => {
                    let event =
                        timeout_at(deadline, events.recv()).await.map_err(|_| "nothing came in time")?;
                    if let Some(element) = self.event(event.ok_or("the client ended")?)? {
                        return Ok(element);
                    }
                }
                Link::Stream { conn, counts, asked } => {
                    let got = timeout_at(deadline, conn.recv()).await.map_err(|_| "nothing came in time")?;
                    let got = got.map_err(|error| error.to_string())?;
                    *counts |= got.head.is(ns::SM, "enabled") || got.head.is(ns::SM, "resumed");
                    // Servers differ in when they ask and when they tell unasked.
                    let unasked = got.head.is(ns::SM, "a") && *asked == 0;
                    if got.head.is(ns::SM, "r") || unasked {
                        continue;
                    }
                    *asked -= u32::from(got.head.is(ns::SM, "a"));
                    return Ok(got.element());
                }
            }
        }
    }

    /// Puts a stanza that came with an event into order: `Some` is for the script.
    fn event(&mut self, event: Event) -> Result<Option<Element>, String> {
        match event {
            Event::Stanza(stanza) => {
                let answer = matches!(stanza.head.type_.as_deref(), Some("result" | "error"));
                match stanza.head.id.as_deref().filter(|id| answer && id.starts_with(FENCE)) {
                    Some(id) => self.fences.push(id.to_owned()),
                    None => return Ok(Some(stanza.element())),
                }
            }
            Event::Bound { .. } => return Err("its session was lost, and a new one began".into()),
            Event::Error(what) => return Err(what),
            _ => {}
        }
        Ok(None)
    }

    /// Waits for the end of a bare stream by a stream error.
    pub(super) async fn ends(&mut self, deadline: Instant) -> Result<String, String> {
        let Link::Stream { conn, .. } = &mut self.link else {
            return Err("only a stream that was opened by the script can be seen to end".into());
        };
        loop {
            match timeout_at(deadline, conn.recv()).await {
                Err(_) => return Err("the stream goes on".into()),
                Ok(Ok(got)) if got.head.is(ns::SM, "r") || got.head.is(ns::SM, "a") => {}
                Ok(Ok(got)) => self.inbox.push_back(got.element()),
                Ok(Err(ConnError::Stream(error))) => {
                    self.link = Link::Away;
                    return Ok(error.condition.name().to_owned());
                }
                Ok(Err(error)) => {
                    self.link = Link::Away;
                    return Ok(error.to_string());
                }
            }
        }
    }
}
