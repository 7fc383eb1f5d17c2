//! A make-believe pair behind a real API, for tests of it and of its client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::*;
use crate::node::Force;

/// Token of every fake.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A pair `a` (answers) and `b`, whose failover takes as many looks at its status as it has users.
#[derive(Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Nodes that were restarted, in order.
    runs: Vec<String>,
    /// Nodes that were stopped, in order, and how.
    stops: Vec<(String, Stop)>,
    moving: Option<(Moving, String, bool)>,
    failed_over: Option<String>,
    forced: Option<String>,
    /// Forcing it active only takes back the word that made it inactive; with `true` until somebody asks whether it does.
    held: Option<bool>,
    users: Vec<UserStatus>,
    passwords: Vec<(String, String)>,
    log: String,
    /// Moving ends in failed mode.
    broken: bool,
    /// Who asks for metrics hits a bug.
    bug: bool,
    /// The node does not know how it is.
    silent: bool,
    group: GroupShown,
    /// What was done to services.
    services: Vec<(String, &'static str, ServiceAction)>,
    /// Checks, each of which ends at once.
    checks: u64,
    /// Who asked for moves of users and for settings, in order.
    operators: Vec<Option<Arc<str>>>,
}

impl Fake {
    /// Listens on a free port until the test ends; gives the address.
    pub async fn start(fake: Arc<Fake>) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(ArcSwap::from_pointee(Token::new(TOKEN).unwrap())), fake));
        address
    }

    /// What is looked at before high availability is enabled.
    pub fn check(&self, check: CheckShown) {
        self.state.lock().unwrap().group.checks.push(check);
    }

    /// From now on moving users fails.
    pub fn breaks(&self) {
        self.state.lock().unwrap().broken = true;
    }

    /// From now on whoever asks for metrics hits a bug.
    pub fn panics(&self) {
        self.state.lock().unwrap().bug = true;
    }

    /// From now on the node does not say how it is.
    pub fn falls_silent(&self) {
        self.state.lock().unwrap().silent = true;
    }

    /// Nodes that were restarted, in order.
    pub fn restarted(&self) -> Vec<String> {
        self.state.lock().unwrap().runs.clone()
    }

    /// Nodes that were stopped, in order, and how.
    pub fn stopped(&self) -> Vec<(String, Stop)> {
        self.state.lock().unwrap().stops.clone()
    }

    /// What was done to services: node, service, action.
    pub fn services(&self) -> Vec<(String, &'static str, ServiceAction)> {
        self.state.lock().unwrap().services.clone()
    }

    /// Who asked for moves of users and for settings, in order; empty: nobody said.
    pub fn operators(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.operators.iter().map(|name| name.as_deref().unwrap_or_default().to_owned()).collect()
    }

    /// The node is inactive by the operator's word, and its peer is heard: only `until_asked` or for good.
    pub fn is_held(&self, until_asked: bool) {
        self.state.lock().unwrap().held = Some(until_asked);
    }

    /// The node that was made active by force.
    pub fn forced(&self) -> Option<String> {
        self.state.lock().unwrap().forced.clone()
    }

    /// Passwords that were changed.
    pub fn passwords(&self) -> Vec<(String, String)> {
        self.state.lock().unwrap().passwords.clone()
    }

    /// Accounts that were added.
    pub fn accounts(&self) -> Vec<UserStatus> {
        self.state.lock().unwrap().users.clone()
    }

    fn begin(&self, node: &str, back: bool) -> Result<Moving, Refusal> {
        let mut state = self.state.lock().unwrap();
        state.operators.push(operator::current());
        let over = state.failed_over.clone();
        let possible = if back { over.as_deref() == Some(node) } else { over.is_none() };
        if !possible {
            return Err(Refusal {
                error: format!("{node} cannot do that now"),
                state: "Normal".into(),
                reason: "Normal".into(),
                hint: "look at the status".into(),
            });
        }
        let what = if back { "fallback to" } else { "failover of" };
        let moving = Moving { what: format!("{what} {node}"), left: 3, done: 0 };
        state.moving = Some((moving.clone(), node.into(), back));
        Ok(moving)
    }
}

impl State {
    fn look(&mut self) -> Status {
        if self.silent {
            return Status::default();
        }
        if let Some((moving, node, back)) = &mut self.moving {
            if moving.left == 0 {
                self.failed_over = (!*back).then(|| node.clone());
                self.moving = None;
            } else {
                moving.left -= 1;
                moving.done += 1;
            }
        }
        let node = |name: &str| {
            let (state, reason) = self.state_of(name);
            NodeStatus {
                name: name.into(),
                state: state.into(),
                reason: reason.into(),
                local: name == "a",
                heard_ms: Some(0),
                check: CheckStatus { ended: self.checks, users: Some(5), ..CheckStatus::default() },
                counters: CountersStatus { jsm_sessions_client: 5, ..CountersStatus::default() },
                services: vec![ServiceStatus {
                    name: "router".into(),
                    state: "running".into(),
                    critical: true,
                    ..ServiceStatus::default()
                }],
                ..NodeStatus::default()
            }
        };
        Status {
            version: "0.0.0".into(),
            domain: "im.example".into(),
            nodes: vec![node("a"), node("b")],
            row: Some(1),
            cause: "both well".into(),
            moving: self.moving.as_ref().map(|(moving, ..)| moving.clone()),
            ..Status::default()
        }
    }

