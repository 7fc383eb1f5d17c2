//! The tokio shell around sockets: accepts clients, lets [`crate::negotiate`] decide, then carries elements to the
//! [`Host`] and bytes back. The only part of this crate that is not pure.

mod admission;
mod connection;
mod gate;
mod hello;
mod login;
mod mailbox;
mod rates;
mod turnstile;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use crate::negotiate::{Lookup, Proved};
pub use mailbox::{ConnSender, Inbox};
pub use rates::Rates;
pub use turnstile::{Class, Logins, Turnstile, WHAT_FOLLOWS};

use crate::error::{StreamCondition, StreamError};
use crate::negotiate;
use crate::sasl::{ScramHash, TokenName};
use crate::stanza::Stanza;
use crate::tls::C2sTls;
use admission::{Admission, Metered, Spent};
use gate::{Accounts, Gate};
use rates::PerAddress;

/// Number of an authenticated connection, given by the host; never used twice in one run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the shell needs of the node. Called on connection tasks: every call must return at once.
pub trait Host: Send + Sync + 'static {
    /// The credentials of an account, or of one of its one-time tokens; `user` is its prepared local part.
    fn lookup(&self, user: &str, token: Option<TokenName>, hash: ScramHash) -> Lookup;
    /// Whether the accounts are known to be up to date. While they are not, a password that does not fit is not called
    /// wrong: it may have been changed elsewhere.
    fn is_current(&self) -> bool {
        true
    }
    /// Stream features after SASL beside `bind`, `sm` and the stream limits, as XML: `dual::FEATURE` while HA is on.
    fn features(&self) -> Bytes;
    /// Fills `out` from a cryptographic random source (S15).
    fn random(&self, out: &mut [u8]);
    /// A client has authenticated. `tx` writes to it; once the last clone is dropped the stream is closed.
    fn opened(&self, proved: Proved, peer: SocketAddr, tx: ConnSender) -> ConnId;
    /// Something to be counted.
    fn count(&self, _what: Counted) {}
    /// One top-level element. It took a credit, to be given back by [`ConnSender::credit`].
    fn element(&self, conn: ConnId, stanza: Stanza);
    /// Called exactly once, after the last `element`. `clean`: `</stream:stream>` was seen; then what is still
    /// written through `tx` is delivered until `ToConn::Close` or for [`ServerConfig::close_timeout`]. Otherwise the
    /// connection is lost, and its session may be resumed.
    fn closed(&self, conn: ConnId, clean: bool);
}

/// What happens to connections before they reach the host: for its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A connection was accepted.
    Accepted,
    /// A connection was closed unread: too many, or too fast.
    TurnedAway,
    /// A connection was closed before TLS, because more logins came than the processors can take.
    Crowded,
    /// TLS did not come about.
    NoTls,
    /// The client brought a TLS ticket that one of the nodes had made.
    TlsResumed,
    /// A password or proof was wrong.
    WrongPassword,
    /// The connection ended, or its time was over, before the login was complete.
    NotLoggedIn,
    /// A panic ended its stream: a bug.
    Panicked,
}

/// What the node tells a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToConn {
    /// Write these bytes. Many of them go out in one TLS record.
    Write(Bytes),
    /// Write `last`, then close; nothing after it is written.
    Close {
        /// Last words, such as a stream error. May be empty.
        last: Bytes,
        /// Whether `</stream:stream>` follows. Without it the client's session stays resumable (XEP-0198 5).
        end_stream: bool,
    },
}

/// How a port begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In the clear, and STARTTLS is required (port 5222).
    StartTls,
    /// With TLS (XEP-0368, port 5223).
    DirectTls,
}

/// Settings and limits of the c2s ports of a node.
pub struct ServerConfig {
    /// TLS; ALPN `xmpp-client`, certificate and tickets are set in it.
    pub tls: C2sTls,
    /// Domains, mechanisms and XML limits.
    pub negotiation: negotiate::Config,
    /// Time from accept to authentication. Default 30 s (S3).
    pub auth_timeout: Duration,
    /// Time a closing connection has for its last words. Default 5 s.
    pub close_timeout: Duration,
    /// How long sent bytes may stay unacknowledged, and silence before keep-alive probes (TCP). Default 60 s.
    pub tcp_timeout: Duration,
    /// Elements handed to the host and not yet credited, per connection. Default 32.
    pub credits: u32,
    /// Bytes that may wait for one slow reader; above it the connection is closed, resumable. Default 4 MiB.
    pub queued_bytes: usize,
    gate: Gate,
    accounts: Accounts,
    rates: Rates,
    connections: PerAddress,
    guesses: PerAddress,
    /// Passwords (of PLAIN) that may be checked at the same time.
    checks: Arc<Semaphore>,
    admission: Admission,
    /// How long one waits for its turn before the client is told to come later.
    check_wait: Duration,
}

