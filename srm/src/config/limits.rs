//! `[limits]`: what one client, account or address may cost the node.

use std::time::Duration;

use presence_engine::engine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xmpp_core::net::Rates;
use xmpp_core::xml;

use super::check::Faults;
use super::text;

/// `[limits]`: what clients may cost. All have defaults that suit thousands of clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most connections that have not logged in yet. Default 2000, at least 1.
    pub unauthenticated: usize,
    /// The same from one IPv4 address or IPv6 /64 network. Default 200, 1 to `unauthenticated`.
    pub unauthenticated_per_address: usize,
    /// Most connections of one account, whatever they are used for: sessions, standby streams, and those that do
    /// nothing. One more is refused once it has logged in. Default 100, 4 to 10000.
    pub connections_per_account: usize,
    /// Longest stanza of a client that has not logged in yet; of all that it sends, 65536 bytes are read. Default 8192
    /// bytes, 4096 to 32768.
    pub before_login_bytes: usize,
    /// Most elements in such a stanza, its own included. Default 32, 16 to 1000.
    pub before_login_elements: u32,
    /// Time from connecting to logging in. Default 30 s, 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub login_timeout: Duration,
    /// How much of all processors logins may take, in percent. When more of them come, they wait before TLS: first those
    /// that bring a TLS ticket, as clients do that were here or at the peer before. Default 50, 1 to 100.
    pub login_share: u32,
    /// How long a connection may wait there. One that would wait longer is closed at once. Default 10 s, 1 s to 2 min.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub login_wait: Duration,
    /// How long sent bytes may stay unacknowledged by TCP, and silence before its keep-alive. Default 60 s, 1 s to 1 h.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub tcp_timeout: Duration,
    /// Bytes that may wait for one slow reader before its connection is closed, resumable. Default 4194304, at least
    /// `stanza_bytes`.
    pub queued_bytes: usize,
    /// Stanzas of one connection that are read ahead of being handled. Default 32, 1 to 10000.
    pub credits: u32,
    /// Bytes per second that are read from one client; two seconds' worth may come at once, and what is above is read
    /// later. Default 1048576, 1000 to 1000000000.
    pub bytes_per_second: u32,
    /// Stanzas (and other top-level elements) per second that are read from one client, likewise. Default 1000, 1 to
    /// 1000000.
    pub stanzas_per_second: u32,
    /// New connections per minute from one IPv4 address or IPv6 /64 network; a minute's worth may come at once, and
    /// more are closed unread. Default 6000, 10 to 100000000.
    pub connections_per_minute: u32,
    /// Wrong passwords per minute from one such address, likewise. Above it everybody there is told to try again later,
    /// right or wrong; no account is ever locked. Default 60, 1 to 1000000.
    pub failed_logins_per_minute: u32,
    /// Longest stanza of a client. Default 262144 bytes, 10000 to 262144. Clusterwide.
    pub stanza_bytes: usize,
    /// Most sessions of one account, those that wait for their client to resume them included. Default 32, 1 to 1000.
    /// Clusterwide.
    pub sessions_per_account: usize,
    /// Stanzas that one session may hold for its client until they are acknowledged. One more ends the session, and its
    /// messages go offline. Default 5000, 100 to 1000000. Clusterwide.
    pub session_stanzas: usize,
    /// Bytes of the same. Default 8388608, at least `stanza_bytes`, at most 1073741824. Clusterwide.
    pub session_bytes: u64,
    /// Messages that wait for one account that is not there. One more goes back to its sender. Default 2000, 0 to
    /// 1000000. Clusterwide.
    pub offline_messages: usize,
    /// Bytes of the same. Default 16777216, 0 to 1073741824. Clusterwide.
    pub offline_bytes: u64,
    /// Most items of one roster. Default 2000, 10 to 100000. Clusterwide.
    pub roster_items: usize,
    /// Most addresses that one session has sent directed presence to. Default 1000, 1 to 100000. Clusterwide.
    pub directed_presences: usize,
    /// Streams that one session may have parked for it in a minute. One more is refused. Default 30, 2 to 10000.
    /// Clusterwide.
    pub parks_per_minute: u32,
    /// How long a session outlives its stream. Default 300 s, 10 s to 24 h. Clusterwide.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub resume_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (rates, engine) = (Rates::default(), engine::Limits::DEFAULT);
        Limits {
            unauthenticated: xmpp_core::net::UNAUTHENTICATED,
            unauthenticated_per_address: xmpp_core::net::UNAUTHENTICATED_PER_ADDRESS,
            connections_per_account: xmpp_core::net::CONNECTIONS_PER_ACCOUNT,
            before_login_bytes: xml::Limits::BEFORE_AUTH.bytes,
            before_login_elements: xml::Limits::BEFORE_AUTH.elements,
            login_timeout: Duration::from_secs(30),
            login_share: xmpp_core::net::LOGIN_SHARE,
            login_wait: xmpp_core::net::LOGIN_WAIT,
            tcp_timeout: Duration::from_secs(60),
            queued_bytes: xmpp_core::net::QUEUED_BYTES,
            credits: 32,
            bytes_per_second: rates.bytes_per_second,
            stanzas_per_second: rates.stanzas_per_second,
            connections_per_minute: rates.connections_per_minute,
            failed_logins_per_minute: rates.failed_logins_per_minute,
            stanza_bytes: xmpp_core::xml::Limits::C2S.bytes,
            sessions_per_account: engine.resources,
            session_stanzas: engine.queue_stanzas,
            session_bytes: engine.queue_bytes,
            offline_messages: engine.offline_messages,
            offline_bytes: engine.offline_bytes,
            roster_items: engine.roster_items,
            directed_presences: engine.directed,
            parks_per_minute: engine.parks_per_minute,
            resume_timeout: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// Ranges, and what must fit together.
    pub(super) fn check(&self, faults: &mut Faults<'_>) {
        let limits = self;
        faults.range("limits.unauthenticated", limits.unauthenticated, 1..=1_000_000);
        let most = if limits.unauthenticated == 0 { usize::MAX } else { limits.unauthenticated };
        faults.range("limits.unauthenticated_per_address", limits.unauthenticated_per_address, 1..=most);
        faults.range("limits.connections_per_account", limits.connections_per_account, 4..=10_000);
        faults.range("limits.before_login_bytes", limits.before_login_bytes, 4_096..=32_768);
        faults.range("limits.before_login_elements", limits.before_login_elements, 16..=1_000);
        faults.duration("limits.login_timeout", limits.login_timeout, 1..=600);
        faults.range("limits.login_share", limits.login_share, 1..=100);
        faults.duration("limits.login_wait", limits.login_wait, 1..=120);
        faults.duration("limits.tcp_timeout", limits.tcp_timeout, 1..=3_600);
        let stanza = 10_000..=xmpp_core::xml::Limits::C2S.bytes;
        faults.range("limits.stanza_bytes", limits.stanza_bytes, stanza);
        faults.range("limits.queued_bytes", limits.queued_bytes, limits.stanza_bytes..=1 << 30);
        faults.range("limits.credits", limits.credits, 1..=10_000);
        faults.range("limits.bytes_per_second", limits.bytes_per_second, 1_000..=1_000_000_000);
        faults.range("limits.stanzas_per_second", limits.stanzas_per_second, 1..=1_000_000);
        faults.range("limits.connections_per_minute", limits.connections_per_minute, 10..=100_000_000);
        faults.range("limits.failed_logins_per_minute", limits.failed_logins_per_minute, 1..=1_000_000);
        faults.range("limits.sessions_per_account", limits.sessions_per_account, 1..=1_000);
        faults.range("limits.session_stanzas", limits.session_stanzas, 100..=1_000_000);
        faults.range("limits.session_bytes", limits.session_bytes, limits.stanza_bytes as u64..=1 << 30);
        faults.range("limits.offline_messages", limits.offline_messages, 0..=1_000_000);
        faults.range("limits.offline_bytes", limits.offline_bytes, 0..=1 << 30);
        faults.range("limits.roster_items", limits.roster_items, 10..=100_000);
        faults.range("limits.directed_presences", limits.directed_presences, 1..=100_000);
        faults.range("limits.parks_per_minute", limits.parks_per_minute, 2..=10_000);
        faults.duration("limits.resume_timeout", limits.resume_timeout, 10..=86_400);
    }

    /// How fast clients and their addresses may go.
    pub fn rates(&self) -> Rates {
        Rates {
            bytes_per_second: self.bytes_per_second,
            stanzas_per_second: self.stanzas_per_second,
            connections_per_minute: self.connections_per_minute,
            failed_logins_per_minute: self.failed_logins_per_minute,
        }
    }

    /// Those that the engine keeps.
    pub fn engine(&self) -> engine::Limits {
        engine::Limits {
            resources: self.sessions_per_account,
            queue_stanzas: self.session_stanzas,
            queue_bytes: self.session_bytes,
            offline_messages: self.offline_messages,
            offline_bytes: self.offline_bytes,
            roster_items: self.roster_items,
            directed: self.directed_presences,
            parks_per_minute: self.parks_per_minute,
            ..engine::Limits::DEFAULT
        }
    }

    /// Those that must be equal on both nodes, so that a failover changes none for a client.
    pub(super) fn clusterwide(&self, all: &mut Vec<(&'static str, String)>) {
        all.extend([
            ("limits.stanza_bytes", self.stanza_bytes.to_string()),
            ("limits.sessions_per_account", self.sessions_per_account.to_string()),
            ("limits.session_stanzas", self.session_stanzas.to_string()),
            ("limits.session_bytes", self.session_bytes.to_string()),
            ("limits.offline_messages", self.offline_messages.to_string()),
            ("limits.offline_bytes", self.offline_bytes.to_string()),
            ("limits.roster_items", self.roster_items.to_string()),
            ("limits.directed_presences", self.directed_presences.to_string()),
            ("limits.parks_per_minute", self.parks_per_minute.to_string()),
            ("limits.resume_timeout", text(self.resume_timeout)),
        ]);
    }
}
