//! The client side of a node: what connections see of it, and what their ports are set up with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use bytes::Bytes;
use presence_engine::engine::{self, Input, Token};
use presence_engine::ids::{Conn, NodeIx};
use tracing::debug;
use xmpp_core::dual;
use xmpp_core::negotiate::{self, Lookup, Proved};
use xmpp_core::net::{ConnId, ConnSender, Counted, Host, ServerConfig};
use xmpp_core::sasl::{ScramHash, TokenName};
use xmpp_core::stanza::Stanza;
use xmpp_core::tls::{self, Identity, Tickets, TlsError};

use super::accounts::Accounts;
use super::crashes;
use super::metrics::Metrics;
use super::random;
use super::stopping::Stopping;
use super::worker::ToNode;
use crate::config::{self, Config};
use crate::node::In;

/// What connection tasks see of the node.
pub(super) struct Clients {
    pub me: NodeIx,
    pub paired: bool,
    pub next: AtomicU64,
    pub accounts: Arc<Accounts>,
    pub to_node: Sender<ToNode>,
    pub stopping: Arc<Stopping>,
    pub ready: Arc<AtomicBool>,
    pub metrics: Arc<Metrics>,
}

impl Clients {
    fn send(&self, input: Input) {
        let _ = self.to_node.send(ToNode::In(In::Client(input)));
    }

    fn conn(&self, id: ConnId) -> Conn {
        Conn { node: self.me, number: id.0 }
    }
}

impl Host for Clients {
    fn lookup(&self, user: &str, token: Option<TokenName>, hash: ScramHash) -> Lookup {
        if self.stopping.is_closed() {
            return Lookup::Unavailable;
        }
        self.accounts.lookup(user, token, hash)
    }

    /// A node that has no place, because it is starting or cut off, may have missed a new account or password.
    fn is_current(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn features(&self) -> Bytes {
        let dual = if self.paired { dual::FEATURE } else { "" };
        Bytes::from(format!("{dual}{}", engine::STREAM_FEATURES))
    }

    fn random(&self, out: &mut [u8]) {
        rand::fill(out);
    }

    fn opened(&self, proved: Proved, peer: SocketAddr, tx: ConnSender) -> ConnId {
        self.metrics.login();
        self.stopping.opened();
        let id = ConnId(self.next.fetch_add(1, Ordering::Relaxed));
        debug!(conn = id.0, user = %proved.user, %peer, "logged in");
        let conn = self.conn(id);
        let Proved { user, mut salt, token } = proved;
        if let Some(token) = token {
            self.metrics.token_login();
            // What the engine knows an account's password by, here and where this node is a front.
            salt = self.accounts.password_of(&user, token, salt);
        }
        let opened = Input::Opened { conn, user, salt, entropy: random(), token: token.map(Token::from) };
        let _ = self.to_node.send(ToNode::Opened(conn, tx, opened));
        id
    }

    fn count(&self, what: Counted) {
        debug!(?what, "connection of a client");
        self.metrics.connection(what);
    }

    fn element(&self, conn: ConnId, stanza: Stanza) {
        crashes::stream_trap();
        self.metrics.element();
        self.send(Input::Element { conn: self.conn(conn), stanza });
    }

    fn closed(&self, conn: ConnId, clean: bool) {
        debug!(conn = conn.0, clean, "connection ended");
        self.stopping.ended();
        self.send(Input::Closed { conn: self.conn(conn), clean });
    }
}

/// What the ports for clients are set up with. Fails where certificate and key are not to be used.
pub(super) fn server(config: &Config, tickets: Arc<Tickets>) -> Result<ServerConfig, TlsError> {
    let (c2s, limits) = (&config.c2s, &config.limits);
    let identity = Identity::load(&c2s.cert, &c2s.key)?;
    let mut negotiation = negotiate::Config::new(config.node.domains[0].as_str());
    negotiation.domains = config.node.domains.iter().map(|d| d.as_str().into()).collect();
    negotiation.hashes = c2s.mechanisms.iter().filter_map(|name| config::scram_hash(name)).collect();
    negotiation.plain = c2s.plain;
    negotiation.before_auth.bytes = limits.before_login_bytes;
    negotiation.before_auth.elements = limits.before_login_elements;
    negotiation.after_auth.bytes = limits.stanza_bytes;
    let mut server = ServerConfig::new(tls::c2s_server(&identity, Some(tickets))?, negotiation)
        .unauthenticated(limits.unauthenticated, limits.unauthenticated_per_address)
        .connections_per_account(limits.connections_per_account)
        .rates(limits.rates())
        .logins(limits.login_share, limits.login_wait);
    server.auth_timeout = limits.login_timeout;
    server.tcp_timeout = limits.tcp_timeout;
    server.queued_bytes = limits.queued_bytes;
    server.credits = limits.credits;
    Ok(server)
}
