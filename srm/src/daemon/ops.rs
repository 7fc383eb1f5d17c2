//! What operators ask of either node: answered here, or by the other node through the link.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presence_engine::ids::NodeIx;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::check::check_status;
use super::chronicle::Chronicle;
use super::differences::settings;
use super::events::asked_by;
use super::group::{group_status, offer, roles};
use super::metrics::{Metrics, Shown};
use super::notices::Posted;
use super::reload::Live;
use super::services::Services;
use super::worker::{ToNode, ask, now_ms};
use crate::admin::{
    BoxFuture, CountersStatus, Daemon, Forced, GroupShown, LogStatus, Moving, NodeStatus, Refusal, Reloaded,
    ServiceAction, SessionStatus, Status, Stop, Stopped, UserStatus, operator,
};
use crate::config::Config;
use crate::events::Record;
use crate::logging::{self, BadLevel, LogLevel};
use crate::node::{By, Force, GroupOp, In, Op, Reply, Service, Snapshot};
use crate::version;

/// How long the other node may take to answer.
const PEER_LIMIT: Duration = Duration::from_secs(2);
/// How long this node may take to say how it is.
const OWN_LIMIT: Duration = Duration::from_secs(10);

/// A question to the other node's daemon.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum Ask {
    Status,
    Failover,
    Fallback,
    Restart,
    Service { service: String, action: ServiceAction },
    Set { key: String, value: Option<String> },
    UserAdd { user: String, password: String, home: String },
    UserPasswd { user: String, password: String },
    UserRemove { user: String },
    Group(GroupOp),
    Assign { user: String, home: Option<String> },
    Rebalance,
    Check,
    Notice(Posted),
    Stop(Stop),
}

#[derive(Serialize, Deserialize, Debug)]
pub(super) enum Answer {
    Status(Box<NodeStatus>),
    Moving(Moving),
    Done,
    Stopped(Stopped),
    Refused(Refusal),
}

#[derive(Serialize, Deserialize, Debug)]
enum Letter {
    Ask(u64, Ask),
    Answer(u64, Answer),
}

/// What the peer said of itself.
#[derive(Clone)]
pub(super) struct Heard {
    pub(super) status: NodeStatus,
    pub(super) asked_ms: u64,
    pub(super) answered_ms: u64,
}

/// The operator's side of a node.
pub(super) struct Operations {
    pub(super) names: [String; 2],
    pub(super) me: NodeIx,
    /// As it was at the start; what changes is in `live`.
    pub(super) config: Config,
    pub(super) live: Arc<Live>,
    metrics: Arc<Metrics>,
    log: LogLevel,
    pub(super) chronicle: Arc<Chronicle>,
    to_node: Sender<ToNode>,
    ready: Arc<AtomicBool>,
    pub(super) services: Arc<Services>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// What the peer said of itself last.
    heard: Mutex<Option<(Instant, Heard)>>,
    this: std::sync::Weak<Operations>,
}

