//! Critical services as supervised parts: each is probed by having it do its work ([`super::probes`]), one that died is started
//! again at once, and one that does not do its work is restarted, ever more seldom. What the node does about one that stays
//! down is decided in [`crate::node`].

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::accounts::Accounts;
use super::chronicle::Chronicle;
use super::probes::{self, Outcome, Probes};
use super::worker::ToNode;
use super::{crashes, panics};
use crate::admin::{Refusal, ServiceAction, ServiceStatus};
use crate::events::Record;
use crate::node::{Health, In, Service};

/// How often one that died is started again, and how often it is looked whether it is time for a probe.
const LOOK: Duration = Duration::from_millis(250);
/// Time between two probes.
const PERIOD: Duration = Duration::from_secs(5);
/// So many probes in a row that fail, and it is restarted;
const BAD: u32 = 2;
/// again after this at the earliest, then after twice as long, and so on,
const PAUSE: Duration = Duration::from_secs(10);
/// up to this,
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// until it has been well for so long.
const CALM: Duration = Duration::from_secs(600);

/// The parts of this node.
pub(super) struct Services {
    parts: Mutex<[Part; 4]>,
    probes: Probes,
    accounts: Arc<Accounts>,
    chronicle: Arc<Chronicle>,
    to_node: Sender<ToNode>,
    /// The node serves its users now.
    pub(super) ready: Arc<AtomicBool>,
    last_resort: LastResort,
}

/// For an engine that makes no turns: the node's thread stands still, and nothing in this process can fail over or start it
/// again.
pub(super) struct LastResort {
    /// How long it may stand still: as long as any critical service may be down.
    pub(super) delay: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Starts the process anew; the text says why.
    pub(super) end: Box<dyn Fn(&str) + Send + Sync>,
}

struct Part {
    state: State,
    since: Instant,
    /// How often it was started again.
    restarts: u64,
    care: Care,
    /// Why it did not do its work when that was last seen; nothing once it has done it.
    failed: Option<String>,
}

enum State {
    Runs,
    /// By the operator; not started again but by him, or by a fallback or recover.
    Stopped,
    /// It died, and does not start before this time.
    Dead(Instant),
    /// It runs and does not do its work: why.
    Fails(String),
}

/// What its supervisor remembers of one that failed.
#[derive(Debug, Default)]
struct Care {
    /// Probes in a row that failed.
    bad: u32,
    /// Restarts since it was calm.
    tries: u32,
    /// No restart before this.
    next: Option<Instant>,
}

impl Care {
    /// A probe failed: whether it is to be restarted now.
    fn fails(&mut self, now: Instant) -> bool {
        self.bad += 1;
        let due = self.bad >= BAD && self.next.is_none_or(|next| now >= next);
        if due {
            let pause = PAUSE * (1 << self.tries.min(6));
            self.tries += 1;
            self.next = Some(now + pause.min(LONGEST_PAUSE));
        }
        due
    }

    /// It is restarted now, whenever that was tried before: this is the first time since it was calm.
    fn begins_anew(&mut self, now: Instant) {
        (self.tries, self.next) = (1, Some(now + PAUSE));
    }

    /// It did its work, as it has for so long.
    fn works(&mut self, well_for: Duration) {
        self.bad = 0;
        if well_for >= CALM {
            *self = Care::default();
        }
    }
}

impl State {
    fn health(&self) -> Health {
        match self {
            State::Runs => Health::Runs,
            State::Fails(_) => Health::Fails,
            State::Stopped => Health::Stopped,
            State::Dead(_) => Health::Dead,
        }
    }
}

impl Services {
    /// All of them run.
    pub(super) fn new(
        probes: Probes,
        accounts: Arc<Accounts>,
        chronicle: Arc<Chronicle>,
        to_node: Sender<ToNode>,
        ready: Arc<AtomicBool>,
        last_resort: LastResort,
    ) -> Arc<Services> {
        let now = Instant::now();
        let part =
            || Part { state: State::Runs, since: now, restarts: 0, care: Care::default(), failed: None };
        let parts = Mutex::new([(); 4].map(|()| part()));
        Arc::new(Services { parts, probes, accounts, chronicle, to_node, ready, last_resort })
    }

