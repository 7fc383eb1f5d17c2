//! A pair that does what a test says, on the virtual clock, and shows the rows of the table of states.

use presence_engine::ids::{Mode, NodeIx};
use presence_engine::state::{GroupInfo, User};
use srm::events::Record;
use srm::node::Stage as MoveStage;
use srm::node::{Action, Check, Event as News, Health, In, Moved, Op, Reply, Service};
use srm::pause::Pause;
use srm::view::{Cause, Reason, Shown, State};
use xmpp_core::dual::Dual;
use xmpp_core::jid::BareJid;

use super::Profile;
use super::client::Client;
use super::world::{Event, World};

/// Two nodes with ten users, and no clients but those of [`Stage::clients`].
#[derive(Debug)]
pub struct Stage {
    pub(super) world: World,
}

/// Node and session of a client's main stream.
pub type Stream = (Option<usize>, Option<String>);

impl Stage {
    /// Two fresh nodes that have become a pair.
    pub fn pair(profile: Profile) -> Stage {
        Stage::formed(profile, 0, true)
    }

    /// The same, where so many clients that call at the wrong node are believed.
    pub fn pair_with_callers(profile: Profile, callers: u32) -> Stage {
        Stage::formed(profile, callers, true)
    }

    /// The same; `tracing`: what happens can be printed.
    pub fn formed(profile: Profile, callers: u32, tracing: bool) -> Stage {
        let mut stage = Stage::fresh(profile);
        stage.world.callers = callers;
        stage.world.tracing = tracing;
        stage.world.form();
        stage.expect([0, 1], 1, 10_000);
        for user in 0..10 {
            let jid = xmpp_core::jid::BareJid::new(Some(&format!("u{user}")), "d").expect("a name");
            let reply = stage.op(user % 2, Op::UserAdd(jid, Some(NodeIx::BOTH[user % 2]), Box::default()));
            assert!(!matches!(reply, Some(Reply::Refused(_))), "{reply:?}");
        }
        stage.run(1_000);
        stage
    }

    /// Two machines that have not been started yet.
    pub fn fresh(profile: Profile) -> Stage {
        let mut world = World::new(1, Profile { faults: 0, ..profile }, true);
        world.prompt = true;
        Stage { world }
    }

    /// The node that was alone gets the other as its peer, from its next start on.
    pub fn grows(&mut self) {
        self.world.profile.single = false;
    }

    /// What a node shows: row, and the states of both; `None` if it does not run.
    pub fn shown(&self, node: usize) -> Option<(u32, [(State, Reason); 2])> {
        let shown = self.world.hosts[node].process.as_ref()?.node.shown();
        Some((shown.row.id, shown.states))
    }

    /// Why a node shows its row, and what its operator is advised to do.
    pub fn advice(&self, node: usize) -> [&'static str; 2] {
        let process = self.world.hosts[node].process.as_ref();
        let row = process.map(|process| process.node.shown().row);
        row.map_or([""; 2], |row| [row.why, row.action])
    }

    /// Goes on until these nodes show this row, for so long at most; gives back how long it took in milliseconds.
    ///
    /// # Panics
    /// They do not.
    #[track_caller]
    pub fn expect<const N: usize>(&mut self, nodes: [usize; N], row: u32, within_ms: u64) -> u64 {
        let begun = self.world.now;
        loop {
            if nodes.iter().all(|node| self.shown(*node).is_some_and(|(id, _)| id == row)) {
                let took = self.world.now - begun;
                nodes.iter().for_each(|node| self.refuses_the_rest(*node));
                return took;
            }
            let shown: Vec<_> = nodes.iter().map(|node| self.shown(*node)).collect();
            assert!(
                self.world.now < begun + within_ms,
                "not row {row} within {within_ms} ms: {shown:?}\n{}",
                self.world.last_lines().lines().rev().take(60).collect::<Vec<_>>().join("\n")
            );
            self.run(1);
        }
    }

