//! `tandem drill`: confirms that failover and fallback work, with a user made for it. Every step must pass; the first that
//! does not is named, and what was changed is undone as far as it can be. The same if it is interrupted.

mod seat;
mod stop;

use std::thread;
use std::time::{Duration, Instant};

use client_sim::conn::{Account, Dialer};
use serde_json::json;
use xmpp_core::dual::Peer;
use xmpp_core::tls::{Authority, c2s_client};

use super::args::{DrillArgs, FailoverArgs, MoveArgs};
use super::output::{Answer, Exit, Failure, Progress};
use super::{Client, ClientArgs, consistency, moves, user};
use crate::admin::{NodeStatus, Status};
use crate::config::{self, Config};
use crate::view::State;

use seat::Seat;
use stop::Stop;

/// How long the nodes may take until both have what was written.
const REPLICATED: Duration = Duration::from_secs(10);
/// How long it is tried to give users back that are not where they were: a move may be under way.
const UNDONE: Duration = Duration::from_secs(30);
/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);

/// A step: what is confirmed, and how.
type Step = (&'static str, fn(&mut Drill) -> Result<(), String>);

const CHECK: &str = "each store holds what its log says, and each node what the other holds of its users";

const STEPS: &[Step] = &[
    ("both nodes are Normal, without alarms, and hold the same", Drill::both_well),
    (CHECK, Drill::check),
    ("a test user is made, and known to both", Drill::make_user),
    ("what is written through one node is read through the other at once, and back", Drill::write_both_ways),
    ("failover", Drill::fail_over),
    ("both nodes show the failover", Drill::is_over),
    ("login, messages and the roster through the backup", Drill::through_backup),
    ("a contact is removed at the backup", Drill::remove_contact),
    ("fallback", Drill::fall_back),
    ("both nodes are Normal, and hold the same", Drill::both_well),
    (CHECK, Drill::check),
    ("what was removed at the backup is gone at home; login and messages there", Drill::at_home),
];

struct Drill {
    client: Client,
    args: ClientArgs,
    /// The node that fails over, and its backup.
    names: [String; 2],
    places: [Peer; 2],
    dialer: Dialer,
    runtime: tokio::runtime::Runtime,
    account: Account,
    made: bool,
    over: bool,
}

/// Goes through all steps.
pub(super) fn drill(args: &DrillArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    let mut drill = Drill::prepare(args)?;
    let stop = Stop::listen().map_err(|error| Failure::environment(&error))?;
    let (mut done, mut failed) = (Vec::new(), None);
    for (i, (what, step)) in STEPS.iter().enumerate() {
        let number = format!("step {} of {}", i + 1, STEPS.len());
        if stop.is_wanted() {
            failed = Some(format!("interrupted before {number}: {what}"));
            break;
        }
        progress.show(format!("{number}: {what}"));
        let begun = Instant::now();
        match step(&mut drill) {
            Ok(()) => done.push((*what, begun.elapsed())),
            Err(why) => {
                failed = Some(format!("{number} failed: {what}: {why}"));
                break;
            }
        }
    }
    progress.show("the test user is removed".to_owned());
    let left = drill.undo();
    progress.end();
    let steps: Vec<_> =
        done.iter().map(|(what, took)| json!({ "step": what, "ms": took.as_millis() as u64 })).collect();
    let json = json!({ "node": drill.names[0], "steps": steps });
    match failed.or((!left.is_empty()).then(|| "all steps passed, but not all could be undone".to_owned())) {
        Some(error) => {
            let hint = match left.is_empty() {
                true => "what was changed is undone; see `tandem status` and `tandem events`".to_owned(),
                false => left.join("; "),
            };
            Err(Failure { more: json, ..Failure::new(Exit::Refused, error, hint) })
        }
        None => {
            let line = |(i, (what, took)): (usize, &(&str, Duration))| {
                format!("{:2}  {:5.1} s  {what}\n", i + 1, took.as_secs_f64())
            };
            let lines: String = done.iter().enumerate().map(line).collect();
            let text = format!(
                "{lines}failover and fallback of {} work; the test user is removed\n",
                drill.names[0]
            );
            Ok(Answer::new(text, json))
        }
    }
}

impl Drill {
    fn prepare(args: &DrillArgs) -> Result<Drill, Failure> {
        let client = Client::find(&args.client)?;
        let path =
            config::find(args.client.config.as_deref()).map_err(|error| Failure::environment(&error))?;
        let config = Config::load(&path).map_err(|error| Failure::environment(&error))?;
        let Some((peer, link)) = config.pair() else {
            let error = "this group has one node: there is nothing to fail over to";
            return Err(Failure::new(Exit::Usage, error, "a drill needs two nodes"));
        };
        let place = |name: &str, host: String, port| Peer {
            node: name.into(),
            host: host.as_str().into(),
            port,
            direct_tls: true,
        };
        let direct = crate::setup::from_here(config.c2s.direct);
        let own = place(&config.node.name, direct.ip().to_string(), direct.port());
        let other = place(&peer.name, peer.host.clone(), peer.c2s);
        let both = match args.node.as_deref() {
            None => [own, other],
            Some(node) if own.node == node => [own, other],
            Some(node) if other.node == node => [other, own],
            Some(node) => {
                let error = format!("no node is named {node}");
                let hint = format!("the nodes are {} and {}", own.node, other.node);
                return Err(Failure::new(Exit::Usage, error, hint));
            }
        };
        let trust = args.trust.as_deref().unwrap_or(&link.ca);
        let tls = Authority::load(trust).and_then(|authority| c2s_client(&authority));
        let tls = tls.map_err(|error| {
            let error = format!("the authority that clients trust: {error}");
            Failure::new(Exit::Environment, error, "name its PEM file with --trust FILE")
        })?;
        // A node that does not run is no step that failed.
        client.status()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::environment(&error))?;
        let password = user::make_password()?;
        let account = Account {
            user: format!("drill-{}", &password[..5]),
            domain: config.node.domains[0].clone(),
            password,
            resource: None,
            keys: Default::default(),
        };
        let names = [both[0].node.to_string(), both[1].node.to_string()];
        let (dialer, places, made, over) = (Dialer::new(tls), both, false, false);
        let args = args.client.clone();
        Ok(Drill { client, args, names, places, dialer, runtime, account, made, over })
    }

    fn status(&self) -> Result<Status, String> {
        self.client.status().map_err(|failure| failure.refusal.error)
    }

    /// Both nodes are well, and each has what the other has written.
    fn both_well(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            let missing = what_is_missing(&status);
            match missing {
                None => return Ok(()),
                Some(why) if begun.elapsed() > REPLICATED => return Err(why),
                Some(_) => thread::sleep(LOOK),
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let checked = consistency::check(&self.client, &mut Progress::none());
        checked.map(|_| ()).map_err(|failure| format!("{}; {}", failure.refusal.error, failure.refusal.hint))
    }

    fn make_user(&mut self) -> Result<(), String> {
        let (user, home) = (self.account.user.clone(), self.names[0].clone());
        let added = self.client.user_add(&user, &self.account.password, Some(&home));
        added.map_err(|failure| failure.refusal.error)?;
        self.made = true;
        self.both_well()
    }

    fn contact(&self) -> String {
        format!("drill-contact@{}", self.account.domain)
    }

    fn seats(&self, at: usize) -> Result<[Seat; 2], String> {
        self.runtime.block_on(async {
            let one = Seat::take(&self.dialer, &self.places[at], &self.account).await?;
            let two = Seat::take(&self.dialer, &self.places[at], &self.account).await?;
            Ok([one, two])
        })
    }

    fn write_both_ways(&mut self) -> Result<(), String> {
        let contact = self.contact();
        for (at, name) in [(0, "first"), (1, "second")] {
            let there = self.runtime.block_on(async {
                let mut writer = Seat::take(&self.dialer, &self.places[at], &self.account).await?;
                let mut reader = Seat::take(&self.dialer, &self.places[1 - at], &self.account).await?;
                writer.set_contact(&contact, Some(name)).await?;
                let read = reader.contact(&contact).await;
                writer.leave().await;
                reader.leave().await;
                read
            });
            if there?.as_deref() != Some(name) {
                let [from, to] = [&self.names[at], &self.names[1 - at]];
                return Err(format!("what was written through {from} is not there through {to}"));
            }
        }
        self.both_well()
    }

    fn fail_over(&mut self) -> Result<(), String> {
        self.over = true;
        let args = FailoverArgs::unasked(self.move_args());
        let moved = moves::failover(&self.client, &args, &mut Progress::none());
        moved.map(|_| ()).map_err(|failure| failure.refusal.error)
    }

    fn is_over(&mut self) -> Result<(), String> {
        let status = self.status()?;
        let state = |name: &str| {
            status
                .nodes
                .iter()
                .find(|node| node.name == name)
                .map(|node| node.state.clone())
                .unwrap_or_default()
        };
        let states = [state(&self.names[0]), state(&self.names[1])];
        match [states[0].as_str(), states[1].as_str()] {
            ["Idle", "Running in Backup Mode"] => Ok(()),
            _ => Err(format!("{} is {}, {} is {}", self.names[0], states[0], self.names[1], states[1])),
        }
    }

    /// Two resources at a node talk, and see whether the contact is there.
    fn talk_at(&self, at: usize, name: Option<&str>) -> Result<(), String> {
        let [mut one, mut two] = self.seats(at)?;
        let contact = self.contact();
        let there = self.runtime.block_on(async {
            one.tell(&mut two, "over").await?;
            two.tell(&mut one, "and back").await?;
            let there = one.contact(&contact).await;
            one.leave().await;
            two.leave().await;
            there
        });
        let there = there?;
        if there.as_deref() == name {
            return Ok(());
        }
        let says =
            |name: Option<&str>| name.map_or("is not there".to_owned(), |name| format!("is named {name}"));
        Err(format!("the contact {} and should be so: it {}", says(there.as_deref()), says(name)))
    }

    fn through_backup(&mut self) -> Result<(), String> {
        self.talk_at(1, Some("second"))
    }

    fn remove_contact(&mut self) -> Result<(), String> {
        let contact = self.contact();
        self.runtime.block_on(async {
            let mut seat = Seat::take(&self.dialer, &self.places[1], &self.account).await?;
            let removed = seat.set_contact(&contact, None).await;
            seat.leave().await;
            removed
        })
    }

    fn fall_back(&mut self) -> Result<(), String> {
        let args = self.move_args();
        let moved = moves::fallback(&self.client, &args, &mut Progress::none());
        moved.map_err(|failure| failure.refusal.error)?;
        self.over = false;
        Ok(())
    }

    fn at_home(&mut self) -> Result<(), String> {
        self.talk_at(0, None)
    }

    fn move_args(&self) -> MoveArgs {
        MoveArgs { node: self.names[0].clone(), no_wait: false, client: self.args.clone() }
    }

    /// Everybody is at home in the end. What is under way comes to its end first.
    fn give_back(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.fall_back().is_ok() || self.nobody_is_away() {
                self.over = false;
                return true;
            }
            if begun.elapsed() > UNDONE {
                return false;
            }
            thread::sleep(LOOK);
        }
    }

    fn nobody_is_away(&self) -> bool {
        let state = |status: &Status, name: &str| {
            let node = status.nodes.iter().find(|node| node.name == name);
            node.map(|node| node.state.clone()).unwrap_or_default()
        };
        let at_home = |status: &Status| match self.names.each_ref().map(|name| state(status, name)) {
            // The backup has died meanwhile: its users are here, and those of this node are at home.
            [own, other] if own == "Running in Backup Mode" => other == State::Down.name(),
            both => both.iter().all(|state| state == "Normal"),
        };
        self.status().is_ok_and(|status| status.moving.is_none() && at_home(&status))
    }

    /// What was changed is taken back; what could not be, in words.
    fn undo(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        if self.over && !self.give_back() {
            left.push(format!("do a fallback: `tandem fallback {}`", self.names[0]));
        }
        if self.made && self.client.user_remove(&self.account.user).is_err() {
            left.push(format!("remove the test user: `tandem user remove {}`", self.account.user));
        }
        left
    }
}

