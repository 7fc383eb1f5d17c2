//! What operators and their tools see of a running pair: metrics of both nodes, readiness, the signal to read everything
//! again, the level of the log, and TLS tickets that count at the other node.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig, seed};
use rustix::process::Signal;
use srm::admin::ServiceAction;
use srm::cli::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xmpp_core::tls::Authority;

const LIMIT: Duration = Duration::from_secs(30);

fn load(seed: u64) -> Load {
    Load { users: 8, plain: 0.25, interval: Duration::from_millis(200), seed }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_tell_their_figures_and_read_everything_again_when_told() {
    let rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    rig.traffic(20).await;
    for node in 0..2 {
        assert_eq!(rig.metric(node, "tandem_node_ready"), 1.0);
        assert_eq!(rig.metric(node, "tandem_peer_up"), 1.0);
        assert!(rig.metric(node, "tandem_c2s_elements_total") > 20.0);
        assert!(rig.metric(node, "tandem_c2s_login_cost_seconds") > 0.0);
        assert_eq!(rig.get(node, "/readyz"), Some((200, "ready\n".to_owned())));
        // SIGHUP; nothing has changed in the file, so that it is not the change that is seen.
        let taken = || rig.metric(node, "tandem_config_reloads_total{result=\"taken\"}");
        let before = taken();
        rig.pair.signal(node, Signal::HUP).unwrap();
        until("the configuration is read again", || taken() > before);
        // The level of the log.
        let made = &rig.pair.made.nodes[node];
        let client = Client::at(made.admin, &made.token_file).unwrap_or_else(|f| panic!("{f:?}"));
        let debug = || fs::read_to_string(rig.pair.log_file(node)).unwrap().matches("DEBUG").count();
        assert_eq!(debug(), 0);
        client.set_log_level("debug").unwrap_or_else(|f| panic!("{f:?}"));
        drop(TcpStream::connect(made.c2s_tls).unwrap());
        until("a line of debugging", || debug() > 0);
        client.set_log_level("info").unwrap_or_else(|f| panic!("{f:?}"));
    }
    rig.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_its_peer_is_not_ready_until_it_serves() {
    let mut rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    rig.traffic(20).await;
    (0..2).for_each(|node| rig.kill(node));
    rig.pair.start(0).unwrap();
    until("it waits", || {
        rig.get(0, "/readyz").is_some_and(|(code, body)| (code, &*body) == (503, "not ready\n"))
    });
    assert_eq!(rig.get(0, "/healthz").map(|(code, _)| code), Some(200));
    rig.pair.start(1).unwrap();
    rig.until_paired(LIMIT);
    until("it serves", || rig.get(0, "/readyz").is_some_and(|(code, _)| code == 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_one_node_shortens_the_handshake_at_the_other() {
    let rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    rig.traffic(20).await;
    let authority = Authority::load(&rig.pair.made.ca).unwrap();
    let mut config = Arc::unwrap_or_clone(xmpp_core::tls::c2s_client(&authority).unwrap());
    config.resumption = xmpp_core::tls::tickets();
    let config = Arc::new(config);
    let mut kinds = Vec::new();
    let before = rig.metric(1, "tandem_c2s_tls_resumed_total");
    for node in [0, 1] {
        let tcp = tokio::net::TcpStream::connect(rig.pair.made.nodes[node].c2s_tls).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut tls = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
        kinds.push(tls.get_ref().1.handshake_kind());
        // Tickets come with the first words of the server.
        let domain = srm::demo::pair::DOMAIN;
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' \
             version='1.0'>"
        );
        tls.write_all(header.as_bytes()).await.unwrap();
        assert_ne!(tls.read(&mut [0; 64]).await.unwrap(), 0);
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert!(
        matches!(kinds[..], [Some(Full | rustls::HandshakeKind::FullWithHelloRetryRequest), Some(Resumed)]),
        "{kinds:?}"
    );
    assert_eq!(rig.metric(1, "tandem_c2s_tls_resumed_total"), before + 1.0);
    rig.settle().await;
}

/// A rule has a node fail over when something of the operator's choice happens to it, and once an hour: a restart of the node
/// does not begin that anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_the_operators_choice_has_a_node_fail_over() {
    let rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    rig.traffic(20).await;
    let made = &rig.pair.made.nodes;
    let client = |node: usize| {
        Client::at(made[node].admin, &made[node].token_file).unwrap_or_else(|f| panic!("{f:?}"))
    };
    let refused = client(0).set("srm.failover_on_events", Some("[\"moon\"]")).unwrap_err();
    assert!(refused.refusal.error.contains("no kind of events \"moon\""), "{refused:?}");
    let rules = "[\"alarm: wait for a restart\", \"service-down\"]";
    client(0).set("srm.failover_on_events", Some(rules)).unwrap_or_else(|f| panic!("{f:?}"));
    for node in 0..2 {
        rig.until(node, LIMIT, "no difference", |s| s.alarms.is_empty());
    }
    // On node b alone; a has the rule too, and nothing happens there.
    let sound = fs::read_to_string(&made[1].config).unwrap();
    fs::write(&made[1].config, sound.replace("[store]", "[store]\ncheckpoint_frames = 500")).unwrap();
    rig.until(1, LIMIT, "b fails over", |s| s.row == Some(3) && s.moving.is_none());
    let told = |node: usize, event: &str| {
        let events = client(node).events(0, 1_000, 0).unwrap_or_else(|f| panic!("{f:?}"));
        let told =
            events.into_iter().filter(|record| record.event == event && record.node == made[node].name);
        told.map(|record| record.text).collect::<Vec<_>>()
    };
    let rule = told(1, "rule");
    assert!(matches!(&rule[..], [text] if text.contains("failover of this node has begun")), "{rule:?}");
    assert_eq!(told(0, "rule"), Vec::<String>::new());
    fs::write(&made[1].config, &sound).unwrap();
    rig.fallback(1).await;
    // Enough for this hour, whatever else happens.
    client(1).service("b", "router", ServiceAction::Restart).unwrap_or_else(|f| panic!("{f:?}"));
    until("the next one is refused", || {
        told(1, "rule-refused").iter().any(|text| text.contains("flap guard"))
    });
    rig.until(1, LIMIT, "an alarm", |s| s.alarms.iter().any(|alarm| alarm.starts_with("flap guard")));
    // The hour does not begin anew with the process.
    assert!(rig.data(1).join("failovers.json").exists() && !rig.data(0).join("failovers.json").exists());
    let run = || rig.pair.status(1).map(|status| status.nodes[1].run);
    let first = run();
    assert!(first.is_some());
    assert!(rig.fleet.all_parked(LIMIT).await, "parking: {:?}", rig.fleet.snapshot());
    rig.mark_fault(1);
    client(1).restart("b").unwrap_or_else(|f| panic!("{f:?}"));
    until("b is restarted", || run().is_some_and(|now| Some(now) != first));
    rig.clients_go_on(LIMIT).await;
    for node in 0..2 {
        rig.until(node, LIMIT, "Normal after the restart", |s| {
            let guarded = |alarm: &String| alarm.starts_with("flap guard");
            let pair = s.groups.iter().all(|g| g.mode == "Pair") && s.alarms.iter().all(guarded);
            s.row == Some(1) && pair && s.nodes[1].services.iter().all(|service| service.state == "running")
        });
    }
    let refused = told(1, "rule-refused").len();
    client(1).service("b", "router", ServiceAction::Restart).unwrap_or_else(|f| panic!("{f:?}"));
    until("the next one is refused after the restart, too", || {
        told(1, "rule-refused").iter().skip(refused).any(|text| text.contains("flap guard"))
    });
    assert_eq!(told(1, "rule").len(), 1, "{:?}", told(1, "rule"));
    rig.settle().await;
}

/// What neither node can write down, and who would come to a node that cannot serve, is refused with its reason: not as if a
/// node did not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_neither_node_can_do_is_refused_with_its_reason_and_what_to_do() {
    let mut rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    let client = |rig: &Rig, node: usize| {
        let made = &rig.pair.made.nodes[node];
        Client::at(made.admin, &made.token_file).unwrap_or_else(|f| panic!("{f:?}"))
    };
    let routers = |rig: &Rig, action: ServiceAction| {
        for name in ["a", "b"] {
            client(rig, 0).service(name, "router", action).unwrap_or_else(|f| panic!("{f:?}"));
        }
    };
    routers(&rig, ServiceAction::Stop);
    let lacks = |alarms: &[String]| alarms.iter().any(|a| a.starts_with("a critical service of b is down"));
    rig.until(0, LIMIT, "a knows that b lacks its router", |s| lacks(&s.alarms));
    let shown = client(&rig, 0).group_edit(None, Some("third floor")).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(shown.description, "third floor", "the logs are well");
    let of_a = rig.pair.users(0).unwrap().into_iter().find(|user| user.home == "a").unwrap().user;
    for asked in [0, 1] {
        let refusal = client(&rig, asked).assign(&of_a, Some("b")).unwrap_err().refusal;
        assert_eq!(refusal.error, "router of b is stopped: stopped by the operator: nothing was changed");
        assert!(refusal.hint.contains("`tandem service start router --node b`"), "{refusal:?}");
    }
    routers(&rig, ServiceAction::Start);
    rig.until(0, LIMIT, "all services run", |s| !lacks(&s.alarms));

    // Both were restarted while nothing is done by itself: neither serves anybody, and neither writes.
    client(&rig, 0).set("srm.disable_automatics", Some("true")).unwrap_or_else(|f| panic!("{f:?}"));
    (0..2).for_each(|node| rig.kill(node));
    (0..2).for_each(|node| rig.pair.start(node).unwrap());
    for node in [0, 1] {
        rig.until(node, LIMIT, "both wait for the operator", |s| s.row == Some(128));
        until("it is told", || {
            let refusal = client(&rig, node).group_edit(None, Some("fourth floor")).unwrap_err().refusal;
            refusal.error.starts_with("neither a nor b can write it down now: nothing was changed")
                && refusal.hint.contains("`tandem status`")
        });
    }
}

/// The counters as operators know them: X users at home on one node and Y on the other, all with a second stream. And what the
/// operator may change while users are not at home.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_and_accounts_in_a_failover() {
    let mut load = load(seed());
    load.plain = 0.0;
    let rig = Rig::start(2, load, QUICK, &[]).await;
    let made = &rig.pair.made.nodes;
    let client = Client::at(made[0].admin, &made[0].token_file).unwrap_or_else(|f| panic!("{f:?}"));
    // Active, parked, composed; users served, users held.
    let show = |expected: [[u64; 5]; 2]| {
        rig.until(0, LIMIT, &format!("{expected:?}"), |status| {
            let counters = status.nodes.iter().map(|node| {
                let c = &node.counters;
                let sessions =
                    [c.jsm_sessions_client, c.jsm_sessions_client_inactive, c.jsm_sessions_composed];
                [sessions[0], sessions[1], sessions[2], c.active_jsm_sessions, c.inactive_jsm_sessions]
            });
            counters.eq(expected)
        })
    };
    show([[4, 4, 4, 4, 4]; 2]);
    client.begin("failover", "a").unwrap_or_else(|f| panic!("{f:?}"));
    show([[0, 8, 0, 0, 8], [8, 0, 8, 8, 0]]);
    // No accounts are added then, unless that is allowed; all else goes on.
    let added = format!("new@{}", srm::demo::pair::DOMAIN);
    let refused = client.user_add(&added, "a password", None).unwrap_err().refusal;
    assert!(refused.error.contains("no accounts are added"), "{refused:?}");
    assert!(refused.hint.contains("allow_adding_users_in_failover"), "{refused:?}");
    let users = || client.users().unwrap_or_else(|f| panic!("{f:?}")).len();
    assert_eq!(users(), 8);
    let allow = "srm.allow_adding_users_in_failover";
    client.set(allow, Some("true")).unwrap_or_else(|f| panic!("{f:?}"));
    client.user_add(&added, "a password", Some("a")).unwrap_or_else(|f| panic!("{f:?}"));
    until("both nodes have it", || {
        let status = client.status().unwrap_or_else(|f| panic!("{f:?}"));
        status.nodes.iter().all(|node| node.users == 9)
    });
    client.set(allow, None).unwrap_or_else(|f| panic!("{f:?}"));
    // It is served where the others of its home are, and goes home with them.
    let lives = || {
        let users = client.users().unwrap_or_else(|f| panic!("{f:?}"));
        let found = users.into_iter().find(|user| user.user == added).expect("it was added");
        (found.home, found.owner)
    };
    assert_eq!(lives(), ("a".to_owned(), "b".to_owned()));
    client.user_passwd(&added, "another password").unwrap_or_else(|f| panic!("{f:?}"));
    rig.fallback(0).await;
    assert_eq!(lives(), ("a".to_owned(), "a".to_owned()));
    client.user_remove(&added).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(users(), 8);
    show([[4, 4, 4, 4, 4]; 2]);
    rig.settle().await;
}
