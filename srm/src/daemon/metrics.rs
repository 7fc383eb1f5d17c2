//! Metrics for Prometheus: counters that are raised where things happen, and what the node shows of itself when it is
//! asked. Names are `tandem_<area>_<name>_<unit>`; no label is an account or an address.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use presence_engine::ids::{Mode, NodeIx};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use session_mover::log::{Stored, Which};
use xmpp_core::net::{Counted, Logins};

use crate::node::{Event, Force, Snapshot};
use crate::safety::Role;
use crate::version;

type Labels = Vec<(&'static str, String)>;
type Seconds = Gauge<f64, AtomicU64>;

/// What is counted while the node runs.
pub struct Metrics {
    registry: Registry,
    connections: Family<Labels, Counter>,
    logins: Counter,
    token_logins: Counter,
    tls_resumed: Counter,
    wrong_passwords: Counter,
    panics: Counter,
    elements: Counter,
    deliveries: Counter,
    delivered_bytes: Counter,
    events: Family<Labels, Counter>,
    link_downs: Counter,
    log_writes: Family<Labels, Histogram>,
    reloads: Family<Labels, Counter>,
}

impl Metrics {
    /// All zero.
    pub fn new() -> Arc<Metrics> {
        // 50 us, where a cache answers, to 26 s, where a disk is dying.
        let log_writes = Family::<Labels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
        });
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tandem"),
            connections: Family::default(),
            logins: Counter::default(),
            token_logins: Counter::default(),
            tls_resumed: Counter::default(),
            wrong_passwords: Counter::default(),
            panics: Counter::default(),
            elements: Counter::default(),
            deliveries: Counter::default(),
            delivered_bytes: Counter::default(),
            events: Family::default(),
            link_downs: Counter::default(),
            log_writes,
            reloads: Family::default(),
        };
        metrics.register();
        // What may happen is there from the beginning, so that its first time is seen as a change.
        for outcome in ["accepted", "turned_away", "crowded", "no_tls", "not_logged_in"] {
            let _ = metrics.connections.get_or_create(&label("outcome", outcome));
        }
        for result in ["taken", "refused"] {
            let _ = metrics.reloads.get_or_create(&label("result", result));
        }
        for (log, what) in [("own", "write"), ("own", "sync"), ("peer", "write"), ("peer", "sync")] {
            let _ =
                metrics.log_writes.get_or_create(&vec![("log", log.to_owned()), ("what", what.to_owned())]);
        }
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "c2s_connections",
            "Connections of clients by how they began: accepted, turned_away (limits), crowded (more logins than the \
             processors can take), no_tls, not_logged_in",
            self.connections.clone(),
        );
        r.register("c2s_logins", "Connections that have logged in", self.logins.clone());
        let help = "Connections that have logged in by a one-time token, to park or resume their session";
        r.register("c2s_token_logins", help, self.token_logins.clone());
        r.register("c2s_tls_resumed", "TLS handshakes shortened by a ticket", self.tls_resumed.clone());
        r.register(
            "c2s_wrong_passwords",
            "Passwords and proofs that did not fit",
            self.wrong_passwords.clone(),
        );
        let help = "Streams that a panic has ended: bugs, please report them with the log";
        r.register("c2s_panics", help, self.panics.clone());
        r.register("c2s_elements", "Top-level elements that clients have sent", self.elements.clone());
        r.register("c2s_deliveries", "Writes to clients, of one or more elements", self.deliveries.clone());
        r.register_with_unit("c2s_delivered", "Bytes of them", Unit::Bytes, self.delivered_bytes.clone());
        r.register("node_events", "Events of the node, by kind; the log tells each", self.events.clone());
        r.register("link_downs", "Ends of link connections that were up", self.link_downs.clone());
        r.register_with_unit(
            "log_write",
            "Time of one write to a log, and of one fdatasync",
            Unit::Seconds,
            self.log_writes.clone(),
        );
        r.register("config_reloads", "Times that the configuration was read again", self.reloads.clone());
    }

    /// A connection on its way to a login.
    pub fn connection(&self, what: Counted) {
        let by = |how: &str| _ = self.connections.get_or_create(&label("outcome", how)).inc();
        match what {
            Counted::Accepted => by("accepted"),
            Counted::TurnedAway => by("turned_away"),
            Counted::Crowded => by("crowded"),
            Counted::NoTls => by("no_tls"),
            Counted::NotLoggedIn => by("not_logged_in"),
            Counted::TlsResumed => _ = self.tls_resumed.inc(),
            Counted::Panicked => _ = self.panics.inc(),
            Counted::WrongPassword => _ = self.wrong_passwords.inc(),
        }
    }

    /// A connection has logged in.
    pub fn login(&self) {
        self.logins.inc();
    }

    /// It logged in by a one-time token.
    pub fn token_login(&self) {
        self.token_logins.inc();
    }

    /// An element came.
    pub fn element(&self) {
        self.elements.inc();
    }

    /// So many bytes go to a client.
    pub fn deliver(&self, bytes: usize) {
        self.deliveries.inc();
        self.delivered_bytes.inc_by(bytes as u64);
    }

    /// A link connection ended.
    pub fn link_down(&self) {
        self.link_downs.inc();
    }

    /// Something was written to a log, or synced.
    pub fn stored(&self, stored: &Stored) {
        let log = if stored.which == Which::Own { "own" } else { "peer" };
        let what = if stored.synced { "sync" } else { "write" };
        let labels = vec![("log", log.to_owned()), ("what", what.to_owned())];
        self.log_writes.get_or_create(&labels).observe(stored.took.as_secs_f64());
    }

    /// The configuration was read again.
    pub fn reload(&self, well: bool) {
        let result = if well { "taken" } else { "refused" };
        self.reloads.get_or_create(&label("result", result)).inc();
    }

    /// An event of the node.
    pub fn event(&self, event: &Event) {
        let kind = match event {
            Event::Register(..) => "register_changed",
            Event::Row(_) => "state_changed",
            Event::Moved(_) => "users_moved",
            Event::PeerUp => "peer_up",
            Event::PeerRestarts => "peer_restarts",
            Event::Recovered => "recovered",
            Event::Called(_) | Event::Unanswered(_) => "clients_call",
            Event::NotForClients(_) => "failover_refused",
            Event::Ha(true) => "ha_enabled",
            Event::Ha(false) => "ha_disabled",
            Event::Rebalanced(_) => "rebalanced",
            Event::Paused(_, Some(_)) => "move_paused",
            Event::Paused(_, None) => "move_resumed",
            Event::Checked(report) if report.different + report.wrong > 0 => "check_failed",
            Event::Checked(_) => "checked",
            Event::Unprotected(_) => "unprotected",
            Event::PeerGone(..) => "peer_gone",
            Event::SetAside(..) => "log_set_aside",
            Event::Forced(Force::Active, _) | Event::TakenBack => "active_by_force",
            Event::Forced(Force::Inactive, _) => "inactive_by_force",
            Event::StoreFailed(_) => "store_failed",
            Event::Resynced(..) => "resynced",
            Event::Poison(_) => "input_refused",
            Event::RosterFull(..) => "roster_full",
            Event::DiskStalled => "disk_stalled",
            Event::OnlyPathDown => "only_path_down",
        };
        self.events.get_or_create(&label("kind", kind)).inc();
    }

    /// How often an event of this kind was counted.
    #[cfg(test)]
    pub fn counted(&self, kind: &str) -> u64 {
        self.events.get_or_create(&label("kind", kind)).get()
    }

    /// Everything in the text format of Prometheus (OpenMetrics), with what the node shows.
    pub fn text(&self, shown: &Shown<'_>) -> String {
        let mut text = String::new();
        let mut now = Registry::with_prefix("tandem");
        shown.register(&mut now);
        let mut process = Registry::default();
        register_process(&mut process);
        // Writing to a string does not fail.
        for registry in [&self.registry, &now, &process] {
            let _ = encode_registry(&mut text, registry);
        }
        let _ = encode_eof(&mut text);
        text
    }
}

