//! Critical services as supervised parts: each is probed by having it do its work, and one that died is started again at
//! once. What the node does about one that stays down is decided in [`crate::node`].

use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use xmpp_core::negotiate::Lookup;
use xmpp_core::sasl::ScramHash;

use super::accounts::Accounts;
use super::chronicle::Chronicle;
use super::worker::{ToNode, Want};
use crate::admin::{Refusal, ServiceAction, ServiceStatus};
use crate::events::Record;
use crate::node::{Health, In, Service};

/// How often one that died is started again, and how often it is looked whether it is time for a probe.
const LOOK: Duration = Duration::from_millis(250);
/// Time between two probes.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a probe may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The parts of this node.
pub(super) struct Services {
    parts: Mutex<[Part; 4]>,
    accounts: Arc<Accounts>,
    chronicle: Arc<Chronicle>,
    to_node: Sender<ToNode>,
    /// The node serves its users now.
    pub(super) ready: Arc<AtomicBool>,
    /// What the database is probed with.
    file: PathBuf,
}

struct Part {
    state: State,
    since: Instant,
    /// How often it was started again.
    restarts: u64,
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

impl State {
    fn health(&self) -> Health {
        match self {
            State::Runs => Health::Runs,
            State::Fails(_) => Health::Fails,
            State::Stopped | State::Dead(_) => Health::Stopped,
        }
    }
}

impl Services {
    /// All of them run.
    pub(super) fn new(
        data: &std::path::Path,
        accounts: Arc<Accounts>,
        chronicle: Arc<Chronicle>,
        to_node: Sender<ToNode>,
        ready: Arc<AtomicBool>,
    ) -> Arc<Services> {
        let parts = [(); 4].map(|()| Part { state: State::Runs, since: Instant::now(), restarts: 0 });
        let file = data.join("probe");
        Arc::new(Services { parts: Mutex::new(parts), accounts, chronicle, to_node, ready, file })
    }

    /// Supervises all of them, for ever.
    pub(super) fn supervise(this: &Arc<Services>) {
        for service in Service::ALL {
            tokio::spawn(this.clone().watch(service));
        }
    }

    async fn watch(self: Arc<Services>, service: Service) {
        let mut probed = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let dead = self.with(service, |part| match part.state {
                State::Dead(until) => Some(until),
                _ => None,
            });
            if let Some(until) = dead {
                if Instant::now() >= until {
                    self.turn(service, State::Runs, "its supervisor has started it again");
                }
                continue;
            }
            if probed.elapsed() < PERIOD {
                continue;
            }
            probed = Instant::now();
            let found = self.probe(service).await;
            let state = self.with(service, |part| match (&part.state, found) {
                (State::Runs, Some(Err(why))) => Some(State::Fails(why)),
                (State::Fails(_), Some(Ok(()))) => Some(State::Runs),
                _ => None,
            });
            match state {
                Some(State::Fails(why)) => self.turn(service, State::Fails(why.clone()), &why),
                Some(state) => self.turn(service, state, "it does its work again"),
                None => {}
            }
        }
    }