    /// Goes on for so many milliseconds, and shows this row all the time.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn stays(&mut self, nodes: &[usize], row: u32, for_ms: u64) {
        for _ in 0..for_ms / 50 {
            self.run(50);
            for node in nodes {
                let shown = self.shown(*node);
                assert!(shown.is_some_and(|(id, _)| id == row), "{node} at {}: {shown:?}", self.world.now);
            }
        }
    }

    /// Goes on for so many milliseconds.
    pub fn run(&mut self, ms: u64) {
        let end = self.world.now + ms;
        self.world.run_until(end);
        assert_eq!(self.world.failure, None, "{}", self.world.last_lines());
    }

    /// What is wrong, as a node says.
    pub fn alarms(&self, node: usize) -> Vec<String> {
        let process = self.world.hosts[node].process.as_ref();
        process.map_or(Vec::new(), |process| process.node.snapshot().alarms)
    }

    /// Whether a node says that its users are served.
    pub fn ready(&self, node: usize) -> bool {
        self.world.hosts[node].process.as_ref().is_some_and(|process| process.node.is_ready())
    }

    /// The operator asks a node, which does what it has offered and nothing else of that kind.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn op(&mut self, node: usize, op: Op) -> Option<Reply> {
        let asked = Action::of(&op);
        let offered = self.offers(node);
        let reply = self.world.op(node, op);
        if let (Some(action), Some(reply)) = (asked, &reply) {
            let taken = !matches!(reply, Reply::Refused(_));
            assert_eq!(offered.contains(&action), taken, "{action:?} of {node}: {reply:?}");
        }
        reply
    }

    /// What a node does now if its operator asks for it.
    pub fn offers(&self, node: usize) -> Vec<Action> {
        let process = self.world.hosts[node].process.as_ref();
        process.map_or(Vec::new(), |process| process.node.offers())
    }

    /// Whatever a node does not offer it refuses. (What it offers is tried by whoever needs it: see [`Stage::op`].)
    #[track_caller]
    fn refuses_the_rest(&mut self, node: usize) {
        let offered = self.offers(node);
        for action in Action::ALL.into_iter().filter(|action| !offered.contains(action)) {
            self.op(node, action.op());
        }
    }

    /// News of a service of a node. `stubborn`: it does not start again by itself.
    pub fn service(&mut self, node: usize, service: Service, health: Health, stubborn: bool) {
        self.world.stubborn[node] = stubborn;
        self.world.service(node, service, health);
        self.run(1);
    }

    /// Whether more clients log in at a node than its processors can take.
    pub fn crowded(&mut self, node: usize, crowded: bool) {
        self.world.feed(node, In::Logins { per_second: 500, crowded });
        self.run(1);
    }

    /// Whether what hands users over is lost within a node.
    pub fn moves_are_lost(&mut self, node: usize, lost: bool) {
        if let Some(process) = &mut self.world.hosts[node].process {
            process.node.lose_moves(lost);
        }
    }

    /// The disk of a node does not answer for so long.
    pub fn disk_stalls(&mut self, node: usize, for_ms: u64) {
        self.world.hosts[node].stalls_until = self.world.now + for_ms;
    }

    /// So many more accounts at home at a node. Nobody waits until they are safe.
    pub fn more_users(&mut self, node: usize, count: usize) {
        let known = self.users(node).len();
        for user in known..known + count {
            let jid = BareJid::new(Some(&format!("u{user}")), "d").expect("a name");
            let reply = self.op(node, Op::UserAdd(jid, Some(NodeIx::BOTH[node]), Box::default()));
            assert!(!matches!(reply, Some(Reply::Refused(_))), "{reply:?}");
        }
    }

    /// What a node has told of moves that pause, and of those that go on.
    pub fn pauses(&self, node: usize) -> Vec<Option<Pause>> {
        self.world.paused.iter().filter(|(who, _)| *who == node).map(|(_, pause)| *pause).collect()
    }

    /// How often a node has told that the other is gone.
    pub fn losses(&self, node: usize) -> usize {
        self.world.losses[node]
    }

    /// Users whom a node serves, as it knows itself.
    pub fn served(&self, node: usize) -> usize {
        let process = self.world.hosts[node].process.as_ref();
        let state = process.map(|process| process.node.driver().engine().state());
        let owners = state.into_iter().flat_map(|s| s.users().map(|(_, user)| s.owner(user)));
        owners.flatten().filter(|owner| owner.index() == node).count()
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        self.never_again(node);
        self.world.die(node, false);
    }

    /// A node whose process ends is not started again but by the test.
    pub fn never_again(&mut self, node: usize) {
        self.world.hosts[node].starting = true;
    }

    /// Starts a node.
    pub fn start(&mut self, node: usize) {
        self.world.boot(node);
    }

    /// Nothing passes between the nodes for so long; neither hears that the other is gone.
    pub fn cut(&mut self, for_ms: u64) {
        self.world.cut = [self.world.now + for_ms; 2];
    }

    /// What is said to one node is lost for so long; what it says arrives, as far as it needs no answer.
    pub fn cut_one_way(&mut self, to: usize, for_ms: u64) {
        self.world.cut[to] = self.world.now + for_ms;
    }

    /// Neither node hears the witness for so long.
    pub fn witness_away(&mut self, for_ms: u64) {
        self.world.cut_witness(None, for_ms);
    }

    /// The witness comes back without its registers.
    pub fn witness_forgets(&mut self) {
        self.world.empty_witness();
    }

    /// The witness decides nothing that a node asks of its own users, as if others had been faster each time.
    pub fn witness_gives_nobody_his_own(&mut self, nothing: bool) {
        let own = NodeIx::BOTH.into_iter().enumerate().filter(|_| nothing);
        self.world.witness.undecided = own.collect();
    }

    /// From now on beacons pass although nothing else does.
    pub fn beacons_pass(&mut self) {
        self.world.beacons_pass = true;
    }

    /// The same for one node, which does not hear the witness either.
    pub fn cut_off(&mut self, node: usize, for_ms: u64) {
        self.cut(for_ms);
        self.world.cut_witness(Some(node), for_ms);
    }

    /// What a node told of moves of users since this was asked last: group, back, stage, cause.
    pub fn moves(&mut self, node: usize) -> Vec<Moved> {
        self.take_moves(node).into_iter().map(|(_, moved, _)| moved).collect()
    }

    /// The same as the events that its operator sees.
    pub fn told(&mut self, node: usize) -> Vec<Record> {
        let (names, me) = (["a".to_owned(), "b".to_owned()], NodeIx::BOTH[node]);
        let told = self.take_moves(node).into_iter();
        told.filter_map(|(_, moved, shown)| {
            srm::daemon::record(&News::Moved(moved), &names, me, &shown, None)
        })
        .collect()
    }

    fn take_moves(&mut self, node: usize) -> Vec<(usize, Moved, Shown)> {
        // What is shown already is told within a turn.
        self.run(500);
        let (told, rest) = std::mem::take(&mut self.world.moves).into_iter().partition(|told| told.0 == node);
        self.world.moves = rest;
        told
    }

    /// What the nodes do by themselves.
    pub fn automatics(&mut self, automatics: srm::node::Automatics) {
        self.world.automatics = automatics;
        for host in &mut self.world.hosts {
            if let Some(process) = &mut host.process {
                process.node.automatics(automatics);
            }
        }
    }

    /// A node goes by other clusterwide settings: those with this hash. They begin with 1.
    pub fn settings(&mut self, node: usize, hash: u64) {
        if let Some(process) = &mut self.world.hosts[node].process {
            process.node.settings(hash);
        }
    }

    /// Whether the table has a row for what a node knows; `true` of one that does not run.
    pub fn has_row(&self, node: usize) -> bool {
        self.world.hosts[node].process.as_ref().is_none_or(|process| process.node.has_row())
    }

    /// The accounts, as a node knows them.
    pub fn users(&self, node: usize) -> Vec<(BareJid, User)> {
        let process = self.world.hosts[node].process.as_ref();
        let users = process.map(|process| process.node.driver().engine().state().users());
        users.into_iter().flatten().map(|(jid, user)| (jid.clone(), user.clone())).collect()
    }

    /// The group, as a node knows it.
    pub fn group(&self, node: usize) -> GroupInfo {
        let process = self.world.hosts[node].process.as_ref();
        process.map_or_else(GroupInfo::default, |p| p.node.driver().engine().state().group().clone())
    }

    /// How often nodes have told that high availability was switched.
    pub fn switches(&self) -> u32 {
        self.world.coverage.switches
    }

    /// Whether a node leads a home group.
    pub fn leads(&self, node: usize, group: NodeIx) -> bool {
        let process = self.world.hosts[node].process.as_ref();
        process.is_some_and(|process| process.node.core(group).role() == srm::safety::Role::Primary)
    }

    /// Ticks that are left of the lease with which a node leads a group in Pair; `None`: it leads it alone, or not at all.
    pub fn lease_left(&self, node: usize, group: NodeIx) -> Option<u16> {
        let core = self.world.hosts[node].process.as_ref()?.node.core(group);
        let pair = core.role() == srm::safety::Role::Primary && core.reg().mode == Mode::Pair;
        pair.then(|| core.lease_left())
    }

    /// What the shell of a node sees of the checks before high availability; in the beginning nothing is wrong.
    pub fn checks(&mut self, node: usize, seen: Vec<Check>) {
        self.world.hosts[node].checks = seen;
    }

    /// The rows that a node has told since this was asked last.
    pub fn told_rows(&mut self, node: usize) -> Vec<u32> {
        std::mem::take(&mut self.world.hosts[node].rows)
    }

    /// A client with a parked stream for each account, at home. They say something for so long, once they are there.
    ///
    /// # Panics
    /// They do not come.
    #[track_caller]
    pub fn clients(&mut self, talk_ms: u64) {
        self.clients_of(&[0, 1], talk_ms);
    }

    /// The same for the accounts at home on these nodes alone.
    ///
    /// # Panics
    /// They do not come.
    #[track_caller]
    pub fn clients_of(&mut self, homes: &[usize], talk_ms: u64) {
        self.log_in(homes, true);
        self.talk(talk_ms);
    }

    /// A client without a parked stream for each account, at home. They say nothing.
    ///
    /// # Panics
    /// They do not come.
    #[track_caller]
    pub fn plain_clients(&mut self) {
        self.log_in(&[0, 1], false);
    }

    #[track_caller]
    fn log_in(&mut self, homes: &[usize], dual: bool) {
        let users = self.users(0).into_iter().filter(|(_, info)| homes.contains(&info.home.index()));
        for (c, (user, info)) in users.enumerate() {
            self.world.ledger.client_of(c);
            self.world.clients.push(Client::new(user, "r", dual, 20_000, 300));
            self.world.seek(c, Some(info.home.index()));
            self.world.at(500, Event::Look(c));
        }
        let end = self.world.now + 60_000;
        let parked = |node: usize, stage: &Stage| {
            let process = stage.world.hosts[node].process.as_ref();
            process.map_or(0, |process| process.node.driver().engine().parked().count())
        };
        let there = |stage: &Stage| {
            let settled =
                stage.world.clients.iter().all(|client| client.main.is_some() && client.is_settled());
            settled && (!dual || parked(0, stage) + parked(1, stage) == stage.world.clients.len())
        };
        while !there(&*self) {
            assert!(self.world.now < end, "{}", self.world.last_lines());
            self.run(50);
        }
    }

    /// The first clients of a node, so many, lose their streams wherever those are, and call at the other node with their
    /// sessions.
    pub fn clients_call(&mut self, home: usize, count: usize) {
        for c in self.clients_at_home(home).into_iter().take(count) {
            self.world.main_died(c);
            self.world.seek(c, Some(1 - home));
        }
    }

    /// The last client of a node loses its stream, and comes back to it.
    pub fn comes_again(&mut self, home: usize) {
        if let Some(c) = self.clients_at_home(home).pop() {
            self.world.main_died(c);
            self.world.seek(c, Some(home));
        }
    }

    fn clients_at_home(&self, home: usize) -> Vec<usize> {
        let users = self.users(1 - home);
        let is_home = |user: &BareJid| users.iter().any(|(jid, u)| jid == user && u.home.index() == home);
        (0..self.world.clients.len()).filter(|c| is_home(&self.world.clients[*c].user)).collect()
    }

    /// What clients say at the other node for this one is lost here from now on, and neither node notices.
    pub fn goes_deaf(&mut self, node: usize) {
        self.world.hosts[node].deaf = true;
    }

    /// Clients reach this node alone for so long.
    pub fn clients_see_only(&mut self, node: usize, for_ms: u64) {
        self.world.see_only(node, for_ms);
    }

    /// Why a node told that it keeps its users, each time since this was asked last.
    pub fn kept(&mut self, node: usize) -> Vec<&'static str> {
        std::mem::take(&mut self.world.hosts[node].kept)
    }

    /// How many accounts of the other node a node told that they call there, each time since this was asked last.
    pub fn called(&mut self, node: usize) -> Vec<u32> {
        let (told, rest) =
            std::mem::take(&mut self.world.called).into_iter().partition(|told| told.0 == node);
        self.world.called = rest;
        let told: Vec<(usize, u32)> = told;
        told.into_iter().map(|(_, accounts)| accounts).collect()
    }

    /// The stream of each client and its session, and how many streams there ever were: who logs in again has another.
    pub fn streams(&self) -> (Vec<Stream>, usize) {
        let of = |client: &Client| (client.main, client.sm_id.clone());
        (self.world.clients.iter().map(of).collect(), self.world.sockets.len())
    }

    /// Every client that is parked at a node says there that its main stream is lost, which is not so.
    pub fn say_lost(&mut self, node: usize) {
        for c in 0..self.world.clients.len() {
            let parked = self.world.clients[c].parked.filter(|s| self.world.sockets[*s].node == node);
            self.world.say(c, parked, Dual::Lost.to_bytes());
        }
    }

    /// How often clients have brought a node the proof that the other lives.
    pub fn vouched(&self) -> usize {
        self.world.reports[1]
    }

    /// How often clients have answered a node that asked them of the other, with the proof or without.
    pub fn reported(&self) -> usize {
        self.world.reports[0]
    }

    /// A node stands still in the next moment in which it gives a client a message, before that leaves it; which client.
    ///
    /// # Panics
    /// It has no message for anybody within ten seconds.
    #[track_caller]
    pub fn stand_still_releasing(&mut self, node: usize) -> usize {
        self.world.late[node].due = true;
        let client = (0..10_000).find_map(|_| {
            self.run(1);
            self.world.late_for(node)
        });
        client.unwrap_or_else(|| panic!("no message\n{}", self.world.last_lines()))
    }

    /// It goes on with that: so many messages, at most, come to clients.
    pub fn go_on(&mut self, node: usize) -> usize {
        let late = self.world.late_stanzas(node);
        self.world.goes_on(node);
        late
    }

    /// The stream that a client holds although it resumes on its other one.
    pub fn old_stream(&self, client: usize) -> Option<usize> {
        let client = &self.world.clients[client];
        client.main.filter(|_| !client.read)
    }

    /// How many messages have come from a node: on this stream, and on all; whether or not they were read.
    pub fn came(&self, node: usize, stream: usize) -> [usize; 2] {
        let name = ["a", "b"][node];
        let (on, from) = (format!(" <- {name}#{} <message", stream + 1), format!(" <- {name}#"));
        let trace = self.world.last_lines();
        let all = || trace.lines().filter(|line| line.contains(&from) && line.contains(" <message"));
        [all().filter(|line| line.contains(&on)).count(), all().count()]
    }

    /// Messages that clients have sent.
    pub fn sent(&self) -> usize {
        self.world.ledger.total()
    }

    /// Messages that were sent and are not acknowledged, or not shown.
    pub fn open(&self) -> Vec<String> {
        self.world.ledger.open()
    }

    /// The minute of the day that both nodes go by.
    pub fn minute(&mut self, minute: u16) {
        for host in &mut self.world.hosts {
            if let Some(process) = &mut host.process {
                process.node.minute(minute);
            }
        }
    }
}

impl World {
    /// Keeps what a test of rows asks for.
    pub(super) fn keep_moves(&mut self, node: usize, news: &News) {
        self.coverage.switches += u32::from(matches!(news, News::Ha(_)));
        self.losses[node] += usize::from(matches!(news, News::PeerGone(..)));
        if let News::Row(shown) = news {
            self.hosts[node].rows.push(shown.row.id);
        }
        if let News::Unanswered(accounts) = news {
            self.called.push((node, *accounts));
        }
        if let News::NotForClients(why) = news {
            self.hosts[node].kept.push(*why);
        }
        if let News::Paused(_, pause) = news {
            self.paused.push((node, *pause));
        }
        if let News::Moved(moved) = news {
            let service = matches!(moved.cause, Cause::Service | Cause::Database);
            self.coverage.service_moves += u32::from(service && moved.stage == MoveStage::Complete);
            let process = self.hosts[node].process.as_ref();
            let shown = process.map(|process| process.node.shown());
            self.moves.extend(shown.map(|shown| (node, *moved, shown)));
        }
    }
}
