//! The node's news in the operator's words.

use presence_engine::ids::{Group, NodeIx};

use session_mover::driver::check::Report;

use super::chronicle::Holds;
use crate::events::{Record, Severity};
use crate::evidence::Gone;
use crate::node::{Event, Force, Moved, Stage};
use crate::view::{Cause, Shown, State};

/// Whose beacon was heard within this time is not silent: what counts against it is that our log does not get through.
const HEARD_MS: u64 = 3_000;

/// What brought something about, as it stands in an event.
fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Nothing => "",
        Cause::Operator => "operator",
        Cause::Service => "service stopped",
        Cause::Database => "database",
        Cause::PeerDown => "network",
        Cause::PeerReboot => "node stopped or crashed",
        Cause::PeerDownDuringInitialization => "node not heard during start",
        Cause::Automatic => "automatic",
        Cause::Scheduled => "scheduled",
        Cause::Clients => "clients logging in at the inactive node",
        Cause::Rule => "a rule on another event",
    }
}

/// The event as it is kept; `None` for what only the log tells. `who` asked for it at this node, if it was an operator whose
/// name is known.
pub fn record(
    event: &Event,
    names: &[String; 2],
    me: NodeIx,
    shown: &Shown,
    who: Option<&str>,
) -> Option<Record> {
    let name = |g: Group| names[g.index()].as_str();
    let peer = name(me.peer());
    let told = |event: &str, text: String| Record { event: event.to_owned(), text, ..Record::default() };
    let mut record = match event {
        Event::Register(..) => return None,
        Event::Row(shown) => row(shown, names),
        Event::Moved(m) => moved(m, names, who),
        Event::PeerUp => told("peer-up", format!("{peer} is heard, and the link is up")),
        Event::PeerRestarts => told(
            "peer-restarts",
            format!(
                "{peer} is restarted: nobody takes over until it has been gone for the keep-alive time-out"
            ),
        ),
        Event::Recovered => told("recovered", "the failed mode of both nodes was ended".to_owned()),
        Event::Called(clients) => {
            let text = format!(
                "{clients} accounts of {peer} call here with sessions that they had there, and it is silent"
            );
            told("clients-call", text)
        }
        Event::Unanswered(clients) => {
            let text = format!(
                "{clients} accounts of {peer} call here with sessions that they had there; it is heard, and has answered \
                 nobody for the keep-alive time-out: it is asked to fail over"
            );
            told("clients-call", text)
        }
        Event::NotForClients(why) => {
            let text = format!("failover for clients that wait at {peer} refused: {why}");
            told("failover-refused", text)
        }
        Event::Ha(true) => told("ha-enabled", "high availability was enabled".to_owned()),
        Event::Ha(false) => {
            let text = "high availability was disabled: if a node dies, its users wait for it".to_owned();
            told("ha-disabled", text)
        }
        Event::Paused(what, Some(pause)) => {
            let why = pause.what(name(me), peer);
            told("move-paused", format!("{what} paused: {why}; it goes on when that is over"))
        }
        Event::Paused(what, None) => told("move-resumed", format!("{what} goes on")),
        Event::Rebalanced(p) if p.left == 0 => {
            told("rebalanced", format!("{} users were assigned to {peer}", p.done))
        }
        Event::Rebalanced(p) => {
            let text = format!(
                "a rebalance was broken off: {} users were assigned to {peer}, {} were not",
                p.done, p.left
            );
            told("rebalanced", text)
        }
        Event::Checked(report) => checked(report, peer),
        Event::PeerGone(gone, silent_ms) => {
            let since = silent_ms.map_or("it was never heard".to_owned(), |ms| {
                format!("last heard {:.1} s ago", ms as f64 / 1_000.0)
            });
            let heard = silent_ms.is_some_and(|ms| ms < HEARD_MS);
            let why = match gone {
                Gone::Silent if heard => {
                    "its beacons are heard, but nothing of this node's log gets through to it"
                }
                Gone::Dead => "it said goodbye, refuses connections, or came back as another process",
                Gone::Silent => "nothing is heard of it by any path",
            };
            told("peer-down", format!("{peer} is held to be gone: {why}; {since}"))
        }
        Event::Unprotected(g) => {
            told("unprotected", format!("users of {} are served without a standby", name(*g)))
        }
        Event::OnlyPathDown => {
            told("path-down", format!("only the path to {peer} is down: clients see both nodes"))
        }
        Event::SetAside(which, frames, released, kept) => told(
            "tail-set-aside",
            format!(
                "the end of a log ({which:?}) was set aside: {frames} frames, of which {released} had been released by one \
                 node alone; {kept} were written in their place"
            ),
        ),
        Event::Forced(Force::Active, missing) if missing.is_empty() => {
            told("forced", "made active by force; nothing is known to be missing".to_owned())
        }
        Event::Forced(Force::Active, missing) => {
            told("forced", format!("made active by force; {}", missing.join("; ")))
        }
        Event::TakenBack => {
            told("forced", "no longer inactive by the operator's word; nothing was forced".to_owned())
        }
        Event::Forced(Force::Inactive, unserved) => {
            told("forced", format!("made inactive by force; {}", unserved.join("; ")))
        }
        Event::StoreFailed(why) => told(
            "store-failed",
            format!(
                "the store failed ({why}); this node serves on from its logs, and the store is written anew as soon as it \
                 takes that"
            ),
        ),
        Event::Resynced(own, peer) => told(
            "resynced",
            format!("everything came from the peer: {own} frames of this node's log, {peer} of the peer's"),
        ),
        Event::Poison(print) => told(
            "input-refused",
            format!(
                "input refused: {print:016x} was being handled when nodes crashed; report this bug with their logs"
            ),
        ),
        Event::RosterFull(user, contact) => told(
            "roster-full",
            format!("the roster of {user} is full: what it said of {contact} at the other node is not in it"),
        ),
        Event::DiskStalled => {
            told("disk-stalled", "the disk of this node does not answer: nothing is acknowledged".to_owned())
        }
    };
    let (row, states) = holds(shown, names);
    (record.row, record.states) = (Some(row), states);
    Some(record)
}