/// What keeps a pair from being well; `None`: it is.
fn what_is_missing(status: &Status) -> Option<String> {
    if let Some(node) = status.nodes.iter().find(|node| node.state != "Normal") {
        return Some(format!("{} is {} ({})", node.name, node.state, node.reason));
    }
    if let Some(alarm) = status.alarms.first() {
        return Some(format!("there is an alarm: {alarm}"));
    }
    let behind = |node: &&NodeStatus| node.log.acked_by_peer < node.log.own_end;
    let node = status.nodes.iter().find(behind)?;
    let frames = node.log.own_end - node.log.acked_by_peer;
    Some(format!("{frames} frames of {}'s log are not on the other node", node.name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::admin::fake::{Fake, TOKEN};
    use crate::setup::Plan;

    /// A make-believe pair to ask, and whoever drills with it; ends with the test.
    struct Asked {
        fake: Arc<Fake>,
        drill: Drill,
        _runtime: tokio::runtime::Runtime,
        _dir: tempfile::TempDir,
    }

    fn asked() -> Asked {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = Arc::new(Fake::default());
        let admin = Some(runtime.block_on(Fake::start(fake.clone())));
        let dir = tempfile::tempdir().unwrap();
        let made = Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
        let token = dir.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let config = Some(made.nodes[0].config.clone());
        let client = ClientArgs { admin, token_file: Some(token), config, ..ClientArgs::default() };
        let drill = Drill::prepare(&DrillArgs { node: None, trust: None, client });
        let drill = drill.unwrap_or_else(|failure| panic!("{}", failure.text()));
        Asked { fake, drill, _runtime: runtime, _dir: dir }
    }

    #[test]
    fn a_fallback_that_is_refused_while_users_are_on_their_way_is_asked_for_again() {
        let mut asked = asked();
        let drill = &mut asked.drill;
        drill.client.begin("failover", "a").unwrap_or_else(|failure| panic!("{}", failure.text()));
        drill.over = true;
        assert_eq!(drill.undo(), [""; 0]);
        assert!(
            asked.fake.operators().len() > 2,
            "the failover, one that was refused, and the one that was begun"
        );
        assert!(!drill.over && drill.nobody_is_away());
    }

    #[test]
    fn nobody_is_given_back_who_is_not_away() {
        let mut asked = asked();
        let (drill, fake) = (&mut asked.drill, &asked.fake);
        assert_eq!((drill.undo(), fake.operators().len()), (vec![], 0), "nothing was changed");
        // The failover was refused.
        drill.over = true;
        assert_eq!((drill.undo(), fake.operators().len()), (vec![], 1), "it is not tried for long");
        assert!(!drill.over);
    }
}
