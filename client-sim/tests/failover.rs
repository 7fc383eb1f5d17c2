//! A fleet against a make-believe pair: everything the clients have to do right, with a server that does.

mod fake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client_sim::conn::{Account, Dialer};
use client_sim::fleet::{Fleet, FleetOptions, FleetReport};
use client_sim::session::{Event, Options, Session};
use client_sim::sm::Outgoing;
use fake::{DOMAIN, PASSWORD, Pair, eventually};

const DEADLINE: Duration = Duration::from_secs(10);

async fn fleet(users: usize, plain: f64) -> (Arc<Pair>, Fleet) {
    let homes: Vec<usize> = (0..users).map(|user| user % 2).collect();
    let pair = Pair::start(&homes).await;
    let mut dialer = Dialer::new(Arc::clone(&pair.client_tls));
    dialer.login_timeout = Duration::from_secs(2);
    let options = FleetOptions {
        plain,
        silence: Duration::from_secs(1),
        interval: Duration::from_millis(20),
        logins_per_second: 1000.0,
        seed: 7,
        // The make-believe pair does not broadcast.
        change_presence: Duration::from_secs(3600),
        ..FleetOptions::new(DOMAIN, PASSWORD, pair.places.clone(), homes, dialer)
    };
    let fleet = Fleet::start(options).await;
    assert!(fleet.all_logged_in(DEADLINE).await, "{:?}", fleet.report());
    assert!(fleet.all_parked(DEADLINE).await, "{:?}", fleet.report());
    (pair, fleet)
}

async fn finish(fleet: Fleet) -> FleetReport {
    let drained = fleet.drain(DEADLINE).await;
    let report = fleet.report();
    assert!(drained, "{report:#?}");
    assert!(report.ledger.kept(), "{report:#?}");
    assert_eq!((report.counters.errors, report.counters.bounced), (0, 0), "{report:#?}");
    assert_eq!((report.counters.binds_anew, report.fault_unresumed), (0, 0), "{report:#?}");
    assert_eq!(report.ledger.unacknowledged, 0);
    let users = report.counters.users as u64;
    let presence = &report.presence;
    assert_eq!((presence.shown, presence.kept()), (users, true), "{presence:?}");
    fleet.stop().await;
    report
}

