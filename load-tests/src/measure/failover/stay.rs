//! The users who are at home at the node that is left: the death of the other must be nothing to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use client_sim::conn::ConnError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use xmpp_core::Stanza;
use xmpp_core::dual::{Dual, MainStream};

use super::pause;
use super::report::Stayed;
use super::split::LEFT;
use crate::measure::client::{Access, Client};

/// The id of the message by which a client shows in the end that it is served.
const STAYS: &str = "stays";

/// The clients of all of them.
pub struct Stayers {
    clients: JoinSet<anyhow::Result<()>>,
    users: u64,
    reconnects: Arc<AtomicU64>,
    over: watch::Sender<bool>,
}

impl Stayers {
    /// Each client with its second stream, if it has one.
    pub fn begin(access: &Access, all: impl IntoIterator<Item = (Client, Option<Client>)>) -> Stayers {
        let (over, reconnects) = (watch::Sender::new(false), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for (main, parked) in all {
            let stayer = Stayer { access: access.clone(), main, parked, reconnects: Arc::clone(&reconnects) };
            clients.spawn(stayer.stay(over.subscribe()));
        }
        Stayers { users: clients.len() as u64, clients, reconnects, over }
    }

    fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// # Errors
    /// A client had to come back.
    pub fn are_undisturbed(&self) -> anyhow::Result<()> {
        let reconnects = self.reconnects();
        ensure!(reconnects == 0, "clients of the other node came back {reconnects} times before the kill");
        Ok(())
    }

    /// What happened to them, once each has written a message to itself and has it, or `patience` is over; `None`: there are
    /// none.
    pub async fn end(mut self, what: &str, patience: Duration) -> Option<Stayed> {
        self.over.send_replace(true);
        let mut answered = 0;
        let all = async {
            while let Some(done) = self.clients.join_next().await {
                answered += u64::from(matches!(done, Ok(Ok(()))));
            }
        };
        // Who has not answered by then is not counted.
        let _ = timeout(patience, all).await;
        let reconnects = self.reconnects();
        (self.users > 0).then(|| Stayed { what: what.into(), users: self.users, reconnects, answered })
    }
}

struct Stayer {
    access: Access,
    main: Client,
    parked: Option<Client>,
    reconnects: Arc<AtomicU64>,
}

impl Stayer {
    async fn stay(mut self, mut over: watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                heard = self.main.hear_stanza() => match heard {
                    Ok(stanza) => self.hear(&stanza)?,
                    Err(_) => self.come_back().await,
                },
                said = next_of(&mut self.parked) => self.hear_parked(said),
                _ = over.changed() => break,
            }
        }
        self.main.echo(STAYS).await
    }

    fn count(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// A server that sends it away, or leaves it without service, would make it come back.
    fn hear(&mut self, stanza: &Stanza) -> anyhow::Result<()> {
        if matches!(Dual::parse(stanza), Ok(Some(Dual::Moving { .. } | Dual::Stalled))) {
            self.count();
        }
        self.main.understand(stanza).map(|_| ())
    }

    /// Its second stream ends with the node that is killed, which takes nothing from it.
    fn hear_parked(&mut self, said: Result<Stanza, ConnError>) {
        let Ok(stanza) = said else {
            self.parked = None;
            return;
        };
        match Dual::parse(&stanza) {
            Ok(Some(Dual::Query { id, .. })) => {
                let alive = Dual::Report { id, main: MainStream::Alive, mac: None, heard_ms: None };
                if let Some(parked) = &mut self.parked {
                    parked.conn.send(&alive.to_bytes());
                }
            }
            Ok(Some(Dual::Take { .. })) => self.count(),
            _ => {}
        }
    }

    async fn come_back(&mut self) {
        self.count();
        let user = self.main.user;
        loop {
            match self.access.log_in(user, LEFT).await {
                Ok(main) => {
                    self.main = main;
                    return;
                }
                Err(_) => sleep(pause(1)).await,
            }
        }
    }
}

/// The next that is said on a stream; nothing ever where there is none.
async fn next_of(stream: &mut Option<Client>) -> Result<Stanza, ConnError> {
    match stream {
        Some(stream) => stream.conn.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use client_sim::conn::{Conn, Dialer};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use xmpp_core::dual::{Epoch, Peer};

    use super::*;

    const HEADER: &str =
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server that nobody can reach.
    fn access() -> Access {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let place = Peer { node: "b".into(), host: "127.0.0.1".into(), port: 0, direct_tls: true };
        let (dialer, keys) = (Dialer::new(Arc::new(tls)), Arc::default());
        Access { places: vec![place], dialer, floor: false, keys, from: Vec::new() }
    }

    fn client() -> (Client, DuplexStream) {
        let (ours, theirs) = duplex(4_096);
        (Client::new(Conn::over(ours), 1, 0, None), theirs)
    }

    async fn until_one_came_back(stayers: &Stayers) {
        let counted = async {
            while stayers.reconnects() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap();
        assert!(stayers.are_undisturbed().is_err());
    }

    #[tokio::test]
    async fn who_loses_its_second_stream_alone_is_undisturbed_and_answers_in_the_end() {
        let ((main, mut server), (parked, killed)) = (client(), client());
        let stayers = Stayers::begin(&access(), [(main, Some(parked))]);
        drop(killed);
        // It hears of that.
        tokio::task::yield_now().await;
        let answer = async {
            assert_ne!(server.read(&mut [0; 1_024]).await.unwrap(), 0);
            server.write_all(format!("{HEADER}<message id='{STAYS}'/>").as_bytes()).await.unwrap();
        };
        let (stayed, ()) = tokio::join!(stayers.end("x", PATIENCE), answer);
        let stayed = stayed.unwrap();
        assert_eq!((stayed.users, stayed.reconnects, stayed.answered), (1, 0, 1));
    }

    #[tokio::test]
    async fn who_loses_its_main_stream_is_counted_and_has_not_answered() {
        let (main, server) = client();
        let stayers = Stayers::begin(&access(), [(main, None)]);
        stayers.are_undisturbed().unwrap();
        drop(server);
        until_one_came_back(&stayers).await;
        let stayed = stayers.end("x", Duration::ZERO).await.unwrap();
        assert_eq!((stayed.users, stayed.reconnects, stayed.answered), (1, 1, 0));
    }

    #[tokio::test]
    async fn who_is_taken_over_or_sent_away_is_counted() {
        let epoch = Epoch { term: 2, moves: 0 };
        for takes in [true, false] {
            let ((main, mut server), (parked, mut other)) = (client(), client());
            let stayers = Stayers::begin(&access(), [(main, Some(parked))]);
            let (to, what) = match takes {
                true => (&mut other, Dual::Take { epoch }),
                false => (&mut server, Dual::Moving { epoch, to: "a".into() }),
            };
            to.write_all(&[HEADER.as_bytes(), &what.to_bytes()[..]].concat()).await.unwrap();
            until_one_came_back(&stayers).await;
        }
    }
}
