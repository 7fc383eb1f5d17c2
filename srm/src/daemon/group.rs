//! The presence redundancy group at the operator's request: asked of either node, done by the one that can.

use std::collections::BTreeMap;
use std::sync::Arc;

use presence_engine::ids::{Mode, NodeIx};

use super::differences::{clocks_differ, versions_differ};
use super::ops::{Answer, Ask, Operations, stopping};
use super::worker::now_ms;
use crate::admin::{CheckShown, GroupShown, GroupStatus, Member, Moving, NodeStatus, Refusal, ServiceStatus};
use crate::node::{Action, Check, GroupOp, In, Op, Reply, SERVICES, Service, Snapshot};
use crate::safety::{Release, Role};

/// The check of the nodes' clocks.
const CLOCKS: &str = "clocks";

/// One register, as it is shown.
pub(super) fn group_status(home: String, primary: String, s: &Snapshot, group: NodeIx) -> GroupStatus {
    let (_, mode, role, term, release) = s.groups[group.index()];
    GroupStatus {
        home,
        primary,
        mode: if mode == Mode::Pair { "Pair" } else { "Solo" }.to_owned(),
        role: role_name(role).to_owned(),
        term,
        release: match release {
            Release::Alone => "own disk",
            Release::Both => "own disk and peer",
            Release::Nothing => "nothing",
        }
        .to_owned(),
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Primary => "Primary",
        Role::Backup => "Backup",
        Role::Fenced => "Fenced",
    }
}

/// This node's role for the users of each home node.
pub(super) fn roles(names: &[String; 2], s: &Snapshot) -> BTreeMap<String, String> {
    let homes = NodeIx::BOTH.into_iter().filter(|home| !names[home.index()].is_empty());
    let role = |home: NodeIx| role_name(s.groups[home.index()].2).to_owned();
    homes.map(|home| (names[home.index()].clone(), role(home))).collect()
}

/// Each node tells what it does if it is asked. Here it is for whom that may be asked: the node that has the users gives them
/// back, so a fallback to one is the other's; and a node is forced at itself only.
pub(super) fn offer(here: &mut NodeStatus, peer: &mut NodeStatus) {
    let fallback = Action::Fallback.name();
    let take = |node: &mut NodeStatus| {
        let before = node.offered.len();
        node.offered.retain(|action| action != fallback);
        node.offered.len() < before
    };
    let (from_here, from_peer) = (take(here), take(peer));
    here.offered.extend(from_peer.then(|| fallback.to_owned()));
    let forced = [Action::ForceActive.name(), Action::ForceInactive.name()];
    peer.offered.retain(|action| !forced.contains(&action.as_str()));
    peer.offered.extend(from_here.then(|| fallback.to_owned()));
}

impl Operations {
    /// `None`: this node does not say how it is.
    pub(super) async fn group_shown(&self) -> Option<GroupShown> {
        let snapshot = self.snapshot().await?;
        let status = Some(self.status_now().await).filter(|status| !status.nodes.is_empty())?;
        let assigned: u64 = snapshot.users.1.iter().sum();
        let nodes = status.nodes.iter().map(|node| Member {
            name: node.name.clone(),
            state: node.state.clone(),
            reason: node.reason.clone(),
            users: self.index(&node.name).map_or(0, |i| snapshot.users.1[i.index()]),
            version: node.version.clone(),
        });
        Some(GroupShown {
            name: snapshot.group.name.to_string(),
            description: snapshot.group.description.to_string(),
            high_availability: snapshot.group.ha && self.config.peer.is_some(),
            assignment: self.live.config().srm.user_assignment_mode.as_str().to_owned(),
            nodes: nodes.collect(),
            unassigned: snapshot.users.0 - assigned,
            checks: self.checks().await.into_iter().map(shown).collect(),
        })
    }

    /// What is looked at before high availability is enabled: the node's part, and what only its shell sees.
    async fn checks(&self) -> Vec<Check> {
        let mut checks = match self.op(Op::HaChecks).await {
            Some(Reply::Checks(checks)) => checks,
            _ => Vec::new(),
        };
        let (seen, services) = self.shell_checks().await;
        name_services(&mut checks, &services);
        checks.extend(seen);
        checks
    }

    /// The node asks for what it does not see.
    pub(super) fn look_for_node(self: &Arc<Operations>) {
        let here = self.clone();
        tokio::spawn(async move {
            let (checks, _) = here.shell_checks().await;
            here.tell_node(In::Checks(checks));
        });
    }

