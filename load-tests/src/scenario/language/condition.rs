//! Reads a condition: what a line waits for, holds or asserts.

use super::Condition;
use super::parse::{duration, jump, node, part, percent};

/// What these words say may be so; `None` if they are no form of a condition.
pub(super) fn condition(words: &[&str]) -> Option<Condition> {
    let text = |word: &str| word.strip_prefix('"').map(str::to_owned);
    match words {
        ["pair"] => Some(Condition::Pair),
        ["protected"] => Some(Condition::Protected),
        ["pair", "of", "two", "versions"] => Some(Condition::PairOfTwoVersions),
        ["protected", "of", "two", "versions"] => Some(Condition::ProtectedOfTwoVersions),
        ["same"] => Some(Condition::Same),
        ["clients"] => Some(Condition::Clients(None)),
        ["clients", "of", one] => node(one).map(|one| Condition::Clients(Some(one))),
        ["clients", "at", one] => node(one).map(Condition::ClientsAt),
        [one, "at", at] => part(one).zip(node(at)).map(|(one, at)| Condition::PartAt(one, at)),
        ["no", "clients", "of", one] => node(one).map(Condition::NoClients),
        ["no", "reconnects"] => Some(Condition::NoReconnects),
        ["flips", "within", limit] => Some(Condition::Flips(duration(limit).ok()?, None)),
        ["flips", "within", limit, "half", "of", "them", "within", half] => {
            Some(Condition::Flips(duration(limit.strip_suffix(',')?).ok()?, Some(duration(half).ok()?)))
        }
        ["parked"] => Some(Condition::Parked),
        ["streams", "kept"] => Some(Condition::StreamsKept),
        ["streams", "lost", number] => Some(Condition::StreamsLost(number.parse().ok()?)),
        ["flow", limit] => Some(Condition::Flow(None, duration(limit).ok()?)),
        ["flow", limit, "of", one] => Some(Condition::Flow(Some(node(one)?), duration(limit).ok()?)),
        ["flow", "each", limit] => Some(Condition::FlowEach(None, duration(limit).ok()?)),
        ["flow", "each", limit, "of", "dual"] => Some(Condition::FlowAmongDual(duration(limit).ok()?)),
        ["flow", "each", limit, "of", one] => {
            Some(Condition::FlowEach(Some(node(one)?), duration(limit).ok()?))
        }
        ["traffic", number] => Some(Condition::Traffic(number.parse().ok()?, None)),
        ["traffic", number, "of", one] if part(one).is_some() => {
            Some(Condition::PartTraffic(number.parse().ok()?, part(one)?))
        }
        ["traffic", number, "of", one] => Some(Condition::Traffic(number.parse().ok()?, Some(node(one)?))),
        ["throughput", share] => Some(Condition::Throughput(percent(share).ok()?.into())),
        ["no", "traffic"] => Some(Condition::NoTraffic(None)),
        ["no", "traffic", "of", one] => node(one).map(|one| Condition::NoTraffic(Some(one))),
        ["path", "met", number] => Some(Condition::PathMet(number.parse().ok()?)),
        [one, "met", number] => Some(Condition::Met(node(one)?, number.parse().ok()?)),
        [one, "clock", by] => Some(Condition::Clock(node(one)?, jump(by).ok()??)),
        ["slixmpp", "resumed"] => Some(Condition::SlixmppResumed),
        ["not", rest @ ..] => condition(rest).map(|c| Condition::Not(Box::new(c))),
        ["witness", "says", one, "leads", home] => Some(Condition::WitnessSays(node(one)?, node(home)?)),
        ["witness", "ended", what] => text(what).map(Condition::WitnessEnded),
        [one, "ended"] => node(one).map(Condition::Ended),
        [one, "runs"] => node(one).map(Condition::Runs),
        [one, "alarm", what] => node(one).zip(text(what)).map(|(n, t)| Condition::Alarm(n, t)),
        [one, "log", what] => node(one).zip(text(what)).map(|(n, t)| Condition::Log(n, t)),
        [one, "aside", name] => node(one).zip(text(name)).map(|(n, t)| Condition::Aside(n, t)),
        [one, "event", what] => node(one).zip(text(what)).map(|(n, t)| Condition::Event(n, t)),
        [one, "events", number, what] => {
            Some(Condition::Events(node(one)?, number.parse().ok()?, text(what)?))
        }
        [one, "counts", number, what] => {
            Some(Condition::Counts(node(one)?, number.parse().ok()?, text(what)?))
        }
        [one, "says", other, state] => Some(Condition::State(node(one)?, node(other)?, text(state)?)),
        [one, "misses", other, time] => {
            Some(Condition::Misses(node(one)?, node(other)?, duration(time).ok()?))
        }
        [one, state] => node(one).zip(text(state)).map(|(n, t)| Condition::State(n, n, t)),
        _ => None,
    }
}
