//! Whether a condition of a scenario is so, and what is seen instead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use srm::admin::{LogStatus, Status};
use srm::demo::pair::{protected, well};
use srm::events::Record;

use super::language::{Condition, Node};
use super::world::World;
use crate::powerloss::faults_met;

const DAY_S: i64 = 24 * 3600;

/// Longest that a frame takes to the other node, where nothing is in its way.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// Whether something is so; else what is seen instead. Outside of it, why nobody can say: who is asked does not answer.
type Told = Result<Result<(), String>, String>;

impl World {
    /// Whether it is so now; else what is seen instead.
    pub(super) fn check(&mut self, condition: &Condition) -> Result<(), String> {
        self.told(condition)?
    }

    fn told(&mut self, condition: &Condition) -> Told {
        Ok(match condition {
            Condition::State(at, of, state) => {
                let shown = self.shown(*at, *of)?;
                let fits =
                    shown == *state || shown.split_once(" / ").is_some_and(|(short, _)| short == state);
                demand(fits, || format!("{at} shows {of} as {shown}"))
            }
            Condition::Misses(at, of, time) => {
                let status = self.status(*at)?;
                let heard = status.nodes.iter().find(|n| n.name == of.to_string()).and_then(|n| n.heard_ms);
                let missed = heard.is_none_or(|ms| u128::from(ms) >= time.as_millis());
                demand(missed, || format!("{at} heard {of} {heard:?} ms ago"))
            }
            Condition::Alarm(at, text) => {
                let alarms = self.status(*at)?.alarms;
                demand(alarms.iter().any(|alarm| alarm.contains(text)), || {
                    format!("alarms of {at}: {alarms:?}")
                })
            }
            Condition::Log(at, text) => {
                demand(self.server(*at).log().contains(text), || format!("the log of {at} lacks {text:?}"))
            }
            Condition::Event(at, text) => {
                let told = self.events(*at)?;
                demand(told.iter().any(|line| has_in_order(line, text)), || {
                    format!("no event of {at} is {text:?}, but these are:\n{}", told.join("\n"))
                })
            }
            Condition::Events(at, number, text) => {
                let told = self.events(*at)?;
                let found = told.iter().filter(|line| has_in_order(line, text)).count();
                demand(found == *number, || {
                    format!("{found} events of {at} are {text:?}; all are:\n{}", told.join("\n"))
                })
            }
            Condition::Counts(at, number, metric) => {
                let shown = self.server(*at).metric(&self.net, metric)?;
                demand(shown >= *number as f64, || format!("{metric} of {at} is {shown}"))
            }
            Condition::Aside(at, name) => {
                let found = self.server(*at).aside();
                let fits = |(file, bytes): &(String, u64)| file.starts_with(name.as_str()) && *bytes > 0;
                demand(found.iter().any(fits), || format!("{at} has set aside {found:?}"))
            }
            Condition::WitnessSays(leader, home) => {
                let said = self.witness()?.leader_of(*home)?;
                demand(said == Some(leader.to_string()), || {
                    format!("by the witness {said:?} leads users of {home}")
                })
            }
            Condition::WitnessEnded(text) => self.witness()?.ended(text),
            Condition::Ended(at) => match self.server_mut(*at).ended() {
                Some(status) => demand(!status.success(), || format!("{at} ended in good order")),
                None => Err(format!("{at} has not ended by itself")),
            },
            Condition::Runs(at) => {
                let runs = self.server_mut(*at).runs();
                demand(runs, || format!("{at} does not run: {:?}", self.server_mut(*at).ended()))
            }
            Condition::Clock(at, by) => {
                let ahead =
                    ahead_s(&self.server(*at).log()).ok_or("the last line of the log bears no time")?;
                demand((ahead - by).abs() < 60, || format!("the last line of {at}'s log is {ahead} s ahead"))
            }
            Condition::Met(at, number) => {
                met_enough(faults_met(&self.journal(*at)), *number, &format!("calls of {at}"))
            }
            Condition::PathMet(number) => met_enough(self.net.met(), *number, "packets"),
            Condition::Pair => self.on_both(paired)?,
            Condition::Protected => self.on_both(protected)?,
            Condition::PairOfTwoVersions => self.on_both(|status| but_for_versions(status, paired))?,
            Condition::ProtectedOfTwoVersions => {
                self.on_both(|status| but_for_versions(status, protected))?
            }
            // A comparison that comes to nothing is no difference.
            Condition::Same => {
                self.same()?;
                Ok(())
            }
            Condition::Clients(home) => {
                let (up, all) = self.crowd().in_session(*home);
                demand(up == all, || format!("{up} of {all} clients have a session"))
            }
            Condition::ClientsAt(node) => {
                let (up, all) = self.crowd().in_session_at(*node);
                demand(up == all, || format!("{up} of {all} clients have a session with {node}"))
            }
            Condition::PartAt(part, node) => {
                let (at, all) = self.crowd().part_at(*part, *node);
                demand(at == all, || format!("{at} of {all} of them have a session with {node}"))
            }
            Condition::NoClients(home) => {
                let (up, _) = self.crowd().in_session(Some(*home));
                demand(up == 0, || format!("{up} clients of {home} have a session"))
            }
            Condition::NoReconnects => match self.crowd().reconnects() {
                0 => Ok(()),
                times => Err(format!("clients lost or changed their streams {times} times")),
            },
            Condition::Flips(limit, half) => self.flips(*limit, *half),
            Condition::Parked => {
                let (parked, all) = self.crowd().parked();
                demand(parked == all, || format!("{parked} of {all} dual clients have parked"))
            }
            Condition::StreamsKept => self.crowd().streams_kept(),
            Condition::StreamsLost(number) => {
                let lost = self.crowd().streams_lost();
                demand(lost == *number, || format!("clients have lost {lost} streams"))
            }
            Condition::SlixmppResumed => {
                demand(self.crowd().slixmpp_resumed(), || self.crowd().slixmpp_said())
            }
            // These are about a time: whoever waits or holds counts from its beginning.
            Condition::Traffic(..)
            | Condition::PartTraffic(..)
            | Condition::NoTraffic(_)
            | Condition::Throughput(_) => return Err("only with wait or hold".to_owned()),
            Condition::Flow(home, limit) => {
                let silent = self.crowd().longest_silence(self.acting_since, *home);
                demand(silent <= *limit, || format!("no message was acknowledged for {silent:.2?}"))
            }
            Condition::FlowEach(home, limit) => self.crowd().nobody_waits(self.acting_since, *home, *limit),
            Condition::FlowAmongDual(limit) => self.crowd().no_dual_waits(self.acting_since, *limit),
            Condition::Not(inner) => {
                let is_so = self.told(inner)?;
                demand(is_so.is_err(), || format!("it is so: {inner:?}"))
            }
        })
    }