/// What a node shows of itself.
pub struct Shown<'a> {
    /// Names of both nodes.
    pub names: &'a [String; 2],
    /// Its own place among them.
    pub me: NodeIx,
    /// There is a peer.
    pub paired: bool,
    /// The node's own view.
    pub snapshot: &'a Snapshot,
    /// All alarms, those of the daemon too.
    pub alarms: usize,
    /// Whether it serves its users now.
    pub ready: bool,
    /// Seconds that each certificate is still valid, by the setting that names its file.
    pub certificates: Vec<(&'static str, i64)>,
    /// What logins cost, and how many connections wait before TLS.
    pub logins: Logins,
    /// Critical services, and whether each does its work.
    pub services: Vec<(String, bool)>,
}

fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

impl Shown<'_> {
    fn register(&self, r: &mut Registry) {
        let (s, me) = (self.snapshot, self.me.index());
        gauge(
            r,
            "node_ready",
            "1 while the node serves its users, here or by its peer",
            u64::from(self.ready),
        );
        gauge(r, "node_alarms", "Alarms that `tandem status` shows", self.alarms as u64);
        gauge(r, "node_users", "Accounts", s.users.0);
        let states = Family::<Labels, Gauge>::default();
        let nodes = NodeIx::BOTH.into_iter().filter(|n| self.paired || *n == self.me);
        for node in nodes.clone() {
            let (state, reason) = s.states[node.index()];
            let labels = vec![
                ("node", self.names[node.index()].clone()),
                ("state", state.name().to_owned()),
                ("reason", reason.name().to_owned()),
            ];
            states.get_or_create(&labels).set(1);
        }
        r.register("node_state", "1 for the state that this node sees each node in", states);
        self.register_groups(r, nodes);
        let c = &s.counters;
        gauge(r, "jsm_sessions_client", "Client sessions that are active here", c.jsm_sessions_client);
        gauge(
            r,
            "jsm_sessions_client_inactive",
            "Parked streams of clients whose sessions are active on the peer",
            c.jsm_sessions_client_inactive,
        );
        gauge(r, "jsm_sessions_composed", "Users who are logged in here", c.jsm_sessions_composed);
        gauge(r, "active_jsm_sessions", "Users served actively by this node", c.active_jsm_sessions);
        gauge(r, "inactive_jsm_sessions", "Users held inactively for the peer", c.inactive_jsm_sessions);
        gauge(r, "log_own_end_frames", "End of the node's own log", s.log.0);
        gauge(r, "log_acked_frames", "How much of it the peer has acknowledged", s.log.1);
        gauge(r, "log_received_frames", "How much of the peer's log this node has", s.log.2);
        gauge(r, "peer_up", "1 while the peer is heard", u64::from(s.peer_up));
        if let Some(room) = s.room {
            let free = Gauge::<i64>::default();
            free.set(i64::try_from(room.free).unwrap_or(i64::MAX));
            let help = "Room that is free on the disk of the data folder";
            r.register_with_unit("data_free", help, Unit::Bytes, free);
        }
        self.register_logins(r);
        if let Some(ms) = s.heard_ms {
            let heard = Seconds::default();
            heard.set(ms as f64 / 1_000.0);
            r.register_with_unit("peer_heard", "Time since the peer was last heard", Unit::Seconds, heard);
        }
        if let Some(decides) = s.witness {
            let help = "Whether the witness can be reached from this node, and decides";
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::from(decides));
            r.register("witness_decides", help, gauge);
        }
        let certificates = Family::<Labels, Gauge>::default();
        for (file, left) in &self.certificates {
            certificates.get_or_create(&label("file", *file)).set(*left);
        }
        let help = "Time until a certificate is not valid any more";
        r.register_with_unit("certificate_left", help, Unit::Seconds, certificates);
        let services = Family::<Labels, Gauge>::default();
        for (service, up) in &self.services {
            services.get_or_create(&label("service", service)).set(i64::from(*up));
        }
        r.register("service_up", "1 while a service of the node does its work", services);
        let version = Family::<Labels, Gauge>::default();
        let labels = vec![("node", self.names[me].clone()), ("version", version::program().to_owned())];
        version.get_or_create(&labels).set(1);
        r.register("build", "1 for the version that runs", version);
    }

    fn register_logins(&self, r: &mut Registry) {
        let help = "Connections that wait before TLS, because more logins come than the processors can take";
        gauge(r, "c2s_logins_waiting", help, self.logins.waiting as u64);
        let cost = Seconds::default();
        cost.set(self.logins.cost.as_secs_f64());
        let help = "Processor time of the login of a new client, as measured";
        r.register_with_unit("c2s_login_cost", help, Unit::Seconds, cost);
    }

    fn register_groups(&self, r: &mut Registry, groups: impl Iterator<Item = NodeIx>) {
        let (roles, terms, solo, homed) = (
            Family::<Labels, Gauge>::default(),
            Family::<Labels, Gauge>::default(),
            Family::<Labels, Gauge>::default(),
            Family::<Labels, Gauge>::default(),
        );
        for group in groups {
            let (_, mode, role, term, _) = self.snapshot.groups[group.index()];
            let home = self.names[group.index()].clone();
            let role = match role {
                Role::Primary => "primary",
                Role::Backup => "backup",
                Role::Fenced => "fenced",
            };
            roles.get_or_create(&vec![("home", home.clone()), ("role", role.to_owned())]).set(1);
            let by = label("home", home);
            terms.get_or_create(&by).set(i64::try_from(term).unwrap_or(i64::MAX));
            solo.get_or_create(&by).set(i64::from(mode == Mode::Solo));
            let users = self.snapshot.users.1[group.index()];
            homed.get_or_create(&by).set(i64::try_from(users).unwrap_or(i64::MAX));
        }
        r.register("group_role", "1 for the role that this node has for the users of a home node", roles);
        r.register("group_term", "Term of the register of the users of a home node", terms);
        r.register("group_solo", "1 while the users of a home node are served without a standby", solo);
        r.register("group_users", "Accounts of a home node", homed);
    }
}