    /// What only the shell sees, and the critical services of both nodes that do not run.
    async fn shell_checks(&self) -> (Vec<Check>, Vec<Lame>) {
        let peer = self.peer_now().await;
        let mut services = lame(&self.names[self.me.index()], &self.services_now());
        if let Some((peer, _)) = &peer {
            services.extend(lame(&peer.name, &peer.services));
        }
        let heard = peer.as_ref().map(|(peer, asked_ms)| (peer, *asked_ms, now_ms()));
        (seen(&self.names[self.me.peer().index()], heard, &services), services)
    }

    async fn peer_now(&self) -> Option<(NodeStatus, u64)> {
        let asked_ms = now_ms();
        match self.ask_peer(Ask::Status).await {
            Some(Answer::Status(mut peer)) => {
                peer.name.clone_from(&self.names[self.me.peer().index()]);
                Some((*peer, asked_ms))
            }
            _ => None,
        }
    }

    /// The version before knows nothing of what would be written down.
    pub(super) async fn same_version(&self) -> Result<(), Refusal> {
        match self.peer_now().await {
            None => Ok(()),
            Some((peer, _)) => self.is_of_this_version(&peer).await,
        }
    }

    async fn is_of_this_version(&self, peer: &NodeStatus) -> Result<(), Refusal> {
        match versions_differ(peer) {
            None => Ok(()),
            Some(error) => Err(self.refusal(error, "finish the upgrade first".to_owned()).await),
        }
    }

    /// What the group is called is written down by both, or by none: a peer that does not answer may be of any version.
    async fn surely_same_version(&self) -> Result<(), Refusal> {
        if self.config.peer.is_none() {
            return Ok(());
        }
        if let Some((peer, _)) = self.peer_now().await {
            return self.is_of_this_version(&peer).await;
        }
        let peer = &self.names[self.me.peer().index()];
        let error = format!("node {peer} does not answer, and whether it runs the same version is not known");
        let hint = format!("start {peer}, or repair the path between the nodes; then ask again");
        Err(self.refusal(error, hint).await)
    }

    pub(super) async fn change_group_here(&self, op: GroupOp) -> Result<Reply, Refusal> {
        match op {
            GroupOp::Create { .. } | GroupOp::Edit { .. } => self.surely_same_version().await?,
            GroupOp::Delete | GroupOp::Ha { on: false, .. } => self.same_version().await?,
            // That is one of its checks.
            GroupOp::Ha { on: true, .. } => {}
        }
        let checked = match op {
            GroupOp::Ha { on: true, .. } => self.checks().await,
            GroupOp::Create { .. } if self.config.peer.is_some() => self.shell_checks().await.0,
            _ => Vec::new(),
        };
        if let Some((error, hint)) = failed(&op, checked) {
            return Err(self.refusal(error, hint).await);
        }
        self.reply_of(Op::Group(op)).await
    }

    pub(super) async fn assign_here(&self, user: &str, home: Option<&str>) -> Result<Reply, Refusal> {
        let jid = self.account(user)?;
        let home = home.map(|name| self.index(name).unwrap_or(self.me));
        self.same_version().await?;
        self.reply_of(Op::Assign(jid, home)).await
    }

    pub(super) async fn reply_of(&self, op: Op) -> Result<Reply, Refusal> {
        match self.op(op).await {
            Some(Reply::Refused(refused)) => Err(self.refusal(refused.error, refused.hint).await),
            Some(Reply::Lacks(node)) => {
                let (_, lame) = self.shell_checks().await;
                let (error, hint) = lacks(&self.names[node.index()], &lame);
                Err(self.refusal(error, hint).await)
            }
            Some(reply) => Ok(reply),
            None => Err(stopping()),
        }
    }