impl Operations {
    pub(super) fn new(
        names: [String; 2],
        me: NodeIx,
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        log: LogLevel,
        to_node: Sender<ToNode>,
        services: Arc<Services>,
    ) -> Arc<Operations> {
        let chronicle = live.chronicle.clone();
        Arc::new_cyclic(|this| Operations {
            names,
            me,
            config: live.config(),
            live,
            metrics,
            log,
            chronicle,
            to_node,
            ready: services.ready.clone(),
            services,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            heard: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Hands everything over; the node says when it is done.
    pub(super) fn leave(&self) {
        let (answer, _) = oneshot::channel();
        let _ = self.to_node.send(ToNode::Op(Op::Leave, answer));
    }

    /// A message of the other node's daemon.
    pub(super) fn control(&self, bytes: Bytes) {
        match serde_json::from_slice(&bytes) {
            Ok(Letter::Answer(number, answer)) => {
                if let Some(waits) = self.waiting.lock().expect("no panic holds it").remove(&number) {
                    let _ = waits.send(answer);
                }
            }
            Ok(Letter::Ask(number, ask)) => {
                let Some(this) = self.this.upgrade() else { return };
                tokio::spawn(async move {
                    let answer = this.answer(ask).await;
                    this.post(&Letter::Answer(number, answer));
                });
            }
            // A newer peer asks what we do not know: it will not wait for ever.
            Err(_) => {}
        }
    }

    async fn answer(&self, ask: Ask) -> Answer {
        let moving = |result| match result {
            Ok(moving) => Answer::Moving(moving),
            Err(refusal) => Answer::Refused(refusal),
        };
        match ask {
            Ask::Status => match self.snapshot().await {
                Some(snapshot) => Answer::Status(Box::new(self.local_status(&snapshot))),
                None => Answer::Refused(stopping()),
            },
            Ask::Failover => moving(self.move_here(Op::Failover(By::Peer), "failover").await),
            Ask::Set { key, value } => match self.set_for_peer(&key, value.as_deref()).await {
                Ok(_) => Answer::Done,
                Err(refusal) => Answer::Refused(refusal),
            },
            Ask::Restart => self.done(self.restart_here().await).await,
            Ask::Service { service, action } => match self.service_here(&service, action).await {
                Ok(()) => Answer::Done,
                Err(refusal) => Answer::Refused(refusal),
            },
            Ask::Fallback => moving(self.move_here(Op::Fallback(By::Peer), "fallback").await),
            Ask::UserAdd { user, password, home } => {
                self.done(self.add_here(&user, &password, Some(home)).await).await
            }
            Ask::UserPasswd { user, password } => self.done(self.passwd_here(&user, &password).await).await,
            Ask::UserRemove { user } => self.done(self.remove_here(&user).await).await,
            Ask::Group(op) => self.done(self.change_group_here(op).await).await,
            Ask::Assign { user, home } => self.done(self.assign_here(&user, home.as_deref()).await).await,
            Ask::Rebalance => self.answer_rebalance().await,
            Ask::Check => self.done(self.check_here().await).await,
            Ask::Notice(posted) => self.done(self.notice_here(&posted).await).await,
            Ask::Stop(stop) => match self.stop_here(&stop).await {
                Ok(stopped) => Answer::Stopped(stopped),
                Err(refusal) => Answer::Refused(refusal),
            },
        }
    }

    fn post(&self, letter: &Letter) {
        if let Ok(text) = serde_json::to_vec(letter) {
            let _ = self.to_node.send(ToNode::Control(text.into()));
        }
    }

    pub(super) async fn ask_peer(&self, ask: Ask) -> Option<Answer> {
        self.config.peer.as_ref()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().expect("no panic holds it").insert(number, tell);
        self.post(&Letter::Ask(number, ask));
        let answer = timeout(PEER_LIMIT, told).await.ok().and_then(Result::ok);
        self.waiting.lock().expect("no panic holds it").remove(&number);
        answer
    }

    /// Writes down that an operator asked this node for something, and got it.
    pub(super) fn asked(&self, what: &str) {
        let (asked_by, asked) = asked_by(&self.names, self.me, operator::current().as_deref());
        let text = format!("{what} was {asked}");
        let (event, cause) = ("asked".to_owned(), "operator".to_owned());
        self.chronicle.write(Record { event, cause, asked_by, text, ..Record::default() });
    }

    /// This node's users go to its peer, because a rule of the operator fits to an event.
    pub(super) async fn fail_over_by_rule(&self, rule: &str, id: &str) {
        let begun = self.move_here(Op::Failover(By::Rule), "failover").await;
        let (event, text) = match &begun {
            Ok(_) => {
                ("rule", format!("the rule for \"{rule}\" fits to {id}: failover of this node has begun"))
            }
            Err(why) => (
                "rule-refused",
                format!("the rule for \"{rule}\" fits to {id}, but {}: {}", why.error, why.hint),
            ),
        };
        self.chronicle.tell(event, text);
    }

    pub(super) async fn snapshot(&self) -> Option<Snapshot> {
        ask(&self.to_node, OWN_LIMIT, ToNode::Snapshot).await
    }

    pub(super) fn tell_node(&self, told: In) {
        let _ = self.to_node.send(ToNode::In(told));
    }

    pub(super) async fn op(&self, op: Op) -> Option<Reply> {
        let (tell, told) = oneshot::channel();
        self.to_node.send(ToNode::Op(op, tell)).ok()?;
        told.await.ok()
    }

    async fn move_here(&self, op: Op, what: &str) -> Result<Moving, Refusal> {
        match self.op(op).await {
            Some(Reply::Begun(p)) => Ok(Moving { what: what.to_owned(), left: p.left, done: p.done }),
            Some(Reply::Refused(refused)) => Err(self.refusal(refused.error, refused.hint).await),
            _ => Err(stopping()),
        }
    }

    pub(super) async fn refusal(&self, error: String, hint: String) -> Refusal {
        let states = self.snapshot().await.map(|s| s.states[self.me.index()]);
        let (state, reason) = states.map_or(("", ""), |(state, reason)| (state.name(), reason.name()));
        Refusal { error, state: state.to_owned(), reason: reason.to_owned(), hint }
    }

    pub(super) fn index(&self, name: &str) -> Option<NodeIx> {
        let found = self.names.iter().position(|n| !n.is_empty() && n == name)?;
        NodeIx::from_index(found)
    }

    async fn move_at(&self, at: NodeIx, ask: Ask, op: Op, what: &'static str) -> Result<Moving, Refusal> {
        if at == self.me {
            return self.move_here(op, what).await;
        }
        match self.ask_peer(ask).await {
            Some(Answer::Moving(moving)) => Ok(moving),
            Some(Answer::Refused(refusal)) => Err(refusal),
            _ => {
                let hint = "start the node, or repair the path between the nodes; then ask again";
                Err(self
                    .refusal(format!("node {} does not answer", self.names[at.index()]), hint.to_owned())
                    .await)
            }
        }
    }

    fn local_status(&self, s: &Snapshot) -> NodeStatus {
        let i = self.me.index();
        let (state, reason) = s.states[i];
        let c = &s.counters;
        NodeStatus {
            name: self.names[i].clone(),
            state: state.name().to_owned(),
            reason: reason.name().to_owned(),
            local: true,
            heard_ms: Some(0),
            counters: CountersStatus {
                jsm_sessions_client: c.jsm_sessions_client,
                jsm_sessions_client_inactive: c.jsm_sessions_client_inactive,
                jsm_sessions_composed: c.jsm_sessions_composed,
                active_jsm_sessions: c.active_jsm_sessions,
                inactive_jsm_sessions: c.inactive_jsm_sessions,
            },
            log: LogStatus { own_end: s.log.0, acked_by_peer: s.log.1, received: s.log.2 },
            users: s.users.0,
            homed: s.users.1[i],
            version: version::program().to_owned(),
            clock_ms: now_ms(),
            time_zone: self.live.zone.load().clocks(now_ms()),
            run: s.run,
            services: self.services_now(),
            check: check_status(&s.checks),
            settings: settings(&self.live.config()),
            roles: roles(&self.names, s),
            offered: s.offers.iter().map(|action| action.name().to_owned()).collect(),
        }
    }

    pub(super) async fn status_now(&self) -> Status {
        self.status_within(Duration::ZERO).await
    }

    /// What the peer said of itself, and when it was asked and answered; what it said so long ago will do. One that is not
    /// heard is not asked.
    async fn peer_within(&self, age: Duration, s: &Snapshot) -> Option<Heard> {
        if !s.peer_up {
            return None;
        }
        let lock = || self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().clone().filter(|(at, _)| at.elapsed() < age);
        if let Some((_, heard)) = kept {
            return Some(heard);
        }
        let asked_ms = now_ms();
        let Some(Answer::Status(status)) = self.ask_peer(Ask::Status).await else { return None };
        let mut heard = Heard { status: *status, asked_ms, answered_ms: now_ms() };
        heard.status.name.clone_from(&self.names[self.me.peer().index()]);
        *lock() = Some((Instant::now(), heard.clone()));
        Some(heard)
    }

    /// What the peer said of itself may be so old.
    pub(super) async fn status_within(&self, age: Duration) -> Status {
        let Some(s) = self.snapshot().await else { return Status::default() };
        let me = self.me.index();
        let mut nodes = vec![self.local_status(&s)];
        let heard = self.peer_within(age, &s).await;
        let alarms = self.alarms(&s, &nodes[0], heard.as_ref());
        if self.config.peer.is_some() {
            let at = self.me.peer().index();
            let (state, reason) = s.states[at];
            let mut peer = heard.map_or_else(
                || NodeStatus { users: s.users.0, homed: s.users.1[at], ..NodeStatus::default() },
                |heard| heard.status,
            );
            peer.name.clone_from(&self.names[at]);
            offer(&mut nodes[0], &mut peer);
            peer.local = false;
            peer.heard_ms = s.heard_ms;
            // Each node names both states from what it knows; what is shown here is this node's view.
            (peer.state, peer.reason) = (state.name().to_owned(), reason.name().to_owned());
            nodes.push(peer);
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let name = |n: NodeIx| self.names[n.index()].clone();
        let groups = NodeIx::BOTH.into_iter().filter(|g| self.config.peer.is_some() || g.index() == me);
        Status {
            version: version::program().to_owned(),
            domain: self.config.node.domains[0].clone(),
            nodes,
            groups: groups.map(|g| group_status(name(g), name(s.groups[g.index()].0), &s, g)).collect(),
            witness: s.witness.map(|decides| if decides { "decides" } else { "cannot be asked" }.to_owned()),
            row: Some(s.row.0),
            cause: s.row.1,
            action: s.row.2,
            alarms,
            moving: s.moving.map(|(what, p)| Moving { what: what.to_owned(), left: p.left, done: p.done }),
        }
    }
}

pub(super) fn stopping() -> Refusal {
    let error = "the node does not answer".to_owned();
    Refusal { error, hint: "it may be stopping; ask again in a moment".to_owned(), ..Refusal::default() }
}

impl Daemon for Operations {
    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(self.status_now())
    }

    fn failover<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>> {
        Box::pin(async move {
            let at = self.index(node).unwrap_or(self.me);
            let asking = self.chronicle.movers.ask(at, operator::current());
            let begun = self.move_at(at, Ask::Failover, Op::Failover(By::Here), "failover").await?;
            asking.begun();
            self.asked(&format!("failover of {node}"));
            Ok(begun)
        })
    }

    fn fallback<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>> {
        Box::pin(async move {
            // The node that has the users gives them back.
            let at = self.index(node).unwrap_or(self.me).peer();
            let asking = self.chronicle.movers.ask(at.peer(), operator::current());
            let begun = self.move_at(at, Ask::Fallback, Op::Fallback(By::Here), "fallback").await?;
            asking.begun();
            self.asked(&format!("fallback to {node}"));
            Ok(begun)
        })
    }

    fn restart<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(self.restart_at(node))
    }

    fn stop<'a>(&'a self, node: &'a str, stop: Stop) -> BoxFuture<'a, Result<Stopped, Refusal>> {
        Box::pin(self.stop_at(node, stop))
    }

    fn service<'a>(
        &'a self,
        node: &'a str,
        service: Service,
        action: ServiceAction,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(self.service_at(node, service, action))
    }

    fn recover(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.recover_both())
    }

