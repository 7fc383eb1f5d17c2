//! The kinds of events.

use super::Severity;
use Severity::{Critical, Error, Info, Notice, Warning};

/// One kind.
#[derive(Debug)]
pub struct Kind {
    /// As it stands in a record.
    pub name: &'static str,
    /// How much it matters, where that does not depend on what it tells.
    pub severity: Severity,
    /// When it is written.
    pub when: &'static str,
}

const fn kind(name: &'static str, severity: Severity, when: &'static str) -> Kind {
    Kind { name, severity, when }
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    kind("started", Notice, "the node's process has started"),
    kind("stopping", Notice, "the node was told to stop, and hands its users over"),
    kind("restarting", Notice, "the node is restarted; its users stay its own"),
    kind("asked", Notice, "an operator asked for something, and it was begun or done"),
    kind(
        "rule",
        Warning,
        "an event was one that has this node fail over (`failover_on_events`), and that was begun",
    ),
    kind("rule-refused", Warning, "an event was one that has this node fail over, and that could not be"),
    kind(
        "state",
        Info,
        "another row of the table of states holds; *warning* where it asks for something to be done",
    ),
    kind("failover-began", Notice, "the users of a node are on their way to its backup"),
    kind("failover-complete", Warning, "they are served by the backup"),
    kind("failover-ended", Warning, "it came to nothing; they are served at home"),
    kind("failover-found", Warning, "a node that starts finds its users served by the backup"),
    kind("fallback-began", Notice, "the users of a node are on their way back to it"),
    kind("fallback-complete", Notice, "they are served at home"),
    kind("fallback-ended", Warning, "it came to nothing; they are served by the backup"),
    kind(
        "move-paused",
        Warning,
        "a failover, a fallback or a rebalance waits, because of an alarm that says that going on would do harm",
    ),
    kind("move-resumed", Notice, "that alarm has cleared, and it goes on"),
    kind("service-down", Error, "a critical service of the node does not run, or does not do its work"),
    kind("service-up", Notice, "it does again"),
    kind(
        "service-restarted",
        Warning,
        "it does not do its work, and is restarted: by its supervisor, by the operator, or for a fallback or recover",
    ),
    kind("recovered", Notice, "the failed mode of both nodes was ended"),
    kind(
        "clients-call",
        Warning,
        "clients of the other node log in at this one with sessions that they had there, and it is silent: it is held to be gone; or it is heard and answers none of them: it is asked to fail over",
    ),
    kind(
        "failover-refused",
        Warning,
        "the other node asked this one to fail over for clients that wait there, and it does not: it answers clients, or the operator stopped a critical service of it, which has a delay of its own; at most once in ten minutes",
    ),
    kind("ha-enabled", Notice, "high availability was enabled for the group"),
    kind("ha-disabled", Warning, "it was disabled: nobody takes over"),
    kind(
        "rebalanced",
        Notice,
        "users were assigned to the other node, each its share; or that was broken off",
    ),
    kind("peer-down", Error, "the other node is held to be gone"),
    kind("peer-restarts", Notice, "the other node is restarted, and nobody takes over meanwhile"),
    kind("peer-up", Notice, "the other node is heard, and the link is up in both directions"),
    kind("unprotected", Warning, "users are served without a standby"),
    kind("path-down", Warning, "only the path between the nodes is down: clients see both"),
    kind("forced", Critical, "an operator forced the node active or inactive, or took that back"),
    kind("tail-set-aside", Warning, "the end of a log was set aside, and what only this node had was merged"),
    kind(
        "roster-full",
        Warning,
        "what a user did to a roster at the node that yielded after a cut is not merged: the roster is full",
    ),
    kind(
        "store-failed",
        Error,
        "the store failed, or does not fit to the logs, and begins anew; the node serves on",
    ),
    kind("checked", Info, "a check found the store and the peer's copies to be what they should be"),
    kind("check-failed", Error, "it found something else; `tandem status` says what to do"),
    kind("resynced", Warning, "the node lacked what its logs do not reach, and the peer has sent everything"),
    kind("disk-stalled", Critical, "the disk does not answer: nothing is acknowledged"),
    kind("input-refused", Error, "an input was refused that was being handled when nodes crashed"),
    kind("gave-up", Critical, "the node ends because it cannot go on and its peer can"),
    kind("reloaded", Notice, "the configuration was read again"),
    kind("alarm", Warning, "something is to be looked at soon; *critical* where users wait"),
    kind("alarm-ended", Notice, "it is well again"),
];

/// How much a kind matters; what is not in the list does not.
pub fn severity(name: &str) -> Severity {
    KINDS.iter().find(|kind| kind.name == name).map_or(Info, |kind| kind.severity)
}

/// The page `docs/events.md`.
pub fn page() -> String {
    let line = |kind: &Kind| format!("| `{}` | {} | {} |\n", kind.name, kind.severity, kind.when);
    let kinds: String = KINDS.iter().map(line).collect();
    format!(
        "# Events\n\n\
         Each node writes down what happens to the pair, as it sees it; a node that was dead writes its own when it is back. \
         `tandem events` shows them, `--follow` goes on, and `GET /v1/events` gives them to programs; [notify.md](notify.md) \
         says how somebody is told. An event has a number, which counts up from 1 on each node without gaps, a severity, and \
         the row of [the table of states](srm-states.md) that holds from then on with the states of both nodes: of a node \
         that has just started the row that it starts in, 101 as a rule, or 121 without a peer; where it matters also its \
         cause, how many users were moved, how long it took in milliseconds, and who asked for it and where (`alice at node a`). \
         The name is the one that the request bears: a claim for the record, which nobody has proved. The node that was asked \
         shows it; the other one shows only where it was asked for (`admin API of a`), as does either where the request bore \
         none.\n\n\
         They stand in the folder of `[node] data`, one object of JSON a line, in `events.jsonl` and the older \
         `events.old.jsonl`, each of at most 4 MiB. The last {} can be asked for.\n\n\
         Causes: `operator`, `automatic`, `scheduled`, `a rule on another event`, `node stopped or crashed`, `network`, \
         `clients logging in at the inactive node`, `node not heard during start`, `service stopped`, `database`.\n\n\
         | event | severity | when |\n|---|---|---|\n{kinds}\n\
         This page is generated from the list that the nodes use.\n",
        super::journal::RECENT
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `TANDEM_WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_is_the_list() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
        if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(written == page(), "write it anew: TANDEM_WRITE_DOCS=1 cargo test -p srm events");
    }

    #[test]
    fn names_are_unique_and_known() {
        for kind in KINDS {
            assert_eq!(KINDS.iter().filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
            assert!(kind.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
        assert_eq!((severity("peer-down"), severity("unheard-of")), (Error, Info));
    }
}