/// Default of [`ServerConfig::queued_bytes`].
pub const QUEUED_BYTES: usize = 4 * 1024 * 1024;
/// Default most connections before authentication, all ports that share a configuration together.
pub const UNAUTHENTICATED: usize = 2_000;
/// Default most connections before authentication from one IPv4 address or IPv6 /64 network.
pub const UNAUTHENTICATED_PER_ADDRESS: usize = 200;
/// Default most connections of one account, whatever they are used for.
pub const CONNECTIONS_PER_ACCOUNT: usize = 100;
/// Default share of all processors that logins may take, in percent.
pub const LOGIN_SHARE: u32 = 50;
/// Default time that a connection may wait before TLS when more come.
pub const LOGIN_WAIT: Duration = Duration::from_secs(10);
/// How long a password waits for its turn to be checked.
const CHECK_WAIT: Duration = Duration::from_secs(5);
/// Pause after accept(2) failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl ServerConfig {
    /// The defaults, with this TLS set-up and negotiation.
    pub fn new(tls: C2sTls, negotiation: negotiate::Config) -> Self {
        let rates = Rates::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ServerConfig {
            tls,
            negotiation,
            auth_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            tcp_timeout: Duration::from_secs(60),
            credits: 32,
            queued_bytes: QUEUED_BYTES,
            gate: Gate::new(UNAUTHENTICATED, UNAUTHENTICATED_PER_ADDRESS),
            accounts: Accounts::new(CONNECTIONS_PER_ACCOUNT),
            rates,
            connections: PerAddress::new(rates.connections_per_minute),
            guesses: PerAddress::new(rates.failed_logins_per_minute),
            checks: Arc::new(Semaphore::new(cores)),
            admission: Admission::new(LOGIN_SHARE, cores, LOGIN_WAIT),
            check_wait: CHECK_WAIT,
        }
    }

    /// Sets how many connections may be open before authentication, in all and from one address. Above it new
    /// connections are closed at once.
    #[must_use]
    pub fn unauthenticated(self, total: usize, per_address: usize) -> Self {
        ServerConfig { gate: Gate::new(total, per_address), ..self }
    }

    /// Sets how many connections one account may have. One more gets `policy-violation` once it has logged in.
    #[must_use]
    pub fn connections_per_account(self, most: usize) -> Self {
        ServerConfig { accounts: Accounts::new(most), ..self }
    }

    /// Sets how fast clients and their addresses may go.
    #[must_use]
    pub fn rates(self, rates: Rates) -> Self {
        let connections = PerAddress::new(rates.connections_per_minute);
        let guesses = PerAddress::new(rates.failed_logins_per_minute);
        ServerConfig { rates, connections, guesses, ..self }
    }

    /// Sets how much of all processors logins may take, in percent, and how long a connection may wait before TLS when
    /// more of them come; one that would wait longer is closed.
    #[must_use]
    pub fn logins(self, percent: u32, wait: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ServerConfig { admission: Admission::new(percent, cores, wait), ..self }
    }

    /// What logins cost, and how many wait for their turn.
    pub fn logins_now(&self) -> Logins {
        self.admission.logins()
    }

    /// Goes on with what `before` has counted: for a configuration that takes its place while clients are there.
    #[must_use]
    pub fn after(self, before: &ServerConfig) -> Self {
        ServerConfig {
            gate: self.gate.after(&before.gate),
            accounts: self.accounts.after(&before.accounts),
            connections: self.connections.after(&before.connections),
            guesses: self.guesses.after(&before.guesses),
            checks: before.checks.clone(),
            admission: self.admission.after(&before.admission),
            ..self
        }
    }

    /// Admission, before TLS and before a task is spawned.
    fn admit(&self, peer: SocketAddr) -> Option<gate::Pass> {
        let soon = self.connections.take(gate::network(peer.ip()), Instant::now());
        if soon { self.gate.enter(peer.ip()) } else { None }
    }
}

/// Accepts clients for ever; a task each. Dropping the future stops accepting and leaves the connections open. Another
/// `config` holds for those who come from then on.
pub async fn serve(
    listener: TcpListener,
    entry: Entry,
    config: Arc<ArcSwap<ServerConfig>>,
    host: Arc<dyn Host>,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let config = config.load_full();
                let pass = config.admit(peer);
                host.count(if pass.is_some() { Counted::Accepted } else { Counted::TurnedAway });
                if let Some(pass) = pass {
                    tokio::spawn(client(tcp, peer, entry, config, host.clone(), pass));
                }
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one client that was accepted elsewhere, until it is gone.
pub async fn serve_connection(
    tcp: TcpStream,
    peer: SocketAddr,
    entry: Entry,
    config: Arc<ServerConfig>,
    host: Arc<dyn Host>,
) {
    if let Some(pass) = config.admit(peer) {
        client(tcp, peer, entry, config, host, pass).await;
    }
}

async fn client(
    tcp: TcpStream,
    peer: SocketAddr,
    entry: Entry,
    config: Arc<ServerConfig>,
    host: Arc<dyn Host>,
    pass: gate::Pass,
) {
    // A socket that does not take its options is already dead and says so at the first read.
    let _ = set_options(&tcp, &config);
    // Boxed, so that what login needs is given back before the long life of the connection begins.
    let spent = Spent::default();
    let future = Box::pin(login::login(tcp, entry, pass.address(), &config, &*host, &spent));
    let login = Metered { future, spent: &spent };
    let Ok(Some(session)) = tokio::time::timeout(config.auth_timeout, login).await else {
        return host.count(Counted::NotLoggedIn);
    };
    drop(pass);
    let login::Session { stream, framer, proved, class } = session;
    config.admission.learn(class, spent.time());
    let Some(_membership) = config.accounts.enter(&proved.user) else {
        let error = StreamError::new(StreamCondition::PolicyViolation);
        let error = error.with_text("too many connections of this account");
        return Box::pin(connection::refuse(stream, error, &config)).await;
    };
    connection::run(stream, framer, proved, peer, &config, &*host).await;
}

fn set_options(tcp: &TcpStream, config: &ServerConfig) -> std::io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    let quarter = config.tcp_timeout / 4;
    let keepalive = TcpKeepalive::new().with_time(config.tcp_timeout).with_interval(quarter).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.tcp_timeout))?;
    Ok(())
}

#[cfg(test)]
mod scram_tests;
#[cfg(test)]
mod tests;