    /// What the other node is told that asked for something which only this one can do.
    pub(super) async fn done(&self, result: Result<Reply, Refusal>) -> Answer {
        match result {
            Ok(Reply::Done) => Answer::Done,
            Ok(Reply::NotHere) => Answer::Refused(self.neither().await),
            Ok(_) => Answer::Refused(stopping()),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Each node says that the other must do it.
    async fn neither(&self) -> Refusal {
        let (_, lame) = self.shell_checks().await;
        let (error, hint) = neither(&self.names, &lame);
        self.refusal(error, hint).await
    }

    pub(super) async fn change_group_anywhere(&self, op: GroupOp) -> Result<(), Refusal> {
        let here = self.change_group_here(op.clone()).await?;
        let what = told(&op);
        self.here_or_there(here, Ask::Group(op)).await?;
        self.asked(&what);
        Ok(())
    }

    pub(super) async fn assign_anywhere(&self, user: String, home: Option<String>) -> Result<(), Refusal> {
        let here = self.assign_here(&user, home.as_deref()).await?;
        self.here_or_there(here, Ask::Assign { user, home }).await
    }

    pub(super) async fn rebalance_here(&self) -> Result<Reply, Refusal> {
        self.same_version().await?;
        self.reply_of(Op::Rebalance).await
    }

    pub(super) async fn rebalance_anywhere(&self) -> Result<Moving, Refusal> {
        let moving = |left, done| Moving { what: "rebalance".to_owned(), left, done };
        let begun = match self.rebalance_here().await? {
            Reply::Begun(p) => moving(p.left, p.done),
            Reply::NotHere => match self.ask_peer(Ask::Rebalance).await {
                Some(Answer::Moving(begun)) => begun,
                Some(Answer::Refused(refusal)) => return Err(refusal),
                _ => {
                    let error = format!("node {} does not answer", self.names[self.me.peer().index()]);
                    let hint = "start it, or repair the path between the nodes".to_owned();
                    return Err(self.refusal(error, hint).await);
                }
            },
            _ => return Err(stopping()),
        };
        self.asked("rebalance of users");
        Ok(begun)
    }

    /// For the node that was asked by its peer.
    pub(super) async fn answer_rebalance(&self) -> Answer {
        match self.rebalance_here().await {
            Ok(Reply::Begun(p)) => {
                Answer::Moving(Moving { what: "rebalance".to_owned(), left: p.left, done: p.done })
            }
            Ok(Reply::NotHere) => Answer::Refused(self.neither().await),
            Ok(_) => Answer::Refused(stopping()),
            Err(refusal) => Answer::Refused(refusal),
        }
    }
}

/// The shell's checks: with what the peer said of itself, and when it was asked and answered. What is not known is not well.
fn seen(peer: &str, heard: Option<(&NodeStatus, u64, u64)>, services: &[Lame]) -> Vec<Check> {
    let silent = || Some(format!("node {peer} did not answer"));
    let versions = heard.map_or_else(silent, |(status, ..)| versions_differ(status));
    let clocks =
        heard.map_or_else(silent, |(status, asked, answered)| clocks_differ(status, asked, answered));
    let store = services.iter().find(|lame| lame.fails && lame.service == Service::Database);
    let store = store.map(|lame| lame.text.clone());
    let check = |what, wrong: Option<String>, hint| {
        let (well, text) = (wrong.is_none(), wrong.unwrap_or_default());
        Check::new(what, well, text, hint)
    };
    let restart = "see what its disk says; then `tandem service restart database --node NODE`";
    vec![
        check("store", store, restart),
        check("versions", versions, "run the same version on both nodes"),
        check(CLOCKS, clocks, "let both nodes run NTP"),
    ]
}

/// A critical service that does not run.
struct Lame {
    node: String,
    service: Service,
    /// It runs, but does not do its work.
    fails: bool,
    text: String,
}

fn lame(node: &str, services: &[ServiceStatus]) -> Vec<Lame> {
    let down = services.iter().filter(|s| s.critical && s.state != "running");
    down.filter_map(|s| {
        let text = format!("{} of {node} is {}: {}", s.name, s.state, s.why);
        let (node, service) = (node.to_owned(), Service::named(&s.name)?);
        Some(Lame { node, service, fails: s.state == "failing", text })
    })
    .collect()
}

/// What is down, and the commands that mend it.
fn mended(lame: &[&Lame]) -> (String, String) {
    let command = |lame: &&Lame| {
        let action = if lame.fails { "restart" } else { "start" };
        format!("`tandem service {action} {} --node {}`", lame.service.name(), lame.node)
    };
    let texts: Vec<&str> = lame.iter().map(|lame| lame.text.as_str()).collect();
    let commands: Vec<String> = lame.iter().map(command).collect();
    (texts.join("; "), commands.join(", "))
}

/// Nobody is given to this node: critical services are down there.
fn lacks(node: &str, lame: &[Lame]) -> (String, String) {
    let there: Vec<&Lame> = lame.iter().filter(|lame| lame.node == node).collect();
    if there.is_empty() {
        let hint = "`tandem service list` says which; start it, then ask again".to_owned();
        return (format!("a critical service of {node} is down: nothing was changed"), hint);
    }
    let (down, commands) = mended(&there);
    (format!("{down}: nothing was changed"), format!("start what is down: {commands}; then ask again"))
}

/// Neither node can do it. What is down may be why users are not served, and must run before they are.
fn neither([a, b]: &[String; 2], lame: &[Lame]) -> (String, String) {
    let error = format!("neither {a} nor {b} can write it down now: nothing was changed");
    let hint = "a node writes only while it serves its own users: see `tandem status`, and ask again then";
    if lame.is_empty() {
        return (error, hint.to_owned());
    }
    let (down, commands) = mended(&lame.iter().collect::<Vec<_>>());
    (format!("{error}; {down}"), format!("start what is down: {commands}; {hint}"))
}

/// The node's check knows that services are down; which, and why, is known here.
fn name_services(checks: &mut [Check], lame: &[Lame]) {
    let names: Vec<&str> = lame.iter().map(|lame| lame.text.as_str()).collect();
    let services = checks.iter_mut().find(|check| check.what == SERVICES).and_then(|c| c.wrong.as_mut());
    if let Some((wrong, _)) = services.filter(|_| !names.is_empty()) {
        *wrong = format!("{} ({wrong})", names.join("; "));
    }
}

/// The first check that fails of those by which this stands: all for high availability; what two nodes of one group must have
/// alike when that is made. Versions are looked at before, and settings by the node itself.
fn failed(op: &GroupOp, checks: Vec<Check>) -> Option<(String, String)> {
    let counts = |check: &Check| match op {
        GroupOp::Create { .. } => check.what == CLOCKS,
        _ => check.stops,
    };
    let mut failed = checks.into_iter().filter(counts);
    failed.find_map(|check| {
        let (error, hint) = check.wrong?;
        Some((format!("check of {}: {error}", check.what), hint))
    })
}

fn told(op: &GroupOp) -> String {
    match op {
        GroupOp::Create { name, .. } => format!("the group {name}"),
        GroupOp::Edit { .. } => "another name or description of the group".to_owned(),
        GroupOp::Delete => "deletion of the group".to_owned(),
        GroupOp::Ha { on: true, .. } => "high availability".to_owned(),
        GroupOp::Ha { on: false, .. } => "an end of high availability".to_owned(),
    }
}

fn shown(check: Check) -> CheckShown {
    let well = check.wrong.is_none();
    let (error, hint) = check.wrong.unwrap_or_default();
    CheckShown { what: check.what.to_owned(), well, needed: check.stops, error, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, state: &str, critical: bool) -> ServiceStatus {
        let (name, state, why) = (name.to_owned(), state.to_owned(), "EIO".to_owned());
        ServiceStatus { name, state, why, critical, seconds: 1, restarts: 0 }
    }

    #[test]
    fn a_fallback_is_offered_for_the_node_that_gets_its_users_and_force_at_the_node_itself() {
        let node = |offered: &[&str]| NodeStatus {
            offered: offered.iter().map(|action| (*action).to_owned()).collect(),
            ..NodeStatus::default()
        };
        let offered = |here: &[&str], peer: &[&str]| {
            let (mut here, mut peer) = (node(here), node(peer));
            offer(&mut here, &mut peer);
            [here.offered, peer.offered]
        };
        assert_eq!(offered(&["failover"], &["failover"]), [["failover"], ["failover"]]);
        assert_eq!(offered(&["fallback"], &[]), [vec![], vec!["fallback"]]);
        assert_eq!(offered(&[], &["fallback"]), [vec!["fallback"], vec![]]);
        let forced = ["recover", "force-active", "force-inactive"];
        assert_eq!(offered(&forced, &forced), [forced.to_vec(), vec!["recover"]]);
    }

    #[test]
    fn what_the_shell_sees_is_wrong_by_its_name() {
        let own = env!("CARGO_PKG_VERSION");
        let peer = |version: &str, clock_ms| NodeStatus {
            name: "b".to_owned(),
            version: version.to_owned(),
            clock_ms,
            ..NodeStatus::default()
        };
        let wrong = |heard: Option<&NodeStatus>, services: &[Lame]| {
            let checks = seen("b", heard.map(|peer| (peer, 1_000_000, 1_000_010)), services);
            assert!(checks.iter().all(|check| check.stops), "each keeps high availability off");
            let wrong =
                checks.into_iter().filter_map(|check| Some(format!("{}: {}", check.what, check.wrong?.0)));
            wrong.collect::<Vec<_>>()
        };
        assert_eq!(wrong(Some(&peer(own, 1_000_005)), &[]), Vec::<String>::new());
        let older = wrong(Some(&peer("0.0.9", 1_000_005)), &[]);
        assert!(
            matches!(&older[..], [text] if text.starts_with("versions: b runs version 0.0.9")),
            "{older:?}"
        );
        let late = wrong(Some(&peer(own, 1_060_005)), &[]);
        assert!(
            matches!(&late[..], [text] if text.starts_with("clocks: the clocks of the nodes differ")),
            "{late:?}"
        );
        let services = lame("a", &[service("database", "failing", true), service("router", "stopped", true)]);
        assert_eq!(wrong(Some(&peer(own, 1_000_005)), &services), ["store: database of a is failing: EIO"]);
        assert_eq!(wrong(None, &[]), ["versions: node b did not answer", "clocks: node b did not answer"]);
    }

    #[test]
    fn a_group_is_made_of_nodes_with_the_same_clocks_and_high_availability_asks_for_all() {
        let peer = NodeStatus { name: "b".to_owned(), version: "0.0.9".to_owned(), ..NodeStatus::default() };
        let create = GroupOp::Create { name: "g".to_owned(), description: String::new() };
        let on = GroupOp::Ha { on: true, force: false };
        let checks = |clock_ms| {
            let peer = NodeStatus { clock_ms, ..peer.clone() };
            seen("b", Some((&peer, 1_000_000, 1_000_010)), &[])
        };
        let (error, hint) = failed(&create, checks(1_060_005)).expect("a minute ahead");
        assert!(error.starts_with("check of clocks: the clocks of the nodes differ by 5"), "{error}");
        assert_eq!(hint, "let both nodes run NTP");
        assert_eq!(failed(&create, checks(1_000_005)), None);
        let (error, _) = failed(&on, checks(1_060_005)).expect("two are wrong");
        assert!(error.starts_with("check of versions: b runs version 0.0.9"), "{error}");
        let mut warned = Check::new(SERVICES, false, "they are down", "start them");
        warned.stops = false;
        assert_eq!(failed(&on, vec![warned]), None, "it is shown only");
    }

    #[test]
    fn what_neither_node_can_do_and_who_is_given_to_nobody_is_told_with_the_services_that_are_down() {
        let names = ["a".to_owned(), "b".to_owned()];
        let nothing = "neither a nor b can write it down now: nothing was changed";
        let status =
            "a node writes only while it serves its own users: see `tandem status`, and ask again then";
        assert_eq!(neither(&names, &[]), (nothing.to_owned(), status.to_owned()));
        let down = [service("router", "stopped", true), service("database", "failing", true)];
        let all: Vec<Lame> = [lame("a", &down), lame("b", &down[..1])].into_iter().flatten().collect();
        let (error, hint) = neither(&names, &all);
        let told = "router of a is stopped: EIO; database of a is failing: EIO; router of b is stopped: EIO";
        assert_eq!(error, format!("{nothing}; {told}"));
        let commands = "`tandem service start router --node a`, `tandem service restart database --node a`, \
                        `tandem service start router --node b`";
        assert_eq!(hint, format!("start what is down: {commands}; {status}"));
        let (error, hint) = lacks("b", &all);
        assert_eq!(error, "router of b is stopped: EIO: nothing was changed");
        assert_eq!(hint, "start what is down: `tandem service start router --node b`; then ask again");
        let (error, hint) = lacks("b", &[]);
        assert_eq!(error, "a critical service of b is down: nothing was changed");
        assert!(hint.starts_with("`tandem service list` says which"), "{hint}");
    }

    #[test]
    fn services_that_are_down_are_named_with_their_node_and_the_reason() {
        let services = [
            service("database", "failing", true),
            service("router", "running", true),
            service("authentication", "stopped", false),
        ];
        let found = lame("a", &services);
        assert_eq!(found.len(), 1);
        assert!(found[0].fails && found[0].service == Service::Database);
        let check = |what| Check::new(what, false, "they are down", "start them");
        let mut checks = [check("nodes"), check(SERVICES)];
        name_services(&mut checks, &found);
        let wrong: Vec<&str> = checks.iter().map(|c| c.wrong.as_ref().unwrap().0.as_str()).collect();
        assert_eq!(wrong, ["they are down", "database of a is failing: EIO (they are down)"]);
    }
}
