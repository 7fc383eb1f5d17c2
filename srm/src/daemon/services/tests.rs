//! What supervision does with services that fail, die, are stopped and are asked for.

use std::sync::mpsc::{Receiver, channel};

use xmpp_core::negotiate::Lookup;
use xmpp_core::sasl::ScramHash;

use super::super::probes::tests::{still, store};
use super::*;

fn services() -> (Arc<Services>, Receiver<ToNode>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (to_node, node) = channel();
    let accounts = Arc::new(Accounts::new([0; 32]));
    let chronicle = Chronicle::start(dir.path(), "a", Default::default()).unwrap();
    let ready = Arc::new(AtomicBool::new(true));
    let probes = Probes::new("d", accounts.clone(), to_node.clone(), ready.clone(), store().1, still());
    let last_resort = LastResort {
        delay: Box::new(|| Duration::from_secs(20)),
        end: Box::new(|why| panic!("the process ends: {why}")),
    };
    (Services::new(probes, accounts, chronicle, to_node, ready, last_resort), node, dir)
}

/// What its supervisor has begin anew.
fn restarted(node: &Receiver<ToNode>) -> Vec<Service> {
    let only = |told| match told {
        ToNode::In(In::Restart(service)) => Some(service),
        _ => None,
    };
    node.try_iter().filter_map(only).collect()
}

fn told(node: &Receiver<ToNode>) -> Vec<(Service, Health)> {
    let only = |told| match told {
        ToNode::In(In::Service(service, health)) => Some((service, health)),
        _ => None,
    };
    node.try_iter().filter_map(only).collect()
}

fn state(services: &Services, name: &str) -> String {
    services.list(false).into_iter().find(|s| s.name == name).unwrap().state
}

#[tokio::test]
async fn one_that_the_operator_stopped_stays_so_and_one_that_died_is_started_again() {
    let (services, node, _dir) = services();
    Services::supervise(&services);
    services.act(Service::Router, ServiceAction::Stop).unwrap();
    services.act(Service::Database, ServiceAction::Fail { seconds: 0 }).unwrap();
    let before = told(&node);
    assert_eq!(before, [(Service::Router, Health::Stopped), (Service::Database, Health::Dead)]);
    while state(&services, "database") != "running" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(told(&node), [(Service::Database, Health::Runs)]);
    assert_eq!(state(&services, "router"), "stopped");
    assert_eq!(services.list(false)[0].restarts, 1);
    services.act(Service::Router, ServiceAction::Start).unwrap();
    assert_eq!(told(&node), [(Service::Router, Health::Runs)]);
    services.act(Service::Router, ServiceAction::Restart).unwrap();
    services.wait_for(Service::Router).await;
    assert_eq!(told(&node), [(Service::Router, Health::Dead), (Service::Router, Health::Runs)]);
}

#[tokio::test]
async fn nobody_logs_in_while_the_authentication_service_is_stopped() {
    let (services, _node, _dir) = services();
    let is_there =
        || !matches!(services.accounts.lookup("anna", None, ScramHash::Sha256), Lookup::Unavailable);
    assert!(is_there());
    services.act(Service::Authentication, ServiceAction::Stop).unwrap();
    assert!(!is_there());
    services.act(Service::Authentication, ServiceAction::Start).unwrap();
    assert!(is_there());
}

#[tokio::test]
async fn one_that_does_not_start_says_so() {
    let (services, node, _dir) = services();
    services.act(Service::PresenceEngine, ServiceAction::Fail { seconds: 600 }).unwrap();
    let refused = services.act(Service::PresenceEngine, ServiceAction::Start).unwrap_err();
    assert!(refused.error.starts_with("presence-engine does not start"), "{}", refused.error);
    services.start_all();
    assert_eq!(told(&node), [(Service::PresenceEngine, Health::Dead)]);
}

#[tokio::test]
async fn one_that_does_not_do_its_work_is_restarted_and_stays_down_until_it_does() {
    let (services, node, _dir) = services();
    let fails = || Some(Err("EIO".to_owned()));
    services.probed(Service::Database, fails());
    assert_eq!(told(&node), [(Service::Database, Health::Fails)]);
    services.probed(Service::Database, fails());
    assert_eq!(restarted(&node), [Service::Database], "the second one in a row");
    services.probed(Service::Database, None);
    services.probed(Service::Database, fails());
    assert_eq!(restarted(&node), [], "not again at once");
    assert_eq!(state(&services, "database"), "failing", "a restart does not make it well");
    assert_eq!(services.list(false)[0].restarts, 1);
    services.probed(Service::Database, Some(Ok(())));
    assert_eq!(told(&node), [(Service::Database, Health::Runs)]);
    services.probed(Service::Database, fails());
    services.probed(Service::Database, fails());
    assert_eq!(restarted(&node), [], "nor because it was well for a moment");
    // What the operator stopped is nobody's business but his.
    services.act(Service::Router, ServiceAction::Stop).unwrap();
    (0..3).for_each(|_| services.probed(Service::Router, fails()));
    assert_eq!(restarted(&node), []);
    assert_eq!(state(&services, "router"), "stopped");
}

