//! The clients of a scenario: our own, with their ledger, and those that others wrote.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use client_sim::conn::Dialer;
use client_sim::fleet::{Fleet, FleetOptions, FleetReport, Summary, in_turn, user_name};
use client_sim::ledger::Counts;
use client_sim::sm::Outgoing;
use serde_json::Value;
use srm::demo::pair::{DOMAIN, PASSWORD};
use tokio::runtime::Runtime;
use xmpp_core::dual::Peer;
use xmpp_core::tls::{Authority, c2s_client};
use xmpp_core::xml::Writer;

use super::language::{Books, Clients, Node, Site};
use super::net::{address, address_of};
use crate::foreign::puppet::{Place, Puppet};

/// Ports that `tandem init` gives a machine of its own.
const STARTTLS: u16 = 5222;
const DIRECT: u16 = 5223;
/// Whoever talks has said something in this time, also on a machine that stands still for a moment.
const TALKS: Duration = Duration::from_secs(3);
/// Mean time between two messages of one user.
const INTERVAL: Duration = Duration::from_millis(400);
/// A client whose stream says nothing for so long looks for another.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest wait for the first logins, and for the last deliveries.
const LIMIT: Duration = Duration::from_secs(60);
/// What hits the bug that panics.
pub(super) const MANDRAKE: &str = "MANDRAKE";

/// Names of the accounts of the slixmpp clients, by home.
pub(super) const FOREIGN: [&str; 2] = ["romeo", "juliet"];

/// The parts that the clients of each home belong to in turn: each has an address.
const PARTS: [Site; 2] = [Site::Rest, Site::Half];

/// Everybody.
pub(super) struct Crowd {
    fleet: Fleet,
    homes: Vec<usize>,
    puppets: Vec<Puppet>,
    said: usize,
    /// What [`Crowd::reconnects`] counts had happened so often before the chat began.
    reconnects_before: u64,
    /// Streams that clients had lost by then.
    lost_before: u64,
    runtime: Runtime,
}

/// The home of each account `u0`, `u1`, ...
pub(super) fn homes(clients: Clients) -> Vec<usize> {
    (0..clients.dual + clients.plain).map(|user| user % 2).collect()
}

/// The part that a user's client belongs to.
fn part_of(user: usize) -> Site {
    in_turn(&PARTS, Node::BOTH.len(), user).expect("there are parts")
}

/// The number in the name of one of our own accounts.
fn user_of(name: &str) -> Option<usize> {
    name.strip_prefix('u')?.parse().ok()
}

impl Crowd {
    /// All log in, and dual clients park; whoever has it to do begins to chat.
    pub(super) fn enter(clients: Clients, ca: &Path, seed: u64) -> Result<Crowd, String> {
        // Threads that a thread starts are in its namespace: this one is where the clients are.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let authority = Authority::load(ca).map_err(|error| error.to_string())?;
        let mut dialer = Dialer::new(c2s_client(&authority).map_err(|error| error.to_string())?);
        // A node that stands still takes connections and says nothing.
        dialer.login_timeout = SILENCE;
        let homes = homes(clients);
        let place = |node: Node| Peer {
            node: node.to_string().into(),
            host: address(node).to_string().into(),
            port: DIRECT,
            direct_tls: true,
        };
        let places = Node::BOTH.map(place).to_vec();
        let mut options = FleetOptions::new(DOMAIN, PASSWORD, places, homes.clone(), dialer);
        options.plain = clients.plain as f64 / homes.len() as f64;
        options.interval = INTERVAL;
        options.change_presence = INTERVAL * 8;
        options.silence = SILENCE;
        options.from = PARTS.map(|part| address_of(part).into()).to_vec();
        options.seed = seed;
        options.body_len = clients.bytes.unwrap_or(options.body_len);
        let fleet = runtime.block_on(Fleet::start(options));
        let puppets = if clients.slixmpp > 0 { foreign(ca) } else { Vec::new() };
        let mut crowd =
            Crowd { fleet, homes, puppets, said: 0, reconnects_before: 0, lost_before: 0, runtime };
        let ready = crowd.runtime.block_on(async {
            crowd.fleet.all_logged_in(LIMIT).await && crowd.fleet.all_parked(LIMIT).await
        });
        if !ready {
            return Err(format!(
                "the first logins: {:?} {:?}",
                crowd.fleet.snapshot(),
                crowd.report().error_list
            ));
        }
        (crowd.reconnects_before, crowd.lost_before) = (crowd.reconnects(), crowd.streams_lost());
        if clients.chat {
            crowd.fleet.start_sending();
        }
        Ok(crowd)
    }