    fn force<'a>(
        &'a self,
        node: &'a str,
        to: Force,
        confirmed: bool,
    ) -> BoxFuture<'a, Result<Forced, Refusal>> {
        Box::pin(self.force_here(node, to, Op::Force { to, confirmed }))
    }

    fn take_back<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Forced, Refusal>> {
        Box::pin(self.force_here(node, Force::Active, Op::TakeBack))
    }

    fn user_add(
        &self,
        user: String,
        password: String,
        home: Option<String>,
    ) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let here = self.add_here(&user, &password, home.clone()).await?;
            let home = home.unwrap_or_else(|| self.names[self.me.peer().index()].clone());
            self.here_or_there(here, Ask::UserAdd { user, password, home }).await
        })
    }

    fn user_passwd(&self, user: String, password: String) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let here = self.passwd_here(&user, &password).await?;
            self.here_or_there(here, Ask::UserPasswd { user, password }).await
        })
    }

    fn user_remove(&self, user: String) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let here = self.remove_here(&user).await?;
            self.here_or_there(here, Ask::UserRemove { user }).await
        })
    }

    fn group(&self) -> BoxFuture<'_, Option<GroupShown>> {
        Box::pin(self.group_shown())
    }

    fn change_group(&self, op: GroupOp) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.change_group_anywhere(op))
    }

    fn assign(&self, user: String, home: Option<String>) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.assign_anywhere(user, home))
    }

    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, Refusal>> {
        Box::pin(self.check_anywhere())
    }

    fn rebalance(&self) -> BoxFuture<'_, Result<Moving, Refusal>> {
        Box::pin(self.rebalance_anywhere())
    }

    fn events(&self, after: u64, most: usize, wait: Duration) -> BoxFuture<'_, Vec<Record>> {
        Box::pin(async move {
            if !wait.is_zero() {
                self.chronicle.wait(after, wait).await;
            }
            self.chronicle.since(after, most)
        })
    }

    fn sessions(&self) -> BoxFuture<'_, Vec<SessionStatus>> {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            let _ = self.to_node.send(ToNode::Sessions(tell));
            told.await.unwrap_or_default()
        })
    }

    fn users(&self) -> BoxFuture<'_, Vec<UserStatus>> {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            let _ = self.to_node.send(ToNode::Users(tell));
            told.await.unwrap_or_default()
        })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        Box::pin(async move {
            let hint = "correct it and ask again; the node goes on with what it had";
            let done = self.live.reload().await.map_err(|error| Refusal {
                error: format!("the configuration was not reloaded: {error}"),
                hint: hint.to_owned(),
                ..Refusal::default()
            })?;
            self.asked("a reload of the configuration");
            Ok(done)
        })
    }

    fn set(&self, key: String, value: Option<String>) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        Box::pin(async move { self.set_on_both(key, value).await })
    }

    fn log_level(&self) -> String {
        self.log.level()
    }

    fn set_log_level(&self, level: &str) -> Result<(), Refusal> {
        let refusal = |error: BadLevel| Refusal {
            error: error.to_string(),
            hint: logging::HINT.to_owned(),
            ..Refusal::default()
        };
        self.log.set(level).map_err(refusal)
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let Some(snapshot) = self.snapshot().await else { return String::new() };
            let heard = self.peer_within(self.live.config().srm.keep_alive_interval, &snapshot).await;
            let alarms = self.alarms(&snapshot, &self.local_status(&snapshot), heard.as_ref());
            self.metrics.text(&Shown {
                names: &self.names,
                me: self.me,
                paired: self.config.peer.is_some(),
                snapshot: &snapshot,
                alarms: alarms.len(),
                ready: self.ready(),
                certificates: self.live.certificates(),
                logins: self.live.clients.load().logins_now(),
                services: self
                    .services
                    .list(false)
                    .into_iter()
                    .map(|s| (s.name, s.state == "running"))
                    .collect(),
            })
        })
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}