#[tokio::test]
async fn one_that_fails_is_restarted_for_a_fallback_or_recover_and_is_not_well_by_that() {
    let (services, node, _dir) = services();
    let fails = || Some(Err("EIO".to_owned()));
    services.probed(Service::Database, fails());
    services.start_all();
    assert_eq!(restarted(&node), [Service::Database], "its supervisor would wait for another probe");
    assert_eq!(state(&services, "database"), "failing", "until a probe shows otherwise");
    assert_eq!(services.list(false)[0].restarts, 1);
    // However often that was in vain, and however long its supervisor would wait by now.
    services.with(Service::Database, |part| {
        (part.care.tries, part.care.next) = (6, Some(Instant::now() + LONGEST_PAUSE));
    });
    services.start_all();
    assert_eq!(restarted(&node), [Service::Database]);
    let next = services.with(Service::Database, |part| part.care.next);
    assert!(next.is_some_and(|next| next <= Instant::now() + PAUSE), "and its supervisor goes on soon");
    assert!(services.act(Service::Database, ServiceAction::Start).is_err(), "it runs");
    assert_eq!(restarted(&node), []);
    services.probed(Service::Database, Some(Ok(())));
    assert_eq!(told(&node), [(Service::Database, Health::Runs)]);
    services.start_all();
    assert_eq!(restarted(&node), [], "nothing is down");
}

#[tokio::test]
async fn a_restart_by_the_operator_does_not_make_one_that_fails_well() {
    let (services, node, _dir) = services();
    services.probed(Service::Router, Some(Err("it is lost".to_owned())));
    assert_eq!(told(&node), [(Service::Router, Health::Fails)]);
    services.act(Service::Router, ServiceAction::Restart).unwrap();
    assert_eq!(restarted(&node), [Service::Router]);
    services.act(Service::Router, ServiceAction::Restart).unwrap();
    services.wait_for(Service::Router).await;
    assert_eq!(told(&node), [], "it has failed all the time: the delay runs on");
    assert_eq!(state(&services, "router"), "failing");
    services.probed(Service::Router, Some(Ok(())));
    assert_eq!(told(&node), [(Service::Router, Health::Runs)]);
}

#[tokio::test]
async fn one_that_failed_is_not_well_because_it_was_stopped_and_started() {
    let (services, node, _dir) = services();
    services.probed(Service::Router, Some(Err("it is lost".to_owned())));
    services.act(Service::Router, ServiceAction::Stop).unwrap();
    services.act(Service::Router, ServiceAction::Start).unwrap();
    let delay_runs_on = [Health::Fails, Health::Stopped, Health::Fails];
    assert_eq!(told(&node), delay_runs_on.map(|health| (Service::Router, health)));
    assert_eq!(state(&services, "router"), "failing");
    services.probed(Service::Router, Some(Ok(())));
    assert_eq!(told(&node), [(Service::Router, Health::Runs)]);
    // It has done its work since: a stop and a start are a restart, as of any other.
    services.act(Service::Router, ServiceAction::Stop).unwrap();
    services.act(Service::Router, ServiceAction::Start).unwrap();
    assert_eq!(told(&node), [(Service::Router, Health::Stopped), (Service::Router, Health::Runs)]);
}

#[tokio::test]
async fn one_that_failed_and_died_stays_one_that_fails() {
    let (services, node, _dir) = services();
    Services::supervise(&services);
    services.probed(Service::Authentication, Some(Err("it is slow".to_owned())));
    services.act(Service::Authentication, ServiceAction::Fail { seconds: 0 }).unwrap();
    services.wait_for(Service::Authentication).await;
    let delay_runs_on = [Health::Fails, Health::Dead, Health::Fails];
    assert_eq!(told(&node), delay_runs_on.map(|health| (Service::Authentication, health)));
}

#[test]
fn restarts_become_ever_more_seldom_until_it_has_been_well_for_long() {
    let mut care = Care::default();
    let begun = Instant::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    let restarts: Vec<u64> = (0..1_200).step_by(5).filter(|s| care.fails(at(*s))).collect();
    assert_eq!(restarts, [5, 15, 35, 75, 155, 315, 615, 915]);
    care.works(CALM - Duration::from_secs(1));
    assert!(!care.fails(at(1_205)) && !care.fails(at(1_210)), "it has not been well for long");
    care.works(CALM);
    assert!(!care.fails(at(1_211)) && care.fails(at(1_212)));
    let mut care = Care { bad: 40, tries: 6, next: Some(at(1_500)) };
    care.begins_anew(at(1_213));
    let restarts: Vec<u64> = (1_215..1_300).step_by(5).filter(|s| care.fails(at(*s))).collect();
    assert_eq!(restarts, [1_225, 1_245, 1_285], "as after the first");
}

#[tokio::test]
async fn one_that_failed_for_long_is_not_calm_as_soon_as_it_works() {
    let (services, node, _dir) = services();
    let fails = || Some(Err("EIO".to_owned()));
    services.probed(Service::Database, fails());
    let long_ago = Instant::now().checked_sub(CALM).unwrap();
    services.with(Service::Database, |part| {
        part.since = long_ago;
        (part.care.tries, part.care.next) = (6, Some(Instant::now() + LONGEST_PAUSE));
    });
    services.probed(Service::Database, Some(Ok(())));
    (0..BAD).for_each(|_| services.probed(Service::Database, fails()));
    assert_eq!(restarted(&node), [], "it failed all the time");
    services.probed(Service::Database, Some(Ok(())));
    services.with(Service::Database, |part| part.since = long_ago);
    services.probed(Service::Database, Some(Ok(())));
    (0..BAD).for_each(|_| services.probed(Service::Database, fails()));
    assert_eq!(restarted(&node), [Service::Database], "it worked all the time");
}

#[tokio::test]
#[should_panic(expected = "the process ends: the engine has made no turn for 20 s")]
async fn an_engine_that_stands_still_for_as_long_as_a_service_may_be_down_ends_the_process() {
    let (services, _node, _dir) = services();
    for number in 1.. {
        services.probed(Service::PresenceEngine, Some(Err("a turn: not within 5 s".into())));
        assert!(number < 4, "20 s are over");
    }
}