    /// How many accounts there are, those of the slixmpp clients too.
    pub(super) fn accounts(&self) -> usize {
        self.homes.len() + self.puppets.len()
    }

    /// Whether everybody (at home on a node) has a session with a live stream; or how many have.
    pub(super) fn in_session(&self, home: Option<Node>) -> (usize, usize) {
        let counts = |user: &usize| home.is_none_or(|home| self.homes[*user] == home.index());
        let users: Vec<usize> = (0..self.homes.len()).filter(counts).collect();
        let up = users.iter().filter(|user| self.fleet.session(**user).is_some_and(|s| s.is_up())).count();
        (up, users.len())
    }

    /// How many have a session with the node, of how many.
    pub(super) fn in_session_at(&self, node: Node) -> (usize, usize) {
        let now = self.fleet.snapshot();
        (now.by_node.get(node.to_string().as_str()).copied().unwrap_or(0), now.users)
    }

    /// How many of a part have a session with the node, of how many.
    pub(super) fn part_at(&self, part: Site, node: Node) -> (usize, usize) {
        let users: Vec<usize> = (0..self.homes.len()).filter(|user| part_of(*user) == part).collect();
        let node = node.to_string();
        let is_there = |user: &&usize| self.fleet.node_of(**user).as_deref() == Some(node.as_str());
        (users.iter().filter(is_there).count(), users.len())
    }

    /// How many have parked, of how many that could.
    pub(super) fn parked(&self) -> (usize, usize) {
        let now = self.fleet.snapshot();
        (now.parked, now.users - now.plain)
    }

    /// How often clients have lost a stream, or gone on on another one, since the chat began.
    pub(super) fn reconnects(&self) -> u64 {
        let now = self.fleet.snapshot();
        let changed = now.flips.total() + now.resumes + now.binds_anew;
        now.streams_lost + changed - self.reconnects_before
    }

    /// How many streams clients have lost since the chat began, their second ones too.
    pub(super) fn streams_lost(&self) -> u64 {
        self.fleet.snapshot().streams_lost - self.lost_before
    }

    /// How long clients with a second stream waited for their session since the faults that hit them, and how many clients of
    /// any kind still wait.
    pub(super) fn flips(&self) -> (Summary, usize) {
        (self.report().flip_ms, self.fleet.fault_pending())
    }

    /// Messages so far.
    pub(super) fn counts(&self) -> Counts {
        self.fleet.ledger().counts()
    }

    /// Whether every dual client has had a stream since the chat began, and everybody the same session; else what was lost.
    pub(super) fn streams_kept(&self) -> Result<(), String> {
        match self.fleet.snapshot() {
            now if now.dual_resumes == 0 && now.binds_anew == 0 => Ok(()),
            now => Err(format!(
                "dual clients lost both streams {} times, and {} sessions were refused",
                now.dual_resumes, now.binds_anew
            )),
        }
    }

    /// Messages acknowledged so far, of senders at home on a node or of all.
    pub(super) fn acknowledged(&self, home: Option<Node>) -> u64 {
        match home {
            None => self.fleet.snapshot().messages.acknowledged,
            Some(home) => self.fleet.ledger().acknowledged_of(|name| self.is_at_home(name, home)),
        }
    }

