//! Critical services as supervised parts: each is probed by having it do its work ([`super::probes`]), one that died is started
//! again at once, and one that does not do its work is restarted, ever more seldom. What the node does about one that stays
//! down is decided in [`crate::node`].

#[cfg(test)]
mod tests;

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
                    // One that failed is well since now, for however long it had failed.
                    let well = matches!(part.state, State::Runs);
                    part.care.works(if well { part.since.elapsed() } else { Duration::ZERO });
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