    fn with<T>(&self, service: Service, look: impl FnOnce(&mut Part) -> T) -> T {
        look(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner)[service as usize])
    }

    /// It is in another state from now on.
    fn turn(&self, service: Service, state: State, why: &str) {
        let health = state.health();
        let before = self.with(service, |part| {
            let before = part.state.health();
            part.restarts += u64::from(before == Health::Stopped && health == Health::Runs);
            part.since = if before == health { part.since } else { Instant::now() };
            part.state = state;
            before
        });
        if service == Service::Authentication {
            self.accounts.serve(health != Health::Stopped);
        }
        let _ = self.to_node.send(ToNode::In(In::Service(service, health)));
        if before != health {
            let (event, now) = match health {
                Health::Runs => ("service-up", "runs"),
                Health::Fails => ("service-down", "fails"),
                Health::Stopped => ("service-down", "does not run"),
            };
            let text = format!("critical service {} {now}: {why}", service.name());
            self.chronicle.write(Record { event: event.to_owned(), text, ..Record::default() });
        }
    }

    /// `None`: nothing can be said now.
    async fn probe(&self, service: Service) -> Option<Result<(), String>> {
        let late = || format!("no answer within {} s", LIMIT.as_secs());
        match service {
            Service::Database => {
                let file = self.file.clone();
                let work = tokio::task::spawn_blocking(move || commit(&file));
                Some(match tokio::time::timeout(LIMIT, work).await {
                    Ok(Ok(Ok(()))) => Ok(()),
                    Ok(Ok(Err(error))) => Err(format!("{} cannot be written: {error}", self.file.display())),
                    Ok(Err(_)) => return None,
                    Err(_) => Err(format!("a commit: {}", late())),
                })
            }
            Service::PresenceEngine => match self.ask(Want::Turn).await {
                Some(()) => Some(Ok(())),
                None => Some(Err(format!("a turn of the engine: {}", late()))),
            },
            Service::Router => {
                // A node that may let nothing go does not have a broken router.
                let ready = || self.ready.load(Ordering::Relaxed);
                let was_ready = ready();
                match self.ask(Want::Release).await {
                    Some(()) => Some(Ok(())),
                    None if was_ready && ready() => {
                        Some(Err(format!("from a client's queue to a client's queue: {}", late())))
                    }
                    None => None,
                }
            }
            Service::Authentication => {
                let accounts = self.accounts.clone();
                let work = tokio::task::spawn_blocking(move || {
                    matches!(accounts.lookup("probe", None, ScramHash::Sha256), Lookup::Unavailable)
                });
                match tokio::time::timeout(LIMIT, work).await {
                    Ok(Ok(false)) => Some(Ok(())),
                    Ok(_) => None,
                    Err(_) => Some(Err(format!("credentials: {}", late()))),
                }
            }
        }
    }

    async fn ask(&self, want: Want) -> Option<()> {
        let (tell, told) = oneshot::channel();
        self.to_node.send(ToNode::Probe(want, tell)).ok()?;
        tokio::time::timeout(LIMIT, told).await.ok()?.ok()
    }

    /// Waits until it runs, for a second at most.
    pub(super) async fn wait_for(&self, service: Service) {
        for _ in 0..20 {
            if self.with(service, |part| matches!(part.state, State::Runs)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts what does not run, for a fallback or recover.
    pub(super) fn start_all(&self) {
        for service in Service::ALL {
            let _ = self.start(service, "it was started for a fallback or recover");
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
            self.turn(service, State::Runs, why);
            Ok(())
        })
    }

    /// What the operator wants.
    pub(super) fn act(&self, service: Service, action: ServiceAction) -> Result<(), Refusal> {
        match action {
            ServiceAction::Start => {
                self.start(service, "the operator started it").map_err(|why| Refusal {
                    error: format!("{} does not start: {why}", service.name()),
                    hint: "if it does not start at all: `tandem restart` of this node".to_owned(),
                    ..Refusal::default()
                })?
            }
            ServiceAction::Stop => self.turn(service, State::Stopped, "the operator stopped it"),
            ServiceAction::Restart => {
                self.turn(service, State::Dead(Instant::now()), "the operator has it restarted");
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

/// A small write that is on disk when it returns: what every commit of the database needs.
fn commit(file: &std::path::Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(file)?;
    file.rewind()?;
    file.write_all(b"written to see that the disk takes it\n")?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn services() -> (Arc<Services>, Receiver<ToNode>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (to_node, node) = channel();
        let accounts = Arc::new(Accounts::new([0; 32]));
        let chronicle = Chronicle::start(dir.path(), "a").unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        (Services::new(dir.path(), accounts, chronicle, to_node, ready), node, dir)
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
        assert_eq!(before, [(Service::Router, Health::Stopped), (Service::Database, Health::Stopped)]);
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
        assert_eq!(told(&node), [(Service::Router, Health::Stopped), (Service::Router, Health::Runs)]);
    }

    #[tokio::test]
    async fn one_that_does_not_start_says_so() {
        let (services, node, _dir) = services();
        services.act(Service::PresenceEngine, ServiceAction::Fail { seconds: 600 }).unwrap();
        let refused = services.act(Service::PresenceEngine, ServiceAction::Start).unwrap_err();
        assert!(refused.error.starts_with("presence-engine does not start"), "{}", refused.error);
        services.start_all();
        assert_eq!(told(&node), [(Service::PresenceEngine, Health::Stopped)]);
    }

    #[tokio::test]
    async fn a_probe_measures_work() {
        let (services, node, dir) = services();
        // The node's thread answers for the engine only.
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for told in node {
                match told {
                    ToNode::Probe(Want::Turn, answer) => _ = answer.send(()),
                    ToNode::Probe(Want::Release, answer) => held.push(answer),
                    _ => {}
                }
            }
        });
        assert_eq!(services.probe(Service::PresenceEngine).await, Some(Ok(())));
        assert_eq!(services.probe(Service::Authentication).await, Some(Ok(())));
        assert_eq!(services.probe(Service::Database).await, Some(Ok(())));
        std::fs::remove_file(dir.path().join("probe")).unwrap();
        std::fs::create_dir(dir.path().join("probe")).unwrap();
        assert!(services.probe(Service::Database).await.unwrap().unwrap_err().contains("cannot be written"));
        services.ready.store(false, Ordering::Relaxed);
        let router = services.probe(Service::Router);
        services.ready.store(false, Ordering::Relaxed);
        assert_eq!(router.await, None, "a node that may let nothing go does not have a broken router");
    }
}