    /// Whether all that a fault hit went on within this time, and half of them within that.
    fn flips(&self, limit: Duration, half: Option<Duration>) -> Result<(), String> {
        let (flips, pending) = self.crowd().flips();
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let soon = half.is_none_or(|half| flips.p50 <= ms(half));
        let within = flips.count > 0 && flips.max <= ms(limit) && soon;
        demand(within && pending == 0, || {
            format!(
                "{} clients went on on their second stream, half of them within {:.0} ms, the last after {:.0} ms; \
                 {pending} have no session",
                flips.count, flips.p50, flips.max
            )
        })
    }

    /// Whether both nodes hold the same: accounts, by their digests, and logs, by their ends.
    fn same(&mut self) -> Result<(), String> {
        let told = self.server(Node::A).tandem(&self.net, &["check", "--json"], "")?;
        let told: serde_json::Value =
            serde_json::from_str(&told).map_err(|error| format!("{told}: {error}"))?;
        let compared = |node: Node| told["nodes"][node.to_string()]["users"].as_u64();
        let [Some(a), Some(b)] = Node::BOTH.map(compared) else {
            return Err(format!("the accounts were not compared on both nodes: {told}"));
        };
        let accounts = self.crowd().accounts() as u64;
        demand(a + b == accounts, || format!("{} of {accounts} accounts were compared", a + b))?;
        self.watch.tell(&format!("        both nodes hold the same of {accounts} accounts"));
        Node::BOTH.into_iter().try_for_each(|node| {
            let end = self.log_status(node)?.own_end;
            self.until(ON_ITS_WAY, |world| {
                let received = world.log_status(node.other())?.received;
                demand(received >= end, || {
                    format!("{} has {received} of the {end} frames of {node}'s log", node.other())
                })
            })
        })
    }

    /// How far logs are at a node, as it says now.
    fn log_status(&self, node: Node) -> Result<LogStatus, String> {
        let told = self.server(node).tandem(&self.net, &["status", "--json"], "")?;
        let status: Status = serde_json::from_str(&told).map_err(|error| format!("{told}: {error}"))?;
        let own = status.nodes.into_iter().find(|n| n.name == node.to_string());
        own.map(|own| own.log).ok_or_else(|| format!("{node} says nothing of itself"))
    }