    /// The same of senders of a part.
    pub(super) fn acknowledged_of(&self, part: Site) -> u64 {
        let is_of = |name: &str| user_of(name).map(part_of) == Some(part);
        self.fleet.ledger().acknowledged_of(is_of)
    }

    /// The longest time since `since` in which none was, likewise.
    pub(super) fn longest_silence(&self, since: Instant, home: Option<Node>) -> Duration {
        let fits = |name: &str| home.is_none_or(|home| self.is_at_home(name, home));
        self.fleet.ledger().longest_silence(since, fits)
    }

    /// Whether what each of them said, likewise, was shown or acknowledged within `limit` since then, and each said something.
    pub(super) fn nobody_waits(
        &self,
        since: Instant,
        home: Option<Node>,
        limit: Duration,
    ) -> Result<(), String> {
        self.none_waits(since, limit, |name| home.is_none_or(|home| self.is_at_home(name, home)))
    }

    /// The same of dual clients who talk with dual clients: what is said to a plain one that has lost its stream is shown when it
    /// has resumed, and acknowledged when its sender asks next, once a second.
    pub(super) fn no_dual_waits(&self, since: Instant, limit: Duration) -> Result<(), String> {
        let is_dual = |user: &usize| !self.fleet.is_plain(*user);
        let fits = |user: &usize| is_dual(user) && self.fleet.partners().get(*user).is_some_and(is_dual);
        self.none_waits(since, limit, |name| user_of(name).as_ref().is_some_and(fits))
    }

    fn none_waits(&self, since: Instant, limit: Duration, fits: impl Fn(&str) -> bool) -> Result<(), String> {
        let waits = self.fleet.ledger().waits(since, &fits);
        if let Some((name, wait)) = waits.iter().max_by_key(|(_, wait)| **wait)
            && *wait > limit
        {
            return Err(format!("what {name} said waited for {wait:.1?} until it was shown or acknowledged"));
        }
        // They say something more than once a second.
        let silent =
            (0..self.homes.len()).map(user_name).find(|name| fits(name) && !waits.contains_key(name));
        match silent {
            Some(name) if since.elapsed() > limit.max(TALKS) => {
                Err(format!("{name} has said nothing meanwhile"))
            }
            _ => Ok(()),
        }
    }

    fn is_at_home(&self, name: &str, home: Node) -> bool {
        user_of(name).and_then(|user| self.homes.get(user)) == Some(&home.index())
    }

    /// A fault hits a node now: its clients are timed.
    pub(super) fn fault_at(&self, node: Node, at: Instant) {
        self.fleet.fault_at(&node.to_string(), at);
    }

    /// Somebody at home on this node says what hits the bug. To himself, so that it is in nobody's order.
    pub(super) fn say_mandrake(&self, home: Node) -> Result<(), String> {
        let user = self.homes.iter().position(|h| *h == home.index()).ok_or("nobody is at home there")?;
        let name = user_name(user);
        let mut w = Writer::new();
        w.open("message", "").attr("type", "chat").attr("id", "mandrake");
        w.attr("to", format_args!("{name}@{DOMAIN}"));
        w.open("body", "").text(MANDRAKE);
        self.fleet.ledger().sent(&name, "mandrake", &name, 1);
        let session = self.fleet.session(user).ok_or("no session")?;
        session.send(Outgoing { id: "mandrake".to_owned(), bytes: w.finish(), survives: true });
        Ok(())
    }