    /// Supervises all of them, for ever: a node without its supervisors ends.
    pub(super) fn supervise(this: &Arc<Services>) {
        for service in Service::ALL {
            panics::vital("the supervision of critical services", this.clone().watch(service));
        }
    }

    async fn watch(self: Arc<Services>, service: Service) {
        let mut probed = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            crashes::services_trap();
            let dead = self.with(service, |part| match part.state {
                State::Dead(until) => Some(until),
                _ => None,
            });
            if let Some(until) = dead {
                if Instant::now() >= until {
                    self.begin(service, "its supervisor has started it again");
                }
                continue;
            }
            if probed.elapsed() < PERIOD {
                continue;
            }
            probed = Instant::now();
            let outcome = self.probes.of(service).await;
            self.probed(service, outcome);
        }
    }

    /// What a probe came to.
    fn probed(&self, service: Service, outcome: Outcome) {
        let restart = match outcome {
            None => false,
            Some(Ok(())) => {
                let failed = self.with(service, |part| {
                    part.care.works(part.since.elapsed());
                    part.failed = None;
                    matches!(part.state, State::Fails(_))
                });
                if failed {
                    self.turn(service, State::Runs, "it does its work again");
                }
                false
            }
            Some(Err(why)) => {
                let runs = self.with(service, |part| match part.state {
                    State::Runs | State::Fails(_) => {
                        part.failed = Some(why.clone());
                        Some(part.care.fails(Instant::now()))
                    }
                    State::Stopped | State::Dead(_) => None,
                });
                let Some(restart) = runs else { return };
                self.turn(service, State::Fails(why.clone()), &why);
                restart
            }
        };
        if restart {
            self.restart_failing(service, "by its supervisor");
        }
        if service == Service::PresenceEngine {
            self.look_at_engine();
        }
    }

    /// It is started. One that failed and has not worked since stays one that fails until a probe shows that this helped: its
    /// delay counts from when it last did its work.
    fn begin(&self, service: Service, by: &str) {
        self.probes.restart(service);
        match self.with(service, |part| part.failed.clone()) {
            None => self.turn(service, State::Runs, by),
            Some(why) => {
                let text = format!("{by}, and it has yet to do its work ({why})");
                self.turn(service, State::Fails(why), &text);
            }
        }
    }

    /// It stays one that fails until a probe shows that this helped.
    fn restart_failing(&self, service: Service, by: &str) {
        let (name, why) = (service.name(), self.why(service));
        self.with(service, |part| part.restarts += 1);
        let text = format!("critical service {name} is restarted {by}: {why}");
        self.tell("service-restarted", text);
        self.probes.restart(service);
    }

    /// If it is one that fails, it is restarted at once: whoever wants that has seen to what is wrong. `false`: it is none.
    fn mend(&self, service: Service, by: &str) -> bool {
        let fails = self.with(service, |part| {
            let fails = matches!(part.state, State::Fails(_));
            if fails {
                part.care.begins_anew(Instant::now());
            }
            fails
        });
        if fails {
            self.restart_failing(service, by);
        }
        fails
    }

    /// Time in which this process stood still itself does not count: so many probes, each with its limit.
    fn look_at_engine(&self) {
        let bad = self.with(Service::PresenceEngine, |part| part.care.bad);
        let (probed, delay) = (probes::LIMIT * bad, (self.last_resort.delay)());
        let stood = probed.min(self.probes.stands_still());
        if stood >= delay {
            let why = format!("the engine has made no turn for {} s; it is started anew", stood.as_secs());
            (self.last_resort.end)(&why);
        }
    }

    fn why(&self, service: Service) -> String {
        self.with(service, |part| match &part.state {
            State::Fails(why) => why.clone(),
            _ => String::new(),
        })
    }

    fn with<T>(&self, service: Service, look: impl FnOnce(&mut Part) -> T) -> T {
        look(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner)[service as usize])
    }

    fn tell(&self, event: &str, text: String) {
        self.chronicle.write(Record { event: event.to_owned(), text, ..Record::default() });
    }

    /// It is in another state from now on.
    fn turn(&self, service: Service, state: State, why: &str) {
        let health = state.health();
        let before = self.with(service, |part| {
            let before = part.state.health();
            part.restarts += u64::from(before.blocks() && !health.blocks());
            part.since = if before == health { part.since } else { Instant::now() };
            part.state = state;
            before
        });
        if service == Service::Authentication {
            self.accounts.serve(!health.blocks());
        }
        if before == health && health == Health::Fails {
            return;
        }
        let _ = self.to_node.send(ToNode::In(In::Service(service, health)));
        if before != health {
            let (event, now) = match health {
                Health::Runs => ("service-up", "runs"),
                Health::Fails => ("service-down", "fails"),
                Health::Stopped | Health::Dead => ("service-down", "does not run"),
            };
            self.tell(event, format!("critical service {} {now}: {why}", service.name()));
        }
    }

    /// Waits until it was started again, for a second at most.
    pub(super) async fn wait_for(&self, service: Service) {
        for _ in 0..20 {
            if !self.with(service, |part| matches!(part.state, State::Dead(_))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts what does not run, and restarts what fails, for a fallback or recover.
    pub(super) fn start_all(&self) {
        for service in Service::ALL {
            if !self.mend(service, "for a fallback or recover") {
                let _ = self.start(service, "it was started for a fallback or recover");
            }
        }
    }

    fn start(&self, service: Service, why: &str) -> Result<(), String> {
        let found = self.with(service, |part| match &part.state {
            State::Runs => Some(Ok(())),
            State::Dead(until) if *until > Instant::now() => {
                let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                Some(Err(format!("it was made to fail and does not start for {left} s more")))
            }
            State::Fails(why) => Some(Err(why.clone())),
            State::Dead(_) | State::Stopped => None,
        });
        found.unwrap_or_else(|| {
            self.begin(service, why);
            Ok(())
        })
    }

    /// What the operator wants.
    pub(super) fn act(&self, service: Service, action: ServiceAction) -> Result<(), Refusal> {
        match action {
            ServiceAction::Start => {
                self.start(service, "the operator started it").map_err(|why| Refusal {
                    error: format!("{} does not start: {why}", service.name()),
                    hint: format!(
                        "`tandem service restart {}`; if it does not start at all: `tandem restart` of this node",
                        service.name()
                    ),
                    ..Refusal::default()
                })?
            }
            ServiceAction::Stop => self.turn(service, State::Stopped, "the operator stopped it"),
            ServiceAction::Restart => {
                // One that fails would be held to be well until the next probe, and the delay would begin anew.
                if !self.mend(service, "by the operator") {
                    self.turn(service, State::Dead(Instant::now()), "the operator has it restarted");
                }
            }
            ServiceAction::Fail { seconds } => {
                let until = Instant::now() + Duration::from_secs(seconds);
                self.turn(service, State::Dead(until), "the operator made it fail");
            }
        }
        Ok(())
    }

    /// For the operator. `monitored`: the authentication service is critical.
    pub(super) fn list(&self, monitored: bool) -> Vec<ServiceStatus> {
        let of = |service: Service| {
            self.with(service, |part| {
                let (state, why) = match &part.state {
                    State::Runs => ("running", String::new()),
                    State::Stopped => ("stopped", "stopped by the operator".to_owned()),
                    State::Dead(_) => ("failed", "its supervisor starts it again".to_owned()),
                    State::Fails(why) => ("failing", why.clone()),
                };
                ServiceStatus {
                    name: service.name().to_owned(),
                    state: state.to_owned(),
                    why,
                    critical: service != Service::Authentication || monitored,
                    seconds: part.since.elapsed().as_secs(),
                    restarts: part.restarts,
                }
            })
        };
        Service::ALL.map(of).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use xmpp_core::negotiate::Lookup;
    use xmpp_core::sasl::ScramHash;

    use super::super::probes::tests::{still, store};
    use super::*;

    fn services() -> (Arc<Services>, Receiver<ToNode>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (to_node, node) = channel();
        let accounts = Arc::new(Accounts::new([0; 32]));
        let chronicle = Chronicle::start(dir.path(), "a").unwrap();
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
    #[should_panic(expected = "the process ends: the engine has made no turn for 20 s")]
    async fn an_engine_that_stands_still_for_as_long_as_a_service_may_be_down_ends_the_process() {
        let (services, _node, _dir) = services();
        for number in 1.. {
            services.probed(Service::PresenceEngine, Some(Err("a turn: not within 5 s".into())));
            assert!(number < 4, "20 s are over");
        }
    }
}