    fn state_of(&self, name: &str) -> (&'static str, &'static str) {
        const ASKED: &str = "On Admin Request";
        if let Some((_, node, back)) = &self.moving {
            return match (*back, node == name) {
                (false, true) => ("Failing Over", ASKED),
                (false, false) => ("Taking Over", ASKED),
                (true, true) => ("Taking Back", ASKED),
                (true, false) => ("Falling Back", ASKED),
            };
        }
        match &self.failed_over {
            Some(_) if self.broken => ("Running in Failed Mode", "Take Over Users Failed"),
            Some(node) if node == name => ("Idle", ASKED),
            Some(_) => ("Running in Backup Mode", ASKED),
            None => ("Normal", "Normal"),
        }
    }
}

impl Daemon for Fake {
    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(async { self.state.lock().unwrap().look() })
    }

    fn failover<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>> {
        Box::pin(async { self.begin(node, false) })
    }

    fn fallback<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>> {
        Box::pin(async { self.begin(node, true) })
    }

    fn restart<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        self.state.lock().unwrap().runs.push(node.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn stop<'a>(&'a self, node: &'a str, stop: Stop) -> BoxFuture<'a, Result<Stopped, Refusal>> {
        self.state.lock().unwrap().stops.push((node.to_owned(), stop));
        Box::pin(async { Ok(Stopped { hands_over: false, streams: 3 }) })
    }

    fn service<'a>(
        &'a self,
        node: &'a str,
        service: Service,
        action: ServiceAction,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        self.state.lock().unwrap().services.push((node.to_owned(), service.name(), action));
        let broken = self.state.lock().unwrap().broken;
        let refusal = Refusal { error: "it does not start".into(), ..Refusal::default() };
        Box::pin(async move { if broken { Err(refusal) } else { Ok(()) } })
    }

    fn recover(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        let broken = std::mem::take(&mut self.state.lock().unwrap().broken);
        let refusal = Refusal { error: "nothing is to be recovered".into(), ..Refusal::default() };
        Box::pin(async move { if broken { Ok(()) } else { Err(refusal) } })
    }

    fn force<'a>(
        &'a self,
        node: &'a str,
        to: Force,
        confirmed: bool,
    ) -> BoxFuture<'a, Result<Forced, Refusal>> {
        let missing = match to {
            Force::Active => vec!["what b acknowledged alone".to_owned()],
            Force::Inactive => vec!["users of a are served by nobody".to_owned()],
        };
        let mut state = self.state.lock().unwrap();
        let takes_back = state.held.is_some();
        let missing = if takes_back { Vec::new() } else { missing };
        state.held = state.held.filter(|until_asked| !until_asked);
        let forced = Forced { node: node.to_owned(), done: confirmed, takes_back, missing };
        let refused = state.moving.is_some() || state.forced.is_some();
        if confirmed && !refused {
            state.forced = Some(node.to_owned());
        }
        let refusal =
            Refusal { error: "node b is heard".into(), hint: "stop it".into(), ..Refusal::default() };
        Box::pin(async move { if refused { Err(refusal) } else { Ok(forced) } })
    }

    fn take_back<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Forced, Refusal>> {
        let held = self.state.lock().unwrap().held.take().is_some();
        let forced = Forced { node: node.to_owned(), done: true, takes_back: true, missing: Vec::new() };
        let refusal = Refusal { error: "it has changed since".into(), ..Refusal::default() };
        Box::pin(async move { if held { Ok(forced) } else { Err(refusal) } })
    }

    fn user_add(
        &self,
        user: String,
        _password: String,
        home: Option<String>,
    ) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        let (home, epoch) = (home.unwrap_or("a".into()), "2.0".into());
        state.users.push(UserStatus { user, owner: home.clone(), home, epoch, sessions: 0 });
        Box::pin(async { Ok(()) })
    }

    fn user_passwd(&self, user: String, password: String) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        let known = state.users.iter().any(|known| known.user == user);
        state.passwords.extend(known.then_some((user.clone(), password)));
        Box::pin(async move { if known { Ok(()) } else { Err(nobody(&user)) } })
    }

    fn user_remove(&self, user: String) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        let before = state.users.len();
        state.users.retain(|known| known.user != user);
        let gone = state.users.len() < before;
        Box::pin(async move { if gone { Ok(()) } else { Err(nobody(&user)) } })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        let broken = self.state.lock().unwrap().broken;
        let (taken, restart) = (vec!["c2s.cert".into()], vec!["node.data".into()]);
        let done = Reloaded { taken, restart, warnings: vec!["a second look".into()] };
        let refusal =
            Refusal { error: "not reloaded".into(), hint: "correct it".into(), ..Refusal::default() };
        Box::pin(async move { if broken { Err(refusal) } else { Ok(done) } })
    }

    fn set(&self, key: String, value: Option<String>) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        self.state.lock().unwrap().operators.push(operator::current());
        let known = key == "srm.keep_alive_timeout";
        let done = Reloaded { taken: vec![format!("{key} = {value:?}")], ..Reloaded::default() };
        let refusal = Refusal { error: format!("there is no setting {key}"), ..Refusal::default() };
        Box::pin(async move { if known { Ok(done) } else { Err(refusal) } })
    }

    fn log_level(&self) -> String {
        self.state.lock().unwrap().log.clone()
    }

    fn set_log_level(&self, level: &str) -> Result<(), Refusal> {
        if level == "loud" {
            return Err(Refusal { error: "no level".into(), hint: "info".into(), ..Refusal::default() });
        }
        self.state.lock().unwrap().log = level.into();
        Ok(())
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        let state = self.state.lock().unwrap();
        let (bug, silent) = (state.bug, state.silent);
        Box::pin(async move {
            assert!(!bug, "as the test wants");
            if silent { String::new() } else { "# EOF\n".to_owned() }
        })
    }

    fn events(&self, after: u64, most: usize, _: Duration) -> BoxFuture<'_, Vec<Record>> {
        let record =
            |number| Record { number, node: "a".into(), text: "it began".into(), ..Record::default() };
        let all: Vec<Record> = (after + 1..=3).map(record).collect();
        Box::pin(async move { all[all.len().saturating_sub(most)..].to_vec() })
    }

    fn sessions(&self) -> BoxFuture<'_, Vec<SessionStatus>> {
        let of = |user: UserStatus| {
            let (resource, connected, queued) = ("phone".into(), true, 2);
            let (user, owner) = (user.user, user.owner);
            SessionStatus { user, resource, owner, connected, available: true, dual: true, queued }
        };
        Box::pin(async move { self.accounts().into_iter().map(of).collect() })
    }

    fn users(&self) -> BoxFuture<'_, Vec<UserStatus>> {
        Box::pin(async { self.accounts() })
    }

    fn group(&self) -> BoxFuture<'_, Option<GroupShown>> {
        let state = self.state.lock().unwrap();
        let unassigned = state.users.iter().filter(|user| user.home.is_empty()).count() as u64;
        let group = (!state.silent).then(|| GroupShown { unassigned, ..state.group.clone() });
        Box::pin(async move { group })
    }

    fn change_group(&self, op: GroupOp) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        let there = !state.group.name.is_empty();
        let refusal = |error: &str| Err(Refusal { error: error.to_owned(), ..Refusal::default() });
        let done = match op {
            GroupOp::Create { .. } if there => refusal("the nodes are in a group"),
            _ if !there && !matches!(op, GroupOp::Create { .. }) => refusal("the nodes are in no group"),
            GroupOp::Create { name, description } => {
                (state.group.name, state.group.description) = (name, description);
                Ok(())
            }
            GroupOp::Edit { name, description } => {
                state.group.name = name.unwrap_or_else(|| state.group.name.clone());
                state.group.description = description.unwrap_or_else(|| state.group.description.clone());
                Ok(())
            }
            GroupOp::Delete => {
                state.group = GroupShown::default();
                Ok(())
            }
            GroupOp::Ha { on: true, .. }
                if state.group.checks.iter().any(|check| check.needed && !check.well) =>
            {
                refusal("a check failed")
            }
            GroupOp::Ha { on, .. } => {
                state.group.high_availability = on;
                Ok(())
            }
        };
        Box::pin(async move { done })
    }

    fn assign(&self, user: String, home: Option<String>) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        let found = state.users.iter_mut().find(|known| known.user == user);
        let done = match found {
            Some(known) => {
                known.home = home.unwrap_or_default();
                Ok(())
            }
            None => Err(nobody(&user)),
        };
        Box::pin(async move { done })
    }

    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, Refusal>> {
        self.state.lock().unwrap().checks += 1;
        Box::pin(async { Ok(vec!["a".to_owned(), "b".to_owned()]) })
    }

    fn rebalance(&self) -> BoxFuture<'_, Result<Moving, Refusal>> {
        let begun = self.begin("a", false);
        Box::pin(async move { begun })
    }

    fn ready(&self) -> bool {
        self.state.lock().unwrap().failed_over.is_none()
    }
}

fn nobody(user: &str) -> Refusal {
    Refusal {
        error: format!("there is no account {user}"),
        hint: "see the list".into(),
        ..Refusal::default()
    }
}