    /// Both slixmpp clients say so many messages more to each other, in one go. Returns when both have begun to write.
    pub(super) fn talk(&mut self, count: usize) -> Result<(), String> {
        let [romeo, juliet] = &mut self.puppets[..] else {
            return Err("there are no slixmpp clients".into());
        };
        let ids =
            |who: &str| (self.said..self.said + count).map(|n| format!("{who}-{n}")).collect::<Vec<_>>();
        let both = FOREIGN.map(ids);
        romeo.say(&juliet.jid, &both[0]);
        juliet.say(&romeo.jid, &both[1]);
        // What slixmpp is given while it has no stream it forgets: a fault comes after that.
        for (puppet, ids) in [romeo, juliet].into_iter().zip(&both) {
            puppet.until("its own writing", |e| {
                e["event"] == "wrote" && e["id"].as_str() == ids.first().map(String::as_str)
            });
        }
        self.said += count;
        Ok(())
    }

    /// Whether each slixmpp client that lost its stream has its session back, and at least one did.
    pub(super) fn slixmpp_resumed(&self) -> bool {
        let lasts = self.puppets.iter().filter_map(|puppet| {
            let stream = |event: &Value| event["event"] == "disconnected" || event["event"] == "resumed";
            puppet.events().into_iter().rfind(stream)
        });
        let lasts: Vec<Value> = lasts.collect();
        !lasts.is_empty() && lasts.iter().all(|last| last["event"] == "resumed")
    }

    /// What the slixmpp clients told of their streams.
    pub(super) fn slixmpp_said(&self) -> String {
        let streams = |puppet: &Puppet| {
            let events = puppet.events();
            let told = |event: &Value| {
                let name = event["event"].as_str().filter(|name| !["message", "wrote"].contains(name))?;
                Some(event["what"].as_str().map_or(name.to_owned(), |what| format!("{name} ({what})")))
            };
            let events: Vec<_> = events.iter().filter_map(told).collect();
            format!("{}: {}", puppet.jid, events.join(", "))
        };
        self.puppets.iter().map(streams).collect::<Vec<_>>().join("; ")
    }

    /// Nobody says anything new; everything said must arrive. What is wrong, a line each.
    pub(super) fn settle(&mut self, books: Books) -> Vec<String> {
        let drained = self.runtime.block_on(async {
            let drained = self.fleet.drain(LIMIT).await;
            // What is shown twice would come behind.
            tokio::time::sleep(Duration::from_millis(500)).await;
            drained
        });
        let report = self.report();
        let mut wrong = judge(&report, books);
        if !drained {
            wrong.push(format!("not everything arrived within {LIMIT:?}"));
        }
        if report.ledger.acknowledged == 0 {
            wrong.push("nothing was said".to_owned());
        }
        wrong.extend(self.judge_foreign());
        wrong
    }

    fn judge_foreign(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (index, puppet) in self.puppets.iter().enumerate() {
            let other = FOREIGN[1 - index];
            let said: Vec<String> = (0..self.said).map(|n| format!("{other}-{n}")).collect();
            let deadline = Instant::now() + LIMIT;
            while puppet.messages().len() < said.len() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            let shown = puppet.messages();
            if shown != said {
                wrong.push(format!("{} was shown {shown:?} of {} messages", puppet.jid, said.len()));
            }
            let refused = puppet.events().iter().any(|e| e["event"] == "sm_failed" || e["event"] == "error");
            if refused {
                wrong.push(format!("{}: {:?}", puppet.jid, puppet.events()));
            }
        }
        wrong
    }

    /// The figures.
    pub(super) fn report(&self) -> FleetReport {
        self.fleet.report()
    }
}

fn foreign(ca: &Path) -> Vec<Puppet> {
    let place = |node: Node| Place {
        starttls: SocketAddr::new(address(node).into(), STARTTLS),
        direct: SocketAddr::new(address(node).into(), DIRECT),
    };
    let enter = |home: Node| {
        let places = [place(home), place(home.other())];
        let puppet = Puppet::slixmpp(FOREIGN[home.index()], "desk", ca, &places, home == Node::A);
        puppet.until("its own start", |e| e["event"] == "started" && e["jid"] == puppet.jid);
        puppet
    };
    Node::BOTH.map(enter).into()
}

