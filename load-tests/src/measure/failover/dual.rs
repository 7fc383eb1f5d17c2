//! A client with a parked stream: when its main stream dies, its session goes on at the other node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use client_sim::fleet::user_name;
use tokio::time::sleep;
use xmpp_core::dual::{Dual, MainStream};
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::{Stanza, ns};

use crate::measure::client::{Client, Heard};

/// After this time without an answer a client says once more that its main stream died.
const LOST_AGAIN: Duration = Duration::from_secs(1);
/// The id of the message by which a client sees that it is served.
const SERVED: &str = "served";
/// The id of the message that it did not handle before its node was killed: see [`Client::leave_unhandled`].
pub const KEPT: &str = "kept";

/// When a client was served again.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// The session went on.
    pub resumed: Instant,
    /// A message of its own, sent after that, was delivered to it.
    pub served: Instant,
    /// How often the message came that it had not handled before.
    pub kept: u32,
}

/// The re-login limits that clients were told last, in seconds.
#[derive(Debug, Default)]
pub struct Announced(AtomicU64);

impl Announced {
    fn tell(&self, (lower, upper): (u32, u32)) {
        self.0.store(u64::from(lower) << 32 | u64::from(upper), Ordering::Relaxed);
    }

    /// Lower and upper limit.
    pub fn limits(&self) -> (u32, u32) {
        let both = self.0.load(Ordering::Relaxed);
        ((both >> 32) as u32, both as u32)
    }
}

/// A session with a second stream.
pub struct DualClient {
    main: Client,
    parked: Client,
    /// Stanzas that were handled before one was left unhandled.
    handled: u32,
    is_alive: bool,
    resumed: Option<Instant>,
    kept: u32,
}

impl DualClient {
    /// A session, and its stream at the other node.
    pub fn new(main: Client, parked: Client) -> DualClient {
        let handled = main.inbound;
        DualClient { main, parked, handled, is_alive: true, resumed: None, kept: 0 }
    }

    /// Rests, fails over when there is occasion, and ends when the other node serves it: with the stream that it has there.
    pub async fn serve(mut self, announced: &Announced) -> anyhow::Result<(Served, Client)> {
        loop {
            if let Some(limits) = self.main.limits {
                announced.tell(limits);
            }
            tokio::select! {
                heard = self.main.hear(), if self.is_alive => {
                    // What comes behind a stanza that was not handled cannot be counted.
                    self.main.inbound = self.handled;
                    if heard.is_err() {
                        self.is_alive = false;
                        self.parked.conn.send(&Dual::Lost.to_bytes());
                    }
                }
                stanza = self.parked.conn.recv() => {
                    let stanza = stanza.with_context(|| format!("{}: the parked stream", user_name(self.main.user)))?;
                    if let Some(served) = self.hear_parked(&stanza)? {
                        return Ok((served, self.parked));
                    }
                }
                () = sleep(LOST_AGAIN), if !self.is_alive && self.resumed.is_none() => {
                    self.parked.conn.send(&Dual::Lost.to_bytes());
                }
            }
        }
    }

    /// What the other node says; when the client was served, once it was.
    fn hear_parked(&mut self, stanza: &Stanza) -> anyhow::Result<Option<Served>> {
        if let Some(resumed) = self.resumed {
            if !matches!(self.parked.understand(stanza)?, Heard::Message) {
                return Ok(None);
            }
            return Ok(match stanza.head.id.as_deref() {
                Some(SERVED) => Some(Served { resumed, served: Instant::now(), kept: self.kept }),
                Some(KEPT) => {
                    self.kept += 1;
                    None
                }
                _ => None,
            });
        }
        if stanza.head.ns == ns::SM {
            match Sm::parse(stanza).map_err(|error| anyhow::anyhow!("{error}"))? {
                Some(Sm::Resumed { .. }) => self.go_on(),
                Some(Sm::Failed { .. }) => bail!("{}: its session is gone", user_name(self.main.user)),
                _ => {}
            }
            return Ok(None);
        }
        match Dual::parse(stanza).map_err(|error| anyhow::anyhow!("{error}"))? {
            Some(Dual::Take { .. }) => self.resume(),
            Some(Dual::Query { id, .. }) => {
                let main = if self.is_alive { MainStream::Alive } else { MainStream::Lost };
                self.parked.conn.send(&Dual::Report { id, main, mac: None, heard_ms: None }.to_bytes());
            }
            Some(Dual::Failed(why)) => bail!("{}: no longer parked: {why:?}", user_name(self.main.user)),
            _ => {}
        }
        Ok(None)
    }

    fn resume(&mut self) {
        self.is_alive = false;
        let previd = self.main.sm_id.clone().unwrap_or_default().into();
        let ask = Sm::Resume { previd, h: Handled(self.handled), told: self.main.told };
        self.parked.conn.send(&ask.to_bytes());
    }

    fn go_on(&mut self) {
        self.resumed = Some(Instant::now());
        self.parked.inbound = self.handled;
        self.parked.write_to_itself(SERVED);
    }
}

#[cfg(test)]
mod tests {
    use client_sim::conn::Conn;

    use super::*;

    #[test]
    fn the_limits_told_last_are_kept() {
        let announced = Announced::default();
        announced.tell((10, 537));
        announced.tell((120, 7_200));
        assert_eq!(announced.limits(), (120, 7_200));
    }

    fn client() -> Client {
        let (ours, _) = tokio::io::duplex(64);
        Client::new(Conn::over(ours), 0, 1, Some("id".into()))
    }

    #[test]
    fn what_was_not_handled_is_counted_until_the_client_is_served() {
        for times in [0, 1, 2] {
            let mut client = DualClient::new(client(), client());
            let mut hear = |text: &str| client.hear_parked(&Stanza::parse(text.as_bytes()).unwrap()).unwrap();
            assert!(hear("<message id='served'/>").is_none(), "its session is not here yet");
            assert!(hear("<resumed xmlns='urn:xmpp:sm:3' previd='id' h='2'/>").is_none());
            for _ in 0..times {
                assert!(hear("<message id='kept'/>").is_none());
            }
            assert_eq!(hear("<message id='served'/>").unwrap().kept, times);
            assert_eq!(client.parked.inbound, 1 + times + 1, "the count goes on behind what was handled");
        }
    }
}
