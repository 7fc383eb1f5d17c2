//! How a stream comes about: TCP, TLS and the login.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use xmpp_core::dual::Peer;
use xmpp_core::sasl::Mechanism;
use xmpp_core::xml::Writer;
use xmpp_core::{ns, tls};

use super::{Account, Conn, ConnError, Features};

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Trust and versions, from `xmpp_core::tls::c2s_client`. All clones share it: see [`Dialer::trust`].
    tls: Arc<ArcSwap<rustls::ClientConfig>>,
    /// Its tickets, if it keeps any.
    tickets: Option<Resumption>,
    /// Most time for TCP.
    pub connect_timeout: Duration,
    /// Most time for TLS, SASL and the features after it, together.
    pub login_timeout: Duration,
    /// The mechanism to use whatever else is offered: servers are compared by the same work. `None`: the best one.
    pub only: Option<Mechanism>,
    /// The address to come from; `None`: whatever the system takes.
    pub from: Option<IpAddr>,
}

impl Dialer {
    /// With 5 s for TCP and 30 s for the login.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        let (connect_timeout, login_timeout) = (Duration::from_secs(5), Duration::from_secs(30));
        let tls = Arc::new(ArcSwap::new(tls));
        Dialer { tls, tickets: None, connect_timeout, login_timeout, only: None, from: None }
    }

    /// A client of its own: it keeps the TLS tickets that it gets, and resumes with them at either node.
    #[must_use]
    pub fn with_tickets(&self) -> Self {
        Dialer { tickets: Some(tls::tickets()), ..self.clone() }
    }

    /// Trusts others from now on, in all clones.
    pub fn trust(&self, tls: Arc<rustls::ClientConfig>) {
        self.tls.store(tls);
    }

    /// Trust and versions, and the tickets.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        let tls = self.tls.load_full();
        match &self.tickets {
            None => tls,
            Some(tickets) => {
                let mut own = rustls::ClientConfig::clone(&tls);
                own.resumption = tickets.clone();
                Arc::new(own)
            }
        }
    }

    async fn connect(&self, place: &Peer) -> io::Result<TcpStream> {
        let Some(from) = self.from else {
            return TcpStream::connect((place.host.as_str(), place.port)).await;
        };
        let mut to = lookup_host((place.host.as_str(), place.port)).await?;
        let to = to.find(|to| to.is_ipv4() == from.is_ipv4()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((from, 0).into())?;
        socket.connect(to).await
    }

    /// An authenticated stream without a session, and what it offers.
    pub async fn login(&self, place: &Peer, account: &Account) -> Result<(Conn, Features), ConnError> {
        let name = format!("{}:{}", place.host, place.port);
        let tcp = timeout(self.connect_timeout, self.connect(place))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ConnError::Connect { place: name.clone(), source })?;
        tcp.set_nodelay(true).map_err(|source| ConnError::Connect { place: name.clone(), source })?;
        let login = async {
            if place.direct_tls {
                let tls = self.handshake(tcp, account, name).await?;
                return Conn::secure(tls).log_in(account, self.only).await;
            }
            let mut conn = Conn::over(tcp);
            let features = conn.open(&account.domain).await?;
            if !features.starttls {
                return Err(ConnError::Protocol("no STARTTLS offered".into()));
            }
            let mut request = Writer::new();
            request.open("starttls", ns::TLS);
            conn.send(&request.finish());
            let answer = conn.recv().await?;
            if !answer.head.is(ns::TLS, "proceed") {
                return Err(ConnError::Protocol("STARTTLS refused".into()));
            }
            let tls = self.handshake(conn.into_io(), account, name).await?;
            Conn::secure(tls).log_in(account, self.only).await
        };
        timeout(self.login_timeout, login).await.unwrap_or(Err(ConnError::Timeout("login")))
    }

    async fn handshake<S>(
        &self,
        io: S,
        account: &Account,
        place: String,
    ) -> Result<tokio_rustls::client::TlsStream<S>, ConnError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(account.domain.clone())
            .map_err(|_| ConnError::Protocol("the domain is no host name".into()))?;
        TlsConnector::from(self.tls())
            .connect(name, io)
            .await
            .map_err(|source| ConnError::Tls { place, source })
    }
}