async fn chat(fleet: &Fleet, more: u64) {
    let before = fleet.snapshot().messages.delivered;
    eventually("messages arrive", || fleet.snapshot().messages.delivered >= before + more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_and_returns_and_gets_its_sessions_back() {
    let (pair, fleet) = fleet(20, 0.2).await;
    fleet.start_sending();
    chat(&fleet, 200).await;

    pair.kill(0);
    fleet.fault_at("a", Instant::now());
    eventually("all are at b", || fleet.snapshot().by_node.get("b") == Some(&20)).await;
    chat(&fleet, 200).await;
    let flips = fleet.snapshot().flips;
    assert_eq!(flips.total(), 8, "{flips:?}");
    assert_eq!(fleet.snapshot().parked, 0);

    pair.restart(0).await;
    assert!(fleet.all_parked(DEADLINE).await, "{:?}", fleet.report());
    chat(&fleet, 100).await;
    pair.hand_over_to(0);
    eventually("dual clients are at a", || fleet.snapshot().by_node.get("a") == Some(&16)).await;
    assert!(fleet.all_parked(DEADLINE).await, "the old streams are the parked ones");
    chat(&fleet, 100).await;
    assert_eq!(fleet.snapshot().flips.moving, 16);

    let report = finish(fleet).await;
    assert_eq!((report.flip_ms.count, report.plain_resume_ms.count), (8, 2), "{report:#?}");
    assert_eq!((report.unparked_resume_ms.count, report.fault_pending), (0, 0));
    assert!(report.plain_resume_ms.p50 >= report.flip_ms.p50, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_cost_nothing() {
    let (pair, fleet) = fleet(8, 0.5).await;
    fleet.start_sending();
    for round in 0..5 {
        chat(&fleet, 50).await;
        for user in 0..8 {
            let session = fleet.session(user).unwrap();
            if (user + round) % 3 == 0 { session.break_parked() } else { session.break_main() }
        }
        eventually("all are back", || fleet.snapshot().logged_in == 8).await;
    }
    assert_eq!(pair.sessions(), 8);
    assert!(fleet.all_parked(DEADLINE).await, "{:?}", fleet.report());
    let report = finish(fleet).await;
    assert!(report.counters.resumes >= 8, "{report:#?}");
    assert_eq!(report.counters.flips.total(), 0, "the owner lived all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_at_the_other_node_is_sent_to_the_owner() {
    let homes = [0, 1];
    let pair = Pair::start(&homes).await;
    let dialer = Dialer::new(Arc::clone(&pair.client_tls));
    // Everyone goes to the wrong node first.
    let options = FleetOptions {
        interval: Duration::from_millis(20),
        ..FleetOptions::new(DOMAIN, PASSWORD, pair.places.clone(), vec![1, 0], dialer)
    };
    let fleet = Fleet::start(options).await;
    assert!(fleet.all_logged_in(DEADLINE).await, "{:?}", fleet.report());
    assert_eq!(fleet.snapshot().by_node.len(), 2);
    fleet.start_sending();
    chat(&fleet, 10).await;
    let report = finish(fleet).await;
    assert_eq!(report.counters.attempts_failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_left() {
    let (pair, fleet) = fleet(8, 0.5).await;
    fleet.start_sending();
    chat(&fleet, 50).await;
    pair.freeze(0);
    fleet.fault_at("a", Instant::now());
    eventually("all are at b", || fleet.snapshot().by_node.get("b") == Some(&8)).await;
    chat(&fleet, 50).await;
    let report = finish(fleet).await;
    assert_eq!(report.counters.flips.take_after_lost, 2, "{report:#?}");
    assert_eq!((report.flip_ms.count, report.plain_resume_ms.count), (2, 2), "{report:#?}");
    assert!(report.flip_ms.max < report.plain_resume_ms.p50, "no handshake with a dead node: {report:#?}");
}

fn outgoing(id: &str, survives: bool) -> Outgoing {
    let bytes = format!("<message to='u1@{DOMAIN}' id='{id}'><body>{id}</body></message>").into();
    Outgoing { id: id.into(), bytes, survives }
}

/// The next event that is wanted, within the deadline.
async fn event<T>(
    events: &mut tokio::sync::mpsc::UnboundedReceiver<Event>,
    what: &str,
    wanted: impl Fn(Event) -> Option<T>,
) -> T {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = wanted(events.recv().await.expect("the client runs")) {
                return found;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// A count that does not fit will never fit: the session is given up, on either stream, and a new one begun. On one thread,
/// so that both stanzas are with the session before it notices anything.
#[tokio::test]
async fn a_session_whose_counts_do_not_fit_is_given_up() {
    for dual in [false, true] {
        let pair = Pair::start(&[0, 0]).await;
        let account = Account {
            user: "u0".into(),
            domain: DOMAIN.into(),
            password: PASSWORD.into(),
            resource: Some("sim".into()),
            keys: Arc::default(),
        };
        let dialer = Dialer::new(Arc::clone(&pair.client_tls));
        let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
        let options = Options { dual, ..Options::new(account, dialer, pair.places.clone()) };
        let session = Session::spawn(options, Arc::new(tell));
        event(&mut events, "bound", |e| matches!(e, Event::Bound { again: false, .. }).then_some(())).await;
        if dual {
            event(&mut events, "parked", |e| matches!(e, Event::Parked { .. }).then_some(())).await;
        }
        pair.lose_counts();
        if dual {
            pair.kill(0);
        } else {
            session.break_main();
        }
        session.send(outgoing("m1", true));
        session.send(outgoing("s1", false));
        let gone = |e| match e {
            Event::SessionGone { again, unknown } => Some((again, unknown)),
            _ => None,
        };
        let (again, unknown) = event(&mut events, "the session is given up", gone).await;
        let expected = |known: &[&str]| known.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!((again, unknown), (expected(&["m1"]), expected(&["s1"])), "dual: {dual}");
        let acknowledged = |e| match e {
            Event::Acknowledged { id } if !id.is_empty() => Some(id),
            _ => None,
        };
        event(&mut events, "a new one", |e| matches!(e, Event::Bound { again: true, .. }).then_some(()))
            .await;
        session.send(outgoing("m2", true));
        for id in ["m1", "m2"] {
            assert_eq!(event(&mut events, id, acknowledged).await, id, "dual: {dual}");
        }
    }
}