/// What the books of our own clients say against the nodes.
fn judge(report: &FleetReport, books: Books) -> Vec<String> {
    let (ledger, presence, counters) = (&report.ledger, &report.presence, &report.counters);
    let mut wrong = Vec::new();
    let mut demand = |kept: bool, what: String| {
        if !kept {
            wrong.push(what);
        }
    };
    demand(ledger.lost == 0, format!("{} messages lost: {:#?}", ledger.lost, ledger.lost_list));
    // Who was refused says again what the server may have had, and the server what the client may have had.
    let excused = |who: &String| match books {
        Books::Strict => false,
        Books::Refused => report.refused.get(who) == Some(&true),
        Books::Apart(_) => true,
    };
    let doubled = format!("{} messages shown twice: {:#?}", ledger.duplicated, ledger.duplicated_list);
    let turned = format!("{} messages out of order: {:#?}", ledger.reordered, ledger.reordered_list);
    let twice = |(sender, receiver): &(String, String)| excused(sender) || excused(receiver);
    demand(ledger.disturbed.iter().all(twice), format!("{doubled}\n{turned}"));
    if let Books::Apart(Some(most)) = books {
        let shown = format!("a message was shown {} times; {doubled}", ledger.most_shown);
        demand(ledger.most_shown <= most, shown);
    }
    demand(ledger.strangers == 0, format!("strange messages: {:#?}", ledger.strangers_list));
    let unacknowledged = format!("unacknowledged: {:#?}", ledger.unacknowledged_list);
    demand(ledger.unacknowledged == 0, unacknowledged);
    // A cut that is mended soon ends no stream: who was there may have noticed nothing.
    let all_in = counters.logged_in == counters.users;
    demand(report.fault_pending == 0 || all_in, format!("{} clients never went on", report.fault_pending));
    let refused = format!("sessions were refused (true: of a plain client): {:?}", report.refused);
    demand(report.refused.keys().all(excused), refused);
    demand(counters.errors == 0 && counters.bounced == 0, format!("errors: {:?}", report.error_list));
    // What each node showed of the other's clients was of its own branch; in the end it is right all the same.
    let apart = matches!(books, Books::Apart(_));
    let kept = if apart { presence.missed == 0 } else { presence.kept() };
    demand(kept, format!("presence: {:#?}", presence.list));
    demand(presence.shown > 0, "no presence was shown".to_owned());
    wrong
}

#[cfg(test)]
mod tests {
    use client_sim::fleet::pair_up;

    use super::*;

    #[test]
    fn each_part_has_half_of_the_clients_of_each_home_and_people_talk_across() {
        let clients = Clients { dual: 12, plain: 4, ..Clients::default() };
        let homes = homes(clients);
        let partners = pair_up(&homes);
        for home in 0..2 {
            let own: Vec<usize> = (0..homes.len()).filter(|user| homes[*user] == home).collect();
            let of_half = own.iter().filter(|user| part_of(**user) == Site::Half).count();
            assert_eq!((of_half, own.len()), (4, 8));
            assert!(own.iter().any(|user| part_of(*user) != part_of(partners[*user])), "of home {home}");
        }
        assert_eq!(user_of(&user_name(7)), Some(7));
        assert_eq!(user_of(FOREIGN[0]), None);
    }

    #[test]
    fn under_available_nobody_is_shown_a_message_more_often_than_the_scenario_says() {
        let mut report = FleetReport::default();
        report.presence.shown = 1;
        report.ledger.most_shown = 3;
        report.ledger.disturbed.insert(("u0".to_owned(), "u1".to_owned()));
        assert_eq!(judge(&report, Books::Apart(None)), Vec::<String>::new());
        assert_eq!(judge(&report, Books::Apart(Some(3))), Vec::<String>::new());
        let wrong = judge(&report, Books::Apart(Some(2)));
        assert!(wrong.len() == 1 && wrong[0].contains("a message was shown 3 times"), "{wrong:?}");
        assert_eq!(judge(&report, Books::Strict).len(), 1);
    }
}