/// The row that is shown, and the states that it names, as events bear them.
pub(super) fn holds(shown: &Shown, names: &[String; 2]) -> Holds {
    let named = NodeIx::BOTH.into_iter().filter(|n| !names[n.index()].is_empty());
    let states = named.map(|n| {
        let (state, reason) = shown.states[n.index()];
        (names[n.index()].clone(), (state.name().to_owned(), reason.name().to_owned()))
    });
    (shown.row.id, states.collect())
}

fn checked(report: &Report, peer: &str) -> Record {
    let accounts = match report.users {
        None if peer.is_empty() => "there is no other node to compare accounts with".to_owned(),
        Some(users) => format!("{users} accounts were compared with {peer}, {} differ", report.different),
        None => "the accounts could not be compared: the nodes are not connected".to_owned(),
    };
    let named =
        if report.named.is_empty() { String::new() } else { format!(" ({})", report.named.join(", ")) };
    let store = match report.pairs {
        Some(pairs) => {
            format!("{pairs} pairs of the store were compared with the logs, {} are wrong", report.wrong)
        }
        None if report.wrong > 0 => "the store could not be read".to_owned(),
        None => "the store holds no checkpoint that could be compared".to_owned(),
    };
    let kind = if report.different + report.wrong > 0 { "check-failed" } else { "checked" };
    Record { event: kind.to_owned(), text: format!("{accounts}{named}; {store}"), ..Record::default() }
}

fn row(shown: &Shown, names: &[String; 2]) -> Record {
    let each = NodeIx::BOTH.into_iter().filter(|n| !names[n.index()].is_empty()).map(|n| {
        let (state, reason) = shown.states[n.index()];
        match state {
            State::Down => format!("{} down", names[n.index()]),
            _ => format!("{} {} / {}", names[n.index()], state.name(), reason.name()),
        }
    });
    let action = shown.action(names);
    let todo = if action.is_empty() { String::new() } else { format!("; to do: {action}") };
    let text = format!("{}: {}{todo}", each.collect::<Vec<_>>().join(", "), shown.why(names));
    let severity =
        match (action.is_empty(), shown.states.iter().any(|(s, _)| *s == State::RunningInFailedMode)) {
            (_, true) => Severity::Critical,
            (false, _) => Severity::Warning,
            (true, _) => Severity::Info,
        };
    Record { event: "state".to_owned(), severity, text, ..Record::default() }
}