fn gauge(r: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    r.register(name, help, gauge);
}

/// What Prometheus' own libraries tell of every process, by the same names.
fn register_process(r: &mut Registry) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // The name of the process, in parentheses, may hold anything.
    let Some((_, rest)) = stat.rsplit_once(')') else { return };
    let field =
        |n: usize| rest.split_whitespace().nth(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inc_by((field(11) + field(12)) as f64 / ticks);
    r.register_with_unit("process_cpu", "Processor time, user and system", Unit::Seconds, cpu);
    gauge(r, "process_virtual_memory_bytes", "Virtual memory", field(20));
    gauge(
        r,
        "process_resident_memory_bytes",
        "Resident memory",
        field(21) * rustix::param::page_size() as u64,
    );
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
    gauge(r, "process_open_fds", "Open file descriptors", open);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(0);
    gauge(r, "process_max_fds", "Most file descriptors that may be open", limit);
    let up = field(19) as f64 / ticks;
    let boot = boot_time();
    let start = Seconds::default();
    start.set(boot + up);
    r.register_with_unit("process_start_time", "Start of the process, since 1970", Unit::Seconds, start);
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    now - crate::sockets::boottime_ms() as f64 / 1_000.0
}

/// The list of all metrics, from a node that shows one of each.
#[cfg(test)]
fn reference(text: &str) -> String {
    let mut page = "# Metrics\n\n\
        `GET /metrics` of the admin API gives them in the text format of Prometheus (OpenMetrics), on both nodes, each for \
        itself. It\nwants the admin token: in Prometheus' configuration, `authorization: {credentials_file: ...}` with a \
        copy of the node's\n`admin.token`. No label is an account or an address. A node that does not say how it is, because \
        it waits for its disk\nor stops, answers 503 after 10 s at most.\n\n\
        This page is generated from what a node shows.\n\n| metric | type | meaning |\n|---|---|---|\n"
        .to_owned();
    let of = |line: &str, what: &str| {
        let rest = line.strip_prefix(what)?;
        rest.split_once(' ').map(|(name, text)| (name.to_owned(), text.to_owned()))
    };
    let mut help = None;
    for line in text.lines() {
        if let Some(found) = of(line, "# HELP ") {
            help = Some(found);
        } else if let (Some((name, kind)), Some((_, text))) = (of(line, "# TYPE "), &help) {
            let total = if kind == "counter" { "_total" } else { "" };
            page.push_str(&format!("| `{name}{total}` | {kind} | {} |\n", text.trim_end_matches('.')));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use presence_engine::ids::Position;

    use super::*;
    use crate::safety::Release;
    use crate::view::{Reason, State};

    fn snapshot() -> Snapshot {
        Snapshot {
            group: Default::default(),
            me: NodeIx::A,
            states: [(State::Normal, Reason::Normal); 2],
            row: (1, String::new(), String::new()),
            groups: [(NodeIx::A, Mode::Pair, Role::Primary, 4, Release::Both); 2],
            counters: Default::default(),
            log: (7, 6, 5),
            users: (3, [1, 2]),
            peer_up: true,
            heard_ms: Some(250),
            moving: None,
            offers: Vec::new(),
            alarms: Vec::new(),
            witness: Some(true),
            checks: Default::default(),
            room: Some(crate::node::Room { free: 7 << 30, whole: 8 << 30 }),
            run: 1,
            taken_over: true,
            digest: 0,
        }
    }

    fn text(metrics: &Metrics) -> String {
        metrics.text(&Shown {
            names: &["a".into(), "b".into()],
            me: NodeIx::A,
            paired: true,
            snapshot: &snapshot(),
            alarms: 2,
            ready: true,
            certificates: vec![("c2s.cert", 86_400)],
            logins: Logins { cost: std::time::Duration::from_micros(1_500), per_second: 667, waiting: 12 },
            services: vec![("router".into(), true), ("database".into(), false)],
        })
    }

    #[test]
    fn what_is_counted_and_what_is_shown_is_there_by_its_name() {
        let metrics = Metrics::new();
        metrics.connection(Counted::Accepted);
        metrics.connection(Counted::TlsResumed);
        metrics.deliver(120);
        metrics.event(&Event::OnlyPathDown);
        let at = Position::default();
        metrics.stored(&Stored { which: Which::Own, at, synced: true, took: Duration::from_millis(3) });
        let text = text(&metrics);
        for line in [
            "tandem_c2s_connections_total{outcome=\"accepted\"} 1",
            "tandem_c2s_tls_resumed_total 1",
            "tandem_c2s_delivered_bytes_total 120",
            "tandem_node_events_total{kind=\"only_path_down\"} 1",
            "tandem_log_write_seconds_count{log=\"own\",what=\"sync\"} 1",
            "tandem_node_state{node=\"b\",state=\"Normal\",reason=\"Normal\"} 1",
            "tandem_group_users{home=\"b\"} 2",
            "tandem_node_alarms 2",
            "tandem_c2s_logins_waiting 12",
            "tandem_c2s_login_cost_seconds 0.0015",
            "tandem_peer_heard_seconds 0.25",
            "tandem_witness_decides 1",
            "tandem_service_up{service=\"router\"} 1",
            "tandem_service_up{service=\"database\"} 0",
            "tandem_certificate_left_seconds{file=\"c2s.cert\"} 86400",
            "tandem_log_acked_frames 6",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is missing in\n{text}");
        }
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(resident.and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|bytes| bytes > 1 << 20));
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }

    /// `TANDEM_WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_list_of_metrics_is_what_a_node_shows() {
        let metrics = Metrics::new();
        metrics.event(&Event::OnlyPathDown);
        let page = reference(&text(&metrics));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
            std::fs::write(&file, &page).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(written == page, "write it anew: TANDEM_WRITE_DOCS=1 cargo test -p srm metrics");
        assert!(
            page.contains("| `tandem_c2s_logins_total` | counter |") && page.lines().count() > 35,
            "{page}"
        );
    }
}