    /// Kind and text of each event that a node has written since the chat began.
    pub(super) fn events(&self, node: Node) -> Result<Vec<String>, String> {
        let before = self.events_before[node.index()];
        let all = self.all_events(node)?;
        // A disk that was replaced begins with number 1.
        let anew = all.last().is_none_or(|event| event.number < before);
        let since = all.into_iter().filter(|event| anew || event.number > before);
        Ok(since.map(|event| format!("{} {}", event.event, event.text)).collect())
    }

    /// The last events that `tandem events` shows at a node.
    pub(super) fn all_events(&self, node: Node) -> Result<Vec<Record>, String> {
        let told = self.server(node).tandem(&self.net, &["events", "--last", "1000", "--json"], "")?;
        let failed = |error: serde_json::Error| format!("{told}: {error}");
        let mut told: serde_json::Value = serde_json::from_str(&told).map_err(failed)?;
        serde_json::from_value(told["events"].take()).map_err(|error| error.to_string())
    }

    /// What a node shows. One that does not say how it is shows no node, not even itself.
    fn status(&self, node: Node) -> Result<Status, String> {
        let shown = self.watch.status(node).filter(|status| !status.nodes.is_empty());
        shown.ok_or_else(|| format!("{node} does not answer"))
    }

    fn shown(&self, at: Node, of: Node) -> Result<String, String> {
        let status = self.status(at)?;
        let node = status.nodes.into_iter().find(|n| n.name == of.to_string());
        node.map(|n| format!("{} / {}", n.state, n.reason)).ok_or_else(|| format!("{at} does not know {of}"))
    }

    fn on_both(&self, fits: impl Fn(&Status) -> bool) -> Told {
        for node in Node::BOTH {
            let status = self.status(node)?;
            if !fits(&status) {
                let shown = self.shown(node, node).unwrap_or_default();
                return Ok(Err(format!("{node} shows {shown}, {:?}, {:?}", status.groups, status.alarms)));
            }
        }
        Ok(Ok(()))
    }
}

/// Whether the parts of a text stand in a line, one behind the other.
fn has_in_order(line: &str, text: &str) -> bool {
    let mut rest = line;
    text.split("...").all(|part| match rest.split_once(part.trim()) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

fn demand(is_so: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(instead()) }
}

fn met_enough(met: u64, number: u64, what: &str) -> Result<(), String> {
    demand(met >= number, || format!("{met} {what} have met a fault"))
}

/// All users have a standby, wherever they are served.
fn paired(status: &Status) -> bool {
    status.groups.iter().all(|group| group.mode == "Pair") && well(status) && status.moving.is_none()
}

/// The alarm that the nodes are of two versions is there, and without it the rest is so.
fn but_for_versions(status: &Status, fits: impl Fn(&Status) -> bool) -> bool {
    let (versions, alarms): (Vec<String>, Vec<String>) =
        status.alarms.iter().cloned().partition(|alarm| alarm.ends_with(": finish the upgrade"));
    !versions.is_empty() && fits(&Status { alarms, ..status.clone() })
}

/// How far the time of the last line of a log is ahead of the clock here, within half a day.
fn ahead_s(log: &str) -> Option<i64> {
    let time = log.lines().last()?.split_once('T')?.1.get(..8)?;
    let parts: Vec<i64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
    let ahead = (hours * 3600 + minutes * 60 + seconds - now).rem_euclid(DAY_S);
    Some(if ahead > DAY_S / 2 { ahead - DAY_S } else { ahead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_event_stand_one_behind_the_other() {
        let line = "failover-complete b serves the users of a; users: 6; cause: network";
        assert!(has_in_order(line, "failover-complete ... cause: network"));
        assert!(has_in_order(line, "users of a"));
        assert!(!has_in_order(line, "cause: network ... failover-complete"));
        assert!(!has_in_order(line, "failover-complete ... cause: operator"));
    }

    #[test]
    fn between_two_versions_that_alarm_is_there_and_no_other() {
        let versions = "b runs version 99.0.0, this node 0.1.0: finish the upgrade";
        let fits = |alarms: &[&str]| {
            let alarms = alarms.iter().map(|alarm| (*alarm).to_owned()).collect();
            but_for_versions(&Status { alarms, ..Status::default() }, paired)
        };
        assert!(fits(&[versions]));
        assert!(!fits(&[]), "they are of one version");
        assert!(!fits(&[versions, "unprotected: users of a are served without a standby"]));
    }
}