/// Which operator asked, and where; and how a sentence goes on with it.
pub(super) fn asked_by(names: &[String; 2], node: NodeIx, who: Option<&str>) -> (String, String) {
    let node = &names[node.index()];
    match who {
        Some(who) => (format!("{who} at node {node}"), format!("asked for by {who} at node {node}")),
        None => (format!("admin API of {node}"), format!("asked for at the admin API of {node}")),
    }
}

fn moved(m: &Moved, names: &[String; 2], who: Option<&str>) -> Record {
    let (home, backup) = (&names[m.group.index()], &names[m.group.peer().index()]);
    let (asked_by, asked) = m.asked.map(|node| asked_by(names, node, who)).unwrap_or_default();
    let what = if m.back { "fallback" } else { "failover" };
    let after =
        m.took_ms.map_or(String::new(), |ms| format!(", {:.1} s after it began", ms as f64 / 1_000.0));
    let (stage, text) = match (m.stage, m.back) {
        (Stage::Began, false) => ("began", format!("the users of {home} are on their way to {backup}")),
        (Stage::Began, true) => ("began", format!("the users of {home} are on their way back from {backup}")),
        (Stage::Complete, false) => ("complete", format!("{backup} serves the users of {home}{after}")),
        (Stage::Complete, true) => ("complete", format!("{home} serves its users again{after}")),
        (Stage::Ended, false) => {
            ("ended", format!("the failover of {home} came to nothing: it serves its users"))
        }
        (Stage::Ended, true) => {
            ("ended", format!("the fallback to {home} came to nothing: {backup} serves its users"))
        }
        (Stage::Found, _) => {
            ("found", format!("{backup} serves the users of {home}, since before this node started"))
        }
    };
    let cause = cause(m.cause);
    let mut because = if cause.is_empty() { String::new() } else { format!("; cause: {cause}") };
    if !asked.is_empty() {
        because += &format!(", {asked}");
    }
    Record {
        event: format!("{what}-{stage}"),
        cause: cause.to_owned(),
        asked_by,
        users: Some(m.users),
        took_ms: m.took_ms,
        text: format!("{text}; users: {}{because}", m.users),
        ..Record::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::kinds::KINDS;
    use crate::pause::Pause;
    use crate::view::{Facts, Ha, Place, Seen, shown};

    fn names() -> [String; 2] {
        ["a".into(), "b".into()]
    }

    fn dead() -> Shown {
        let well = Seen { heard: true, restarted: false, serves: true };
        let gone = Seen { heard: false, ..well };
        let facts = Facts {
            ha: Ha::Enabled,
            failed: None,
            place: Place::AtBackup,
            cause: Cause::PeerReboot,
            home: gone,
            backup: well,
            path_down: false,
        };
        let own = Facts { place: Place::AtHome, cause: Cause::Nothing, home: well, backup: gone, ..facts };
        shown([&facts, &own])
    }

    #[test]
    fn a_death_is_told_with_row_states_cause_users_and_time() {
        let shown = dead();
        let m = Moved {
            group: NodeIx::A,
            back: false,
            stage: Stage::Complete,
            cause: Cause::PeerReboot,
            asked: None,
            users: 40,
            took_ms: Some(1_500),
        };
        let told = record(&Event::Moved(m), &names(), NodeIx::B, &shown, None).unwrap();
        assert_eq!((told.event.as_str(), told.row), ("failover-complete", Some(17)));
        assert_eq!((told.users, told.took_ms), (Some(40), Some(1_500)));
        assert_eq!(
            told.text,
            "b serves the users of a, 1.5 s after it began; users: 40; cause: node stopped or crashed"
        );
        assert_eq!(told.states["b"], ("Running in Backup Mode".into(), "Peer Reboot".into()));
        let told = record(&Event::Row(shown), &names(), NodeIx::B, &shown, None).unwrap();
        assert_eq!(told.severity, Severity::Warning);
        assert_eq!(
            told.text,
            "a down, b Running in Backup Mode / Peer Reboot: a was shut down or restarted, lost power, or its hardware \
             failed; to do: repair and power up a; when all critical services run, do a manual fallback"
        );
        let told =
            record(&Event::PeerGone(Gone::Silent, Some(60_250)), &names(), NodeIx::B, &shown, None).unwrap();
        assert!(
            told.text.ends_with("nothing is heard of it by any path; last heard 60.2 s ago"),
            "{}",
            told.text
        );
        let told =
            record(&Event::PeerGone(Gone::Silent, Some(250)), &names(), NodeIx::B, &shown, None).unwrap();
        assert!(
            told.text.contains("a is held to be gone: its beacons are heard, but nothing"),
            "{}",
            told.text
        );
    }

    #[test]
    fn a_move_tells_who_asked_for_it_and_where() {
        let told = |asked, who| {
            let (group, cause) = (NodeIx::A, Cause::Operator);
            let m = Moved { group, back: false, stage: Stage::Began, cause, asked, users: 2, took_ms: None };
            record(&Event::Moved(m), &names(), NodeIx::B, &dead(), who).unwrap()
        };
        let text = "the users of a are on their way to b; users: 2; cause: operator";
        let named = told(Some(NodeIx::B), Some("alice"));
        assert_eq!(named.asked_by, "alice at node b");
        assert_eq!(named.text, format!("{text}, asked for by alice at node b"));
        let unnamed = told(Some(NodeIx::A), None);
        assert_eq!(unnamed.asked_by, "admin API of a");
        assert_eq!(unnamed.text, format!("{text}, asked for at the admin API of a"));
        let by_nobody = told(None, None);
        assert_eq!((by_nobody.asked_by.as_str(), by_nobody.text.as_str()), ("", text));
    }

    #[test]
    fn every_kind_that_is_written_is_in_the_list() {
        let shown = dead();
        let stages = [Stage::Began, Stage::Complete, Stage::Ended, Stage::Found];
        let moves = stages.into_iter().flat_map(|stage| {
            [false, true].map(|back| {
                Event::Moved(Moved {
                    group: NodeIx::A,
                    back: back && stage != Stage::Found,
                    stage,
                    cause: Cause::Operator,
                    asked: None,
                    users: 0,
                    took_ms: None,
                })
            })
        });
        let others = [
            Event::PeerUp,
            Event::PeerRestarts,
            Event::Recovered,
            Event::Called(3),
            Event::Unanswered(3),
            Event::NotForClients("this node answers clients"),
            Event::Ha(true),
            Event::Ha(false),
            Event::Rebalanced(crate::node::Progress { done: 1, left: 0 }),
            Event::Rebalanced(crate::node::Progress { done: 1, left: 1 }),
            Event::Paused("fallback", Some(Pause::Lag)),
            Event::Paused("fallback", None),
            Event::PeerGone(Gone::Dead, None),
            Event::Checked(Report::default()),
            Event::Checked(Report {
                users: Some(2),
                different: 1,
                named: vec!["u@d".into()],
                ..Report::default()
            }),
            Event::Checked(Report { pairs: Some(2), wrong: 1, ..Report::default() }),
            Event::Unprotected(NodeIx::A),
            Event::OnlyPathDown,
            Event::SetAside(session_mover::log::Which::Own, 1, 0, 0),
            Event::Forced(Force::Active, vec![]),
            Event::TakenBack,
            Event::Forced(Force::Inactive, vec!["users of a are served by nobody".to_owned()]),
            Event::StoreFailed(String::new()),
            Event::Resynced(1, 2),
            Event::Poison(1),
            Event::RosterFull(
                xmpp_core::jid::BareJid::parse("u@d").unwrap(),
                xmpp_core::jid::BareJid::parse("v@d").unwrap(),
            ),
            Event::DiskStalled,
            Event::Row(shown),
        ];
        for event in moves.chain(others) {
            let told = record(&event, &names(), NodeIx::A, &shown, None).unwrap();
            assert!(KINDS.iter().any(|kind| kind.name == told.event), "{told:?}");
            assert!(!told.text.is_empty() && !told.text.contains("node 1"), "{told:?}");
        }
    }
}
